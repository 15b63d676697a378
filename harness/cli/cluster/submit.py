"""The command `submit`: runs `bench` as shards on the nodes of a cluster, and merges them."""

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status

from ...api.messages import UsageError
from ...cluster.submission import Progress, Submission
from ...report.tables import closing_line, failed_records, failure_details, problem_lines
from ...report.terminal import plain_console
from ...results.file import read_run
from ..options import INTERRUPTED
from .merge import show_merged


def submit(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="bench and its options, after two dashes.")],
    nodes: Annotated[int, typer.Option("--nodes", min=1, metavar="N", help="Shards, each a job on one node.")],
    partition: Annotated[str | None, typer.Option("--partition", metavar="NAME", help="Slurm's partition.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=0, metavar="N", help="GPUs of each node.")] = None,
    minutes: Annotated[
        int, typer.Option("--minutes", min=1, metavar="N", help="Time limit of a job, which continues three times.")
    ] = 240,
    slurm: Annotated[
        list[str] | None,
        typer.Option("--slurm", metavar="KEY=VALUE", help="Another option of sbatch: account=mine; repeatable."),
    ] = None,
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="slurm, or local: processes on this machine.")
    ] = "auto",
    detach: Annotated[bool, typer.Option("--detach", help="Return when the jobs are submitted.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder that all nodes see.")] = Path("runs"),
) -> None:
    """Run bench as shards on the nodes of a cluster, follow the jobs, and merge what they have.

    The same command again follows jobs at work, continues cancelled ones, and repeats nothing that is finished.
    """
    from ...cluster.executors import Submitit, chosen_cluster
    from ...cluster.submission import submit as submit_shards

    place = chosen_cluster(cluster)
    _require_command(context, command)
    executor = Submitit(place, **_parameters(place, partition, gpus, minutes, slurm or ()))
    console = plain_console()
    folders: list[Path] = []

    def at_work(folder: Path) -> Any:
        folders.append(folder)
        return executor.at_work(folder)

    shown, show = _display(console)
    again = shlex.join(_again(context, command))
    try:
        with shown:
            found = submit_shards(command, nodes, executor, out=out, at_work=at_work, show=show, detach=detach)
    except KeyboardInterrupt:
        words = executor.stop(folders[0]) if folders else ""
        console.print(f"Interrupted. {words}".rstrip())
        console.print(f"Continue with: {again}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    if detach:
        console.print(f"Submitted; the jobs write to {found.folder}.", soft_wrap=True)
        console.print(f"Follow, continue and merge with: {again.replace(' --detach', '')}", soft_wrap=True)
        raise typer.Exit
    raise typer.Exit(_conclude(console, found, again))


def _conclude(console: Console, found: Submission, again: str) -> int:
    """Print what the shards have and lack; return the exit status."""
    status = 1
    if found.merged:
        run = read_run(found.path)
        console.print(failure_details(run.records))
        console.print(problem_lines(run.problems))
        console.print(closing_line(run.records, run.problems), soft_wrap=True)
        status = 1 if failed_records(run.records) or run.problems or not run.records else 0
        show_merged(console, found.merged, found.path)
    for number, reason in found.reasons.items():
        state = found.states[number]
        done = f"{state.records} of {state.steps or '?'} checks"
        console.print(f"shard {number}/{len(found.states)} is unfinished ({done}): {reason}", soft_wrap=True)
        console.print(f"  log: {found.folder / f'shard-{number}' / 'log.txt'}", soft_wrap=True)
    if not found.complete:
        console.print(f"What is finished is kept. Continue with: {again}", soft_wrap=True)
        return 1
    return status


def _require_command(context: typer.Context, command: list[str]) -> None:
    """Raise what `bench` itself would raise for its options and names, before anything waits in a queue."""
    from ..bench import require_plan

    commands = getattr(context.parent and context.parent.command, "commands", {})
    if command[0] == "bench" and "bench" in commands:
        require_plan(commands["bench"].make_context("bench", command[1:], parent=context.parent).params)


def _parameters(
    place: str, partition: str | None, gpus: int | None, minutes: int, slurm: list[str] | tuple[()]
) -> dict[str, Any]:
    """The parameters of submitit's executor."""
    more = {}
    for each in slurm:
        key, separator, value = each.partition("=")
        if not (separator and key):
            raise UsageError(f"--slurm takes an option of sbatch with its value, such as account=mine: got {each!r}")
        more[key.removeprefix("--")] = value
    if place == "local" and (partition or more):
        raise UsageError("--partition and --slurm go with Slurm, not with --cluster local")
    of_slurm = {"slurm_partition": partition, "slurm_additional_parameters": more or None} if place == "slurm" else {}
    return {"name": "boltzbench", "timeout_min": minutes, "gpus_per_node": gpus, **of_slurm}


def _display(console: Console) -> tuple[AbstractContextManager[Any], Callable[[Progress], None]]:
    """A live line on a terminal, a line for each change elsewhere."""
    if console.is_terminal:
        line = Status("submitting", console=console, spinner="line")
        return line, lambda progress: line.update(str(progress))
    last: list[tuple[int, ...]] = []

    def show(progress: Progress) -> None:
        now = progress.complete, progress.at_work, progress.waiting, progress.failed
        if last != [now]:
            last[:] = [now]
            console.print(str(progress))

    return nullcontext(), show


def _again(context: typer.Context, command: list[str]) -> list[str]:
    """The words of this command."""
    words = ["boltzbench", "submit"]
    for parameter in context.command.params:
        value, source = context.params.get(parameter.name or ""), context.get_parameter_source(parameter.name or "")
        if parameter.param_type_name != "option" or source is None or source.name != "COMMANDLINE":
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            words += [parameter.opts[0]] if each is True else [parameter.opts[0], str(each)]
    return [*words, "--", *command]
