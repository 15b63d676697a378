"""The console script, which is also `python -m boltzbench.harness`."""

import faulthandler
import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Starts the command line with the garbage collector at rest.

    Collecting over all that torch creates on import, and once more when the interpreter ends, takes a third of the
    time of a short command such as `list`.
    """
    faulthandler.enable()  # a plugin that crashes on import takes this process along, but not without its traceback
    gc.disable()
    try:
        from .cli import app as cli

        gc.freeze()
        gc.enable()
        cli.main()
    except KeyboardInterrupt:  # before a command answers for itself
        sys.exit(130)
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
