"""How rows are divided among threads and blocks: default plans, the search for the best, counters of split rows."""

import json
from types import SimpleNamespace

import pytest
import torch
from boltzbench.kernels.builds import cache
from boltzbench.kernels.logsumexp import logsumexp, logsumexp_backward
from boltzbench.kernels.rows import cuda_rows, shapes, triton_rows, tuning
from boltzbench.kernels.rows.layout import as_rows, is_wide
from boltzbench.kernels.rows.shapes import BLOCKS_WANTED, PART_BYTES, THREADS, choose, plans, split_rows
from support.devices import DEVICE

CPU = torch.device("cpu")


def view_of(rows, columns, dtype=torch.float32):
    x = torch.empty((rows, columns), dtype=dtype, device="meta")
    return as_rows(1, x)[1]


@pytest.mark.parametrize(
    ("rows", "columns", "dtype", "lanes"),
    [
        (1 << 20, 128, torch.float32, 8),
        (1 << 20, 128, torch.bfloat16, 4),
        (1 << 16, 2048, torch.float32, 32),
        (1024, 1024, torch.float32, THREADS),
        (1 << 12, 1 << 17, torch.float32, THREADS),
        (1, 1 << 30, torch.float32, THREADS),
        (10, 3, torch.float32, 2),
    ],
)
def test_lanes_follow_the_shape(rows, columns, dtype, lanes):
    view = view_of(rows, columns, dtype)
    assert choose(view, dtype.itemsize, columns % 8 == 0).lanes == lanes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(1 << 20, 128), (1 << 12, 1 << 17), (1 << 10, 1 << 17), (1, 1 << 30)])
def test_the_device_is_full_and_scratch_is_small(rows, columns, dtype):
    view, size = view_of(rows, columns, dtype), dtype.itemsize
    for plan in plans(view, size, True, True):
        groups, step = -(-rows // plan.shape.rows), plan.shape.step
        splits, steps = split_rows(view, groups, step, size, plan.blocks)
        assert (splits - 1) * steps * step < columns <= splits * steps * step
        assert groups * splits >= BLOCKS_WANTED // 4
        if splits > 1:
            assert groups * splits <= 2 * max(plan.blocks, groups)
            assert steps * step * size >= PART_BYTES
            assert rows * splits * 16 * 4 < rows * columns * size / 256


def test_which_rows_allow_128_bit_access():
    x = torch.zeros(1 << 16)
    cases = {
        "contiguous": (x.view(64, 1024), True),
        "rows apart": (x.view(64, 1024)[:, 4:1000], True),
        "one odd row": (x[: (1 << 16) - 3][None], True),
        "odd offset": (x[1:1025][None], False),
        "odd rows": (x[: 64 * 1023].view(64, 1023), False),
        "strided": (x.view(64, 1024)[:, ::2], False),
        "transposed": (x.view(64, 1024).t(), False),
    }
    for name, (tensor, wide) in cases.items():
        given, view = as_rows(1, tensor)
        assert is_wide(view, given) is wide, name


# ---- every plan gives the correct result


@pytest.mark.parametrize("backend", ["triton", "cupy"], indirect=True)
@pytest.mark.parametrize(("rows", "columns"), [(3, 2048), (2, 70_000)])
def test_every_plan_gives_the_same_result(backend, rows, columns, monkeypatch):
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    expected = torch.logsumexp(x.double(), 1)
    number = len(plans(as_rows(1, x)[1], 4, True, True))
    assert number > 1
    for place in range(number):
        monkeypatch.setattr(tuning, "choice", lambda operation, key, plans, *_, place=place: min(place, len(plans) - 1))
        y = logsumexp(x, backend=backend)
        torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=0)
        slope = logsumexp_backward(torch.ones(rows, device=DEVICE), x, y, backend=backend)
        torch.testing.assert_close(slope.double(), torch.softmax(x.double(), 1), rtol=2e-5, atol=0)


# ---- counters


