"""`validate --calibrate`: measure the judge itself, by exact samplers, planted errors and many seeds."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..api.messages import unknown_beside
from ..discovery.registry import Registry, load_registry
from ..execution.process import prepare_to_run_kernels
from ..report.tables import counted
from ..report.terminal import outputs
from ..results.environment import resolve_device
from .validate import chosen_experiments, chosen_pairs


class Part(StrEnum):
    """What `--of` names."""

    TESTS = "tests"
    ERRORS = "errors"
    CAUSES = "causes"
    SAMPLERS = "samplers"
    EXPERIMENTS = "experiments"


def calibrate(
    parts: Sequence[Part], samplers: Sequence[str], targets: Sequence[str], experiments: Sequence[str], seeds: range
) -> int:
    """Print the tables of ``parts``; 1 if the judge is wrong in one of them, else 0.

    ``samplers``, ``targets`` and ``experiments`` are names, all if there are none.
    """
    with outputs(None) as (console, _):
        prepare_to_run_kernels(resolve_device("cpu"))
        registry = load_registry()
        wrong: list[str] = []
        if Part.TESTS in parts:
            wrong += _tests(console, registry, targets, seeds)
        if Part.ERRORS in parts:
            _errors(console, seeds[0])
        if Part.CAUSES in parts:
            wrong += _causes(console, seeds[0])
        if Part.SAMPLERS in parts:
            wrong += _samplers(console, registry, samplers, targets, seeds)
        if Part.EXPERIMENTS in parts:
            wrong += _experiments(console, registry, experiments, seeds)
        for words in wrong:
            console.print(Text(words, style="bold red"))
    return 1 if wrong else 0


def _tests(console: Console, registry: Registry, names: Sequence[str], seeds: range) -> list[str]:
    """Rates over stated ones: measured by kind of test, and computed at the level in use."""
    from ..validation.calibration.rates import LEVEL_IN_USE, LEVELS, computed_rates, measured_rates

    for name in names:
        if name not in registry.targets:
            raise unknown_beside(registry.problems, "target", name, registry.targets)
    chosen = [target for name, target in registry.targets.items() if not names or name in names]
    with console.status("exact samplers"):
        measured, computed = measured_rates(chosen, seeds), list(computed_rates())
    first = _table("test of a right sampler", "tests", *(f"at {each:g}" for each in LEVELS))
    for rate in measured:
        first.add_row(rate.kind, str(rate.tests), *(f"{ratio:.2f}" for ratio in rate.ratios()))
    second = _table("test", f"at {LEVEL_IN_USE:g}")
    for kind, ratio in computed:
        second.add_row(kind, f"{ratio:.2f}")
    console.print(Group("measured / stated rate", first, "\ncomputed / stated rate", second))
    wrong = [each.kind for each in measured if each.too_often] + [kind for kind, ratio in computed if ratio > 2]
    if not wrong:
        console.print("No test rejects right samplers twice as often as stated.")
    return [f"Too often: {', '.join(wrong)}."] if wrong else []


def _errors(console: Console, seed: int) -> None:
    """Chains that planted errors need."""
    from ..validation.calibration.planted_errors import power_library
    from ..validation.calibration.power import SIZES, chains_needed

    console.print("planted errors: chains with which validate rejects them")
    for found in chains_needed(power_library(), seed):
        _row(console, found.name, f"> {SIZES[-1]}" if found.chains is None else str(found.chains))


def _causes(console: Console, seed: int) -> list[str]:
    """The causes of planted errors that the verdict names."""
    from ..validation.calibration.planted_errors import named_errors
    from ..validation.calibration.power import named_causes

    console.print("planted errors: the cause that the verdict names, its line, CPU seconds")
    causes = []
    for each in named_causes(named_errors(), seed):
        causes.append(each)
        _row(console, each.name, str(each.line or "-"), f"{each.seconds:.1f}")
        console.print(Padding(Text(each.words), (0, 0, 0, 4)))
    right = [each for each in causes if each.line]
    slowest = max(each.seconds for each in causes)
    console.print(f"{len(right)} of {counted(len(causes), 'cause')} named, each within {slowest:.1f} s.")
    return [f"Not named: {each.name}: {each.words}" for each in causes if not each.line]


def _samplers(
    console: Console, registry: Registry, samplers: Sequence[str], targets: Sequence[str], seeds: range
) -> list[str]:
    """Alarms of right samplers."""
    from ..validation.calibration.seeds import CHAINS, alarms

    device = resolve_device("cpu")
    pairs, _ = chosen_pairs(registry, samplers, targets, device)
    console.print(f"seeds {seeds[0]} to {seeds[-1]}, {CHAINS} chains on each target")
    _row(console, "sampler", "targets", "claims", "alarms", "CPU s")
    wrong = []
    for each in alarms(pairs, seeds, device):
        numbers = each.targets, each.claims, len(each.failed), round(each.seconds)
        _row(console, each.sampler, *map(str, numbers))
        wrong += each.failed
    if not wrong:
        console.print("No right sampler raised an alarm.")
    return wrong


def _experiments(console: Console, registry: Registry, names: Sequence[str], seeds: range) -> list[str]:
    """z-scores of the experiments' estimators."""
    from ..validation.calibration.seeds import MOST_MEAN, SPREAD, z_scores

    console.print(f"z over seeds {seeds[0]} to {seeds[-1]}")
    _row(console, "experiment: estimator", "mean", "spread")
    off = []
    for each in z_scores(chosen_experiments(registry, names, False), seeds, resolve_device("cpu")):
        name = f"{each.experiment}: {each.estimator}"
        _row(console, name, f"{each.mean:+.2f}", f"{each.spread:.2f}")
        off += [name] * each.off
    bounds = f"mean within {MOST_MEAN} of 0, spread {SPREAD[0]} to {SPREAD[1]}"
    if not off:
        console.print(f"All estimators: {bounds}.")
    return [f"{name}: z is not within the bounds ({bounds})" for name in off]


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _row(console: Console, name: str, *numbers: str) -> None:
    """A line of a table whose rows come one by one, minutes apart."""
    console.print(Text(f" {name:<{78 - 9 * len(numbers)}}" + "".join(f"{each:>9}" for each in numbers)))
    console.file.flush()
