"""The forms of a report: a self-contained HTML page, Markdown (see `markdown`) and CSV.

``runs`` are pairs of a label and a run. Medians are divided by those of the earlier run ``against``, and rates compared
with ``predictions``. ``problems`` are sentences about unreadable files.
"""

import base64
import csv
import gzip
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.messages import printable
from ..api.operations import Status
from ..api.records import Run
from ..results.predictions import Predictions
from ..results.slow_devices import slow_devices
from .markdown import Labelled, markdown
from .overview import FIRST, doubtful, facts, speed_map, verdict
from .plot_parts import Figure, Style, finite, styles
from .roofline_plot import intensity_span, roofline
from .rows import (
    BASELINE,
    CPU_RUN,
    FORETOLD,
    SPEEDUP,
    TIME_RATIO,
    Row,
    Score,
    device_name,
    foretold,
    foretold_cells,
    foretold_left,
    foretold_line,
    geometric_mean,
    is_cpu,
    items_rate,
    number,
    percent,
    rows,
    scores,
    tested,
)
from .standing_tables import COLUMNS as STANDING_COLUMNS
from .standing_tables import claim_cells, standing_cells, unmixed_lines
from .tables import ceiling_rate, counted, failed_records, grouped, si, status_words
from .timing_plots import throughput, time_ratios
from .validation_plots import curves, energy_traces, image

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["COLUMNS", "ReportUnavailable", "csv_text", "html", "markdown"]

COLUMNS = (
    "run", "operation", "implementation", "backend", "plugin", "case", "purpose", "sizes", "dtype", "seed",
    "status", "message", "error", "bound", "p_value", "source_hash", "untimed", "ran_on",
    "device", "mode", "method", "samples", "launches_per_sample", "median_s", "p10_s", "p90_s", "noise", "stopped",
    "items_per_second", "unit", "bytes_per_second", "flops_per_second", "roofline_share", "limit",
    "over_torch", "time_ratio", "suspicions", "throttled",
)  # fmt: skip
"""The columns of the CSV. ``ran_on`` is a record's device, such as cuda:1; ``device`` is the name of what was timed.
`Row` explains ``over_torch`` and ``time_ratio``; lists are joined by "; "."""


LARGE = 4_000_000
"""Characters of the content, or of the data of the plots, from which on the page holds them compressed. Without scripts
a browser does not show a compressed content."""

MOST_SAMPLES = 1_000_000
"""Samples in a page. If the runs have more, each measurement shows every second, third, ... of its samples."""

PACKED = (
    '<noscript><p class="banner bad">This report has {size:.0f} MB of tables, which need JavaScript. '
    "<code>boltzbench report --markdown</code> and <code>--csv</code> write every number as text.</p></noscript>"
)


class ReportUnavailable(RuntimeError):
    """The HTML page needs packages that are not installed. The message gives the command to install them."""


