"""Options and exit statuses that several commands share, and the TOML file that gives options to all of them."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..api.messages import UsageError, unknown

USAGE = 2
"""Exit status of a command that cannot run as given."""
INTERRUPTED = 130
"""Exit status after Ctrl-C. The command has kept its results so far."""

Operations = Annotated[
    list[str] | None, typer.Option("-o", "--operation", metavar="NAME", help="Only this operation; repeatable.")
]
Implementations = Annotated[
    list[str] | None,
    typer.Option("-i", "--implementation", metavar="NAME", help="Only implementations of this name; repeatable."),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--sizes",
        metavar="AXES",
        help="Cases of these sizes instead of the operation's own: n=64 or n=1,2,4 or n=1:1024:x4 or n=100:500:+100, "
        "more axes after a comma; repeatable.",
    ),
]
Dtypes = Annotated[
    list[str] | None,
    typer.Option("--dtype", metavar="NAME", help="Only cases of this dtype, or that of --sizes; repeatable."),
]
Scenarios = Annotated[
    list[str] | None,
    typer.Option("--scenario", metavar="NAME", help="Only cases of this scenario, or that of --sizes; repeatable."),
]
Cases = Annotated[
    list[str] | None,
    typer.Option(
        "--case", metavar="LABEL", help="Only this case, or those that match, such as '*bfloat16'; repeatable."
    ),
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Only part I of N, which take equally long; a run of its own, for `merge`."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Devices = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, several (cuda:0,cuda:2), or all GPUs.")
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of the data; by default each case has its own.")
]
TimeLimit = Annotated[
    float,
    typer.Option(
        "--time-limit", min=1.0, metavar="SECONDS", help="For one check, one warm-up or one block of samples."
    ),
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")]


PROJECT = Path("pyproject.toml")
"""The file that is read if ``--config`` names none."""


def configure(context: typer.Context, file: Path | None) -> None:
    """Take the options that the command line does not name from the table [tool.boltzbench.COMMAND] of a TOML file.

    Its keys are the names of the command's options. Raises UsageError, which names the file and the key.
    """
    if file is None and not PROJECT.is_file():
        return
    path = file or PROJECT
    tables = _tables(path)
    if file is not None and not tables:
        raise UsageError(f"{path} has no table [tool.boltzbench.COMMAND], such as [tool.boltzbench.bench]")
    commands: Mapping[str, Any] = getattr(context.command, "commands")  # noqa: B009  # a group's
    for name, table in tables.items():
        if name not in commands:
            raise UsageError(f"{path}, [tool.boltzbench]: {unknown('command', name, commands)}")
        if not isinstance(table, dict):
            raise UsageError(f"{path}: tool.boltzbench.{name} should be a table, got {table!r}")
    name = context.invoked_subcommand or ""
    if name in tables:
        place = f"{path}, [tool.boltzbench.{name}]"
        context.default_map = {name: _defaults(context, place, commands[name].params, tables[name])}


def _tables(path: Path) -> dict[str, Any]:
    """The table [tool.boltzbench] of a file."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, or no TOML
        raise UsageError(f"{path} is not a TOML file: {error}") from error
    table: Any = content
    for key in ("tool", "boltzbench"):
        table = table.get(key, {}) if isinstance(table, dict) else table
    if not isinstance(table, dict):
        raise UsageError(f"{path}: tool.boltzbench should be a table, got {table!r}")
    return table


def _defaults(context: typer.Context, place: str, parameters: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table by the names of the command's parameters, which are checked as on the command line."""
    options = {
        key.removeprefix("--"): each
        for each in parameters
        if each.param_type_name == "option"
        for key in (*each.opts, each.name.replace("_", "-"))
        if not key.startswith("-") or key.startswith("--")
    }
    found: dict[str, Any] = {}
    for key, value in table.items():
        option = options.get(key.replace("_", "-"))
        if option is None or key == "help":
            flags = [each.removeprefix("--") for own in options.values() for each in own.opts if each.startswith("--")]
            raise UsageError(f"{place}: {unknown('option', key, flags)}")
        if option.name in found:
            raise UsageError(f"{place}: {key} is named twice")
        several = isinstance(value, list)
        if several and not option.multiple:
            raise UsageError(f"{place}: {key} should be one value, got {value!r}")
        if any(not isinstance(each, str | int | float) for each in (value if several else [value])):
            raise UsageError(f"{place}: {key} should be text or a number, got {value!r}")
        found[option.name] = [value] if option.multiple and not several else value
        try:
            option.process_value(context, found[option.name])
        except Exception as error:  # of the parser's own classes
            raise UsageError(f"{place}: {key}: {getattr(error, 'message', error)}") from error
    return found
