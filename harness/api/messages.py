"""Sentences that the harness words alike everywhere: a name nobody knows, and an error that somebody's code raised."""

import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UnknownName(ValueError):
    """A name on the command line that nothing answers to. The message gives the names that come nearest."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> UnknownName:
    """The error for a ``name`` that is none of ``valid``; ``kind`` is what it should have named ("operation")."""
    names = sorted(set(valid))
    near = get_close_matches(name, names)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif names:
        hint = f"choose from {', '.join(names)}"
    else:
        hint = "there is none to choose from"
    return UnknownName(f"unknown {kind} {name!r}: {hint}")


def unknown_beside(problems: Iterable[str], kind: str, name: str, valid: Iterable[str]) -> UnknownName:
    """The same where plugins have problems, of which one may be why nothing answers to the name."""
    return UnknownName("\n".join([str(unknown(kind, name, valid)), *problems]))


def describe_error(error: BaseException) -> str:
    """``Type: message; notes (file:line)`` in one line, the place being where the error was raised."""
    message = " ".join("; ".join([str(error), *getattr(error, "__notes__", [])]).split())
    words = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    if not frames or isinstance(error, ImportError):  # an import error's own frame is the importer's
        return words
    return f"{words} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"
