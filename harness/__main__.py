"""The console script, also started by `python -m boltzbench.harness`."""

import faulthandler
import gc
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Start the command line with the garbage collector off during imports.

    Collection of the objects that torch creates on import, and again when the interpreter ends, takes a third of the
    time of a short command such as `list`.
    """
    if sys.stderr is not None:  # not closed
        faulthandler.enable()  # a plugin that crashes this process on import leaves a traceback
    gc.disable()
    try:
        from .cli import app as cli

        gc.freeze()
        gc.enable()
        cli.main()
    except KeyboardInterrupt:  # before a command can handle it
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt what runs at exit
        gc.freeze()


if __name__ == "__main__":
    main()
