"""`measure`: honest callables of all kinds pass, and each bad one or bad argument gets its sentence."""

import itertools
import re
import time
from collections import namedtuple
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from boltzbench.harness import Agreement, Bound, Measured, NotMeasured, Status, measure
from boltzbench.harness.api.records import DeviceState
from boltzbench.harness.callables import isolated
from boltzbench.harness.callables.arguments import Arguments
from boltzbench.harness.callables.measure import limits_of
from boltzbench.harness.discovery.time_limit import TookTooLong
from boltzbench.harness.timing import stopwatch
from rich.console import Console
from support.attacks import FakeTime, QuietClock, SteadyClock
from torch import Tensor, nn
from torch.nn import functional

X, Y = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([3, 0, 0, 7])
Pair = namedtuple("Pair", "first second")


def times(fn, *args, **options) -> Measured:
    return measure(fn, *args, **{"seconds": 0.02, **options})


def twice(x: Tensor) -> Tensor:
    return 2 * x


# What is handled ----------------------------------------------------------------------------------------------------


def in_place(x: Tensor, y: Tensor) -> None:
    x.add_(y)


def in_place_and_returned(x: Tensor, y: Tensor) -> Tensor:
    return x.mul_(y)


def nested(d: dict, *rest: Tensor, scale: float = 1.0) -> tuple:
    return Pair(d["x"] * scale, None), {"sum": [rest[0] + d["y"][0]]}


LINEAR = nn.Linear(16, 4)
LINEAR.load_state_dict({"weight": X[:4], "bias": Y[0, :4]})
BUFFER = torch.empty(8, 16)
HONEST = {
    "plain": (twice, (X,), {}),
    "half precision": (twice, (X.bfloat16(),), {}),
    "float64": (lambda x: x @ x.T, (X.double(),), {}),
    "a function of C": (torch.mm, (X, Y.T), {}),
    "a partial": (partial(functional.softmax, dim=1), (X,), {}),
    "a module": (LINEAR, (X,), {}),
    "a state": (in_place, (X, Y), {}),
    "a state, returned": (in_place_and_returned, (X, Y), {}),
    "pytrees": (nested, ({"x": X, "y": [Y, "word"]}, X), {"scale": 0.5}),
    "indices": (lambda table, index: table[index], (X, INDEX), {}),
    "bools": (lambda x, mask: x.masked_fill(mask, 0.0), (X, X > 0), {}),
    "integers": (lambda index: index.sort().values, (INDEX,), {}),
    "the same tensor twice": (lambda x, y: x + y, (X, X), {}),
    "layouts": (lambda x, y: x.T + y, (X, Y.T[:, ::1]), {}),
    "expanded": (twice, (X[:1].expand(8, 16),), {}),
    "sliced": (twice, (X[:, 1::2],), {}),
    "its own buffer": (lambda x: torch.mul(x, 2, out=BUFFER if x.dtype is BUFFER.dtype else None), (X,), {}),
    "a dtype": (lambda x, dtype: x.softmax(1, dtype=dtype), (X,), {"dtype": torch.float32}),
    "infinities": (lambda x: x.exp(), (torch.tensor([0.5, float("inf"), -float("inf"), float("nan"), 80.0]),), {}),
    "beyond the dtype": (lambda x: x * x, (torch.tensor([300.5, 2.5]).half(),), {}),
    "empty": (twice, (X[:0],), {}),
    "numbers": (lambda x, n: x**n, (X, 2), {}),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_callable_passes(name):
    fn, args, kwargs = HONEST[name]
    before = [each.clone() for each in args if isinstance(each, Tensor)]
    found = times(fn, *args, reference=fn, **kwargs)
    assert (found.verdict, found.timing.suspicions) == ("passed", ()), found
    after = [each for each in args if isinstance(each, Tensor)]
    assert all(one.equal(two) or one.isnan().any() for one, two in zip(before, after, strict=True))


class QueueOfFour(SteadyClock):
    """As on a GPU, short launches come four at a time, each on its own memory."""

    def sets(self, seconds, nbytes, *, cold):
        return 4


@pytest.mark.parametrize("name", ["plain", "a state", "pytrees", "its own buffer", "layouts"])
def test_an_honest_callable_passes_when_many_launches_are_a_sample(name, monkeypatch):
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: QueueOfFour())
    fn, args, kwargs = HONEST[name]
    for reference in (fn, None):
        found = times(fn, *args, reference=reference, **kwargs)
        assert (found.agreement.passed, found.timing.suspicions) == (True, ()), found
        assert found.timing.launches_per_sample == (1 if name == "its own buffer" else 4)


