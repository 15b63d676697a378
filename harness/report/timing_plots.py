"""Plots of measured times: throughput against size, and ratios to an earlier run."""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from .plot_parts import (
    GREY,
    Figure,
    Style,
    by_trace,
    drawable,
    escaped,
    finite,
    hover,
    log_axis,
    look,
    one_legend_entry_each,
)
from .rows import Row
from .tables import grouped, si

QUANTITIES = ("items", "bytes", "flops")
"""Units of throughput that the reader of the page can choose."""
UNITS = {"bytes": "B/s", "flops": "flop/s"}
LABEL = 22
"""Characters in a line of a case's label beside its bars."""
BAR = 20
"""Height of a bar in pixels."""
PATTERNS = ("", "/", "x", "-", "+", ".")
"""The hatches of bars, by run."""


def throughput(rows: Sequence[Row], styles: Mapping[str, Style], several: bool) -> list[Figure]:
    """Items/s for one operation: against size, a figure for each dtype and scenario with several sizes.

    The remaining cases share the last figure, with a bar for each implementation. If there are ``several`` runs, the
    traces name theirs.
    """
    drawn = [
        row
        for row in rows
        if row.measurement and drawable(row.measurement.items_per_second) and _total(row.record.sizes) > 0
    ]
    series = grouped(drawn, _kind)
    groups = {kind: own for kind, own in series.items() if len({row.case for row in own}) > 1}
    alone = [row for kind, own in series.items() if kind not in groups for row in own]
    figures = [_against_size(kind, own, styles, several) for kind, own in groups.items()]
    return figures + ([_bars("single sizes" if groups else "", alone, styles, several)] if alone else [])


def time_ratios(rows: Sequence[Row], styles: Mapping[str, Style]) -> Figure:
    """The medians divided by those of the earlier run: a line of points for each operation and implementation."""
    lines = sorted({(row.record.operation, list(styles).index(row.record.implementation)) for row in rows})
    labels = {(of, list(styles)[place]): escaped(f"{of}\n{list(styles)[place]}") for of, place in lines}
    traces = []
    for (_, name, mode), own in by_trace(rows).items():
        traces.append(
            {
                "x": [row.time_ratio for row in own],
                "y": [labels[row.record.operation, name] for row in own],
                "hovertext": [hover(row) for row in own],
                "mode": "markers",
                **look(name, mode, styles[name]),
                "showlegend": False,
            }
        )
    line = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1}}
    return {
        "data": traces,
        "layout": {
            "xaxis": log_axis("time / earlier time; above 1 is slower"),
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


def _bars(kind: str, rows: Sequence[Row], styles: Mapping[str, Style], several: bool) -> Figure:
    """A bar for each implementation and case: its speed as a fraction of the fastest in that case.

    The least work of a case is the same for all, so the bars are the same in every unit; their texts give the rate.
    """
    fastest: dict[str, float] = {}
    for row in rows:
        fastest[row.case] = max(fastest.get(row.case, 0.0), row.measurement.items_per_second)  # type: ignore[union-attr]
    labels = {case: escaped("\n".join(textwrap.wrap(case, LABEL))) for case in fastest}
    traces = []
    for (run, name, mode), own in by_trace(rows).items():
        rates = {
            quantity: [si(getattr(row.measurement, f"{quantity}_per_second")) for row in own] for quantity in QUANTITIES
        }
        marker: Figure = {"color": styles[name]["colour"], "opacity": 1 if mode == "cold" else 0.5}
        if several:
            marker["pattern"] = {"shape": PATTERNS[run % len(PATTERNS)], "fgcolor": "#ffffff"}
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": escaped(name if not several else f"{name}, run {run + 1}"),
                "x": [finite(row.measurement.items_per_second / fastest[row.case]) for row in own],  # type: ignore[union-attr]
                "y": [labels[row.case] for row in own],
                "text": rates["items"],
                "meta": rates,
                "textposition": "outside",
                "cliponaxis": False,
                "hoverinfo": "text",
                "hovertext": [hover(row) for row in own],
                "marker": marker,
            }
        )
    units = sorted({row.measurement.unit for row in rows if row.measurement})
    titles = {"items": f"{escaped(' or '.join(units))}/s", **UNITS}
    lines = sum(max(BAR * len(traces), 15 * (label.count("<br>") + 1)) + 12 for label in labels.values())
    return {
        "title": kind,
        "data": one_legend_entry_each(traces),
        "layout": {
            "barmode": "group",
            "bargap": 0.2,
            "meta": titles,
            "xaxis": {
                "title": {"text": titles["items"]},
                "range": [0, 1.3],
                "tickvals": [0, 0.5, 1],
                "ticktext": ["0", "half as fast", "fastest"],
            },
            "yaxis": {
                "type": "category",
                "categoryarray": [*labels.values()],
                "autorange": "reversed",
                "automargin": False,
            },
            "margin": {"l": 7 * LABEL, "r": 14, "t": 26, "b": 10},
            "height": 90 + lines,
        },
    }


def _against_size(kind: str, rows: Sequence[Row], styles: Mapping[str, Style], several: bool) -> Figure:
    axis, title = _size_axis([row.record.sizes for row in rows])
    # Rows/s must fall as rows grow longer, so bytes/s are the better default there.
    default = "items" if axis is None else "bytes"
    traces = []
    for (run, name, mode), own in by_trace(rows).items():
        points = sorted(own, key=lambda row: (_size(row, axis), row.record.case))
        rates = {quantity: [_rate(row, quantity) for row in points] for quantity in QUANTITIES}
        traces.append(
            {
                "x": [_size(row, axis) for row in points],
                "y": rates[default],
                "meta": rates,
                "hovertext": [hover(row) for row in points],
                "mode": "lines+markers",
                **look(name, mode, styles[name], run if several else None),
            }
        )
    units = sorted({row.measurement.unit for row in rows if row.measurement})
    titles = {"items": f"{escaped(' or '.join(units))}/s", **UNITS}
    return {
        "title": kind,
        "data": one_legend_entry_each(traces),
        "layout": {"xaxis": log_axis(title), "yaxis": log_axis(titles[default]), "meta": titles},
    }


def _rate(row: Row, quantity: str) -> float | None:
    rate: float = getattr(row.measurement, f"{quantity}_per_second")
    return rate if drawable(rate) else None


def _size_axis(sizes: Sequence[Mapping[str, int]]) -> tuple[str | None, str]:
    """The size with the most distinct values, and the axis title. None is the product of all sizes, the default.

    Example: if rows times columns is constant, the axis shows the columns.
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
    return None, escaped(" * ".join(common if len(varying) != 1 else varying)) or "size"


def _size(row: Row, axis: str | None) -> int:
    return _total(row.record.sizes) if axis is None else row.record.sizes[axis]


def _total(sizes: Mapping[str, int]) -> int:
    return math.prod(sizes.values())


def _kind(row: Row) -> str:
    """The name of a series: the scenario, with which the case's label begins, and the dtype."""
    sizes = " ".join(f"{name}={value}" for name, value in row.record.sizes.items())
    scenario = row.record.case.split(sizes)[0].strip() if sizes else row.record.case
    return f"{scenario} {row.record.dtype}".strip()
