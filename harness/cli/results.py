"""The commands `report` and `compare`, which read results files and run nothing."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..report.terminal import plain_console
from ..results.file import ResultsError, read_run, read_runs, require_writable, write_text

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Results files of bench, check or validate.")]
STDOUT = Path("-")


def report(
    runs: Runs,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="One self-contained page, or - (stdout). Without any of the three: report.html.",
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Markdown tables, or - (stdout).")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="One line for each measurement or record without one, or - (stdout)."
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="RUN", help="Earlier run to compare the times with.")
    ] = None,
) -> None:
    """Write a report on runs: an HTML page with tables and plots, Markdown, or CSV."""
    from ..report import page as writer

    if not (html or markdown or csv):
        html = Path("report.html")
    wanted = [(html, writer.html), (markdown, writer.markdown), (csv, writer.csv_text)]
    outputs = [path for path, _ in wanted if path]
    inputs = [each.resolve() for each in (*runs, *([against] if against else []))]
    for output in outputs:
        if output != STDOUT:
            require_writable(output)
        if output.resolve() in inputs:
            raise ResultsError(f"{output} is an input and would be overwritten: give the report another name")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ResultsError("two outputs have the same name: give each its own")
    found, errors = read_runs(runs)
    problems = [str(error) for error in errors]
    console = plain_console(stderr=True)
    for problem in problems:
        console.print(f"boltzbench: {problem}", soft_wrap=True)
    if not found:
        raise ResultsError("no results file could be read, so there is nothing to report")
    earlier = (str(against), read_run(against)) if against else None
    labelled = [(str(file), run) for file, run in found]
    for path, write in wanted:
        if path:
            try:
                text = write(labelled, against=earlier, problems=problems)
            except writer.ReportUnavailable as error:
                raise ResultsError(str(error)) from error
            if path == STDOUT:
                sys.stdout.write(text)
            else:
                write_text(path, text)
                console.print(f"Written: {path}", soft_wrap=True)
    raise typer.Exit(1 if problems else 0)


def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Results file of the earlier run.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Results file of the later run.")],
    fail_over: Annotated[str, typer.Option("--fail-over", metavar="PERCENT", help="Allowed slowdown.")] = "5%",
    any_device: Annotated[bool, typer.Option("--any-device", help="Also compare runs on different devices.")] = False,
) -> None:
    """Compare two runs case by case. Exit with 1 if a case fails now, or is slower by more than noise and the bound."""
    from ..report.compare_tables import comparison_tables
    from ..results import compare as comparison_of_runs

    try:
        bound = comparison_of_runs.parse_bound(fail_over)
    except ValueError as error:
        raise ResultsError(str(error)) from error
    runs = [comparison_of_runs.read_summary(path) for path in (base, new)]
    comparison = comparison_of_runs.compare(*runs, bound=bound, any_device=any_device)
    plain_console().print(comparison_tables(comparison))
    raise typer.Exit(comparison_of_runs.exit_status(comparison))
