"""The command `check`: every implementation against its operation's reference and exact laws."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from ..api.operations import PRESETS
from ..api.records import Record, Run
from ..cluster.shard import parse_shard, steps_of_shard
from ..discovery.registry import Registry
from ..execution.parallel.lanes import MOST_ON_A_CPU, CountsKept, Found, Going, Queue, share_out
from ..execution.plan import Purpose, Step
from ..report.tables import check_summary
from ..report.terminal import outputs
from ..results.environment import describe_all, resolve_devices
from ..results.file import SCHEMA, run_to_json
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
from .run_trials import DRAWS, Which, carry_out, conclude, plan_steps, workers_for

if TYPE_CHECKING:
    import torch

    from ..execution.trial import TrialProtocol
    from ..execution.worker import Workers

CHECKED: tuple[Purpose, ...] = ("check", "real", "law")


def check(
    operations: Operations = None,
    implementations: Implementations = None,
    cases: Cases = None,
    sizes: Sizes = None,
    dtypes: Dtypes = None,
    scenarios: Scenarios = None,
    device: Devices = "auto",
    seed: Seed = None,
    time_limit: TimeLimit = 600.0,
    shard: ShardOf = None,
    json_file: Json = None,
) -> None:
    """Check every implementation against its operation's reference and exact laws."""
    with outputs(json_file) as (console, write_json):
        part = parse_shard(shard) if shard else None
        devices = resolve_devices(device)
        place = devices[0]
        on_cpu = place.type == "cpu"
        which = Which(*(tuple(each or ()) for each in (sizes, dtypes, scenarios, cases)))
        of = operations, implementations, CHECKED, PRESETS[-1], seed, which
        registry, steps = plan_steps(place, *of, many=on_cpu or len(devices) > 1)
        run = Run(SCHEMA, "incomplete", describe_all(devices), (), registry.problems)
        if part:
            steps, of_plan = steps_of_shard(steps, *part, place.type)
            run = replace(run, shard=of_plan)
            if not steps:
                console.print("This shard has no cases.")
                write_json(run_to_json(replace(run, status="complete")))
                raise typer.Exit
        records: list[tuple[int, Record]] = []
        complete = False
        lost: list[str] = []
        with Display(console, steps) as display, suppress(KeyboardInterrupt):
            check_at_once(
                steps, devices, time_limit, registry, display, lambda *found: records.append(found),
                lambda device: lost.append(f"{device} stopped working: the other devices did its checks"),
            )  # fmt: skip
            complete = True
        found = tuple(record for _, record in sorted(records, key=lambda each: each[0]))
        run = replace(
            run, status="complete" if complete else "incomplete", records=found, problems=(*run.problems, *lost)
        )
        console.print(check_summary(found))
        status = conclude(console, run, len(steps))
        write_json(run_to_json(run))
    raise typer.Exit(status)


@dataclass(frozen=True)
class Lane:
    """A device, or a core of it, with its workers."""

    device: torch.device
    workers: Workers


def check_at_once(
    steps: Sequence[Step],
    devices: Sequence[torch.device],
    time_limit: float,
    registry: Registry,
    display: Display,
    keep: Callable[[int, Record], None],
    lost: Callable[[torch.device], None] = lambda device: None,
) -> None:
    """Check as many implementations at once as there are cores, at most `MOST_ON_A_CPU`, or devices. An implementation
    of an operation stays on its device.

    Calls ``keep`` with the place of each step and its record, and ``lost`` with a device that no longer works.
    """
    own: dict[tuple[str, str], list[tuple[int, Step]]] = {}
    for place, step in enumerate(steps):
        own.setdefault((step.operation.name, step.implementation.name), []).append((place, step))
    on_cpu = devices[0].type == "cpu"
    if on_cpu and len(devices) == 1:
        devices = [*devices] * min(len(os.sched_getaffinity(0)), MOST_ON_A_CPU)
    devices = devices[: max(1, len(own))]
    queue = Queue(own.values(), len(devices))

    def check_next(lane: Lane, unit: Sequence[tuple[int, Step]], going: Going, found: Found) -> None:
        places, chosen = zip(*unit, strict=True)
        left = deque(places)

        def trial(step: Step) -> TrialProtocol:
            going.require()
            return lane.workers.trial(step)

        def keep_next(record: Record) -> None:
            place = left.popleft()
            found(lambda: keep(place, record))

        carry_out(chosen, lane.device, trial, CountsKept(display, found), draws=DRAWS, keep=keep_next)
        lane.workers.release(step for unit in queue.waiting for _, step in unit)

    with ExitStack() as stack:
        threads = 1 if len(devices) > 1 else 0
        lanes = [
            Lane(
                device,
                stack.enter_context(
                    workers_for(device, display.phase, time_limit, registry, shared=on_cpu, threads=threads)
                ),
            )
            for device in devices
        ]
        if steps:
            with display.building():
                lanes[0].workers.build(steps)
        share_out(lanes, queue, check_next, lambda lane: lost(lane.device))
