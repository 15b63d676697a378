"""The command `merge`, which joins results files and runs nothing."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...cluster.merge import Merged
from ...report.tables import counted
from ...report.terminal import plain_console


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Results files of shards or machines.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The results file to write.")],
    last_wins: Annotated[
        bool, typer.Option("--last-wins", help="Take a case that several files hold from the one named last.")
    ] = False,
) -> None:
    """Join the runs of shards or machines into one results file. Exit with 1 if something is missing or unfinished."""
    from ...cluster.merge import merge as join

    merged = join(runs, out, last_wins=last_wins)
    console = plain_console()
    for words in merged.gaps:
        console.print(words, soft_wrap=True)
    show_merged(console, merged, out)
    raise typer.Exit(1 if merged.gaps else 0)


def show_merged(console: Console, merged: Merged, out: Path) -> None:
    """Print what differs, and where the merged run is."""
    for words in merged.notes:
        console.print(words, soft_wrap=True)
    of = counted(len(merged.run.parts), "run")
    console.print(f"Merged {counted(merged.records, 'record')} of {of}: {out}", soft_wrap=True)
