"""Lanes: what a command does at once, on the cores of a CPU or on several devices, each in a thread of its own.

A lane takes the next unit of work when it is free. Ctrl-C and errors end all lanes: what they had found is kept, what
they find later is not. A device that stops working gives its unit back to the other lanes, so that no case is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import sleep
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ...discovery.time_limit import disarm, unlimited
from ..expected_seconds import expected_seconds
from ..plan import Mode, Step

if TYPE_CHECKING:  # `--help` does not need them
    import torch

    from ..session import Display
    from ..trial import Block

Unit = TypeVar("Unit")


class Lane(Protocol):
    """A device, and the `Workers` on it."""

    @property
    def device(self) -> torch.device: ...
    @property
    def workers(self) -> Any: ...


class Stopped(Exception):
    """The work has ended: what a lane finds now is not kept."""


class Going:
    """Whether the work goes on. As a context: one lane at a time, and `Stopped` if it has ended."""

    def __init__(self) -> None:
        self._lock, self._ended = threading.RLock(), threading.Event()

    def require(self) -> None:
        if self.has_ended:
            raise Stopped

    def end(self) -> None:
        with self._lock:
            self._ended.set()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.has_ended:
            self._lock.release()
            raise Stopped

    def __exit__(self, *reason: object) -> None:
        self._lock.release()


MOST_ON_A_CPU = 8
"""Lanes at once. The processes of each need some 400 MB of memory or more."""

L = TypeVar("L", bound=Lane)


def at_once(lanes: Sequence[L], act: Callable[[L, Going], None]) -> None:
    """Call ``act`` for each lane in a thread, and return when all have returned.

    If one raises, or Ctrl-C is pressed, the processes of all are killed, and the error is raised when they have ended.
    """
    going, errors = Going(), list[BaseException]()

    def run(lane: L) -> None:
        try:
            going.require()
            act(lane, going)
        except Stopped:
            pass
        except BaseException as error:
            errors.append(error)
            going.end()

    threads = [threading.Thread(target=run, args=(lane,), daemon=True) for lane in lanes]
    with _EndOf(lanes, threads, going):
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not going.has_ended:
            sleep(0.05)  # and holds no lock, which Ctrl-C could leave locked
    if errors:
        raise errors[0]


class _EndOf:
    """Ends the lanes when the body ends, whatever ends it.

    Python sees signals when it calls a function. So `__exit__` is called if one raises in the body, and a time limit
    raises nothing in `__exit__`. In a ``finally`` it could, before anything has ended.
    """

    def __init__(self, lanes: Sequence[Lane], threads: Sequence[threading.Thread], going: Going) -> None:
        self._lanes, self._threads, self._going = lanes, threads, going

    def __enter__(self) -> None:
        pass

    @unlimited
    def __exit__(self, *reason: object) -> None:
        disarm()
        self._going.end()
        while any(thread.is_alive() for thread in self._threads):
            for lane in self._lanes:
                lane.workers.kill()
            sleep(0.05)


class Queue(Generic[Unit]):
    """Units that wait for a free lane. ``choose(place, waiting)`` says which of them the lane at this place takes; by
    default the first."""

    def __init__(
        self, units: Iterable[Unit], lanes: int, choose: Callable[[int, Sequence[Unit]], int] = lambda place, waiting: 0
    ) -> None:
        self._waiting, self._lanes, self._choose = list(units), lanes, choose
        self._at_work = 0
        self._changed = threading.Condition()

    @property
    def waiting(self) -> list[Unit]:
        with self._changed:
            return list(self._waiting)

    def take(self, place: int, going: Going) -> Unit | None:
        """The next unit of a lane; None if there will be none. Waits as long as another lane, which may give its unit
        back, is at work."""
        with self._changed:
            while not self._waiting and self._at_work:
                going.require()
                self._changed.wait(0.05)
            going.require()
            if not self._waiting:
                return None
            self._at_work += 1
            return self._waiting.pop(self._choose(place, self._waiting))

    def done(self) -> None:
        """A lane has done its unit."""
        with self._changed:
            self._at_work -= 1
            self._changed.notify_all()

    @property
    def has_others(self) -> bool:
        """Whether there is more than one lane."""
        return self._lanes > 1

    def leave(self) -> bool:
        """Whether a lane may leave before the end. The last one may not."""
        with self._changed:
            if not self.has_others:
                return False
            self._lanes -= 1
            return True

    def put_back(self, unit: Unit) -> None:
        """Another lane will do the unit."""
        with self._changed:
            self._at_work -= 1
            self._waiting.insert(0, unit)
            self._changed.notify_all()


Found = Callable[[Callable[[], None]], None]
"""Called with a function that keeps a result."""


@dataclass(frozen=True)
class CountsKept:
    """A display that counts a step when its result is kept: those of a lost device are found again."""

    display: Display
    found: Found

    def step(self, step: Step) -> None:
        self.display.step(step)

    def block(self, block: Block) -> None:
        self.display.block(block)

    def done(self) -> None:
        self.found(self.display.done)


def share_out(
    lanes: Sequence[L],
    queue: Queue[Unit],
    act: Callable[[L, Unit, Going, Found], None],
    lost: Callable[[L], None] = lambda lane: None,
) -> None:
    """Have each lane ``act`` on the next unit until all are done. It hands each result to `Found`.

    If a worker died and the device of the lane gives no answer any more, ``lost`` is called, and the other devices
    repeat the unit. Results on several devices are therefore kept when their unit is done; after an interruption those
    of unfinished units are kept too.
    """
    several = len({lane.device for lane in lanes}) > 1
    found: list[list[Callable[[], None]]] = [[] for _ in lanes]
    places = {id(lane): place for place, lane in enumerate(lanes)}

    def work(lane: L, going: Going) -> None:
        place = places[id(lane)]

        def keep(result: Callable[[], None]) -> None:
            with going:
                found[place].append(result) if several else result()

        while (unit := queue.take(place, going)) is not None:
            deaths = lane.workers.deaths if several else 0
            act(lane, unit, going, keep)
            going.require()
            if several and lane.workers.deaths > deaths and queue.has_others and not lane.workers.answers():
                going.require()  # an interruption kills the process that is asked, too
                if queue.leave():  # no other has left meanwhile
                    found[place].clear()
                    with going:
                        lost(lane)
                    queue.put_back(unit)
                    return
            with going:
                _keep_all(found[place])
            queue.done()

    try:
        at_once(lanes, work)
    finally:
        for results in found:
            _keep_all(results)


def _keep_all(results: list[Callable[[], None]]) -> None:
    while results:
        results.pop(0)()


class LongestFirst:
    """Chooses the next case of a lane: the longest one of the operation that the lane is at, whose processes it has;
    otherwise of the operation with the most work left for each lane at it."""

    def __init__(self, lanes: int, device_type: str, modes: Sequence[Mode]) -> None:
        self._at = [""] * lanes
        self._device_type, self._modes = device_type, modes

    def __call__(self, place: int, waiting: Sequence[Sequence[Step]]) -> int:
        names = [case[0].operation.name for case in waiting]
        seconds = [sum(expected_seconds(step, self._device_type, self._modes) for step in case) for case in waiting]
        if self._at[place] not in names:
            left: dict[str, float] = {}
            for name, own in zip(names, seconds, strict=True):
                left[name] = left.get(name, 0.0) + own
            self._at[place] = ""
            self._at[place] = max(left, key=lambda name: left[name] / (1 + self._at.count(name)))
        return max((i for i, name in enumerate(names) if name == self._at[place]), key=lambda i: (seconds[i], -i))
