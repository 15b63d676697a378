"""Ceilings: measuring and caching them, the binding one, and the share of it, all in exact arithmetic."""

import itertools
import json
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from boltzbench.harness import Ceiling, Cost
from boltzbench.harness.api.records import DeviceState, Measurement
from boltzbench.harness.timing import roofline as ceilings
from boltzbench.harness.timing.cpu_clock import CpuClock
from boltzbench.harness.timing.quiet import HostLoad
from boltzbench.harness.timing.roofline import binding, measure_ceilings, with_share
from support.fakes import CPU

ENVIRONMENT = {"device": "cuda:0", "gpu": {"uuid": "GPU-1", "driver": "570.1"}, "cpu": "a CPU", "torch": "2.13"}
RATES = {"read": 100.0, "write": 50.0, "copy": 80.0, "bfloat16 matrix": 1000.0, "fma": 20.0, "exp2": 4.0, "philox": 2.0}


class FakeClock:
    """A clock on which a launch takes the time that it declares, and nothing else takes time."""

    device_name = "fake"
    seconds = 0.0

    def now(self):
        return self.seconds

    def sample(self, work, count):
        samples = [float(work.launch() or 0.0) for _ in range(count)]
        self.seconds += sum(samples)
        return samples


def ceiling(resource="copy", name="mine", amount=800, *, seconds=0.1, wrong=None, **fields):
    def prepare(device):
        return lambda: seconds, lambda: wrong

    return Ceiling(resource, name, fields.pop("backend", "torch"), amount, **{"prepare": prepare, **fields})


def raises(*_):
    raise RuntimeError("out of luck")


# ---- measuring


def test_the_best_rate_counts_for_each_resource():
    given = [ceiling(seconds=0.1), ceiling(name="slow", seconds=0.2), ceiling("read", amount=50, seconds=0.5)]
    for order in (given, given[::-1]):
        rates, problems = measure_ceilings(order, CPU, clock=FakeClock())
        assert (list(rates), problems) == (["read", "copy"], ())
        assert rates == pytest.approx({"copy": 8000.0, "read": 100.0})


def test_the_median_of_at_least_ten_launches_after_warming_up():
    durations = iter([9.0] + [9.0] * ceilings.WARM_UP_LAUNCHES + [0.5] * 4 + [0.1] + [0.7] * 5)
    given = Ceiling("copy", "mine", "torch", 6, lambda device: (lambda: next(durations), lambda: None))
    rates, problems = measure_ceilings([given], CPU, clock=FakeClock())
    assert (problems, rates) == ((), {"copy": pytest.approx(6 / 0.6)})


def test_an_unavailable_ceiling_is_not_a_problem():
    given = [ceiling(unavailable=lambda device: f"not on {device}", prepare=raises), ceiling("read")]
    assert measure_ceilings(given, CPU, clock=FakeClock()) == ({"read": pytest.approx(8000.0)}, ())


@pytest.mark.parametrize("backend", ["cupy", "triton"])
def test_an_interpreted_ceiling_is_not_measured(backend):
    assert measure_ceilings([ceiling(backend=backend)], CPU, clock=FakeClock()) == ({}, ())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"wrong": "the copy differs"}, "the copy differs"),
        ({"prepare": raises}, "RuntimeError: out of luck (test_roofline.py:"),
        ({"unavailable": raises}, "RuntimeError: out of luck"),
        ({"prepare": lambda device: (raises, lambda: None)}, "RuntimeError: out of luck"),
        ({"prepare": lambda device: (lambda: None, raises)}, "RuntimeError: out of luck"),
        ({"seconds": 0.0}, "the clock saw no time pass"),
        ({"prepare": lambda device: exit(3)}, "SystemExit: 3"),
    ],
)
def test_a_ceiling_that_fails_is_a_problem_and_others_are_measured(fields, words, monkeypatch):
    monkeypatch.setattr(ceilings, "SHORTEST_SECONDS", 0.0)
    bad = ceiling("read", "bad", plugin="limits (1.0)", **fields)
    rates, (problem,) = measure_ceilings([bad, ceiling()], CPU, clock=FakeClock())
    assert list(rates) == ["copy"]
    assert problem.startswith("ceiling 'bad' of read by limits (1.0): ")
    assert words in problem


def test_work_skipped_after_the_first_check_is_found():
    done = iter([None, "nothing was copied"])
    given = ceiling(prepare=lambda device: (lambda: 0.1, lambda: next(done)))
    rates, (problem,) = measure_ceilings([given], CPU, clock=FakeClock())
    assert rates == {}
    assert "nothing was copied" in problem


def test_ctrl_c_passes_through():
    def interrupt(device):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_ceilings([ceiling(prepare=interrupt)], CPU, clock=FakeClock())


