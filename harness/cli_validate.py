"""The command `validate`: samplers against exact laws, and what their steps are worth."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.text import Text

from .conformance import LAWS
from .environment import describe, resolve_device
from .process import prepare_process_for
from .registry import LOADING_SECONDS, Registry, load_registry
from .results import SCHEMA, run_to_json
from .sampling import Sampler, Target, reason_against
from .standing import stood
from .standing_tables import summary
from .tables import all_problems
from .terminal import outputs
from .time_limit import TookTooLong, limited_to
from .types import Claim, Run, Standing, Status
from .wording import unknown_beside

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
        run = Run(SCHEMA, "incomplete", describe(place), (), registry.problems, standings=(*found, *refused))
        write_json(run_to_json(replace(run, status="complete") if complete else run))
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
) -> tuple[list[tuple[Sampler, Target]], list[Standing]]:
    """The pairs to judge, and the standing of each that the sampler refuses or cannot run: with that reason."""
    for kind, names, valid in (("sampler", samplers, registry.samplers), ("target", targets, registry.targets)):
        for name in names:
            if name not in valid:
                raise unknown_beside(registry.problems, kind, name, valid)
    pairs, refused = [], []
    for sampler in registry.samplers.values():
        for target in registry.targets.values():
            if (samplers and sampler.name not in samplers) or (targets and target.name not in targets):
                continue
            try:
                with limited_to(LOADING_SECONDS):
                    reason = reason_against(sampler, target, device)
            except (Exception, SystemExit, TookTooLong):
                reason = None  # told by the claims
            if not isinstance(reason, str):
                pairs.append((sampler, target))
            else:
                first = target.temperatures[0]
                claim = Claim(sampler.name, target.name, first, "made for this target", Status.UNAVAILABLE, reason)
                refused.append(stood(sampler, target, first, (claim,)))
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


def _conclude(console: Console, found: Sequence[Standing], refused: Sequence[Standing], problems: Sequence[str]) -> int:
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


def closing_line(found: Sequence[Standing], refused: Sequence[Standing], problems: Sequence[str]) -> str:
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
        reasons = "; ".join(sorted({claim.message for each in refused for claim in each.claims}))
        return f"{troubled}Nothing was judged{aside}{f': {reasons}' if reasons else ''}."
    lawless = sorted({row.sampler for row in found} - {each.sampler for each in claims if each.claim.startswith(LAWS)})
    unheld = f" Held to no exact law: {', '.join(lawless)}." if lawless else ""
    alarm = f"if all are right, one would fail with probability {judged * FALSE_ALARM:.1g} at most"
    return f"{troubled}All {passed} claims hold{aside}. ({judged} pairs: {alarm}.){unheld}"


def _grouped(claims: Iterable[Claim]) -> dict[str, str]:
    """The names of the samplers and targets by what is told of them."""
    names: dict[str, list[str]] = {}
    for each in claims:
        names.setdefault(each.message, []).append(f"{each.sampler} on {each.target}")
    return {message: ", ".join(dict.fromkeys(found)) for message, found in names.items()}
