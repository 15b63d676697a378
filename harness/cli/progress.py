"""What a command shows of its progress while it runs."""

from collections.abc import Sequence
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:  # torch takes a second to import
    from ..execution.plan import Step
    from ..execution.trial import Block


class Display:
    """What is being done: on a terminal a live line, elsewhere one line for each operation.

    The live line tells the step, its phase, the samples taken and their noise so far, the steps done and the time
    left. ``seconds`` is the time that each phase took, all steps together.
    """

    def __init__(self, console: Console, steps: "Sequence[Step]") -> None:
        self.seconds: dict[str, float] = {}
        self._console, self._steps = console, steps
        self._told: set[str] = set()
        self._sampled: dict[str, str] = {}
        self._description = ""
        self._phase, self._since = "harness", perf_counter()
        self._bar: Progress | None = None
        if console.is_terminal:
            # The label takes what the others leave of the line, and is cut there: it is the one text that may be.
            label = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True))
            count = MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=2 * len(str(len(steps))) + 1))
            columns = (label, TextColumn("{task.fields[phase]}", markup=False), count, TimeLeft())
            self._bar = Progress(*columns, console=console, transient=True, expand=True, speed_estimate_period=600)
            self._task = self._bar.add_task("", total=len(steps), phase="")

    def __enter__(self) -> "Display":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.phase("harness")
        if self._bar:
            self._bar.stop()

    def phase(self, phase: str) -> None:
        now = perf_counter()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now
        if phase == "warm-up":
            self._sampled.pop(self._description, None)  # it is to be timed in another mode
        if phase != "harness":
            self._show(phase=self._sampled.get(self._description, phase) if phase == "sampling" else phase)

    def step(self, step: "Step") -> None:
        name = step.operation.name
        self._description = f"{name} {step.implementation.name} {step.label}"
        self._show(description=self._description)
        if self._bar is None and name not in self._told:
            self._told.add(name)
            self._console.print(f"{name}: {sum(each.operation.name == name for each in self._steps)} checks")

    def block(self, block: "Block") -> None:
        self._sampled[self._description] = f"sampling {block.samples}, noise {block.noise:.1%}"
        self._show(phase=self._sampled[self._description])

    def done(self) -> None:
        if self._bar:
            self._bar.advance(self._task)

    def _show(self, **fields: str) -> None:
        if self._bar:
            self._bar.update(self._task, refresh=True, **fields)  # type: ignore[arg-type]


class TimeLeft(TimeRemainingColumn):
    """The time left, in words, once a step has shown how long steps take."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None else f"{timedelta(seconds=round(left))} left")
