"""The processes of a command that hold plugins: workers run implementations, referees judge the results.

A crash, a hang or an exit becomes the status of one step. `RemoteTrial` has the methods of a trial: it asks the
processes, passes on what a referee and a worker want of each other, and computes every figure from the samples.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import Any, cast

import torch

from ..api.experiments import Experiment
from ..api.operations import Agreement, Status
from ..api.records import Measurement, Outcome, Record, Standing
from ..api.samplers import Sampler, Target
from ..discovery.registry import PLUGINS_VARIABLE, Registry
from ..results.environment import is_exclusive
from ..timing.figures import figures, median_noise, unfinished
from ..timing.stopwatch import TimingProtocol, protocol_for
from . import referee, serving
from .child import Announce, Child, Died, Failed, start_server
from .plan import Mode, Step
from .referee import Judged
from .trial import Block, TrialFailed, record_of

LIMITS_SECONDS = 600.0
"""Time limit for measuring all ceilings."""
REFERENCE_SECONDS = 60.0
"""Time limit for timing fixed work on a device."""


class Workers:
    """The worker and the referee of each step. Calls ``announce`` with their phases.

    ``time_limit`` is the limit in seconds for one answer: a verdict, a warm-up, a block of samples. The processes load
    only the plugins that they need of those that the ``registry`` could load. Each implementation of the present
    operation has a worker, or, if ``shared``, each plugin: that saves starting many, but a plugin's implementations
    cannot be timed in turns. A process stays until another operation begins, or, if ``shared``, until `release`.

    ``threads`` is the number of torch's threads in a referee, ``worker_threads`` in a worker, 0 for all.
    """

    def __init__(
        self,
        device: torch.device,
        announce: Announce,
        time_limit: float,
        registry: Registry,
        *,
        shared: bool = False,
        threads: int = 0,
        worker_threads: int = 0,
    ) -> None:
        start_server(__name__)
        self._device, self._announce, self._time_limit, self._registry = device, announce, time_limit, registry
        self._shared, self._threads, self._worker_threads = shared, threads, worker_threads
        self._workers: dict[tuple[str, str], Child] = {}
        self._referees: dict[str, Child] = {}
        self._confirmed: set[str] = set()  # operations that a referee knows as the catalogue does
        self._brief: list[Child] = []  # processes that end with their answer
        self.deaths = 0
        """How many workers gave no answer."""

    def trial(self, step: Step) -> "RemoteTrial":
        """The trial of ``step``. Ends the workers of other operations."""
        if not self._shared:
            for names in [each for each in self._workers if each[0] != step.operation.name]:
                self._workers.pop(names).end()
            for name in [each for each in self._referees if each != self._registry.definer(step.operation.name)]:
                self._referees.pop(name).end()
        return RemoteTrial(step, self)

    @property
    def has_referees(self) -> bool:
        """Whether referees judge. They share memory of the host with workers, and none of a GPU."""
        return self._device.type == "cpu"

    @property
    def protocol(self) -> TimingProtocol:
        return protocol_for(self._device)

    def verdict(self, step: Step, draws: int) -> Agreement:
        """The verdict on a step."""
        if not self.has_referees:
            try:
                return cast(Agreement, self.ask(step, "verdict", _key(step), draws))
            except Failed as failed:
                return failed.agreement
        names = step.operation.name, step.implementation.name

        def relay(question: str, arguments: tuple[Any, ...], until: float) -> tuple[str, Any]:
            try:
                return "answer", self._ask(
                    self._names(step), self._needed(step), question, *names, *arguments, until=until
                )
            except Failed as failed:
                return "failed", failed.agreement
            except Died as death:
                return "failed", Agreement(death.status, str(death))

        try:
            found = self._of_referee(step, "verdict", Judged.of(step), draws, relay=relay)
        except Died as death:
            return Agreement(death.status, f"the check of operation {step.operation.name}: {death}")
        finally:
            self._rest(self._names(step))
            self._announce("harness")
        return found

    def results(self, step: Step, seed: int, names: Sequence[str], results: Mapping[str, Any]) -> Agreement:
        """A referee's verdict on results of a timed launch."""
        try:
            return self._of_referee(step, "results", Judged.of(step), seed, names, results)
        except Died as death:
            return Agreement(death.status, f"the check of operation {step.operation.name}: {death}")

    def ask(self, step: Step, question: str, *arguments: Any, relay: Any = None) -> Any:
        """The answer of the step's worker. If it dies: `Failed`, and the next step gets a new worker."""
        names = self._names(step)
        try:
            return self._ask(names, self._needed(step), question, *arguments, relay=relay)
        except Died as death:
            raise Failed(Agreement(death.status, str(death))) from death
        except Failed as failed:
            self.distrust_after(step, failed.agreement)
            raise
        finally:
            self._announce("harness")

    def distrust_after(self, step: Step, agreement: Agreement) -> None:
        """End the worker after an error on a GPU, since its process may be unable to use the GPU again, or may keep
        memory."""
        if agreement.status in (Status.ERROR, Status.OUT_OF_MEMORY) and self._device.type == "cuda":
            self._end(self._names(step))

    def build(self, steps: Sequence[Step]) -> None:
        """Compile at once, on all cores, what implementations of the steps would compile one after another."""
        chosen = {(each.operation.name, each.implementation.name): each for each in steps if each.implementation.build}
        if not chosen:
            return
        plugins = dict.fromkeys(
            name for step in chosen.values() for name in self._registry.needed_by(step.implementation)
        )
        try:
            with self._briefly(self._new(plugins)) as child:
                child.ask("build", list(chosen), seconds=self._time_limit)
        except (Died, Failed):  # the check of each implementation says what is wrong
            return

    def limits(self) -> tuple[dict[str, float], dict[str, float], tuple[str, ...]]:
        """The overheads of measuring on this device, the device's ceilings, and problems in words."""
        costs: dict[str, float] = {}
        try:
            with self._briefly(self._new(self._registry.loaded)) as worker:
                self._announce("limits")
                costs = worker.ask("overheads", seconds=LIMITS_SECONDS)
                rates, problems = worker.ask("ceilings", seconds=LIMITS_SECONDS)
        except Died as death:
            return costs, {}, (f"the limits of {self._device} could not be measured: {death}",)
        return costs, rates, tuple(problems)

    def reference(self) -> dict[str, float]:
        """The seconds of fixed work on the device, in a process without plugins. Ends the workers. Raises `Died`."""
        self._end_workers()  # they would disturb it, or lock it out
        with self._briefly(Child(serving.time_reference, self._device, os.environ, self._announce)) as child:
            found = child.ask("reference", seconds=REFERENCE_SECONDS)
        return {str(name): float(seconds) for name, seconds in found.items()}

    def answers(self) -> bool:
        """Whether the device still works: whether it can do fixed work."""
        try:
            self.reference()
        except Died:
            return False
        return True

    def standings(self, sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        """The standings of a sampler on a target. Ends the workers of other samplers. Raises `Died`."""
        names = "sampler", sampler.name
        found: list[Standing] = self._only(names, "standings", sampler.name, target.name, seed)
        if self._device.type == "cuda" and any(each.status is Status.ERROR for one in found for each in one.claims):
            self._end(names)
        return found

    def timed(self, found: Sequence[Standing], sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        """These standings with the speed of the steps. All samplers share one worker. Raises `Died`."""
        timed: list[Standing] = self._only(("timing", ""), "timed", found, sampler.name, target.name, seed)
        return timed

    def outcome(self, experiment: Experiment, seed: int) -> Outcome:
        """The outcome of an experiment. All experiments share one worker; ends all others. Raises `Died`."""
        found: Outcome = self._only(("experiments", ""), "conduct", experiment.name, seed)
        return found

    def release(self, steps: Iterable[Step]) -> None:
        """End the processes that none of these steps needs."""
        chosen = [*steps]
        workers = {self._names(step) for step in chosen}
        referees = {self._registry.definer(step.operation.name) for step in chosen}
        for names in [each for each in self._workers if each not in workers]:
            self._end(names)
        for name in [each for each in self._referees if each not in referees]:
            self._referees.pop(name).end()

    def close(self) -> None:
        """End all processes. The next question starts new ones."""
        self._end_workers()
        for child in self._referees.values():
            child.end()
        self._referees.clear()

    def kill(self) -> None:
        """Kill all processes, from any thread: a question under way raises `Died`."""
        for child in [*self._workers.values(), *self._referees.values(), *self._brief]:
            child.kill()

    def _end_workers(self) -> None:
        for child in self._workers.values():
            child.end()
        self._workers.clear()

    def _names(self, step: Step) -> tuple[str, str]:
        one = step.implementation
        if self._shared:
            return "plugin", one.plugin
        return step.operation.name, f"{one.name}, again" if step.again else one.name

    def _needed(self, step: Step) -> Sequence[str]:
        return self._registry.needed_by(step.implementation)

    def _of_referee(self, step: Step, question: str, *arguments: Any, relay: Any = None) -> Agreement:
        name = self._registry.definer(step.operation.name)
        try:
            if name not in self._referees:
                environment = {**os.environ, PLUGINS_VARIABLE: name}
                given = self._threads, self._registry.other_sizes
                self._referees[name] = Child(referee.serve, given, environment, self._announce)
            judge = self._referees[name]
            if step.operation.name not in self._confirmed:
                if judge.ask("operation", step.operation.name, seconds=self._time_limit) != step.operation:
                    words = f"a plugin that was read with {name} has changed its operation {step.operation.name}"
                    return Agreement(Status.ERROR, words)
                self._confirmed.add(step.operation.name)
            found: Agreement = judge.ask(question, *arguments, seconds=self._time_limit, relay=relay)
        except (Died, KeyboardInterrupt):
            if name in self._referees:
                self._referees.pop(name).end()
            raise
        return found

    def _only(self, names: tuple[str, str], question: str, *arguments: Any) -> Any:
        """The answer of this worker. Ends all others."""
        for other in [each for each in self._workers if each != names]:
            self._end(other)
        return self._ask(names, self._registry.loaded, question, *arguments)

    def _ask(
        self,
        names: tuple[str, str],
        plugins: Sequence[str],
        question: str,
        *arguments: Any,
        until: float | None = None,
        relay: Any = None,
    ) -> Any:
        """The answer of this worker, which starts first if it does not exist. If it dies, it is removed."""
        try:
            if names not in self._workers:
                if is_exclusive(self._device):  # the others would lock it out
                    self._end_workers()
                self._workers[names] = self._new(plugins)
            return self._workers[names].ask(question, *arguments, seconds=self._time_limit, until=until, relay=relay)
        except Died:
            self.deaths += 1
            self._end(names)
            raise

    def _rest(self, names: tuple[str, str]) -> None:
        """After a step: end its worker if it is not as it was before."""
        if names not in self._workers:
            return
        try:
            self._workers[names].ask("rest", seconds=self._time_limit)
        except Died:
            self._end(names)
        else:
            if self._workers[names].spoilt:
                self._end(names)

    def _end(self, names: tuple[str, str]) -> None:
        if names in self._workers:
            self._workers.pop(names).end()

    @contextmanager
    def _briefly(self, child: Child) -> Iterator[Child]:
        """A process that ends with the context."""
        self._brief.append(child)
        try:
            yield child
        finally:
            self._brief.remove(child)
            child.end()

    def _new(self, plugins: Sequence[str] | Mapping[str, None]) -> Child:
        environment = {**os.environ, PLUGINS_VARIABLE: ",".join(plugins)}
        given = self._device, self._worker_threads, self._registry.other_sizes
        return Child(serving.serve, given, environment, self._announce, whole=not self._shared)


def _key(step: Step) -> serving.Key:
    return step.operation.name, step.implementation.name, step.label, step.purpose == "law", step.seed


class RemoteTrial:
    """A `Trial` that runs in a worker, and of which other processes decide what it is worth."""

    def __init__(self, step: Step, workers: Workers) -> None:
        self.step = step
        self._workers = workers
        self._samples: list[float] = []
        self._judged = 0
        self._refused: Agreement | None = None
        self._seconds = 0.0

    def be_alone(self) -> None:
        self._workers.close()

    def judge(self, draws: int) -> Record:
        verdict = self._workers.verdict(self.step, draws)
        self._workers.distrust_after(self.step, verdict)
        return record_of(self.step, verdict)

    def start(self, mode: Mode) -> None:
        self._samples, self._judged, self._refused, self._seconds = [], 0, None, 0.0
        self._ask("start", _key(self.step), mode, self._workers.has_referees)

    def take_block(self) -> Block:
        begun = monotonic()
        more, samples = self._ask("take_block")
        self._seconds += monotonic() - begun
        if not samples:
            raise self._failure(Agreement(Status.ERROR, "its process took a block without a sample"))
        self._samples += [float(each) for each in samples]
        return Block(bool(more), len(self._samples), median_noise(self._samples))

    def finish(self) -> Measurement:
        """The worker's measurement, with every figure computed here from the samples of the blocks."""
        found = self._ask("finish")
        if not isinstance(found, Measurement) or found.samples != tuple(self._samples):
            raise self._failure(Agreement(Status.ERROR, "the samples of the measurement are not those of its blocks"))
        if self._workers.has_referees and not self._judged:
            raise self._failure(Agreement(Status.ERROR, "no result of a timed launch was judged"))
        cost = self.step.operation.cost(self.step.subject)  # type: ignore[arg-type]  # a law is not timed
        stopped, early = unfinished(self._samples, self._seconds, self._workers.protocol)
        return replace(
            found,
            **figures(self._samples, cost),
            stopped=stopped,
            roofline_share=None,
            limit="",
            suspicions=(*found.suspicions, *early),
        )

    def _ask(self, question: str, *arguments: Any) -> Any:
        try:
            answer = self._workers.ask(self.step, question, *arguments, relay=self._relay)
        except Failed as failed:
            raise self._failure(self._refused or failed.agreement) from failed
        if self._refused:  # though the worker goes on
            raise self._failure(self._refused)
        return answer

    def _relay(self, question: str, arguments: tuple[Any, ...], until: float) -> Agreement:
        """Have results of a timed launch judged."""
        if question != "results":
            return Agreement(Status.ERROR, f"unknown request {question}")
        verdict = self._workers.results(self.step, *arguments)
        self._judged += verdict.passed
        if not verdict.passed and self._refused is None:
            words = f"{verdict.status} while timed: {verdict.message} (seed {arguments[0]})"
            self._refused = replace(verdict, message=words)
        return verdict

    def _failure(self, agreement: Agreement) -> TrialFailed:
        if agreement.passed:  # the worker says so, and it is not for it to say
            agreement = Agreement(Status.ERROR, "its process failed and said that it passed")
        return TrialFailed(record_of(self.step, agreement))
