"""Plots of measured times: throughput against size, and ratios to an earlier run."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .plot_parts import GREY, Figure, Style, by_trace, drawable, escaped, hover, log_axis, look, one_legend_entry_each
from .rows import Row
from .tables import grouped

QUANTITIES = ("items", "bytes", "flops")
"""Units of throughput that the reader of the page can choose."""


def throughput(rows: Sequence[Row], styles: Mapping[str, Style], several: bool) -> list[Figure]:
    """Items/s against size for one operation: a figure for each dtype and scenario with several sizes.

    The remaining cases share the last figure, as points. If there are ``several`` runs, the traces name theirs.
    """
    drawn = [
        row
        for row in rows
        if row.measurement and drawable(row.measurement.items_per_second) and _total(row.record.sizes) > 0
    ]
    series = grouped(drawn, _kind)
    groups = {kind: own for kind, own in series.items() if len({row.record.case for row in own}) > 1}
    alone = [row for kind, own in series.items() if kind not in groups for row in own]
    if alone:
        groups["single sizes" if groups else ""] = alone
    return [_against_size(kind, own, styles, several, joined=own is not alone) for kind, own in groups.items()]


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


def _against_size(kind: str, rows: Sequence[Row], styles: Mapping[str, Style], several: bool, joined: bool) -> Figure:
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
                "mode": "lines+markers" if joined else "markers",
                **look(name, mode, styles[name], run if several else None),
            }
        )
    units = sorted({row.measurement.unit for row in rows if row.measurement})
    titles = {"items": f"{escaped(' or '.join(units))}/s", "bytes": "B/s", "flops": "flop/s"}
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
