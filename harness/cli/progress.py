"""Progress displays: a live line on a terminal, plain lines elsewhere."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from ..api.experiments import Experiment
from ..api.samplers import Sampler, Target
from ..execution.plan import Step
from ..report.tables import counted
from ..validation.progress import CurrentClaim

if TYPE_CHECKING:  # slow to import
    from ..execution.trial import Block


LONG_BUILD = 1.0
"""Seconds; less means that the kernels were in the cache."""


class Display:
    """Progress of `check`, `bench` and `run`: a live line on a terminal, a line for each operation elsewhere.

    The latter only if ``name_operations``: `run` comes back to an operation many times and prints lines of its own.

    The live line shows the step, its phase, the samples so far and their noise, the steps done and the time left.
    ``seconds`` is the time spent in each phase, over all steps and devices.
    """

    def __init__(
        self, console: Console, steps: Sequence[Step], *, name_operations: bool = True, pairs: int = 0
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._console, self._steps, self._name_operations = console, steps, name_operations
        self._printed: set[str] = set()
        self._sampled: dict[str, str] = {}
        self._description = ""
        self._built = 0
        self._where = ""
        self._lock = threading.Lock()
        self._phase, self._since = "harness", perf_counter()
        self._bar: Progress | None = None
        if console.is_terminal:
            # The label gets the rest of the line and is the only text that may be cut.
            label = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True))
            count = Count(table_column=Column(no_wrap=True, min_width=2 * len(str(len(steps))) + 1))
            columns = (label, TextColumn("{task.fields[phase]}", markup=False), count, TimeLeft())
            self._bar = Progress(*columns, console=console, transient=True, expand=True, speed_estimate_period=600)
            self._task = self._all = self._bar.add_task("", total=len(steps) + pairs, phase="")

    def __enter__(self) -> "Display":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.phase("harness")
        if self._bar:
            self._bar.stop()

    @contextmanager
    def on(self, devices: Sequence[str]) -> Iterator[list["Display"]]:
        """A display for each device, with a line of its own on a terminal. One device has this display."""
        if len(devices) == 1:
            yield [self]
            return
        self.phase("harness")
        own = [copy(self) for _ in devices]
        for each, name in zip(own, devices, strict=True):
            each._where, each._sampled = f"{name}: ", {}
            if self._bar:
                each._task = self._bar.add_task(name, total=None, phase="")
        if self._bar:
            self._bar.update(self._all, description=counted(len(devices), "device"))
        try:
            yield own
        finally:
            for each in own:
                each.phase("harness")
                if self._bar:
                    self._bar.remove_task(each._task)
            self._since = perf_counter()  # the time until now is that of the devices

    def phase(self, phase: Any) -> None:
        """A phase begins: the time since the last call belongs to the phase before."""
        if isinstance(phase, tuple):
            phase, self._built = str(phase[0]), int(phase[1])
            self._show(description=f"kernels of {counted(self._built, 'implementation')}")
        with self._lock:
            now = perf_counter()
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
            self._phase, self._since = phase, now
        if phase == "warm-up":
            self._sampled.pop(self._description, None)  # the samples of another mode follow
        if phase != "harness":
            self._show(phase=self._sampled.get(self._description, phase) if phase == "sampling" else phase)

    def step(self, step: Step) -> None:
        """A step begins."""
        name = step.operation.name
        self._description = f"{self._where}{name} {step.implementation.name} {step.label}"
        self._show(description=self._description)
        if self._bar is None and self._name_operations and name not in self._printed:
            self._printed.add(name)
            count = sum(each.operation.name == name for each in self._steps)
            self._console.print(f"{name}: {counted(count, 'check')}")

    def pair(self, sampler: Sampler, target: Target) -> None:
        """The judgement of a sampler on a target begins; ``pairs`` of them count as steps."""
        self._show(description=f"{sampler.name} on {target.name}", phase="validate")

    @contextmanager
    def building(self) -> Iterator[None]:
        """Kernels are compiled, or found in the cache; a phase ("compile", n) says of how many implementations."""
        self.phase("compile")
        begin, self._built = perf_counter(), 0
        yield
        seconds = perf_counter() - begin
        if seconds > LONG_BUILD and self._built:
            self._console.print(f"compiled kernels of {counted(self._built, 'implementation')}: {seconds:.0f} s")
        self.phase("harness")

    def block(self, block: "Block") -> None:
        """The step has taken another block of samples."""
        self._sampled[self._description] = f"sampling {block.samples}, noise {block.noise:.1%}"
        self._show(phase=self._sampled[self._description])

    def done(self) -> None:
        """The step is complete."""
        if self._bar:
            self._bar.advance(self._all)

    def _show(self, **fields: str) -> None:
        if self._bar:
            self._bar.update(self._task, refresh=True, **fields)  # type: ignore[arg-type]


class Count(MofNCompleteColumn):
    """The steps done and all steps; nothing in the line of one of several devices."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None else Text()


class TimeLeft(TimeRemainingColumn):
    """The time left in words, as soon as the first steps allow an estimate."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None else f"{timedelta(seconds=round(left))} left")


class ValidationProgress:
    """Progress of `validate`: a live line with the latest pair and claim on a terminal, a line for each pair elsewhere.

    Several pairs may be at work at once, in threads.
    """

    def __init__(self, console: Console, pairs: int, experiments: int) -> None:
        self._console, self._pairs, self._experiments = console, pairs, experiments
        self._begun: dict[str, dict[str, int]] = {"pair": {}, "experiment": {}}
        self._words = threading.local()
        self._lock = threading.Lock()
        self._line = console.status("", spinner="line") if console.is_terminal else None

    def __enter__(self) -> None:
        if self._line:
            self._line.start()

    def __exit__(self, *reason: object) -> None:
        if self._line:
            self._line.stop()

    def pair(self, sampler: Sampler, target: Target) -> None:
        """The judgement of a sampler on a target begins."""
        self._next(f"{sampler.name} on {target.name}", "pair", self._pairs)

    def experiment(self, experiment: Experiment) -> None:
        """An experiment begins."""
        self._next(f"experiment {experiment.name}", "experiment", self._experiments)

    def timing(self, sampler: Sampler, target: Target) -> None:
        """The steps of a sampler on a target are timed, which takes a moment: only a terminal shows it."""
        self._words.now = f"{sampler.name} on {target.name}"

    def claim(self, claim: CurrentClaim) -> None:
        """The test of a claim begins, of the pair that this thread has named last."""
        self._show(f"{self._words.now} {claim}")

    def _next(self, words: str, kind: str, of: int) -> None:
        with self._lock:
            begun = self._begun[kind]  # what a lost device began begins again, with its number
            number = begun.setdefault(words, len(begun) + 1)
            self._words.now = f"{words} ({number} of {of})"
            if self._line:
                self._show(self._words.now)
            else:
                self._console.print(self._words.now)

    def _show(self, words: str) -> None:
        if self._line:
            self._line.update(Text(words, no_wrap=True, overflow="ellipsis"))
