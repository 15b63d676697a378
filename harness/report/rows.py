"""The rows of a report: each measurement with its warnings and its ratios to the baseline and to an earlier run."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..api.noise import PRECISE, PRECISE_ON_CPU
from ..api.operations import Status
from ..api.records import Measurement, Record, Run, Standing
from ..results.predictions import Expectation, Predictions
from ..results.slow_devices import slow_records
from .standing_tables import refused
from .tables import counted, devices, grouped, noise_floor_line, noise_words, si

BASELINE = "torch"
"""The implementation that the others are compared with, in the same case and mode."""

SPEEDUP = f"speedup over {BASELINE}"
"""Heading of `Row.over_torch`."""
TIME_RATIO = "time / earlier"
"""Heading of `Row.time_ratio`."""

FORETOLD = (
    *("operation", "case", "implementation", "interval", "measured / expected", "measured", "expected (interval)"),
    *("decides", "kernel"),
)
"""Headings of `foretold_cells`."""

CPU_RUN = (
    "measured on a CPU: these times say nothing about a GPU. Triton and CUDA C kernels have none, because a CPU "
    "interprets or emulates them."
)
"""The note of every report on a run without a GPU."""

Timed = tuple[str, str, str, str, str]
"""What two measurements must share to be compared: operation, implementation, case, mode, and in one run the device."""


@dataclass(frozen=True)
class Row:
    """A measurement with its record, or a record without one. ``run`` is the run's label, ``number`` its index.

    ``over_torch`` is the baseline's median divided by this one: 2 means twice as fast. ``time_ratio`` is this median
    divided by the earlier run's: 2 means twice as slow. Each is None if there is nothing to compare with.
    ``precise`` is the noise at which sampling ends. ``slow_device`` says that the device is slower than others of its
    kind. ``where`` names the device if the run used several, and ``apart`` says that the run has this case on several.
    """

    number: int
    run: str
    record: Record
    measurement: Measurement | None = None
    over_torch: float | None = None
    time_ratio: float | None = None
    precise: float = PRECISE
    slow_device: str = ""
    where: str = ""
    apart: bool = False

    @property
    def place(self) -> str:
        """The case, and where it ran if the run used several devices."""
        return f"{self.record.case} on {self.where}" if self.where else self.record.case

    @property
    def case(self) -> str:
        """The case, and where it ran if the run has it on several devices: what is shown side by side."""
        return self.place if self.apart else self.record.case

    @property
    def mode(self) -> str:
        return self.measurement.mode if self.measurement else ""

    @property
    def throttled(self) -> tuple[str, ...]:
        """The distinct reasons for a reduced clock."""
        states = self.measurement.states if self.measurement else ()
        return tuple(dict.fromkeys(reason for state in states for reason in state.throttled))

    @property
    def warnings(self) -> list[str]:
        """Reasons to distrust the measurement."""
        if self.measurement is None:
            return []
        found = [f"suspect: {words}" for words in self.measurement.suspicions]
        if self.throttled:
            found.append(f"throttled: {', '.join(self.throttled)}")
        if self.slow_device:
            found.append(f"slow device: {self.slow_device}")
        if self.measurement.stopped == "limit" and self.measurement.noise > self.precise:
            found.append(f"still noisy at the time limit: ±{percent(self.measurement.noise)}")
        return found + [f"noisy: {words}" for words in noise_words(self.measurement)]

    @property
    def remark(self) -> str:
        """The message of the check, and why there is no measurement."""
        return " ".join(words for words in (self.record.message, self.record.untimed) if words)


@dataclass(frozen=True)
class Foretold:
    """A measurement beside what was expected of its kernel. ``measured`` is the rate in the unit of ``expected``."""

    row: Row
    expected: Expectation
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over expected: 2 means twice as fast."""
        return self.measured / self.expected.rate

    @property
    def inside(self) -> bool:
        return self.expected.low <= self.measured <= self.expected.high

    @property
    def position(self) -> str:
        """Where the measured rate is: ``inside``, ``below`` or ``above`` the interval."""
        if self.inside:
            return "inside"
        return "below" if self.measured < self.expected.low else "above"


