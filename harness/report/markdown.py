"""A report as Markdown (GitHub's tables): what ran where, agreement, failures, figures, ratios to an earlier run."""

import re
from collections.abc import Iterable, Sequence

from ..api.ceilings import RESOURCES
from ..api.records import Run
from .rows import (
    BASELINE,
    CPU_RUN,
    Row,
    Score,
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
from .standing_tables import COLUMNS, claim_figures, figures, refused
from .tables import failed, si

Labelled = tuple[str, Run]


def markdown(runs: Sequence[Labelled], *, against: Labelled | None = None, problems: Sequence[str] = ()) -> str:
    """The report of ``runs``, each a label and a run. Needs no package beyond the suite's own.

    ``against`` is an earlier run that medians are divided by; ``problems`` are sentences about files that could not
    be read.
    """
    found = rows(runs, against[1] if against else None)
    parts = ["# boltzbench report", *[f"**Not in this report:** {_text(problem)}" for problem in problems]]
    if not runs:
        parts.append("No run could be read.")
    for label, run in runs:
        parts += _about(label, run)
    if against:
        parts += _compared(against, found)
    several = len(runs) > 1
    for operation in dict.fromkeys(row.record.operation for row in found if row.measurement):
        timed = [row for row in found if row.measurement and row.record.operation == operation]
        parts += [f"## {_text(operation)}", _figures(timed, several, against is not None)]
    return "\n\n".join(parts) + "\n"


def _about(label: str, run: Run) -> list[str]:
    parts = [f"## {_text(label)}", _text(device_name(run))]
    if run.status != "complete":
        parts.append("**Incomplete:** this run was interrupted; what is shown is what it had found until then.")
    if is_cpu(run):
        parts.append(f"**CPU run:** {CPU_RUN}")
    if run.environment.get("dirty"):
        parts.append("**Uncommitted changes:** the commit does not say what was measured.")
    parts += [f"**Plugin problem:** {_text(problem)}" for problem in run.problems]
    parts.append(_table(["fact", "value"], environment(run).items()))
    if run.ceilings:
        ceilings = [(name, si(value, RESOURCES.get(name, ""))) for name, value in run.ceilings.items()]
        parts += ["### Ceilings measured on this device", _table(["limit", "measured"], ceilings)]
    if run.records or not (run.standings or run.outcomes):
        parts += ["### Agreement", *_agreement(run)]
    tried = [each for each in run.standings if not refused(each)]
    if tried:
        lines = [[each.sampler, each.target, *figures(each)] for each in tried]
        parts += ["### Samplers", _table(["sampler", "target", *COLUMNS], lines)]
        wrong = [
            f"- **{_text(claim.status.value.replace('_', ' '))}**: {_text(claim.sampler)} on {_text(claim.target)}, "
            f"T = {claim.temperature:g}, {_text(claim.claim)}: {_text(claim.message)}"
            for each in tried
            for claim in each.failed
        ]
        parts += ["### Claims that fail", "\n".join(wrong)] if wrong else []
    for outcome in run.outcomes:
        parts += [f"### Experiment {_text(outcome.experiment)}", _text(outcome.summary)]
        if outcome.findings is None:
            parts.append(f"**{_text(outcome.status.value.replace('_', ' '))}**: {_text(outcome.message)}")
        else:
            lines = [claim_figures(each) for each in outcome.findings.estimates]
            parts.append(_table(["claim", "exact", "measured", "z", "p", "verdict"], lines))
    return parts


def _agreement(run: Run) -> list[str]:
    table = scores(run.records)
    if not table:
        return ["This run has no record."]
    names = list(dict.fromkeys(name for of in table.values() for name in of))
    parts = [_table(["operation", *names], [[of, *[_words(own, name) for name in names]] for of, own in table.items()])]
    reasons = [
        f"- {_text(operation)} {_text(name)} unavailable: {_text(reason)}"
        for operation, of in table.items()
        for name, score in of.items()
        for reason in score.reasons
    ]
    failures = [
        f"- **{_text(each.status.value.replace('_', ' '))}**: {_text(each.operation)} {_text(each.implementation)}, "
        f"{_text(each.case)}: {_text(each.message)}"
        + ("" if each.error is None or each.bound is None else f" (error {each.error:.6g}, bound {each.bound:.6g})")
        for each in failed(run.records)
    ]
    if reasons:
        parts.append("\n".join(reasons))
    return [*parts, "### Failures", "\n".join(failures)] if failures else parts


def _words(own: dict[str, Score], name: str) -> str:
    if name not in own:
        return "-"
    return ("✗ " if own[name].failed else "") + own[name].words


def _compared(against: Labelled, found: Sequence[Row]) -> list[str]:
    ratios = [row.time_ratio for row in found if row.time_ratio is not None]
    words = "No case was timed in both."
    if ratios:
        words = (
            f"{len(ratios)} figures in common; geometric mean of the ratios of medians {geometric_mean(ratios):.4g}, "
            "below 1 being faster than then. `boltzbench compare` tells a change from noise."
        )
    return [f"## Against {_text(against[0])}", f"Measured on {_text(device_name(against[1]))}. {words}"]


def _figures(timed: Sequence[Row], several: bool, compared: bool) -> str:
    header = [
        *(["run"] if several else []),
        *("case", "implementation", "mode", "median", "p10 to p90", "throughput", "B/s", f"speed over {BASELINE}"),
        *("share of limit", *(["time over earlier"] if compared else []), "warnings"),
    ]
    return _table(header, [_figure(row, several, compared) for row in timed])


def _figure(row: Row, several: bool, compared: bool) -> list[str]:
    each = row.measurement
    assert each is not None
    share = "" if each.roofline_share is None else f"{percent(each.roofline_share)} {each.limit}"
    return [
        *([row.run] if several else []),
        *(row.record.case, row.record.implementation, each.mode, si(each.median, "s")),
        *(f"{si(each.p10, 's')} to {si(each.p90, 's')}", items_rate(each)),
        *(si(each.bytes_per_second, "B/s"), number(row.over_torch), share),
        *([number(row.time_ratio)] if compared else []),
        "; ".join(row.warnings),
    ]


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join([_line(header), f"|{' --- |' * len(header)}", *map(_line, lines)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_text, cells))} |"


def _text(words: str) -> str:
    """``words`` on one line, with all that Markdown or HTML would take for markup escaped."""
    one_line = " ".join(words.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", one_line)
