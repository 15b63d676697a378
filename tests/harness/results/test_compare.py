import dataclasses
import io
import json
import math
import re

import numpy as np
import pytest
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Control, DeviceState, Measurement, Record, Run, UsedDevice
from boltzbench.harness.report.compare_tables import comparison_markdown, comparison_tables
from boltzbench.harness.results import compare as module
from boltzbench.harness.results import precision
from boltzbench.harness.results.compare import (
    DifferentDevices,
    NothingInCommon,
    Verdict,
    as_json,
    exit_status,
    parse_bound,
    parse_bounds,
)
from boltzbench.harness.results.file import SCHEMA, ResultsError
from boltzbench.harness.results.precision import make_control, noise_floor
from boltzbench.harness.timing.figures import unfinished
from boltzbench.harness.timing.stopwatch import ON_CPU, STANDARD
from rich.console import Console

CPU = {"device": "cpu", "cpu": "EPYC", "cores": 4, "threads": 4}
TIGHT = (1.0, 1.001, 0.999, 1.002, 0.998) * 4


def measurement(samples=TIGHT, mode="hot", **fields):
    return Measurement(
        "EPYC",
        mode,
        tuple(samples),
        float(np.median(tuple(samples) or [math.nan])),
        0.9,
        1.1,
        1.0,
        "rows",
        1.0,
        1.0,
        **fields,
    )


def record(*measurements, implementation="torch", case="n=3", status=Status.PASSED, purpose="bench", message=""):
    return Record(
        "double", implementation, "torch", "p (d 1)", case, purpose, status, message, measurements=measurements
    )


def run(*records, status="complete", **environment):
    return Run(SCHEMA, status, {**CPU, **environment}, records)


def times(factor, samples=TIGHT):
    return measurement([factor * sample for sample in samples])


def compare(base, new, **options):
    return module.compare(module.summary(base), module.summary(new), **options)


def only(comparison):
    (pair,) = comparison.pairs
    return pair


@pytest.mark.parametrize(
    ("factor", "verdict", "status"),
    [
        (1.10, Verdict.SLOWER, 1),
        (1.03, Verdict.SLIGHTLY_SLOWER, 0),
        (1.005, Verdict.SAME, 0),
        (1.0, Verdict.SAME, 0),
        (0.97, Verdict.SLIGHTLY_FASTER, 0),
        (0.90, Verdict.FASTER, 0),
        (0.01, Verdict.FASTER, 0),
    ],
)
def test_a_clear_ratio(factor, verdict, status):
    found = compare(run(record(times(1.0))), run(record(times(factor))), bound=0.05)
    pair = only(found)
    assert (pair.verdict, pair.mode, exit_status(found)) == (verdict, "hot", status)
    assert pair.ratio == pytest.approx(factor)
    assert pair.low < factor < pair.high < 1.03 * pair.low
    assert pair.notes == ()


def test_a_slowdown_within_the_bound_is_allowed():
    slower = run(record(times(1.10)))
    assert exit_status(compare(run(record(times(1.0))), slower, bound=0.2)) == 0
    assert exit_status(compare(run(record(times(1.0))), slower, bound=0.0)) == 1


def test_a_slowdown_hidden_by_noise_gets_a_note():
    noisy = (0.6, 1.7, 0.8, 1.3, 1.0, 0.7, 1.2, 1.9)
    found = compare(run(record(times(1.0, noisy))), run(record(times(1.1, noisy))), bound=0.05)
    assert only(found).verdict is Verdict.SAME
    assert only(found).notes == ("may be slower by more than 5 %",)


def test_recorded_noise_and_variation_between_runs_widen_the_interval():
    constant = [2.0] * 50
    plain = only(compare(run(record(measurement(constant))), run(record(measurement(constant))), bound=0.05))
    assert plain.high - 1 == pytest.approx(1.96 * math.sqrt(2) * module.BETWEEN_RUNS, rel=0.02)
    noisy = run(record(measurement(constant, noise=0.03)))
    assert only(compare(noisy, noisy, bound=0.05)).high > 1.08


