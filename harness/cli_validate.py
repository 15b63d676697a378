"""The command `validate`: samplers against exact laws, and what their steps are worth."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from .environment import describe, resolve_device
from .process import prepare_process_for
from .registry import Registry, load_registry
from .results import SCHEMA
from .sampling import Claim, Sampler, Target
from .tables import all_problems, si
from .terminal import outputs
from .types import INTERPRETED_ON_CPU, Status
from .wording import describe_error, unknown

Samplers = Annotated[
    list[str] | None, typer.Option("-s", "--sampler", metavar="NAME", help="Only this sampler; repeatable.")
]
Targets = Annotated[
    list[str] | None, typer.Option("-t", "--target", metavar="NAME", help="Only this target; repeatable.")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the chains and of their starts.")]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")]

INTERRUPTED = 130


@dataclass(frozen=True)
class Row:
    """A sampler on a target at one temperature: its claims, and how efficient it is or why nobody measured that.

    ``efficiency`` holds the fields of an `Efficiency`, by name.
    """

    sampler: Sampler
    target: Target
    temperature: float
    claims: tuple[Claim, ...]
    efficiency: dict[str, Any] | None = None
    unmeasured: str = ""

    @property
    def failed(self) -> list[Claim]:
        return [each for each in self.claims if each.status not in (Status.PASSED, Status.UNAVAILABLE)]


def validate(
    samplers: Samplers = None,
    targets: Targets = None,
    device: Device = "auto",
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Judge samplers by exact laws and by their contract, and measure independent draws per second."""
    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        prepare_process_for(place)
        registry = load_registry()
        pairs, refused = _chosen(registry, samplers or (), targets or (), place)
        rows: list[Row] = []
        complete = False
        try:
            for number, (sampler, target) in enumerate(pairs, 1):
                words = f"{sampler.name} on {target.name} ({number} of {len(pairs)})"
                if console.is_terminal:
                    with console.status(words):
                        rows += judge(sampler, target, place, seed)
                else:
                    console.print(words, soft_wrap=True)
                    rows += judge(sampler, target, place, seed)
            complete = True
        except KeyboardInterrupt:
            console.print("Interrupted; what is below is kept.")
        status = _conclude(console, rows, refused, registry.problems)
        write_json(_json(rows, refused, describe(place), registry.problems, complete))
    raise typer.Exit(status if complete else INTERRUPTED)


def judge(sampler: Sampler, target: Target, device: torch.device, seed: int) -> list[Row]:
    """The rows of a sampler on a target. Efficiency is measured where every claim holds and speed means anything."""
    from . import validation  # here, as it takes scipy, which `list` and `--help` need not wait for
    from .efficiency import efficiency

    claims = validation.validate(sampler, target, device, seed)
    wrong = any(each.status not in (Status.PASSED, Status.UNAVAILABLE) for each in claims)
    rows = []
    for temperature in target.temperatures:
        own = tuple(each for each in claims if each.temperature == temperature)
        measured, why = None, ""
        if wrong:
            why = "not measured: a claim fails"
        elif device.type == "cpu" and sampler.backend in INTERPRETED_ON_CPU:
            why = "not measured: interpreted or emulated on the host"
        elif not own or all(each.status is Status.UNAVAILABLE for each in own):
            why = "not measured: nothing was judged"
        else:
            try:
                measured = asdict(efficiency(sampler, target, temperature, device, seed))
            except Exception as error:
                fault = f"while it was measured: {describe_error(error)}"
                own += (Claim(sampler.name, target.name, temperature, "efficiency", Status.ERROR, fault),)
        rows.append(Row(sampler, target, temperature, own, measured, why))
    return rows


def _chosen(
    registry: Registry, samplers: Sequence[str], targets: Sequence[str], device: torch.device
) -> tuple[list[tuple[Sampler, Target]], list[Claim]]:
    """The pairs to judge, and a claim for each that the sampler refuses or cannot run."""
    for kind, names, valid in (("sampler", samplers, registry.samplers), ("target", targets, registry.targets)):
        for name in names:
            if name not in valid:
                raise unknown(kind, name, valid)
    pairs, refused = [], []
    for sampler in registry.samplers.values():
        for target in registry.targets.values():
            if (samplers and sampler.name not in samplers) or (targets and target.name not in targets):
                continue
            try:
                reason = sampler.unavailable(device) or sampler.refuses(target)
            except Exception:
                reason = None  # told by the claims
            if reason is None:
                pairs.append((sampler, target))
            else:
                claim = "made for this target"
                refused.append(
                    Claim(sampler.name, target.name, target.temperatures[0], claim, Status.UNAVAILABLE, reason)
                )
    return pairs, refused


