"""The command `run`: check, measure, time and sanitize the kernels on a GPU, within a budget of time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from ..api.operations import PRESETS, Agreement, Status
from ..api.records import LeftOut, Record
from ..execution.budget import Unit, by_value, require_known, run_within
from ..execution.plan import Mode, Purpose, Step, plan
from ..execution.process import seconds_since_start
from ..report.tables import bench_tables, check_summary, failed_records, left_out, limits
from ..report.terminal import outputs
from ..results.earlier import timed_before
from ..results.environment import UnknownDevice, describe, resolve_device, unused_gpu
from ..results.file import ResultsFile, record_key, run_to_json
from .options import Device, Json
from .progress import Display
from .run_trials import (
    DRAWS,
    TIMED,
    carry_out,
    conclude,
    default_preset,
    plan_steps,
    roofline_share,
    turn_on,
    workers_for,
)

if TYPE_CHECKING:  # slow to import
    import torch

    from ..execution.sanitizer import Tool
    from ..execution.worker import Workers

CHECKED: tuple[Purpose, ...] = ("check", "law")

SHORTEST_BUDGET = 10.0
CLOSING_SECONDS = 5.0
"""At most this much of the budget is kept for the tables, the file and the end of the processes."""

LONGEST_ANSWER, SHORTEST_LIMIT = 1 / 6, 30.0
"""A kernel that hangs may cost this share of the budget, but is given this many seconds."""

SANITIZER_SECONDS = 60.0
"""A kernel that takes longer under a sanitizer is left out."""

UNITS_OF_TIME = {"": 1, "s": 1, "m": 60, "h": 3600}


def run(
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time for the whole command: 90s, 12m or 1h.")
    ] = "10m",
    first: Annotated[
        list[str] | None,
        typer.Option(
            "--first",
            metavar="NAME",
            help="An operation to begin with, or an operation and the beginning of a case; repeatable, in order.",
        ),
    ] = None,
    device: Device = "auto",
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder of results. What a run in it has timed is not timed again."),
    ] = Path("runs"),
    json_file: Json = None,
) -> None:
    """Check, time and sanitize the kernels on a GPU within a budget, the most valuable steps first."""
    seconds = _seconds(budget)
    end = monotonic() + seconds - min(CLOSING_SECONDS, seconds / 5) - seconds_since_start()
    with outputs(json_file) as (console, write_json):
        place = _gpu_or_chosen(device)
        registry, checks = plan_steps(place, None, None, CHECKED, PRESETS[-1], None)
        benches = plan(registry.select(), TIMED, default_preset(place))
        require_known(first or (), registry.operations)
        environment = describe(place)
        folder = out / _folder_of(environment) / f"{datetime.now(UTC):%Y-%m-%d}"
        units = by_value(checks, benches, first or ())
        sanitizer, no_sanitizer = _sanitizer(place)
        units, needless = _without_needless(units, timed_before(out, environment), no_sanitizer)
        steps = [step for unit in units for step in unit.steps]
        file = ResultsFile(folder, environment, registry.problems)
        file.update(left_out=needless)
        complete = False
        with (
            turn_on(environment, console, end - monotonic()),
            Display(console, steps, name_operations=False) as display,
            workers_for(place, display.phase, max(SHORTEST_LIMIT, seconds * LONGEST_ANSWER), registry) as workers,
            suppress(KeyboardInterrupt),
        ):
            work = _Work(place, console, display, workers, file, sanitizer, units)
            run_within(units, end - monotonic(), work.carry_out, work.keep, work.leave_out)
            complete = True
        file.update(seconds=display.seconds, left_out=(*needless, *work.left_out))
        if complete:
            file.finish()
        else:
            file.close()
        records = file.run.records
        console.print(check_summary([each for each in records if each.purpose not in TIMED]))
        console.print(bench_tables([each for each in records if each.purpose in TIMED]))
        console.print(limits(file.run))
        console.print(left_out(file.run.left_out))
        status = conclude(console, file.run, len(steps))
        console.print(f"Results file: {file.path}", soft_wrap=True)
        write_json(run_to_json(file.run))
    raise typer.Exit(status)


class _Work:
    """Carries out units, keeps their records in the file and shows the progress."""

    def __init__(
        self,
        device: torch.device,
        console: Console,
        display: Display,
        workers: Workers,
        file: ResultsFile,
        sanitizer: Path | None,
        units: Sequence[Unit],
    ) -> None:
        self.left_out: list[LeftOut] = []
        self._device, self._console, self._display = device, console, display
        self._workers, self._file, self._sanitizer = workers, file, sanitizer
        self._count = Counter((unit.round, unit.kind) for unit in units)
        self._current = (-1, "")

    def carry_out(self, unit: Unit, keep: Callable[[Record], None]) -> None:
        self._announce(unit)
        if unit.kind == "limits":
            self._measure_limits()
        elif unit.kind == "memcheck" or unit.kind == "racecheck":
            self._sanitize(unit.kind, unit.steps[0], keep)
        else:
            timed = unit.kind == "bench"
            modes: tuple[Mode, ...] = ("cold",) if timed else ()
            carry_out(
                unit.steps,
                self._device,
                self._workers.trial,
                self._display,
                draws=1 if timed else DRAWS,
                modes=modes,
                share=roofline_share(self._file.run.ceilings, self._file.run.environment),
                keep=keep,
                keep_control=self._file.add_control,
                controls=self._file.run.controls,
            )

    def keep(self, record: Record) -> None:
        self._file.add(record)
        for failed in failed_records([record]):
            self._console.print(f"{failed.status}: {failed.operation} {failed.implementation}, {failed.case}")

    def leave_out(self, unit: Unit, message: str) -> None:
        self.left_out += _left_out(unit, "time", message)
        for _ in unit.steps:
            self._display.done()

    def _announce(self, unit: Unit) -> None:
        """A line for each kind of unit in each round."""
        if self._current != (unit.round, unit.kind):
            self._current = unit.round, unit.kind
            age = timedelta(seconds=round(seconds_since_start()))
            count = self._count[self._current]
            what = "limits of the device" if unit.kind == "limits" else f"{unit.kind} ({count})"
            self._console.print(f"{age} round {unit.round + 1}: {what}")

    def _measure_limits(self) -> None:
        overheads, ceilings, problems = self._workers.limits()
        self._file.update(overheads=overheads, ceilings=ceilings, problems=(*self._file.run.problems, *problems))

    def _sanitize(self, tool: Tool, step: Step, keep: Callable[[Record], None]) -> None:
        from ..execution.sanitizer import SanitizerFailed, TooSlow, sanitize

        self._display.step(step)
        unit = Unit(tool, (step,))
        if self._sanitizer is None:
            self.left_out += _left_out(unit, "impossible", "the sanitizer failed before, see the problems")
        elif reason := self._unavailable(step):
            self.left_out += _left_out(unit, "impossible", reason)
        else:
            self._workers.close()  # a device in exclusive mode takes one process
            self._display.phase(tool)
            try:
                keep(sanitize(self._sanitizer, tool, step, self._device, SANITIZER_SECONDS))
            except TooSlow as slow:
                self.left_out += _left_out(unit, "time", str(slow))
            except SanitizerFailed as failure:
                self._sanitizer = None
                self._file.update(problems=(*self._file.run.problems, str(failure)))
                self.left_out += _left_out(unit, "impossible", "the sanitizer failed, see the problems")
            finally:
                self._display.phase("harness")
        self._display.done()

    def _unavailable(self, step: Step) -> str:
        """Why the kernel cannot run here, if none of its checks so far could."""
        names = step.operation.name, step.implementation.name
        own = [each for each in self._file.run.records if (each.operation, each.implementation) == names]
        known = bool(own) and all(each.status is Status.UNAVAILABLE for each in own)
        return own[0].message if known else ""


def _without_needless(
    units: Sequence[Unit], timed_before: Mapping[str, Path], no_sanitizer: str
) -> tuple[list[Unit], tuple[LeftOut, ...]]:
    """The units without the bench cases that are timed already, and without sanitizers if there is none."""
    from ..execution.trial import record_of

    wanted: list[Unit] = []
    needless: list[LeftOut] = []
    for unit in units:
        keys = [record_key(record_of(step, Agreement(Status.PASSED))) for step in unit.steps]
        if unit.kind in ("memcheck", "racecheck") and no_sanitizer:
            needless += _left_out(unit, "impossible", no_sanitizer)
        elif unit.kind == "bench" and all(key in timed_before for key in keys):
            needless += _left_out(unit, "unchanged", str(timed_before[keys[0]]))
        else:
            wanted.append(unit)
    return wanted, tuple(needless)


def _left_out(unit: Unit, reason: Literal["time", "unchanged", "impossible"], message: str) -> list[LeftOut]:
    if not unit.steps:
        return [LeftOut(unit.kind, "", "", "", reason, message)]
    return [
        LeftOut(unit.kind, step.operation.name, step.implementation.name, step.label, reason, message)
        for step in unit.steps
    ]


def _sanitizer(device: torch.device) -> tuple[Path | None, str]:
    """The compute-sanitizer, or None and why there is none."""
    from ..execution.sanitizer import compute_sanitizer

    if device.type != "cuda":
        return None, "a sanitizer needs a GPU"
    if found := compute_sanitizer():
        return found, ""
    return None, "compute-sanitizer is not installed; it comes with the CUDA toolkit (set CUDA_HOME or PATH)"


def _gpu_or_chosen(device: str) -> torch.device:
    """The device of this name. Unless the CPU is named, it must be a GPU."""
    try:
        return resolve_device("cuda" if device == "auto" else device)
    except UnknownDevice as error:
        if device != "auto":
            raise
        _, _, reason = (unused_gpu() or "").partition(": ")
        words = f"no GPU can be used: {reason}" if reason else str(error)
        raise UnknownDevice(f"{words}. To run on the CPU, add --device cpu") from error


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(match[1]) * UNITS_OF_TIME[match[2]] if match else 0.0
    if seconds < SHORTEST_BUDGET:
        raise typer.BadParameter(f"--budget takes a time of at least {SHORTEST_BUDGET:g}s, such as 12m: got {text!r}")
    return seconds


def _folder_of(environment: Mapping[str, Any]) -> str:
    """The name of the device as a folder: ``nvidia-h200``, ``cpu``."""
    name = (environment.get("gpu") or {}).get("name") or "cpu"
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")