def test_the_suite_s_own_clock_times_a_copy_on_this_cpu(monkeypatch):
    monkeypatch.setattr(ceilings, "SHORTEST_SECONDS", 0.0)
    x = torch.ones(1 << 16)
    y = torch.zeros_like(x)
    given = ceiling(
        amount=8 * x.numel(), prepare=lambda device: (lambda: y.copy_(x), lambda: None if y.equal(x) else "differs")
    )
    rates, problems = measure_ceilings([given], CPU)
    assert problems == ()
    assert rates["copy"] > 1e6


# ---- keeping


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ceilings, "clock_for", lambda device: FakeClock())

    def count(*arguments):
        measurements.append(arguments)
        return measure_ceilings(*arguments)

    monkeypatch.setattr(ceilings, "measure_ceilings", count)
    return tmp_path / "boltzbench"


measurements: list = []


def ceilings_of(*arguments):
    """Rates and problems, and whether this call measured them."""
    before = len(measurements)
    announced: list[bool] = []
    found = ceilings.ceilings_of(*arguments, lambda: announced.append(len(measurements) == before))
    measured_now = len(measurements) > before
    assert announced == [True] * (measured_now or bool(announced))
    return *found, measured_now


def test_rates_are_cached_by_device_and_driver(cache, monkeypatch):
    first = ceilings_of([ceiling()], CPU, ENVIRONMENT)
    assert first == ({"copy": pytest.approx(8000.0)}, (), True)
    (file,) = cache.iterdir()
    assert file.name.startswith("ceilings-GPU-1-570.1-")
    monkeypatch.setattr(ceilings, "measure_ceilings", raises)
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT) == (first[0], (), False)


@pytest.mark.parametrize(
    "change",
    [
        {"gpu": {"uuid": "GPU-2", "driver": "570.1"}},
        {"gpu": {"uuid": "GPU-1", "driver": "580.2"}},
        {"gpu": None},
        {"torch": "2.14"},
        {"threads": 8},
        {"harness": "0123"},
    ],
)
def test_another_device_driver_or_software_is_measured_again(cache, change):
    ceilings_of([ceiling()], CPU, ENVIRONMENT)
    changed = ENVIRONMENT | change
    assert ceilings_of([ceiling()], CPU, changed)[2] is True
    assert ceilings_of([ceiling()], CPU, changed)[2] is False
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT)[2] is False, "the first is still kept"


@pytest.mark.parametrize(
    "other",
    [
        [],
        [ceiling(), ceiling("read")],
        [ceiling(amount=801)],
        [ceiling(name="yours")],
        [ceiling(unavailable=lambda device: "memory is short")],
        [ceiling(prepare=json.loads)],  # made from another source
    ],
)
def test_other_ceilings_are_measured_again(cache, other):
    ceilings_of([ceiling()], CPU, ENVIRONMENT)
    assert ceilings_of(other, CPU, ENVIRONMENT)[2] is True


def test_a_ceiling_that_raises_in_unavailable_is_a_problem_each_time(cache):
    for _ in range(2):
        rates, problems, measured_now = ceilings_of([ceiling(unavailable=raises)], CPU, ENVIRONMENT)
        assert (rates, len(problems), measured_now) == ({}, 1, True)


def test_rates_with_a_problem_are_not_cached(cache):
    given = [ceiling(), ceiling("read", wrong="nothing was read")]
    for _ in range(2):
        rates, problems, measured_now = ceilings_of(given, CPU, ENVIRONMENT)
        assert (list(rates), len(problems), measured_now) == (["copy"], 1, True)


def test_disturbed_rates_are_measured_again_once_the_device_is_quiet(cache, monkeypatch):
    def measure(given, device, notice):
        notice(DeviceState(0, others=busy))
        measurements.append(given)
        return {"copy": rate, "read": 5.0}, ()

    monkeypatch.setattr(ceilings, "measure_ceilings", measure)
    monkeypatch.setattr(ceilings, "_is_quiet", lambda device: quiet)
    rate, busy, quiet = 2.0, 0.8, False
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT) == ({"copy": 2.0, "read": 5.0}, (), True)
    rate = 8.0
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT) == ({"copy": 2.0, "read": 5.0}, (), False), "it is still busy"
    quiet = True
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT) == ({"copy": 8.0, "read": 5.0}, (), True), "and busy again"
    rate, busy = 7.0, 0.05
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT) == ({"copy": 8.0, "read": 5.0}, (), True), "the larger one stays"
    rate = 9.0
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT)[2] is False, "measured on a quiet device"


