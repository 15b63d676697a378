"""Tables and messages for the terminal, as rich renderables. They fit any width from 40
columns on: long texts fold and are never cut."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from statistics import median
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement as Width
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..api.ceilings import RESOURCES
from ..api.operations import Status
from ..api.records import MOST_DISTURBED, QUIET, LeftOut, Measurement, Record, Run
from ..results.precision import floor_words, noise_floor

NAMED = 3
"""Cases that a line names."""
NARROW = 72
"""Columns of a terminal; on fewer, tables become paragraphs."""

WIDE, IMPRECISE = 2.0, 0.02
"""A row is marked as noisy if its 90th percentile is more than so many times its 10th, if the noise of its median is
above the second, or if more than `MOST_DISTURBED` of its samples were taken on a disturbed device."""

PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def si(value: float, unit: str = "") -> str:
    """Three significant digits with an SI prefix: ``12.3 µs``. Without a unit, where 657 m would look like metres, a
    number below 1 has none: ``0.657``."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {unit}".rstrip()
    if not unit and abs(value) < 0.9995:
        return f"{value:.3g}"
    rounded = float(f"{value:.2e}")  # rounded first, so that 999.9 becomes 1.00 k and not 1000
    exponent = math.floor(math.log10(abs(rounded)) / 3 + 1e-9) * 3
    exponent = min(max(exponent, min(PREFIXES)), max(PREFIXES))
    scaled = rounded / 10.0**exponent
    digits = min(max(2 - math.floor(math.log10(abs(scaled)) + 1e-9), 0), 3)
    return f"{scaled:.{digits}f} {PREFIXES[exponent]}{unit}".rstrip()


def ceiling_rate(resource: str, rate: float) -> str:
    """A measured ceiling with the unit of its resource."""
    return si(rate, RESOURCES.get(resource, ""))


def counted(number: int, noun: str) -> str:
    """``1 check``, ``2 checks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """The items by their key, in the order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def status_words(status: Status) -> str:
    """``wrong values`` for ``wrong_values``."""
    return status.value.replace("_", " ")


def share_of_bound(record: Record) -> float | None:
    """The record's error as a fraction of its bound: at most 1 if it agrees. None if nothing was compared."""
    if record.error is None or record.bound is None:
        return None
    if record.error <= record.bound:
        return record.error / record.bound if record.bound else 0.0
    return record.error / record.bound if record.bound else math.inf


def failed_records(records: Iterable[Record]) -> list[Record]:
    """The records that neither passed nor are unavailable."""
    return [record for record in records if record.status not in (Status.PASSED, Status.UNAVAILABLE)]


def check_summary(records: Sequence[Record]) -> RenderableType:
    """For each implementation the cases and laws passed, and the case with the largest error relative to its bound."""
    table = new_table("operation", "implementation", "cases", "laws", "error/bound", "worst case", names=2)
    for (operation, implementation), own in grouped(records, lambda r: (r.operation, r.implementation)).items():
        cases = [record for record in own if record.purpose != "law"]
        laws = [record for record in own if record.purpose == "law"]
        shares = [(share, record.case) for record in cases if (share := share_of_bound(record)) is not None]
        share, worst = max(shares, key=lambda pair: pair[0], default=(None, ""))
        table.add_row(
            Text(operation),
            Text(implementation),
            _score(cases),
            _score(laws),
            Text("" if share is None else f"{share:.3g}", style="red" if share is not None and share > 1 else ""),
            Text(worst if share else "every case exact" if share == 0 else ""),
        )
    return Group(table, *_laws(records), *_unavailable(records))


def _laws(records: Iterable[Record]) -> list[Text]:
    """For each law, the message of the implementation with the largest error relative to its bound."""
    passed = [record for record in records if record.purpose == "law" and record.status is Status.PASSED]
    lines = []
    for (operation, law), own in grouped(passed, lambda r: (r.operation, r.case)).items():
        nearest = max(own, key=lambda record: share_of_bound(record) or 0.0)
        if nearest.message:
            lines.append(Text(f"{operation}, {law} ({nearest.implementation}): {nearest.message}"))
    return lines


