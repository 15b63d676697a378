"""Checks and times kernels. Plugins import only the names of this package; the rest serves the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.ceilings import RESOURCES, Ceiling
    from .api.experiments import Curve, Estimate, Experiment, Findings, Picture, Plot
    from .api.hookspecs import hookimpl
    from .api.operations import (
        API_VERSION,
        Advance,
        Agreement,
        Case,
        CaseOptions,
        Compiled,
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
        Variant,
    )
    from .api.records import Claim
    from .api.samplers import Dynamics, ExactLaw, Projection, Sampler, Target, Temperature, temperature_at
    from .api.statistics import all_of, chi_square, within

__all__ = [
    "API_VERSION",
    "RESOURCES",
    "Advance",
    "Agreement",
    "Case",
    "CaseOptions",
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
    name: module
    for module, names in {
        "ceilings": ("RESOURCES", "Ceiling"),
        "experiments": ("Curve", "Estimate", "Experiment", "Findings", "Picture", "Plot"),
        "hookspecs": ("hookimpl",),
        "records": ("Claim",),
        "samplers": ("Dynamics", "ExactLaw", "Projection", "Sampler", "Target", "Temperature", "temperature_at"),
        "statistics": ("all_of", "chi_square", "within"),
    }.items()
    for name in names
}
"""The module of `api` that defines each name of ``__all__``; names not listed are in `api.operations`."""


def __getattr__(name: str) -> Any:
    """Imports a name on first use: pytest loads a module of this package in every project, and `list` needs no
    scipy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".api.{_MODULES.get(name, 'operations')}", __name__), name)