def test_modes_are_compared_separately():
    base = run(record(times(1.0), dataclasses.replace(times(2.0), mode="cold")))
    new = run(record(times(1.0), dataclasses.replace(times(4.0), mode="cold")))
    assert [(p.mode, p.verdict) for p in compare(base, new, bound=0.05).pairs] == [
        ("cold", Verdict.SLOWER),
        ("hot", Verdict.SAME),
    ]
    found = compare(base, run(record(times(1.0))), bound=0.05)
    assert [(p.mode, p.verdict) for p in found.pairs] == [("hot", Verdict.SAME), ("cold", Verdict.ONLY_BASE)]
    assert exit_status(found) == 0


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PASSED])
def test_a_case_that_no_longer_passes_is_a_regression(status):
    new = run(record(status=status, message="why"))
    found = compare(run(record(times(1.0))), new, bound=0.05)
    assert (only(found).verdict, only(found).notes) == (Verdict.FAILED, (f"{status}: why",))
    assert exit_status(found) == 1
    better = compare(new, run(record(times(1.0))), bound=0.05)
    assert (only(better).verdict, only(better).notes) == (Verdict.PASSES, (f"before: {status}: why",))
    assert exit_status(better) == 0


def test_cases_in_only_one_run_are_listed():
    base = run(record(times(1.0)), record(times(1.0), case="n=4"))
    new = run(record(times(1.0)), record(times(1.0), implementation="triton"))
    found = compare(base, new, bound=0.05)
    assert [(p.implementation, p.case, p.verdict) for p in found.pairs] == [
        ("torch", "n=3", Verdict.SAME),
        ("triton", "n=3", Verdict.ONLY_NEW),
        ("torch", "n=4", Verdict.ONLY_BASE),
    ]
    assert exit_status(found) == 0


def test_runs_with_nothing_in_common_are_refused():
    base = run(record(times(1.0)))
    for other in (run(), run(record(times(1.0), case="n=4")), run(record(times(1.0), purpose="real"))):
        with pytest.raises(NothingInCommon, match="no case in common") as caught:
            compare(base, other, bound=0.05)
        assert isinstance(caught.value, ResultsError)
    with pytest.raises(NothingInCommon, match="no measurement in common"):
        compare(run(record(times(1.0)), record(case="c")), run(record(case="c")), bound=0.05)
    bad = run(record(status=Status.ERROR))
    with pytest.raises(NothingInCommon):
        compare(bad, bad, bound=0.05)


def test_runs_without_a_time_that_can_be_judged_are_refused():
    """Otherwise "no regression" would be said of runs that nothing compares, also beside what only one of them has."""
    few = run(record(measurement((1.0,))), record(case="c"))
    words = "no time in common that can be judged; double torch hot n=3: base: too few samples to judge: 1, new: too"
    for base, new in ((few, few), (few, dataclasses.replace(few, records=(*few.records, record(times(1), case="d"))))):
        with pytest.raises(NothingInCommon, match=words):
            compare(base, new, bound=0.05)


def test_runs_of_check_alone_are_compared_by_agreement():
    found = compare(run(record(purpose="check")), run(record(purpose="check")), bound=0.05)
    assert (found.pairs, found.agreeing, exit_status(found)) == ((), 1, 0)


GPU = {"name": "H200", "uuid": "1", "driver": "580"}


@pytest.mark.parametrize(
    "change",
    [{"cpu": "Xeon"}, {"threads": 8}, {"cores": 2}, {"gpu": GPU, "device": "cuda:0"}],
    ids=str,
)
def test_different_devices_are_refused_without_any_device(change):
    base, new = run(record(times(1.0))), run(record(times(1.0)), **change)
    with pytest.raises(DifferentDevices, match=r"base ran on the CPU EPYC .*--any-device"):
        compare(base, new, bound=0.05)
    assert any(note.startswith(next(iter(change)).replace("gpu", "device")) for note in
               compare(base, new, bound=0.05, any_device=True).notes)  # fmt: skip


