"""Destinations of a command's text, progress and JSON: a terminal, a pipe or a file."""

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ..api.messages import printable
from ..results.file import ResultsError, require_writable, write_text


@contextlib.contextmanager
def outputs(json_file: str | None) -> Iterator[tuple[Console, Callable[[str], None]]]:
    """A console for people, and a function that writes the JSON text.

    ``json_file`` is a path, ``-`` for standard output, or None for no JSON. Raises ResultsError at once, before
    anything runs, if the file cannot be written.
    """
    if json_file == "-":
        with _clean_standard_output() as stream:
            yield plain_console(stderr=True), stream
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


def text_of(what: RenderableType, width: int = 80) -> str:
    """What a console of this width would print, without colours."""
    with (
        console := _PlainConsole(markup=False, highlight=False, emoji=False, width=width, file=io.StringIO())
    ).capture() as printed:
        console.print(what)
    return "\n".join(line.rstrip() for line in printed.get().rstrip().splitlines())


def lost_output() -> str | None:
    """Why standard output or standard error takes no more text (a full disk); None if both are intact.

    What they could not take is dropped, since Python would try again at its end and print a traceback.
    """
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        try:
            if (stream := getattr(sys, name)) is not None:
                stream.flush()
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
            return f"cannot write the output: {error.strerror}"
    return None


@contextlib.contextmanager
def _clean_standard_output() -> Iterator[Callable[[str], None]]:
    """Yield a function that writes to standard output.

    All other writes to it (Python, C, child processes) go to standard error.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)

    def write(text: str) -> None:
        left = memoryview(text.encode())
        try:
            while left:
                left = left[os.write(kept, left) :]
        except OSError as error:
            raise ResultsError(f"cannot write standard output: {error.strerror}") from error

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield write
    finally:
        ctypes.CDLL(None).fflush(None)  # the buffered output of a kernel's printf must not follow the JSON
        os.dup2(kept, 1)
        os.close(kept)
