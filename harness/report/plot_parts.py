"""What the plots of a report share. A plot is a plain figure for plotly.js; the page's style sheet sets its colours
of text and background."""

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .rows import BASELINE, Row, items_rate, number, percent
from .tables import grouped, si

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C")
"""Okabe and Ito's colours and a grey, without black and yellow, which vanish on a dark or a light background."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "pentagon", "star", "hexagon", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
GREY = "#8C8C8C"

Figure = dict[str, Any]
Style = Mapping[str, str]


def styles(implementations: Iterable[str]) -> dict[str, Style]:
    """A colour, a symbol and a dash for each implementation. No two differ by colour alone."""
    return {
        name: {
            "colour": COLOURS[place % len(COLOURS)],
            "symbol": SYMBOLS[place % len(SYMBOLS)],
            "dash": DASHES[place % len(DASHES)],
        }
        for place, name in enumerate(dict.fromkeys(implementations))
    }


def look(name: str, mode: str, style: Style, run: int | None = None) -> Figure:
    """The look of a trace: filled symbols and thick lines for cold, open and thin for hot; a dash for each run."""
    symbol = style["symbol"] if mode == "cold" else f"{style['symbol']}-open"
    dash = style["dash"] if run is None else DASHES[run % len(DASHES)]
    colour = style["colour"]
    return {
        "type": "scatter",
        "name": escaped(name if run is None else f"{name}, run {run + 1}"),
        "hoverinfo": "text",
        "marker": {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.5, "color": colour}},
        "line": {"color": colour, "dash": dash, "width": 2 if mode == "cold" else 1},
    }


def one_legend_entry_each(traces: Sequence[Figure]) -> list[Figure]:
    """Give the traces of one name a single legend entry, which shows and hides them together."""
    names: set[str] = set()
    marked = []
    for trace in traces:
        marked.append({**trace, "legendgroup": trace["name"], "showlegend": trace["name"] not in names})
        names.add(trace["name"])
    return marked


def by_trace(rows: Iterable[Row]) -> dict[tuple[int, str, str], list[Row]]:
    """The rows with a measurement by run, implementation and mode: those of one trace."""
    return grouped((row for row in rows if row.measurement), lambda r: (r.number, r.record.implementation, r.mode))


def hover(row: Row) -> str:
    """The text at a point of a measurement."""
    each = row.measurement
    assert each is not None
    lines = [f"{row.record.operation}, {row.record.implementation}, {each.mode}", *textwrap.wrap(row.place, 36)]
    lines.append(f"{si(each.median, 's')}, {items_rate(each)}")
    lines.append(f"{si(each.bytes_per_second, 'B/s')}, {si(each.flops_per_second, 'flop/s')}")
    if each.roofline_share is not None:
        lines.append(f"{percent(each.roofline_share)} of {each.limit}")
    if row.over_torch is not None:
        lines.append(f"{number(row.over_torch)} times as fast as {BASELINE}")
    if row.time_ratio is not None:
        lines.append(f"{row.time_ratio:.4g} times the earlier time")
    return "<br>".join(escaped(line) for line in [*lines, *row.warnings])


def log_axis(title: str) -> Figure:
    """A logarithmic axis."""
    return {"type": "log", "title": {"text": title}, "exponentformat": "SI"}


def escaped(text: str) -> str:
    """Escape ``text`` for plotly.js, which interprets some tags and entities in every text."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def finite(value: float) -> float | None:
    """``value`` with six digits, as JSON has it: None if it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def drawable(value: float) -> bool:
    """Whether a logarithmic axis can show ``value``."""
    return math.isfinite(value) and value > 0
