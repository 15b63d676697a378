"""The command `bench`: check the benchmark cases and real data, then time the implementations that agree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..api.messages import UsageError, unknown
from ..api.operations import INTERPRETED_ON_CPU, PRESETS, Agreement, Status
from ..api.records import BenchOptions, Run, Shard, UsedDevice
from ..cluster.shard import parse_shard, steps_of_shard
from ..discovery.registry import Registry
from ..execution.plan import Mode, Step
from ..report.tables import bench_tables, counted, limits
from ..report.terminal import outputs
from ..results.environment import describe, describe_all, describe_gpu, resolve_devices
from ..results.file import SCHEMA, ResultsError, ResultsFile, read_run, record_key, run_to_json
from ..results.slow_devices import slow_devices
from .options import (
    Cases,
    Devices,
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
    steps_of_plugins,
    turn_on,
    without_timed,
    workers_for,
)

if TYPE_CHECKING:  # slow to import
    import torch

    from ..execution.parallel.devices import DeviceLane

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
    device: Devices = "auto",
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
            "--profile", metavar="TOOL", help="Run what agrees under ncu, nsys, proton or torch instead of timing it."
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    """Check benchmark cases and real data, then time what agrees; each implementation has its own process."""
    with outputs(json_file) as (console, write_json):
        part = parse_shard(shard) if shard else None
        devices = resolve_devices(_devices_of_run(resume) if resume and not _given(context, "device") else device)
        place = devices[0]
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
            if len(devices) > 1:
                raise UsageError("--profile runs on one device: choose one by --device")
            _require_profiler(profiler, place)
        _require_words(chosen.preset, chosen.mode)
        modes = MODES[chosen.mode]
        which = Which(chosen.sizes, chosen.dtypes, chosen.scenarios, chosen.cases)
        of = chosen.operations, chosen.implementations, TIMED, chosen.preset, chosen.seed, which
        registry, steps = plan_steps(place, *of, many=len(devices) > 1)
        of_plan: Shard | None = None
        if part:
            steps, of_plan = steps_of_shard(steps, *part, place.type, modes)
            _require_plan(resume, before, of_plan)
        environment = describe_all(devices)
        compared = len(devices) > 1 or (part and place.type == "cuda")  # with one another, or by `merge`
        used = tuple(UsedDevice(str(each), describe_gpu(each)) for each in devices) if compared else ()
        if profiler:
            profiled, text = _profiled(console, place, registry, steps, profiler, time_limit)
            write_json(text)
            raise typer.Exit(profiled)
        if resume:
            file, left = _resumed(resume, steps, environment, modes, registry.problems, console, used)
        else:
            left, left_out = without_timed(steps, out, environment) if new_only else (steps, ())
            file = ResultsFile(out, environment, registry.problems)
            file.update(shard=of_plan, left_out=left_out)
            if not left and (part or left_out):
                file.update(command=chosen)
                _finish_empty(console, file, out)
                write_json(run_to_json(file.run))
                raise typer.Exit
        file.update(command=chosen, devices=used)
        complete = False
        with (
            turn_on(environment, console, devices=used),
            Display(console, left) as display,
            display.on([*map(str, devices)]) as displays,
            _lanes(devices, displays, time_limit, registry) as lanes,
            suppress(KeyboardInterrupt),
        ):
            with displays[0].building():
                lanes[0].workers.build(left)
            if used:
                _on_all(lanes, left, modes, file, console)
            else:
                overheads, ceilings, problems = lanes[0].workers.limits()
                file.update(overheads=overheads, ceilings=ceilings, problems=(*registry.problems, *problems))
                carry_out(
                    left,
                    place,
                    lanes[0].workers.trial,
                    display,
                    draws=1,
                    modes=modes,
                    share=roofline_share(ceilings, environment),
                    keep=file.add,
                    keep_control=file.add_control,
                    controls=file.run.controls,
                )
            complete = True
        places = {_key(step): place for place, step in enumerate(steps)}
        file.arrange(lambda record: places.get(record_key(record), len(places)))
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


def require_plan(options: Mapping[str, Any]) -> None:
    """Raise what `bench` with these options raises on every machine: for its words, names, cases and sizes."""
    _require_words(options["preset"] or PRESETS[-1], options["mode"])
    which = Which(*(tuple(options[name] or ()) for name in ("sizes", "dtypes", "scenarios", "cases")))
    steps_of_plugins("cpu", options["operations"], options["implementations"], TIMED, PRESETS[-1], None, which)


def _require_words(preset: str, mode: str) -> None:
    for kind, name, valid in (("preset", preset, PRESETS), ("mode", mode, tuple(MODES))):
        if name not in valid:
            raise unknown(kind, name, valid)


@contextmanager
def _lanes(
    devices: Sequence[torch.device], displays: Sequence[Display], time_limit: float, registry: Registry
) -> Iterator[list[DeviceLane]]:
    """A lane for each device. Their processes end with the context."""
    from ..execution.parallel.devices import DeviceLane  # imported late: scipy is slow to load

    with ExitStack() as stack:
        yield [
            DeviceLane(device, stack.enter_context(workers_for(device, own.phase, time_limit, registry)), own)
            for device, own in zip(devices, displays, strict=True)
        ]


def _on_all(
    lanes: Sequence[DeviceLane], steps: Sequence[Step], modes: Sequence[Mode], file: ResultsFile, console: Console
) -> None:
    """Measure and compare the devices, then share out the cases among them."""
    from ..execution.parallel import devices

    working, used, problems = devices.examine(lanes, {each.device: each.gpu for each in file.run.devices})
    first = next((each for each in used if each.ceilings), used[0])
    file.update(
        devices=used, overheads=first.overheads, ceilings=first.ceilings, problems=(*file.run.problems, *problems)
    )
    for words in (*problems, *slow_devices(file.run)):
        console.print(Text(words, style="yellow"))

    def lost(device: torch.device) -> None:
        words = f"{device} stopped working: the other devices do its cases"
        file.update(problems=(*file.run.problems, words))
        console.print(Text(words, style="red"))

    devices.carry_out(
        working,
        steps,
        draws=1,
        modes=modes,
        shares={each.device: roofline_share(each.ceilings, {"gpu": each.gpu}) for each in used},
        keep=file.add,
        keep_control=file.add_control,
        controlled={each.operation for each in file.run.controls},
        lost=lost,
    )


def _devices_of_run(path: Path) -> str:
    """What ``--device`` was for an interrupted run."""
    return str(read_run(path).environment.get("device", "auto"))


def _key(step: Step) -> str:
    from ..execution.trial import record_of

    return record_key(record_of(step, Agreement(Status.PASSED)))


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
    ran = [each.implementation for each in steps if each.implementation.backend in INTERPRETED_ON_CPU]
    reports = predictions(ran, environment.get("gpu") or {}) if found and ran else {}
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
    devices: tuple[UsedDevice, ...],
) -> tuple[ResultsFile, list[Step]]:
    """The file of the interrupted run, and the steps that it lacks."""
    from ..execution.trial import sources_of

    sources = {(step.operation.name, step.implementation.name): sources_of(step) for step in steps}
    file = ResultsFile.resume(path, environment, sources, modes=modes, problems=problems, devices=devices)
    left = [step for step in steps if _key(step) not in file.kept]
    console.print(f"Resumed {path}: {len(steps) - len(left)} of {len(steps)} checks are kept.", soft_wrap=True)
    for reason, count in file.dropped.items():
        console.print(f"{counted(count, 'case')} will be rerun: {reason}")
    return file, left
