"""The form that every ceiling's kernel is handed over in."""

from collections.abc import Callable

Prepared = tuple[Callable[[], object], Callable[[], str | None]]

PIECE = 1 << 24
"""Elements that a check looks at together, so that it needs little memory beside the data."""
