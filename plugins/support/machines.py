"""What the operations on restricted Boltzmann machines share: weights, error bounds, verdicts on log Z."""

import math
from collections.abc import Callable

from boltzbench.harness import Agreement, Case, Status
from torch import Tensor

BETAS = {"hot": 0.25, "cold": 3.0}
"""Inverse temperatures by scenario; 1 otherwise."""
PARTS = {"float32": 3, "float16": 2, "bfloat16": 1}
"""A weight is the exact sum of so many bfloat16 parts, each with a product on tensor cores and a rounding."""
NOTE = "float32 weights as three bfloat16 parts on tensor cores; states that are not contiguous are copied"


def random_weights(case: Case, random: Callable[..., Tensor]) -> Tensor:
    """Weights (visible, hidden) from ``random(visible, hidden)``, scaled so that fields of both signs count.

    In scenario ``outliers`` some are in the hundreds; in ``transposed`` visible units are contiguous in memory.
    """
    visible, hidden = case.sizes["visible"], case.sizes["hidden"]
    weights = 4.0 / math.sqrt(max(visible, hidden, 1)) * random(visible, hidden)
    if case.scenario == "outliers":
        weights[:, ::7] *= 100.0
    return weights.t().contiguous().t() if case.scenario == "transposed" else weights


def fields_and_errors(states: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The fields ``bias + states @ weights`` in float64, and bounds of their errors in a float32 kernel.

    With u = 2**-24: tensor cores truncate where others round, so each of a weight's `PARTS` is added with an error of
    2u of the sum so far. Parts after the first add a hundredth of the magnitude. Bias and scale take 3u of the field.
    """
    u, parts, wide = 2.0**-24, PARTS[str(weights.dtype).removeprefix("torch.")], weights.double()
    x = bias.double() + states.double() @ wide
    magnitude = bias.double().abs() + states.double() @ wide.abs()
    return x, 2 * u * (parts * len(weights) + 2) * 1.01 * magnitude + 3 * u * x.abs()


def near_log_z(found: float, exact: float, bound: float) -> Agreement:
    """Whether log Z lies within ``bound`` of the exact value."""
    error = abs(found - exact)
    if not error <= bound:
        message = f"log Z is {found:.12g}, exactly {exact:.12g}: off by {error:.3g}, bound {bound:.3g}"
        return Agreement(Status.WRONG_LAW, message, error=error, bound=bound)
    return Agreement(Status.PASSED, error=error, bound=bound)
