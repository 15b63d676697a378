"""Experiments and their results: estimates, plots and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ConfigDict

from .operations import Status

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Estimate:
    """A number that an experiment measured, with the exact value if one is known.

    If ``bound`` is given, the measured value must lie within ``bound`` of ``exact``. Otherwise the harness makes a
    z-test with the standard error ``stderr``, or judges by the ``p_value`` of your own test: where ``stderr`` comes
    from few draws, or the quantity is skewed, a normal tail is wrong. If ``exact`` is None, the number is reported
    without a verdict. The fields after ``bound`` except ``p_value`` are the verdict, which the harness fills in;
    ``status`` stays None without a verdict.
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
    """Points of a plot. An ``exact`` curve, or a formula, is drawn as a line; a measured one as symbols with error
    bars of one ``stderr``."""

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    stderr: tuple[float, ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves on common axes. The axis titles include the units."""

    title: str
    x_title: str
    y_title: str
    curves: tuple[Curve, ...]
    x_log: bool = False
    y_log: bool = False


@dataclass(frozen=True)
class Picture:
    """Rows of brightness from 0 (black) to 1 (white), the top row first."""

    title: str
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Findings:
    """The results of an experiment."""

    estimates: tuple[Estimate, ...]
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A question of statistical mechanics or machine learning that several kernels together answer.

    ``run(device, seed)`` computes on ``device`` and depends on ``seed`` alone. It should take about 10 seconds on a CPU
    with two cores, and use the full size on a GPU.
    """

    name: str
    summary: str
    source: str
    run: Callable[[torch.device, int], Findings]
    plugin: str = ""