def test_a_device_says_whether_it_is_quiet(monkeypatch):
    """On a CPU while nothing is measured; a GPU by its clock."""
    for others in (0.8, 0.02, None):
        times = iter([(0.0, 0.0, 0.0), (1.0, 0.0, (others or 0.0) * len(os.sched_getaffinity(0)))])
        load = HostLoad(lambda times=times, known=others is not None: next(times) if known else None)
        monkeypatch.setattr(ceilings, "HostLoad", lambda load=load: load)
        monkeypatch.setattr(ceilings, "SHORTEST_INTERVAL", 0.0)
        assert ceilings._is_quiet(CPU) is (others != 0.8)
        state = DeviceState(0, others=others)
        monkeypatch.setattr(ceilings, "clock_for", lambda device, state=state: SimpleNamespace(state=lambda _: state))
        assert ceilings._is_quiet(torch.device("cuda")) is (others != 0.8)


def test_the_load_of_others_is_noticed_while_a_ceiling_is_measured(monkeypatch):
    monkeypatch.setattr(ceilings, "SHORTEST_SECONDS", 0.0)
    times = ((0.5 * n, 0.0, 0.5 * n * len(os.sched_getaffinity(0))) for n in itertools.count())
    states = []
    measure_ceilings([ceiling()], CPU, states.append, clock=CpuClock(load=HostLoad(lambda: next(times))))
    assert {each.others for each in states} == {1.0}


def changed(text, rates):
    """The file with these rates and their digest."""
    return json.dumps(json.loads(text) | {"rates": rates, "sha256": ceilings._digest(rates)})


def damages():
    yield "empty", lambda text: ""
    yield "cut", lambda text: text[: len(text) // 2]
    yield "not JSON", lambda text: "hello"
    yield "a list", lambda text: "[]"
    yield "a number", lambda text: "3"
    yield "not UTF-8", lambda text: "\udcff"
    for name, rates in (
        ("no rates", {}),
        ("unknown resource", {"copying": 1.0}),
        ("a word", {"copy": "fast"}),
        ("negative", {"copy": -1.0}),
        ("infinite", {"copy": math.inf}),
        ("NaN", {"copy": math.nan}),
        ("a list of rates", [1.0]),
    ):
        yield name, lambda text, rates=rates: changed(text, rates)
    yield "another number", lambda text: text.replace("8000.0", "9000.0")
    yield "another key", lambda text: json.dumps(json.loads(text) | {"key": {}})


@pytest.mark.parametrize(("name", "damage"), [*damages()], ids=[name for name, _ in damages()])
def test_a_damaged_file_is_replaced_by_a_new_measurement(cache, name, damage):
    ceilings_of([ceiling()], CPU, ENVIRONMENT)
    (file,) = cache.iterdir()
    whole = file.read_text()
    file.write_bytes(damage(whole).encode(errors="surrogateescape"))
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT) == ({"copy": pytest.approx(8000.0)}, (), True)
    assert file.read_text() == whole


def test_a_cache_that_cannot_be_written_is_no_error(cache, monkeypatch):
    cache.write_text("a file where the folder should be")
    for _ in range(2):
        assert ceilings_of([ceiling()], CPU, ENVIRONMENT) == ({"copy": pytest.approx(8000.0)}, (), True)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT)[2] is True


def test_a_file_of_another_owner_is_ignored(cache, monkeypatch):
    ceilings_of([ceiling()], CPU, ENVIRONMENT)
    monkeypatch.setattr(ceilings.os, "geteuid", lambda: os.getuid() + 1)
    assert ceilings_of([ceiling()], CPU, ENVIRONMENT)[2] is True


