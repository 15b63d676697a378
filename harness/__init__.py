"""Checks and times kernels, and any callable. Plugins import only the names of this package; the rest serves the
command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.ceilings import RESOURCES, Ceiling
    from .api.distributed import DistributedAlgorithm, DistributedRun
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
    from .api.statistics import all_of, chi_square, mean_of_draws, within
    from .callables.bounds import Bound, bound
    from .callables.compare import Compared, compare
    from .callables.measure import measure
    from .callables.measured import Measured, NotMeasured
    from .callables.save import save
    from .callables.sweep import Sweep, sweep

__all__ = [
    "API_VERSION",
    "RESOURCES",
    "Advance",
    "Agreement",
    "Bound",
    "Case",
    "CaseOptions",
    "Ceiling",
    "Claim",
    "Compared",
    "Compiled",
    "Cost",
    "Curve",
    "DistributedAlgorithm",
    "DistributedRun",
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
    "Measured",
    "NotMeasured",
    "Operation",
    "Picture",
    "Plot",
    "Projection",
    "Sampler",
    "Status",
    "Sweep",
    "Target",
    "Temperature",
    "Tensors",
    "Unsupported",
    "Variant",
    "all_of",
    "bound",
    "chi_square",
    "compare",
    "hookimpl",
    "mean_of_draws",
    "measure",
    "save",
    "sweep",
    "temperature_at",
    "within",
]


_MODULES = {
    name: module
    for module, names in {
        "api.ceilings": ("RESOURCES", "Ceiling"),
        "api.distributed": ("DistributedAlgorithm", "DistributedRun"),
        "api.experiments": ("Curve", "Estimate", "Experiment", "Findings", "Picture", "Plot"),
        "api.hookspecs": ("hookimpl",),
        "api.records": ("Claim",),
        "api.samplers": ("Dynamics", "ExactLaw", "Projection", "Sampler", "Target", "Temperature", "temperature_at"),
        "api.statistics": ("all_of", "chi_square", "mean_of_draws", "within"),
        "callables.bounds": ("Bound", "bound"),
        "callables.compare": ("Compared", "compare"),
        "callables.measure": ("measure",),
        "callables.measured": ("Measured", "NotMeasured"),
        "callables.save": ("save",),
        "callables.sweep": ("Sweep", "sweep"),
    }.items()
    for name in names
}
"""The module that defines each name of ``__all__``; names not listed are in `api.operations`."""


def __getattr__(name: str) -> Any:
    """Imports a name on first use: pytest loads a module of this package in every project, and `list` needs no
    scipy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES.get(name, 'api.operations')}", __name__), name)