@pytest.mark.parametrize("backend", ["triton", "cupy"], indirect=True)
@pytest.mark.parametrize("shape", [(3, 70_001), (1, 70_000)])
def test_counters_are_zero_again(backend, shape, monkeypatch):
    given = []
    module = {"triton": triton_rows, "cupy": cuda_rows}[backend]

    def one_for_all(count, device):
        if not given:
            given.append(torch.zeros(64, dtype=torch.int32, device=device))
        return given[0]

    monkeypatch.setattr(module, "counters", one_for_all)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    first, second = logsumexp(x, backend=backend), logsumexp(x, backend=backend)
    assert torch.equal(first, second)
    assert not given[0].any()
    torch.testing.assert_close(first.double(), torch.logsumexp(x.double(), 1), rtol=1e-6, atol=0)


def test_each_stream_and_each_captured_launch_has_its_own_counters(monkeypatch):
    state = {"capturing": False, "stream": 7}
    device = torch.device("cuda", 0)
    zeros = torch.zeros
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state["capturing"])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: type("S", (), {"cuda_stream": state["stream"]}))
    monkeypatch.setattr(torch, "zeros", lambda count, dtype, device: zeros(count, dtype=dtype))
    monkeypatch.setattr(shapes, "_counters", {})
    first = shapes.counters(5, device)
    assert shapes.counters(9, device) is first, "launches on one stream share their counters"
    assert len(shapes.counters(len(first) + 1, device)) > len(first)
    state["stream"] = 8
    assert shapes.counters(5, device) is not first
    state["capturing"] = True
    captured = shapes.counters(5, device)
    assert captured is not shapes.counters(5, device)
    assert len(captured) == 5


# ---- the search


CONDITIONS = {"device": "Some GPU 80GB", "driver": "580.65.06", "torch": "2.13.0"}


class Clock:
    """A fake GPU clock: the time of a plan is the plan itself, and launches are counted."""

    def __init__(self):
        self.launched = []
        self.timed = 0

    def launch(self, plan):
        self.launched.append(plan)

    def median_seconds(self, launches, device):
        assert device == CPU
        for launch in launches:
            launch()
        self.timed += len(launches)
        return self.launched[-len(launches) :]


@pytest.fixture
def clock(monkeypatch, tmp_path):
    clock = Clock()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BOLTZBENCH_TUNE", raising=False)
    monkeypatch.setattr(tuning, "_has_a_clock", lambda device: True)
    monkeypatch.setattr(tuning, "_conditions", lambda device: CONDITIONS)
    monkeypatch.setattr(tuning, "median_seconds", clock.median_seconds)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    tuning._known.cache_clear()
    yield clock
    tuning._known.cache_clear()


def run(clock, key, plans):
    """The plan that ran, and how many were timed."""
    before = clock.timed
    tuning.run_best("logsumexp", key, plans, clock.launch, CPU)
    return clock.launched[-1], clock.timed - before


def kept():
    """What the file of log-sum-exp holds; None without one."""
    path = cache.find("tuning", tuning._name("logsumexp", CPU), ".json")
    return path and json.loads(path.read_text())


def test_the_fastest_plan_is_found_once_and_kept_on_disk(clock):
    assert run(clock, "a", [3.0, 1.0, 2.0]) == (1.0, 3)
    assert run(clock, "a", [3.0, 1.0, 2.0]) == (1.0, 0)
    tuning._known.cache_clear()  # as in another process
    assert run(clock, "a", [3.0, 1.0, 2.0]) == (1.0, 0)
    assert kept() == {"measured_on": CONDITIONS, "plans": {"a, 3 plans": 1}}
    assert run(clock, "b", [5.0, 6.0]) == (5.0, 2)
    assert kept()["plans"] == {"a, 3 plans": 1, "b, 2 plans": 0}


