"""Judge a sampler without a reference implementation: by exact laws and by its contract.

**Exact start.** The chains begin with independent exact draws from the sampler's invariant distribution. A correct
sampler keeps this distribution after any number of steps, so no burn-in is needed. The final states of different chains
are independent, so every p-value is exact. Each projection of the law is tested after `STEPS` steps:

- ``probabilities``: the likelihood-ratio test of counts;
- ``cdf``: the Kolmogorov-Smirnov test, and the second moment of ``cdf(x)``. This moment is 1/3 for a uniform number and
  much more sensitive to a wrong spread;
- ``mean``: the distance from the exact mean in standard errors, corrected for skewness. Both come from independent
  exact draws, never from the sampler's own. If these show too heavy a tail, the two-sample Kolmogorov-Smirnov test
  replaces it.

A part of the chains goes on to the steps in `LATER`, with the same tests: errors that build up slowly appear there.

**Impossible states.** A state that is not finite, or not one of a discrete element's values, fails one claim, and the
judgement of the pair ends there: every other test would repeat it.

**Causes.** Where a law fails, the first claim names the likely cause: another law that a typical mistake would give the
states (see `causes`), or what single steps show (see `symptoms`). None is named where a test of the noise has failed,
which names its own.

**Detailed balance.** Of a sampler that says it is ``reversible``, an exact draw x and the state x' a step later are
exchangeable.

**False alarms.** A correct sampler fails on a target with probability at most `claims.FALSE_ALARM`. This level is
divided by the number of tests on the target (Bonferroni); each claim records its share. The tests hold their level
within a factor of two; `statistics.chi_square` and `means` say how they do with rare cells and skewed quantities.

**Power.** `CHAINS` chains detect, at significance level 1e-6, a law of 16 cells at chi-distance 0.03 (that is,
sqrt(sum (q - p)^2 / p)) with probability 0.999, a mean that is off by 0.027 standard deviations with probability 0.999,
and a variance that is off by 4 % with probability 0.99. With n chains (see `ELEMENTS`) these distances grow by the
factor sqrt(CHAINS / n), as they do after 64 and 256 steps.

**log Z.** If the law gives log Z, the mean of ``exp(-(1 / T' - 1 / T) energy)``, which is ``Z(T') / Z(T)``, is tested
like any other mean, with T' = `NEARBY` T.

**Streams.** All chains start from one state. The first moves of adjacent chains, under adjacent seeds, and of chains
and seeds that are 2^26 apart are compared in pairs, each reduced to "above the median or not". If they are independent,
the number of joint successes is hypergeometric (Fisher's exact test), whatever the distribution of the moves. Chains at
no distance take the same path more often than others. The final states of chains with different starts are uncorrelated
at every distance.

**Verdicts without a law.** "moves", "fresh noise" and the streams have p-values too, which share the level. Only equal
bits are judged without one: a chain must not depend on the others beside it. `independence` says what rounding may do.

Two properties are not tested: that different projections are independent, and that a chain forgets its start.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.stats import kstest
from torch import Tensor

from ..api.messages import describe_error
from ..api.operations import INTERPRETED_ON_CPU, Status, Unsupported
from ..api.records import Claim
from ..api.samplers import Dynamics, ExactLaw, Projection, Sampler, Target, reason_against
from .causes import likely_cause
from .chains import Advances, Chains, Fault, ImpossibleState, start_of
from .claims import Claims
from .independence import correlated_at_a_distance, differs, differs_after_one_step
from .means import ExactDraws
from .noise import FAR, dependent_streams, never_moved, repeated_numbers
from .progress import AnnounceClaim, CurrentClaim, silent
from .symptoms import (
    FUNCTIONS,
    UNFIT,
    dependent_moves,
    not_exchangeable,
    separate_classes,
    shared_numbers,
    wrong_acceptance,
    wrong_elements,
)

CHAINS = 107_000
ELEMENTS = {"cpu": 2**18}
"""Most elements advanced at once, by kind of device. A larger target gets fewer chains."""
MOST_ELEMENTS = 2**24
STEPS = (1, 4, 15)
"""Steps after which the law is tested with all chains."""
LATER = {64: 16, 256: 64}
"""Later steps, and by which number the chains are divided there: half the work of `STEPS` again."""
FEWEST_LATER = 1024
EXACT_DRAWS = 1 << 15
"""Fewest exact draws from which the standard errors come."""
LONG_CHAINS = 64
LONG_STEPS = 260
"""More than 256, so that a step counter of 8 bits is noticed."""
FURTHER = 512
"""Steps after which one more is compared with the first: a counter of 9 bits repeats there. One of 10 bits or more
passes: to notice it would take longer than everything else."""
NEARBY = 1.1
"""The ratio T' / T of the temperature at which the same draws estimate the partition function."""
REPEATED_CHAINS = 256
PAIRS = 512
"""Pairs of adjacent chains for the test of independent streams."""
INTERPRETED = 16
"""The number of chains is divided by this where a kernel is interpreted or emulated."""
MOST_CORRELATION = 0.95
"""Above this correlation of a quantity with its start, its law after the steps has almost no power."""
CHAINS_OF_CAUSES = 20_000
"""Chains that go on to the first of `LATER` where a law has failed."""
NAME_THEIR_CAUSE = ("independent ", "fresh noise", "moves")
"""Claims, by their first words, whose failure says what is wrong."""
NO_NUMBERS: Any = dict.fromkeys(("exact", "measured", "stderr", "z", "p_value", "false_alarm", "steps"))


