"""The command `check`: every implementation against its operation's reference and exact laws."""

from contextlib import suppress
from dataclasses import replace

import typer

from ..api.operations import PRESETS
from ..api.records import Record, Run
from ..execution.plan import Purpose
from ..report.tables import check_summary
from ..report.terminal import outputs
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA, run_to_json
from .options import Device, Implementations, Json, Operations, Seed, TimeLimit
from .progress import Display
from .run_trials import DRAWS, build_ahead, carry_out, conclude, plan_steps, workers_for

CHECKED: tuple[Purpose, ...] = ("check", "real", "law")


def check(
    operations: Operations = None,
    implementations: Implementations = None,
    device: Device = "auto",
    seed: Seed = None,
    time_limit: TimeLimit = 600.0,
    json_file: Json = None,
) -> None:
    """Check every implementation against its operation's reference and exact laws."""
    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        registry, steps = plan_steps(place, operations, implementations, CHECKED, PRESETS[-1], seed)
        run = Run(SCHEMA, "incomplete", describe(place), (), registry.problems)
        records: list[Record] = []
        complete = False
        with (
            Display(console, steps) as display,
            workers_for(place, display, time_limit, registry, shared=place.type == "cpu") as workers,
            suppress(KeyboardInterrupt),
        ):
            build_ahead(steps, place, display)
            carry_out(steps, place, workers.trial, display, draws=DRAWS, keep=records.append)
            complete = True
        run = replace(run, status="complete" if complete else "incomplete", records=tuple(records))
        console.print(check_summary(records))
        status = conclude(console, run, len(steps))
        write_json(run_to_json(run))
    raise typer.Exit(status)
