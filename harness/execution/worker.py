"""Implementations in processes of their own, so that a crash, a hang or an exit in one is its status and no more.

The parent asks, a worker answers: `RemoteTrial` passes each question of a trial on. Between question and answer a
worker tells the phases that it enters. The parent waits for so long; then it kills the worker.
"""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, cast

import torch

from ..api.experiments import Experiment
from ..api.messages import describe_error
from ..api.operations import Agreement, Case, Law, Status
from ..api.records import Measurement, Outcome, Record, Standing
from ..api.samplers import Sampler, Target
from ..discovery.registry import PLUGINS_VARIABLE, load_registry
from ..results.environment import describe
from ..timing.clocks import clock_for
from ..timing.roofline import ceilings_of
from ..validation.standing import standings
from .plan import Mode, Step
from .process import prepare_process_for
from .trial import Announce, Block, Failed, Trial, record_of

STARTING_SECONDS = 120.0
"""How long a worker may take to import torch and the plugins, on a busy machine."""

LIMITS_SECONDS = 600.0
"""How long the measuring of all ceilings may take."""

_processes = multiprocessing.get_context("forkserver")
"""A worker starts from a server that has imported torch and touched neither a GPU nor a plugin: fresh, and at once."""

Key = tuple[str, str, str, bool, int]
"""What names a step in another process: operation, implementation, label, whether it is a law, seed."""