def test_another_card_of_the_same_kind_gets_a_note():
    base = run(record(times(1.0)), gpu=GPU)
    new = run(record(times(1.0)), gpu={**GPU, "uuid": "2", "driver": "581"}, cpu="Xeon", torch="3", status="incomplete")
    assert compare(base, new, bound=0.05).notes == (
        "new is incomplete",
        "gpu uuid: 1 in base, 2 in new (two cards of one kind)",
        "gpu driver: 580 in base, 581 in new",
        "cpu: EPYC in base, Xeon in new",
        "torch: None in base, 3 in new",
    )
    with pytest.raises(DifferentDevices, match="base ran on H200, new on B200"):
        compare(base, run(record(times(1.0)), gpu={**GPU, "name": "B200"}), bound=0.05)


def test_doubtful_measurements_are_marked():
    hot = measurement(states=(DeviceState(0), DeviceState(9, throttled=("too hot", "power"))))
    odd = measurement(suspicions=("above the limit",))
    found = compare(run(record(hot)), run(record(odd)), bound=0.05)
    assert only(found).notes == ("base throttled: too hot, power", "new suspect: above the limit")
    busy = measurement(states=(DeviceState(0, others=0.5), DeviceState(6, others=0.05)))
    found = compare(run(record(measurement())), run(record(busy)), bound=0.05)
    assert only(found).notes == ("new disturbed by other processes",)
    found = compare(run(record(busy)), run(record(busy)), bound=0.05)
    assert only(found).notes == ("base and new disturbed by other processes",)
    busy = measurement(states=(DeviceState(0, others=0.5), DeviceState(5, others=0.05)))
    assert only(compare(run(record(measurement())), run(record(busy)), bound=0.05)).notes == (), "a quarter"


@pytest.mark.parametrize("samples", [None, (), (1.0,), (1.0, math.inf), (1.0, 0.0), (1.0, math.nan)], ids=str)
def test_missing_and_invalid_samples_are_failures(samples):
    """Otherwise a run would hide a slow case by losing its times."""
    lost = record(case="lost") if samples is None else record(measurement(samples), case="lost")
    base, new = run(record(times(1.0)), record(times(1.0), case="lost")), run(record(times(1.0)), lost)
    found = compare(base, new, bound=0.05)
    assert [(pair.case, pair.verdict) for pair in found.pairs] == [("lost", Verdict.FAILED), ("n=3", Verdict.SAME)]
    words = {None: "was not timed", (): "too few samples to judge: 0", (1.0,): "too few samples to judge: 1"}
    assert found.pairs[0].notes == (words.get(samples, "1 of 2 samples are not positive times"),)
    assert exit_status(found) == 1
    found = compare(new, base, bound=0.05)
    assert exit_status(found) == 0
    (verdict,) = (pair.verdict for pair in found.pairs if pair.case == "lost")
    assert verdict is (Verdict.ONLY_NEW if samples is None else Verdict.PASSES)
    both = compare(new, new, bound=0.05)
    assert exit_status(both) == 0
    assert [pair.verdict for pair in both.pairs] == [Verdict.SAME, *[Verdict.UNCLEAR] * (samples is not None)]


@pytest.mark.parametrize("n", [5, 21, 60])
def test_the_variance_of_a_median_is_that_of_the_bootstrap(n):
    generator = np.random.default_rng(n)
    samples = np.exp(0.1 * generator.standard_normal(n))
    samples[::3] = samples[0]  # ties
    medians = np.median(samples[generator.integers(n, size=(20000, n))], axis=1)
    chances, logs = precision._chances_of_median(n), np.log(np.sort(samples))
    found = chances @ (logs - chances @ logs) ** 2
    assert found == pytest.approx(np.log(medians).var(), rel=0.05)
    _, variance, degrees = precision.log_median(samples)
    assert variance / found == pytest.approx((n / (degrees + 1)), rel=1e-9)


def test_holm():
    assert module._holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert list(module._holm(np.array([0.9, 0.8]))) == [1.0, 1.0]


def synthetic(generator, cases, *, factor=1.0, drift=0.0, samples=30, sigma=0.1, alike=0.0):
    """Lognormal samples with correlation ``alike`` of neighbours, and a shift of the whole case of up to ``drift``."""
    records = []
    for case in range(cases):
        normal = generator.standard_normal(samples)
        for place in range(1, samples):
            normal[place] = alike * normal[place - 1] + math.sqrt(1 - alike**2) * normal[place]
        level = (1 + drift * generator.uniform(-1, 1)) * (factor if case == 0 else 1.0)
        records.append(record(measurement(1e-4 * level * np.exp(sigma * normal)), case=f"n={case}"))
    return run(*records)


