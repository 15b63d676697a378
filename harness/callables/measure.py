"""`measure`: checks and times one callable in this process, as `bench` does with a registered kernel."""

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib import metadata
from time import monotonic
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ..agreement.agreement import Rejected
from ..agreement.device_memory import free_caches, is_out_of_memory
from ..api.messages import describe_error, printable
from ..api.operations import Agreement, Case, Status
from ..api.records import Measurement
from ..discovery.registry import ENTRY_POINT_GROUP, PLUGINS_VARIABLE, load_registry
from ..discovery.time_limit import TookTooLong, limited_to
from ..execution.trial import Trial, TrialFailed
from ..results.environment import describe
from ..timing.cpu_clock import last_level_cache
from ..timing.roofline import ceilings_of, with_share
from ..timing.stopwatch import TimingProtocol, protocol_for
from .bounds import Bound
from .call import Call, make_call, name_of, names_for
from .measured import Measured
from .request import Mode, Request

SLOW_CALLS = 3
"""A call of which fewer fit into the longest sampling is sampled one by one, so that an interruption loses one."""

CEILINGS = "ceilings"
"""The plugin that measures the limits. Others are not imported, unless the environment names those to read."""


def measure(
    fn: Callable[..., Any],
    /,
    *args: Any,
    reference: Callable[..., Any] | None = None,
    bound: Bound | float | None = None,
    bytes: float | None = None,
    flops: float | None = None,
    backward: bool = False,
    mode: Mode = "cold",
    keep: Sequence[str] = (),
    seconds: float | None = None,
    time_limit: float = 300.0,
    timed: bool = True,
    isolated: bool = False,
    **kwargs: Any,
) -> Measured:
    """Check ``fn(*args, **kwargs)`` against ``reference``, then time it with the clocks and the audit of `bench`.

    Arguments and results are any pytrees of tensors; the work is done on the device of the arguments. ``fn`` gets
    copies of them, with other values in each launch: floating-point tensors are scaled, those of whole numbers and
    those named in ``keep`` stay. What ``fn`` changes in place is restored before each launch.

    - ``reference`` gets the same arguments in float64. Without it the result says "unchecked".
    - ``bound`` is an absolute error, or from `bound`. By default it follows from the dtype of each result and the
      number of input elements that a result of the reference depends on.
    - ``bytes`` and ``flops`` are the least work, for rates and the share of the device's limit. By default all
      arguments and results are moved once.
    - ``backward`` times and checks forward and backward together: results and gradients with respect to the
      floating-point arguments that require one, or to all if none does.
    - ``mode``: ``cold`` flushes the caches before each sample, ``hot`` does not.
    - ``seconds`` limits the sampling, by default to 5 s on a GPU and 2 s on a CPU; ``time_limit`` limits everything.
      What was measured until then is kept.
    - ``timed=False`` only checks.
    - ``isolated`` does all this in another process, whose crash is a verdict like others. ``fn`` must be importable.

    What is wrong with ``fn`` becomes the verdict of the result. Raises TypeError or ValueError for arguments, a
    reference or an option that cannot be used. A keyword of ``fn`` with the name of an option must be bound to it.
    """
    request = Request(reference, bound, bytes, flops, backward, mode, keep, seconds, time_limit, timed)
    if isolated:
        from .isolated import compared_in_a_process

        name = name_of(fn)
        return compared_in_a_process({name: fn}, args, kwargs, request)[name]
    return measured(fn, args, kwargs, request)


def measured(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], request: Request) -> Measured:
    """What `measure` returns, from this process."""
    attempt = Attempt(fn, args, kwargs, request, names_for(fn, request))
    run([attempt], request)
    return attempt.result()