class Drawings:
    """The figures of the page, each by its index."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def add(self, figure: Figure) -> int:
        self.figures.append(figure)
        return len(self.figures) - 1


def html(
    runs: Sequence[Labelled],
    *,
    against: Labelled | None = None,
    predictions: Predictions | None = None,
    problems: Sequence[str] = (),
) -> str:
    """One page that contains its style, scripts, plotly.js and data, and loads nothing. Raises ReportUnavailable."""
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ReportUnavailable(
            f"the HTML report needs {error.name}, which is not installed: pip install 'boltzbench[report]'"
        ) from error
    template = template_environment(jinja2).get_template("report.html.j2")
    found = rows(runs, against[1] if against else None)
    several = len(runs) > 1
    looks = styles(row.record.implementation for row in _baseline_first(found))
    drawings = Drawings()
    compared = [row for row in found if row.time_ratio is not None]
    samples = [row for row in found if row.measurement]
    warned = doubtful(found)
    places = iter(range(len(samples)))
    operations = [_operation(name, own, looks, several, drawings) for name, own in _by_operation(found).items()]
    rooflines = _rooflines(runs, found, looks, drawings)
    judged = [each for label, run in runs for each in _judged(label, run, drawings)]
    experiments = _experiments(runs, drawings)
    predicted = foretold(runs, found, predictions) if predictions else None
    compared_figure = drawings.add(time_ratios(compared, looks)) if compared else None
    return template.render(
        runs=[(label, run, scores(run.records)) for label, run in runs],
        verdicts=[
            verdict(run, sum(row.number == place for row in warned), sum(row.number == place for row in samples))
            for place, (_, run) in enumerate(runs)
        ],
        map=speed_map(runs, found),
        facts=facts(runs),
        resources=list(dict.fromkeys(name for _, run in runs for name in run.ceilings)),
        several=several,
        against=against,
        problems=problems,
        rows=found,
        numbered=[(row, next(places) if row.measurement else None) for row in found],
        operations=operations,
        rooflines=rooflines,
        judged=judged,
        experiments=experiments,
        timed_or_checked=bool(found) or not (judged or experiments),
        compared=sorted(compared, key=lambda row: row.time_ratio or 0.0, reverse=True),
        compared_figure=compared_figure,
        foretold=predicted,
        foretold_cases=grouped(
            predicted[0] if predicted else (),
            lambda each: (each.row.run, each.row.record.operation, each.row.record.case),
        ),
        styles=looks,
        failures=_failures(found),
        warned=warned,
        first=FIRST,
        data={"figures": drawings.figures, "samples": _all_samples(samples)},
        plotlyjs=get_plotlyjs(),
    )


def _absences(table: Mapping[str, Mapping[str, Score]]) -> dict[str, dict[str, list[str]]]:
    """Each reason why something is unavailable, with the operations and their implementations."""
    found: dict[str, dict[str, list[str]]] = {}
    for operation, of in table.items():
        for name, score in of.items():
            for reason in score.reasons:
                found.setdefault(reason, {}).setdefault(operation, []).append(name)
    return found


def _failures(found: Sequence[Row]) -> list[list[Row]]:
    """The failures of all runs; those of an implementation with the same message together."""
    failed = [row for row in found if failed_records([row.record])]
    key = ("operation", "implementation", "status", "message")
    groups = grouped(failed, lambda row: (row.number, *(getattr(row.record, name) for name in key)))
    return [*groups.values()]


def _operation(
    name: str, own: Sequence[Row], looks: Mapping[str, Style], several: bool, drawings: Drawings
) -> dict[str, Any]:
    """The section of one operation."""
    timed = [row for row in own if row.measurement]
    return {
        "name": name,
        "throughput": [(figure["title"], drawings.add(figure)) for figure in throughput(timed, looks, several)],
        "cases": grouped(timed, lambda row: (row.run, row.case)),
        "untimed": _untimed(own),
    }


def _rooflines(
    runs: Sequence[Labelled], found: Sequence[Row], looks: Mapping[str, Style], drawings: Drawings
) -> list[tuple[str, int, bool]]:
    """Title and figure of each roofline, and whether it has ceilings."""
    drawn = []
    for place, (label, run) in enumerate(runs):
        own = [row for row in found if row.number == place]
        if (span := intensity_span(own, run.ceilings)) is None:
            continue
        for name, of_operation in _by_operation(own).items():
            if figure := roofline(of_operation, run.ceilings, looks, span):
                title = f"{name}, {label}" if len(runs) > 1 else name
                drawn.append((title, drawings.add(figure), bool(run.ceilings)))
    return drawn


def _judged(label: str, run: Run, drawings: Drawings) -> list[tuple[Any, ...]]:
    """For each target: the run's label, the target's name, its standings, and the energy figures by temperature."""
    standings = tested(run)
    looks = styles(each.sampler for each in standings)
    sections = []
    for target, own in grouped(standings, lambda each: each.target).items():
        plots = []
        for temperature, of_temperature in grouped(own, lambda each: each.temperature).items():
            if figure := energy_traces(of_temperature, looks):
                plots.append((temperature, drawings.add(figure)))
        sections.append((label, target, own, plots))
    return sections


def _experiments(runs: Sequence[Labelled], drawings: Drawings) -> list[tuple[Any, ...]]:
    """For each experiment: the run's label, the outcome, and title and figure of each plot and picture."""
    sections = []
    for label, run in runs:
        for outcome in run.outcomes:
            drawn: list[tuple[str, int]] = []
            if outcome.findings:
                drawn += [(each.title, drawings.add(curves(each))) for each in outcome.findings.plots]
                drawn += [(each.title, drawings.add(image(each))) for each in outcome.findings.pictures]
            sections.append((label, outcome, drawn))
    return sections


def csv_text(
    runs: Sequence[Labelled],
    *,
    against: Labelled | None = None,
    predictions: Predictions | None = None,
    problems: Sequence[str] = (),
) -> str:
    """A line for each measurement and for each record without one: `COLUMNS`, with all digits, in SI base units.

    Texts have no control characters, and begin with an apostrophe if a spreadsheet would take them for a formula.
    ``predictions`` and ``problems`` are not written: the other forms show the first, the caller reports the second.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(runs, against[1] if against else None):
        values = _csv_values(row)
        writer.writerow([_neutral(values.get(name)) for name in COLUMNS])
    return file.getvalue()


def _neutral(value: Any) -> Any:
    """A cell of the CSV. A text that a spreadsheet would run as a formula begins with an apostrophe, as there."""
    if not isinstance(value, str):
        return "" if value is None else value
    return f"'{printable(value)}" if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else printable(value)


def _csv_values(row: Row) -> dict[str, Any]:
    record, each = row.record, row.measurement
    values = {name: getattr(record, name) for name in COLUMNS if hasattr(record, name) and name != "device"}
    values |= {
        "run": row.run,
        "status": record.status.value,
        "ran_on": record.device,
        "sizes": " ".join(f"{name}={value}" for name, value in record.sizes.items()),
    }
    if each is not None:
        values |= {name: getattr(each, name) for name in COLUMNS if hasattr(each, name)}
        values |= {
            "samples": len(each.samples),
            "median_s": each.median,
            "p10_s": each.p10,
            "p90_s": each.p90,
            "over_torch": row.over_torch,
            "time_ratio": row.time_ratio,
            "suspicions": "; ".join(each.suspicions),
            "throttled": "; ".join(row.throttled),
        }
    return values


def template_environment(jinja2: Any) -> "Environment":
    environment: Environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        packed=_packed,
        embedded=_embedded,
        si=si,
        percent=percent,
        number=number,
        items_rate=items_rate,
        attribute=_attribute,
    )
    environment.globals.update(
        CPU_RUN=CPU_RUN,
        SPEEDUP=SPEEDUP,
        TIME_RATIO=TIME_RATIO,
        FORETOLD=FORETOLD,
        foretold_cells=foretold_cells,
        foretold_left=foretold_left,
        foretold_line=foretold_line,
        STANDING_COLUMNS=STANDING_COLUMNS,
        standing_cells=standing_cells,
        unmixed_lines=unmixed_lines,
        claim_cells=claim_cells,
        ceiling_rate=ceiling_rate,
        counted=counted,
        status_words=status_words,
        absences=_absences,
        is_cpu=is_cpu,
        device_name=device_name,
        slow_devices=slow_devices,
        geometric_mean=geometric_mean,
    )
    return environment


def _shown(value: Any) -> Any:
    """What the template shows: texts without control characters. Markup is the page's own."""
    return printable(value) if type(value) is str else value