@pytest.mark.parametrize(
    ("bound", "noise"),
    [
        pytest.param(0.0, {}, id="no bound"),
        pytest.param(0.0, {"alike": 0.6}, id="no bound, neighbours alike"),
        pytest.param(0.05, {"drift": 0.024, "sigma": 0.02}, id="drift below the bound"),
    ],
)
def test_false_alarms_of_400_comparisons_of_the_same_code(bound, noise):
    """At most the stated 5 % of the comparisons, each of four cases, exit with 1."""
    generator = np.random.default_rng(5)
    runs = [[synthetic(generator, 4, **noise) for _ in range(2)] for _ in range(400)]
    alarms = sum(exit_status(compare(base, new, bound=bound)) for base, new in runs)
    assert alarms <= 20


def test_a_slowdown_of_ten_percent_is_detected():
    generator = np.random.default_rng(6)
    found = [
        compare(synthetic(generator, 6, sigma=0.03), synthetic(generator, 6, sigma=0.03, factor=1.10), bound=0.05)
        for _ in range(1000)
    ]
    assert sum(exit_status(each) for each in found) >= 900
    assert all(each.pairs[0].case == "n=0" for each in found if exit_status(each))


def levels(generator, count, mean, share):
    """Which of ``count`` samples a clock of two speeds takes at the slow one: ``mean`` at a time, ``share`` of all."""
    slow, found = generator.uniform() < share, []
    while len(found) < count:
        length = generator.geometric(1 / mean if slow else share / (1 - share) / mean)
        found += [slow] * length
        slow = not slow
    return np.array(found[:count])


def of_a_noisy_clock(generator, protocol):
    """Samples of 5 ms, until they are precise enough for the protocol, on a clock that drifts by 4 % to and fro, is now
    and then 5 % slower for a dozen samples, and is interrupted in one of 30."""
    most = protocol.most_samples
    logs = 0.01 * generator.standard_normal(most)
    logs += 0.02 * np.sin(2 * np.pi * (np.arange(most) / generator.uniform(60, 100) + generator.uniform()))
    logs += 0.05 * levels(generator, most, 12, 0.3)
    interrupted = generator.uniform(size=most) < 1 / 30
    samples = 5e-3 * np.exp(logs) * (1 + interrupted * generator.exponential(1.0, most))
    for count in (100, 300, most):
        if unfinished(samples[:count], 5e-3 * count, protocol)[0]:
            break
    return measurement(samples[:count], mode="cold")


def noisy_run(generator, protocol):
    """Two cases, and an A/A control of the first."""
    first, second, again = (of_a_noisy_clock(generator, protocol) for _ in range(3))
    control = make_control(record(first), first, again)
    return dataclasses.replace(run(record(first), record(second, case="n=4")), controls=(control,))


@pytest.fixture(scope="module")
def noisy_pairs():
    """Pairs of runs of the same code, by the protocol that ends their sampling."""
    found = {}
    for name, protocol in (("GPU", STANDARD), ("CPU", ON_CPU)):
        generator = np.random.default_rng(8)
        found[name] = [(noisy_run(generator, protocol), noisy_run(generator, protocol)) for _ in range(200)]
    return found


@pytest.mark.parametrize("protocol", ["GPU", "CPU"])
def test_false_alarms_of_200_comparisons_on_a_noisy_clock(noisy_pairs, protocol):
    """At most the stated 5 % exit with 1, though no slowdown is allowed."""
    found = [compare(*pair, bound=0.0) for pair in noisy_pairs[protocol]]
    assert sum(map(exit_status, found)) <= 10
    assert sum(bool(each.having(Verdict.FASTER)) for each in found) <= 10


def slowed(pairs, factor, bound):
    """The verdicts on a case of the new runs whose samples are longer by this factor."""
    for base, new in pairs:
        (timing,) = new.records[1].measurements
        slower = record(measurement([factor * each for each in timing.samples], mode="cold"), case="n=4")
        changed = dataclasses.replace(new, records=(new.records[0], slower))
        (pair,) = (each for each in compare(base, changed, bound=bound).pairs if each.case == "n=4")
        yield pair.verdict