def summary(rows: Iterable[Row]) -> RenderableType:
    """A line for each sampler, target and temperature; fits 80 columns by folding."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name, width in (("sampler", 15), ("target", 15)):
        table.add_column(name, width=width, overflow="fold")
    for name, width in (("T", 5), ("claims", 7), ("worst p", 8), ("worst z", 7), ("ESS/s", 7), ("R-hat", 6)):
        table.add_column(name, width=width, overflow="fold", justify="right")
    for row in rows:
        tried = [each for each in row.claims if each.status is not Status.UNAVAILABLE]
        passed = sum(each.status is Status.PASSED for each in tried)
        style = "green" if tried and passed == len(tried) else "bold red" if tried else "yellow"
        p_values = [each.p_value for each in tried if each.p_value is not None]
        zs = [each.z for each in tried if each.z is not None]
        table.add_row(
            Text(row.sampler.name),
            Text(row.target.name),
            f"{row.temperature:.4g}",
            Text(f"{passed}/{len(tried)}" if tried else "-", style=style),
            f"{min(p_values):.2g}" if p_values else "-",
            f"{max(zs, key=abs):+.2f}" if zs else "-",
            si(row.efficiency["ess_per_second"]) if row.efficiency else "-",
            f"{row.efficiency['r_hat']:.3f}" if row.efficiency else "-",
        )
    return table


def _conclude(console: Console, rows: Sequence[Row], refused: Sequence[Claim], problems: Sequence[str]) -> int:
    """Print the table, what is not claimed, failures in full and the closing line; return the exit status."""
    if rows:
        console.print(summary(rows))
    claims = [each for row in rows for each in row.claims]
    failed = [each for row in rows for each in row.failed]
    for words, names in _grouped([each for each in claims if each.status is Status.UNAVAILABLE]).items():
        console.print(Text(f"not claimed: {words}: {names}", style="yellow"), soft_wrap=True)
    for each in failed:
        place = f"{each.sampler} on {each.target}, T = {each.temperature:g}"
        console.print(Text(f"{each.status}: {place}: {each.claim}: {each.message}", style="bold red"), soft_wrap=True)
    console.print(all_problems(tuple(problems)))
    console.print(closing_line(rows, refused, problems), soft_wrap=True)
    passed = any(each.status is Status.PASSED for each in claims)
    return 1 if failed or problems or not passed else 0


def closing_line(rows: Sequence[Row], refused: Sequence[Claim], problems: Sequence[str]) -> str:
    """The verdict in a sentence, with the probability of a false alarm in the whole run."""
    from .validation import FALSE_ALARM

    claims = [each for row in rows for each in row.claims]
    failed = sum(len(row.failed) for row in rows)
    passed = sum(each.status is Status.PASSED for each in claims)
    judged = len({(row.sampler.name, row.target.name) for row in rows})
    aside = f", {len(refused)} pairs of sampler and target refused" if refused else ""
    troubled = "A plugin has a problem. " if problems else ""
    if failed:
        return f"{troubled}{failed} of {passed + failed} claims failed{aside}."
    if not passed:
        reasons = "; ".join(sorted({each.message for each in refused}))
        return f"{troubled}Nothing was judged{aside}{f': {reasons}' if reasons else ''}."
    alarm = f"if all are right, one would fail with probability {judged * FALSE_ALARM:.1g} at most"
    return f"{troubled}All {passed} claims hold{aside}. ({judged} pairs: {alarm}.)"


def _grouped(claims: Iterable[Claim]) -> dict[str, str]:
    """The names of the samplers and targets by what is told of them."""
    names: dict[str, list[str]] = {}
    for each in claims:
        names.setdefault(each.message, []).append(f"{each.sampler} on {each.target}")
    return {message: ", ".join(dict.fromkeys(found)) for message, found in names.items()}


def _json(
    rows: Sequence[Row],
    refused: Sequence[Claim],
    environment: dict[str, Any],
    problems: Sequence[str],
    complete: bool,
) -> str:
    efficiencies = [
        {
            "sampler": row.sampler.name,
            "target": row.target.name,
            "temperature": row.temperature,
            **(row.efficiency or {}),
            "message": row.unmeasured,
        }
        for row in rows
    ]
    whole = {
        "schema": SCHEMA,
        "status": "complete" if complete else "incomplete",
        "environment": environment,
        "records": [
            *[_record(each, row.sampler) for row in rows for each in row.claims],
            *[asdict(each) for each in refused],
        ],
        "efficiencies": efficiencies,
        "problems": list(problems),
    }
    return json.dumps(_strict(whole), indent=1, allow_nan=False) + "\n"


def _record(claim: Claim, sampler: Sampler) -> dict[str, Any]:
    return {**asdict(claim), "backend": sampler.backend, "plugin": sampler.plugin}


def _strict(value: Any) -> Any:
    """NaN and infinities as strings: JSON has no numbers for them."""
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
