"""The command `validate`: samplers and experiments against exact answers, and what samplers' steps are worth."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.text import Text

from ..api.experiments import Experiment
from ..api.messages import unknown_beside
from ..api.operations import Status
from ..api.records import Claim, Outcome, Run, Standing
from ..api.samplers import Sampler, Target, reason_against
from ..conformance import LAWS
from ..discovery.registry import LOADING_SECONDS, Registry, load_registry
from ..discovery.time_limit import TookTooLong, limited_to
from ..execution.process import prepare_process_for
from ..report.standing_tables import findings, summary
from ..report.tables import all_problems
from ..report.terminal import outputs
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA, run_to_json
from ..validation.standing import make_standing

Samplers = Annotated[
    list[str] | None, typer.Option("-s", "--sampler", metavar="NAME", help="Only this sampler; repeatable.")
]
Targets = Annotated[
    list[str] | None, typer.Option("-t", "--target", metavar="NAME", help="Only this target; repeatable.")
]
Experiments = Annotated[
    list[str] | None, typer.Option("-e", "--experiment", metavar="NAME", help="Only this experiment; repeatable.")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of all that is drawn.")]
TimeLimit = Annotated[
    float,
    typer.Option("--time-limit", min=1.0, metavar="SECONDS", help="For one sampler on one target, or one experiment."),
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")]

INTERRUPTED = 130

Judge = Callable[[Sampler, Target, int], list[Standing]]
Conduct = Callable[[Experiment, int], Outcome]


def validate(
    samplers: Samplers = None,
    targets: Targets = None,
    experiments: Experiments = None,
    device: Device = "auto",
    seed: Seed = 0,
    time_limit: TimeLimit = 600.0,
    json_file: Json = None,
) -> None:
    """Judge samplers by exact laws and by their contract, and measure independent draws per second; hold what
    experiments estimate to the exact answers.

    Samplers and targets that are named are judged alone, and so are experiments.
    """
    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        prepare_process_for(place)
        registry = load_registry()
        named = bool(samplers or targets)
        pairs, refused = (
            _chosen(registry, samplers or (), targets or (), place) if named or not experiments else ([], [])
        )
        questions = _chosen_experiments(registry, experiments or (), named)
        found: list[Standing] = []
        outcomes: list[Outcome] = []
        complete = False
        progress = _Progress(console, len(pairs), len(questions))
        try:
            with progress, _judges(registry, place, time_limit, progress.claim) as (judge, conduct):
                for sampler, target in pairs:
                    progress.pair(sampler, target)
                    found += judge(sampler, target, seed)
                for question in questions:
                    progress.experiment(question)
                    outcomes.append(conduct(question, seed))
            complete = True
        except KeyboardInterrupt:
            console.print("Interrupted; what is below is kept.")
        status = _conclude(console, found, refused, outcomes, registry.problems)
        run = Run(
            SCHEMA, "incomplete", describe(place), (), registry.problems, standings=(*found, *refused),
            outcomes=tuple(outcomes),
        )  # fmt: skip
        write_json(run_to_json(replace(run, status="complete") if complete else run))
    raise typer.Exit(status if complete else INTERRUPTED)


@contextmanager
def _judges(
    registry: Registry, device: torch.device, time_limit: float, announce: Callable[[str], None]
) -> Iterator[tuple[Judge, Conduct]]:
    """Samplers and experiments get processes of their own: what ends such a process, or hangs, fails and no more."""
    from ..execution.worker import WorkerDied, Workers  # here, as `list` and `--help` need not wait for it

    phase = "start"

    def note(words: str) -> None:
        nonlocal phase
        phase = words
        announce(words)

    def judge(sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        try:
            return workers.standings(sampler, target, seed)
        except WorkerDied as lost:
            claim, _, temperature = phase.partition(", T = ")
            at = float(temperature) if temperature else target.temperatures[0]
            return [
                make_standing(
                    sampler, target, at, (Claim(sampler.name, target.name, at, claim, lost.status, str(lost)),)
                )
            ]

    def conduct(experiment: Experiment, seed: int) -> Outcome:
        begun = perf_counter()
        try:
            return workers.outcome(experiment, seed)
        except WorkerDied as lost:
            of = experiment.name, experiment.summary, experiment.source, experiment.plugin
            return Outcome(*of, lost.status, str(lost), perf_counter() - begun)

    workers = Workers(device, note, time_limit, registry.loaded)
    try:
        yield judge, conduct
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
                refused.append(make_standing(sampler, target, first, (claim,)))
    return pairs, refused


def _chosen_experiments(registry: Registry, names: Sequence[str], samplers_named: bool) -> list[Experiment]:
    """Those of these names; where none is given all of them, unless it is samplers or targets that were named."""
    for name in names:
        if name not in registry.experiments:
            raise unknown_beside(registry.problems, "experiment", name, registry.experiments)
    wanted = names or ([] if samplers_named else registry.experiments)
    return [experiment for name, experiment in registry.experiments.items() if name in wanted]


class _Progress:
    """On a terminal a line that tells the pair and the claim at hand; elsewhere a line for each pair."""

    def __init__(self, console: Console, pairs: int, experiments: int) -> None:
        self._console, self._pairs, self._done, self._words = console, pairs, 0, ""
        self._experiments = experiments
        self._line = console.status("", spinner="line") if console.is_terminal else None

    def __enter__(self) -> None:
        if self._line:
            self._line.start()

    def __exit__(self, *reason: object) -> None:
        if self._line:
            self._line.stop()

    def pair(self, sampler: Sampler, target: Target) -> None:
        self._next(f"{sampler.name} on {target.name}", self._pairs)

    def experiment(self, experiment: Experiment) -> None:
        if self._done == self._pairs and self._pairs:
            self._done, self._pairs = 0, 0
        self._next(f"experiment {experiment.name}", self._experiments)

    def _next(self, words: str, of: int) -> None:
        self._done += 1
        self._words = f"{words} ({self._done} of {of})"
        if self._line:
            self.claim("")
        else:
            self._console.print(self._words, soft_wrap=True)

    def claim(self, claim: str) -> None:
        if self._line:
            self._line.update(Text(f"{self._words} {claim}", no_wrap=True, overflow="ellipsis"))


def _conclude(
    console: Console,
    found: Sequence[Standing],
    refused: Sequence[Standing],
    outcomes: Sequence[Outcome],
    problems: Sequence[str],
) -> int:
    """Print the tables, what is not claimed, failures in full and the closing line; return the exit status."""
    if found:
        console.print(summary(found))
    claims = [each for row in found for each in row.claims]
    failed = [each for row in found for each in row.failed]
    for words, names in _grouped([each for each in claims if each.status is Status.UNAVAILABLE]).items():
        console.print(Text(f"not claimed: {words}: {names}", style="yellow"), soft_wrap=True)
    for each in failed:
        place = f"{each.sampler} on {each.target}, T = {each.temperature:g}"
        console.print(Text(f"{each.status}: {place}: {each.claim}: {each.message}", style="bold red"), soft_wrap=True)
    if outcomes:
        console.print(findings(outcomes))
    lost = [each for each in outcomes if each.findings is None]
    for outcome in lost:
        words = f"{outcome.status}: experiment {outcome.experiment}: {outcome.message}"
        console.print(Text(words, style="bold red"), soft_wrap=True)
    wrong = [(outcome, each) for outcome in outcomes for each in outcome.failed]
    for outcome, estimate in wrong:
        words = f"{estimate.status}: experiment {outcome.experiment}: {estimate.claim}: {estimate.message}"
        console.print(Text(words, style="bold red"), soft_wrap=True)
    console.print(all_problems(tuple(problems)))
    console.print(closing_line(found, refused, outcomes, problems), soft_wrap=True)
    passed = Status.PASSED in {*(each.status for each in claims), *(each.status for each in outcomes)}
    return 1 if failed or lost or wrong or problems or not passed else 0


def closing_line(
    found: Sequence[Standing], refused: Sequence[Standing], outcomes: Sequence[Outcome], problems: Sequence[str]
) -> str:
    """The verdict in a sentence, with the probability of a false alarm in the whole run."""
    from ..validation.claims import FALSE_ALARM

    claims = [each for row in found for each in row.claims]
    estimates = [each for outcome in outcomes for each in outcome.tried]
    lost = sum(outcome.findings is None for outcome in outcomes)
    failed = lost + sum(len(row.failed) for row in found) + sum(len(outcome.failed) for outcome in outcomes)
    passed = [each.status for each in claims].count(Status.PASSED)
    passed += [each.status for each in estimates].count(Status.PASSED)
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
    parts = [f"{judged} pairs"] * bool(judged) + [f"{len(outcomes)} experiment{'s' * (len(outcomes) != 1)}"] * bool(
        outcomes
    )
    chance = (judged + len(outcomes)) * FALSE_ALARM
    alarm = f"if all are right, one would fail with probability {chance:.1g} at most"
    return f"{troubled}All {passed} claims hold{aside}. ({', '.join(parts)}: {alarm}.){unheld}"


def _grouped(claims: Iterable[Claim]) -> dict[str, str]:
    """The names of the samplers and targets by what is told of them."""
    names: dict[str, list[str]] = {}
    for each in claims:
        names.setdefault(each.message, []).append(f"{each.sampler} on {each.target}")
    return {message: ", ".join(dict.fromkeys(found)) for message, found in names.items()}
