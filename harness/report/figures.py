"""The plots of a report as plain figures for plotly.js: no colour of text or ground, which the page's style sets."""

import html
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..api.ceilings import RESOURCES
from ..api.experiments import Picture, Plot
from ..api.records import Measurement, Standing
from .rows import BASELINE, Row, items_rate, number, percent
from .tables import si

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C")
"""Okabe and Ito's colours without black and yellow, which vanish on one of the two grounds, and a grey."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "pentagon", "star", "hexagon", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

QUANTITIES = ("items", "bytes", "flops")
"""What throughput can be counted in; the page lets its reader choose."""

GREYS = ((0, "#000000"), (1, "#ffffff"))
ROOF = "#8C8C8C"
LABEL_DECADES = 0.25
"""Roofs nearer than this share one label, which would else be printed over another."""

Figure = dict[str, Any]
Style = Mapping[str, str]


def styles(implementations: Iterable[str]) -> dict[str, Style]:
    """A colour, a symbol and a dash for each: no two are told apart by colour alone."""
    return {
        name: {
            "colour": COLOURS[place % len(COLOURS)],
            "symbol": SYMBOLS[place % len(SYMBOLS)],
            "dash": DASHES[place % len(DASHES)],
        }
        for place, name in enumerate(dict.fromkeys(implementations))
    }


def throughput(rows: Sequence[Row], styles: Mapping[str, Style], several: bool) -> list[Figure]:
    """Items/s against size for one operation: a figure for each dtype and scenario that has several sizes.

    Cases that have no series to belong to share a last figure, as points. ``several`` runs are told apart by name.
    """
    series: dict[str, list[Row]] = {}
    for row in rows:
        if row.measurement and _drawable(row.measurement.items_per_second) and _total(row.record.sizes) > 0:
            series.setdefault(_kind(row), []).append(row)
    groups = {kind: own for kind, own in series.items() if len({row.record.case for row in own}) > 1}
    alone = [row for kind, own in series.items() if kind not in groups for row in own]
    if alone:
        groups["single sizes" if groups else ""] = alone
    return [_against_size(kind, own, styles, several, joined=own is not alone) for kind, own in groups.items()]


def roofline(
    rows: Sequence[Row], ceilings: Mapping[str, float], styles: Mapping[str, Style], span: tuple[float, float]
) -> Figure:
    """Operations/s against operations/byte for one operation of one run, under the ceilings that were measured.

    ``span`` is the range of the horizontal axis, so that all operations of a run share it: see `intensity_span`.
    """
    traces = []
    for (_, name, mode), own in _grouped(rows).items():
        points = [(row, intensity) for row in own if (intensity := _intensity(row.measurement)) is not None]
        if points:
            traces.append(
                {
                    "x": [intensity for _, intensity in points],
                    "y": [row.measurement.flops_per_second for row, _ in points if row.measurement],
                    "hovertext": [_hover(row) for row, _ in points],
                    "mode": "markers",
                    **_look(name, mode, styles[name]),
                }
            )
    if not traces:
        return {}
    return {
        "data": [*_roofs(ceilings, span), *_one_entry_each(traces)],
        "layout": {
            "xaxis": {"type": "log", "title": {"text": "flop per byte"}, "range": [math.log10(x) for x in span]},
            "yaxis": {**_log_axis("flop/s"), "dtick": 1},
        },
    }


def intensity_span(rows: Sequence[Row], ceilings: Mapping[str, float]) -> tuple[float, float] | None:
    """From below the lowest to above the highest of the kernels' intensities and the roofs' corners."""
    found = [intensity for row in rows if (intensity := _intensity(row.measurement)) is not None]
    memory, flat = _memory(ceilings), _flat(ceilings)
    corners = [rate / bandwidth for rate in flat.values() for bandwidth in memory.values()]
    return (min(found + corners) / 4, max(found + corners) * 4) if found else None


def energy_traces(standings: Sequence[Standing], styles: Mapping[str, Style]) -> Figure:
    """The mean energy of the chains after each step: a line for each sampler. Nothing if none was recorded."""
    traces = []
    for each in standings:
        if each.efficiency is None or not each.efficiency.energy_trace:
            continue
        energies = [float(f"{energy:.6g}") for energy in each.efficiency.energy_trace]
        look = styles[each.sampler]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": _escaped(each.sampler),
                "x": list(range(1, len(energies) + 1)),
                "y": [energy if math.isfinite(energy) else None for energy in energies],
                "line": {"color": look["colour"], "dash": look["dash"], "width": 1.5},
                "hovertemplate": "%{fullData.name}, step %{x}: %{y}<extra></extra>",
            }
        )
    axes = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "mean energy of the chains"}}}
    return {"data": traces, "layout": axes} if traces else {}


def curves(plot: Plot) -> Figure:
    """An experiment's plot: lines for what is exact, symbols with bars of one standard error for what is measured.

    A measured curve has the colour of the exact one of its name.
    """
    names = list(dict.fromkeys(curve.name for curve in plot.curves))
    measured = {curve.name for curve in plot.curves if not curve.exact}
    traces = []
    for curve in plot.curves:
        place = names.index(curve.name)
        colour = COLOURS[place % len(COLOURS)]
        trace: Figure = {
            "type": "scatter",
            "name": _escaped(f"{curve.name}, exact" if curve.exact and curve.name in measured else curve.name),
            "x": [_finite(x) for x in curve.x],
            "y": [_finite(y) for y in curve.y],
        }
        if curve.exact:
            trace |= {"mode": "lines", "line": {"color": colour, "width": 1.5}}
        else:
            symbol = SYMBOLS[place % len(SYMBOLS)]
            trace |= {"mode": "markers", "marker": {"color": colour, "symbol": symbol, "size": 8}}
            if curve.stderr:
                bars = [_finite(each) for each in curve.stderr]
                trace["error_y"] = {"type": "data", "array": bars, "color": colour, "thickness": 1.2}
        traces.append(trace)
    axes = {
        "xaxis": _log_axis(_escaped(plot.x_title)) if plot.x_log else {"title": {"text": _escaped(plot.x_title)}},
        "yaxis": _log_axis(_escaped(plot.y_title)) if plot.y_log else {"title": {"text": _escaped(plot.y_title)}},
    }
    return {"data": traces, "layout": axes}


def image(picture: Picture) -> Figure:
    """An experiment's picture, from black to white."""
    height, width = len(picture.rows), len(picture.rows[0])
    hidden = {"visible": False, "constrain": "domain"}
    heat = {"type": "heatmap", "z": picture.rows, "colorscale": GREYS, "showscale": False}
    return {
        "data": [{**heat, "zmin": 0, "zmax": 1, "hoverinfo": "skip", "showlegend": False}],
        "layout": {
            "xaxis": {**hidden, "range": [-0.5, width - 0.5]},
            "yaxis": {**hidden, "range": [height - 0.5, -0.5], "scaleanchor": "x"},
        },
    }


