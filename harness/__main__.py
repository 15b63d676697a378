"""The console script, which is also `python -m boltzbench.harness`."""

import gc
from typing import NoReturn


def main() -> NoReturn:
    """Starts the command line with the garbage collector at rest.

    Collecting over all that torch creates on import, and once more when the interpreter ends, takes a third of the
    time of a short command such as `list`.
    """
    gc.disable()
    from . import cli

    gc.freeze()
    gc.enable()
    try:
        cli.main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