@pytest.mark.parametrize("fn", [lambda x: (x * x).sum(1), lambda x: (x.softmax(1), x.argmax(1)), LINEAR])
def test_gradients_of_an_honest_callable_pass(fn):
    assert times(fn, X, reference=fn, backward=True).passed


def test_gradients_are_those_of_the_arguments_that_require_one():
    seen = []

    def product(x, y):
        seen.append((x.requires_grad, y.requires_grad))
        return x @ y.T

    assert times(product, X, Y.clone().requires_grad_(), reference=lambda x, y: x @ y.T, backward=True).passed
    assert set(seen) == {(False, True)}


class HalfTheGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, given):
        return given * ctx.saved_tensors[0]


def test_a_gradient_wrong_by_a_factor_is_rejected():
    assert times(HalfTheGradient.apply, X, reference=lambda x: x * x).passed
    found = times(HalfTheGradient.apply, X, reference=lambda x: x * x, backward=True)
    assert found.verdict == "wrong values"
    assert "gradient of args[0]: 127 of 128 elements are off" in found.agreement.message
    with pytest.raises(NotMeasured, match="apply was not timed: wrong values: gradient of"):
        _ = found.median


def test_less_precision_than_the_arguments_have_is_noted():
    found = times(lambda x: (2 * x).half(), X, reference=twice)
    assert (found.verdict, *found.notes) == (
        "passed",
        "result is float16, with less precision than the arguments: judged by the rounding of float16",
    )
    assert not times(twice, X.half(), reference=twice).notes


def test_what_was_not_checked_says_so():
    found = times(twice, X)
    assert (found.verdict, found.passed, found.median > 0) == ("unchecked", False, True)


def test_a_state_without_a_reference_is_restored_and_noted():
    found = times(in_place, X, Y)
    assert found.notes == ("x: changed in place, and restored before each launch",)


def test_a_view_is_noted():
    found = times(lambda x: (x.T, 2 * x), X, reference=lambda x: (x.T, 2 * x))
    assert (found.verdict, found.notes) == ("passed", ("result[0] is a view of x: no time was spent on it",))


def test_random_results_are_unchecked():
    found = times(functional.dropout, X, reference=functional.dropout)
    assert (found.verdict, found.notes) == ("unchecked", ("random results: values unchecked",))
    assert found.median > 0
    assert times(functional.dropout, X).verdict == "unchecked"


def test_results_that_vary_within_the_bound_are_checked():
    signs = itertools.cycle((1e-8, -1e-8))
    found = times(lambda x: 2 * x + next(signs), X, reference=twice, bound=1e-6)
    assert found.passed


def test_without_values_that_vary_it_says_so():
    x = X.clone()
    assert "no tensor arguments" in times(lambda: 2 * x).notes[0]
    assert "no argument has values" in times(twice, INDEX).notes[0]


def test_a_tensor_of_its_own_keeps_its_values():
    own, x = torch.arange(8.0), torch.arange(8.0) + 0.5
    for reference in (None, lambda x: 2 * x):
        assert (
            times(lambda x: torch.mul(x, 2, out=own) if x.dtype is own.dtype else 2 * x, x, reference=reference).median
            > 0
        )
        assert own.equal(2 * x)
    assert times(lambda x: own, x).verdict == "error"
    assert own.equal(2 * x)


