"""What a worker does: it runs implementations on the memory of a referee, times them, and runs samplers."""

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from ..agreement.agreement import Rejected, reject_on_error, require_form, same_place
from ..agreement.device_memory import free_caches
from ..api.messages import describe_error
from ..api.operations import Agreement, Implementation, Launch, Status, Tensors
from ..api.records import Standing
from ..discovery.axes import with_other_sizes
from ..discovery.registry import OtherSizes, load_registry
from ..results.environment import describe
from ..timing.clocks import clock_for
from ..timing.peers import reference_seconds
from ..timing.roofline import ceilings_of
from ..validation.standing import standings, timed
from .child import Failed, answer_all
from .plan import Mode, Step, find_subject
from .process import Defaults, prepare_to_run_kernels
from .shared_memory import Shared, SharedMemory, attach
from .trial import Trial, TrialFailed

Key = tuple[str, str, str, bool, int]
"""Identifies a step in another process: operation, implementation, label, whether it is a law, seed."""


def serve(connection: Connection, given: tuple[torch.device, int, OtherSizes | None]) -> None:
    """Answer the parent's questions, in a process that has imported the plugins of an implementation.

    ``given``: the device, the number of torch's threads, 0 for all, and the cases that take the place of the
    operations' own.
    """
    device, threads, other_sizes = given
    prepare_to_run_kernels(device)
    if threads:
        torch.set_num_threads(threads)
    worker = _Worker(connection, device, other_sizes)

    def answer(question: str, *arguments: Any) -> Any:
        found: Any = getattr(worker, question)(*arguments)
        return found

    def free() -> None:
        if device.type == "cuda":
            free_caches()  # other processes need the memory

    answer_all(connection, answer, free)


def time_reference(connection: Connection, device: torch.device) -> None:
    """Answer each question with the times of fixed work on the device, in a process without plugins."""
    prepare_to_run_kernels(device)
    answer_all(connection, lambda question: reference_seconds(device))


