"""The commands that read results files: `report` and `compare`. Nothing is run by them."""

from pathlib import Path
from typing import Annotated

import typer

from ..report.terminal import plain_console
from ..results.file import ResultsError, read_run, read_runs, require_writable, write_text

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Results files, as bench writes them.")]


def report(
    runs: Runs,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="One self-contained page; report.html if nothing is named."),
    ] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Tables as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="One line for each measurement.")] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="RUN", help="An earlier run to compare the times with.")
    ] = None,
) -> None:
    """Show runs: tables and plots in one page to look at, Markdown, CSV."""
    from ..report import page as writer

    if not (html or markdown or csv):
        html = Path("report.html")
    wanted = [(html, writer.html), (markdown, writer.markdown), (csv, writer.csv_text)]
    outputs = [path for path, _ in wanted if path]
    inputs = [each.resolve() for each in (*runs, *([against] if against else []))]
    for output in outputs:
        require_writable(output)
        if output.resolve() in inputs:
            raise ResultsError(f"{output} is a results file to be read: it would be overwritten")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ResultsError("two outputs have one name: one of them would be lost")
    found, errors = read_runs(runs)
    problems = [str(error) for error in errors]
    console = plain_console(stderr=True)
    for problem in problems:
        console.print(f"boltzbench: {problem}", soft_wrap=True)
    if not found:
        raise ResultsError("none of these files could be read: there is nothing to report")
    earlier = (str(against), read_run(against)) if against else None
    labelled = [(str(file), run) for file, run in found]
    for path, write in wanted:
        if path:
            try:
                text = write(labelled, against=earlier, problems=problems)
            except writer.ReportUnavailable as error:
                raise ResultsError(str(error)) from error
            write_text(path, text)
            console.print(f"Written: {path}", soft_wrap=True)
    raise typer.Exit(1 if problems else 0)


def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The results file of the earlier run.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The results file of the later run.")],
    fail_over: Annotated[
        str, typer.Option("--fail-over", metavar="PERCENT", help="How much slower is harmless.")
    ] = "5%",
    any_device: Annotated[bool, typer.Option("--any-device", help="Compare runs of different devices too.")] = False,
) -> None:
    """Compare two runs case by case; exit 1 if anything is slower beyond noise and the bound, or fails now."""
    from ..report.compare_tables import comparison_tables
    from ..results import compare as comparing

    try:
        bound = comparing.parse_bound(fail_over)
    except ValueError as error:
        raise ResultsError(str(error)) from error
    comparison = comparing.compare(read_run(base), read_run(new), bound=bound, any_device=any_device)
    plain_console().print(comparison_tables(comparison))
    raise typer.Exit(comparing.exit_status(comparison))