@pytest.mark.parametrize(("error", "verdict"), [(KeyError("no luck"), "error"), (TookTooLong(), "timeout")])
def test_a_tensor_of_its_own_keeps_its_values_if_a_call_does_not_return(error, verdict):
    own, x, number = torch.arange(8.0), torch.arange(8.0) + 0.5, itertools.count(1)

    def fails(x):
        if next(number) == 3:
            raise error
        return torch.mul(x, 2, out=own)

    assert times(fails, x).verdict == verdict
    assert own.equal(2 * x)


def test_other_values_stay_valid():
    floats = {"x": X, "mask": (X > 0).float(), "weight": Y, "definite": X @ X.T, "narrow": X.to(torch.float8_e4m3fn)}
    arguments = Arguments(lambda **floats: None, (), floats, keep=("weight",))
    values = arguments.values(5)
    assert arguments.varying == ["x", "definite", "narrow"]
    factor = values["x"] / X
    assert factor.allclose(factor[0, 0].expand(8, 16))
    assert 0.5 <= factor[0, 0] < 0.76
    assert torch.linalg.eigvalsh(values["definite"]).min() > -1e-5
    assert values["weight"] is arguments.tensors["weight"]
    assert arguments.values(0)["x"].equal(X)
    assert not arguments.values(6)["x"].equal(values["x"])
    assert all(
        not each["narrow"].float().equal(floats["narrow"].float()) for each in map(arguments.values, range(1, 99))
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_other_values_differ_from_those_given_however_few_and_narrow(dtype):
    for number in (1.25, 0.875, 3.5, 0.3):
        one = torch.tensor([number]).to(dtype)
        drawn = Arguments(twice, (one,), {}, ()).values
        assert not any(drawn(seed)["x"].float().equal(one.float()) for seed in range(1, 300))


def test_rates_and_the_share_of_the_limit():
    found = times(twice, X, reference=twice)
    assert found.timing.bytes_per_second == pytest.approx(2 * X.nbytes / found.median)
    assert found.timing.limit == "copy"
    assert found.share == pytest.approx(2 * X.nbytes / 1e15 / found.median)
    product = times(torch.mm, X, Y.T, reference=torch.mm, flops=1e9, bytes=10)
    assert product.timing.limit == "float32 matrix"
    assert product.timing.flops_per_second == pytest.approx(1e9 / product.median)
    assert product.timing.bytes_per_second == pytest.approx(10 / product.median)


def test_a_rate_above_the_limit_asks_for_the_bytes(monkeypatch):
    table = torch.randn(100, 100)
    monkeypatch.setattr("boltzbench.harness.callables.measure.limits_of", lambda device: {"read": 1.0, "copy": 1.0})
    monkeypatch.setattr("boltzbench.harness.callables.measure.cache_bytes", lambda device: 0)
    found = times(lambda table, index: table[index], table, INDEX)
    assert "above the roofline, if it reads each argument once: give bytes=" in found.timing.suspicions[0]


def test_the_limits_are_those_of_the_ceilings_plugin(monkeypatch, capsys):
    """No other plugin is imported, since each of them runs code here."""
    seen = []

    def ceilings_of(ceilings, device, environment, announce):
        announce()
        seen.extend(each.plugin.split()[-1] for each in ceilings)
        return {"copy": 7.0}, ("ceiling 'x' failed",)

    monkeypatch.delenv("BOLTZBENCH_PLUGINS", raising=False)
    monkeypatch.setattr("boltzbench.harness.callables.measure.ceilings_of", ceilings_of)
    assert limits_of.__wrapped__(torch.device("cpu")) == {"copy": 7.0}
    assert len(seen) > 10
    assert set(seen) == {seen[0]}
    printed = capsys.readouterr().err
    assert "measures the limits of cpu, once for this machine" in printed
    assert "problem: ceiling 'x' failed" in printed


def test_only_checked_where_asked_or_interpreted(monkeypatch):
    assert times(twice, X, reference=twice, timed=False).untimed == "as asked"

    class Grid:
        def launch(self, x):
            return 2 * x

    monkeypatch.setattr(
        "boltzbench.harness.callables.call.INTERPRETERS", ((__name__, "Emulator", "launch", "emulated"),)
    )
    monkeypatch.setitem(globals(), "Emulator", Grid)
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").SimpleNamespace(Emulator=Grid))
    found = times(lambda x: Grid().launch(x), X, reference=twice)
    assert (found.passed, found.measurement, found.untimed) == (True, None, "emulated: correctness only")


# What is refused ----------------------------------------------------------------------------------------------------


def failing(call: int):
    number = itertools.count(1)

    def fails(x: Tensor) -> Tensor:
        if next(number) == call:
            raise KeyError("no luck")
        return 2 * x

    return fails


def without_memory(x: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


class Late(dict):
    """A dict that would compute when it is read."""


TOTAL = torch.zeros(3)
REFUSED = {
    "nothing": (lambda x: None, {}, "error", "returns nothing and changes none of its arguments"),
    "a generator": (lambda x: (row for row in x), {}, "error", "of type generator, which computes when it is read"),
    "a number": (lambda x: float(x.sum()), {}, "error", "of type float, neither a tensor nor a pytree of tensors"),
    "a dict of its own": (lambda x: Late(y=2 * x), {}, "error", "of type Late, neither a tensor nor"),
    "a parameter": (lambda x: {"w": LINEAR.weight}, {}, "error", "result at ['w'] is of type Parameter, which may"),
    "complex": (lambda x: x + 1j, {}, "error", "torch.complex64: return dense real tensors"),
    "raises in the third call": (failing(3), {}, "error", "KeyError: 'no luck'; raised by call 3 of fails"),
    "raises while timed": (
        failing(20),
        {"reference": twice},
        "error",
        "while timed: KeyError: 'no luck'; raised by call 20",
    ),
    "no memory": (lambda x: torch.empty(1 << 50), {}, "error", "can't allocate memory"),
    "no memory of the GPU": (
        without_memory,
        {},
        "out of memory",
        "CUDA out of memory; raised by call 1 of without_memory",
    ),
    "an unexpected change": (
        lambda x: x.mul_(2),
        {"reference": twice},
        "modified input",
        "it changes x in place, and the",
    ),
    "its own total": (lambda x: TOTAL.add_(1), {}, "error", "it changes a tensor that is not among its arguments"),
    "another shape": (
        lambda x: x[:3],
        {"reference": twice},
        "wrong shape",
        "result has shape (3, 16), the reference's",
    ),
    "another kind": (lambda x: x.int(), {"reference": twice}, "wrong dtype", "has dtype torch.int32, the reference's"),
    "wrong": (lambda x: 2.001 * x, {"reference": twice}, "wrong values", "result: 127 of 128 elements are off"),
    "no gradient": (
        lambda x: 2 * x.detach(),
        {"reference": twice, "backward": True},
        "error",
        "no result depends on x by",
    ),
    "takes too long": (
        lambda x: time.sleep(9),
        {"time_limit": 0.1},
        "timeout",
        "its check was not done within the time",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_callable_gets_its_sentence(name):
    fn, options, verdict, words = REFUSED[name]
    found = times(fn, X, **options)
    assert found.verdict == verdict
    assert words in found.agreement.message, found
    assert found.measurement is None
    assert words in str(found)


def test_what_was_measured_before_the_time_limit_is_kept(monkeypatch):
    """The alarm of the time limit comes in call 400, on a clock that only the callable advances."""
    host, number = FakeTime(), itertools.count(1)
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: host.clock())

    def stopped(x):
        if next(number) == 400:
            raise TookTooLong
        host.spend(1e-3 + 1e-4 * torch.rand(()).item())
        return 2 * x

    found = measure(stopped, X, reference=twice)
    assert found.passed
    assert 100 < len(found.samples) < 400
    assert found.timing.suspicions == (f"broken off by the time limit of 300 s after {len(found.samples)} samples",)


INF = float("inf")
BAD = {
    "no callable": (lambda: times(3, X), TypeError, "expected a callable: got 3"),
    "mode": (lambda: times(twice, X, mode="warm"), ValueError, "mode must be 'cold' or 'hot': got 'warm'"),
    "bound": (lambda: times(twice, X, bound=1.0), ValueError, "bound needs a reference"),
    "bound's type": (
        lambda: times(twice, X, reference=twice, bound="1"),
        TypeError,
        "bound must be a number, or made by",
    ),
    "negative bound": (
        lambda: times(twice, X, reference=twice, bound=-1),
        ValueError,
        "absolute must be a finite number",
    ),
    "bytes": (lambda: times(twice, X, bytes=-1), ValueError, "bytes must be a finite number of at least 0: got -1"),
    "infinite bytes": (lambda: times(twice, X, bytes=INF), ValueError, "bytes must be a finite number .*: got inf"),
    "infinite flops": (lambda: times(twice, X, flops=INF), ValueError, "flops must be a finite number .*: got inf"),
    "seconds": (lambda: times(twice, X, seconds=0), ValueError, "seconds must be a positive, finite .*: got 0"),
    "infinite seconds": (lambda: times(twice, X, seconds=INF), ValueError, "seconds must be a .*: got inf"),
    "time limit": (lambda: times(twice, X, time_limit=INF), ValueError, "time_limit must be a .*: got inf"),
    "keep": (lambda: times(twice, X, keep=("y",)), ValueError, "keep='y' names no tensor argument: there are x"),
    "keep's type": (lambda: times(twice, X, keep="x"), TypeError, "keep must be a tuple of names"),
    "reference": (lambda: times(twice, X, reference=3), TypeError, "reference must be callable: got 3"),
    "backward": (lambda: times(twice, INDEX, backward=True), ValueError, "needs a floating-point tensor among the arg"),
    "complex": (lambda: times(twice, X + 1j), TypeError, "argument 'x' is a complex tensor"),
    "sparse": (lambda: times(twice, X.to_sparse()), TypeError, "argument 'x' is a torch.sparse_coo tensor"),
    "a reference in float32": (
        lambda: times(twice, X, reference=lambda x: x @ torch.ones(16, 2)),
        ValueError,
        "must not mix them with tensors of other dtypes",
    ),
    "a reference of other arguments": (
        lambda: times(twice, X, reference=lambda x, y: x),
        ValueError,
        r"the reference raised TypeError: .*missing 1 required positional argument: 'y'.*: it gets .* in float64$",
    ),
    "a misspelt option": (
        lambda: times(twice, X, refrence=twice),
        TypeError,
        r"^twice takes no argument 'refrence': did you mean the option 'reference'\?$",
    ),
    "a reference with less": (
        lambda: times(lambda x: (x, x + 1), X, reference=twice),
        ValueError,
        r"the reference returns 1 tensors besides what it changes, the callable 2 \(result\[0\], result\[1\]\)",
    ),
    "isolated": (
        lambda: times(lambda x: x, X, isolated=True),
        ValueError,
        "functions and arguments that another process",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_named(name):
    call, kind, words = BAD[name]
    with pytest.raises(kind, match=words):
        call()


# How it looks -------------------------------------------------------------------------------------------------------


def test_it_prints_as_one_line_and_draws_itself(monkeypatch):
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: QuietClock())  # real times, which vary
    found = times(twice, X, reference=twice, seconds=0.2)
    first, *flags = str(found).split("\n")
    assert re.fullmatch(r"twice: passed, [\d.]+ .s \(.*\), [\d.<]+ GB/s, \d+% of copy, cold, cpu", first), first
    assert len(first) <= 80
    assert repr(found) == str(found)
    assert all(each.startswith(("  noisy: the median is known to ±", "  the device was disturbed")) for each in flags)
    with (console := Console(width=80, force_terminal=True)).capture() as printed:
        console.print(found)
    assert "\x1b[32mpassed" in printed.get()
    html = found._repr_html_()
    assert "<svg" in html
    assert "twice: passed" in html


def test_a_busy_device_is_a_flag():
    found = times(twice, X, reference=twice)
    for share, flagged in ((0.57, True), (0.05, False)):
        timing = replace(found.timing, states=(DeviceState(0, others=share),))
        words = "the device was disturbed during 100% of the samples: other processes used 57% of it, at most 57%"
        assert (words in replace(found, measurement=timing).flags) is flagged


def test_a_keyword_like_an_option_is_an_argument_where_the_callable_takes_it():
    assert times(lambda x, referenc: referenc * x, X, referenc=2, reference=lambda x, referenc: 2 * x).passed
    assert times(lambda x, **more: more["refrence"] * x, X, refrence=2, reference=lambda x, refrence: 2 * x).passed
    wrong = times(twice, X, width=3)
    assert "unexpected keyword argument 'width'" in wrong.agreement.message


def test_names_are_escaped():
    def named(x):
        return 2 * x

    named.__name__ = "<script>\x1b[2J"
    html = times(named, X)._repr_html_()
    assert "<script>" not in html
    assert "\x1b" not in html


@pytest.mark.parametrize("running", ["twice", ""])
def test_isolated_the_end_of_its_process_is_the_verdict(running, monkeypatch):
    """Also if the process ended before anything ran. `test_compare` has a process that does end."""
    verdict = Agreement(Status.ERROR, "its process was ended by SIGABRT")
    monkeypatch.setattr(isolated, "_run", lambda *given: (running, verdict))
    found = measure(twice, X, reference=torch.mul, isolated=True)
    assert (found.name, found.operation, found.agreement) == ("twice", "mul", verdict)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_large_integers_must_be_equal(dtype):
    """Float64, in which floating-point results are judged, rounds these to the same number."""
    large = torch.tensor([2**60, 2**62 + 1, 5], dtype=dtype)
    other = torch.tensor([2**60 + 1, 2**62 + 1, 5], dtype=dtype)
    found = times(lambda x: other.clone(), large, reference=torch.clone)
    assert found.verdict == "wrong values"
    assert "(0,) got 1152921504606846977, expected 1152921504606846976, error 1 " in found.agreement.message
    assert times(torch.clone, large, reference=torch.clone).passed


def test_a_result_in_8_bits():
    small = X.to(torch.float8_e4m3fn)
    assert times(torch.clone, small, reference=torch.clone).passed
    assert times(lambda x: (-x.float()).to(x.dtype), small, reference=torch.clone).verdict == "wrong values"


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (KeyError("no limits"), KeyError, "no limits"),
        (Unpicklable("this", "that"), RuntimeError, "Unpicklable: this and that"),
    ],
)
def test_isolated_an_error_of_the_harness_is_raised_and_no_verdict(error, kind, words, monkeypatch):
    def fails(*given):
        raise error

    def in_this_process(command, **how):
        try:
            isolated._main(Path(command[-1]))
        except Exception:
            return SimpleNamespace(returncode=1)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(isolated, "compared", fails)
    monkeypatch.setattr(isolated.subprocess, "run", in_this_process)
    with pytest.raises(kind, match=words):
        measure(twice, X, reference=torch.mul, isolated=True)


def test_a_bound_of_the_callers():
    near = partial(torch.add, alpha=1e-3)
    assert not times(near, X, torch.ones(16), reference=lambda x, y: x).passed
    assert times(near, X, torch.ones(16), reference=lambda x, y: x, bound=Bound(absolute=2e-3)).passed
