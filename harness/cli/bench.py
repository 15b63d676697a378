"""The command `bench`: check the benchmark cases and real data, then time the implementations that agree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..api.messages import unknown
from ..api.operations import INTERPRETED_ON_CPU, PRESETS, Agreement, Status
from ..api.records import BenchOptions, Run, Shard
from ..cluster.shard import parse_shard, steps_of_shard
from ..discovery.registry import Registry
from ..execution.plan import Mode, Step
from ..report.tables import bench_tables, counted, limits
from ..report.terminal import outputs
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA, ResultsError, ResultsFile, read_run, record_key, run_to_json
from .options import (
    Cases,
    Device,
    Dtypes,
    Implementations,
    Json,
    Operations,
    Scenarios,
    Seed,
    ShardOf,
    Sizes,
    TimeLimit,
)
from .progress import Display
from .run_trials import (
    TIMED,
    Which,
    carry_out,
    conclude,
    default_preset,
    plan_steps,
    roofline_share,
    turn_on,
    without_timed,
    workers_for,
)

if TYPE_CHECKING:  # slow to import
    import torch

MODES: dict[str, tuple[Mode, ...]] = {"cold": ("cold",), "hot": ("hot",), "both": ("cold", "hot")}


def bench(
    context: typer.Context,
    operations: Operations = None,
    implementations: Implementations = None,
    cases: Cases = None,
    sizes: Sizes = None,
    dtypes: Dtypes = None,
    scenarios: Scenarios = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="smoke, quick or full; by default smoke on cpu, quick on cuda, and full with --case.",
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", metavar="NAME", help="cold (inputs not in cache), hot, or both.")
    ] = "cold",
    device: Device = "auto",
    seed: Seed = None,
    time_limit: TimeLimit = 600.0,
    shard: ShardOf = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results file.")] = Path("runs"),
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Continue this interrupted run with its own options."),
    ] = None,
    new_only: Annotated[
        bool,
        typer.Option("--new-only", help="Leave out cases that a run in --out has timed with the same source."),
    ] = False,
    profiler: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="TOOL", help="Run what agrees under ncu, nsys or proton instead of timing it."
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    """Check benchmark cases and real data, then time what agrees; each implementation has its own process."""
    with outputs(json_file) as (console, write_json):
        part = parse_shard(shard) if shard else None
        place = resolve_device(device)
        chosen = BenchOptions(
            operations=tuple(operations or ()),
            implementations=tuple(implementations or ()),
            preset=preset or (PRESETS[-1] if cases else default_preset(place)),
            mode=mode,
            seed=seed,
            sizes=tuple(sizes or ()),
            dtypes=tuple(dtypes or ()),
            scenarios=tuple(scenarios or ()),
            cases=tuple(cases or ()),
        )
        before: Shard | None = None
        if resume:
            chosen, before = _options_of_run(context, resume)
            part = (before.number, before.of) if before else None
        if profiler:
            _require_profiler(profiler, place)
        for kind, name, valid in (("preset", chosen.preset, PRESETS), ("mode", chosen.mode, tuple(MODES))):
            if name not in valid:
                raise unknown(kind, name, valid)
        modes = MODES[chosen.mode]
        which = Which(chosen.sizes, chosen.dtypes, chosen.scenarios, chosen.cases)
        of = chosen.operations, chosen.implementations, TIMED, chosen.preset, chosen.seed, which
        registry, steps = plan_steps(place, *of)
        of_plan: Shard | None = None
        if part:
            steps, of_plan = steps_of_shard(steps, *part, place.type, modes)
            _require_plan(resume, before, of_plan)
        environment = describe(place)
        if profiler:
            profiled, text = _profiled(console, place, registry, steps, profiler, time_limit)
            write_json(text)
            raise typer.Exit(profiled)
        if resume:
            file, left = _resumed(resume, steps, environment, modes, registry.problems, console)
        else:
            left, left_out = without_timed(steps, out, environment) if new_only else (steps, ())
            file = ResultsFile(out, environment, registry.problems)
            file.update(shard=of_plan, left_out=left_out)
            if not left and (part or left_out):
                file.update(command=chosen)
                _finish_empty(console, file, out)
                write_json(run_to_json(file.run))
                raise typer.Exit
        file.update(command=chosen)
        complete = False
        with (
            turn_on(environment, console),
            Display(console, left) as display,
            workers_for(place, display.phase, time_limit, registry) as workers,
            suppress(KeyboardInterrupt),
        ):
            with display.building():
                workers.build(left)
            overheads, ceilings, problems = workers.limits()
            file.update(overheads=overheads, ceilings=ceilings, problems=(*registry.problems, *problems))
            share = roofline_share(ceilings, environment)
            carry_out(
                left,
                place,
                workers.trial,
                display,
                draws=1,
                modes=modes,
                share=share,
                keep=file.add,
                keep_control=file.add_control,
                controls=file.run.controls,
            )
            complete = True
        earlier = file.run.seconds  # of the part before the interruption
        file.update(seconds={phase: earlier.get(phase, 0.0) + more for phase, more in display.seconds.items()})
        if complete:
            file.finish()
        else:
            file.close()
        console.print(bench_tables(file.run.records))
        console.print(limits(file.run))
        status = conclude(console, file.run, len(steps))
        console.print(f"Results file: {file.path}", soft_wrap=True)
        if not complete:
            console.print(f"Continue with: boltzbench bench --resume {file.path}", soft_wrap=True)
        write_json(run_to_json(file.run))
    raise typer.Exit(status)


def _require_profiler(profiler: str, device: torch.device) -> None:
    from ..profiling.tools import PROFILERS, require_profiler  # imported late: `--help` does not need it

    if profiler not in PROFILERS:
        raise unknown("profiler", profiler, PROFILERS)
    require_profiler(profiler, device)


def _profiled(
    console: Console, device: torch.device, registry: Registry, steps: Sequence[Step], profiler: str, time_limit: float
) -> tuple[int, str]:
    """Check the steps and run those that agree under the profiler. Print the table; return exit status and JSON."""
    from ..profiling.prediction import predictions
    from ..profiling.table import as_json, table
    from ..profiling.tools import profile_all

    environment = describe(device)
    with (
        Display(console, steps) as display,
        workers_for(device, display.phase, time_limit, registry) as workers,
    ):
        found, complete = profile_all(profiler, steps, device, registry, workers, display, time_limit)
    capability = str((environment.get("gpu") or {}).get("compute_capability", "")).replace(".", "")
    ran = [each.implementation for each in steps if each.implementation.backend in INTERPRETED_ON_CPU]
    reports = predictions(ran, f"sm_{capability}") if found and ran else {}
    console.print(table(found, reports))
    records = [each.record for each in found]
    run = Run(SCHEMA, "complete" if complete else "incomplete", environment, tuple(records), registry.problems)
    status = conclude(console, run, len(steps))
    lost = [each for each in found if each.record.status is Status.PASSED and not each.kernels]
    whole = {"schema": SCHEMA, "status": run.status, "environment": environment, "profiler": profiler}
    text = json.dumps({**whole, "records": as_json(found, reports), "problems": registry.problems}, indent=1) + "\n"
    return status or (1 if lost else 0), text


def _finish_empty(console: Console, file: ResultsFile, out: Path) -> None:
    """End a run that has nothing to do."""
    file.finish()
    words = f"Nothing is left to do: runs in {out} have it" if file.run.left_out else "This shard has no cases"
    console.print(f"{words}. Results file: {file.path}", soft_wrap=True)


def _require_plan(resume: Path | None, before: Shard | None, now: Shard) -> None:
    if before and before.plan != now.plan:
        raise ResultsError(
            f"cannot resume {resume}: it is {before} of plan {before.plan}, and the plugins installed here plan other "
            f"cases or implementations ({now.plan})"
        )


def _options_of_run(context: typer.Context, path: Path) -> tuple[BenchOptions, Shard | None]:
    """The options and the shard of the interrupted run. Raise if other options accompany --resume."""
    whole = "preset", "mode", "seed", "out", "sizes", "profile", "shard", "new_only"
    for name in ("operations", "implementations", "cases", "dtypes", "scenarios", *whole):
        if _given(context, "profiler" if name == "profile" else name):
            option = name.replace("_", "-") if name in whole else name.removesuffix("s")
            raise ResultsError(f"--{option} cannot be combined with --resume: the run keeps its own options")
    run = read_run(path)
    if run.command is None:
        raise ResultsError(f"cannot resume {path}: it was not written by bench")
    return run.command, run.shard


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _resumed(
    path: Path,
    steps: Sequence[Step],
    environment: Mapping[str, Any],
    modes: Sequence[Mode],
    problems: tuple[str, ...],
    console: Console,
) -> tuple[ResultsFile, list[Step]]:
    """The file of the interrupted run, and the steps that it lacks."""
    from ..execution.trial import record_of, sources_of

    sources = {(step.operation.name, step.implementation.name): sources_of(step) for step in steps}
    file = ResultsFile.resume(path, environment, sources, modes=modes, problems=problems)
    left = [step for step in steps if record_key(record_of(step, Agreement(Status.PASSED))) not in file.kept]
    console.print(f"Resumed {path}: {len(steps) - len(left)} of {len(steps)} checks are kept.", soft_wrap=True)
    for reason, count in file.dropped.items():
        console.print(f"{counted(count, 'case')} will be rerun: {reason}")
    return file, left
