"""Experiments, and what they find: estimates, plots and pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import ConfigDict

from .operations import Status


@dataclass(frozen=True)
class Estimate:
    """A number that an experiment measured, beside the exact one.

    It is held to ``exact`` within ``bound`` where that is given, or else by a z-test with its standard error
    ``stderr``. An experiment that has no exact answer leaves ``exact`` None: the number is told, not judged. What
    follows ``bound`` is the verdict, which the harness fills in; ``status`` stays None for what is not judged.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    claim: str
    measured: float
    stderr: float | None = None
    exact: float | None = None
    bound: float | None = None
    status: Status | None = None
    message: str = ""
    z: float | None = None
    p_value: float | None = None
    false_alarm: float | None = None


@dataclass(frozen=True)
class Curve:
    """Points of a plot. A curve that is ``exact``, or a formula, is drawn as a line, a measured one as symbols with
    bars of one ``stderr``."""

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    stderr: tuple[float, ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves that share their axes, whose titles carry the units."""

    title: str
    x_title: str
    y_title: str
    curves: tuple[Curve, ...]
    x_log: bool = False
    y_log: bool = False


@dataclass(frozen=True)
class Picture:
    """Rows of brightness, 0 (black) to 1 (white), from the top."""

    title: str
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Findings:
    """What an experiment found out."""

    estimates: tuple[Estimate, ...]
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A question of statistical mechanics or learning that is put to the kernels as a whole.

    ``run(device, seed)`` computes on ``device``, from ``seed`` alone: in 10 seconds or so on a CPU of two cores, at
    full size on a GPU.
    """

    name: str
    summary: str
    source: str
    run: Callable[[torch.device, int], Findings]
    plugin: str = ""