@pytest.mark.parametrize(("protocol", "slowdown"), [("GPU", 1.05), ("CPU", 1.07)])
def test_a_slowdown_is_detected_on_a_noisy_clock(noisy_pairs, protocol, slowdown):
    """In 95 of 100, as a regression if 1 % is allowed, and as a change within the bound if 5 % is."""
    pairs = noisy_pairs[protocol][:100]
    assert [*slowed(pairs, slowdown, 0.01)].count(Verdict.SLOWER) >= 95
    assert sum(each in (Verdict.SLOWER, Verdict.SLIGHTLY_SLOWER) for each in slowed(pairs, slowdown, 0.05)) >= 95


def test_a_slowdown_of_ten_percent_is_a_regression_on_a_cpu_with_a_noisy_clock(noisy_pairs):
    assert [*slowed(noisy_pairs["CPU"][:100], 1.10, 0.05)].count(Verdict.SLOWER) >= 95


def control(ratio, stderr=0.001):
    return Control("double", "torch", "n=3", "hot", TIGHT, ratio, stderr)


def test_a_change_within_the_noise_floor_of_either_run_is_none():
    quiet, noisy = (control(1.001),), (control(1 / 1.06), control(1.02))
    base, slower, faster = (run(record(times(factor))) for factor in (1.0, 1.08, 1 / 1.08))
    for floors in ((quiet, noisy), (noisy, quiet)):
        before, after = (dataclasses.replace(base, controls=each) for each in floors)
        for new, word in ((slower, "slower"), (faster, "faster")):
            found = compare(before, dataclasses.replace(new, controls=after.controls), bound=0.05)
            assert (only(found).verdict, exit_status(found)) == (Verdict.SAME, 0)
            assert only(found).notes == (f"{word}, but within the noise floor of 8.9 %",)
            assert sorted(found.floors) == pytest.approx([0.00196, 0.0890], rel=0.01)
    before, after = (dataclasses.replace(each, controls=quiet) for each in (base, slower))
    assert exit_status(compare(before, after, bound=0.05)) == 1


def test_the_noise_floor_is_where_19_of_20_pairs_of_timings_are():
    generator = np.random.default_rng(12)
    errors = 0.01 * generator.standard_normal((2000, 17))
    floors = [noise_floor([control(math.exp(each), 0.01) for each in row[:16]]) for row in errors]
    inside = np.abs(errors[:, 16]) < np.log1p(floors)
    assert 0.95 <= inside.mean() <= 0.99
    assert noise_floor([control(1.0, 0.02)]) == pytest.approx(math.expm1(1.96 * 0.02)), "chance made it 1"
    assert noise_floor([]) is noise_floor([Control("double", "torch", "n=3", "hot", message="it hung")]) is None


def test_the_ratio_of_a_control_is_that_of_the_medians():
    found = make_control(record(), times(1.0), times(1.02))
    assert (found.operation, found.implementation, found.case, found.mode) == ("double", "torch", "n=3", "hot")
    assert (found.ratio, found.samples) == (pytest.approx(1.02), times(1.02).samples)
    assert 0 < found.stderr < 0.002
    assert make_control(record(), times(1.0), measurement([0.0, 1.0])).message == "a sample is not a positive time"


def test_a_case_has_the_bound_of_the_last_pattern_that_matches():
    base = run(*(record(times(1.0), implementation=name, case="n=3 float32") for name in ("torch", "triton", "cupy")))
    new = run(*(record(times(1.04), implementation=name, case="n=3 float32") for name in ("torch", "triton", "cupy")))
    bounds = parse_bounds(["10%", "double *=2%", "* triton hot *n=3*=3 %", "double cupy=50%"])
    assert bounds.usual == 0.1
    found = compare(base, new, bound=bounds)
    assert {pair.implementation: (pair.bound, str(pair.verdict)) for pair in found.pairs} == {
        "torch": (0.02, "slower"),
        "triton": (0.03, "slower within the bound"),
        "cupy": (0.5, "slower within the bound"),
    }
    assert exit_status(found) == 1
    assert parse_bounds([]).of("anything") == 0.05
    with pytest.raises(ResultsError, match="no case matches the pattern 'doubel' of --fail-over; a case is 'double c"):
        compare(base, new, bound=parse_bounds(["doubel=3%"]))
    with pytest.raises(ValueError, match="no pattern before the ="):
        parse_bounds(["=3%"])


