"""Calls `spin_glass.cpp`: annealing of spin glasses on a CPU, by bonds in bit planes or by links."""

import ctypes
from pathlib import Path

from ..native import Keys, NativeModule
from .bonds import CLASSES
from .request import LaunchRequest

MODULE = NativeModule(Path(__file__).with_name("spin_glass.cpp"))


class Bonds(ctypes.Structure):
    """`Bonds` in spin_glass.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("pairs", "starts", "thresholds")),
        *((name, ctypes.c_int64) for name in ("pairs_of_a_site", "total")),
    )


class Links(ctypes.Structure):
    """`Links` in spin_glass.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("first", "links", "fields", "rates")),
        ("exponent", ctypes.c_int64),
        ("unit", ctypes.c_double),
    )


class Settings(ctypes.Structure):
    """`Settings` in spin_glass.cpp."""

    _fields_ = (
        ("keys", Keys),
        *((name, ctypes.c_int64) for name in ("sites", "groups", "first_walker", "first_sweep", "sweeps")),
    )


def anneal(request: LaunchRequest) -> None:
    """Write ``request.out`` and ``request.energies``."""
    sites, groups = request.spins.shape
    bonds, links, schedule = request.glass.bonds, request.glass.links, request.schedule
    heat_bath = int(request.rule == "heat_bath")
    settings = Settings(
        Keys.of(request.seed), sites, groups, request.first_walker, request.first_sweep, schedule.sweeps
    )
    arrays = (request.spins, request.out, request.energies)
    if bonds is None:
        addresses = (each.data_ptr() for each in (links.first, links.links, links.fields, schedule.rates))
        table = Links(*addresses, links.exponent, links.unit)
        MODULE.call("anneal_links", *arrays, heat_bath, table, settings)
        return
    thresholds = schedule.thresholds[request.rule]
    addresses = (each.data_ptr() for each in (bonds.pairs, bonds.starts, thresholds))
    MODULE.call(
        "anneal_bonds", *arrays, CLASSES[request.rule][bonds.size], heat_bath,
        Bonds(*addresses, bonds.pairs.shape[1], bonds.total), settings,
    )  # fmt: skip
