"""The command `doctor`: what this machine has, what is missing, and what mends it."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ...api.messages import describe_error
from ...report.tables import counted
from ...report.terminal import outputs
from ...results.environment import describe, resolve_device
from ...results.file import SCHEMA
from ..options import Json

if TYPE_CHECKING:
    from .examine import Finding

STYLES = {"ok": "green", "note": "yellow", "absent": "dim", "broken": "bold red"}


def doctor(json_file: Json = None) -> None:
    """Show what this machine has for kernels and timing, what is missing or broken, and the command that mends it."""
    from . import examine  # imported late: `--help` does not need it

    parts = examine.python, examine.gpu, examine.toolkit, examine.compilers, examine.host, examine.plugins
    with outputs(json_file) as (console, write_json):
        found = [each for part in parts for each in _examined(part)]
        console.print(_table(found))
        console.print(_closing_line(found))
        whole = {"schema": SCHEMA, "status": "complete", "environment": _environment()}
        write_json(json.dumps({**whole, "findings": [asdict(each) for each in found]}, indent=1) + "\n")
    raise typer.Exit(1 if any(each.status == "broken" for each in found) else 0)


def _environment() -> dict[str, Any]:
    """As in other results; empty if torch cannot be imported, which is a finding."""
    try:
        return describe(resolve_device("cpu"))
    except Exception:
        return {}


def _examined(part: Callable[[], Iterator["Finding"]]) -> list["Finding"]:
    """The findings of a part. What goes wrong in it is one of them, so that the others are shown."""
    from .examine import Finding

    found: list[Finding] = []
    try:
        for each in part():
            found.append(each)
    except Exception as error:
        found.append(Finding(part.__name__, "broken", describe_error(error), "report it, if the message does not help"))
    return found


def _table(found: Sequence["Finding"]) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in found:
        status = each.status.upper() if each.status == "broken" else each.status
        text = Text(each.text)
        if each.mend:
            text.append(f"\n-> {each.mend}", style="bold" if each.status == "broken" else "")
        table.add_row(Text(each.name), Text(status, style=STYLES[each.status]), text)
    return table


def _closing_line(found: Sequence["Finding"]) -> str:
    broken, notes, absent = (
        [each.name for each in found if each.status == status] for status in ("broken", "note", "absent")
    )
    parts = [f"{counted(len(notes), 'thing')} may disturb times: {', '.join(notes)}."] if notes else []
    parts += [f"Not here: {', '.join(absent)}."] if absent else []
    first = f"Broken: {', '.join(broken)}." if broken else "Nothing is broken."
    return " ".join([first, *parts])
