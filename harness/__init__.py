"""Judging and timing kernels: what a plugin imports is here; the rest serves the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hookspecs import hookimpl
    from .laws import all_of, chi_square, within
    from .types import (
        API_VERSION,
        RESOURCES,
        Advance,
        Agreement,
        Case,
        Ceiling,
        Cost,
        Expected,
        Implementation,
        Inputs,
        Launch,
        Law,
        Operation,
        Status,
        Tensors,
        Unsupported,
    )

__all__ = [
    "API_VERSION",
    "RESOURCES",
    "Advance",
    "Agreement",
    "Case",
    "Ceiling",
    "Cost",
    "Expected",
    "Implementation",
    "Inputs",
    "Launch",
    "Law",
    "Operation",
    "Status",
    "Tensors",
    "Unsupported",
    "all_of",
    "chi_square",
    "hookimpl",
    "within",
]


def __getattr__(name: str) -> Any:
    """Everything is imported on first use: pytest loads a module of this package in every project, and `list` needs
    no scipy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"hookimpl": ".hookspecs", "all_of": ".laws", "chi_square": ".laws", "within": ".laws"}.get(name, ".types")
    return getattr(importlib.import_module(module, __name__), name)