@pytest.mark.parametrize(
    "content",
    [
        "[not json",
        "[]",
        '{"a, 3 plans": 2}',
        {"plans": {"a, 3 plans": 2}},
        {"measured_on": {**CONDITIONS, "driver": "570.1"}, "plans": {"a, 3 plans": 2}},
        {"measured_on": CONDITIONS, "plans": {"a, 3 plans": "2"}},
        {"measured_on": CONDITIONS, "plans": {"a, 3 plans": 3}},
        {"measured_on": CONDITIONS, "plans": {"a, 3 plans": -1}},
        {"measured_on": CONDITIONS, "plans": [2]},
        {"measured_on": CONDITIONS},
    ],
    ids=str,
)
def test_a_file_that_is_damaged_or_of_another_driver_is_measured_again(clock, content):
    text = content if isinstance(content, str) else json.dumps(content)
    cache.store("tuning", tuning._name("logsumexp", CPU), ".json", text.encode())
    assert run(clock, "a", [3.0, 1.0, 2.0]) == (1.0, 3)
    assert kept() == {"measured_on": CONDITIONS, "plans": {"a, 3 plans": 1}}


def test_a_tie_goes_to_the_first_plan():
    assert tuning.fastest([1.02e-3, 1e-3]) == 0
    assert tuning.fastest([1.04e-3, 1e-3, 1.01e-3]) == 1
    assert tuning.fastest([2.9e-6, 2.0e-6]) == 0, "events do not resolve it"
    assert tuning.fastest([3.1e-6, 2.0e-6]) == 1


def test_what_cannot_be_timed_uses_the_first_plan_and_keeps_nothing_on_disk(clock, monkeypatch):
    monkeypatch.setattr(tuning, "median_seconds", lambda launches, device: None)
    assert run(clock, "a", [3.0, 1.0]) == (3.0, 0)
    assert kept() is None
    monkeypatch.setattr(tuning, "median_seconds", clock.median_seconds)
    assert run(clock, "a", [3.0, 1.0]) == (3.0, 0), "not again in this process"


def test_there_is_no_search_without_a_choice_or_a_clock(clock, monkeypatch):
    tuning.run_best("logsumexp", "a", [3.0], clock.launch, CPU)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    tuning.run_best("logsumexp", "a", [3.0, 1.0], clock.launch, CPU)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setenv("BOLTZBENCH_TUNE", "0")
    tuning.run_best("logsumexp", "a", [3.0, 1.0], clock.launch, CPU)
    monkeypatch.undo()
    tuning.run_best("logsumexp", "a", [3.0, 1.0], clock.launch, CPU)  # the CPU as it is
    assert clock.launched == [3.0] * 4
    assert clock.timed == 0


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        (None, None),
    ],
)
def test_a_choice_names_the_device_the_driver_and_the_software(monkeypatch, tmp_path, line, version):
    properties = SimpleNamespace(name="Some GPU", multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(tuning, "DRIVER", tmp_path / "version")
    if line:
        tuning.DRIVER.write_text(line)
    found = tuning._conditions.__wrapped__(torch.device("cuda", 0))
    assert (found["device"], found["multiprocessors"], found["driver"]) == ("Some GPU", 132, version)
    assert found["torch"].startswith("2.")


def test_a_change_of_source_starts_a_new_search(monkeypatch, tmp_path):
    for folder in ("rows", "logsumexp", "thermodynamics"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.cuh").write_text("")
    monkeypatch.setattr(tuning, "KERNELS", tmp_path)
    monkeypatch.setattr(tuning, "_conditions", lambda device: CONDITIONS)

    def files():
        tuning._source_hash.cache_clear()
        return tuning._name("logsumexp", CPU), tuning._name("thermodynamics", CPU)

    first = files()
    assert first[0] != first[1]
    (tmp_path / "logsumexp" / "a.cu").write_text("1")
    second = files()
    assert second[0] != first[0]
    assert second[1] == first[1]
    (tmp_path / "rows" / "a.py").write_text("1")
    third = files()
    assert third[0] != second[0]
    assert third[1] != second[1]
    tuning._source_hash.cache_clear()
