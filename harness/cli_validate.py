"""The command `validate`: samplers against exact laws, and what their steps are worth."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .environment import describe, resolve_device
from .process import prepare_process_for
from .registry import Registry, load_registry
from .results import SCHEMA
from .sampling import Claim, Sampler, Target, reason_against
from .standing import Standing, stood
from .tables import all_problems, si
from .terminal import outputs
from .types import Status
from .wording import unknown

Samplers = Annotated[
    list[str] | None, typer.Option("-s", "--sampler", metavar="NAME", help="Only this sampler; repeatable.")
]
Targets = Annotated[
    list[str] | None, typer.Option("-t", "--target", metavar="NAME", help="Only this target; repeatable.")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the chains and of their starts.")]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", min=1.0, metavar="SECONDS", help="For one sampler on one target.")
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")]

INTERRUPTED = 130

Judge = Callable[[Sampler, Target, int], list[Standing]]


def validate(
    samplers: Samplers = None,
    targets: Targets = None,
    device: Device = "auto",
    seed: Seed = 0,
    time_limit: TimeLimit = 600.0,
    json_file: Json = None,
) -> None:
    """Judge samplers by exact laws and by their contract, and measure independent draws per second."""
    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        prepare_process_for(place)
        registry = load_registry()
        pairs, refused = _chosen(registry, samplers or (), targets or (), place)
        found: list[Standing] = []
        complete = False
        progress = _Progress(console, len(pairs))
        try:
            with progress, _judges(registry, place, time_limit, progress.claim) as judge:
                for sampler, target in pairs:
                    progress.pair(sampler, target)
                    found += judge(sampler, target, seed)
            complete = True
        except KeyboardInterrupt:
            console.print("Interrupted; what is below is kept.")
        status = _conclude(console, found, refused, registry.problems)
        write_json(_json(found, refused, describe(place), registry.problems, complete))
    raise typer.Exit(status if complete else INTERRUPTED)


@contextmanager
def _judges(
    registry: Registry, device: torch.device, time_limit: float, announce: Callable[[str], None]
) -> Iterator[Judge]:
    """Each sampler is judged in a process of its own: what ends that process, or hangs, is a claim that fails."""
    from .worker import Lost, Workers  # here, as `list` and `--help` need not wait for it

    phase = "start"

    def note(words: str) -> None:
        nonlocal phase
        phase = words
        announce(words)

    def judge(sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        try:
            return workers.standings(sampler, target, seed)
        except Lost as lost:
            claim, _, temperature = phase.partition(", T = ")
            at = float(temperature) if temperature else target.temperatures[0]
            return [stood(sampler, target, at, (Claim(sampler.name, target.name, at, claim, lost.status, str(lost)),))]

    workers = Workers(device, note, time_limit, registry.loaded)
    try:
        yield judge
    finally:
        workers.close()


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
                reason = reason_against(sampler, target, device)
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


class _Progress:
    """On a terminal a line that tells the pair and the claim at hand; elsewhere a line for each pair."""

    def __init__(self, console: Console, pairs: int) -> None:
        self._console, self._pairs, self._done, self._words = console, pairs, 0, ""
        self._line = console.status("", spinner="line") if console.is_terminal else None

    def __enter__(self) -> None:
        if self._line:
            self._line.start()

    def __exit__(self, *reason: object) -> None:
        if self._line:
            self._line.stop()

    def pair(self, sampler: Sampler, target: Target) -> None:
        self._done += 1
        self._words = f"{sampler.name} on {target.name} ({self._done} of {self._pairs})"
        if self._line:
            self.claim("")
        else:
            self._console.print(self._words, soft_wrap=True)

    def claim(self, claim: str) -> None:
        if self._line:
            self._line.update(Text(f"{self._words} {claim}", no_wrap=True, overflow="ellipsis"))


COLUMNS = (
    ("T", 6),
    ("claims", 7),
    ("worst p", 8),
    ("worst z", 7),
    ("ESS/s", 6),
    ("steps", 6),
    ("taken", 5),
    ("R-hat", 5),
)


def summary(found: Iterable[Standing]) -> RenderableType:
    """For each sampler a line for each target and temperature. ``steps`` is the autocorrelation time."""
    tables: dict[str, Table] = {}
    for each in found:
        if each.sampler not in tables:
            table = tables[each.sampler] = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
            table.add_column("  target", width=20, overflow="fold")
            for name, width in COLUMNS:
                table.add_column(name, width=width, no_wrap=True, justify="right")
        tables[each.sampler].add_row(Text(f"  {each.target}"), *_figures(each))
    return Group(*(part for name, table in tables.items() for part in (Text(name, style="bold"), table)))


def _figures(row: Standing) -> list[RenderableType]:
    tried = [each for each in row.claims if each.status is not Status.UNAVAILABLE]
    passed = sum(each.status is Status.PASSED for each in tried)
    style = "green" if tried and passed == len(tried) else "bold red" if tried else "yellow"
    p_values = [each.p_value for each in tried if each.p_value is not None]
    zs = [each.z for each in tried if each.z is not None]
    efficiency = row.efficiency or {}

    def figure(name: str, form: Callable[[float], str]) -> str:
        value = efficiency.get(name)
        return "-" if value is None else form(value)

    return [
        f"{row.temperature:.4g}",
        Text(f"{passed}/{len(tried)}" if tried else "-", style=style),
        f"{min(p_values):.2g}" if p_values else "-",
        f"{max(zs, key=abs):+.2f}" if zs else "-",
        figure("ess_per_second", si),
        figure("autocorrelation_time", "{:.3g}".format),
        figure("acceptance", "{:.0%}".format),
        figure("r_hat", "{:.3f}".format),
    ]


def _conclude(console: Console, found: Sequence[Standing], refused: Sequence[Claim], problems: Sequence[str]) -> int:
    """Print the table, what is not claimed, failures in full and the closing line; return the exit status."""
    if found:
        console.print(summary(found))
    claims = [each for row in found for each in row.claims]
    failed = [each for row in found for each in row.failed]
    for words, names in _grouped([each for each in claims if each.status is Status.UNAVAILABLE]).items():
        console.print(Text(f"not claimed: {words}: {names}", style="yellow"), soft_wrap=True)
    for each in failed:
        place = f"{each.sampler} on {each.target}, T = {each.temperature:g}"
        console.print(Text(f"{each.status}: {place}: {each.claim}: {each.message}", style="bold red"), soft_wrap=True)
    console.print(all_problems(tuple(problems)))
    console.print(closing_line(found, refused, problems), soft_wrap=True)
    passed = any(each.status is Status.PASSED for each in claims)
    return 1 if failed or problems or not passed else 0


def closing_line(found: Sequence[Standing], refused: Sequence[Claim], problems: Sequence[str]) -> str:
    """The verdict in a sentence, with the probability of a false alarm in the whole run."""
    from .validation import FALSE_ALARM

    claims = [each for row in found for each in row.claims]
    failed = sum(len(row.failed) for row in found)
    passed = sum(each.status is Status.PASSED for each in claims)
    judged = len({(row.sampler, row.target) for row in found})
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
    found: Sequence[Standing],
    refused: Sequence[Claim],
    environment: dict[str, Any],
    problems: Sequence[str],
    complete: bool,
) -> str:
    efficiencies = [
        {
            "sampler": row.sampler,
            "target": row.target,
            "temperature": row.temperature,
            **(row.efficiency or {}),
            "message": row.unmeasured,
        }
        for row in found
    ]
    whole = {
        "schema": SCHEMA,
        "status": "complete" if complete else "incomplete",
        "environment": environment,
        "records": [
            *[_record(each, row) for row in found for each in row.claims],
            *[asdict(each) for each in refused],
        ],
        "efficiencies": efficiencies,
        "problems": list(problems),
    }
    return json.dumps(_strict(whole), indent=1, allow_nan=False) + "\n"


def _record(claim: Claim, row: Standing) -> dict[str, Any]:
    return {**asdict(claim), "backend": row.backend, "plugin": row.plugin}


def _strict(value: Any) -> Any:
    """NaN and infinities as strings: JSON has no numbers for them."""
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
