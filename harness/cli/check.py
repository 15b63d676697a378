"""The command `check`: every implementation against its operation's reference and exact laws."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING

import typer

from ..api.operations import PRESETS
from ..api.records import Record, Run
from ..cluster.shard import parse_shard, steps_of_shard
from ..discovery.registry import Registry
from ..discovery.time_limit import clean_up_in_peace
from ..execution.plan import Purpose, Step
from ..report.tables import check_summary
from ..report.terminal import outputs
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA, run_to_json
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
    device: Device = "auto",
    seed: Seed = None,
    time_limit: TimeLimit = 600.0,
    shard: ShardOf = None,
    json_file: Json = None,
) -> None:
    """Check every implementation against its operation's reference and exact laws."""
    with outputs(json_file) as (console, write_json):
        part = parse_shard(shard) if shard else None
        place = resolve_device(device)
        on_cpu = place.type == "cpu"
        which = Which(*(tuple(each or ()) for each in (sizes, dtypes, scenarios, cases)))
        of = operations, implementations, CHECKED, PRESETS[-1], seed, which
        registry, steps = plan_steps(place, *of, many=on_cpu)
        run = Run(SCHEMA, "incomplete", describe(place), (), registry.problems)
        if part:
            steps, of_plan = steps_of_shard(steps, *part, place.type)
            run = replace(run, shard=of_plan)
            if not steps:
                console.print("This shard has no cases.")
                write_json(run_to_json(replace(run, status="complete")))
                raise typer.Exit
        records: list[tuple[int, Record]] = []
        complete = False
        with Display(console, steps) as display, suppress(KeyboardInterrupt):
            check_at_once(steps, place, time_limit, registry, display, lambda *found: records.append(found))
            complete = True
        found = tuple(record for _, record in sorted(records, key=lambda each: each[0]))
        run = replace(run, status="complete" if complete else "incomplete", records=found)
        console.print(check_summary(found))
        status = conclude(console, run, len(steps))
        write_json(run_to_json(run))
    raise typer.Exit(status)


def check_at_once(
    steps: Sequence[Step],
    device: torch.device,
    time_limit: float,
    registry: Registry,
    display: Display,
    keep: Callable[[int, Record], None],
) -> None:
    """Check as many implementations at once as there are cores, and one at a time on a GPU.

    Calls ``keep`` with the place of each step and its record.
    """
    own: dict[tuple[str, str], list[tuple[int, Step]]] = {}
    for place, step in enumerate(steps):
        own.setdefault((step.operation.name, step.implementation.name), []).append((place, step))
    waiting = deque(own.values())
    on_cpu = device.type == "cpu"
    lanes = min(len(waiting), len(os.sched_getaffinity(0))) if on_cpu else 1
    interrupted = Event()

    def check_next(workers: Workers) -> None:
        """Check implementations as long as some are waiting."""
        while waiting:
            try:
                places, chosen = zip(*waiting.popleft(), strict=True)
            except IndexError:  # another thread has taken the last
                return
            left = deque(places)

            def trial(step: Step) -> TrialProtocol:
                if interrupted.is_set():
                    raise KeyboardInterrupt
                return workers.trial(step)

            def keep_next(record: Record, left: deque[int] = left) -> None:
                if interrupted.is_set():  # its worker was ended
                    raise KeyboardInterrupt
                keep(left.popleft(), record)

            carry_out(chosen, device, trial, display, draws=DRAWS, keep=keep_next)
            workers.release(step for unit in [*waiting] for _, step in unit)

    with ExitStack() as stack:
        threads = 1 if lanes > 1 else 0
        places = [
            stack.enter_context(
                workers_for(device, display.phase, time_limit, registry, shared=on_cpu, threads=threads)
            )
            for _ in range(lanes)
        ]
        if steps:
            with display.building():
                places[0].build(steps)
        with ThreadPoolExecutor(max(1, lanes)) as pool:
            running = [pool.submit(check_next, workers) for workers in places]
            try:
                for each in running:
                    each.result()
            except BaseException:
                clean_up_in_peace()
                interrupted.set()
                waiting.clear()
                while wait(running, 0.05).not_done:
                    for workers in places:
                        workers.kill()
                raise