def time_ratios(rows: Sequence[Row], styles: Mapping[str, Style]) -> Figure:
    """The medians over those of the earlier run: a line of points for each operation and implementation."""
    lines = sorted({(row.record.operation, list(styles).index(row.record.implementation)) for row in rows})
    labels = {(of, list(styles)[place]): _escaped(f"{of}\n{list(styles)[place]}") for of, place in lines}
    traces = []
    for (_, name, mode), own in _grouped(rows).items():
        traces.append(
            {
                "x": [row.time_ratio for row in own],
                "y": [labels[row.record.operation, name] for row in own],
                "hovertext": [_hover(row) for row in own],
                "mode": "markers",
                **_look(name, mode, styles[name]),
                "showlegend": False,
            }
        )
    line = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": ROOF, "width": 1}}
    return {
        "data": traces,
        "layout": {
            "xaxis": _log_axis("time over the earlier run's; right of 1 is slower"),
            "yaxis": {
                "type": "category",
                "categoryorder": "array",
                "categoryarray": list(labels.values()),
                "range": [len(labels) - 0.5, -0.5],
            },
            "shapes": [line],
            "height": 100 + 40 * len(labels),
        },
    }


def _against_size(kind: str, rows: Sequence[Row], styles: Mapping[str, Style], several: bool, joined: bool) -> Figure:
    axis, title = _size_axis([row.record.sizes for row in rows])
    # Rows/s of rows that grow longer fall as they must: there bytes/s tell more.
    default = "items" if axis is None else "bytes"
    traces = []
    for (run, name, mode), own in _grouped(rows).items():
        points = sorted(own, key=lambda row: (_size(row, axis), row.record.case))
        rates = {quantity: [_rate(row, quantity) for row in points] for quantity in QUANTITIES}
        traces.append(
            {
                "x": [_size(row, axis) for row in points],
                "y": rates[default],
                "meta": rates,
                "hovertext": [_hover(row) for row in points],
                "mode": "lines+markers" if joined else "markers",
                **_look(name, mode, styles[name], run if several else None),
            }
        )
    units = sorted({row.measurement.unit for row in rows if row.measurement})
    titles = {"items": f"{_escaped(' or '.join(units))}/s", "bytes": "B/s", "flops": "flop/s"}
    return {
        "title": kind,
        "data": _one_entry_each(traces),
        "layout": {"xaxis": _log_axis(title), "yaxis": _log_axis(titles[default]), "meta": titles},
    }


def _rate(row: Row, quantity: str) -> float | None:
    rate: float = getattr(row.measurement, f"{quantity}_per_second")
    return rate if _drawable(rate) else None