def test_a_relative_path_is_no_cache(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert ceilings_of([ceiling()], CPU, ENVIRONMENT)[2] is True
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_a_variable_the_cache_is_in_the_home_directory(tmp_path, cache, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ceilings_of([ceiling()], CPU, {**ENVIRONMENT, "gpu": None, "cpu": "AMD EPYC (tm) 9/4"})
    (file,) = (tmp_path / "home" / ".cache" / "boltzbench").iterdir()
    assert file.name.startswith("ceilings-AMD-EPYC-tm-9-4-")


# ---- which one binds


def cost(**fields):
    return Cost(1, "items", **fields)


@pytest.mark.parametrize(
    ("given", "resource", "seconds"),
    [
        ({"bytes_read": 200}, "read", 200 / 100),
        ({"bytes_written": 200}, "write", 200 / 50),
        ({"bytes_read": 200, "bytes_written": 200}, "copy", 400 / 80),
        ({"bytes_read": 1000, "bytes_written": 200}, "read", 400 / 80 + 800 / 100),
        ({"bytes_read": 300, "bytes_written": 200}, "copy", 400 / 80 + 100 / 100),
        ({"bytes_read": 200, "bytes_written": 1000}, "write", 400 / 80 + 800 / 50),
        ({"flops": 200}, "fma", 200 / 20),
        ({"flops": 1200, "matrix_flops": 1000, "matrix_dtype": "bfloat16"}, "fma", 200 / 20),
        ({"flops": 20_100, "matrix_flops": 20_000, "matrix_dtype": "bfloat16"}, "bfloat16 matrix", 20_000 / 1000),
        ({"special_calls": 80, "flops": 20}, "exp2", 80 / 4),
        ({"random_words": 80, "special_calls": 80, "bytes_read": 10}, "philox", 80 / 2),
        ({"flops": 30, "matrix_flops": 10}, "fma", 20 / 20),  # no rate of a float32 matrix is known
    ],
)
def test_the_resource_that_takes_longest_binds(given, resource, seconds):
    assert binding(cost(**given), RATES) == (resource, pytest.approx(seconds))


@pytest.mark.parametrize(
    ("rates", "resource", "seconds"),
    [
        ({"copy": 80.0}, "copy", (400 + 800) / 80),
        ({"read": 100.0}, "read", (400 + 800) / 100),
        ({"write": 50.0}, "write", (400 + 800) / 50),
        ({"copy": 80.0, "write": 50.0}, "copy", (400 + 800) / 80),
        ({"read": 100.0, "write": 50.0}, "read", (400 + 800) / 100),
    ],
)
def test_another_bandwidth_replaces_an_unknown_one(rates, resource, seconds):
    assert binding(cost(bytes_read=1000, bytes_written=200), rates) == (resource, pytest.approx(seconds))


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        (cost(bytes_read=5, flops=3), {}),
        (cost(bytes_read=5), {"fma": 20.0}),
        (cost(), RATES),
        (cost(flops=10, matrix_flops=10), RATES),
    ],
)
def test_nothing_binds_without_a_known_limit_or_without_work(given, rates):
    assert binding(given, rates) is None


# ---- the share

MEASUREMENT = Measurement("a GPU", "cold", (4.0,), 4.0, 4.0, 4.0, 1.0, "items", 1.0, 1.0)


def shared(given, *, mode="cold", median=4.0, cache_bytes=100, suspicions=()):
    measurement = replace(MEASUREMENT, mode=mode, median=median, suspicions=suspicions)
    return with_share(measurement, given, RATES, cache_bytes=cache_bytes)


def test_the_share_is_the_least_time_over_the_median():
    found = shared(cost(bytes_read=200))
    assert (found.limit, found.roofline_share, found.suspicions) == ("read", pytest.approx(2.0 / 4.0), ())
    assert replace(found, limit="", roofline_share=None) == MEASUREMENT


def test_without_a_limit_there_is_no_share():
    assert with_share(MEASUREMENT, cost(flops=5), {"copy": 80.0}, 0) == MEASUREMENT
    assert with_share(replace(MEASUREMENT, median=0.0), cost(flops=5), RATES, 0).roofline_share is None


def test_a_share_above_one_is_suspicious_and_earlier_suspicions_stay():
    found = shared(cost(flops=100), suspicions=("throttled",))
    assert found.roofline_share == pytest.approx(5.0 / 4.0)
    assert found.suspicions == ("throttled", "125 % of the fma limit: above the roofline")


def test_two_percent_above_is_within_the_noise_of_the_limit():
    assert shared(cost(flops=20), median=1 / 1.019).suspicions == ()
    assert shared(cost(flops=20), median=1 / 1.021).suspicions == ("102 % of the fma limit: above the roofline",)


@pytest.mark.parametrize(
    ("mode", "given", "cache_bytes", "suspicion"),
    [
        # Cold inputs come from memory, whatever the cache would hold.
        ("cold", {"bytes_read": 500}, 10_000, "125 % of the read limit: above the roofline"),
        # Hot ones that fit into the cache need not.
        ("hot", {"bytes_read": 500}, 500, None),
        # Of hot ones that do not fit, the rest must.
        ("hot", {"bytes_read": 1000}, 500, "125 % of the read limit: above the roofline"),
        ("hot", {"bytes_read": 1000}, 700, None),
        # What is written may stay in the cache while the launch is timed, cold or not.
        ("cold", {"bytes_written": 250}, 250, None),
        ("cold", {"bytes_written": 500}, 250, "125 % of the write limit: above the roofline"),
        ("cold", {"bytes_read": 250, "bytes_written": 250}, 250, None),
        # Arithmetic has no cache.
        ("hot", {"special_calls": 20}, 10_000, "125 % of the exp2 limit: above the roofline"),
    ],
)
def test_only_an_impossible_share_is_suspicious(mode, given, cache_bytes, suspicion):
    found = shared(cost(**given), mode=mode, cache_bytes=cache_bytes)
    assert found.roofline_share > 1.02
    assert found.suspicions == ((suspicion,) if suspicion else ())
