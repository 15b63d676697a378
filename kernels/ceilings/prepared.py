"""What the functions of a ceiling return, and how much data a check handles at a time."""

from collections.abc import Callable

Prepared = tuple[Callable[[], object], Callable[[], str | None]]
"""``(launch, check)``."""

PIECE = 1 << 24
"""Elements that a check handles at a time, so that it needs little memory besides the data."""