def bench_tables(records: Sequence[Record]) -> RenderableType:
    """For each operation and case: the status of each implementation, and its times if it was timed.

    Unavailable implementations follow once, below the cases.
    """
    parts: list[RenderableType] = []
    several = len({record.device for record in records}) > 1
    for operation, own in grouped(records, lambda r: r.operation).items():
        measurements = [each for record in own for each in record.measurements]
        modes = sorted({each.mode for each in measurements})
        units = sorted({each.unit for each in measurements})
        title = Text.assemble((operation, "bold"), f" ({' or '.join(units)}; {' and '.join(modes)})" if units else "")
        parts += [title, indented(_bench_rows([]))]
        for (case, device), rows in grouped(own, lambda r: (r.case, r.device)).items():
            tried = [record for record in rows if record.status is not Status.UNAVAILABLE]
            torch_first = sorted(tried, key=lambda r: (r.backend != "torch", r.implementation))
            where = Text(f" on {device}" if several else "", style="dim")
            parts += [Text(case) + where, indented(_bench_rows(torch_first, name_modes=len(modes) > 1))]
        parts += [*_untimed(own), *_unavailable(own), *_suspicions(own), Text()]
    measurements = [each for record in records for each in record.measurements]
    return Group(*parts, *(Text(line, style="yellow") for line in noise_legend(measurements)))


def noise_words(measurement: Measurement) -> list[str]:
    """Reasons to mark a row as noisy: its spread, and what disturbed the device while it was timed."""
    words = []
    if measurement.p90 > WIDE * measurement.p10:
        words.append(f"p10 to p90 spans a factor of {_ratio(measurement.p90, measurement.p10)}")
    return [*words, *filter(None, [disturbance(measurement)])]


def disturbance(measurement: Measurement) -> str:
    """What disturbed the device while it was timed, in words; empty if it was little."""
    if measurement.disturbed <= MOST_DISTURBED:
        return ""
    return f"the device was disturbed during {measurement.disturbed:.0%} of the samples{_by_others([measurement])}"


def is_noisy(measurement: Measurement) -> bool:
    """Whether a row is marked as noisy."""
    return bool(noise_words(measurement)) or measurement.noise > IMPRECISE


def noise_legend(measurements: Sequence[Measurement]) -> list[str]:
    """What the mark of noisy rows means, and how busy the device was; nothing if no row has it."""
    noisy = [each for each in measurements if is_noisy(each)]
    if not noisy:
        return []
    count = f"{len(noisy)} of {counted(len(measurements), 'timing')}"
    lines = [
        f"~ noisy ({count}): p90 is above {WIDE:g} times p10, the median is uncertain by over {IMPRECISE:.0%}, or the "
        "device was disturbed."
    ]
    if busy := [each for each in noisy if each.disturbed > MOST_DISTURBED]:
        lines.append(
            f"Busy host or device during {counted(len(busy), 'timing')}{_by_others(busy)}. Disturbed blocks were "
            "measured a second time; for figures to keep, repeat the run on a quiet machine."
        )
    return lines


def _by_others(measurements: Iterable[Measurement]) -> str:
    """How much of the device other processes used, in words."""
    found = [each for one in measurements for state in one.states if (each := state.others or 0.0) > QUIET]
    return f": other processes used {median(found):.0%} of it, at most {max(found):.0%}" if found else ""


def _ratio(high: float, low: float) -> str:
    return f"{float(f'{high / low:.2g}'):g}" if low else "infinity"


def noise_floor_line(run: Run) -> str:
    """The noise floor in a sentence, or why it is unknown; empty if the run timed nothing."""
    failed = [each for each in run.controls if not each.timed]
    words = [f"the control of {each.operation} {each.implementation} failed: {each.message}" for each in failed]
    if (floor := noise_floor(run.controls)) is not None:
        timed = len(run.controls) - len(failed)
        again = f"the same code timed twice in {counted(timed, 'case')} differed by less in 19 of 20"
        words.insert(0, f"noise floor: {floor_words(floor)} ({again})")
    return "; ".join(words)


def devices(run: Run) -> dict[str, str]:
    """For each of several devices: its cases, the times of the reference, and whether it is slow."""
    lines = {}
    for each in run.devices:
        cases = {(record.operation, record.case) for record in run.records if record.device == each.device}
        facts = [counted(len(cases), "case"), *(f"{name} {si(value, 's')}" for name, value in each.reference.items())]
        lines[each.device] = "; ".join(filter(None, (", ".join(facts), each.slow)))
    return lines


def limits(run: Run) -> RenderableType:
    """The devices if they are several, the noise floor, the overhead of measuring, the limits of the device, and the
    time spent in each phase."""
    slow = [each.device for each in run.devices if each.slow]
    lines = [Text(f"{name}: {words}", style="yellow" * (name in slow)) for name, words in devices(run).items()]
    lines += [Text(line) for line in [noise_floor_line(run)] if line]
    if run.overheads:
        costs = ", ".join(f"{name} {si(value, 's')}" for name, value in run.overheads.items())
        lines.append(Text(f"measurement overhead: {costs}"))
    if run.ceilings:
        rates = ", ".join(f"{name} {ceiling_rate(name, rate)}" for name, rate in run.ceilings.items())
        whose = next((each.device for each in run.devices if each.ceilings), "this device")
        lines.append(Text(f"limits of {whose}: {rates}"))
    if run.seconds:
        spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.seconds.items())
        lines.append(Text(f"time spent: {spent}"))
    return Group(*lines)


