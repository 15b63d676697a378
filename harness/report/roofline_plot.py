"""The roofline: operations/s against operations per byte, under the measured ceilings."""

import math
from collections.abc import Mapping, Sequence

from ..api.ceilings import RESOURCES
from ..api.records import Measurement
from .plot_parts import GREY, Figure, Style, by_trace, drawable, hover, log_axis, look, one_legend_entry_each
from .rows import Row
from .tables import ceiling_rate

LABEL_DECADES = 0.25
"""Ceilings closer than this share one label, because two labels would overlap."""


def roofline(
    rows: Sequence[Row], ceilings: Mapping[str, float], styles: Mapping[str, Style], span: tuple[float, float]
) -> Figure:
    """The roofline of one operation in one run.

    ``span`` is the range of the horizontal axis, which all operations of a run share: see `intensity_span`.
    """
    traces = []
    for (_, name, mode), own in by_trace(rows).items():
        points = [(row, intensity) for row in own if (intensity := _intensity(row.measurement)) is not None]
        if points:
            traces.append(
                {
                    "x": [intensity for _, intensity in points],
                    "y": [row.measurement.flops_per_second for row, _ in points if row.measurement],
                    "hovertext": [hover(row) for row, _ in points],
                    "mode": "markers",
                    **look(name, mode, styles[name]),
                }
            )
    if not traces:
        return {}
    return {
        "data": [*_roofs(ceilings, span), *one_legend_entry_each(traces)],
        "layout": {
            "xaxis": {"type": "log", "title": {"text": "flop per byte"}, "range": [math.log10(x) for x in span]},
            "yaxis": {**log_axis("flop/s"), "dtick": 1},
        },
    }


def intensity_span(rows: Sequence[Row], ceilings: Mapping[str, float]) -> tuple[float, float] | None:
    """A range that covers all intensities of the kernels and all corners of the roofs. None without kernels."""
    found = [intensity for row in rows if (intensity := _intensity(row.measurement)) is not None]
    memory, flat = _memory(ceilings), _flat(ceilings)
    corners = [rate / bandwidth for rate in flat.values() for bandwidth in memory.values()]
    return (min(found + corners) / 4, max(found + corners) * 4) if found else None


def _roofs(ceilings: Mapping[str, float], span: tuple[float, float]) -> list[Figure]:
    left, right = span
    memory, flat = _memory(ceilings), _flat(ceilings)
    lines = []
    for name, bandwidth, label in _labelled(memory):
        end = min(right, max(flat.values()) / bandwidth) if flat else right
        x = [left, end / 2, end]
        lines.append(_roof(name, x, [each * bandwidth for each in x], label, bandwidth, "solid"))
    for name, rate, label in _labelled(flat):
        start = max(left, rate / max(memory.values())) if memory else left
        lines.append(_roof(name, [start, 2 * start, right], [rate] * 3, label, rate, "dash"))
    return lines


def _roof(name: str, x: list[float], y: list[float], label: str, value: float, dash: str) -> Figure:
    """A line with its label above it near the corner, where no kernels lie."""
    return {
        "type": "scatter",
        "name": name,
        "x": x,
        "y": y,
        "mode": "lines+text",
        "text": ["", label, ""],
        "textposition": "top left" if dash == "solid" else "top right",
        "hovertext": [f"{name}: {ceiling_rate(name, value)}"] * 3,
        "hoverinfo": "text",
        "showlegend": False,
        "line": {"color": GREY, "width": 1.5, "dash": dash},
    }


def _labelled(ceilings: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Each ceiling with its label. The highest of several close ceilings carries all their names."""
    found: list[tuple[str, float, str]] = []
    waiting: list[str] = []
    ordered = _sorted(ceilings)
    for place, (name, value) in enumerate(ordered):
        waiting.append(name.removesuffix(" matrix"))
        following = ordered[place + 1][1] if place + 1 < len(ordered) else math.inf
        close = math.log10(following / value) < LABEL_DECADES
        found.append((name, value, "" if close else ", ".join(reversed(waiting))))
        if not close:
            waiting = []
    return found


def _sorted(ceilings: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(ceilings.items(), key=lambda pair: pair[1])


def _memory(ceilings: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in ceilings.items() if name in ("read", "copy") and drawable(value)}


def _flat(ceilings: Mapping[str, float]) -> dict[str, float]:
    return {name: rate for name, rate in ceilings.items() if RESOURCES.get(name) == "flop/s" and drawable(rate)}


def _intensity(measurement: Measurement | None) -> float | None:
    if measurement is None:
        return None
    flops, moved = measurement.flops_per_second, measurement.bytes_per_second
    return flops / moved if drawable(flops) and drawable(moved) else None
