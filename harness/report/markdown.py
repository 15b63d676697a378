"""A report as Markdown: verdict, agreement, failures, environment, measurements, and ratios to an earlier run."""

import re
from collections.abc import Iterable, Sequence

from ..api.messages import printable
from ..api.operations import Status
from ..api.records import Run
from ..results.predictions import Predictions
from ..results.slow_devices import slow_devices
from .overview import verdict
from .rows import (
    CPU_RUN,
    FORETOLD,
    SPEEDUP,
    TIME_RATIO,
    Row,
    Score,
    device_name,
    environment,
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
from .standing_tables import COLUMNS, claim_cells, standing_cells, unmixed_lines
from .tables import ceiling_rate, counted, failed_records, grouped, si, status_words

Labelled = tuple[str, Run]


def markdown(
    runs: Sequence[Labelled],
    *,
    against: Labelled | None = None,
    predictions: Predictions | None = None,
    problems: Sequence[str] = (),
) -> str:
    """The report on ``runs``, each a label and a run. Needs no optional package.

    Medians are divided by those of the earlier run ``against``, and rates compared with ``predictions``. ``problems``
    are sentences about unreadable files.
    """
    found = rows(runs, against[1] if against else None)
    parts = ["# boltzbench report", *[f"**Not in this report:** {md_text(problem)}" for problem in problems]]
    if not runs:
        parts.append("No run could be read.")
    for label, run in runs:
        parts += _about(label, run)
    if against:
        parts += _compared(against, found)
    several = len(runs) > 1
    if predictions:
        parts += _foretold(runs, found, predictions)
    for operation, timed in grouped(
        (row for row in found if row.measurement), lambda row: row.record.operation
    ).items():
        parts += [f"## {md_text(operation)}", _measurements(timed, several, against is not None)]
    return "\n\n".join(parts) + "\n"


def _about(label: str, run: Run) -> list[str]:
    own = [row for row in rows([(label, run)]) if row.measurement]
    found = verdict(run, sum(bool(row.warnings) for row in own), len(own))
    said = [f"{found.mark} **{md_text(found.words)}**", md_text(device_name(run)), *found.facts]
    parts = [f"## {md_text(label)}", " · ".join(said)]
    if run.status != "complete":
        parts.append("**Incomplete:** this run was interrupted; this report shows its results until then.")
    if is_cpu(run):
        parts.append(f"**CPU run:** {CPU_RUN}")
    if run.environment.get("dirty"):
        parts.append("**Uncommitted changes:** the measured source may differ from the commit.")
    parts += [f"**Slow device:** {md_text(words)}" for words in slow_devices(run)]
    parts += [f"**Plugin problem:** {md_text(problem)}" for problem in run.problems]
    if run.records or not (run.standings or run.outcomes):
        parts += ["### Agreement", *_agreement(run)]
    if standings := tested(run):
        lines = [[each.sampler, each.target, *standing_cells(each)] for each in standings]
        parts += ["### Samplers", md_table(["sampler", "target", *COLUMNS], lines)]
        if unmixed := unmixed_lines(standings):
            parts.append("\n".join(f"- {md_text(line)}" for line in unmixed))
        wrong = [
            f"- {_status(claim.status)}: {md_text(claim.sampler)} on {md_text(claim.target)}, "
            f"T = {claim.temperature:g}, {md_text(claim.claim)}: {md_text(claim.message)}"
            for each in standings
            for claim in each.failed
        ]
        parts += ["### Failed claims", "\n".join(wrong)] if wrong else []
    for outcome in run.outcomes:
        parts += [f"### Experiment {md_text(outcome.experiment)}", md_text(outcome.summary)]
        if outcome.findings is None:
            parts.append(f"{_status(outcome.status)}: {md_text(outcome.message)}")
        else:
            lines = [claim_cells(each) for each in outcome.findings.estimates]
            parts.append(md_table(["claim", "exact", "measured", "z", "p", "status"], lines))
    if run.ceilings:
        ceilings = [(name, ceiling_rate(name, value)) for name, value in run.ceilings.items()]
        parts += _folded("Limits measured on this device", md_table(["resource", "limit"], ceilings))
    return [*parts, *_folded("Environment", md_table(["fact", "value"], environment(run).items()))]


def _folded(title: str, table: str) -> list[str]:
    """A table that GitHub folds under its title."""
    return [f"<details><summary>{title}</summary>", table, "</details>"]


def _agreement(run: Run) -> list[str]:
    table = scores(run.records)
    if not table:
        return ["This run has no records."]
    names = list(dict.fromkeys(name for of in table.values() for name in of))
    parts = [
        md_table(["operation", *names], [[of, *[_score(own, name) for name in names]] for of, own in table.items()])
    ]
    reasons = [
        f"- {md_text(operation)} {md_text(name)} unavailable: {md_text(reason)}"
        for operation, of in table.items()
        for name, score in of.items()
        for reason in score.reasons
    ]
    several = len({each.device for each in run.records}) > 1
    failures = [
        f"- {_status(each.status)}: {md_text(each.operation)} {md_text(each.implementation)}, {md_text(each.case)}"
        f"{f' on {md_text(each.device)}' if several else ''}: {md_text(each.message)}"
        + ("" if each.error is None or each.bound is None else f" (error {each.error:.6g}, bound {each.bound:.6g})")
        for each in failed_records(run.records)
    ]
    if reasons:
        parts.append("\n".join(reasons))
    return [*parts, "### Failures", "\n".join(failures)] if failures else parts


def _score(own: dict[str, Score], name: str) -> str:
    if name not in own:
        return "-"
    return ("✗ " if own[name].failed else "") + own[name].words


def _compared(against: Labelled, found: Sequence[Row]) -> list[str]:
    ratios = [row.time_ratio for row in found if row.time_ratio is not None]
    words = "No case was timed in both runs."
    if ratios:
        words = (
            f"{counted(len(ratios), 'measurement')} in common. The geometric mean of the ratios of medians is "
            f"{geometric_mean(ratios):.4g}; below 1 is faster than the earlier run. "
            "`boltzbench compare` separates changes from noise."
        )
    return [f"## Compared with {md_text(against[0])}", f"Measured on {md_text(device_name(against[1]))}. {words}"]


def _foretold(runs: Sequence[Labelled], found: Sequence[Row], predictions: Predictions) -> list[str]:
    compared, left = foretold(runs, found, predictions)
    parts = ["## Predicted and measured"]
    if compared:
        several = len(runs) > 1
        parts.append(f"Expected by `inspect` from the machine code of the kernel that ran. {foretold_line(compared)}")
        header = [*(["run"] if several else []), *FORETOLD]
        parts.append(md_table(header, [foretold_cells(each, several) for each in compared]))
    else:
        parts.append("No measurement has a prediction.")
    return [*parts, *(["\n".join(f"- {md_text(line)}" for line in foretold_left(left))] if left else [])]


def _measurements(timed: Sequence[Row], several: bool, compared: bool) -> str:
    header = [
        *(["run"] if several else []),
        *("case", "implementation", "mode", "median", "p10 to p90", "throughput", "B/s", SPEEDUP),
        *("share of limit", *([TIME_RATIO] if compared else []), "warnings"),
    ]
    return md_table(header, [_measurement(row, several, compared) for row in timed])


def _measurement(row: Row, several: bool, compared: bool) -> list[str]:
    each = row.measurement
    assert each is not None
    share = "" if each.roofline_share is None else f"{percent(each.roofline_share)} {each.limit}"
    return [
        *([row.run] if several else []),
        *(row.place, row.record.implementation, each.mode, si(each.median, "s")),
        *(f"{si(each.p10, 's')} to {si(each.p90, 's')}", items_rate(each)),
        *(si(each.bytes_per_second, "B/s"), number(row.over_torch), share),
        *([number(row.time_ratio)] if compared else []),
        "; ".join(row.warnings),
    ]


def md_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join([_line(header), f"|{' --- |' * len(header)}", *map(_line, lines)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(md_text, cells))} |"


def _status(status: Status) -> str:
    return f"**{md_text(status_words(status))}**"


def md_text(words: str) -> str:
    """``words`` on one line, without control characters, and with the markup of Markdown and HTML escaped."""
    one_line = " ".join(printable(words).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", one_line)