class Attempt:
    """One callable on its way: ``check``, then ``start`` and ``take_block`` as for a `Trial`, and ``result``."""

    def __init__(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        request: Request,
        names: tuple[str, str],
        samples_per_block: int | None = None,
    ) -> None:
        self._fn, self._args, self._kwargs, self._request, self._names = fn, args, kwargs, request, names
        self._samples_per_block = samples_per_block
        self._call: Call | None = None
        self._trial: Trial | None = None
        self._agreement: Agreement | None = None
        self._measurement: Measurement | None = None
        self._limit = f"the time limit of {request.time_limit:g} s"
        self.rounds: list[list[float]] = []
        self.needs_more = False

    @property
    def name(self) -> str:
        return self._names[1]

    def on_device(self) -> AbstractContextManager[object]:
        """Make the GPU of the arguments current, if they are on one."""
        devices = [each.device for each in tree_leaves((self._args, self._kwargs)) if isinstance(each, torch.Tensor)]
        gpus = [each for each in devices if each.type == "cuda"]
        return torch.cuda.device(gpus[0]) if gpus else nullcontext()

    def check(self, until: float) -> None:
        """Decide on the verdict, and be ready to be timed if that is `needs_more`."""
        try:
            with limited_to(_left(until)):
                self._call = call = make_call(self._fn, self._args, self._kwargs, self._request, self._names)
                self._trial = Trial(call.step, call.device, protocol=self._protocol(call))
                self._agreement = self._trial.verdict(draws=1)
        except Rejected as rejected:
            self._agreement = rejected.agreement
        except TookTooLong:
            self._agreement = Agreement(
                Status.TIMEOUT, f"its check was not done within {self._limit}{self._one_call()}"
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            words = f"no memory for the copies that a check needs: {describe_error(error)}"
            self._agreement = Agreement(Status.OUT_OF_MEMORY, words)
        self.needs_more = self._agreement.passed and self._untimed() == ""

    def start(self, until: float) -> None:
        assert self._trial is not None
        self._advance(until, lambda trial: trial.start(self._request.mode))

    @property
    def can_go_on(self) -> bool:
        """Whether another block is possible, needed or not."""
        return self._trial is not None and self._measurement is None and not self._trial.is_exhausted

    def take_block(self, until: float) -> None:
        """One round of samples."""
        assert self._trial is not None
        before = len(self._trial.samples)

        def take(trial: Trial) -> None:
            self.needs_more = trial.take_block().more
            self.rounds.append(list(trial.samples[before:]))

        self._advance(until, take)

    def finish(self) -> None:
        """End the sampling, and check the last launch."""
        if self._trial is not None and self._trial.samples:
            try:
                self._measurement = self._trial.finish()
            except TrialFailed as failed:
                self._fail(failed)

    def result(self) -> Measured:
        assert self._agreement is not None
        call, passed = self._call, self._agreement.passed
        case = call.step.subject if call else None
        measurement = self._measurement if passed else None
        return Measured(
            self._names[1],
            self._names[0],
            (case.label if isinstance(case, Case) and self._request.sizes else call.label) if call else "",
            self._agreement,
            str(call.device) if call else "",
            checked=call.checked if call else self._request.reference is not None,
            measurement=with_limits(measurement, call) if measurement and call else None,
            untimed=self._untimed() if passed else "",
            notes=call.notes if call else (),
            sizes=self._request.sizes,
            dtype=case.dtype if isinstance(case, Case) else "",
            fn=self._fn,
        )

    @property
    def ran_out_of_memory(self) -> bool:
        return self._agreement is not None and self._agreement.status is Status.OUT_OF_MEMORY

    def give_back(self) -> None:
        """Free the memory of the trial, and put back what the harness overwrote."""
        self._trial = None
        if self._call is not None:
            self._call.give_back()

    def _advance(self, until: float, act: Callable[[Trial], None]) -> None:
        assert self._trial is not None
        try:
            with limited_to(_left(until)):
                act(self._trial)
            if monotonic() >= until and self.needs_more:
                raise TookTooLong
        except TrialFailed as failed:
            self._fail(failed)
            self._stop()
        except TookTooLong:
            if self._trial.samples:
                reason = f"broken off by {self._limit} after {len(self._trial.samples)} samples"
                self._measurement = self._trial.break_off(reason)
            else:
                words = f"agrees, but no sample was taken within {self._limit}{self._one_call()}"
                self._agreement = Agreement(Status.TIMEOUT, words)
            self._stop()

    def _fail(self, failed: TrialFailed) -> None:
        record = failed.record
        words = record.message.removeprefix(f"{record.status} ")  # before "while timed"
        self._agreement = Agreement(record.status, words, record.error, record.bound)

    def _stop(self) -> None:
        self.needs_more, self._trial = False, None

    def _untimed(self) -> str:
        if self._call and self._call.interpreted:
            return f"{self._call.interpreted}: correctness only"
        return "" if self._request.timed else "as asked"

    def _one_call(self) -> str:
        return f"; one call takes {self._call.seconds:.3g} s" if self._call else ""

    def _protocol(self, call: Call) -> TimingProtocol:
        """The protocol of `bench` on this device, within the seconds that were asked for."""
        standard = protocol_for(call.device)
        longest = self._request.seconds or standard.longest_seconds
        protocol = replace(
            standard,
            longest_seconds=longest,
            shortest_seconds=min(standard.shortest_seconds, longest),
            warm_up_seconds=min(standard.warm_up_seconds, longest / 2),
            longest_warm_up_seconds=min(standard.longest_warm_up_seconds, longest),
            # Launches of one sample that write to one memory would overwrite each other's results.
            most_launches=1 if call.borrowed else standard.most_launches,
        )
        if SLOW_CALLS * call.seconds > longest:
            return replace(
                protocol,
                samples_per_block=1,
                fewest_samples_if_slow=1,
                longest_seconds=(SLOW_CALLS + 0.5) * call.seconds,
                warm_up_calls=1,
            )
        if self._samples_per_block:
            return replace(protocol, samples_per_block=self._samples_per_block)
        return protocol


def run(attempts: Sequence[Attempt], request: Request, announce: Callable[[str], object] = lambda name: None) -> None:
    """Check the callables, which have the same arguments, one after another. Then time those that agree, block by block
    in turns.

    All go on as long as one needs more samples, so that most rounds have samples of each. The order within a round
    changes from round to round. ``announce`` gets the name of each before it runs.
    """

    def turns(those: Iterable[Attempt]) -> Iterator[Attempt]:
        for each in those:
            announce(each.name)
            yield each

    until = monotonic() + request.time_limit
    try:
        with attempts[0].on_device():
            for each in turns(attempts):
                each.check(until)
            running = [each for each in attempts if each.needs_more]
            for each in turns(running):
                each.start(until)
            turn = 0
            while any(each.needs_more for each in running):
                turn = (turn + 1) % len(running)
                for each in turns(each for each in (*running[turn:], *running[:turn]) if each.can_go_on):
                    each.take_block(until)
            for each in turns(running):
                each.finish()
    finally:
        for each in attempts:
            each.give_back()
        if any(each.ran_out_of_memory for each in attempts):
            gc.collect()  # the frames of an error refer to tensors
            free_caches()


def with_limits(measurement: Measurement, call: Call) -> Measurement:
    """The measurement with its binding limit, and its share of that."""
    cost = call.cost
    if not (cost.bytes_read or cost.bytes_written or cost.flops):
        return measurement
    rates = limits_of(call.device)
    if cost.flops and rates.get(f"{cost.matrix_dtype} matrix", 0.0) > rates.get("fma", 0.0):
        cost = replace(cost, matrix_flops=cost.flops)  # the fastest unit that may have done them
    found = with_share(measurement, cost, rates, cache_bytes(call.device))
    if call.counted and len(found.suspicions) > len(measurement.suspicions):
        hint = f"{found.suspicions[-1]}, if it reads each argument once: give bytes= if it reads less"
        found = replace(found, suspicions=(*measurement.suspicions, hint))
    return found


def cache_bytes(device: torch.device) -> int:
    """Bytes of the last-level cache of the device."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else last_level_cache()


@functools.cache
def limits_of(device: torch.device) -> dict[str, float]:
    """The rate of each resource of the device, measured once on a machine, then cached there.

    What cannot be measured has no rate, and a line on standard error says why."""
    found = None
    if not os.environ.get(PLUGINS_VARIABLE):
        found = list(metadata.entry_points(group=ENTRY_POINT_GROUP, name=CEILINGS))
    registry = load_registry(found)

    def announce() -> None:
        words = f"boltzbench measures the limits of {device}, once for this machine and software: a minute or two"
        print(words, file=sys.stderr, flush=True)

    rates, problems = ceilings_of(registry.ceilings, device, describe(device), announce)
    for problem in (*registry.problems, *problems):
        print(printable(f"problem: {problem}"), file=sys.stderr, flush=True)
    return rates


def _left(until: float) -> float:
    return max(until - monotonic(), 0.001)