class _Worker:
    def __init__(self, connection: Connection, device: torch.device, other_sizes: OtherSizes | None = None) -> None:
        self._connection, self._device = connection, device
        self._registry = with_other_sizes(load_registry(), other_sizes)
        self._defaults = Defaults.of_process()
        self._memory = SharedMemory()  # of the last answer
        self._trial: Trial | None = None
        self._inputs: dict[str, Any] = {}
        self._outputs: Tensors = {}
        self._launch: Launch | None = None

    # For a referee

    def unavailable(self, operation: str, name: str) -> str | None:
        """Why an implementation cannot run on the device."""
        try:
            reason = self._implementation(operation, name).unavailable(self._device)
        except (Exception, SystemExit) as error:
            words = f"unavailable() raised {describe_error(error)}"
            raise Failed(Agreement(Status.ERROR, words)) from error
        return None if reason is None else str(reason)

    def prepare(
        self, operation: str, name: str, tensors: Mapping[str, Shared], others: bytes, outputs: Mapping[str, Shared]
    ) -> None:
        """Prepare an implementation on the memory of a referee."""
        self._memory.close()
        self._launch = None
        self._inputs = {key: attach(shared) for key, shared in tensors.items()} | pickle.loads(others)
        self._outputs = {key: attach(shared) for key, shared in outputs.items()}
        with _failing():
            with reject_on_error(may_refuse=True):
                launch = self._implementation(operation, name).prepare(self._inputs, dict(self._outputs))
                if not callable(launch):
                    raise TypeError(f"prepare returned {launch!r}, which cannot be called")
            self._require_defaults()
        self._launch = launch

    def launch(self, operation: str, name: str, others: bytes | None) -> dict[str, Shared | None]:
        """Launch what was prepared: where each result lies, None for the memory of the output."""
        self._memory.close()
        if others:
            self._inputs.update(pickle.loads(others))
        assert self._launch is not None
        # The referee has written to them, which torch does not see: who keeps tables compares versions.
        tensors = [each for each in (*self._inputs.values(), *self._outputs.values()) if isinstance(each, torch.Tensor)]
        torch.autograd.graph.increment_version(tensors)
        with _failing():
            with reject_on_error():
                result = self._launch()
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
            require_form(result, self._outputs)
            self._require_defaults()
        return {
            key: None if same_place(result[key], ours) else self._memory.copy(result[key])
            for key, ours in self._outputs.items()
        }

    def _require_defaults(self) -> None:
        if change := self._defaults.change():
            self._spoilt(change)
            raise Rejected(Status.ERROR, f"it changed {change}, which others in the process rely on")

    def _spoilt(self, what: str) -> None:
        """Tell the parent to ask this process nothing more."""
        self._connection.send(("spoilt", what))

    def rest(self) -> None:
        """Forget what was prepared, before another step."""
        self._launch, self._inputs, self._outputs = None, {}, {}
        self._memory.close()
        if Defaults.threads() > self._defaults.running:
            self._spoilt("the threads of the process")

    def build(self, names: list[tuple[str, str]]) -> None:
        """Compile at once, on all cores, what these implementations would compile one after another."""
        builds: dict[Callable[[], object], None] = {}
        for operation, name in names:
            each = self._implementation(operation, name)
            try:
                if each.build and each.unavailable(self._device) is None:
                    builds[each.build] = None
            except (Exception, SystemExit):  # its check reports it
                continue
        self._connection.send(("phase", ("compile", len(builds))))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for build in builds:
                pool.submit(build)

    # Judged and timed here

    def verdict(self, key: Key, draws: int) -> Agreement:
        """The verdict of this process, on a device whose memory no referee shares."""
        self._trial = Trial(self._find(key), self._device, self._announce)
        return self._trial.verdict(draws)

    def start(self, key: Key, mode: Mode, referee: bool) -> None:
        """Begin to time, what another process may have judged."""
        elsewhere = self._judge_elsewhere if referee else None
        self._trial = Trial(self._find(key), self._device, self._announce, judge_elsewhere=elsewhere)
        self._timing("start", mode)

    def take_block(self) -> tuple[bool, list[float]]:
        """Whether more blocks are needed, and the new samples."""
        assert self._trial is not None
        before = len(self._trial.samples)
        more = self._timing("take_block").more
        return more, list(self._trial.samples[before:])

    def finish(self) -> Any:
        return self._timing("finish")

    def _timing(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._trial, method)(*arguments)
        except TrialFailed as failed:
            record = failed.record
            of = record.status, record.message, record.error, record.bound, record.p_value
            raise Failed(Agreement(*of)) from failed

    def _judge_elsewhere(self, seed: int, names: tuple[str, ...], results: Tensors) -> Agreement:
        self._memory.close()
        shared = {name: self._memory.copy(result.cpu()) for name, result in results.items()}
        self._connection.send(("please", "results", seed, names, shared))
        verdict: Agreement = self._connection.recv()
        return verdict

    # Without a step

    def standings(self, sampler: str, target: str, seed: int) -> Any:
        samplers, targets = self._registry.samplers, self._registry.targets
        return standings(samplers[sampler], targets[target], self._device, seed, self._announce)

    def timed(self, found: Sequence[Standing], sampler: str, target: str, seed: int) -> Any:
        samplers, targets = self._registry.samplers, self._registry.targets
        return timed(found, samplers[sampler], targets[target], self._device, seed, self._announce)

    def conduct(self, experiment: str, seed: int) -> Any:
        from ..validation.experiments import conduct  # here, because scipy is slow to import

        return conduct(self._registry.experiments[experiment], self._device, seed)

    def overheads(self) -> dict[str, float]:
        return clock_for(self._device).overheads()

    def ceilings(self) -> Any:
        return ceilings_of(self._registry.ceilings, self._device, describe(self._device))

    def _announce(self, phase: Any) -> None:
        self._connection.send(("phase", phase))

    def _implementation(self, operation: str, name: str) -> Implementation:
        for each in self._registry.implementations_of(operation):
            if each.name == name:
                return each
        raise self._missing(f"{name} of {operation}")

    def _missing(self, what: str) -> LookupError:
        """What to raise for what the command knows and this process does not, with the plugins that failed here."""
        words = [f"{what}: missing in the worker's plugins", *self._registry.problems]
        return LookupError("; ".join(words))

    def _find(self, key: Key) -> Step:
        operation_name, name, label, is_law, seed = key
        operation = self._registry.operations.get(operation_name)
        if operation is None:
            raise self._missing(operation_name)
        subject = find_subject(operation, label, is_law)
        return Step(operation, self._implementation(operation_name, name), subject, seed)


@contextmanager
def _failing() -> Iterator[None]:
    """Turns `Rejected` into `Failed`."""
    try:
        yield
    except Rejected as rejected:
        raise Failed(rejected.agreement) from rejected
