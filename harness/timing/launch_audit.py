"""Proof that every timed launch did its work: a fingerprint of its outputs, and now and then a full judgement.

After each launch, outside what is timed and without waiting for the device, the words of its outputs are summed. On
the same values every launch must give the sum of a launch that was judged in full. One that leaves an output as it
was restored has skipped its work. Which launches are judged cannot be foreseen: the lengths of blocks are random.

Where results differ from launch to launch (sums of atomics, a random stream of its own) sums cannot be compared. Then
it is known of every launch that it wrote its outputs, and of the judged ones that they are right.
"""

from collections.abc import Callable
from dataclasses import replace
from random import SystemRandom

import torch
from torch import Tensor

from ..agreement.agreement import GuardedCall, Rejected
from ..agreement.guarded_memory import HUGE_POISON
from ..api.operations import Agreement, Case, Implementation, Operation, Status, Tensors

MOST_LOOKS = 64
"""How many launches are looked at one by one for the reason of a fingerprint that no judged launch had."""

Fingerprint = dict[str, int]
"""Of one launch: a number for each output."""

_random = SystemRandom()


class AgreementLost(Exception):
    """An implementation that had agreed with its reference failed while it was timed. ``agreement`` says how."""

    def __init__(self, agreement: Agreement) -> None:
        super().__init__(f"{agreement.status} while timed: {agreement.message}")
        self.agreement = agreement


class Watch:
    """The launches of one implementation in one case: each on memory of its own, all on the same values.

    ``launch``, ``restore`` and ``fingerprint`` only enqueue. All raise `Rejected` or `AgreementLost` when the
    implementation fails.
    """

    def __init__(self, operation: Operation, implementation: Implementation, case: Case, device: torch.device) -> None:
        self._operation, self._implementation, self._case, self._device = operation, implementation, case, device
        self._seed = case.seed
        self._calls = [GuardedCall(operation, implementation, operation.make_inputs(case, device), device)]
        self._results: list[Tensors] = []
        self._enqueued: list[dict[str, Tensor]] = []
        self._last: list[Fingerprint] = []
        self._right: Fingerprint | None = None
        self._untouched: Fingerprint = {}
        self._varies = False
        self._unexplained = 0
        self._looks = 0
        self._unjudged = False

    def add_set(self) -> None:
        """Prepares the implementation on one more copy of the inputs."""
        first = self._calls[0].inputs
        self._calls.append(GuardedCall(self._operation, self._implementation, first, self._device))

    @property
    def sets(self) -> int:
        return len(self._calls)

    @property
    def nbytes(self) -> int:
        """Of one set."""
        return self._calls[0].nbytes

    def launch(self) -> None:
        """One launch on each set."""
        self._results = [call.launch() for call in self._calls]

    def restore(self) -> None:
        for call in self._calls:
            call.restore()

    def fingerprint(self) -> None:
        for call, result in zip(self._calls, self._results, strict=True):
            self._enqueued.append(call.fingerprint(result))

    def forget(self) -> None:
        """What was launched since the last `look` was not timed."""
        self._enqueued.clear()

    def new_values(self) -> None:
        """Other values where the present ones lie: no answer that is kept for these addresses is right any more."""
        self._seed = _random.randrange(2**31)
        self.same_values()
        self._right = None

    def same_values(self) -> None:
        """Draws and writes the present values again: to memory and caches the same as `new_values`."""
        inputs = self._operation.make_inputs(replace(self._case, seed=self._seed), self._device)
        for call in self._calls:
            call.replace_values(inputs, HUGE_POISON)

    @property
    def suspects(self) -> bool:
        """A launch gave other results than a judged one, and it is not known why: look at each launch by itself."""
        return bool(self._unexplained) and not self._varies and self._looks < MOST_LOOKS

    @property
    def suspicion(self) -> str | None:
        if not self._unexplained or self._varies:
            return None
        return f"{self._unexplained} timed launches gave other results than those that were judged"

    def look(self) -> None:
        """Compares all launches since the last look with one that was judged on the same values.

        The last launch is judged now where none was on these values, and where its results are not those of the
        judged one. If they are right too, then results vary from launch to launch.
        """
        found = self._collect()
        self._last, self._unjudged = found[-self.sets :], True
        if self._right is None:
            self._judge(_random.randrange(self.sets))
        for fingerprint in found:
            self._require_work(fingerprint)
        self._looks += self.suspects
        if not self._varies and (others := [k for k, last in enumerate(self._last) if last != self._right]):
            self._judge(others[0])
            self._varies = True
        self._unexplained += sum(fingerprint != self._right for fingerprint in found)

    def judge_last(self) -> None:
        """Judges in full what the last launch left, if `look` has not done so."""
        if self._unjudged:
            self._judge(_random.randrange(self.sets))

    def does_its_work(self, replay: Callable[[], object]) -> bool:
        """True where ``replay``, of a graph of `launch`, writes every output: it may have captured nothing."""
        self.fingerprint()  # so that restoring knows the results of the capture
        self.forget()
        self.restore()
        self.fingerprint()
        replay()
        self.fingerprint()
        found = self._collect()
        untouched, replayed = found[: self.sets], found[self.sets :]
        return all(before != after for before, after in zip(untouched, replayed, strict=True))

    def _judge(self, k: int) -> None:
        """Judges in full what the last launch on set ``k`` left."""
        call, result = self._calls[k], self._results[k]
        call.accept(result)
        now = _numbers([call.fingerprint(result)])[0]
        if now != self._last[k]:
            raise Rejected(
                Status.WRONG_VALUES,
                "the outputs changed after the launch had ended: its work was left to another stream or to a thread",
            )
        verdict = call.judge(result)
        if not verdict.passed:
            raise AgreementLost(replace(verdict, message=f"{verdict.message} (seed {self._seed})"))
        self._right = now
        call.restore()
        self._untouched = _numbers([call.fingerprint(result)])[0]
        self._unjudged = False

    def _require_work(self, fingerprint: Fingerprint) -> None:
        assert self._right is not None
        for name, found in fingerprint.items():
            if found == self._untouched[name] != self._right[name]:
                message = f"a timed launch left output {name!r} as it found it: it skipped its work"
                raise Rejected(Status.WRONG_VALUES, message)

    def _collect(self) -> list[Fingerprint]:
        """The fingerprints since the last look, as numbers: waits for the device, once."""
        found = _numbers(self._enqueued)
        self._enqueued.clear()
        return found


def _numbers(fingerprints: list[dict[str, Tensor]]) -> list[Fingerprint]:
    rows = torch.stack([torch.stack(list(each.values())) for each in fingerprints]).tolist()
    return [dict(zip(each, row, strict=True)) for each, row in zip(fingerprints, rows, strict=True)]