def test_an_improvement_is_never_a_regression():
    generator = np.random.default_rng(7)
    for factor in (0.9, 0.5, 0.99):
        found = compare(synthetic(generator, 1), synthetic(generator, 1, factor=factor, sigma=0.02), bound=0.0)
        assert exit_status(found) == 0
        assert only(found).ratio == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize(("text", "bound"), [("5%", 0.05), (" 2.5 % ", 0.025), ("0%", 0.0), ("200%", 2.0)])
def test_a_bound(text, bound):
    assert parse_bound(text) == pytest.approx(bound)


@pytest.mark.parametrize("text", ["5", "0.05", "-1%", "%", "", "x%", "5%%", "nan%", "inf%"])
def test_an_invalid_bound(text):
    with pytest.raises(ValueError, match="--fail-over takes a percentage of at least 0, such as 5%: got '") as caught:
        parse_bound(text)
    assert repr(text) in str(caught.value)


def printed(comparison):
    console = Console(file=io.StringIO(), width=80, markup=False, highlight=False)
    console.print(comparison_tables(comparison))
    return console.file.getvalue()


def test_the_table_fits_and_begins_with_the_regressions():
    label = "digits log Z rows=1048576 columns=134217728 bfloat16"
    base = run(*(record(times(1.0), case=f"{label} {i}") for i in range(4)), record(times(1.0), case="gone"))
    new = run(
        record(times(1.0), case=f"{label} 0"),
        record(times(1.25), case=f"{label} 1"),
        record(times(0.5), case=f"{label} 2"),
        record(status=Status.WRONG_VALUES, message="y[3] is off", case=f"{label} 3"),
        record(times(1.0), case="come"),
        torch="3",
    )
    text = printed(compare(base, new, bound=0.05))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    places = [
        text.index(words)
        for words in (
            *("failed now\n", "wrong_values: y[3] is off", "slower, beyond noise and 5 %", "+25.0 %"),
            *("faster, beyond noise and 5 %", "-50.0 %", "no difference beyond noise\n", "+0.0 %"),
            *("only in new: double torch (1)", "only in base: double torch (1)", "torch: None in base, 3 in new"),
            "Noise floor: base unknown (no A/A control), new unknown",
        )
    ]
    assert places == sorted(places)
    assert " ".join(text[text.index("Regression") :].split()) == (
        "Regression beyond noise and 5 %. 3 timings compared: 1 slower, 1 faster, 1 without a difference; "
        "newly failing: 1, newly passing: 0, untimed and passing in both runs: 0."
    )


def test_the_closing_line_without_a_regression():
    same = run(record(times(1.0)))
    assert " ".join(printed(compare(same, same, bound=0.0)).split()).endswith(
        "No regression beyond noise and 0 %. 1 timing compared: 0 slower, 0 faster, 1 without a difference."
    )
    checked = run(record(purpose="check"))
    assert " ".join(printed(compare(checked, checked, bound=0.05)).split()) == (
        "No regression beyond noise and 5 %. Newly failing: 0, newly passing: 0, untimed and passing in both runs: 1."
    )


@pytest.fixture
def changed():
    """A comparison with a case of each verdict."""
    label = "digits log Z rows=1048576 columns=134217728 bfloat16"
    verdicts = {"same": 1.0, "slow": 1.25, "quick": 0.5, "slightly": 1.03}
    base = run(*(record(times(1.0), case=f"{label} {name}") for name in verdicts), record(times(1.0), case="gone"))
    new = run(
        *(record(times(factor), case=f"{label} {name}") for name, factor in verdicts.items()),
        record(times(1.0), case="a|b <script>"),
        commit="0123456789abcdef",
        dirty=True,
    )
    return compare(base, dataclasses.replace(new, controls=(control(1.01),)), bound=0.05)