def _baseline_first(found: Iterable[Row]) -> list[Row]:
    return sorted(found, key=lambda row: row.record.implementation != BASELINE)


def _by_operation(found: Iterable[Row]) -> dict[str, list[Row]]:
    return grouped(found, lambda row: row.record.operation)


def _untimed(own: Sequence[Row]) -> dict[str, list[str]]:
    """Each reason for a missing time, with its implementations."""
    reasons: dict[str, list[str]] = {}
    for row in own:
        why = row.record.message if row.record.status is Status.UNAVAILABLE else row.record.untimed
        if why and row.record.implementation not in reasons.setdefault(why, []):
            reasons[why].append(row.record.implementation)
    return reasons


def _packed(html: "Markup") -> "Markup":
    """The content of the page, compressed if it is `LARGE`."""
    if len(html) < LARGE:
        return html
    script = f'<script type="text/plain" data-packed="gzip">{_compressed(html)}</script>'
    return type(html)(PACKED.format(size=len(html) / 1e6) + script)


def _embedded(data: Mapping[str, Any]) -> "Markup":
    """The data of plots and dialogs as a script of the page, compressed if it is `LARGE`."""
    from markupsafe import Markup

    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    if len(text) >= LARGE:
        return Markup(f'<script type="text/plain" id="data" data-packed="gzip">{_compressed(text)}</script>')
    for character in "<>&'":  # so that no text ends the script
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="data">{text}</script>')


def _compressed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _all_samples(rows: Sequence[Row]) -> list[dict[str, Any]]:
    total = sum(len(row.measurement.samples) for row in rows if row.measurement)
    return [_samples(row, math.ceil(total / MOST_SAMPLES)) for row in rows]


def _samples(row: Row, every: int) -> dict[str, Any]:
    """The data of the dialog for one measurement: ``every`` so many of its samples, and the facts below them."""
    each = row.measurement
    assert each is not None
    ends = [*(state.first_sample for state in each.states[1:]), len(each.samples)]
    facts = {
        "median": si(each.median, "s"),
        "10th to 90th percentile": f"{si(each.p10, 's')} to {si(each.p90, 's')}",
        "samples": f"{len(each.samples)}"
        + (f", each the mean of {each.launches_per_sample} launches" if each.launches_per_sample > 1 else "")
        + (f"; one of {every} is shown" if every > 1 else ""),
        "noise of the median": percent(each.noise),
        "stopped by": each.stopped or "unknown",
        "clock": {"host": "host clock around a launch", "queue": "device events around queued launches"}.get(
            each.method, "device events around the replay of a graph"
        ),
        "device": each.device,
    }
    for name, unit in (("sm_clock_mhz", "MHz"), ("memory_clock_mhz", "MHz"), ("temperature_c", "°C"), ("power_w", "W")):
        values = [value for state in each.states if (value := getattr(state, name)) is not None]
        if values:
            facts[name.rsplit("_", 1)[0].replace("_", " ")] = f"{min(values):g} to {max(values):g} {unit}"
    return {
        "title": f"{row.record.operation}, {row.record.implementation}, {each.mode}",
        "case": row.place,
        "facts": facts,
        "warnings": row.warnings,
        "samples": [finite(value) for value in each.samples[::every]],
        "every": every,
        "lines": {"p10": finite(each.p10), "median": finite(each.median), "p90": finite(each.p90)},
        "throttled": [
            [state.first_sample, end] for state, end in zip(each.states, ends, strict=False) if state.throttled
        ],
    }


def _attribute(value: float | None) -> str:
    """The sort key of a cell: all digits, and nothing for a missing or infinite value."""
    return "" if value is None or not math.isfinite(value) else repr(float(value))