def validate(
    sampler: Sampler,
    target: Target,
    device: torch.device,
    seed: int,
    *,
    chains: int | None = None,
    announce: AnnounceClaim = silent,
) -> list[Claim]:
    """All claims about ``sampler`` on ``target``, at each temperature of the target.

    ``chains`` is the number of exact starts. By default it gives the stated power, with fewer chains for targets of
    many elements and for interpreted kernels. ``announce`` gets each claim before its test. An error of the sampler is
    a failed claim and is not raised.
    """
    return _Judgement(sampler, target, device, seed, chains, announce).claims()


class _Judgement:
    def __init__(
        self,
        sampler: Sampler,
        target: Target,
        device: torch.device,
        seed: int,
        chains: int | None,
        announce: AnnounceClaim,
    ) -> None:
        self._sampler, self._target, self._device, self._seed = sampler, target, device, seed
        self._announce = announce
        self._fewer = INTERPRETED if device.type == "cpu" and sampler.backend in INTERPRETED_ON_CPU else 1
        elements = int(np.prod(target.shape, dtype=np.int64))
        self._most = ELEMENTS.get(device.type, MOST_ELEMENTS) // max(elements, 1)
        self._chains = chains or max(min(CHAINS, self._most) // self._fewer, 64)
        self._claims = Claims(sampler.name, target.name)
        self._last: dict[float, Tensor] = {}
        """The states after the last of `STEPS`, by temperature."""
        self._steps: dict[float, tuple[ExactLaw, Tensor, Tensor]] = {}
        """The law, exact draws and the states a step later, by temperature."""

    def claims(self) -> list[Claim]:
        with suppress(ImpossibleState), np.errstate(over="ignore"):  # squares of a chain that runs away
            self._judge()
        claims = self._claims.judged()
        failed = [each for each in claims if each.status is Status.WRONG_LAW]
        laws = [each for each in failed if each.steps is not None]
        named = any(each.claim.startswith(NAME_THEIR_CAUSE) for each in failed)
        words = self._cause(laws) if laws and not named else None
        if words is None:
            return claims
        return [replace(laws[0], claim="likely cause", message=words, **NO_NUMBERS), *claims]

    def _cause(self, failed: list[Claim]) -> str | None:
        """The likely cause of ``failed`` tests of laws, if one is found."""
        if not all(each.steps for each in failed):
            return "the target's own draws do not have its law"
        sampler, target, temperature = self._sampler, self._target, failed[0].temperature
        law, start, x = self._steps[temperature]
        rejects = bool((x == start).flatten(1).all(1).any())
        by_law = partial(likely_cause, target, sampler.dynamics(target), seed=self._seed, rejects=rejects)
        wrong = {each.temperature for each in failed}
        only_at_1 = 1.0 in target.temperatures and wrong == {*target.temperatures} - {1.0}
        acceptance = wrong_acceptance(sampler, target, start, x)
        draws = partial(self._start, law)
        causes: tuple[Callable[[], str | None], ...] = (
            lambda: shared_numbers(self._run, target, draws, self._seed, temperature),
            lambda: by_law(self._last),
            lambda: wrong_elements(x, draws(len(x), "elements").cpu()),
            lambda: "the law is right at temperature 1 alone: a term is not divided by it" if only_at_1 else None,
            lambda: acceptance if acceptance and not acceptance.startswith(UNFIT) else None,
            lambda: by_law(self._later()),
            lambda: dependent_moves(self._run, target, draws, self._seed, temperature),
            lambda: acceptance,
        )
        for find in causes:
            with suppress(Fault):
                if words := find():
                    return words
        return None

    def _later(self) -> dict[float, Tensor]:
        """States, by temperature, that are nearer to the sampler's own law than those after the last of `STEPS`."""
        chains, steps = CHAINS_OF_CAUSES // self._fewer, min(LATER)
        return {
            t: self._run.last(start[:chains].to(self._device), self._seed, [(steps, t)]).cpu()
            for t, (_, start, _) in self._steps.items()
        }

    def _judge(self) -> None:
        sampler, target = self._sampler, self._target
        first = target.temperatures[0]
        self._announce(CurrentClaim("made for this target", first))
        try:
            reason = reason_against(sampler, target, self._device)
            if reason is not None and not isinstance(reason, str):
                raise TypeError(f"refuses() and unavailable() must return a str or None, got {reason!r}")
            dynamics = None if reason else sampler.dynamics(target)
        except (Exception, SystemExit) as error:
            self._claims.say(first, "made for this target", Status.ERROR, describe_error(error))
            return
        if dynamics is None:
            self._claims.say(first, "made for this target", Status.UNAVAILABLE, reason or "")
            return
        self._run = Chains(sampler, target)
        try:
            laws = {temperature: _law(target, temperature, dynamics) for temperature in target.temperatures}
            before = self._energies()
        except Exception as error:
            self._claims.say(first, "target", Status.ERROR, f"target {target.name}: {describe_error(error)}")
            return
        laws = {temperature: law for temperature, law in laws.items() if self._form(temperature, law)}
        if not laws:
            return  # every other test would fail for the same reason
        first = next(iter(laws))
        self._reproducibility(first, laws[first])
        self._streams(first, laws[first])
        for temperature, law in laws.items():
            self._guarded(temperature, "long run", partial(self._long_run, temperature, law, temperature == first))
            if law is None:
                self._claims.say(
                    temperature, "exact law", Status.UNAVAILABLE, f"no exact law is known for {dynamics.name}"
                )
            else:
                work = partial(self._exact_start, temperature, law, temperature == first)
                self._guarded(temperature, "exact start", work)
        self._holds(
            first,
            "target unchanged",
            lambda: None if torch.equal(before, self._energies()) else "the sampler changed the target's energy",
            Status.MODIFIED_INPUT,
        )

    def _guarded(self, temperature: float, claim: str, work: Callable[[], None]) -> bool:
        """Run ``work``. If it raises, record the claim as failed and return False; raise an `ImpossibleState` again."""
        self._announce(CurrentClaim(claim, temperature))
        try:
            work()
            return True
        except Fault as fault:
            self._fail(temperature, claim, fault)
        except Unsupported as refusal:
            self._claims.say(temperature, claim, Status.UNAVAILABLE, str(refusal))
        except Exception as error:  # the target raised it: `Chains` turns every error of the sampler into a Fault
            self._claims.say(temperature, claim, Status.ERROR, f"target {self._target.name}: {describe_error(error)}")
        return False

    def _fail(self, temperature: float, claim: str, fault: Fault) -> None:
        """Record the claim as failed. After an impossible state the judgement ends."""
        self._claims.say(temperature, claim, fault.status, fault.message)
        if isinstance(fault, ImpossibleState):
            raise fault

    def _holds(
        self,
        temperature: float,
        claim: str,
        why_not: Callable[[], str | None],
        otherwise: Status = Status.WRONG_VALUES,
    ) -> None:
        """Record a claim without a p-value; ``why_not`` returns what is wrong, or None."""

        def work() -> None:
            message = why_not()
            self._claims.say(temperature, claim, otherwise if message else Status.PASSED, message or "")

        self._guarded(temperature, claim, work)

    def _start(self, law: ExactLaw | None, chains: int, purpose: str) -> Tensor:
        return start_of(self._target, law, chains, self._seed, purpose).to(self._device)

    def _form(self, temperature: float, law: ExactLaw | None) -> bool:
        def work() -> None:
            start = self._start(law, max(64 // self._fewer, 16), f"form {temperature}")
            self._run.last(start, self._seed, [(1, temperature)] * max(STEPS))
            self._claims.say(temperature, "form", Status.PASSED)

        return self._guarded(temperature, "form", work)

    # The contract: equal seeds give equal states, different seeds different ones.

    def _reproducibility(self, t: float, law: ExactLaw | None) -> None:
        """Run the same chains in several ways. The temperature changes in between, to detect a stale one."""
        other = next((each for each in self._target.temperatures if each != t), 2 * t)
        chains = max(min(REPEATED_CHAINS, self._most // 4) // self._fewer, 32)
        part = chains * 5 // 8 | 1  # odd, because random numbers come in groups of four
        seed, run = self._seed, self._run
        calls: Advances = [(1, t), (5, other)]
        try:
            start = self._start(law, chains, "reproducibility")
            once = run.last(start, seed, calls)
            another = run.last(start, seed + 1, calls)
            unheated = run.last(start, seed, [(1, t), (5, t)])
        except Fault as fault:
            self._fail(t, "same seed, same states", fault)
            return
        except Unsupported as refusal:
            self._claims.say(t, "same seed, same states", Status.UNAVAILABLE, str(refusal))
            return

        def split_chains() -> str | None:
            one_step: Advances = [(1, t)]
            bounds = [0, *(each for each in (1, 6, 17, 40, 77, 130, 201) if each < chains), chains]
            parts = [run.last(start[a:b], seed, one_step, FAR + a) for a, b in pairwise(bounds)]
            if words := differs_after_one_step(torch.cat(parts), run.last(start, seed, one_step, FAR)):
                return f"after one step, {words}"
            whole = run.last(start, seed, calls, FAR)
            later = run.path(start[part:], seed, calls, FAR + part)
            for x, y in zip(later, run.path(start[:part], seed, calls, FAR), strict=True):  # the parts take turns
                both = torch.cat([y, x])
            return differs(both, whole, rounded=True)

        def by_tensor() -> str | None:
            half = chains // 2
            dtype = start.dtype if start.dtype.is_floating_point else torch.float32
            each = torch.full((chains,), t, dtype=dtype, device=start.device)
            each[half:] = other
            warm, hot = run.last(start, seed, [(6, t)]), run.last(start, seed, [(6, other)])
            return differs(run.last(start, seed, [(6, each)]), torch.cat([warm[:half], hot[half:]]), rounded=True)

        def by_schedule() -> str | None:
            schedule = torch.full((6, chains), t, dtype=torch.float32, device=start.device)
            schedule[2:, ::3] = other
            row_by_row = run.last(start, seed, [(1, row) for row in schedule])
            return differs(run.last(start, seed, [(6, schedule)]), row_by_row)

        def equal(x: Tensor, words: str) -> str | None:
            return words if torch.equal(x, once) else None

        self._holds(t, "same seed, same states", lambda: differs(run.last(start, seed, calls), once))
        self._holds(t, "any split of chains", split_chains)
        self._holds(
            t, "any split of steps", lambda: differs(run.last(start, seed, [(1, t), (2, other), (3, other)]), once)
        )
        self._holds(t, "a temperature for each chain", by_tensor)
        self._holds(t, "a temperature for each step", by_schedule)
        self._holds(t, "another seed, other states", lambda: equal(another, f"seed {seed + 1} gives the same states"))
        self._holds(
            t, "temperature matters", lambda: equal(unheated, f"five steps are the same at temperature {other:g}")
        )

    def _streams(self, temperature: float, law: ExactLaw | None) -> None:
        chains = 2 * max(min(PAIRS, self._most // 4) // self._fewer, 64)

        def work() -> None:
            found = dependent_streams(self._run, self._start(law, 16, "streams"), chains, self._seed, temperature)
            self._claims.judge(temperature, "independent streams", *found)

        self._guarded(temperature, "independent streams", work)

    # Laws.

    def _exact_start(self, temperature: float, law: ExactLaw, first: bool) -> None:
        """Test the law after each of `STEPS` with all chains, and after each of `LATER` with a part of them.

        The last of these is for the ``first`` temperature alone.
        """
        draws = start_of(self._target, law, max(self._chains, EXACT_DRAWS), self._seed, f"exact draws {temperature}")
        tests = [(each, *_exact_draws(each, draws)) for each in law.projections]
        start = self._start(law, self._chains, f"exact {temperature}")
        calls = [(after - before, temperature) for before, after in zip((0, *STEPS), STEPS, strict=False)]
        positions = zip((0, *STEPS), (start, *self._run.path(start, self._seed, calls)), strict=True)
        for steps, x in positions:
            for test in tests:
                self._judge_projection(temperature, *test, x.cpu(), steps)
            if steps == 1:
                self._steps[temperature] = law, start.cpu(), x.cpu()
        if self._sampler.reversible:
            self._judge_balance(temperature)
        self._judge_idle(temperature, start, x)
        self._judge_distances(temperature, x, steps)
        self._last[temperature] = x.cpu()
        for steps, part in [*LATER.items()][: None if first else -1]:
            some = start[: max(self._chains // part, FEWEST_LATER)]
            x = self._run.last(some, self._seed, [(steps, temperature)])
            for test in tests:
                self._judge_projection(temperature, *test, x.cpu(), steps)
            self._judge_distances(temperature, x, steps)
        for projection in law.projections:  # after the most steps
            self._judge_progress(temperature, projection, some.cpu(), x.cpu(), steps)

    def _judge_projection(
        self,
        temperature: float,
        projection: Projection,
        own: ExactDraws | None,
        own_square: ExactDraws | None,
        x: Tensor,
        steps: int,
    ) -> None:
        """Test the law of ``projection`` at ``x``, given what `_exact_draws` returns for it."""
        values = projection.of(x)
        after = f"{steps} step{'s' * (steps != 1)}"
        name = f"{projection.name} after {after}" if steps else f"{projection.name} of the target's own draws"
        law, spread, mean = (
            self._claims.law(temperature, f"{kind} of {name}", steps) for kind in ("law", "spread", "mean")
        )
        if projection.probabilities is not None:
            self._claims.judge_counts(temperature, law, values, projection.probabilities)
        numbers = values.double().numpy()
        if projection.cdf is not None and own_square is not None:
            uniform = projection.cdf(numbers)
            p_value = float(kstest(uniform, "uniform", method="asymp").pvalue)
            self._claims.judge(temperature, law, p_value, f"Kolmogorov-Smirnov, {len(numbers)} chains")
            self._claims.judge_mean(temperature, spread, np.square(uniform), 1 / 3, own_square)
        if projection.mean is not None and own is not None:
            self._claims.judge_mean(temperature, mean, numbers, projection.mean, own)

    def _judge_balance(self, temperature: float) -> None:
        law, start, x = self._steps[temperature]
        values = {
            each.name: (each.of(start).double().numpy(), each.of(x).double().numpy())
            for each in law.projections[:FUNCTIONS]
        }
        claim = self._claims.law(temperature, "detailed balance of 1 step", 1)
        self._claims.judge(temperature, claim, *not_exchangeable(values))

    def _judge_distances(self, temperature: float, x: Tensor, steps: int) -> None:
        claim = f"independent chains after {steps} steps"
        self._claims.judge(temperature, claim, *correlated_at_a_distance(x))

    def _judge_progress(
        self, temperature: float, projection: Projection, start: Tensor, end: Tensor, steps: int
    ) -> None:
        """Record that the law has little power if the chains are still close to their start."""
        before, after = (projection.of(x).double().numpy() for x in (start, end))
        with np.errstate(invalid="ignore"):  # a wrong sampler's squares may overflow
            near = before.std() and after.std() and np.corrcoef(before, after)[0, 1] > MOST_CORRELATION
        if near:
            words = f"the chains hardly moved in {steps} steps, so a small error of the law would not show"
            self._claims.say(temperature, f"progress of {projection.name}", Status.UNAVAILABLE, words)

    def _judge_idle(self, temperature: float, start: Tensor, x: Tensor) -> None:
        """The numbers of the chains that never moved are uniformly distributed."""
        idle = (x == start).flatten(1).all(1).nonzero().flatten().cpu().numpy()
        if 5 <= len(idle) < len(x):
            p_value = float(kstest((idle + 0.5) / len(x), "uniform", method="asymp").pvalue)
            self._claims.judge(
                temperature, "idle chains anywhere", p_value, f"{len(idle)} of {len(x)} chains never moved"
            )

    def _long_run(self, temperature: float, law: ExactLaw | None, first: bool) -> None:
        """Every chain and element moves; at the ``first`` temperature, no step repeats the random numbers of step 1."""
        steps, chains = LONG_STEPS // self._fewer, LONG_CHAINS
        if law is None:
            chains = max(chains // self._fewer, 16)
        if law is None or not first:
            steps = min(steps, LONG_STEPS // 4)
        start = self._start(law, chains, f"long {temperature}")
        calls: Advances = [(1, temperature)] * steps
        if steps == LONG_STEPS:
            calls = [*calls, (FURTHER - steps, temperature), (1, temperature)]
        positions = [start, *self._run.path(start, self._seed, calls)]
        path = torch.stack(positions[: steps + 1]).cpu()
        moves = never_moved(self._run, path, start, self._seed, temperature)
        self._claims.judge(temperature, "moves", *moves)
        if not path.dtype.is_floating_point and (classes := separate_classes(path)) > 1:
            words = f"no step connects {classes} classes of states: not ergodic, so a law within them was not tested"
            self._claims.say(temperature, "reaches every state", Status.UNAVAILABLE, words)
        if first:
            pairs = {step: (positions[step], path[step + 1]) for step in range(1, steps)}
            if steps == LONG_STEPS:
                pairs[FURTHER] = positions[-2], positions[-1].cpu()
            fresh = repeated_numbers(self._run, pairs, self._seed, temperature)
            self._claims.judge(temperature, "fresh noise in every step", *fresh)

    def _energies(self) -> Tensor:
        """The energy of a few positions: detects changes outside the parameters, which `Chains` compares itself."""
        return self._target.energy(self._start(None, 8, "energy")).clone()


def _exact_draws(projection: Projection, x: Tensor) -> tuple[ExactDraws | None, ExactDraws | None]:
    """For exact draws ``x``: the values, if their mean is known, and the squares of ``cdf``, if that is known."""
    numbers = projection.of(x).double().numpy()
    squares = None if projection.cdf is None else ExactDraws(np.square(projection.cdf(numbers)))
    return None if projection.mean is None else ExactDraws(numbers), squares


def _law(target: Target, temperature: float, dynamics: Dynamics) -> ExactLaw | None:
    """The target's law, with the ratio of two partition functions as one more projection if log Z is known."""
    law = target.law(temperature, dynamics)
    if law is None or law.log_z is None:
        return law
    nearby = target.law(NEARBY * temperature, dynamics)
    if nearby is None or nearby.log_z is None:
        return law
    difference = 1 / (NEARBY * temperature) - 1 / temperature

    def weight(x: Tensor) -> Tensor:
        return torch.exp(-difference * target.energy(x).double())

    name = f"Z(T = {NEARBY * temperature:.4g}) / Z(T = {temperature:.4g})"
    ratio = Projection(name, weight, mean=math.exp(nearby.log_z - law.log_z))
    return replace(law, projections=(*law.projections, ratio))
