"""How results of callables look: a line and tables in a terminal, tables and plots in a notebook."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from ..api.messages import printable
from ..api.records import Measurement
from ..report.tables import NarrowableTable, gigabytes, si, time_range

BARS = 60
"""The most bars of a histogram."""

STYLE = "text-align:{};padding:0 .8em 0 0;white-space:nowrap"
NO_PLOT = "<p>A plot needs plotly: pip install 'boltzbench[report]'</p>"


def rate(each: Measurement) -> str:
    """The rate that the limit binds: bytes or operations a second."""
    by_flops = each.flops_per_second and (each.limit in ("", "fma") or each.limit.endswith("matrix"))
    return si(each.flops_per_second, "flop/s") if by_flops else f"{gigabytes(each.bytes_per_second)} GB/s"


def share(each: Measurement) -> str:
    """``17% read``; empty if no limit is known."""
    return "" if each.roofline_share is None else f"{each.roofline_share:.0%} {each.limit}"


def line_of_times(each: Measurement, device: str) -> str:
    """``771 µs (720..858 µs), 5.45 GB/s, 17% of read, cold, cpu``."""
    of = f", {each.roofline_share:.0%} of {each.limit}" if each.roofline_share is not None else ""
    return f"{si(each.median, 's')} ({time_range(each.p10, each.p90)}), {rate(each)}{of}, {each.mode}, {device}"


def cells(each: Measurement | None) -> list[str]:
    """Median, range, rate and share: columns of a table."""
    if each is None:
        return ["-", "", "", ""]
    return [si(each.median, "s"), time_range(each.p10, each.p90), rate(each), share(each)]


def table(columns: Sequence[tuple[str, int]], rows: Sequence[Sequence[Text | str]]) -> Table:
    """A table with columns of these names and widths. A negative width aligns to the right."""
    drawn = NarrowableTable()
    for name, width in columns:
        drawn.add_column(name, width=abs(width), overflow="fold", justify="right" if width < 0 else "left")
    for row in rows:
        drawn.add_row(*(each if isinstance(each, Text) else Text(each) for each in row))
    return drawn


def html_table(columns: Sequence[tuple[str, int]], rows: Sequence[Sequence[Text | str]]) -> str:
    """The same in HTML."""
    styles = [STYLE.format("left" if width > 0 else "right") for _, width in columns]

    def line(kind: str, texts: Sequence[Text | str]) -> str:
        pairs = zip(styles, texts, strict=True)
        return "".join(f'<{kind} style="{style}">{escaped(str(text))}</{kind}>' for style, text in pairs)

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', [name for name, _ in columns])}</tr></thead><tbody>{body}</tbody></table>"


def html_lines(lines: Sequence[str]) -> str:
    return "".join(f"<div>{escaped(line)}</div>" for line in lines)


def histogram(each: Measurement) -> str:
    """An SVG of the samples from the fastest to the 90th percentile, with a line at the median."""
    low, high = float(min(each.samples)), each.p90
    if high <= low:
        return ""
    counts, _ = np.histogram(each.samples, bins=min(BARS, max(5, len(each.samples) // 4)), range=(low, high))
    width, height = 360, 60
    step = width / len(counts)
    bars = "".join(
        f'<rect x="{place * step:.1f}" y="{height * (1 - count / counts.max()):.1f}" width="{max(step - 1, 0.5):.1f}" '
        f'height="{height * count / counts.max():.1f}"/>'
        for place, count in enumerate(counts)
    )
    middle = width * (each.median - low) / (high - low)
    title = f"samples from {si(low, 's')} to {si(high, 's')}, and a tenth of {len(each.samples)} beyond; line: median"
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escaped(title)}</title>"
        f'<g fill="#0072B2">{bars}</g><path d="M{middle:.1f} 0V{height}" stroke="#D55E00" stroke-width="2"/></svg>'
        f'<div style="opacity:.7">{escaped(title)}</div>'
    )


def plot(figure: dict[str, Any]) -> str:
    """A plotly figure as HTML that contains plotly.js, so that it needs no network."""
    try:
        import plotly.io
    except ModuleNotFoundError:
        return NO_PLOT
    return str(plotly.io.to_html(figure, full_html=False, include_plotlyjs=True, config={"displaylogo": False}))


def escaped(text: str) -> str:
    return html.escape(printable(text))
