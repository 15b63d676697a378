"""The history of many runs for the terminal, as Markdown, and as a page with a trend for each case."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ..results.history import NEWEST, History, Machine, Point, Series, Step
from ..results.precision import floor_words
from .markdown import md_table, md_text
from .page import Drawings, ReportUnavailable, template_environment
from .plot_parts import Figure, Style, escaped, log_axis, look, one_legend_entry_each, styles
from .rows import BASELINE
from .tables import PREFIXES, counted, grouped, indented, si

SLOWER, FASTER = "#D55E00", "#009E73"
MOST_TICKS = 6


@dataclass(frozen=True)
class StepRow:
    """A step in words. ``regression`` says that it makes the command fail."""

    change: str
    interval: str
    since: str
    commit: str
    before: str
    length: int
    name: str
    regression: bool


def history_text(history: History) -> RenderableType:
    """For each machine its steps, regressions first, and its failures; then notes and the result."""
    parts: list[RenderableType] = []
    for machine in history.machines:
        parts += [Text(machine.device, style="bold"), indented(Text(_summary(machine)))]
        for name, words in _failures(machine):
            parts.append(indented(Text(f"failing now: {name}: {words}", style="bold red")))
        for row in _steps(history, machine):
            commits = f"commit {row.commit} (before: {row.before})"
            line = f"{row.change} ({row.interval}) since {row.since}, {commits}, {counted(row.length, 'run')}"
            parts.append(indented(Text(line, style="bold red" if row.regression else "bold")))
            parts.append(indented(indented(Text(row.name))))
    parts += [Text(f"left out: {problem}", style="yellow") for problem in history.problems]
    parts += [Text(note, style="dim") for note in _notes(history)]
    return Group(*parts, Text(closing(history), style="bold red" if history.failed else "green"))


def history_markdown(history: History) -> str:
    """The same as Markdown: the result in one line, then a table of steps for each machine."""
    parts = [f"### {'❌' if history.failed else '✅'} boltzbench: {md_text(closing(history))}"]
    for machine in history.machines:
        parts += [f"**{md_text(machine.device)}**", md_text(_summary(machine))]
        parts += [f"- failing now: {md_text(name)}: {md_text(words)}" for name, words in _failures(machine)]
        if rows := _steps(history, machine):
            header = ("change", "case", "since", "commit", "before", "runs since", "95 % interval")
            cells = [(e.change, e.name, e.since, e.commit, e.before, str(e.length), e.interval) for e in rows]
            parts.append(md_table(header, cells))
    parts += [f"**Left out:** {md_text(problem)}" for problem in history.problems]
    return "\n\n".join([*parts, *map(md_text, _notes(history))]) + "\n"


def history_html(history: History) -> str:
    """One page that contains its style, scripts and data, and loads nothing. Raises ReportUnavailable."""
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ReportUnavailable(
            f"the HTML page needs {error.name}, which is not installed: pip install 'boltzbench[report]'"
        ) from error
    drawings = Drawings()
    machines = [_section(history, machine, drawings) for machine in history.machines]
    return (
        template_environment(jinja2)
        .get_template("history.html.j2")
        .render(
            history=history,
            closing=closing(history),
            notes=_notes(history),
            machines=machines,
            data={"figures": drawings.figures},
            plotlyjs=get_plotlyjs(),
        )
    )


def closing(history: History) -> str:
    """The result in a sentence."""
    regressions = len(history.regressions())
    failures = sum(len(machine.failures) for machine in history.machines)
    cases = sum(len(machine.series) for machine in history.machines)
    are = "is" if regressions == 1 else "are"
    slower = f"slower by more than {100 * history.bound:g} % in the newest runs"
    words = f"{regressions} of {counted(cases, 'timing')} {are} {slower}"
    ended = "Regression" if history.failed else "No regression"
    return f"{ended}: {words}{f', newly failing: {failures}' if failures else ''}."


def _notes(history: History) -> list[str]:
    notes = []
    if len(history.machines) > 1:
        notes.append(
            f"The runs are of {len(history.machines)} kinds of device, kept apart: their times cannot be compared."
        )
    notes.append(
        f"If no code changes, at most {100 * history.alpha:g} % of machines show a step. A slowdown beyond "
        f"{100 * history.bound:g} % that began in the newest {NEWEST} runs is a regression."
    )
    return notes


def _summary(machine: Machine) -> str:
    days = " to ".join(dict.fromkeys(f"{run.started:%Y-%m-%d}" for run in (machine.runs[0], machine.runs[-1])))
    steps = sum(len(series.steps) for series in machine.series)
    floors = sorted(run.floor for run in machine.runs if run.floor is not None)
    floor = f"; noise floor {' to '.join(dict.fromkeys(map(floor_words, floors[:1] + floors[-1:])))}" if floors else ""
    return (
        f"{counted(len(machine.runs), 'run')}, {days}, of {counted(len(machine.series), 'timing')}: "
        f"{counted(steps, 'step')}{floor}"
    )


def _name(series: Series) -> str:
    return f"{series.operation} {series.implementation} {series.mode}, {series.case}"


def _failures(machine: Machine) -> list[tuple[str, str]]:
    return [
        (f"{each.operation} {each.implementation}, {each.case}", f"{each.message} ({machine.runs[each.run].commit})")
        for each in machine.failures
    ]


def _steps(history: History, machine: Machine) -> list[StepRow]:
    """The steps of a machine: regressions first, then the newest."""
    failing = [(series, step) for of, series, step in history.regressions() if of is machine]
    rows = []
    for series in machine.series:
        for step in series.steps:
            regression = any(series is one and step is other for one, other in failing)
            rows.append((regression, series.points[step.at].run, step.ratio, _row(machine, series, step, regression)))
    rows.sort(key=lambda each: each[:3], reverse=True)
    return [row for *_, row in rows]


def _row(machine: Machine, series: Series, step: Step, regression: bool) -> StepRow:
    new, old = (machine.runs[series.points[place].run] for place in (step.at, step.at - 1))
    interval = f"{100 * (step.low - 1):+.1f} to {100 * (step.high - 1):+.1f} %"
    change, since = f"{100 * (step.ratio - 1):+.1f} %", f"{new.started:%Y-%m-%d %H:%M}"
    return StepRow(change, interval, since, new.commit, old.commit, step.length, _name(series), regression)


def _section(history: History, machine: Machine, drawings: Drawings) -> dict[str, Any]:
    looks = styles(
        sorted({series.implementation for series in machine.series}, key=lambda name: (name != BASELINE, name))
    )
    changed: list[tuple[str, int]] = []
    steady: dict[str, list[tuple[str, int]]] = {}
    for (operation, case, mode), own in grouped(machine.series, lambda s: (s.operation, s.case, s.mode)).items():
        title = f"{operation}, {case}, {mode}"
        drawn = (title, drawings.add(trend(machine, own, looks)))
        if any(series.steps for series in own):
            changed.append(drawn)
        else:
            steady.setdefault(operation, []).append(drawn)
    return {
        "device": machine.device,
        "summary": _summary(machine),
        "failures": _failures(machine),
        "steps": _steps(history, machine),
        "changed": changed,
        "steady": steady,
        "runs": [
            (f"{run.started:%Y-%m-%d %H:%M:%S}", run.commit, floor_words(run.floor), str(run.path))
            for run in machine.runs
        ],
    }


def trend(machine: Machine, series: Iterable[Series], looks: Mapping[str, Style]) -> Figure:
    """The medians of one case against the runs, with 95 % intervals; a line at each step."""
    traces, lines = [], []
    own = [*series]
    slowest = max(point.timing.median for each in own for point in each.points)
    unit = si(slowest, "s").split()[1]
    scale = 10.0 ** -next(power for power, prefix in PREFIXES.items() if f"{prefix}s" == unit)
    for each in own:
        ends = [(point, *_interval(point)) for point in each.points]
        traces.append(
            {
                "x": [point.run + 1 for point in each.points],
                "y": [scale * point.timing.median for point in each.points],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [scale * (high - point.timing.median) for point, _, high in ends],
                    "arrayminus": [scale * (point.timing.median - low) for point, low, _ in ends],
                    "thickness": 1,
                    "width": 2,
                },
                "hovertext": [_hover(machine, each, point) for point in each.points],
                "mode": "lines+markers",
                **look(each.implementation, each.mode, looks[each.implementation]),
            }
        )
        for step in each.steps:
            at = (each.points[step.at - 1].run + each.points[step.at].run) / 2 + 1
            line = {"color": SLOWER if step.ratio > 1 else FASTER, "width": 1.5, "dash": "dot"}
            lines.append({"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line})
    count = len(machine.runs)
    ticks = sorted({round(1 + place * (count - 1) / (MOST_TICKS - 1)) for place in range(MOST_TICKS)})
    dates = [f"{machine.runs[tick - 1].started:%b %d}" for tick in ticks]
    axis = {"title": {"text": "run"}, "tickvals": ticks, "ticktext": dates, "range": [0.5, count + 0.5]}
    layout = {"xaxis": axis, "yaxis": log_axis(f"median of a launch, {unit}"), "shapes": lines}
    return {"data": one_legend_entry_each(traces), "layout": layout}


def _interval(point: Point) -> tuple[float, float]:
    reach = 1.96 * math.sqrt(point.timing.variance)
    return point.timing.median * math.exp(-reach), point.timing.median * math.exp(reach)


def _hover(machine: Machine, series: Series, point: Point) -> str:
    run, (low, high) = machine.runs[point.run], _interval(point)
    lines: Sequence[str] = [
        f"{series.operation}, {series.implementation}, {series.mode}",
        f"{si(point.timing.median, 's')} ({si(low, 's')} to {si(high, 's')})",
        f"run {point.run + 1}, {run.started:%Y-%m-%d %H:%M}",
        f"commit {run.commit}",
        *point.timing.doubts,
    ]
    return "<br>".join(escaped(line) for line in lines)
