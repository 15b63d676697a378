"""What `report` writes of one or several runs: a self-contained HTML page, Markdown, and CSV.

``runs`` are pairs of a label and the run; ``against`` is an earlier run that their medians are divided by;
``problems`` are sentences about files that could not be read.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.ceilings import RESOURCES
from ..api.operations import Status
from . import figures as figures
from .markdown import Labelled, markdown
from .rows import (
    BASELINE,
    CPU_RUN,
    Row,
    device_name,
    environment,
    geometric_mean,
    is_cpu,
    items_rate,
    number,
    percent,
    rows,
    scores,
)
from .standing_tables import COLUMNS as STANDING_COLUMNS
from .standing_tables import claim_figures, refused
from .standing_tables import figures as standing_figures
from .tables import failed, si

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["COLUMNS", "ReportUnavailable", "csv_text", "html", "markdown"]

COLUMNS = (
    "run", "operation", "implementation", "backend", "plugin", "case", "purpose", "sizes", "dtype", "seed",
    "status", "message", "error", "bound", "p_value", "source_hash", "untimed",
    "device", "mode", "method", "samples", "launches_per_sample", "median_s", "p10_s", "p90_s", "noise", "stopped",
    "items_per_second", "unit", "bytes_per_second", "flops_per_second", "roofline_share", "limit",
    "over_torch", "time_ratio", "suspicions", "throttled",
)  # fmt: skip
"""The columns of the CSV. ``over_torch`` and ``time_ratio`` are explained at `Row`; lists are joined by "; "."""


class ReportUnavailable(RuntimeError):
    """The HTML page needs packages that are not installed. The message has the command that installs them."""


def html(runs: Sequence[Labelled], *, against: Labelled | None = None, problems: Sequence[str] = ()) -> str:
    """One page that loads nothing: style, scripts, plotly.js and data are in it. Raises ReportUnavailable."""
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ReportUnavailable(
            f"the HTML report needs {error.name}, which is not installed: pip install 'boltzbench[report]'"
        ) from error
    template = _template_environment(jinja2).get_template("report.html.j2")
    found = rows(runs, against[1] if against else None)
    several = len(runs) > 1
    styles = figures.styles(row.record.implementation for row in _baseline_first(found))
    drawings: list[figures.Figure] = []

    def drawing(figure: figures.Figure) -> int:
        drawings.append(figure)
        return len(drawings) - 1

    operations = []
    for name in dict.fromkeys(row.record.operation for row in found):
        own = [row for row in found if row.record.operation == name]
        timed = [row for row in own if row.measurement]
        operations.append(
            {
                "name": name,
                "throughput": [
                    (figure["title"], drawing(figure)) for figure in figures.throughput(timed, styles, several)
                ],
                "cases": _by_case(timed),
                "untimed": _untimed(own),
            }
        )
    rooflines = []
    for place, (label, run) in enumerate(runs):
        own = [row for row in found if row.number == place]
        if (span := figures.intensity_span(own, run.ceilings)) is None:
            continue
        for name in dict.fromkeys(row.record.operation for row in own):
            figure = figures.roofline([r for r in own if r.record.operation == name], run.ceilings, styles, span)
            if figure:
                rooflines.append((f"{name}, {label}" if several else name, drawing(figure), bool(run.ceilings)))
    judged = []
    for label, run in runs:
        tried = [one for one in run.standings if not refused(one)]
        looks = figures.styles(one.sampler for one in tried)
        for name in dict.fromkeys(one.target for one in tried):
            of_target = [one for one in tried if one.target == name]
            plots = []
            for temperature in dict.fromkeys(one.temperature for one in of_target):
                figure = figures.energy_traces([one for one in of_target if one.temperature == temperature], looks)
                if figure:
                    plots.append((temperature, drawing(figure)))
            judged.append((label, name, of_target, plots))
    experiments = []
    for label, run in runs:
        for outcome in run.outcomes:
            drawn = []
            if outcome.findings:
                drawn += [(each.title, drawing(figures.curves(each))) for each in outcome.findings.plots]
                drawn += [(each.title, drawing(figures.image(each))) for each in outcome.findings.pictures]
            experiments.append((label, outcome, drawn))
    compared = [row for row in found if row.time_ratio is not None]
    samples = [row for row in found if row.measurement]
    places = iter(range(len(samples)))
    return template.render(
        runs=[(label, run, scores(run.records), environment(run)) for label, run in runs],
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
        compared_figure=drawing(figures.time_ratios(compared, styles)) if compared else None,
        styles=styles,
        failures=[row for row in found if row.record in failed([row.record])],
        warned=[row for row in found if row.warnings],
        data={"figures": drawings, "samples": [_samples(row) for row in samples]},
        plotlyjs=get_plotlyjs(),
    )


def csv_text(runs: Sequence[Labelled], *, against: Labelled | None = None, problems: Sequence[str] = ()) -> str:
    """A line for each measurement, and for each record without: `COLUMNS`, numbers in full, SI base units.

    ``problems`` have no place in a table and are left to whoever calls.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(runs, against[1] if against else None):
        values = _csv_values(row)
        writer.writerow(["" if values.get(name) is None else values[name] for name in COLUMNS])
    return file.getvalue()