def _look(name: str, mode: str, style: Style, run: int | None = None) -> Figure:
    """A filled symbol and a thick line is cold, an open one and a thin line is hot. Several runs differ in dash."""
    symbol = style["symbol"] if mode == "cold" else f"{style['symbol']}-open"
    dash = style["dash"] if run is None else DASHES[run % len(DASHES)]
    colour = style["colour"]
    return {
        "type": "scatter",
        "name": _escaped(name if run is None else f"{name}, run {run + 1}"),
        "hoverinfo": "text",
        "marker": {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.5, "color": colour}},
        "line": {"color": colour, "dash": dash, "width": 2 if mode == "cold" else 1},
    }


def _one_entry_each(traces: Sequence[Figure]) -> list[Figure]:
    """The traces with one entry in the legend for those of one name, which it shows and hides together."""
    names: set[str] = set()
    marked = []
    for trace in traces:
        marked.append({**trace, "legendgroup": trace["name"], "showlegend": trace["name"] not in names})
        names.add(trace["name"])
    return marked


def _size_axis(sizes: Sequence[Mapping[str, int]]) -> tuple[str | None, str]:
    """The size that tells most cases apart, and the axis title. None is the product of all, taken if none is better.

    Rows by columns of a constant number of elements: the columns, although their product is the usual choice.
    """
    common = [name for name in sizes[0] if all(name in each for each in sizes)]
    best: str | None = None
    most = len({_total(each) for each in sizes})
    for name in reversed(common):
        distinct = Counter(each[name] for each in sizes if each[name] > 0)
        if len(distinct) > most:
            best, most = name, len(distinct)
    if best is not None:
        return best, best
    varying = [name for name in common if len({each[name] for each in sizes}) > 1] or common
    return None, _escaped(" * ".join(common if len(varying) != 1 else varying)) or "size"


def _size(row: Row, axis: str | None) -> int:
    return _total(row.record.sizes) if axis is None else row.record.sizes[axis]


def _total(sizes: Mapping[str, int]) -> int:
    return math.prod(sizes.values())


def _kind(row: Row) -> str:
    """What a series has in common: the scenario, which begins the case's label, and the dtype."""
    sizes = " ".join(f"{name}={value}" for name, value in row.record.sizes.items())
    scenario = row.record.case.split(sizes)[0].strip() if sizes else row.record.case
    return f"{scenario} {row.record.dtype}".strip()


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
    """A line with its label above it, near the corner: kernels lie below the highest roof and away from corners."""
    return {
        "type": "scatter",
        "name": name,
        "x": x,
        "y": y,
        "mode": "lines+text",
        "text": ["", label, ""],
        "textposition": "top left" if dash == "solid" else "top right",
        "hovertext": [f"{name}: {si(value, RESOURCES[name])}"] * 3,
        "hoverinfo": "text",
        "showlegend": False,
        "line": {"color": ROOF, "width": 1.5, "dash": dash},
    }


def _labelled(ceilings: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Each ceiling with its label; of ceilings that lie close together the highest carries the names of all."""
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
    return {name: value for name, value in ceilings.items() if name in ("read", "copy") and _drawable(value)}


def _flat(ceilings: Mapping[str, float]) -> dict[str, float]:
    return {name: rate for name, rate in ceilings.items() if RESOURCES.get(name) == "flop/s" and _drawable(rate)}


def _intensity(measurement: Measurement | None) -> float | None:
    if measurement is None:
        return None
    flops, moved = measurement.flops_per_second, measurement.bytes_per_second
    return flops / moved if _drawable(flops) and _drawable(moved) else None


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _drawable(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _hover(row: Row) -> str:
    each = row.measurement
    assert each is not None
    lines = [f"{row.record.operation}, {row.record.implementation}, {each.mode}", *textwrap.wrap(row.record.case, 36)]
    lines.append(f"{si(each.median, 's')}, {items_rate(each)}")
    lines.append(f"{si(each.bytes_per_second, 'B/s')}, {si(each.flops_per_second, 'flop/s')}")
    if each.roofline_share is not None:
        lines.append(f"{percent(each.roofline_share)} of {each.limit}")
    if row.over_torch is not None:
        lines.append(f"{number(row.over_torch)} times the speed of {BASELINE}")
    if row.time_ratio is not None:
        lines.append(f"{row.time_ratio:.4g} times the earlier time")
    return "<br>".join(_escaped(line) for line in [*lines, *row.warnings])


def _escaped(text: str) -> str:
    """For plotly.js, which reads a few tags and entities in every text."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def _log_axis(title: str) -> Figure:
    return {"type": "log", "title": {"text": title}, "exponentformat": "SI"}


def _grouped(rows: Iterable[Row]) -> dict[tuple[int, str, str], list[Row]]:
    groups: dict[tuple[int, str, str], list[Row]] = {}
    for row in rows:
        if row.measurement:
            groups.setdefault((row.number, row.record.implementation, row.mode), []).append(row)
    return groups
