"""The commands `report`, `compare` and `history`, which read results files and run nothing."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..api.records import Run
from ..report.terminal import plain_console
from ..results.environment import device_name
from ..results.file import ResultsError, read_runs, require_writable, write_text
from ..results.predictions import read_predictions
from .options import Json

Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Results files of bench, check or validate.")]
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
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", metavar="FILE", help="JSON of bench --profile: compare rates with what it expects."
        ),
    ] = None,
) -> None:
    """Write a report on runs: an HTML page with tables and plots, Markdown, or CSV."""
    from ..report import page as writer
    from ..report.rows import foretold, foretold_line, rows

    if not (html or markdown or csv):
        html = Path("report.html")
    inputs = [*runs, *(each for each in (against, predictions) if each)]
    outputs = _require_outputs({"html": html, "markdown": markdown, "csv": csv}, inputs)
    found, errors = read_runs(runs)
    problems = [str(error) for error in errors]
    console = plain_console(stderr=True)
    for problem in problems:
        console.print(f"boltzbench: {problem}", soft_wrap=True)
    if not found:
        raise ResultsError("no results file could be read, so there is nothing to report")
    earlier = (str(against), _of_one_device(against)) if against else None
    several = {file for file, count in Counter(file for file, _ in found).items() if count > 1}
    labelled = [
        (f"{file} on {device_name(run.environment)}" if file in several else str(file), run) for file, run in found
    ]
    expected = read_predictions(predictions) if predictions else None
    if expected and (compared := foretold(labelled, rows(labelled), expected)[0]):
        console.print(foretold_line(compared))
    writers = {"html": writer.html, "markdown": writer.markdown, "csv": writer.csv_text}
    for kind, path in outputs.items():
        try:
            text = writers[kind](labelled, against=earlier, predictions=expected, problems=problems)
        except writer.ReportUnavailable as error:
            raise ResultsError(str(error)) from error
        _write(path, text)
    raise typer.Exit(1 if problems else 0)


def _of_one_device(path: Path) -> Run:
    found, errors = read_runs([path])
    if errors:
        raise errors[0]
    if len(found) > 1:
        raise ResultsError(f"--against {path}: it has times of {len(found)} kinds of device; take a run of one")
    return found[0][1]


def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Results file of the earlier run.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Results file of the later run.")],
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-over",
            metavar="[CASES=]PERCENT",
            help="Allowed slowdown, 5% by default; of some cases: 'sgld * cold=3%'. Repeatable, the last match counts.",
        ),
    ] = None,
    any_device: Annotated[bool, typer.Option("--any-device", help="Also compare runs on different devices.")] = False,
    json_file: Json = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="A comment for a pull request, or to - (stdout)."),
    ] = None,
) -> None:
    """Compare two runs case by case. Exit with 1 if a case fails now, or is slower by more than noise and the bound."""
    from ..report.compare_tables import comparison_markdown, comparison_tables
    from ..results import compare as comparison_of_runs

    outputs = _require_outputs({"json": json_file, "markdown": markdown}, (base, new))
    try:
        bounds = comparison_of_runs.parse_bounds(fail_over or ())
    except ValueError as error:
        raise ResultsError(str(error)) from error
    runs = [comparison_of_runs.read_summary(path) for path in (base, new)]
    comparison = comparison_of_runs.compare(*runs, bound=bounds, any_device=any_device)
    plain_console(stderr=STDOUT in outputs.values()).print(comparison_tables(comparison))
    if path := outputs.get("json"):
        _write(path, _as_text(comparison_of_runs.as_json(comparison)))
    if path := outputs.get("markdown"):
        _write(path, comparison_markdown(comparison))
    raise typer.Exit(comparison_of_runs.exit_status(comparison))


def history(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of results files, and of folders of them.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="A page with a trend for each case, or - (stdout).")
    ] = None,
    json_file: Json = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="A table of steps, or to - (stdout).")
    ] = None,
    fail_over: Annotated[str, typer.Option("--fail-over", metavar="PERCENT", help="Allowed slowdown.")] = "5%",
) -> None:
    """Show how times changed over many runs, and where the steps are.

    Exit with 1 if the newest are slower by more than noise and the bound, if a case fails that passed before, or if a
    results file could not be used.
    """
    from ..report import history_page as writer
    from ..report.page import ReportUnavailable
    from ..results import history as histories
    from ..results.compare import parse_bound

    outputs = _require_outputs({"html": html, "json": json_file, "markdown": markdown}, ())
    try:
        bound = parse_bound(fail_over)
    except ValueError as error:
        raise ResultsError(str(error)) from error
    found = histories.read_history(folder, bound=bound)
    inputs = [run.path.resolve() for machine in found.machines for run in machine.runs]
    for output in outputs.values():
        if output.resolve() in inputs:
            raise ResultsError(f"{output} is an input and would be overwritten: give the output another name")
    plain_console(stderr=STDOUT in outputs.values()).print(writer.history_text(found))
    try:
        if path := outputs.get("html"):
            _write(path, writer.history_html(found))
    except ReportUnavailable as error:
        raise ResultsError(str(error)) from error
    if path := outputs.get("json"):
        _write(path, _as_text(histories.as_json(found)))
    if path := outputs.get("markdown"):
        _write(path, writer.history_markdown(found))
    raise typer.Exit(1 if found.failed or found.problems else 0)


def _require_outputs(wanted: Mapping[str, str | Path | None], inputs: Sequence[Path]) -> dict[str, Path]:
    """The chosen outputs. Raises ResultsError if one cannot be written, is an input, or has the name of another."""
    outputs = {kind: Path(path) for kind, path in wanted.items() if path}
    for output in outputs.values():
        if output != STDOUT:
            require_writable(output)
        if output.resolve() in [each.resolve() for each in inputs]:
            raise ResultsError(f"{output} is an input and would be overwritten: give the output another name")
    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        raise ResultsError("two outputs have the same name: give each its own")
    return outputs


def _write(path: Path, text: str) -> None:
    if path == STDOUT:
        sys.stdout.write(text)
    else:
        write_text(path, text)
        plain_console(stderr=True).print(f"Written: {path}", soft_wrap=True)


def _as_text(values: object) -> str:
    return json.dumps(values, allow_nan=False, indent=1) + "\n"