def _csv_values(row: Row) -> dict[str, Any]:
    record, each = row.record, row.measurement
    values = {name: getattr(record, name) for name in COLUMNS if hasattr(record, name)}
    values |= {
        "run": row.run,
        "status": record.status.value,
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


def _template_environment(jinja2: Any) -> "Environment":
    environment: Environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters.update(si=si, percent=percent, number=number, items_rate=items_rate, attribute=_attribute)
    environment.globals.update(
        CPU_RUN=CPU_RUN,
        BASELINE=BASELINE,
        RESOURCES=RESOURCES,
        STANDING_COLUMNS=STANDING_COLUMNS,
        figures=standing_figures,
        claim_figures=claim_figures,
        is_cpu=is_cpu,
        device_name=device_name,
        geometric_mean=geometric_mean,
    )
    return environment


def _baseline_first(found: Iterable[Row]) -> list[Row]:
    return sorted(found, key=lambda row: row.record.implementation != BASELINE)


def _by_case(timed: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The timed rows of one operation by (run, case)."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in timed:
        groups.setdefault((row.run, row.record.case), []).append(row)
    return groups


def _untimed(own: Sequence[Row]) -> dict[str, list[str]]:
    """Each reason for having no figure, with the implementations that it holds for."""
    reasons: dict[str, list[str]] = {}
    for row in own:
        why = row.record.message if row.record.status is Status.UNAVAILABLE else row.record.untimed
        if why and row.record.implementation not in reasons.setdefault(why, []):
            reasons[why].append(row.record.implementation)
    return reasons


def _samples(row: Row) -> dict[str, Any]:
    """What the page needs to draw the samples of one measurement, with the facts that it prints above them."""
    each = row.measurement
    assert each is not None
    ends = [*(state.first_sample for state in each.states[1:]), len(each.samples)]
    facts = {
        "median": si(each.median, "s"),
        "10th to 90th percentile": f"{si(each.p10, 's')} to {si(each.p90, 's')}",
        "samples": f"{len(each.samples)}, each the mean of {each.launches_per_sample} launches"
        if each.launches_per_sample > 1
        else str(len(each.samples)),
        "noise of the median": percent(each.noise),
        "stopped by": each.stopped or "unknown",
        "clock": {"host": "host, around a launch", "queue": "device events around queued launches"}.get(
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
        "case": row.record.case,
        "facts": facts,
        "warnings": row.warnings,
        "samples": [_finite(float(f"{value:.6g}")) for value in each.samples],
        "lines": {"p10": _finite(each.p10), "median": _finite(each.median), "p90": _finite(each.p90)},
        "throttled": [
            [state.first_sample, end] for state, end in zip(each.states, ends, strict=False) if state.throttled
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _attribute(value: float | None) -> str:
    """What a column is sorted by: all digits, and nothing for what has no order."""
    return "" if value is None or not math.isfinite(value) else repr(float(value))
