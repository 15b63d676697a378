"""Judging and timing kernels: what a plugin imports is here; the rest serves the command line."""

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
    "hookimpl",
]
