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
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ..api.messages import UsageError, printable
from ..inspection.inputs import KernelInputError
from ..inspection.tools import ToolMissing
from ..report.terminal import lost_output
from ..results.file import ResultsError
from ..scaffold.package import NewPackageError
from .bench import bench
from .check import check
from .cluster.merge import merge
from .cluster.submit import submit
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


class _ReadableHelp:
    """`--help` shows no type beside flags, which take no value, and folds a paragraph where the terminal ends, not
    where the source does."""

    def __init__(self, *arguments: Any, help: str | None = None, **more: Any) -> None:
        paragraphs = [" ".join(each.split()) for each in (help or "").split("\n\n")]
        super().__init__(*arguments, help="\n\n".join(paragraphs), **more)  # type: ignore[call-arg]

    def get_params(self, context: Any) -> list[Any]:
        found: list[Any] = super().get_params(context)  # type: ignore[misc]
        for each in found:
            if getattr(each, "is_flag", False):
                each.metavar = ""
        return found


class _Group(_ReadableHelp, TyperGroup):
    pass


class _Command(_ReadableHelp, TyperCommand):
    pass


app = typer.Typer(
    cls=_Group,
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
    """The arguments with ``--config FILE``, which belongs to all commands, in front of the command.

    What follows ``--`` belongs to the command of `submit`.
    """
    for place, each in enumerate(arguments):
        if each == "--":
            break
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


app.command(cls=_Command)(check)
app.command(cls=_Command)(bench)
app.command(cls=_Command)(run)
app.command(cls=_Command)(new)
app.command("list", cls=_Command)(list_)
app.command(cls=_Command)(report)
app.command(cls=_Command)(compare)
app.command(cls=_Command)(history)
app.command(cls=_Command)(merge)
app.command(cls=_Command)(submit)
app.command(cls=_Command)(validate)
app.command(cls=_Command)(inspect)
app.command(cls=_Command)(doctor)
app.command(cls=_Command)(distributed)