class WorkerDied(Exception):
    """A worker gave no answer. ``status`` is ``error`` or ``timeout``, the message says what became of it."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class Workers:
    """A worker for each implementation of the operation at hand. ``announce`` is told their phases.

    ``time_limit`` is how many seconds one answer may take: a verdict, a warm-up, a block of samples. The workers load
    ``plugins`` alone, by name: not those that could not be loaded here, of which one may hang.
    """

    def __init__(self, device: torch.device, announce: Announce, time_limit: float, plugins: Iterable[str]) -> None:
        _processes.set_forkserver_preload([__name__])
        with _without_ctrl_c():  # else the server would show its own traceback
            forkserver.ensure_running()
        self._device, self._announce, self._time_limit = device, announce, time_limit
        self._environment = {**os.environ, PLUGINS_VARIABLE: ",".join(plugins)}
        self._workers: dict[tuple[str, str], _Worker] = {}

    def trial(self, step: Step) -> "RemoteTrial":
        """The trial of ``step``. The workers of other operations are no longer needed and end."""
        for operation, implementation in list(self._workers):
            if operation != step.operation.name:
                self._workers.pop((operation, implementation)).end()
        return RemoteTrial(step, self)

    def limits(self) -> tuple[dict[str, float], dict[str, float], tuple[str, ...]]:
        """What measuring costs on this device, the device's ceilings, and what went wrong, in words."""
        costs: dict[str, float] = {}
        try:
            worker = _Worker(self._device, self._announce, LIMITS_SECONDS, self._environment)
            self._announce("limits")
            try:
                costs = worker.ask("overheads")
                rates, problems = worker.ask("ceilings")
            finally:
                worker.end()
        except WorkerDied as lost:
            return costs, {}, (f"the limits of {self._device} could not be measured: {lost}",)
        return costs, rates, tuple(problems)

    def ask(self, step: Step, question: str, *arguments: Any) -> Any:
        """The answer of the step's worker. Raises `Failed`, after which the next step gets a new worker."""
        names = step.operation.name, step.implementation.name
        try:
            if names not in self._workers:
                self._workers[names] = self._new()
            return self._workers[names].ask(question, *arguments)
        except WorkerDied as lost:
            if names in self._workers:
                self._workers.pop(names).end()
            raise Failed(record_of(step, Agreement(lost.status, str(lost)))) from lost
        except Failed as failed:
            self.distrust_after(failed.record)
            raise
        finally:
            self._announce("harness")

    def distrust_after(self, record: Record) -> None:
        """An error on a GPU may leave its process unable to use the GPU again: the next step gets a new worker."""
        worker = self._workers.get((record.operation, record.implementation))
        if worker and record.status is Status.ERROR and self._device.type == "cuda":
            del self._workers[record.operation, record.implementation]
            worker.end()

    def standings(self, sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        """How a sampler stands on a target. The workers of other samplers end. Raises `WorkerDied`."""
        names = "sampler", sampler.name
        found: list[Standing] = self._only(names, "standings", sampler.name, target.name, seed)
        if self._device.type == "cuda" and any(each.status is Status.ERROR for one in found for each in one.claims):
            self._workers.pop(names).end()
        return found

    def outcome(self, experiment: Experiment, seed: int) -> Outcome:
        """What becomes of an experiment: they share a worker, and all others end. Raises `WorkerDied`."""
        found: Outcome = self._only(("experiments", ""), "conduct", experiment.name, seed)
        return found

    def _only(self, names: tuple[str, str], question: str, *arguments: Any) -> Any:
        """The answer of the worker so named, the others being ended."""
        for other in [each for each in self._workers if each != names]:
            self._workers.pop(other).end()
        try:
            if names not in self._workers:
                self._workers[names] = self._new()
            return self._workers[names].ask(question, *arguments)
        except WorkerDied:
            if names in self._workers:
                self._workers.pop(names).end()
            raise

    def close(self) -> None:
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def _new(self) -> "_Worker":
        return _Worker(self._device, self._announce, self._time_limit, self._environment)


class RemoteTrial:
    """A `Trial` that a worker carries out."""

    def __init__(self, step: Step, workers: Workers) -> None:
        self.step = step
        self._workers = workers

    def judge(self, draws: int) -> Record:
        step = self.step
        key: Key = step.operation.name, step.implementation.name, step.label, isinstance(step.subject, Law), step.seed
        try:
            record: Record = self._workers.ask(step, "judge", key, draws)
        except Failed as failed:
            return failed.record
        self._workers.distrust_after(record)
        return record

    def start(self, mode: Mode) -> None:
        self._workers.ask(self.step, "start", mode)

    def take_block(self) -> Block:
        return cast(Block, self._workers.ask(self.step, "take_block"))

    def finish(self) -> Measurement:
        return cast(Measurement, self._workers.ask(self.step, "finish"))


class _Worker:
    """One process and the connection to it."""

    def __init__(
        self, device: torch.device, announce: Announce, time_limit: float, environment: Mapping[str, str]
    ) -> None:
        self._announce, self._time_limit = announce, time_limit
        announce("start")
        self._connection, theirs = _processes.Pipe()
        self._process = _processes.Process(target=_serve, args=(theirs, device, environment), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer(STARTING_SECONDS)
        except BaseException:
            self.end()
            raise

    def ask(self, question: str, *arguments: Any) -> Any:
        with suppress(OSError):  # it may have died meanwhile: the answer says how
            self._connection.send((question, *arguments))
        return self._answer(self._time_limit)

    def _answer(self, seconds: float) -> Any:
        deadline = monotonic() + seconds
        while True:
            try:
                if not self._connection.poll(max(0.0, deadline - monotonic())):
                    raise WorkerDied(Status.TIMEOUT, f"no answer within {seconds:g} s: stopped")
                kind, content = self._connection.recv()
            except (EOFError, OSError):
                raise WorkerDied(Status.ERROR, self._exit_reason()) from None
            if kind == "answer":
                return content
            if kind == "failed":
                raise Failed(content)
            if kind == "broken":
                raise WorkerDied(Status.ERROR, content)
            self._announce(content)

    def _exit_reason(self) -> str:
        self._process.join(10)
        code = self._process.exitcode
        if code is None:
            return "its process closed the connection to the harness"
        if code >= 0:
            return f"its process exited with status {code}"
        number = signal.Signals(-code)
        hint = " (out of memory?)" if number is signal.SIGKILL else ""
        return f"its process crashed: {number.name}, {signal.strsignal(number)}{hint}"

    def end(self) -> None:
        """Kill the process and whatever it has started."""
        self._connection.close()
        pid = self._process.pid
        if pid is not None and self._process.exitcode is None:
            try:
                os.killpg(pid, signal.SIGKILL)  # its own group: see _serve
            except ProcessLookupError:  # not yet its own group, or gone
                self._process.kill()
        self._process.join()
        self._process.close()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, device: torch.device, environment: Mapping[str, str]) -> None:
    """The worker: answers until the parent closes the connection, or dies."""
    os.setsid()  # Ctrl-C is the parent's to handle; and a group of its own to be killed by
    # The server ends when nobody holds this any more. It is handed to every child, and a worker that hangs would keep
    # the server, and thus itself, alive after the parent's death.
    with suppress(AttributeError, OSError):
        os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    with suppress(AttributeError, OSError):  # where the system has no such call, a worker does without
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a hanging kernel must not outlive the run
    os.environ.clear()
    os.environ.update(environment)
    try:
        _answer_all(connection, device)
    except Exception as error:  # the harness's own, or of a device that is gone
        connection.send(("broken", f"its process broke down: {describe_error(error)}"))


def _answer_all(connection: Connection, device: torch.device) -> None:
    prepare_process_for(device)
    registry = load_registry()

    def announce(phase: str) -> None:
        connection.send(("phase", phase))

    def find(key: Key) -> Step:
        operation_name, implementation_name, label, is_law, seed = key
        operation = registry.operations[operation_name]
        subjects: tuple[Case | Law, ...] = operation.laws if is_law else operation.cases
        for implementation in registry.implementations_of(operation_name):
            for subject in subjects:
                step = Step(operation, implementation, subject, seed)
                if implementation.name == implementation_name and step.label == label:
                    return step
        raise LookupError(f"{implementation_name} of {operation_name}, {label}: gone when the plugins were loaded anew")

    trial: Trial | None = None
    connection.send(("answer", None))
    while True:
        try:
            question, *arguments = connection.recv()
        except (EOFError, OSError):  # the parent is done, or dead
            return
        try:
            answer: Any
            if question == "judge":
                key, draws = arguments
                trial = Trial(find(key), device, announce)
                answer = trial.judge(draws)
            elif question == "standings":
                sampler, target, seed = arguments
                answer = standings(registry.samplers[sampler], registry.targets[target], device, seed, announce)
            elif question == "conduct":
                from ..validation.experiments import (
                    conduct,  # here, as it takes scipy, which other workers need not wait for
                )

                experiment, seed = arguments
                answer = conduct(registry.experiments[experiment], device, seed)
            elif question == "overheads":
                answer = clock_for(device).overheads()
            elif question == "ceilings":
                answer = ceilings_of(registry.ceilings, device, describe(device))
            else:
                answer = getattr(trial, question)(*arguments)
            reply = "answer", answer
        except Failed as failed:
            reply = "failed", failed.record
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what this process keeps, the others cannot have
        connection.send(reply)
