"""Cheats in a callable that `measure` times, with a reference and without one."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import boltzbench.harness.callables.measure
import pytest
import torch
from boltzbench.harness import Measured, measure
from boltzbench.harness.timing import stopwatch
from support.attacks import FakeTime, SteadyClock
from torch import Tensor

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
LOOKS = 6
"""Calls before the first timed launch, at least: two for a look, two for the check, and two to judge these if there is
no reference."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: SteadyClock())
    monkeypatch.setattr(boltzbench.harness.callables.measure, "limits_of", lambda device: {})


def right(x: Tensor) -> Tensor:
    return 3 * x


def times(fn: Callable[..., Any], reference: Callable[..., Any] | None) -> Measured:
    return measure(fn, X, reference=reference, seconds=0.05)


def honest_at_first(calls: int, then: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    number = count()
    return lambda x: (right if next(number) < calls else then)(x)


both = pytest.mark.parametrize("reference", [right, None], ids=["with a reference", "without"])


def by_identity() -> Callable[[Tensor], Tensor]:
    """It keeps the tensor as well, so that no other one gets its address."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    return lambda x: kept.setdefault(x.data_ptr(), (x, 3 * x))[1]


class Lazy(Tensor):
    """Computes when it is looked at."""


class Late(dict[str, Tensor]):
    pass


def unwritten() -> Callable[[Tensor], Tensor]:
    """New memory. Its contents differ from call to call, here always: in memory that was just freed they may not."""
    number = count()
    return lambda x: torch.full_like(x, float(next(number)))


def in_a_thread() -> Callable[[Tensor], Tensor]:
    memory = unwritten()

    def later(x: Tensor) -> Tensor:
        y = memory(x)

        def work() -> None:
            time.sleep(2e-3)
            torch.mul(x, 3, out=y)

        threading.Thread(target=work).start()
        return y

    return later


def in_its_own_memory(calls: int) -> Callable[[Tensor], Tensor]:
    """After so many calls it leaves that as it is."""
    own, number = torch.empty_like(X), count()
    return lambda x: torch.mul(x, 3, out=own) if next(number) < calls else own


CHEATS: dict[str, tuple[Callable[[], Callable[[Tensor], Any]], str]] = {
    "results by identity": (by_identity, "are off"),
    "no work, once it is timed": (lambda: honest_at_first(LOOKS + 5, unwritten()), "are off"),
    "no work in its own memory, once it is timed": (lambda: in_its_own_memory(LOOKS + 6), "are off"),
    "a lazy tensor": (lambda: lambda x: (3 * x).as_subclass(Lazy), "of type Lazy, which may compute when it is read"),
    "a lazy tensor, once it is timed": (
        lambda: honest_at_first(LOOKS + 5, lambda x: (3 * x).as_subclass(Lazy)),
        "Lazy",
    ),
    "a dict of its own": (lambda: lambda x: Late(y=3 * x), "of type Late, neither a tensor nor"),
    "work in a thread, once it is timed": (lambda: honest_at_first(LOOKS + 5, in_a_thread()), ""),
}


@both
@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_in_a_callable_is_rejected(name: str, reference: Callable[..., Any] | None) -> None:
    make, words = CHEATS[name]
    found = times(make(), reference)
    assert found.measurement is None, found
    assert not found.agreement.passed
    assert words in found.agreement.message


@both
def test_results_kept_by_content_in_a_callable(
    reference: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeTime()
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: host.clock())
    kept: dict[bytes, Tensor] = {}

    def by_content(x: Tensor) -> Tensor:
        key = x.detach().numpy().tobytes()
        host.spend(1e-4 if key in kept else 1e-3)
        return kept.setdefault(key, 3 * x).clone()

    (suspicion,) = measure(by_content, X, reference=reference, seconds=0.5).timing.suspicions
    assert "results may be cached by content" in suspicion


@pytest.fixture
def clean() -> Iterator[None]:
    yield
    sys.setprofile(None)


@pytest.mark.usefixtures("clean")
@both
def test_a_hook_left_by_a_callable(reference: Callable[..., Any] | None) -> None:
    def hooked(x: Tensor) -> Tensor:
        sys.setprofile(lambda *event: None)
        return 3 * x

    assert "left a profile function (sys.setprofile) in place" in times(hooked, reference).agreement.message


def test_a_constant_gets_through_without_a_reference() -> None:
    """It is what the callable always returns, so that nothing says that it is wrong."""
    kept: list[Tensor] = []

    def constant(x: Tensor) -> Tensor:
        kept.append(3 * x)
        return kept[0].clone()

    assert times(constant, right).verdict == "wrong values"
    kept.clear()
    found = times(constant, None)
    assert (found.verdict, found.timing.suspicions) == ("unchecked", ())


@both
def test_an_honest_callable_passes_unflagged(reference: Callable[..., Any] | None) -> None:
    found = times(right, reference)
    assert (found.agreement.passed, found.checked, found.timing.suspicions) == (True, reference is not None, ())
