"""Audits the timed launches: a fingerprint of every launch's outputs, and a full check of a few launches.

After each launch, outside the timed interval and without waiting for the device, the audit sums the words of the
outputs. On the same values every launch must have the fingerprint of a fully checked launch. A launch that leaves an
output as it was restored has skipped its work. An implementation cannot predict which launches are checked, since
block lengths are random.

If results differ from launch to launch (sums of atomics, a random stream of its own), fingerprints cannot be compared.
Then the audit shows that every launch wrote its outputs, and that the checked ones are right.
"""

from collections.abc import Callable
from dataclasses import replace
from random import SystemRandom

import torch
from torch import Tensor

from ..agreement.agreement import GuardedCall, Rejected
from ..agreement.guarded_memory import HUGE_POISON
from ..api.operations import Agreement, Case, Implementation, Operation, Status, Tensors

MOST_SINGLE_LAUNCHES = 64
"""How many launches are checked one by one to explain a fingerprint that no fully checked launch had."""

Fingerprint = dict[str, int]
"""A number for each output of one launch."""

JudgeElsewhere = Callable[[int, tuple[str, ...], Tensors], Agreement]
"""Judges results in another process. The inputs of these names have the values of a seed; the others have those of the
case's own seed."""

_random = SystemRandom()


class FailedWhileTimed(Exception):
    """An implementation that had passed its check failed during timing. ``agreement`` says how."""

    def __init__(self, agreement: Agreement) -> None:
        super().__init__(f"{agreement.status} while timed: {agreement.message}")
        self.agreement = agreement


class LaunchAudit:
    """The launches of one implementation in one case, on one or more sets of memory with the same values.

    ``launch``, ``restore`` and ``fingerprint`` only enqueue. `launch` raises what the
    implementation raises; the other methods raise `Rejected` or `FailedWhileTimed` when it fails.
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
        self._seed = case.seed
        self._names: tuple[str, ...] = ()
        self._calls = [GuardedCall(operation, implementation, operation.make_inputs(case, device), device)]
        self._results: list[Tensors] = []
        self._enqueued: list[dict[str, Tensor]] = []
        self._last: list[Fingerprint] = []
        self._judged: Fingerprint | None = None
        self._restored: Fingerprint = {}
        self._varies = False
        self._unexplained = 0
        self._single_launches = 0
        self._unjudged = False
        self._replayed: list[Fingerprint] = []

    def add_set(self) -> None:
        """Prepare the implementation on one more copy of the inputs."""
        first = self._calls[0].inputs
        self._calls.append(GuardedCall(self._operation, self._implementation, first, self._device))

    def keep_sets(self, count: int) -> None:
        """Free all but the first ``count`` sets."""
        del self._calls[count:], self._results[count:]
        self.discard()

    @property
    def sets(self) -> int:
        return len(self._calls)

    @property
    def nbytes(self) -> int:
        """Bytes of one set."""
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

    def discard(self) -> None:
        """Discard the fingerprints since the last `compare`, of launches that were not timed."""
        self._enqueued.clear()

    def write_new_values(self) -> None:
        """Overwrite the inputs with new values, so that results cached for these addresses become wrong."""
        self._seed = _random.randrange(2**31)
        self.rewrite_values()
        self._judged = None

    def rewrite_values(self) -> None:
        """Draw and write the present values again: the same memory traffic as `write_new_values`."""
        inputs = self._operation.make_inputs(replace(self._case, seed=self._seed), self._device)
        for call in self._calls:
            if call.replace_values(inputs, HUGE_POISON):
                self._names = tuple(name for name, value in inputs.items() if isinstance(value, Tensor))

    @property
    def is_suspicious(self) -> bool:
        """Whether a launch had other results than a checked one without explanation. Then use blocks of one launch."""
        return bool(self._unexplained) and not self._varies and self._single_launches < MOST_SINGLE_LAUNCHES

    @property
    def suspicion(self) -> str | None:
        if not self._unexplained or self._varies:
            return None
        return f"{self._unexplained} timed launches gave other results than those that were checked in full"

    def compare(self) -> None:
        """Compare all launches since the last call with a fully checked one on the same values.

        Checks the last launch in full if none was checked on these values, or if its fingerprint differs. If its
        results are right although they differ, results vary from launch to launch.
        """
        found = self._collect()
        self._last, self._unjudged = found[-self.sets :], True
        if self._judged is None:
            self._judge(_random.randrange(self.sets))
        for fingerprint in found:
            self._require_work(fingerprint)
        self._single_launches += self.is_suspicious
        if not self._varies and (others := [k for k, last in enumerate(self._last) if last != self._judged]):
            self._judge(others[0])
            self._varies = True
        self._unexplained += sum(fingerprint != self._judged for fingerprint in found)

    def judge_last(self) -> None:
        """Check the results of the last launch in full, unless `compare` did."""
        if self._unjudged:
            self._judge(_random.randrange(self.sets))

    def writes_every_output(self, replay: Callable[[], object]) -> bool:
        """Whether ``replay`` of a graph of `launch` writes every output. The graph may have captured nothing."""
        self.fingerprint()  # so that `restore` also poisons the results of the capture
        self.discard()
        self.restore()
        self.fingerprint()
        replay()
        self.fingerprint()
        found = self._collect()
        untouched, self._replayed = found[: self.sets], found[self.sets :]
        return all(before != after for before, after in zip(untouched, self._replayed, strict=True))

    def ignores_inputs(self) -> Callable[[], bool]:
        """Whether the last sample, of a graph of older values on the present ones, read any input.

        Returns a function to call after the graph of the present values has passed `writes_every_output`: whether the
        old graph gave the results of the old values although those of the present values differ. It then copies
        results that Python computed, and reads no input. Always False for a sampler: sweeps with the same random
        numbers may forget the initial state, and the parameters may be prepared.
        """
        before = self._replayed
        stale = self._collect()[-self.sets :]
        return lambda: self._operation.kind == "map" and stale == before != self._replayed

    def _judge(self, k: int) -> None:
        """Check the results of the last launch on set ``k`` in full."""
        call, result = self._calls[k], self._results[k]
        call.accept(result)
        now = _numbers([call.fingerprint(result)])[0]
        if now != self._last[k]:
            raise Rejected(
                Status.WRONG_VALUES,
                "the outputs changed after the launch had ended: its work was left to another stream or to a thread",
            )
        verdict = (
            self._judge_elsewhere(self._seed, self._names, result) if self._judge_elsewhere else call.judge(result)
        )
        if not verdict.passed:
            raise FailedWhileTimed(replace(verdict, message=f"{verdict.message} (seed {self._seed})"))
        self._judged = now
        call.restore()
        self._restored = _numbers([call.fingerprint(result)])[0]
        self._unjudged = False

    def _require_work(self, fingerprint: Fingerprint) -> None:
        assert self._judged is not None
        for name, found in fingerprint.items():
            if found == self._restored[name] != self._judged[name]:
                message = f"a timed launch left output {name!r} as it found it: it skipped its work"
                raise Rejected(Status.WRONG_VALUES, message)

    def _collect(self) -> list[Fingerprint]:
        """The fingerprints since the last `compare`, as numbers. Waits for the device once."""
        found = _numbers(self._enqueued)
        self._enqueued.clear()
        return found


def _numbers(fingerprints: list[dict[str, Tensor]]) -> list[Fingerprint]:
    rows = torch.stack([torch.stack(list(each.values())) for each in fingerprints]).tolist()
    return [dict(zip(each, row, strict=True)) for each, row in zip(fingerprints, rows, strict=True)]
