"""The command `validate`: test samplers and experiments against exact answers, and measure samplers' efficiency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..api.experiments import Estimate, Experiment
from ..api.messages import unknown_beside
from ..api.operations import Status
from ..api.records import Claim, Outcome, Run, Shard, Standing
from ..api.samplers import Sampler, Target, reason_against
from ..cluster.shard import pairs_of_shard, parse_shard
from ..discovery.registry import Registry
from ..execution.catalogue import read_catalogue
from ..execution.process import prepare_to_load_plugins
from ..report.standing_tables import experiments_summary, standings_summary
from ..report.tables import counted, grouped, problem_lines
from ..report.terminal import outputs
from ..results.environment import describe_all, resolve_devices
from ..results.file import SCHEMA, run_to_json
from ..validation.failures import failures_in_words
from ..validation.standing import make_standing, quick_targets
from .options import INTERRUPTED, Devices, Json, ShardOf
from .progress import ValidationProgress

if TYPE_CHECKING:
    import torch

Samplers = Annotated[
    list[str] | None, typer.Option("-s", "--sampler", metavar="NAME", help="Only this sampler; repeatable.")
]
Targets = Annotated[
    list[str] | None, typer.Option("-t", "--target", metavar="NAME", help="Only this target; repeatable.")
]
Experiments = Annotated[
    list[str] | None, typer.Option("-e", "--experiment", metavar="NAME", help="Only this experiment; repeatable.")
]
Thorough = Annotated[
    bool, typer.Option("--thorough", help="With -s alone: also the targets of many elements, which take longer.")
]
Calibrate = Annotated[
    int | None,
    typer.Option(
        "--calibrate", min=1, metavar="N", help="Instead: measure the judge itself, with N seeds from --seed on."
    ),
]
CalibrationOf = Annotated[
    list[str] | None,
    typer.Option(
        "--of",
        metavar="PART",
        help="With --calibrate, what to measure: tests (how often they reject exact samplers), errors (the chains that "
        "reveal planted errors), causes (those that the verdicts on planted errors name), samplers (how often the "
        "registered ones are rejected), experiments (z-scores); repeatable, by default the first three.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of all random numbers.")]
TimeLimit = Annotated[
    float,
    typer.Option("--time-limit", min=1.0, metavar="SECONDS", help="For one sampler on one target, or one experiment."),
]


def validate(
    samplers: Samplers = None,
    targets: Targets = None,
    experiments: Experiments = None,
    thorough: Thorough = False,
    calibrate: Calibrate = None,
    of: CalibrationOf = None,
    device: Devices = "auto",
    seed: Seed = 0,
    time_limit: TimeLimit = 600.0,
    shard: ShardOf = None,
    json_file: Json = None,
) -> None:
    """Test samplers against exact laws and their contract, and experiments against exact values.

    Then measure the effective samples per second of each sampler. With -s or -t no experiment runs, with -e no sampler,
    unless both are named. With -s alone, targets of more than 64 elements are left out; --thorough includes them.
    """
    if calibrate is not None:
        if thorough or json_file or shard:
            raise typer.BadParameter("--calibrate takes neither --thorough nor --json nor --shard")
        parts, seeds = of or ("tests", "errors", "causes"), range(seed, seed + calibrate)
        raise typer.Exit(_calibrate(parts, samplers or (), targets or (), experiments or (), seeds))
    if of:
        raise typer.BadParameter("--of goes with --calibrate")
    with outputs(json_file) as (console, write_json):
        part = parse_shard(shard) if shard else None
        devices = resolve_devices(device)
        place = devices[0]
        prepare_to_load_plugins(place)
        registry = read_catalogue(str(place), pairs=True)
        named = bool(samplers or targets)
        pairs, refused = (
            chosen_pairs(registry, samplers or (), targets or (), place) if named or not experiments else ([], [])
        )
        left_out: list[str] = []
        if samplers and not targets and not thorough:
            pairs, left_out = _quick(pairs)
        questions = chosen_experiments(registry, experiments or (), named)
        of_plan: Shard | None = None
        if part:
            pairs, questions, of_plan = pairs_of_shard(pairs, questions, *part, seed)
            refused = refused if part[0] == 1 else []
        found: dict[tuple[str, str], list[Standing]] = {}
        outcomes: dict[str, Outcome] = {}
        complete, empty = False, bool(part) and not (pairs or questions)
        lost: list[str] = []
        progress = ValidationProgress(console, len(pairs), len(questions))
        try:
            with progress:
                if not empty:
                    _judge(registry, devices, time_limit, progress, pairs, questions, seed, found, outcomes, lost)
            complete = True
        except KeyboardInterrupt:
            console.print("Interrupted. The results below are kept.")
        rows = [row for sampler, target in pairs for row in found.get((sampler.name, target.name), ())]
        answers = [outcomes[each.name] for each in questions if each.name in outcomes]
        problems = (*registry.problems, *lost)
        status = _conclude(console, rows, refused, answers, problems)
        if empty:
            console.print("This shard has nothing to test.")
            status = 0
        timed_on = {row.efficiency.device for row in rows if row.efficiency and row.efficiency.device}
        if len(devices) > 1 and timed_on:
            console.print(f"Claims were tested on {len(devices)} devices, speeds measured on {min(timed_on)}.")
        if left_out:
            console.print(f"Left out: {', '.join(left_out)}. --thorough includes what takes longer.")
        run = Run(
            SCHEMA, "incomplete", describe_all(devices), (), problems, standings=(*rows, *refused),
            outcomes=tuple(answers), shard=of_plan,
        )  # fmt: skip
        write_json(run_to_json(replace(run, status="complete") if complete else run))
    raise typer.Exit(status if complete else INTERRUPTED)


def _calibrate(
    of: Sequence[str],
    samplers: Sequence[str],
    targets: Sequence[str],
    experiments: Sequence[str],
    seeds: range,
) -> int:
    from .calibrate import Part, calibrate  # it imports from here

    for name in of:
        if name not in [*Part]:
            raise typer.BadParameter(f"--of takes {', '.join(Part)}, not {name!r}")
    parts = [Part(name) for name in of]
    for option, given, fitting in (
        ("-s", samplers, {Part.SAMPLERS}),
        ("-t", targets, {Part.TESTS, Part.SAMPLERS}),
        ("-e", experiments, {Part.EXPERIMENTS}),
    ):
        if given and not fitting & {*parts}:
            raise typer.BadParameter(f"{option} goes with --of {' or '.join(sorted(fitting))}")
    return calibrate(parts, samplers, targets, experiments, seeds)


def _judge(
    registry: Registry,
    devices: Sequence[torch.device],
    time_limit: float,
    progress: ValidationProgress,
    pairs: Sequence[tuple[Sampler, Target]],
    experiments: Sequence[Experiment],
    seed: int,
    found: dict[tuple[str, str], list[Standing]],
    outcomes: dict[str, Outcome],
    lost: list[str],
) -> None:
    """Judge all pairs and run all experiments, several at once on a CPU or on several devices; then time the steps on
    the first device that works, when nothing else runs, so that the speeds compare.

    ``found``, by sampler and target, and ``outcomes``, by experiment, get the results as they come, and ``lost`` a
    sentence for each device that stops working.
    """
    # imported late: `--help` does not need it
    from ..execution.parallel.judges import Job, Judge, ask_all, judges_at_once

    def judging(sampler: Sampler, target: Target) -> Job:
        def job(judge: Judge) -> Callable[[], None]:
            progress.pair(sampler, target)
            rows = judge.standings(sampler, target, seed)
            return lambda: found.update({(sampler.name, target.name): rows})

        return job

    def timing(sampler: Sampler, target: Target) -> Job:
        def job(judge: Judge) -> Callable[[], None]:
            progress.timing(sampler, target)
            rows = judge.timed(found[sampler.name, target.name], sampler, target, seed)
            return lambda: found.update({(sampler.name, target.name): rows})

        return job

    def conducting(experiment: Experiment) -> Job:
        def job(judge: Judge) -> Callable[[], None]:
            progress.experiment(experiment)
            outcome = judge.outcome(experiment, seed)
            return lambda: outcomes.update({experiment.name: outcome})

        return job

    def judge(device: torch.device, threads: int = 0) -> Judge:
        return Judge(device, progress.claim, time_limit, registry, threads)

    def leave(judge: Judge) -> None:
        working.remove(judge.device)
        lost.append(f"{judge.device} stopped working: the other devices did its work")

    working, at_once = [*devices], len(devices) if len(devices) > 1 else judges_at_once(devices[0])
    places, threads = ([*devices], 0) if len(devices) > 1 else ([*devices] * at_once, 1 if at_once > 1 else 0)
    by_sampler = [[judging(*pair) for pair in own] for _, own in groupby(pairs, key=lambda pair: pair[0].name)]
    if len(by_sampler) < at_once:  # all share the work; otherwise one judge, and one worker, has all of a sampler
        by_sampler = [[judging(*pair)] for pair in pairs]
    groups = by_sampler + [[conducting(experiment)] for experiment in experiments]
    ask_all([judge(place, threads) for place in places[: len(groups)]], groups, leave)
    measured = [pair for pair in pairs if any(row.efficiency for row in found[pair[0].name, pair[1].name])]
    ask_all([judge(working[0])], [[timing(*pair) for pair in measured]])


def chosen_pairs(
    registry: Registry, samplers: Sequence[str], targets: Sequence[str], device: torch.device
) -> tuple[list[tuple[Sampler, Target]], list[Standing]]:
    """The pairs to judge, and for each refused pair a standing with the reason."""
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
                reason = reason_against(sampler, target, device)
            except Exception:
                reason = None  # the judgement repeats the call and reports the error
            if not isinstance(reason, str):
                pairs.append((sampler, target))
            else:
                first = target.temperatures[0]
                claim = Claim(sampler.name, target.name, first, "made for this target", Status.UNAVAILABLE, reason)
                refused.append(make_standing(sampler, target, first, (claim,)))
    return pairs, refused


def _quick(pairs: Sequence[tuple[Sampler, Target]]) -> tuple[list[tuple[Sampler, Target]], list[str]]:
    """The pairs with a target on which a sampler is judged quickly, and the names of the other targets."""
    kept = []
    for _, own in groupby(pairs, key=lambda pair: pair[0].name):
        of_sampler = list(own)
        quick = {each.name for each in quick_targets(target for _, target in of_sampler)}
        kept += [pair for pair in of_sampler if pair[1].name in quick]
    return kept, list(dict.fromkeys(pair[1].name for pair in pairs if pair not in kept))


def chosen_experiments(registry: Registry, names: Sequence[str], samplers_named: bool) -> list[Experiment]:
    """The experiments of these names. Without names: all, or none if samplers or targets are named."""
    for name in names:
        if name not in registry.experiments:
            raise unknown_beside(registry.problems, "experiment", name, registry.experiments)
    wanted = names or ([] if samplers_named else registry.experiments)
    return [experiment for name, experiment in registry.experiments.items() if name in wanted]


def _conclude(
    console: Console,
    found: Sequence[Standing],
    refused: Sequence[Standing],
    outcomes: Sequence[Outcome],
    problems: Sequence[str],
) -> int:
    """Print tables, untested claims, failures and the closing line; return the exit status.

    Chains that did not mix leave the status at 0: the laws hold, and a slow sampler is not a wrong one. The closing
    line begins with them.
    """
    claims = [each for row in found for each in row.claims]
    failed = show_standings(console, found)
    if outcomes:
        console.print(experiments_summary(outcomes))
    lost = [each for each in outcomes if each.findings is None]
    for outcome in lost:
        words = f"{outcome.status}: experiment {outcome.experiment}: {outcome.message}"
        console.print(Text(words, style="bold red"))
    wrong = [(outcome, each) for outcome in outcomes for each in outcome.failed]
    for outcome, estimate in wrong:
        words = f"{estimate.status}: experiment {outcome.experiment}: {estimate.claim}: {estimate.message}"
        console.print(Text(words, style="bold red"))
    console.print(problem_lines(problems))
    console.print(closing_line(found, refused, outcomes, problems))
    passed = Status.PASSED in {*(each.status for each in claims), *(each.status for each in outcomes)}
    return 1 if failed or lost or wrong or problems or not passed else 0


def show_standings(console: Console, found: Sequence[Standing]) -> list[Claim]:
    """Print the table, what was not tested and what failed; return the failed claims."""
    if found:
        console.print(standings_summary(found))
    failed = [each for row in found for each in row.failed]
    untested = [each for row in found for each in row.claims if each.status is Status.UNAVAILABLE]
    for words, own in grouped(untested, lambda each: each.message).items():
        names = ", ".join(dict.fromkeys(f"{each.sampler} on {each.target}" for each in own))
        console.print(Text(f"not tested: {words}: {names}", style="yellow"))
    for row in found:
        if row.unmixed and row.efficiency is None:
            place = f"{row.sampler} on {row.target}, T = {row.temperature:g}"
            console.print(Text(f"{row.unmeasured}: {place}", style="yellow"))
    for line in failures_in_words(failed):
        console.print(Text(line, style="bold red"))
    return failed


def closing_line(
    found: Sequence[Standing], refused: Sequence[Standing], outcomes: Sequence[Outcome], problems: Sequence[str]
) -> str:
    """The result in one line, with the probability of a false alarm in the whole run."""
    claims = [each for row in found for each in row.claims]
    estimates = [each for outcome in outcomes for each in outcome.tried]
    lost = sum(outcome.findings is None for outcome in outcomes)
    failed = lost + sum(len(row.failed) for row in found) + sum(len(outcome.failed) for outcome in outcomes)
    passed = [each.status for each in claims].count(Status.PASSED)
    passed += [each.status for each in estimates].count(Status.PASSED)
    judged = len({(row.sampler, row.target) for row in found})
    aside = f", {counted(len(refused), 'pair')} of sampler and target refused" if refused else ""
    troubled = ("A plugin has a problem. " if problems else "") + unmixed_words(found)
    if failed:
        return f"{troubled}{failed} of {counted(passed + failed, 'claim')} failed{aside}."
    if not passed:
        reasons = "; ".join(sorted({claim.message for each in refused for claim in each.claims}))
        return f"{troubled}Nothing was tested{aside}{f': {reasons}' if reasons else ''}."
    lawless = sorted({row.sampler for row in found} - {each.sampler for each in claims if each.steps})
    lawless_words = f" No exact law known: {', '.join(lawless)}." if lawless else ""
    parts = [counted(judged, "pair")] * bool(judged) + [counted(len(outcomes), "experiment")] * bool(outcomes)
    alarm = f"if all are correct, a test fails with probability {_chance(claims, estimates)}"
    claims_hold = f"All {passed} claims hold" if passed > 1 else "The only claim holds"
    return f"{troubled}{claims_hold}{aside}. ({', '.join(parts)}: {alarm}.){lawless_words}"


def _chance(claims: Sequence[Claim], estimates: Sequence[Estimate]) -> str:
    """The probability of a false alarm: the sum of the levels of the tests.

    The tests of laws and estimates hold their level; `validate --calibrate` compares. Those of the noise are far more
    cautious, so that they count only where nothing else was tested.
    """
    laws = [each.false_alarm or 0.0 for each in claims if each.steps is not None]
    laws += [each.false_alarm or 0.0 for each in estimates]
    if any(laws):
        return f"of about {sum(laws):.1g}"
    return f"of at most {sum(each.false_alarm or 0.0 for each in claims):.1g}"


def unmixed_words(found: Sequence[Standing]) -> str:
    """A sentence on the pairs whose chains did not mix, and what is unknown about them; empty if there are none."""
    rows = [row for row in found if row.unmixed]
    if not rows:
        return ""
    pairs = len({(row.sampler, row.target) for row in rows})
    largest = max((row.efficiency.r_hat for row in rows if row.efficiency), default=0.0)
    reasons = [f"R-hat up to {largest:.3g}"] if largest else []
    reasons += ["stuck chains"] if any(row.efficiency is None for row in rows) else []
    return (
        f"{counted(pairs, 'pair')} did not mix ({', '.join(reasons)}): ESS/s says little there, and errors of the law "
        "that take more steps to appear were not tested. "
    )
