"""Example calls of `annealed_langevin`."""

import torch
from boltzbench.kernels.annealed_langevin import annealed_langevin
from support.number_calls import NumberCall, weights

CALLS = (
    NumberCall(
        annealed_langevin,
        {
            "x": weights(5), "temperatures": torch.tensor([0.5, 0.25], dtype=torch.float64), "step_size": 0.125,
            "threshold": 0.5, "seed": 7, "first_step": 3, "first_walker": 2,
        },
        infinite=("threshold",),
    ),
)  # fmt: skip
