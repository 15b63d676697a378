"""Destinations of a command's text, progress and JSON: a terminal, a pipe or a file."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ..api.messages import printable
from ..results.file import require_writable, write_text


@contextlib.contextmanager
def outputs(json_file: str | None) -> Iterator[tuple[Console, Callable[[str], None]]]:
    """A console for people, and a function that writes the JSON text.

    ``json_file`` is a path, ``-`` for standard output, or None for no JSON. Raises ResultsError at once, before
    anything runs, if the file cannot be written.
    """
    if json_file == "-":
        with _clean_standard_output() as stream:
            yield plain_console(stderr=True), lambda text: print(text, end="", file=stream)
    elif json_file:
        path = Path(json_file)
        require_writable(path)
        yield plain_console(), lambda text: write_text(path, text)
    else:
        yield plain_console(), lambda text: None


class _PlainConsole(Console):
    """A console that shows control characters in texts instead of sending them to the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, str):
            renderable = printable(renderable)
        elif isinstance(renderable, Text) and (clean := printable(renderable.plain)) != renderable.plain:
            renderable = renderable.copy()
            renderable.plain = clean
        return super().render(renderable, options)


def plain_console(stderr: bool = False) -> Console:
    """A console without markup: labels and messages of plugins may contain brackets, colons and control characters."""
    return _PlainConsole(stderr=stderr, markup=False, highlight=False, emoji=False)


@contextlib.contextmanager
def _clean_standard_output() -> Iterator[TextIO]:
    """Yield the real standard output; redirect all other writes to it (Python, C, child processes) to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr), open(kept, "w", encoding="utf-8", closefd=False) as stream:
            yield stream
    finally:
        ctypes.CDLL(None).fflush(None)  # the buffered output of a kernel's printf must not follow the JSON
        os.dup2(kept, 1)
        os.close(kept)
