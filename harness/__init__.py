"""Judging and timing kernels: what a plugin imports is here; the rest serves the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hookspecs import hookimpl
    from .laws import all_of, chi_square, within
    from .sampling import Dynamics, ExactLaw, Projection, Sampler, Target, Temperature, temperature_at
    from .types import (
        API_VERSION,
        RESOURCES,
        Advance,
        Agreement,
        Case,
        Ceiling,
        Claim,
        Compiled,
        Cost,
        Curve,
        Estimate,
        Expected,
        Experiment,
        Findings,
        Implementation,
        Inputs,
        Launch,
        Law,
        Operation,
        Picture,
        Plot,
        Status,
        Tensors,
        Unsupported,
        Variant,
    )

__all__ = [
    "API_VERSION",
    "RESOURCES",
    "Advance",
    "Agreement",
    "Case",
    "Ceiling",
    "Claim",
    "Compiled",
    "Cost",
    "Curve",
    "Dynamics",
    "Estimate",
    "ExactLaw",
    "Expected",
    "Experiment",
    "Findings",
    "Implementation",
    "Inputs",
    "Launch",
    "Law",
    "Operation",
    "Picture",
    "Plot",
    "Projection",
    "Sampler",
    "Status",
    "Target",
    "Temperature",
    "Tensors",
    "Unsupported",
    "Variant",
    "all_of",
    "chi_square",
    "hookimpl",
    "temperature_at",
    "within",
]


_MODULES = {
    "hookimpl": ".hookspecs",
    **dict.fromkeys(("all_of", "chi_square", "within"), ".laws"),
    **dict.fromkeys(("Dynamics", "ExactLaw", "Projection", "Sampler", "Target"), ".sampling"),
    **dict.fromkeys(("Temperature", "temperature_at"), ".sampling"),
}
"""Where a name of ``__all__`` is defined; all others are in `types`."""


def __getattr__(name: str) -> Any:
    """Everything is imported on first use: pytest loads a module of this package in every project, and `list` needs
    no scipy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, ".types"), __name__), name)