@dataclass
class Score:
    """How many records of one implementation of one operation passed, failed and could not run."""

    passed: int = 0
    failed: int = 0
    unavailable: int = 0
    reasons: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        tried = self.passed + self.failed
        if not tried:
            return "unavailable"
        return f"{self.passed}/{tried}" + (f" ({self.unavailable} unavailable)" if self.unavailable else "")


def rows(runs: Sequence[tuple[str, Run]], earlier: Run | None = None) -> list[Row]:
    """One row for each measurement of ``runs``, and one for each record without a measurement."""
    before: dict[tuple[str, ...], dict[str, float]] = {}
    for (*names, device), median in (medians(earlier) if earlier else {}).items():
        before.setdefault(tuple(names), {})[device] = median
    found = []
    for number, (label, run) in enumerate(runs):
        own = medians(run)
        ran_on = grouped(run.records, lambda record: (record.operation, record.case))
        apart = {key for key, records in ran_on.items() if len({each.device for each in records}) > 1}
        several = len({record.device for record in run.records}) > 1
        precise = PRECISE_ON_CPU if is_cpu(run) else PRECISE
        for record, slow in zip(run.records, slow_records(run), strict=True):
            bare = Row(
                number, label, record, precise=precise, slow_device=slow,
                where=record.device if several else "", apart=(record.operation, record.case) in apart,
            )  # fmt: skip
            for each in record.measurements:
                baseline = own.get((record.operation, BASELINE, record.case, each.mode, record.device))
                earlier_times = before.get((record.operation, record.implementation, record.case, each.mode), {})
                only = next(iter(earlier_times.values())) if len(earlier_times) == 1 else None
                over_torch, earlier_time = ratio(baseline, each.median), earlier_times.get(record.device, only)
                time_ratio = ratio(each.median, earlier_time)
                found.append(replace(bare, measurement=each, over_torch=over_torch, time_ratio=time_ratio))
            if not record.measurements:
                found.append(bare)
    return found


def foretold(
    runs: Sequence[tuple[str, Run]], found: Sequence[Row], predictions: Predictions
) -> tuple[list[Foretold], dict[str, int]]:
    """The measurements of which a rate was expected, and of how many others not, by the reason."""
    compared = []
    left: Counter[str] = Counter()
    for row in found:
        if row.measurement is None:
            continue
        expected = predictions.of(runs[row.number][1], row.record, row.measurement)
        if isinstance(expected, str):
            left[expected] += 1
        elif expected and (measured := expected.measured(row.measurement)) is not None:
            compared.append(Foretold(row, expected, measured))
    return compared, dict(left)


def foretold_cells(each: Foretold, several: bool = False) -> list[str]:
    """The cells below `FORETOLD`, after the run's label if there are ``several`` runs."""
    expected, record = each.expected, each.row.record
    rates = f"{si(expected.rate)} ({si(expected.low)} to {si(expected.high)}) {expected.unit}/s"
    return [
        *([each.row.run] if several else []),
        *(record.operation, record.case, record.implementation, each.position, number(each.ratio)),
        *(si(each.measured), rates, expected.decides, expected.kernel),
    ]


def foretold_left(left: Mapping[str, int]) -> list[str]:
    """Why measurements are not compared, a line for each reason."""
    return [f"{counted(count, 'measurement')} not compared: {why}" for why, count in left.items()]


def foretold_line(compared: Sequence[Foretold]) -> str:
    """How many measured rates lie in their interval, and how far they are from the expected ones."""
    inside = sum(each.inside for each in compared)
    ratios = [each.ratio for each in compared]
    rms = math.sqrt(math.fsum(math.log(ratio) ** 2 for ratio in ratios) / len(ratios))
    lies = "rate lies" if len(compared) == 1 else "rates lie"
    return (
        f"{inside} of {len(compared)} measured {lies} in the interval that holds nine of ten published ones. Measured "
        f"over expected: geometric mean {number(geometric_mean(ratios))}, rms log error {rms:.2f}."
    )


