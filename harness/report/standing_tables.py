"""Tables of samplers' standings and of experiments' estimates: their cells, and their form on a terminal."""

import math
from collections.abc import Callable, Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..api.experiments import Estimate
from ..api.messages import in_standard_errors
from ..api.operations import Status
from ..api.records import Claim, Outcome, Standing
from .tables import NarrowableTable, si, status_words

COLUMNS = {
    "T": 6, "claims": 7, "worst p": 8, "worst z": 7, "ESS/s": 6, "tau": 6, "accept": 6, "R-hat": 5,
}  # fmt: skip
"""Headings and widths of `standing_cells`: ``tau`` is the autocorrelation time in steps, ``accept`` the acceptance."""


def standing_cells(standing: Standing) -> list[str]:
    """The cells of `COLUMNS`; "-" for an unknown value."""
    tried = standing.tried
    p_values = [each.p_value for each in tried if each.p_value is not None]
    zs = [each.z for each in tried if each.z is not None]

    def of_efficiency(name: str, form: Callable[[float], str]) -> str:
        value = getattr(standing.efficiency, name, None)
        return "-" if value is None else form(value)

    return [
        f"{standing.temperature:.4g}",
        f"{len(tried) - len(standing.failed)}/{len(tried)}" if tried else "-",
        f"{min(p_values):.2g}" if p_values else "-",
        in_standard_errors(max(zs, key=abs)) if zs else "-",
        of_efficiency("ess_per_second", si),
        of_efficiency("autocorrelation_time", "{:.3g}".format),
        of_efficiency("acceptance", "{:.0%}".format),
        of_efficiency(
            "r_hat", lambda value: f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 100 else ">99"
        ),
    ]


def unmixed_lines(standings: Iterable[Standing]) -> list[str]:
    """For each standing whose chains did not mix, a line with the reason."""
    return [
        f"did not mix, so ESS/s says little: {each.sampler} on {each.target}, T = {each.temperature:g}: {each.unmixed}"
        for each in standings
        if each.unmixed
    ]


def claim_cells(claim: Claim | Estimate) -> list[str]:
    """Claim, exact value, measured value with its standard error, z, p-value and status."""
    measured = ""
    if claim.measured is not None:
        measured = f"{claim.measured:.6g}" + (f" ± {claim.stderr:.2g}" if claim.stderr is not None else "")
    return [
        claim.claim,
        "" if claim.exact is None else f"{claim.exact:.6g}",
        measured,
        "" if claim.z is None or not math.isfinite(claim.z) else in_standard_errors(claim.z),
        "" if claim.p_value is None else f"{claim.p_value:.2g}",
        "" if claim.status is None else status_words(claim.status),
    ]


def standings_summary(standings: Iterable[Standing]) -> RenderableType:
    """For each sampler a line for each target and temperature, within 80 columns."""
    tables: dict[str, Table] = {}
    for each in standings:
        if each.sampler not in tables:
            table = tables[each.sampler] = NarrowableTable()
            table.add_column("  target", width=20, overflow="fold")
            for name, width in COLUMNS.items():
                table.add_column(name, width=width, no_wrap=True, justify="right")
        style = "bold red" if each.failed else "green" if each.tried else "yellow"
        cells = [
            Text(cell, style=style if name == "claims" else "")
            for name, cell in zip(COLUMNS, standing_cells(each), strict=True)
        ]
        place = Text(f"  {each.target}")
        if each.unmixed:
            place.append("\n    did not mix" if each.efficiency else "\n    a chain is stuck", style="bold yellow")
        tables[each.sampler].add_row(place, *cells)
    return Group(*(part for name, table in tables.items() for part in (Text(name, style="bold"), table)))


def experiments_summary(outcomes: Iterable[Outcome]) -> RenderableType:
    """For each experiment a line for each estimate, within 80 columns. Without exact value it has no status."""
    parts: list[RenderableType] = []
    for outcome in outcomes:
        parts.append(Text.assemble((outcome.experiment, "bold"), (f"  {outcome.summary}", "dim")))
        if outcome.findings is None:
            continue
        table = NarrowableTable()
        table.add_column("  claim", width=32, overflow="fold")
        for name, width in (("exact", 10), ("measured", 21), ("z", 5)):
            table.add_column(name, width=width, no_wrap=True, justify="right")
        table.add_column("status", width=7, overflow="fold")
        for each in outcome.findings.estimates:
            claim, exact, measured, z, _, status = claim_cells(each)
            style = "green" if each.status is Status.PASSED else "bold red"
            table.add_row(Text(f"  {claim}"), exact, measured, z, Text(status, style=style))
        parts.append(table)
    return Group(*parts)


def refused(standing: Standing) -> bool:
    """Whether the sampler was not tested on the target at all."""
    return all(each.status is Status.UNAVAILABLE for each in standing.claims)
