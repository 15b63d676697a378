"""Runs implementations in worker processes, so that a crash, a hang or an exit becomes the status of one step.

The parent sends a question and the worker an answer: `RemoteTrial` forwards the methods of a trial. Before the answer
the worker sends the phases that it enters. If the answer takes too long, the parent kills the worker.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, cast

import torch

from ..agreement.device_memory import free_caches
from ..api.experiments import Experiment
from ..api.messages import describe_error
from ..api.operations import Agreement, Case, Law, Status
from ..api.records import Measurement, Outcome, Record, Standing
from ..api.samplers import Sampler, Target
from ..discovery.registry import PLUGINS_VARIABLE, load_registry
from ..results.environment import describe, is_exclusive
from ..timing.clocks import clock_for
from ..timing.roofline import ceilings_of
from ..validation.progress import CurrentClaim
from ..validation.standing import standings, timed
from .plan import Mode, Step
from .process import prepare_to_run_kernels
from .trial import AnnouncePhase, Block, Trial, TrialFailed, record_of

STARTING_SECONDS = 120.0
"""Time limit for a worker to import torch and the plugins on a busy machine."""

LIMITS_SECONDS = 600.0
"""Time limit for measuring all ceilings."""

_processes = multiprocessing.get_context("forkserver")
"""Workers fork from a server that has imported torch, but no plugin, and has not used a GPU."""

_starting = threading.Lock()
"""Held while a process starts: multiprocessing keeps a list of all of them."""

Key = tuple[str, str, str, bool, int]
"""Identifies a step in another process: operation, implementation, label, whether it is a law, seed."""


class WorkerDied(Exception):
    """A worker gave no answer. ``status`` is ``error`` or ``timeout``; the message says what happened to it."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class Workers:
    """A worker for each implementation of the present operation. Calls ``announce`` with their phases.

    ``time_limit`` is the limit in seconds for one answer: a verdict, a warm-up, a block of samples. The workers load
    only ``plugins``, by name, because a plugin that failed to load here may hang there. If ``shared``, one worker
    answers for all implementations in turn: that saves starting many, but keeps no trial while another is judged.
    ``threads`` is the number of threads of torch in a worker, by default torch's own.
    """

    def __init__(
        self,
        device: torch.device,
        announce: AnnouncePhase,
        time_limit: float,
        plugins: Iterable[str],
        *,
        shared: bool = False,
        threads: int | None = None,
    ) -> None:
        _processes.set_forkserver_preload([__name__])
        with _without_ctrl_c():  # otherwise the server would print its own traceback
            forkserver.ensure_running()
        self._device, self._announce, self._time_limit, self._shared = device, announce, time_limit, shared
        self._threads = threads
        self._environment = {**os.environ, PLUGINS_VARIABLE: ",".join(plugins)}
        self._workers: dict[tuple[str, str], _Worker] = {}

    def trial(self, step: Step) -> "RemoteTrial":
        """The trial of ``step``. Ends the workers of other operations."""
        for operation, implementation in list(self._workers):
            if operation != step.operation.name and not self._shared:
                self._workers.pop((operation, implementation)).end()
        return RemoteTrial(step, self)

    def limits(self) -> tuple[dict[str, float], dict[str, float], tuple[str, ...]]:
        """The overheads of measuring on this device, the device's ceilings, and problems in words."""
        costs: dict[str, float] = {}
        try:
            worker = _Worker(self._device, self._announce, LIMITS_SECONDS, self._environment)
            self._announce("limits")
            try:
                costs = worker.ask("overheads")
                rates, problems = worker.ask("ceilings")
            finally:
                worker.end()
        except WorkerDied as death:
            return costs, {}, (f"the limits of {self._device} could not be measured: {death}",)
        return costs, rates, tuple(problems)

    def ask(self, step: Step, question: str, *arguments: Any) -> Any:
        """The answer of the step's worker. If it dies: `TrialFailed`, and the next step gets a new worker."""
        try:
            names = ("all", "") if self._shared else (step.operation.name, step.implementation.name)
            return self._ask(names, question, *arguments)
        except WorkerDied as death:
            raise TrialFailed(record_of(step, Agreement(death.status, str(death)))) from death
        except TrialFailed as failed:
            self.distrust_after(failed.record)
            raise
        finally:
            self._announce("harness")

    def distrust_after(self, record: Record) -> None:
        """End the worker after an error on a GPU, since its process may be unable to use the GPU again, or may keep
        memory."""
        worker = self._workers.get((record.operation, record.implementation))
        if worker and record.status in (Status.ERROR, Status.OUT_OF_MEMORY) and self._device.type == "cuda":
            del self._workers[record.operation, record.implementation]
            worker.end()

    def standings(self, sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        """The standings of a sampler on a target. Ends the workers of other samplers. Raises `WorkerDied`."""
        names = "sampler", sampler.name
        found: list[Standing] = self._only(names, "standings", sampler.name, target.name, seed)
        if self._device.type == "cuda" and any(each.status is Status.ERROR for one in found for each in one.claims):
            self._workers.pop(names).end()
        return found

    def timed(self, found: Sequence[Standing], sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        """These standings with the speed of the steps. All samplers share one worker. Raises `WorkerDied`."""
        timed: list[Standing] = self._only(("timing", ""), "timed", found, sampler.name, target.name, seed)
        return timed

    def outcome(self, experiment: Experiment, seed: int) -> Outcome:
        """The outcome of an experiment. All experiments share one worker; ends all others. Raises `WorkerDied`."""
        found: Outcome = self._only(("experiments", ""), "conduct", experiment.name, seed)
        return found

    def _only(self, names: tuple[str, str], question: str, *arguments: Any) -> Any:
        """The answer of this worker. Ends all others."""
        for other in [each for each in self._workers if each != names]:
            self._workers.pop(other).end()
        return self._ask(names, question, *arguments)

    def _ask(self, names: tuple[str, str], question: str, *arguments: Any) -> Any:
        """The answer of this worker, which starts first if it does not exist. If it dies, it is removed."""
        try:
            if names not in self._workers:
                if is_exclusive(self._device):  # the others would lock it out
                    self.close()
                self._workers[names] = self._new()
            return self._workers[names].ask(question, *arguments)
        except WorkerDied:
            if names in self._workers:
                self._workers.pop(names).end()
            raise

    def close(self) -> None:
        """End all workers. The next question starts a new one."""
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def kill(self) -> None:
        """Kill the processes of all workers, from any thread: a question under way raises `WorkerDied`."""
        for worker in list(self._workers.values()):
            with suppress(ValueError):  # the other thread has just ended it
                worker.kill()

    def _new(self) -> "_Worker":
        return _Worker(self._device, self._announce, self._time_limit, self._environment, self._threads)


class RemoteTrial:
    """A `Trial` that runs in a worker."""

    def __init__(self, step: Step, workers: Workers) -> None:
        self.step = step
        self._workers = workers

    @property
    def _key(self) -> Key:
        step = self.step
        return step.operation.name, step.implementation.name, step.label, isinstance(step.subject, Law), step.seed

    def be_alone(self) -> None:
        self._workers.close()

    def judge(self, draws: int) -> Record:
        try:
            record: Record = self._workers.ask(self.step, "judge", self._key, draws)
        except TrialFailed as failed:
            return failed.record
        self._workers.distrust_after(record)
        return record

    def start(self, mode: Mode) -> None:
        self._workers.ask(self.step, "start", self._key, mode)

    def take_block(self) -> Block:
        return cast(Block, self._workers.ask(self.step, "take_block"))

    def finish(self) -> Measurement:
        return cast(Measurement, self._workers.ask(self.step, "finish"))


class _Worker:
    """One process and the connection to it."""

    def __init__(
        self,
        device: torch.device,
        announce: AnnouncePhase,
        time_limit: float,
        environment: Mapping[str, str],
        threads: int | None = None,
    ) -> None:
        self._announce, self._time_limit = announce, time_limit
        announce("start")
        self._connection, theirs = _processes.Pipe()
        arguments = theirs, device, environment, threads
        self._process = _processes.Process(target=_serve, args=arguments, daemon=True)
        with _starting:
            self._process.start()
        theirs.close()
        try:
            self._answer(STARTING_SECONDS)
        except BaseException:
            self.end()
            raise

    def ask(self, question: str, *arguments: Any) -> Any:
        with suppress(OSError):  # if the worker has died, `_answer` says how
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
                raise TrialFailed(content)
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

    def kill(self) -> None:
        """Kill the process and its children."""
        pid = self._process.pid
        if pid is not None and self._process.exitcode is None:
            try:
                os.killpg(pid, signal.SIGKILL)  # the worker leads its own group: see _serve
            except ProcessLookupError:  # no group yet, or dead
                self._process.kill()

    def end(self) -> None:
        """Kill the process and its children, and wait for its end."""
        self._connection.close()
        self.kill()
        self._process.join()
        self._process.close()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, device: torch.device, environment: Mapping[str, str], threads: int | None) -> None:
    """The worker's main function: answers until the parent closes the connection or dies."""
    os.setsid()  # the parent handles Ctrl-C, and kills the whole group
    # The server ends when all processes have closed this descriptor. Every child inherits it, so a worker that hangs
    # would keep the server, and thus itself, alive after the parent's death.
    with suppress(AttributeError, OSError):
        os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    with suppress(AttributeError, OSError):  # not all systems have this call
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a hanging kernel must not outlive the run
    os.environ.clear()
    os.environ.update(environment)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        _answer_all(connection, device)
    except Exception as error:  # an error of the harness, or an unusable device
        connection.send(("broken", f"its process broke down: {describe_error(error)}"))


def _answer_all(connection: Connection, device: torch.device) -> None:
    prepare_to_run_kernels(device)
    registry = load_registry()

    def announce(phase: str | CurrentClaim) -> None:
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
        raise LookupError(f"{implementation_name} of {operation_name}, {label}: missing in the worker's plugins")

    trial: Trial | None = None
    connection.send(("answer", None))
    while True:
        try:
            question, *arguments = connection.recv()
        except (EOFError, OSError):  # the parent has finished or died
            return
        try:
            answer: Any
            if question == "judge":
                key, draws = arguments
                trial = Trial(find(key), device, announce)
                answer = trial.judge(draws)
            elif question == "start":  # of a trial that another process may have judged
                key, mode = arguments
                trial = Trial(find(key), device, announce)
                trial.start(mode)
                answer = None
            elif question == "standings":
                sampler, target, seed = arguments
                answer = standings(registry.samplers[sampler], registry.targets[target], device, seed, announce)
            elif question == "timed":
                found, sampler, target, seed = arguments
                answer = timed(found, registry.samplers[sampler], registry.targets[target], device, seed, announce)
            elif question == "conduct":
                from ..validation.experiments import conduct  # here, because scipy is slow to import

                experiment, seed = arguments
                answer = conduct(registry.experiments[experiment], device, seed)
            elif question == "overheads":
                answer = clock_for(device).overheads()
            elif question == "ceilings":
                answer = ceilings_of(registry.ceilings, device, describe(device))
            else:
                answer = getattr(trial, question)(*arguments)
            reply = "answer", answer
        except TrialFailed as failed:
            reply = "failed", failed.record
        if device.type == "cuda":
            free_caches()  # other processes need the memory
        connection.send(reply)
