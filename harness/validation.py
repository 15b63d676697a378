"""Judging a sampler without a reference implementation: by exact laws, and by what its contract promises.

**Exact start.** Chains begin with independent exact draws of the law that the sampler's dynamics leave alone. A right
sampler then has that law after any number of steps, with no burn-in to wait for, and final states of different chains
are independent: every p-value is honest. Each projection of the law is tested after `STEPS` steps:

- ``probabilities``: Pearson's chi-square;
- ``cdf``: Kolmogorov-Smirnov, and the second moment of ``cdf(x)``, which for a uniform number is 1/3 and is much more
  sensitive to a wrong spread;
- ``mean``: Student's t, standard error from the chains. Once more over a long run of `LONG_CHAINS` chains, standard
  error from the effective sample size (ArviZ).

**False alarms.** A right sampler fails on a target with probability `FALSE_ALARM` at most: it is divided by the number
of tests made there (Bonferroni), and each claim tells its part. Student's and Pearson's laws are those of many draws:
so far out in their tails a test of a skewed quantity, or of rare cells, may fail a few times as often as it says.

**Power.** `CHAINS` chains find a law of 16 cells at chi-distance 0.03 (that is, sqrt(sum (q - p)^2 / p)) with
probability 0.999 at a false alarm of 1e-6, a mean that is 0.027 standard deviations off with probability 0.999, and a
variance that is 4 % off with probability 0.99. With n chains (see `ELEMENTS`) the distances are sqrt(CHAINS / n)
times as large. What only shows after many steps needs the long run.

**log Z.** Where the law tells it, the mean of ``exp(-(1 / T' - 1 / T) energy)``, which is ``Z(T') / Z(T)``, is judged
as any other mean, with T' = `NEARBY` T.

**Streams.** From one start, the moves of the first steps under adjacent seeds and of adjacent chains are compared two
by two, each as "above the median or not": under independence the number of joint successes is hypergeometric
(Fisher's exact test), whatever the law of the moves.

Not claimed: that different projections are independent, nor that a chain forgets its start.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.special import stdtr, stdtrit
from scipy.stats import hypergeom, kstest
from torch import Tensor

from .chains import Advances, Chains, Fault, start_of
from .efficiency import effective_sample_size
from .laws import chi_square
from .sampling import Dynamics, ExactLaw, Projection, Sampler, Target, reason_against
from .types import INTERPRETED_ON_CPU, Agreement, Claim, Status, Unsupported
from .wording import describe_error

FALSE_ALARM = 1e-6
CHAINS = 107_000
ELEMENTS = {"cpu": 2**18}
"""Largest number of elements advanced at once, by kind of device: beyond it a target is tried with fewer chains."""
MOST_ELEMENTS = 2**24
STEPS = (1, 4, 15)
LONG_CHAINS = 64
LONG_STEPS = 256
ENOUGH_MOVES = 48
"""Of the chains on average: only beside so many is one without any taken to be stuck, and not for want of luck."""
NEARBY = 1.1
"""How many times the temperature is another one at which the partition function is estimated from the same draws."""
REPEATED_CHAINS = 256
PAIRS = 1024
"""Pairs of neighbouring chains, for the streams."""
INTERPRETED = 16
"""How many times fewer chains are run where a kernel is interpreted on the host."""
ROUNDED = 1 / 32
"""Share of chains that rounding may lead elsewhere where the same numbers are computed in another order."""
FAR = 1_000_003
"""Chains are numbered from here where they are split: a number that is odd, and beyond 16 bits."""
FORGOTTEN = 0.95
"""The correlation of a quantity with itself at the start above which its law after the steps tells next to nothing."""
OUTLIERS = 4.0
"""How many times more skewed than allowed values are that an exact sampler does not produce."""
SKEWNESS = 0.05
"""Largest skewness of a mean for which Student's law is trusted far out in its tails."""

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
        self._claims: list[Claim] = []
        self._tests: list[tuple[float, str, Callable[[float], Claim]]] = []
        self._own: dict[tuple[float, str], Array] = {}

    def claims(self) -> list[Claim]:
        sampler, target = self._sampler, self._target
        first = target.temperatures[0]
        self._announce(f"made for this target, T = {first:g}")
        try:
            reason = reason_against(sampler, target, self._device)
            if reason is not None and not isinstance(reason, str):
                raise TypeError(f"a reason must be words or None, got {reason!r}")
            dynamics = None if reason else sampler.dynamics(target)
        except (Exception, SystemExit) as error:
            self._say(first, "made for this target", Status.ERROR, describe_error(error))
            return self._claims
        if dynamics is None:
            self._say(first, "made for this target", Status.UNAVAILABLE, reason or "")
            return self._claims
        self._run = Chains(sampler, target)
        try:
            laws = {temperature: _law(target, temperature, dynamics) for temperature in target.temperatures}
            before = self._energies()
        except Exception as error:
            self._say(first, "target", Status.ERROR, f"target {target.name}: {describe_error(error)}")
            return self._claims
        laws = {temperature: law for temperature, law in laws.items() if self._form(temperature, law)}
        if not laws:
            return self._claims  # all else would fail for the same reason
        first = next(iter(laws))
        self._reproducibility(first, laws[first])
        self._streams(first, laws[first])
        for temperature, law in laws.items():
            self._guarded(temperature, "long run", partial(self._long_run, temperature, law))
            if law is None:
                self._say(temperature, "exact law", Status.UNAVAILABLE, f"no exact law is known for {dynamics.name}")
            else:
                self._guarded(temperature, "exact start", partial(self._exact_start, temperature, law))
        self._holds(
            first,
            "target unchanged",
            lambda: None if torch.equal(before, self._energies()) else "its energy is not what it was",
            Status.MODIFIED_INPUT,
        )
        level = FALSE_ALARM / max(len(self._tests), 1)
        self._claims += [test(level) for _, _, test in self._tests]
        return self._claims

    def _say(self, temperature: float, claim: str, status: Status, message: str = "", **numbers: float) -> None:
        self._claims.append(self._claim(temperature, claim, status, message, **numbers))

    def _claim(self, temperature: float, claim: str, status: Status, message: str = "", **numbers: float) -> Claim:
        return Claim(self._sampler.name, self._target.name, temperature, claim, status, message, **numbers)

    def _guarded(self, temperature: float, claim: str, work: Callable[[], None]) -> None:
        self._announce(f"{claim}, T = {temperature:g}")
        try:
            work()
        except Fault as fault:
            self._say(temperature, claim, fault.status, fault.message)
        except Unsupported as refusal:
            self._say(temperature, claim, Status.UNAVAILABLE, str(refusal))
        except Exception as error:  # of the target: whatever the sampler raises is a Fault
            self._say(temperature, claim, Status.ERROR, f"target {self._target.name}: {describe_error(error)}")

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
            self._say(temperature, claim, otherwise if message else Status.PASSED, message or "")

        self._guarded(temperature, claim, work)

    def _start(self, law: ExactLaw | None, chains: int, purpose: str) -> Tensor:
        return start_of(self._target, law, chains, self._seed, purpose).to(self._device)

    def _form(self, temperature: float, law: ExactLaw | None) -> bool:
        def work() -> None:
            start = self._start(law, max(64 // self._fewer, 16), f"form {temperature}")
            self._run.last(start, self._seed, [(1, temperature)] * max(STEPS))
            self._say(temperature, "form", Status.PASSED)

        before = len(self._claims)
        self._guarded(temperature, "form", work)
        return self._claims[before].status is Status.PASSED

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
            self._say(t, "same seed, same states", fault.status, fault.message)
            return
        except Unsupported as refusal:
            self._say(t, "same seed, same states", Status.UNAVAILABLE, str(refusal))
            return

        def split_chains() -> str | None:
            whole = run.last(start, seed, calls, FAR)
            later = run.path(start[part:], seed, calls, FAR + part)
            for x, y in zip(later, run.path(start[:part], seed, calls, FAR), strict=True):  # in turns
                both = torch.cat([y, x])
            return _differs(both, whole, rounded=True)

        def by_tensor() -> str | None:
            half = chains // 2
            dtype = start.dtype if start.dtype.is_floating_point else torch.float32
            each = torch.full((chains,), t, dtype=dtype, device=start.device)
            each[half:] = other
            warm, hot = run.last(start, seed, [(6, t)]), run.last(start, seed, [(6, other)])
            return _differs(run.last(start, seed, [(6, each)]), torch.cat([warm[:half], hot[half:]]), rounded=True)

        def by_schedule() -> str | None:
            schedule = torch.full((6, chains), t, dtype=torch.float32, device=start.device)
            schedule[2:, ::3] = other
            row_by_row = run.last(start, seed, [(1, row) for row in schedule])
            return _differs(run.last(start, seed, [(6, schedule)]), row_by_row)

        def equal(x: Tensor, words: str) -> str | None:
            return words if torch.equal(x, once) else None

        self._holds(t, "same seed, same states", lambda: _differs(run.last(start, seed, calls), once))
        self._holds(t, "any split of chains", split_chains)
        self._holds(
            t, "any split of steps", lambda: _differs(run.last(start, seed, [(1, t), (2, other), (3, other)]), once)
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
                    self._say(temperature, "independent streams", Status.WRONG_LAW, words)
                    return
                paths[seed] = path[1:].transpose(0, 1).flatten(1)
                above = _above_the_median(path)
                groups[f"seed {seed}, even chains"], groups[f"seed {seed}, odd chains"] = above[:, ::2], above[:, 1::2]
            if start.dtype.is_floating_point and (same := _same_paths(paths)):
                self._say(temperature, "independent streams", Status.WRONG_LAW, same)
                return
            p_value, words = _dependence(groups)
            self._test(temperature, "independent streams", p_value, words)

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
            self._judge_counts(temperature, f"law of {name}", values, projection.probabilities)
        numbers = values.double().numpy()
        if steps == 0:
            self._own[temperature, projection.name] = numbers
        elif steps == max(STEPS) and own is not None:
            self._judge_progress(temperature, projection, own, numbers)
        if projection.cdf is not None:
            p_value = float(kstest(numbers, projection.cdf, method="asymp").pvalue)
            self._test(temperature, f"law of {name}", p_value, f"Kolmogorov-Smirnov, {len(numbers)} chains")
            uniform = np.asarray(projection.cdf(numbers), dtype=np.float64)
            self._judge_mean(temperature, f"spread of {name}", uniform**2, 1 / 3, len(numbers))
        if projection.mean is not None:
            self._judge_mean(temperature, f"mean of {name}", numbers, projection.mean, len(numbers), own)

    def _judge_progress(self, temperature: float, projection: Projection, start: Array, end: Array) -> None:
        """What is not claimed of chains that are nearly where they began: the law that they had is still theirs."""
        if start.std() and end.std() and np.corrcoef(start, end)[0, 1] > FORGOTTEN:
            words = f"in {max(STEPS)} steps chains hardly moved: a law that is a little wrong would not show"
            self._say(temperature, f"progress of {projection.name}", Status.UNAVAILABLE, words)

    def _judge_idle(self, temperature: float, start: Tensor, x: Tensor) -> None:
        """Chains that never moved are as likely to have one number as another."""
        idle = (x == start).flatten(1).all(1).nonzero().flatten().cpu().numpy()
        if 5 <= len(idle) < len(x):
            p_value = float(kstest((idle + 0.5) / len(x), "uniform", method="asymp").pvalue)
            self._test(temperature, "idle chains anywhere", p_value, f"{len(idle)} of {len(x)} chains never moved")

    def _judge_counts(self, temperature: float, claim: str, values: Tensor, probabilities: Tensor) -> None:
        chances = probabilities.double().cpu().numpy()
        cells = values.long()
        if int(cells.min()) < 0 or int(cells.max()) >= len(chances):
            words = f"cell {int(cells.min())}..{int(cells.max())} was drawn; there are {len(chances)}"
            self._say(temperature, claim, Status.WRONG_LAW, words)
            return
        counts = torch.bincount(cells, minlength=len(chances)).numpy()
        if (counts.sum() * chances < 5).all():
            words = f"{len(values)} chains are too few for {len(chances)} cells"
            self._say(temperature, claim, Status.UNAVAILABLE, words)
            return

        def test(level: float) -> Claim:
            try:
                verdict: Agreement = chi_square(counts, chances, false_alarm=level)
            except ValueError as few:
                return self._claim(temperature, claim, Status.UNAVAILABLE, str(few))
            return self._claim(
                temperature, claim, verdict.status, verdict.message, p_value=verdict.p_value or 0.0, false_alarm=level
            )

        self._tests.append((temperature, claim, test))

    def _judge_mean(
        self,
        temperature: float,
        claim: str,
        numbers: Array,
        exact: float,
        independent: float,
        own: Array | None = None,
    ) -> None:
        """Student's t, for numbers that are worth as much as ``independent`` draws.

        ``own`` are the exact draws that the chains began with. Whether the quantity is too skewed, or varies too
        seldom, is seen from these, so that a sampler's outliers do not excuse themselves.
        """
        measured, deviation = float(numbers.mean()), float(numbers.std())
        stderr = deviation / max(independent - 1, 1.0) ** 0.5
        skewed = abs(_skewness(numbers))
        allowed = SKEWNESS * independent**0.5
        if own is not None and abs(_skewness(own)) <= allowed < skewed / OUTLIERS:
            words = f"skewness {skewed:.3g}, of the exact draws {abs(_skewness(own)):.3g}: some values are far off"
            self._say(temperature, claim, Status.WRONG_LAW, words)
            return
        if skewed > allowed and (own is None or abs(_skewness(own)) > allowed):
            words = "too few independent draws of a quantity so skewed for Student's law"
            self._say(temperature, claim, Status.UNAVAILABLE, words)
            return
        if not stderr and (own is None or not own.std()) and abs(measured - exact) >= 1e-9:
            self._say(temperature, claim, Status.UNAVAILABLE, "too few draws of a quantity that varies so seldom")
            return
        z = (measured - exact) / stderr if stderr else 0.0 if abs(measured - exact) < 1e-9 else np.inf
        p_value = float(2 * stdtr(max(independent - 1, 1.0), -abs(z)))

        def test(level: float) -> Claim:
            critical = float(-stdtrit(max(independent - 1, 1.0), level / 2))
            words = f"measured {measured:.7g} ± {stderr:.2g}, exact {exact:.7g}, z = {z:+.2f}, critical {critical:.2f}"
            status = Status.PASSED if p_value >= level else Status.WRONG_LAW
            numbers = {"exact": exact, "measured": measured, "stderr": stderr, "z": float(z)}
            return self._claim(temperature, claim, status, words, **numbers, p_value=p_value, false_alarm=level)

        self._tests.append((temperature, claim, test))

    def _test(self, temperature: float, claim: str, p_value: float, words: str) -> None:
        def test(level: float) -> Claim:
            status = Status.PASSED if p_value >= level else Status.WRONG_LAW
            message = f"{words}, p = {p_value:.2g}, critical {level:.2g}"
            return self._claim(temperature, claim, status, message, p_value=p_value, false_alarm=level)

        self._tests.append((temperature, claim, test))

    def _long_run(self, temperature: float, law: ExactLaw | None) -> None:
        """Every chain and element moves, and means over time and chains are exact."""
        steps, chains = LONG_STEPS // self._fewer, LONG_CHAINS
        if law is None:  # only to see it move
            steps, chains = min(steps, LONG_STEPS // 4), max(chains // self._fewer, 16)
        start = self._start(law, chains, f"long {temperature}")
        path = torch.stack([start, *self._run.path(start, self._seed, [(1, temperature)] * steps)]).cpu()
        self._holds(temperature, "moves", lambda: _stuck(path.flatten(2)), Status.WRONG_LAW)
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
                self._judge_mean(temperature, claim, values.reshape(-1), projection.mean, worth)

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


def _differs(x: Tensor, once: Tensor, *, rounded: bool = False) -> str | None:
    """In which chains ``x`` is not what it was ``once``; None if it is. ``rounded`` allows for the last digits."""
    if rounded and x.dtype.is_floating_point:
        scale = float(once.abs().max())
        wrong = ~torch.isclose(x, once, rtol=1e-3, atol=1e-4 * scale)
    else:
        wrong = x != once
    chains = wrong.reshape(len(wrong), -1).any(1)
    count = int(chains.sum())
    if count <= (ROUNDED * len(chains) if rounded and x.dtype.is_floating_point else 0):
        return None
    return f"{count} of {len(chains)} chains differ, the first is chain {int(chains.nonzero()[0])}"


def _stuck(path: Tensor) -> str | None:
    """What does not move in ``path`` (steps + 1, chains, elements), whose first positions are the start."""
    moved = path[1:] != path[:-1]
    varied = (path[0] != path[0, 0]).any(0)
    still = (varied & ~moved.any(1).any(0)).nonzero().flatten().tolist()
    if still:
        return (
            f"no chain ever changed element {still[0]} ({len(still)} of {path.shape[2]} elements) in {len(moved)} steps"
        )
    moves = moved.any(2).sum(0)
    idle = (moves == 0).nonzero().flatten().tolist()
    if idle and float(moves.double().mean()) > max(len(moved) / 4, ENOUGH_MOVES):
        return f"chain {idle[0]} never moved in {len(moved)} steps, the others {float(moves.double().mean()):.0f} times"
    return None


def _skewness(numbers: Array) -> float:
    deviation = float(numbers.std())
    return float(((numbers - numbers.mean()) ** 3).mean()) / deviation**3 if deviation else 0.0


def _same_paths(paths: Mapping[int, Tensor]) -> str | None:
    """Two chains, of one seed or of two, that take the same path (chains, steps * elements) from one start.

    Only of chains that were in three places at least: one number may come twice, two hardly do.
    """
    rows = torch.cat(list(paths.values()))
    names = [f"chain {chain} of seed {seed}" for seed, path in paths.items() for chain in range(len(path))]
    steps = rows.view(len(rows), 4, -1)
    moved = (steps[:, 1:] != steps[:, :-1]).flatten(2).any(2).sum(1) >= 2
    chosen = moved.nonzero().flatten()
    _, group = torch.unique(rows[chosen], dim=0, return_inverse=True)
    order = group.argsort(stable=True)
    same = (group[order][1:] == group[order][:-1]).nonzero().flatten()
    if not len(same):
        return None
    first = same[chosen[order[same]].argmin()]
    one, two = (names[int(chosen[order[first + i]])] for i in (0, 1))
    return f"{one} and {two} take the same path from one start"


def _above_the_median(path: Tensor) -> Array:
    """(steps * elements, chains): whether a move was above the median of all chains; of four elements at most."""
    elements = path.flatten(2).double().cpu().numpy()
    number = elements.shape[2]
    chosen = sorted({0, 1, 2, number - 1} & set(range(number)))
    moves = np.diff(elements[:, :, chosen], axis=0).transpose(0, 2, 1)
    above = moves > np.median(moves, axis=2, keepdims=True)
    return above.reshape(-1, above.shape[2]).astype(np.int64)


def _dependence(groups: Mapping[str, Array]) -> tuple[float, str]:
    """The smallest p-value of all pairs of rows of two groups, times their number, and which it is."""
    smallest, words, tests = 1.0, "no pair stands out", 0
    for (one, a), (two, b) in combinations(groups.items(), 2):
        both, n = a @ b.T, a.shape[1]
        rows, columns = a.sum(1)[:, None], b.sum(1)[None, :]
        tail = np.minimum(hypergeom.cdf(both, n, rows, columns), hypergeom.sf(both - 1, n, rows, columns))
        tests += tail.size
        if 2 * tail.min() < smallest:
            smallest = float(2 * tail.min())
            words = f"moves of {one} and of {two} go together more or less than by chance"
    return min(smallest * tests, 1.0), f"{words} (worst of {tests} pairs)"
