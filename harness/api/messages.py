"""Messages that several rooms share: for a name that does not exist, and for an error in a plugin's code."""

import importlib
import os
import re
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import pluggy

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, those that change the direction of text, and halves of characters."""


MOST_NAMES, FEW_NAMES = 32, 3
"""A message lists this many names, and of more only a few."""


def printable(text: str) -> str:
    """``text`` with a visible symbol in place of each control character.

    Names and messages come from plugins and files. On a terminal, control characters in them could hide or forge lines.
    """
    return _CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])) if found[0] < " " else "\ufffd", text)


FRAMES = 4
"""Frames of a traceback that `describe_error` shows."""

_NOT_THE_PLUGINS = tuple(
    f"{folder}{os.sep}"
    for folder in (Path(__file__).parents[1], Path(pluggy.__file__).parent, Path(importlib.__file__).parent)
)
"""Where the frames before those of a plugin are: the harness, pluggy and importlib."""


class UsageError(ValueError):
    """A command cannot run as given. The message says why."""


class UnknownName(UsageError):
    """A name that does not exist. The message suggests similar names."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> UnknownName:
    """The error for a ``name`` that is not in ``valid``; ``kind`` is what it should name ("operation")."""
    names = sorted(set(valid))
    near = get_close_matches(name, names)
    comma = "; " if any("," in each for each in names) else ", "
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(names) > MOST_NAMES:
        hint = f"there are {len(names)}, such as {comma.join(names[:FEW_NAMES])}"
    elif names:
        hint = f"choose from {comma.join(names)}"
    else:
        hint = "there is none to choose from"
    return UnknownName(f"unknown {kind} {name!r}: {hint}")


def unknown_beside(problems: Iterable[str], kind: str, name: str, valid: Iterable[str]) -> UnknownName:
    """`unknown`, followed by the ``problems`` of plugins, of which one may be why the name is missing; first those with
    the name in them. If there are such, other names are not proposed."""
    lines = sorted(problems, key=lambda problem: name not in problem)
    if not lines:
        return unknown(kind, name, valid)
    failed = f"A plugin that failed may be why this {kind.split()[0]} is missing:"
    known = f"unknown {kind} {name!r}" if name and name in lines[0] else str(unknown(kind, name, valid))
    return UnknownName("\n".join([known, failed, *lines]))


def in_standard_errors(z: float) -> str:
    """``+3.12``, and ``+4e+105`` for a distance of which only the size matters."""
    return f"{z:+.2f}" if not abs(z) >= 1000 else f"{z:+.0e}"


def describe_error(error: BaseException) -> str:
    """``Type: message; notes (file:line > file:line)`` on one line, with the way from the plugin to the error.

    The harness's frames are left out, and of many frames those in the middle.
    """
    message = " ".join("; ".join(filter(None, [str(error), *getattr(error, "__notes__", [])])).split())
    words = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    if not frames or isinstance(error, ImportError | SyntaxError):  # their frame is in the importer
        return words
    way = [f for f in frames[:-1] if not f.filename.startswith(_NOT_THE_PLUGINS)] + frames[-1:]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in way]
    if len(places) > FRAMES:
        places[FRAMES // 2 : -(FRAMES // 2)] = ["..."]
    return f"{words} ({' > '.join(places)})"