FAILURES = 5
"""Different failures of an implementation that `failure_details` shows."""


def failure_details(records: Iterable[Record]) -> RenderableType:
    """The failures of each implementation: those of one message once, and of different ones the first `FAILURES`."""
    parts: list[RenderableType] = []
    records = [*records]
    several = len({record.device for record in records}) > 1
    for (operation, implementation), own in grouped(
        failed_records(records), lambda record: (record.operation, record.implementation)
    ).items():
        different = grouped(own, lambda record: (record.status, record.message))
        for same in [*different.values()][:FAILURES]:
            record = same[0]
            where = record.case if len(same) == 1 else f"{len(same)} times"
            where += f" on {', '.join(sorted({each.device for each in same}))}" if several else ""
            title = Text(f"{record.status}: {operation} {implementation}, {where}", style="bold red")
            parts += [title, indented(Text(record.message))]
            if len(same) > 1:
                parts.append(indented(Text(_some([each.case for each in same]))))
            elif record.error is not None and record.bound is not None:
                p_value = "" if record.p_value is None else f", p = {record.p_value:.3g}"
                parts.append(indented(Text(f"error {record.error:.6g}, bound {record.bound:.6g}{p_value}")))
        if left := sum(len(same) for same in [*different.values()][FAILURES:]):
            words = f"and {left} other failures of {operation} {implementation}; JSON (--json FILE) has them all"
            parts.append(Text(words, style="bold red"))
    return Group(*parts)


def _some(cases: Sequence[str]) -> str:
    """The first `NAMED` cases by name, the rest by number."""
    names = [*dict.fromkeys(cases)]
    return ", ".join(names[:NAMED]) + (f", and {len(names) - NAMED} more" if len(names) > NAMED else "")


def problem_lines(problems: Sequence[str]) -> RenderableType:
    return Group(*[Text(f"problem: {problem}", style="red") for problem in problems])


def closing_line(records: Sequence[Record], problems: Sequence[str], late: bool = False) -> str:
    """The result of the run and the next thing to do, in one line; ``late`` if steps were left out for lack of time."""
    wrong = failed_records(records)
    passed = sum(record.status is Status.PASSED for record in records)
    skipped = len(records) - passed - len(wrong)
    aside = f" ({skipped} skipped: unavailable here)" if skipped else ""
    troubled = f"{counted(len(problems), 'problem')}, see above. " if problems else ""
    if wrong:
        command = "bench" if wrong[0].purpose in ("bench", "real") else "check"
        again = f"boltzbench {command} -o {wrong[0].operation} -i {wrong[0].implementation}"
        return f"{troubled}{len(wrong)} of {counted(passed + len(wrong), 'check')} failed{aside}. Look closer: {again}"
    if not passed:
        advice = "The time was too short: give a longer --budget" if late else "See what is installed: boltzbench list"
        return f"{troubled}Nothing was checked{aside}. {advice}"
    return f"{troubled}All agree: {counted(passed, 'check')} passed{aside}."


def left_out(steps: Sequence[LeftOut]) -> RenderableType:
    """What `run` left out, by reason: cases that are timed already by name, the rest by number."""
    by_reason = grouped(steps, lambda step: step.reason)
    parts: list[RenderableType] = []
    if unchanged := by_reason.get("unchanged"):
        parts.append(Text("Not timed again: source and device are those of an earlier run", style="yellow"))
        for (operation, path), own in grouped(unchanged, lambda step: (step.operation, step.message)).items():
            parts.append(indented(Text(f"{operation}: {_some([step.case for step in own])} ({path})")))
    if impossible := by_reason.get("impossible"):
        parts.append(Text("Not possible here", style="yellow"))
        for message, own in grouped(impossible, lambda step: step.message).items():
            kinds = " and ".join(dict.fromkeys(step.kind for step in own))
            parts.append(indented(Text(f"{kinds} ({counted(len(own), 'step')}): {message}")))
    if late := by_reason.get("time"):
        parts.append(Text("Left out for lack of time; the results file lists every step", style="yellow"))
        for kind, own in grouped(late, lambda step: step.kind).items():
            counts = Counter(step.operation for step in own if step.operation)
            names = ", ".join(f"{operation} {count}" for operation, count in counts.items())
            first = " ".join(filter(None, (own[0].operation, own[0].implementation)))
            why = f"{first or 'it'} {own[0].message}" if len(own) == 1 else f"the first ({first}) {own[0].message}"
            parts.append(indented(Text(f"{kind}: {names}; {why}" if names else f"{kind}: {why}")))
    return Group(*parts)


