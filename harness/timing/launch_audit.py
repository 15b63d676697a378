"""Audits the timed launches: every one is compared with another on the same values, and a few are checked in full.

The audit holds a few sets of input values, drawn from random seeds, and gives each launch one of them, other ones than
the launch before had. So a launch that skips its work because its inputs are as they were is wrong. New sets come up
during the sampling, at random places, and `Stopwatch` compares the times of launches on values that were new with those
on values seen before: results kept by content make the latter faster.

After each launch, outside the timed interval and without waiting for the device, the audit compares every bit of the
outputs with those of the first launch on the same values. One such launch at least of several sets, chosen at random,
is checked in full. An implementation cannot predict which launches are, since block lengths are random.

If results differ from launch to launch (sums of atomics, a random stream of its own), they cannot be compared. Then the
audit shows that every launch wrote its outputs, and that the checked ones are right.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from random import SystemRandom
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from ..agreement.agreement import Copy, GuardedCall, Rejected, require_other_values
from ..api.operations import Agreement, Case, Implementation, Inputs, Operation, Status, Tensors
from .tampering import Surroundings, hook_in_place

VALUES = 4
"""How many sets of values the audit holds, as far as they fit into `MOST_BYTES`; two at least."""
MOST_BYTES = 1 << 30
DRAWING_SECONDS = 1.0
"""Drawing takes no longer before the first launch, as far as two sets of values are there."""
MOST_JUDGED = 4
"""How many sets of values are checked in full, besides the last launch."""
MOST_SINGLE_LAUNCHES = 64
"""How many launches are checked one by one to explain results that no fully checked launch had."""

Fingerprint = dict[str, int]
"""The sum of the words of each output of one launch."""

JudgeElsewhere = Callable[[int, tuple[str, ...], Tensors], Agreement]
"""Judges results in another process. The inputs of these names have the values of a seed; the others have those of the
case's own seed."""

_random = SystemRandom()


class FailedWhileTimed(Exception):
    """An implementation that had passed its check failed during timing. ``agreement`` says how."""

    def __init__(self, agreement: Agreement) -> None:
        super().__init__(f"{agreement.status} while timed: {agreement.message}")
        self.agreement = agreement


@dataclass(eq=False)
class Values:
    """Values of the inputs that change, without the parameters.

    ``copy`` holds the outputs of the first launch on them, ``judged`` says that these are right, and ``repeated``
    counts the launches that gave the same. ``initial`` are the sums of the states that a launch advances.
    """

    seed: int
    inputs: Inputs
    copy: Copy | None = None
    judged: bool = False
    repeated: int = 0
    initial: dict[str, Tensor] | None = None


class _Seen(NamedTuple):
    """What was enqueued about one launch: the sums of its outputs, those of its states before it, and whether the
    outputs differ from the copy."""

    values: Values
    sums: dict[str, Tensor]
    initial: dict[str, Tensor]
    differs: Tensor


class _Found(NamedTuple):
    """The same as numbers."""

    values: Values
    sums: Fingerprint
    initial: Fingerprint
    differs: bool


