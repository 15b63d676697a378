"""The fixtures ``time_case`` and ``measure``: time registered kernels and any callable under pytest-benchmark, with the
clock and the protocol of `bench`.

pytest-benchmark provides tables, groups, `--benchmark-json`, `--benchmark-compare` and
`--benchmark-compare-fail=median:5%`. One of its rounds is one sample of the protocol. Its own calibration is not used:
it would include launch latency and the restoring of state.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .api.records import Measurement
    from .callables.measured import Measured
    from .execution.plan import Mode

TimeCase = Callable[..., "Measurement | None"]
Measure = Callable[..., "Measured"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--boltzbench-device", metavar="NAME", default="auto", help="where time_case runs: auto, cpu, cuda or cuda:N"
    )


class _SampledTime:
    """A timer that advances only by the samples added to it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def add(self, sample: float) -> None:
        self.seconds = sample  # each round starts from 0, so rounding loses no digit of a sample

    def reset(self) -> None:
        self.seconds = 0.0


@pytest.fixture
def time_case(request: pytest.FixtureRequest) -> TimeCase:
    """``time_case(operation, implementation, case, mode="cold")`` checks the case with this label, then times it.

    Call it once in a test. The test fails if the implementation does not agree. It is skipped, with the reason, if the
    implementation is unavailable or interpreted. Returns the `Measurement`, or None if pytest-benchmark is disabled (as
    under xdist): then only agreement is checked. Rates, limits and the verdict go into ``extra_info`` of the JSON. The
    implementation runs in the process of the test.
    """
    benchmark, keep = _benchmark(request)

    def time_case(operation: str, implementation: str, case: str, mode: "Mode" = "cold") -> "Measurement | None":
        _silence_warning_of_no_benchmark()
        from .api.messages import unknown
        from .api.operations import Case, Status
        from .execution.session import INTERPRETED
        from .execution.trial import Trial, TrialFailed
        from .results.environment import describe
        from .timing.roofline import cache_bytes, ceilings_of, with_share

        if mode not in ("cold", "hot"):
            raise unknown("mode", mode, ("cold", "hot"))
        device, registry = _loaded(request.config)
        step = _step(registry, operation, implementation, case)
        assert isinstance(step.subject, Case)
        trial = Trial(step, device)
        record = trial.judge(draws=1)
        if record.status is Status.UNAVAILABLE:
            pytest.skip(f"{implementation}: {record.message}")
        if record.status is not Status.PASSED:
            pytest.fail(f"{record.status}: {operation} {implementation}, {case}: {record.message}", pytrace=False)
        if step.implementation.is_interpreted_on(device):
            pytest.skip(f"{implementation}: agrees; {INTERPRETED}")
        if benchmark.disabled:
            return None
        try:
            trial.start(mode)
            while trial.take_block().more:
                pass
            measurement = trial.finish()
        except TrialFailed as failed:
            pytest.fail(f"{failed.record.status}: {failed.record.message}", pytrace=False)
        environment = describe(device)
        rates, _ = ceilings_of(registry.ceilings, device, environment)
        measurement = with_share(measurement, step.operation.cost(step.subject), rates, cache_bytes(environment))
        verdict = {
            "operation": record.operation,
            "implementation": record.implementation,
            "backend": record.backend,
            "plugin": record.plugin,
            "case": record.case,
            "agreement": str(record.status),
            "error": record.error,
            "bound": record.bound,
        }
        keep(f"{operation} {case} {mode}", verdict, measurement)
        return measurement

    return time_case


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """``measure(fn, *args, reference=..., ...)`` checks and times any callable, as `boltzbench.harness.measure` does.

    Call it once in a test. The test fails if the callable does not agree; without a reference it is timed unchecked.
    Returns the `Measured`, which has no time if pytest-benchmark is disabled (as under xdist) or a kernel was
    interpreted. Verdict, rates and flags go into ``extra_info`` of the JSON.
    """
    benchmark, keep = _benchmark(request)

    def measure(fn: Callable[..., Any], /, *args: Any, **options: Any) -> "Measured":
        _silence_warning_of_no_benchmark()
        from .callables.measure import measure as measure_here

        found = measure_here(fn, *args, **{"timed": not benchmark.disabled, **options})
        if not found.agreement.passed:
            pytest.fail(str(found), pytrace=False)
        if found.measurement is not None:
            verdict = {
                "callable": found.name,
                "case": found.case,
                "agreement": found.verdict,
                "error": found.agreement.error,
                "bound": found.agreement.bound,
                "notes": list(found.notes),
            }
            keep(f"{found.name} {found.case} {found.measurement.mode}", verdict, found.measurement)
        return found

    return measure


Keep = Callable[[str, dict[str, Any], "Measurement"], None]
"""Hands a measurement to pytest-benchmark, with its group and the facts for ``extra_info``."""


def _benchmark(request: pytest.FixtureRequest) -> tuple[Any, Keep]:
    """The fixture of pytest-benchmark, with a timer that shows the samples of the harness, and what gives it those."""
    timer = _SampledTime()
    request.applymarker(pytest.mark.benchmark(timer=timer))
    benchmark = request.getfixturevalue("benchmark")

    def keep(group: str, verdict: dict[str, Any], measurement: "Measurement") -> None:
        samples: Iterator[float] = iter(measurement.samples)
        benchmark.group = group
        benchmark.extra_info |= verdict | _extra_info(measurement)
        benchmark.pedantic(lambda: timer.add(next(samples)), setup=timer.reset, rounds=len(measurement.samples))

    return benchmark, keep


def _silence_warning_of_no_benchmark() -> None:
    """pytest-benchmark warns of a test that fails before it is timed. pytest restores the filters after each test."""
    warnings.filterwarnings("ignore", "Benchmark fixture was not used")


_KEY = pytest.StashKey[tuple[Any, Any]]()


def _loaded(config: pytest.Config) -> tuple[Any, Any]:
    """The device and the registry, loaded once for all tests."""
    if _KEY not in config.stash:
        from .discovery.registry import load_registry
        from .execution.process import prepare_to_run_kernels
        from .results.environment import resolve_device

        device = resolve_device(config.getoption("--boltzbench-device"))
        prepare_to_run_kernels(device)
        config.stash[_KEY] = device, load_registry()
    return config.stash[_KEY]


def _step(registry: Any, operation: str, implementation: str, label: str) -> Any:
    from .api.messages import unknown
    from .execution.plan import Step

    ((found, (chosen,)),) = registry.select([operation], [implementation])
    for case in found.cases:
        if case.label == label:
            return Step(found, chosen, case, case.seed)
    raise unknown(f"case of {operation}", label, [case.label for case in found.cases])


def _extra_info(measurement: "Measurement") -> dict[str, Any]:
    """Plain values for ``extra_info`` in pytest-benchmark's JSON."""
    return {
        "device": measurement.device,
        "mode": measurement.mode,
        "noise": measurement.noise,
        "stopped": measurement.stopped,
        "items_per_second": measurement.items_per_second,
        "unit": measurement.unit,
        "bytes_per_second": measurement.bytes_per_second,
        "flops_per_second": measurement.flops_per_second,
        "roofline_share": measurement.roofline_share,
        "limit": measurement.limit,
        "suspicions": list(measurement.suspicions),
    }
