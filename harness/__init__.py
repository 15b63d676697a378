"""Judging and timing kernels: what a plugin imports is here; the rest serves the command line."""

import importlib
from typing import TYPE_CHECKING, Any

from .hookspecs import hookimpl
from .types import (
    API_VERSION,
    Advance,
    Agreement,
    Case,
    Cost,
    Expected,
    Implementation,
    Inputs,
    Launch,
    Law,
    Operation,
    Status,
    Tensors,
)

if TYPE_CHECKING:
    from .laws import all_of, chi_square, within

__all__ = [
    "API_VERSION",
    "Advance",
    "Agreement",
    "Case",
    "Cost",
    "Expected",
    "Implementation",
    "Inputs",
    "Launch",
    "Law",
    "Operation",
    "Status",
    "Tensors",
    "all_of",
    "chi_square",
    "hookimpl",
    "within",
]


def __getattr__(name: str) -> Any:
    """The tests of hypotheses are imported on first use: scipy would double the time that `boltzbench list` takes."""
    if name in ("all_of", "chi_square", "within"):
        return getattr(importlib.import_module(".laws", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