class NarrowableTable(Table):
    """A table without lines. On a console narrower than `NARROW` it is a paragraph for each row, which begins with the
    first ``names`` cells."""

    def __init__(self, names: int = 1, **options: Any) -> None:
        super().__init__(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", **options)
        self._names = names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.width >= NARROW:
            yield from super().__rich_console__(console, options)
            return
        for row in zip(*(column.cells for column in self.columns), strict=True):
            cells = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in row]
            yield Text(" ").join(cell for cell in cells[: self._names] if cell)
            facts = [
                Text.assemble((f"{column.header} ", "dim"), cell)
                for column, cell in zip(self.columns[self._names :], cells[self._names :], strict=True)
                if cell.plain not in ("", "-")
            ]
            if facts:
                yield indented(Text(", ").join(facts))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Width:
        return super().__rich_measure__(console, options) if console.width >= NARROW else Width(1, options.max_width)


def new_table(*columns: str, names: int = 1) -> Table:
    """A table without lines, its columns folding."""
    table = NarrowableTable(names)
    for name in columns:
        narrow = name in ("cases", "laws", "cpu", "cuda", "version", "error/bound")
        table.add_column(name, overflow="fold", no_wrap=narrow)
    return table


def indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)


def _score(records: Sequence[Record]) -> Text:
    tried = [record for record in records if record.status is not Status.UNAVAILABLE]
    passed = sum(record.status is Status.PASSED for record in tried)
    if not tried:
        return Text("-", style="yellow") if records else Text()
    return Text(f"{passed}/{len(tried)}", style="green" if passed == len(tried) else "bold red")


def _bench_rows(records: Sequence[Record], *, name_modes: bool = False) -> Table:
    """The rows of one case; without records, the header. Fixed widths align the rows of all cases."""
    table = NarrowableTable(show_header=not records)
    table.add_column("implementation", width=14, overflow="fold")
    table.add_column("status", width=12, overflow="fold")
    table.add_column("median", width=8, justify="right")
    table.add_column("p10..p90", width=14, justify="right")
    table.add_column("items/s", width=7, justify="right")
    table.add_column("GB/s", width=6, justify="right")
    table.add_column("of limit", width=10, overflow="fold")
    for record in records:
        style = {Status.PASSED: "green", Status.UNAVAILABLE: "yellow"}.get(record.status, "bold red")
        for measurement in record.measurements or (None,):
            words = f"{record.status}, {measurement.mode}" if measurement and name_modes else str(record.status)
            table.add_row(Text(record.implementation), Text(words, style=style), *_timing_cells(measurement))
    return table


def _timing_cells(measurement: Measurement | None) -> list[Text]:
    if measurement is None:
        return [Text("-")] * 4
    share = measurement.roofline_share
    cells = [
        si(measurement.median, "s"),
        f"{'~' if is_noisy(measurement) else ''}{time_range(measurement.p10, measurement.p90)}",
        si(measurement.items_per_second),
        gigabytes(measurement.bytes_per_second),
        "" if share is None else f"{share:.0%} {measurement.limit}",
    ]
    return [Text(cell, style="yellow" if measurement.suspicions else "") for cell in cells]


def time_range(low: float, high: float) -> str:
    """``841..1020 µs``: both in the unit of the larger one."""
    if not math.isfinite(high):
        return f"{si(low, 's')}..{si(high, 's')}"
    number, _, unit = si(high, "s").rpartition(" ")
    scale = 10.0 ** round(math.log10(high / float(number))) if float(number) else 1.0
    digits = len(number.partition(".")[2])
    return f"{low / scale:.{digits}f}..{number} {unit}"


def gigabytes(bytes_per_second: float) -> str:
    value = bytes_per_second / 1e9
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if value < 1 else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _untimed(records: Iterable[Record]) -> list[Text]:
    return _by_reason("not timed", [record for record in records if record.untimed], lambda r: r.untimed)


def _suspicions(records: Iterable[Record]) -> list[Text]:
    return [
        Text(f"suspect: {record.implementation}, {record.case}, {measurement.mode}: {words}", style="yellow")
        for record in records
        for measurement in record.measurements
        for words in measurement.suspicions
    ]


def _unavailable(records: Iterable[Record]) -> list[Text]:
    skipped = [record for record in records if record.status is Status.UNAVAILABLE]
    return _by_reason("unavailable", skipped, lambda r: r.message)


def _by_reason(what: str, records: Iterable[Record], reason: Callable[[Record], str]) -> list[Text]:
    lines = []
    for words, own in grouped(records, reason).items():
        names = ", ".join(dict.fromkeys(record.implementation for record in own))
        lines.append(Text(f"{what}: {names} ({counted(len(own), 'check')}): {words}", style="yellow"))
    return lines