def test_markdown_for_a_pull_request(changed):
    text = comparison_markdown(changed)
    first, table, *folded = text.strip().split("\n\n")
    assert first.startswith(
        "### ❌ boltzbench: Regression beyond noise and 5 %. 4 timings compared: 1 slower, 1 faster, 1"
    )
    assert [line.split(" | ")[0] for line in table.splitlines()] == [
        *("| verdict", "| ---", "| slower", "| faster", "| slower within the bound"),
    ]
    assert "| +25.0 % |" in table
    whole = "\n\n".join(folded)
    assert re.findall("<summary>(.*)</summary>", whole) == [
        "no difference: 1", "only in new: 1", "only in base: 1", "The two runs"
    ]  # fmt: skip
    assert whole.count("<details>") == whole.count("</details>") == 4
    assert "a\\|b &lt;script>" in whole
    assert "new: 0123456789 with local changes" in whole
    assert "Noise floor: base unknown (no A/A control), new 2 %" in whole
    many = run(*(record(times(1.0), case=f"rows={i} columns=134217728 bfloat16") for i in range(2000)))
    assert len(comparison_markdown(compare(many, many, bound=0.05))) < 65536, "the most that GitHub takes"


def test_json(changed):
    found = json.loads(json.dumps(as_json(changed), allow_nan=False))
    assert (found["regression"], found["bound"], found["alpha"]) == (True, 0.05, 0.05)
    assert found["noise_floor"] == {"base": None, "new": pytest.approx(0.0197, rel=0.01)}
    slow = found["pairs"][0]
    assert (slow["operation"], slow["verdict"], slow["bound"]) == ("double", "slower", 0.05)
    assert (slow["base"], slow["new"], slow["ratio"]) == (1.0, 1.25, pytest.approx(1.25))
    lost = run(record(times(1.0)), record(measurement([1.0, math.inf]), case="lost"))
    json.dumps(as_json(compare(lost, lost, bound=0.05)), allow_nan=False)


def test_a_ratio_of_any_size_fits():
    wide = run(record(measurement([1e-3, 1e3])), record(times(1.0), case="other"))
    text = printed(compare(run(record(times(1e-9)), record(times(1.0), case="other")), wide, bound=0.05))
    assert max(map(len, text.splitlines())) <= 80


def test_the_same_case_on_two_devices_is_two_cases():
    both = run(
        dataclasses.replace(record(times(1.0)), device="cuda:0"),
        dataclasses.replace(record(times(2.0)), device="cuda:1"),
        dataclasses.replace(record(times(1.0), case="n=4"), device="cuda:1"),
    )
    names = {pair.case: pair.ratio for pair in compare(both, both, bound=0.05).pairs}
    assert names == {
        "n=3 on cuda:0": pytest.approx(1.0),
        "n=3 on cuda:1": pytest.approx(1.0),
        "n=4": pytest.approx(1.0),
    }
    one = run(dataclasses.replace(record(times(1.0)), device="cuda:0"))
    found = compare(run(*both.records[2:], *one.records), both, bound=0.05)
    assert {pair.case: pair.verdict for pair in found.pairs} == {
        "n=3": Verdict.ONLY_BASE, "n=3 on cuda:0": Verdict.ONLY_NEW, "n=3 on cuda:1": Verdict.ONLY_NEW,
        "n=4": Verdict.SAME,
    }  # fmt: skip


def test_a_case_that_moved_to_another_device_and_a_slow_device_are_noted():
    base = run(*(dataclasses.replace(record(times(1.0), case=name), device="cuda:0") for name in ("a", "b")))
    moved = dataclasses.replace(base.records[1], device="cuda:1")
    devices = UsedDevice("cuda:0"), UsedDevice("cuda:1", slow="8% slower than the median of the others (copy)")
    new = dataclasses.replace(run(base.records[0], moved), devices=devices)
    assert compare(base, new, bound=0.05).notes == (
        "new: cuda:1 is 8% slower than the median of the others (copy)",
        "1 of 2 timed cases ran on another device of the same kind in new",
    )
    assert compare(base, base, bound=0.05).notes == ()