def medians(run: Run) -> dict[Timed, float]:
    return {
        (record.operation, record.implementation, record.case, each.mode, record.device): each.median
        for record in run.records
        for each in record.measurements
    }


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """The quotient, or None if one of the two is missing, zero or not finite."""
    if not numerator or not denominator or not math.isfinite(numerator) or not math.isfinite(denominator):
        return None
    return numerator / denominator


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def scores(records: Iterable[Record]) -> dict[str, dict[str, Score]]:
    """The score of each operation and implementation, in the order of first appearance."""
    table: dict[str, dict[str, Score]] = {}
    for record in records:
        score = table.setdefault(record.operation, {}).setdefault(record.implementation, Score())
        if record.status is Status.PASSED:
            score.passed += 1
        elif record.status is Status.UNAVAILABLE:
            score.unavailable += 1
            if record.message not in score.reasons:
                score.reasons.append(record.message)
        else:
            score.failed += 1
    return table


def environment(run: Run) -> dict[str, str]:
    """The environment, options, overheads and phases of the run as a flat table: ``gpu name``, ``commit``, ...

    Of a merged run, all values that its parts have.
    """
    several = [_flat({**each, "gpu": each.get("gpu") or "none"}) for each in _environments(run)]
    names = dict.fromkeys(name for each in several for name in each)
    facts = {name: "; ".join(dict.fromkeys(each[name] for each in several if name in each)) for name in names}
    if len(several) > 1:
        facts["dirty"] = str(any(each.get("dirty") == "True" for each in several))
    if facts.pop("dirty", "") == "True":
        facts["commit"] = f"{facts.get('commit', 'unknown')} with uncommitted changes"
    options = asdict(run.command) if run.command else {}
    options = {name: "all" if value == () else "default" if value is None else value for name, value in options.items()}
    facts.update(_flat(options, "option "))
    facts.update({f"device {name}": words for name, words in devices(run).items()})
    if run.shard:
        facts["shard"] = f"{run.shard.number} of {run.shard.of} of plan {run.shard.plan}"
    if run.parts:
        facts["merged from"] = ", ".join(f"{each.file} ({each.shard or 'a run'})" for each in run.parts)
    if floor := noise_floor_line(run):
        facts["noise floor"] = floor.removeprefix("noise floor: ")
    facts.update({f"overhead {name}": si(seconds, "s") for name, seconds in run.overheads.items()})
    facts.update({f"time in {name}": si(seconds, "s") for name, seconds in run.seconds.items()})
    return facts


def _environments(run: Run) -> list[Mapping[str, Any]]:
    return [part.environment for part in run.parts] or [run.environment]


def tested(run: Run) -> list[Standing]:
    """The standings of samplers that were tested and not refused."""
    return [each for each in run.standings if not refused(each)]


def is_cpu(run: Run) -> bool:
    return str(run.environment.get("device", "")).startswith("cpu")


def device_name(run: Run) -> str:
    gpu = run.environment.get("gpu")
    name = gpu.get("name") if isinstance(gpu, Mapping) else run.environment.get("cpu")
    device = str(run.environment.get("device", "unknown device"))
    return f"{name} ({device})" if name else device


def percent(share: float) -> str:
    """Three significant digits without a power of ten: ``87.5 %``, ``0.0312 %``."""
    if not math.isfinite(share):
        return f"{share:g}"
    value = 100 * share
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(digits, 0), 6)}f} %"


def number(value: float | None) -> str:
    """Three significant digits with trailing zeros: ``1.00``, ``24.5``, ``318``."""
    return "" if value is None else f"{value:#.3g}".rstrip(".")


def items_rate(measurement: Measurement) -> str:
    """``320 G unit updates/s``: the unit is a word, so a space follows the prefix."""
    return f"{si(measurement.items_per_second)} {measurement.unit}/s"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name} "))
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) or "none"
        else:
            flat[f"{prefix}{name}"] = "unknown" if value is None else str(value)
    return flat
