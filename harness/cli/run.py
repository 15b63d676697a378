"""The command `run`: check and time the kernels, judge samplers and write the page, within a budget of time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from ..api.operations import PRESETS, Agreement, Status
from ..api.records import LeftOut, Record
from ..api.samplers import Sampler, Target
from ..discovery.registry import Registry
from ..execution.budget import Pair, Unit, by_value, require_known, run_within
from ..execution.plan import Mode, Purpose, Step, plan
from ..execution.process import seconds_since_start
from ..report.tables import bench_tables, check_summary, failed_records, left_out, limits
from ..report.terminal import outputs
from ..results.earlier import timed_before
from ..results.environment import describe, resolve_device
from ..results.file import ResultsFile, record_key, run_to_json, write_text
from .check import check_at_once
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
from .validate import chosen_pairs, closing_line, show_standings

if TYPE_CHECKING:  # slow to import
    import torch

    from ..execution.parallel.judges import Job, Judge
    from ..execution.sanitizer import Tool
    from ..execution.worker import Workers

CHECKED: tuple[Purpose, ...] = ("check", "law")

SHORTEST_BUDGET = 10.0
CLOSING_SECONDS = 8.0
"""At most this much of the budget is kept for the tables, the page, the file and the end of the processes."""

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
        typer.Option("--out", metavar="DIR", help="Folder of results; those of a device have a folder in it."),
    ] = Path("runs"),
    new_only: Annotated[
        bool, typer.Option("--new-only", help="Do not time again what a run in --out has timed with the same source.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Check and time all kernels, judge samplers and write a page, within a budget: the most valuable steps first.

    On a GPU it also launches kernels under compute-sanitizer.
    """
    seconds = _seconds(budget)
    end = monotonic() + seconds - min(CLOSING_SECONDS, seconds / 5) - seconds_since_start()
    from ..execution.parallel.judges import judges_at_once  # imported late: `--help` needs no torch

    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        at_once = judges_at_once(place)
        registry, checks = plan_steps(place, None, None, CHECKED, PRESETS[-1], None, many=at_once > 1, pairs=True)
        benches = plan(registry.select(), TIMED, default_preset(place))
        require_known(first or (), registry.operations)
        environment = describe(place)
        folder = out / _folder_of(environment) / f"{datetime.now(UTC):%Y-%m-%d}"
        pairs, _ = chosen_pairs(registry, (), (), place)
        units = by_value(checks, benches, first or (), pairs, at_once)
        sanitizer, no_sanitizer = _sanitizer(place)
        units, needless = _without_needless(units, timed_before(out, environment) if new_only else {}, no_sanitizer)
        steps = [step for unit in units for step in unit.steps]
        file = ResultsFile(folder, environment, registry.problems)
        file.update(left_out=needless)
        limit = max(SHORTEST_LIMIT, seconds * LONGEST_ANSWER)
        complete = False
        with (
            turn_on(environment, console, end - monotonic()),
            Display(console, steps, name_operations=False, pairs=len(pairs)) as display,
            workers_for(place, display.phase, limit, registry) as workers,
            suppress(KeyboardInterrupt),
        ):
            work = _Work(place, console, display, workers, file, sanitizer, units, registry, limit)
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
        failed = show_standings(console, file.run.standings)
        console.print(left_out(file.run.left_out))
        if file.run.standings:
            console.print(closing_line(file.run.standings, (), (), ()))
        status = conclude(console, file.run, len(steps))
        _write_page(console, file)
        console.print(f"Results file: {file.path}", soft_wrap=True)
        write_json(run_to_json(file.run))
    raise typer.Exit(1 if failed and not status else status)


def _write_page(console: Console, file: ResultsFile) -> None:
    """Write the page beside the results file, and say where; or why there is none."""
    from ..report.page import ReportUnavailable, html

    page = file.path.with_suffix(".html")
    try:
        write_text(page, html([(str(file.path), file.run)]))
    except ReportUnavailable as error:
        console.print(f"No page: {error}", soft_wrap=True)
    else:
        console.print(f"Page: {page}", soft_wrap=True)


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
        registry: Registry,
        limit: float,
    ) -> None:
        self.left_out: list[LeftOut] = []
        self._registry, self._limit = registry, limit
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
        elif unit.kind == "validate":
            self._judge(unit.pairs)
        elif len(unit.steps) > 1 and unit.kind == "check":
            of = [self._device], self._limit, self._registry, self._display
            check_at_once(unit.steps, *of, lambda _, record: keep(record))
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
        judged = {(each.sampler, each.target) for each in self._file.run.standings}
        pairs = tuple(each for each in unit.pairs if (each[0].name, each[1].name) not in judged)
        if pairs or not unit.pairs:
            self.left_out += _left_out(replace(unit, pairs=pairs), "time", message)
        for _ in (*unit.steps, *pairs):
            self._display.done()

    def _announce(self, unit: Unit) -> None:
        """A line for each kind of unit in each round."""
        if self._current != (unit.round, unit.kind):
            self._current = unit.round, unit.kind
            age = timedelta(seconds=round(seconds_since_start()))
            count = self._count[self._current] * max(1, len(unit.pairs))
            what = "limits of the device" if unit.kind == "limits" else f"{unit.kind} ({count})"
            self._console.print(f"{age} round {unit.round + 1}: {what}")

    def _judge(self, pairs: Sequence[Pair]) -> None:
        """Judge samplers on targets, all at once."""
        from ..execution.parallel.judges import Judge, ask_all

        def judging(sampler: Sampler, target: Target) -> Job:
            def job(judge: Judge) -> Callable[[], None]:
                self._display.pair(sampler, target)
                rows = judge.standings(sampler, target, 0)

                def keep() -> None:
                    self._file.update(standings=(*self._file.run.standings, *rows))
                    self._display.done()

                return keep

            return job

        self._workers.close()
        threads = 1 if len(pairs) > 1 else 0
        judges = [Judge(self._device, lambda claim: None, self._limit, self._registry, threads) for _ in pairs]
        ask_all(judges, [[judging(*pair)] for pair in pairs])

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
    if unit.pairs:
        return [LeftOut(unit.kind, each.name, "", target.name, reason, message) for each, target in unit.pairs]
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
