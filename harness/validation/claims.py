"""Collect the claims about a sampler on a target. Tests are judged last, at a level that depends on their number."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from ..api.messages import in_standard_errors
from ..api.operations import Agreement, Status
from ..api.records import Claim
from ..api.statistics import FEWEST_POOLED, chi_square
from .means import ExactDraws, has_a_known_tail, mean_test

FALSE_ALARM = 1e-6
"""The probability that any test of a correct sampler fails on one target."""

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

    def judge_mean(self, temperature: float, claim: str, numbers: Array, exact: float, own: ExactDraws) -> None:
        """Test the mean of independent draws ``numbers``, with the standard error under the exact law.

        That comes from ``own``. If these draws show that the tail of the mean is unknown, ``numbers`` are compared with
        them instead, by the two-sample Kolmogorov-Smirnov test.
        """
        moments = own.moments
        if moments is None and abs(float(numbers.mean()) - exact) < 1e-9 * max(abs(exact), 1.0):
            self.judge(temperature, claim, 1.0, "the quantity does not vary and has its exact value")
            return
        if moments is None or not has_a_known_tail(moments, len(numbers)):
            p_value = float(ks_2samp(numbers, own.values, method="asymp").pvalue)
            words = f"two-sample Kolmogorov-Smirnov, {len(numbers)} chains and {len(own.values)} exact draws"
            self.judge(temperature, claim, p_value, words)
            return
        measured = float(numbers.mean())
        z, stderr, p_value = mean_test(measured, exact, moments, len(numbers))
        far = in_standard_errors(z)

        def test(level: float) -> Claim:
            words = f"measured {measured:.7g} ± {stderr:.2g}, exact {exact:.7g}, z = {far}, p = {p_value:.2g}"
            status = Status.PASSED if p_value >= level else Status.WRONG_LAW
            numbers = {"exact": exact, "measured": measured, "stderr": stderr, "z": z}
            message = f"{words}, critical {level:.2g}"
            return self._claim(temperature, claim, status, message, **numbers, p_value=p_value, false_alarm=level)

        self._tests.append(test)

    def judge(self, temperature: float, claim: str, p_value: float, words: str) -> None:
        """Compare ``p_value`` with the level of one test."""

        def test(level: float) -> Claim:
            status = Status.PASSED if p_value >= level else Status.WRONG_LAW
            message = f"{words}, p = {p_value:.2g}, critical {level:.2g}"
            return self._claim(temperature, claim, status, message, p_value=p_value, false_alarm=level)

        self._tests.append(test)
