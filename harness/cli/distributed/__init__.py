"""The command `distributed`: algorithms over many processes, compared with one process bit for bit, and timed.

Each rank is a process of its own already, so the command reads the plugins and runs their algorithms in it.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from ...api.messages import UsageError, unknown_beside
from ...report.tables import counted, grouped, new_table, problem_lines, si
from ...report.terminal import outputs
from ...results.environment import describe
from ...results.file import SCHEMA
from ..options import Json

if TYPE_CHECKING:
    from .measure import Row


def distributed(
    algorithms: Annotated[
        list[str] | None, typer.Option("-a", "--algorithm", metavar="NAME", help="Only this algorithm; repeatable.")
    ] = None,
    time_limit: Annotated[
        float,
        typer.Option(
            "--time-limit", min=1.0, metavar="SECONDS", help="For how long a rank waits for another before it gives up."
        ),
    ] = 60.0,
    json_file: Json = None,
) -> None:
    """Run algorithms on all ranks that torchrun started, compare the bits with those of one rank, and time both.

    torchrun --nproc-per-node 4 -m boltzbench.harness distributed
    """
    from ...discovery.registry import load_registry  # late, as it imports torch
    from .measure import measure

    registry = load_registry()
    for name in algorithms or ():
        if name not in registry.distributed:
            raise unknown_beside(registry.problems, "distributed algorithm", name, registry.distributed)
    chosen = [each for name, each in registry.distributed.items() if not algorithms or name in algorithms]
    rows: list[Row] = []
    environment: dict[str, Any] = {}
    with outputs(json_file if os.environ.get("RANK", "0") == "0" else None) as (console, write_json):
        try:
            for join, several in grouped(chosen, lambda each: each.join).items():
                with join(timeout=time_limit) as (ranks, device):
                    environment = describe(device) if ranks.rank == 0 else {}
                    rows += [measure(each, ranks, device) for each in several]
        except (ValueError, RuntimeError) as error:
            raise UsageError(" ".join(str(error).split())) from error
        if environment:
            console.print(_table(rows))
            for line in _notes(rows, environment):
                console.print(line)
            console.print(problem_lines(registry.problems))
            whole = {"schema": SCHEMA, "status": "complete", "environment": environment}
            found = [
                {**asdict(row), "efficiency": row.efficiency, "expected_efficiency": row.expected_efficiency}
                for row in rows
            ]
            write_json(json.dumps({**whole, "algorithms": found}, indent=1) + "\n")
    raise typer.Exit(0 if all(row.same_bits for row in rows) and not registry.problems else 1)


def _table(rows: Sequence["Row"]) -> RenderableType:
    table = new_table("algorithm", "ranks", "same bits", "sent", "alone", "together", "efficiency", "expected")
    for row in rows:
        table.add_row(
            row.algorithm,
            str(row.ranks),
            Text("yes", style="green") if row.same_bits else Text("NO", style="bold red"),
            si(row.bytes_per_step, "B") if row.bytes_per_step else "nothing",
            si(row.seconds_alone, "s"),
            si(row.seconds, "s"),
            f"{row.efficiency:.0%}",
            f"{row.expected_efficiency:.0%}",
        )
    return table


def _notes(rows: Sequence["Row"], environment: Mapping[str, Any]) -> Iterator[str]:
    """What the figures of the table are."""
    steps = grouped(rows, lambda row: row.step)
    several = ", ".join(f"one {step} ({', '.join(row.algorithm for row in some)})" for step, some in steps.items())
    yield f"A step is {several}."
    yield "Sent: by each rank in a step. Alone, together: the time of a step on one rank, and on all (of the slowest)."
    yield "Efficiency: alone / (ranks x together). Expected: by the cost model, with the links as measured now."
    if all(row.ranks == 1 for row in rows):
        yield "This was one rank alone; four: torchrun --nproc-per-node 4 -m boltzbench.harness distributed"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if environment["device"] == "cpu" and here * environment["threads"] > environment["cores"]:
        each, cores = counted(environment["threads"], "thread"), environment["cores"]
        yield f"{counted(here, 'rank')} of {each} share {counted(cores, 'core')}."
    if (load := os.getloadavg()[0]) > here * environment["threads"] + 1:
        yield f"Other processes use this machine (load {load:.1f}): the times are rough."