class LaunchAudit:
    """The launches of one implementation in one case, on one or more sets of memory.

    ``launch``, ``restore`` and ``fingerprint`` only enqueue. `launch` raises what the
    implementation raises; the other methods raise `Rejected` or `FailedWhileTimed` when it fails. ValueError if the
    values of the inputs do not depend on the seed.
    """

    def __init__(
        self,
        operation: Operation,
        implementation: Implementation,
        case: Case,
        device: torch.device,
        judge: JudgeElsewhere | None = None,
    ) -> None:
        self._judge_elsewhere = judge
        self._operation, self._implementation, self._case, self._device = operation, implementation, case, device
        self._surroundings = Surroundings()
        inputs = operation.make_inputs(case, device)
        first = self._without_parameters(inputs)
        self._held = [Values(case.seed, first)]
        self._new: list[Values] = []
        self.drawn = 1
        self._calls = [GuardedCall(operation, implementation, inputs, device)]
        self._surroundings.know_threads()
        self._dealt = [self._held[0]]
        self._results: list[Tensors] = []
        self._enqueued: list[_Seen] = []
        self._on_new: list[bool] = []
        self._last: list[_Found] = []
        self._poisoned: Fingerprint | None = None
        self._changed: set[str] = set()
        self._threads = 0
        self._judgements = 0
        self._varies = implementation.own_stream
        self._unexplained = 0
        self._repeated = self._differed = 0
        self._single_launches = 0
        self._unjudged = False
        self._places: set[int] = set()
        self._place = 0
        self.remarks: set[str] = set()
        size = sum(value.nbytes for value in first.values() if isinstance(value, Tensor))
        self._most_values = max(2, min(VALUES, MOST_BYTES // max(size, 1)))
        begin = perf_counter()
        while self.drawn < 2 or (self.drawn < self._most_values and perf_counter() - begin < DRAWING_SECONDS):
            if not self.draw():
                break
            if self.drawn == 2:  # two to begin with; the others come up in the first block
                self._held.append(self._new.pop())

    def add_set(self) -> None:
        """Prepare the implementation on one more copy of the inputs."""
        first = self._calls[0].inputs
        self._calls.append(GuardedCall(self._operation, self._implementation, first, self._device))
        self._dealt.append(_random.choice(self._held))  # not the same as other sets, which could copy its results

    def keep_sets(self, count: int) -> None:
        """Free all but the first ``count`` sets."""
        del self._calls[count:], self._results[count:], self._dealt[count:]
        self.discard()

    @property
    def sets(self) -> int:
        return len(self._calls)

    @property
    def nbytes(self) -> int:
        """Bytes of one set."""
        return self._calls[0].nbytes

    @property
    def host_reads_numbers(self) -> bool:
        """Whether a number of the host moves on from launch to launch, which a graph would keep."""
        return any(not isinstance(self._held[0].inputs.get(name, 0), Tensor) for name in self._operation.moving)

    def draw(self) -> bool:
        """Draw one more set of values, which will come up in the next block. Whether that was possible."""
        seed = _random.randrange(2**31)
        inputs = self._operation.make_inputs(replace(self._case, seed=seed), self._device)
        self.drawn += 1
        if not self._calls[0].fits(inputs):
            self.remarks.add("inputs of other seeds have another layout, so that all launches had the same values")
            return False
        if self.drawn == 2:
            require_other_values(self._operation, self._case, self._held[0].inputs, inputs)
        self._new.append(Values(seed, self._without_parameters(inputs)))
        return True

    def begin_block(self, launches: int) -> None:
        """Choose at which of the next launches new values come up."""
        count = min(len(self._new), (launches + 1) // 2)
        self._places, self._place = set(_random.sample(range(launches), count)), 0
        self.remarks.update(self._surroundings.remarks(self._write_others))

    def launch(self) -> None:
        """One launch on each set."""
        collects = gc.isenabled()
        self._results = [call.launch() for call in self._calls]
        if hook := hook_in_place(collects):
            raise Rejected(Status.ERROR, f"the launch left {hook} in place: work could follow after the clock")

    def restore(self) -> None:
        """Give every set values, others than before, and its outputs their initial contents."""
        is_new = self._place in self._places and bool(self._new)
        self._place += 1
        self._on_new.append(is_new)
        if is_new:
            if len(self._held) >= self._most_values:
                del self._held[_random.randrange(len(self._held))]
            self._held.append(self._new.pop())
            self._dealt = [self._held[-1]] * self.sets
        else:
            self._dealt = [self._other_than(before) for before in self._dealt]
        for call, values in zip(self._calls, self._dealt, strict=True):
            call.put(values.inputs)
            call.restore()
            if values.initial is None:
                values.initial = call.sums_of_states()

    def fingerprint(self) -> None:
        if mode := self._surroundings.mode_in_place():
            raise Rejected(Status.ERROR, f"the launch left {mode} in place: work could follow after the clock")
        self._threads = max(self._threads, self._surroundings.unknown_threads())
        for call, result, values in zip(self._calls, self._results, self._dealt, strict=True):
            self._enqueued.append(self._look(call, result, values))

    def discard(self) -> None:
        """Discard what is known of the launches since the last `compare`, which were not timed."""
        self._enqueued.clear()
        self._on_new.clear()
        self._threads = 0
        self._surroundings.know_threads()

    @property
    def is_suspicious(self) -> bool:
        """Whether a launch had other results than a checked one without explanation. Then use blocks of one launch."""
        return bool(self._unexplained) and not self._varies and self._single_launches < MOST_SINGLE_LAUNCHES

    @property
    def suspicion(self) -> str | None:
        if self._implementation.own_stream and self._repeated and not self._differed:
            return "each launch drew the same random numbers: they may have been drawn in advance"
        if not self._unexplained or self._varies:
            return None
        return f"{self._unexplained} timed launches gave other results than those that were checked in full"

    def compare(self) -> list[bool]:
        """Compare all launches since the last call with others on the same values.

        Checks the last launch in full if few values were checked so far, or if it differs from the others on its
        values. If it is right, and so is the one that it differs from, results vary from launch to launch. Returns for
        each sample whether it was the first on its values.
        """
        if self._threads:
            self.remarks.add("threads of Python were started that went on after the launch")
        found, on_new = self._collect(), list(self._on_new)
        self._on_new.clear()
        self._last, self._unjudged = found[-self.sets :], True
        self._single_launches += self.is_suspicious
        k = _random.randrange(self.sets)
        odd = [] if self._varies else [i for i, last in enumerate(self._last) if last.differs]
        if odd:
            self._judge(odd[0])
        elif not self._last[k].values.judged and (self._judgements < MOST_JUDGED or self.is_suspicious):
            self._judge(k)
        for each in found:
            self._require_work(each)
            self._differed += each.differs
            self._repeated += each.values.repeated > 0
            each.values.repeated += not each.differs
        self._unexplained += sum(each.differs for each in found)
        if odd:
            self._compare_with_others(self._last[odd[0]].values)
        return on_new

    def judge_last(self) -> None:
        """Check the results of the last launch in full, unless `compare` did."""
        if self._unjudged:
            self._judge(_random.randrange(self.sets))

    def writes_every_output(self, replay: Callable[[], object]) -> bool:
        """Whether ``replay`` of a graph of `launch` writes every output. The graph may have captured nothing."""
        self._sums()  # so that `restore` also poisons the results of the capture
        self.restore()
        untouched = self._sums()
        replay()
        replayed = self._sums()
        self.discard()
        return all(before != after for before, after in zip(untouched, replayed, strict=True))

    def _without_parameters(self, inputs: Inputs) -> Inputs:
        moving = self._operation.moving
        return {
            name: value
            for name, value in inputs.items()
            if (isinstance(value, Tensor) and name not in self._operation.parameters) or name in moving
        }

    def _sums(self) -> list[Fingerprint]:
        """The sums of the outputs of the last launch as they are now, for each set."""
        no = torch.tensor(False, device=self._device)
        pairs = zip(self._calls, self._results, strict=True)
        seen = [_Seen(self._held[0], call.fingerprint(result), {}, no) for call, result in pairs]
        return [each.sums for each in _numbers(seen)]

    def _write_others(self) -> None:
        self._calls[0].put(self._other_than(self._dealt[0]).inputs)

    def _other_than(self, before: Values) -> Values:
        others = [each for each in self._held if each is not before]
        return _random.choice(others) if others else before

    def _look(self, call: GuardedCall, result: Tensors, values: Values) -> _Seen:
        sums = call.fingerprint(result)  # this also refuses results of another form
        if values.copy is None:
            values.copy = call.copy(result)
        return _Seen(values, sums, values.initial or {}, call.differs(result, values.copy))

    def _judge(self, k: int) -> None:
        """Check the results of the last launch on set ``k`` in full."""
        call, result, last = self._calls[k], self._results[k], self._last[k]
        call.accept(result)
        (now,) = _numbers([self._look(call, result, last.values)])
        if now != last:
            raise Rejected(
                Status.WRONG_VALUES,
                "the outputs changed after the launch had ended: its work was left to another stream or to a thread",
            )
        verdict = (
            self._judge_elsewhere(last.values.seed, tuple(last.values.inputs), result)
            if self._judge_elsewhere
            else call.judge(result)
        )
        if not verdict.passed:
            raise FailedWhileTimed(replace(verdict, message=f"{verdict.message} (seed {last.values.seed})"))
        self._judgements += 1
        self._unjudged = False
        if last.differs:
            self._varies |= last.values.judged
        else:
            last.values.judged = True
        call.restore()
        restored = call.fingerprint(result)
        (found,) = _numbers([_Seen(last.values, restored, {}, torch.tensor(False, device=self._device))])
        states = now.initial
        self._changed |= {name for name in states if now.sums[name] != states[name]}
        self._poisoned = {
            name: each for name, each in found.sums.items() if each != now.sums[name] and name not in states
        }

    def _compare_with_others(self, values: Values) -> None:
        """After a right launch that differed from the first on the same values: that one may have been wrong, unless
        results vary. So the next one on these values takes its place."""
        if not self._varies:
            self._unexplained += values.repeated
            values.copy, values.judged, values.repeated = None, False, 0

    def _require_work(self, found: _Found) -> None:
        assert self._poisoned is not None
        for name, each in found.sums.items():
            if each == (found.initial.get(name) if name in self._changed else self._poisoned.get(name)):
                message = f"a timed launch left output {name!r} as it found it: it skipped its work"
                raise Rejected(Status.WRONG_VALUES, message)

    def _collect(self) -> list[_Found]:
        """What was enqueued since the last `compare`, as numbers. Waits for the device once."""
        found = _numbers(self._enqueued)
        self._enqueued.clear()
        return found


def _numbers(seen: list[_Seen]) -> list[_Found]:
    """Reads all numbers at once."""
    if not seen:
        return []
    rows = [torch.stack([*each.sums.values(), *each.initial.values(), each.differs.long()]) for each in seen]
    found, numbers = [], iter(torch.cat(rows).tolist())
    for each, row in zip(seen, rows, strict=True):
        *words, differs = islice(numbers, len(row))
        sums, initial = words[: len(each.sums)], words[len(each.sums) :]
        found.append(
            _Found(
                each.values, dict(zip(each.sums, sums, strict=True)), dict(zip(each.initial, initial, strict=True)),
                bool(differs),
            )
        )  # fmt: skip
    return found
