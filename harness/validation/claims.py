"""Collect the claims about a sampler on a target. Tests are judged last, at a level that depends on their number."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import stdtr, stdtrit
from torch import Tensor

from ..api.operations import Agreement, Status
from ..api.records import Claim
from ..api.statistics import FEWEST_POOLED, chi_square

FALSE_ALARM = 1e-6
"""The probability that any test of a correct sampler fails on one target."""
OUTLIERS = 4.0
"""A skewness of this many times the allowed one shows values that an exact sampler does not produce."""
SKEWNESS = 0.05
"""Largest skewness of a mean for which Student's distribution is accurate far in its tails."""

Array = np.ndarray[Any, Any]


class Claims:
    """The claims about one sampler on one target, by their names."""

    def __init__(self, sampler: str, target: str) -> None:
        self._sampler, self._target = sampler, target
        self._judged: list[Claim] = []
        self._tests: list[Callable[[float], Claim]] = []
        self._steps: dict[tuple[float, str], int] = {}

    def law(self, temperature: float, claim: str, steps: int) -> str:
        """Record that ``claim`` tests a law after ``steps`` steps, and return it."""
        self._steps[temperature, claim] = steps
        return claim

    def judged(self) -> list[Claim]:
        """All claims: those without a test first, then the tests, each at its share of `FALSE_ALARM`."""
        level = FALSE_ALARM / max(len(self._tests), 1)
        return [*self._judged, *(test(level) for test in self._tests)]

    def say(self, temperature: float, claim: str, status: Status, message: str = "", **numbers: float) -> None:
        """Record a claim whose status is known."""
        self._judged.append(self._claim(temperature, claim, status, message, **numbers))

    def _claim(self, temperature: float, claim: str, status: Status, message: str = "", **numbers: float) -> Claim:
        steps = self._steps.get((temperature, claim))
        return Claim(self._sampler, self._target, temperature, claim, status, message, steps=steps, **numbers)

    def judge_counts(self, temperature: float, claim: str, values: Tensor, probabilities: Tensor) -> None:
        """The chi-square test of the cells ``values`` against ``probabilities``."""
        chances = probabilities.double().cpu().numpy()
        cells = values.long()
        if int(cells.min()) < 0 or int(cells.max()) >= len(chances):
            words = f"cells {int(cells.min())}..{int(cells.max())} were drawn, but there are {len(chances)}"
            self.say(temperature, claim, Status.WRONG_LAW, words)
            return
        counts = torch.bincount(cells, minlength=len(chances)).numpy()
        if (counts.sum() * chances < FEWEST_POOLED).all():
            words = f"{len(values)} chains are too few for {len(chances)} cells"
            self.say(temperature, claim, Status.UNAVAILABLE, words)
            return

        def test(level: float) -> Claim:
            try:
                verdict: Agreement = chi_square(counts, chances, false_alarm=level)
            except ValueError as few:
                return self._claim(temperature, claim, Status.UNAVAILABLE, str(few))
            return self._claim(
                temperature, claim, verdict.status, verdict.message, p_value=verdict.p_value or 0.0, false_alarm=level
            )

        self._tests.append(test)

    def judge_mean(
        self,
        temperature: float,
        claim: str,
        numbers: Array,
        exact: float,
        independent: float,
        own: Array | None = None,
    ) -> None:
        """Student's t-test of the mean of ``numbers``, which count as ``independent`` independent draws.

        ``own`` are the exact draws at the start. They decide whether the quantity is too skewed, or varies too rarely,
        to be tested. Otherwise the outliers of a wrong sampler would prevent its test.
        """
        measured, deviation = float(numbers.mean()), float(numbers.std())
        stderr = deviation / max(independent - 1, 1.0) ** 0.5
        skewed = abs(skewness_of(numbers))
        allowed = SKEWNESS * independent**0.5
        if own is not None and abs(skewness_of(own)) <= allowed < skewed / OUTLIERS:
            words = f"skewness {skewed:.3g}, but {abs(skewness_of(own)):.3g} for exact draws: some values are far off"
            self.say(temperature, claim, Status.WRONG_LAW, words)
            return
        if skewed > allowed and (own is None or abs(skewness_of(own)) > allowed):
            words = "too few independent draws for a t-test of such a skewed quantity"
            self.say(temperature, claim, Status.UNAVAILABLE, words)
            return
        if not stderr and (own is None or not own.std()) and abs(measured - exact) >= 1e-9:
            self.say(temperature, claim, Status.UNAVAILABLE, "too few draws of a quantity that varies this rarely")
            return
        z = (measured - exact) / stderr if stderr else 0.0 if abs(measured - exact) < 1e-9 else np.inf
        p_value = float(2 * stdtr(max(independent - 1, 1.0), -abs(z)))

        def test(level: float) -> Claim:
            critical = float(-stdtrit(max(independent - 1, 1.0), level / 2))
            words = f"measured {measured:.7g} ± {stderr:.2g}, exact {exact:.7g}, z = {z:+.2f}, critical {critical:.2f}"
            status = Status.PASSED if p_value >= level else Status.WRONG_LAW
            numbers = {"exact": exact, "measured": measured, "stderr": stderr, "z": float(z)}
            return self._claim(temperature, claim, status, words, **numbers, p_value=p_value, false_alarm=level)

        self._tests.append(test)

    def judge(self, temperature: float, claim: str, p_value: float, words: str) -> None:
        """Compare ``p_value`` with the level of one test."""

        def test(level: float) -> Claim:
            status = Status.PASSED if p_value >= level else Status.WRONG_LAW
            message = f"{words}, p = {p_value:.2g}, critical {level:.2g}"
            return self._claim(temperature, claim, status, message, p_value=p_value, false_alarm=level)

        self._tests.append(test)


def skewness_of(numbers: Array) -> float:
    deviation, apart = float(numbers.std()), numbers - numbers.mean()
    return float((apart * apart * apart).mean()) / deviation**3 if deviation else 0.0
