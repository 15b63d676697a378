"""Plots of `validate`: energies of samplers' chains, and the curves and pictures of experiments."""

from collections.abc import Mapping, Sequence

from ..api.experiments import Picture, Plot
from ..api.records import Standing
from .plot_parts import COLOURS, SYMBOLS, Figure, Style, escaped, finite, log_axis

GREYS = ((0, "#000000"), (1, "#ffffff"))


def energy_traces(standings: Sequence[Standing], styles: Mapping[str, Style]) -> Figure:
    """The mean energy of the chains after each step: a line for each sampler. Empty if none was recorded."""
    traces = []
    for each in standings:
        if each.efficiency is None or not each.efficiency.energy_trace:
            continue
        energies = [finite(energy) for energy in each.efficiency.energy_trace]
        look = styles[each.sampler]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escaped(each.sampler),
                "x": list(range(1, len(energies) + 1)),
                "y": energies,
                "line": {"color": look["colour"], "dash": look["dash"], "width": 1.5},
                "hovertemplate": "%{fullData.name}, step %{x}: %{y}<extra></extra>",
            }
        )
    axes = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "mean energy of the chains"}}}
    return {"data": traces, "layout": axes} if traces else {}


def curves(plot: Plot) -> Figure:
    """An experiment's plot: lines for exact curves, symbols with bars of one standard error for measured ones.

    Exact and measured curves of one name share a colour.
    """
    names = list(dict.fromkeys(curve.name for curve in plot.curves))
    measured = {curve.name for curve in plot.curves if not curve.exact}
    traces = []
    for curve in plot.curves:
        place = names.index(curve.name)
        colour = COLOURS[place % len(COLOURS)]
        trace: Figure = {
            "type": "scatter",
            "name": escaped(f"{curve.name}, exact" if curve.exact and curve.name in measured else curve.name),
            "x": [finite(x) for x in curve.x],
            "y": [finite(y) for y in curve.y],
        }
        if curve.exact:
            trace |= {"mode": "lines", "line": {"color": colour, "width": 1.5}}
        else:
            symbol = SYMBOLS[place % len(SYMBOLS)]
            trace |= {"mode": "markers", "marker": {"color": colour, "symbol": symbol, "size": 8}}
            if curve.stderr:
                bars = [finite(each) for each in curve.stderr]
                trace["error_y"] = {"type": "data", "array": bars, "color": colour, "thickness": 1.2}
        traces.append(trace)
    axes = {
        "xaxis": log_axis(escaped(plot.x_title)) if plot.x_log else {"title": {"text": escaped(plot.x_title)}},
        "yaxis": log_axis(escaped(plot.y_title)) if plot.y_log else {"title": {"text": escaped(plot.y_title)}},
    }
    return {"data": traces, "layout": axes}


def image(picture: Picture) -> Figure:
    """An experiment's picture in grey, from black (0) to white (1)."""
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
