"""Judging a sampler without a reference implementation: by exact laws, and by what its contract promises.

**Exact start.** Chains begin with independent exact draws of the law that the sampler's dynamics leave alone. A right
sampler then has that law after any number of steps, with no burn-in to wait for, and final states of different chains
are independent: every p-value is honest. Each projection of the law is tested after `STEPS` steps:

- ``probabilities``: Pearson's chi-square;
- ``cdf``: Kolmogorov-Smirnov, and the second moment of ``cdf(x)``, which for a uniform number is 1/3 and is much more
  sensitive to a wrong spread;
- ``mean``: Student's t, standard error from the chains. Once more over a long run of `LONG_CHAINS` chains, standard
  error from the effective sample size (ArviZ).

**False alarms.** A right sampler fails on a target with probability `claims.FALSE_ALARM` at most: it is divided by the
number of tests made there (Bonferroni), and each claim tells its part. Student's and Pearson's laws are those of many
draws: so far out in their tails a test of a skewed quantity, or of rare cells, may fail a few times as often as it
says.

**Power.** `CHAINS` chains find a law of 16 cells at chi-distance 0.03 (that is, sqrt(sum (q - p)^2 / p)) with
probability 0.999 at a false alarm of 1e-6, a mean that is 0.027 standard deviations off with probability 0.999, and a
variance that is 4 % off with probability 0.99. With n chains (see `ELEMENTS`) the distances are sqrt(CHAINS / n)
times as large. What only shows after many steps needs the long run.

**log Z.** Where the law tells it, the mean of ``exp(-(1 / T' - 1 / T) energy)``, which is ``Z(T') / Z(T)``, is judged
as any other mean, with T' = `NEARBY` T.

**Streams.** From one start, the moves of the first steps under adjacent seeds and of adjacent chains are compared two
by two, each as "above the median or not": under independence the number of joint successes is hypergeometric
(Fisher's exact test), whatever the law of the moves. No two chains of continuous positions may take the same path.

Not claimed: that different projections are independent, nor that a chain forgets its start.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import kstest
from torch import Tensor

from ..api.messages import describe_error
from ..api.operations import INTERPRETED_ON_CPU, Status, Unsupported
from ..api.records import Claim
from ..api.samplers import Dynamics, ExactLaw, Projection, Sampler, Target, reason_against
from .chains import Advances, Chains, Fault, start_of
from .claims import Claims
from .efficiency import effective_sample_size
from .independence import above_the_median, dependence, differs, same_paths, stuck

CHAINS = 107_000
ELEMENTS = {"cpu": 2**18}
"""Largest number of elements advanced at once, by kind of device: beyond it a target is tried with fewer chains."""
MOST_ELEMENTS = 2**24
STEPS = (1, 4, 15)
LONG_CHAINS = 64
LONG_STEPS = 256
NEARBY = 1.1
"""How many times the temperature is another one at which the partition function is estimated from the same draws."""
REPEATED_CHAINS = 256
PAIRS = 1024
"""Pairs of neighbouring chains, for the streams."""
INTERPRETED = 16
"""How many times fewer chains are run where a kernel is interpreted on the host."""
FAR = 1_000_003
"""Chains are numbered from here where they are split: a number that is odd, and beyond 16 bits."""
FORGOTTEN = 0.95
"""The correlation of a quantity with itself at the start above which its law after the steps tells next to nothing."""
Array = np.ndarray[Any, Any]


def validate(
    sampler: Sampler,
    target: Target,
    device: torch.device,
    seed: int,
    *,
    chains: int | None = None,
    announce: Callable[[str], None] = lambda claim: None,
) -> list[Claim]:
    """All that can be claimed of ``sampler`` on ``target``, at each of its temperatures.

    ``chains`` is the number of exact starts; by default what the stated power needs, less for targets of many elements
    and for interpreted kernels. ``announce`` is told what is being judged. Never raises for what the sampler does.
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
        announce: Callable[[str], None],
    ) -> None:
        self._sampler, self._target, self._device, self._seed = sampler, target, device, seed
        self._announce = announce
        self._fewer = INTERPRETED if device.type == "cpu" and sampler.backend in INTERPRETED_ON_CPU else 1
        elements = int(np.prod(target.shape, dtype=np.int64))
        self._most = ELEMENTS.get(device.type, MOST_ELEMENTS) // max(elements, 1)
        self._chains = chains or max(min(CHAINS, self._most) // self._fewer, 64)
        self._claims = Claims(sampler.name, target.name)
        self._own: dict[tuple[float, str], Array] = {}

    def claims(self) -> list[Claim]:
        self._judge()
        return self._claims.judged()

    def _judge(self) -> None:
        sampler, target = self._sampler, self._target
        first = target.temperatures[0]
        self._announce(f"made for this target, T = {first:g}")
        try:
            reason = reason_against(sampler, target, self._device)
            if reason is not None and not isinstance(reason, str):
                raise TypeError(f"a reason must be words or None, got {reason!r}")
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
            return  # all else would fail for the same reason
        first = next(iter(laws))
        self._reproducibility(first, laws[first])
        self._streams(first, laws[first])
        for temperature, law in laws.items():
            self._guarded(temperature, "long run", partial(self._long_run, temperature, law))
            if law is None:
                self._claims.say(
                    temperature, "exact law", Status.UNAVAILABLE, f"no exact law is known for {dynamics.name}"
                )
            else:
                self._guarded(temperature, "exact start", partial(self._exact_start, temperature, law))
        self._holds(
            first,
            "target unchanged",
            lambda: None if torch.equal(before, self._energies()) else "its energy is not what it was",
            Status.MODIFIED_INPUT,
        )

    def _guarded(self, temperature: float, claim: str, work: Callable[[], None]) -> bool:
        """Whether ``work`` came to its end; what stopped it is said otherwise."""
        self._announce(f"{claim}, T = {temperature:g}")
        try:
            work()
            return True
        except Fault as fault:
            self._claims.say(temperature, claim, fault.status, fault.message)
        except Unsupported as refusal:
            self._claims.say(temperature, claim, Status.UNAVAILABLE, str(refusal))
        except Exception as error:  # of the target: whatever the sampler raises is a Fault
            self._claims.say(temperature, claim, Status.ERROR, f"target {self._target.name}: {describe_error(error)}")
        return False

    def _holds(
        self,
        temperature: float,
        claim: str,
        why_not: Callable[[], str | None],
        otherwise: Status = Status.WRONG_VALUES,
    ) -> None:
        """A claim without a number: ``why_not`` gives what is wrong, or None."""

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

    # What the contract promises of the same seed, and of different ones.

    def _reproducibility(self, t: float, law: ExactLaw | None) -> None:
        """The same chains in several ways. The temperature changes on the way: a stale one would be seen."""
        other = next((each for each in self._target.temperatures if each != t), 2 * t)
        chains = max(min(REPEATED_CHAINS, self._most // 4) // self._fewer, 32)
        part = chains * 5 // 8 | 1  # odd, as random numbers come in groups
        seed, run = self._seed, self._run
        calls: Advances = [(1, t), (5, other)]
        try:
            start = self._start(law, chains, "reproducibility")
            once = run.last(start, seed, calls)
            another = run.last(start, seed + 1, calls)
            unheated = run.last(start, seed, [(1, t), (5, t)])
        except Fault as fault:
            self._claims.say(t, "same seed, same states", fault.status, fault.message)
            return
        except Unsupported as refusal:
            self._claims.say(t, "same seed, same states", Status.UNAVAILABLE, str(refusal))
            return

        def split_chains() -> str | None:
            whole = run.last(start, seed, calls, FAR)
            later = run.path(start[part:], seed, calls, FAR + part)
            for x, y in zip(later, run.path(start[:part], seed, calls, FAR), strict=True):  # in turns
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
        pairs = max(min(PAIRS, self._most // 2) // self._fewer, 64)

        def work() -> None:
            start = self._start(law, 1, "streams").expand(2 * pairs, *self._target.shape).contiguous()
            groups: dict[str, Array] = {}
            paths: dict[int, Tensor] = {}
            for seed in (self._seed, self._seed + 1):
                path = torch.stack([start, *self._run.path(start, seed, [(1, temperature)] * 4)])
                if bool((path[-1] == path[-1][0]).all()):
                    words = f"from one start, all {2 * pairs} chains are in the same state after 4 steps"
                    self._claims.say(temperature, "independent streams", Status.WRONG_LAW, words)
                    return
                paths[seed] = path[1:].transpose(0, 1).flatten(1)
                above = above_the_median(path)
                groups[f"seed {seed}, even chains"], groups[f"seed {seed}, odd chains"] = above[:, ::2], above[:, 1::2]
            if start.dtype.is_floating_point and (same := same_paths(paths)):
                self._claims.say(temperature, "independent streams", Status.WRONG_LAW, same)
                return
            p_value, words = dependence(groups)
            self._claims.judge(temperature, "independent streams", p_value, words)

        self._guarded(temperature, "independent streams", work)

    # Laws.

    def _exact_start(self, temperature: float, law: ExactLaw) -> None:
        start = self._start(law, self._chains, f"exact {temperature}")
        calls = [(after - before, temperature) for before, after in zip((0, *STEPS), STEPS, strict=False)]
        positions = zip((0, *STEPS), (start, *self._run.path(start, self._seed, calls)), strict=True)
        for steps, x in positions:
            for projection in law.projections:
                self._judge_projection(temperature, projection, x.cpu(), steps)
        self._judge_idle(temperature, start, x)

    def _judge_projection(self, temperature: float, projection: Projection, x: Tensor, steps: int) -> None:
        values = projection.of(x)
        name = f"{projection.name} after {steps} steps" if steps else f"{projection.name} of the target's own draws"
        own = None if steps == 0 else self._own.get((temperature, projection.name))
        if projection.probabilities is not None:
            self._claims.judge_counts(temperature, f"law of {name}", values, projection.probabilities)
        numbers = values.double().numpy()
        if steps == 0:
            self._own[temperature, projection.name] = numbers
        elif steps == max(STEPS) and own is not None:
            self._judge_progress(temperature, projection, own, numbers)
        if projection.cdf is not None:
            p_value = float(kstest(numbers, projection.cdf, method="asymp").pvalue)
            self._claims.judge(temperature, f"law of {name}", p_value, f"Kolmogorov-Smirnov, {len(numbers)} chains")
            square = np.square(projection.cdf(numbers))
            own_square = None if own is None else np.square(projection.cdf(own))
            self._claims.judge_mean(temperature, f"spread of {name}", square, 1 / 3, len(numbers), own_square)
        if projection.mean is not None:
            self._claims.judge_mean(temperature, f"mean of {name}", numbers, projection.mean, len(numbers), own)

    def _judge_progress(self, temperature: float, projection: Projection, start: Array, end: Array) -> None:
        """What is not claimed of chains that are nearly where they began: the law that they had is still theirs."""
        if start.std() and end.std() and np.corrcoef(start, end)[0, 1] > FORGOTTEN:
            words = f"in {max(STEPS)} steps chains hardly moved: a law that is a little wrong would not show"
            self._claims.say(temperature, f"progress of {projection.name}", Status.UNAVAILABLE, words)

    def _judge_idle(self, temperature: float, start: Tensor, x: Tensor) -> None:
        """Chains that never moved are as likely to have one number as another."""
        idle = (x == start).flatten(1).all(1).nonzero().flatten().cpu().numpy()
        if 5 <= len(idle) < len(x):
            p_value = float(kstest((idle + 0.5) / len(x), "uniform", method="asymp").pvalue)
            self._claims.judge(
                temperature, "idle chains anywhere", p_value, f"{len(idle)} of {len(x)} chains never moved"
            )

    def _long_run(self, temperature: float, law: ExactLaw | None) -> None:
        """Every chain and element moves, and means over time and chains are exact."""
        steps, chains = LONG_STEPS // self._fewer, LONG_CHAINS
        if law is None:  # only to see it move
            steps, chains = min(steps, LONG_STEPS // 4), max(chains // self._fewer, 16)
        start = self._start(law, chains, f"long {temperature}")
        path = torch.stack([start, *self._run.path(start, self._seed, [(1, temperature)] * steps)]).cpu()
        self._holds(temperature, "moves", lambda: stuck(path.flatten(2)), Status.WRONG_LAW)
        self._holds(
            temperature, "fresh noise in every step", lambda: self._repeated(path, temperature), Status.WRONG_LAW
        )
        for projection in law.projections if law else ():
            if projection.mean is None:
                continue
            values = projection.of(path.flatten(0, 1)).double().numpy().reshape(path.shape[:2])[1:]
            if values.std():
                worth = effective_sample_size(values.T)
                claim = f"mean of {projection.name} over {steps} steps"
                self._claims.judge_mean(temperature, claim, values.reshape(-1), projection.mean, worth)

    def _repeated(self, path: Tensor, temperature: float) -> str | None:
        """The first step of ``path`` that draws what step 1 drew: from where it began, a new run makes the same move.

        (Of samplers with a state beside the positions this tells nothing: the two moves differ by it.)
        """
        steps = range(1, len(path) - 1)
        for step in (*steps[:15], *steps[15::8]):  # with any period to 32, and what divides a multiple of eight
            here = path[step].to(self._device)
            again = self._run.last(here, self._seed, [(1, temperature)]).cpu()
            moved = (again != path[step]).flatten(1).any(1)
            if int(moved.sum()) >= 8 and torch.equal(again, path[step + 1]):
                return f"step {step + 1} draws the same random numbers as step 1"
        return None

    def _energies(self) -> Tensor:
        """Of a few positions. Parameters are compared after every call; this sees what the energy keeps elsewhere."""
        return self._target.energy(self._start(None, 8, "energy")).clone()


def _law(target: Target, temperature: float, dynamics: Dynamics) -> ExactLaw | None:
    """The target's law, which is also seen by the ratio of partition functions where these are known."""
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
