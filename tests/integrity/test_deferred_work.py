"""Work that is left for the time after the clock has stopped, or done while it has not started."""

import gc
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from boltzbench.harness.api.operations import Inputs, Launch, Status, Tensors
from boltzbench.harness.timing import tampering
from support.attacks import CHECKED, QUICK, SCALE, QuietClock, honest_for, outcome
from support.small_operations import CPU, Body, case, implementation, measure, prepared_by, scale_rightly
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


def later(inputs: Inputs, outputs: Tensors) -> Tensors:
    """A dict that computes when it is looked into."""

    class Late(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            scale_rightly(inputs, outputs)
            return super().__getitem__(name)

    return Late(outputs)


def by_a_name_that_computes(inputs: Inputs, outputs: Tensors) -> Tensors:
    class Name(str):
        def __eq__(self, other: object) -> bool:
            scale_rightly(inputs, outputs)
            return str.__eq__(self, other)  # type: ignore[arg-type]

        __hash__ = str.__hash__

    return {Name("y"): outputs["y"]}


def by_an_attribute(method: str) -> Body:
    """The tensor's own method computes when the harness calls it."""

    def body(inputs: Inputs, outputs: Tensors) -> Tensors:
        y = torch.empty_like(outputs["y"])

        def compute(*arguments: Any) -> Any:
            torch.mul(inputs["x"], inputs["factor"], out=y)
            return getattr(Tensor, method)(y, *arguments)

        setattr(y, method, compute)
        return {"y": y}

    return body


def negated_when_read(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": torch._neg_view(inputs["x"] * -inputs["factor"])}


FORMS: dict[str, tuple[Body, str]] = {
    "a dict that computes": (later, "returned Late, not a dict"),
    "a name that computes": (by_a_name_that_computes, "a name that is not a plain string"),
    "its own data_ptr": (by_an_attribute("data_ptr"), "attributes of its own: 'data_ptr'"),
    "its own detach": (by_an_attribute("detach"), "attributes of its own: 'detach'"),
    "negated when read": (negated_when_read, r"computed when it is read \(Negative\)"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_result_that_computes_when_it_is_read(name: str) -> None:
    body, words = FORMS[name]
    for candidate in (body, honest_for(CHECKED + 20, body)):  # in `check`, and in `bench` alone
        found = outcome(implementation(candidate)).agreement
        assert found.status is Status.ERROR
        assert re.search(words, found.message), found.message


# Hooks of the interpreter -----------------------------------------------------------------------------------------


class Hook:
    """Computes at the first event of the interpreter after the launch, and removes itself then."""

    def __init__(self, install: Callable[[Any], object]) -> None:
        self.install, self.compute = install, lambda: None

    def __call__(self, *event: Any) -> Any:
        compute, self.compute = self.compute, lambda: None
        compute()
        return self

    def body(self, inputs: Inputs, outputs: Tensors) -> None:
        self.compute = lambda: scale_rightly(inputs, outputs)  # type: ignore[assignment,return-value]
        self.install(self)


def trace_the_callers(hook: Any) -> None:
    frame = sys._getframe(1)
    while frame.f_back:
        frame = frame.f_back
        frame.f_trace = hook
    sys.settrace(hook)


@pytest.fixture
def clean() -> Iterator[None]:
    threshold, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield
    sys.setprofile(None)
    sys.settrace(None)
    gc.set_threshold(*threshold)
    gc.callbacks[:] = callbacks
    gc.enable()


@pytest.mark.parametrize(
    ("install", "words"),
    [(sys.setprofile, r"a profile function \(sys.setprofile\)"), (trace_the_callers, "a trace function")],
    ids=["profile", "trace"],
)
@pytest.mark.usefixtures("clean")
def test_a_hook_of_the_interpreter(install: Callable[[Any], object], words: str) -> None:
    hook = Hook(install)
    with pytest.raises(Exception, match=f"the launch left {words}"):
        measure(SCALE, implementation(honest_for(3, hook.body)), case(), CPU, protocol=QUICK, clock=QuietClock())


@pytest.mark.parametrize("number", range(6))
def test_a_tool_of_the_interpreter(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of `sys.monitoring`, which Python has since 3.12."""
    monkeypatch.setattr(tampering, "_tool", {number: "a debugger"}.get)
    assert tampering.hook_in_place(True) == "a tool of sys.monitoring"


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("enable", [False, True])
def test_a_callback_of_the_garbage_collector(enable: bool) -> None:
    """The harness collects no garbage while it takes samples; a launch that turns the collector on is refused."""

    def install(hook: Any) -> None:
        gc.callbacks.append(hook)
        gc.set_threshold(1)
        if enable:
            gc.enable()

    words = "the garbage collector, turned on" if enable else "skipped its work|never written|changed after"
    body = honest_for(3, Hook(install).body)
    with pytest.raises(Exception, match=words):
        measure(SCALE, implementation(body), case(), CPU, protocol=QUICK, clock=QuietClock())


@pytest.mark.parametrize("kind", [TorchFunctionMode, TorchDispatchMode])
def test_a_mode_of_torch_that_is_left_active(kind: Any) -> None:
    """It would compute at the first operation of the harness."""

    class Mode(kind):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return function(*args, **(kwargs or {}))

        __torch_dispatch__ = __torch_function__

    active: list[Any] = []

    def enter(inputs: Inputs, outputs: Tensors) -> None:
        active.append(Mode())
        active[-1].__enter__()

    body = honest_for(3, enter)
    try:
        with pytest.raises(Exception, match="mode in place: work could follow after the clock"):
            measure(SCALE, implementation(body), case(), CPU, protocol=QUICK, clock=QuietClock())
    finally:
        for mode in reversed(active):
            mode.__exit__(None, None, None)


# Threads ----------------------------------------------------------------------------------------------------------


def test_a_thread_that_outlives_its_launch() -> None:
    release = threading.Event()
    threads: list[threading.Thread] = []

    def leave(inputs: Inputs, outputs: Tensors) -> None:
        scale_rightly(inputs, outputs)
        if len(threads) < 3:
            threads.append(threading.Thread(target=release.wait))
            threads[-1].start()

    try:
        found = outcome(implementation(honest_for(CHECKED + 60, leave)), mode="cold")
    finally:
        release.set()
        for thread in threads:
            thread.join()
    assert "threads of Python were started that went on after the launch" in found.suspicions


def test_a_thread_that_computes_before_the_clock_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It polls the inputs, and has the answer while the harness flushes caches."""
    monkeypatch.setattr(tampering, "IDLE_SECONDS", 0.01)  # on a busy machine a thread waits for its turn
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        answer = torch.empty_like(inputs["x"])

        def poll() -> None:
            while not stop.is_set():
                torch.mul(inputs["x"], inputs["factor"], out=answer)

        threads.append(threading.Thread(target=poll, daemon=True))
        threads[-1].start()

        def launch() -> Tensors:
            torch.mul(inputs["x"], inputs["factor"], out=outputs["y"])  # or `answer`, if that is complete
            return outputs

        return launch

    try:
        measurement = measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=QuietClock())
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert "a thread of Python works between the launches" in measurement.suspicions


def test_a_pool_of_threads_that_works_within_launches_is_honest() -> None:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(2)

    def in_two_halves(inputs: Inputs, outputs: Tensors) -> None:
        def half(rows: slice) -> None:
            torch.mul(inputs["x"][rows], inputs["factor"], out=outputs["y"][rows])

        list(pool.map(half, (slice(0, 2), slice(2, 5))))

    try:
        found = outcome(implementation(in_two_halves))
    finally:
        pool.shutdown()
    assert (found.agreement.passed, found.suspicions) == (True, ())


def test_a_timer_that_interrupts_the_process() -> None:
    import signal

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        signal.setitimer(signal.ITIMER_VIRTUAL, 1000.0)
        return lambda: {"y": torch.mul(inputs["x"], inputs["factor"], out=outputs["y"])}

    try:
        measurement = measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=QuietClock())
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
    assert "a timer that interrupts the process was set (signal.setitimer)" in measurement.suspicions


def test_the_checks_within_the_timed_interval_take_less_than_ten_calls_of_a_function() -> None:
    def nothing(collects: bool) -> None:
        pass

    def seconds(function: Callable[[bool], object]) -> float:
        begin = time.perf_counter()
        for _ in range(1000):
            function(True)
        return time.perf_counter() - begin

    pairs = [(seconds(tampering.hook_in_place), seconds(nothing)) for _ in range(30)]
    checks, calls = map(min, zip(*pairs, strict=True))
    assert checks < 10 * calls
