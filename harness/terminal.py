"""Where a command's words, progress and JSON go: a terminal, a pipe or a file."""

import contextlib
import ctypes
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from .results import require_writable, write_text

if TYPE_CHECKING:
    from .session import Step


@contextlib.contextmanager
def progress(console: Console, steps: "Sequence[Step]") -> "Iterator[Callable[[Step], None]]":
    """What is being done, told step by step: a bar on a terminal, elsewhere one line for each operation."""
    if not console.is_terminal:
        told: set[str] = set()

        def tell(step: "Step") -> None:
            name = step.operation.name
            if name not in told:
                told.add(name)
                console.print(f"{name}: {sum(each.operation.name == name for each in steps)} checks")

        yield tell
        return

    # The label takes what the bar leaves of the line, and is cut there: it is the one text that may be.
    label = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True))
    columns = (label, BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("", total=len(steps))
        begun = itertools.count()

        def advance(step: "Step") -> None:
            words = f"{step.operation.name} {step.implementation.name} {step.label}"
            bar.update(task, completed=next(begun), description=words, refresh=True)

        yield advance


@contextlib.contextmanager
def outputs(json_file: str | None) -> Iterator[tuple[Console, Callable[[str], None]]]:
    """A console for people and a function that takes the JSON text, of which ``-`` is standard output, None nowhere.

    A file that cannot be written is refused here, before anything runs.
    """
    if json_file == "-":
        with _clean_standard_output() as stream:
            yield _console(stderr=True), lambda text: print(text, end="", file=stream)
    elif json_file:
        path = Path(json_file)
        require_writable(path)
        yield _console(), lambda text: write_text(path, text)
    else:
        yield _console(), lambda text: None


def _console(stderr: bool = False) -> Console:
    # Plain: the labels and messages of plugins may hold brackets and colons that are not rich's markup.
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


@contextlib.contextmanager
def _clean_standard_output() -> Iterator[TextIO]:
    """The true standard output; meanwhile all else that is written to it, by Python, C or a child, goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr), open(kept, "w", encoding="utf-8", closefd=False) as stream:
            yield stream
    finally:
        ctypes.CDLL(None).fflush(None)  # what a kernel's printf still holds back must not follow the JSON
        os.dup2(kept, 1)
        os.close(kept)
