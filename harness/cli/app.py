"""The command line: its commands and its exit status.

0: all agree; 1: something does not agree, or a plugin has a problem; 2: the command cannot run as given;
130: interrupted, with all results so far kept.
"""

import errno
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..api.messages import UsageError, printable
from ..inspection.inputs import KernelInputError
from ..inspection.tools import ToolMissing
from ..report.terminal import lost_output
from ..results.file import ResultsError
from ..scaffold.package import NewPackageError
from .bench import bench
from .check import check
from .distributed import distributed
from .doctor import doctor
from .inspect import inspect
from .list import list_
from .new import new
from .options import USAGE, configure
from .results import compare, history, report
from .run import run
from .validate import validate

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""The errors of a disk that takes no more."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Checks and times kernels for statistical-mechanics machine learning.",
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script. Never returns: exits with the status of the command."""
    status: str | int | None = 0
    lost: str | None = None
    try:
        app(args=_config_first(sys.argv[1:] if arguments is None else arguments), prog_name="boltzbench")
    except (NewPackageError, UsageError, ResultsError, ToolMissing, KernelInputError) as error:
        _complain(str(error))
        status = USAGE
    except SystemExit as exit_:
        status = exit_.code
    except OSError as error:
        if error.errno not in FULL:
            raise
        lost = f"cannot write the output: {error.strerror}"
    if lost := lost_output() or lost:  # what the last write left in the buffer
        _complain(lost)
        status = status or USAGE
    sys.exit(status)


def _config_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--config FILE``, which belongs to all commands, in front of the command."""
    for place, each in enumerate(arguments):
        if each == "--config" or each.startswith("--config="):
            end = place + 1 + (each == "--config")
            return [*arguments[place:end], *arguments[:place], *arguments[end:]]
    return [*arguments]


def _complain(message: str) -> None:
    with suppress(OSError):
        print(printable(f"boltzbench: {message}"), file=sys.stderr, flush=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"boltzbench {version('boltzbench')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML file whose table tool.boltzbench.COMMAND gives options; by default pyproject.toml.",
        ),
    ] = None,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Checks and times kernels for statistical-mechanics machine learning."""
    configure(context, config)


app.command()(check)
app.command()(bench)
app.command()(run)
app.command()(new)
app.command("list")(list_)
app.command()(report)
app.command()(compare)
app.command()(history)
app.command()(validate)
app.command()(inspect)
app.command()(doctor)
app.command()(distributed)
