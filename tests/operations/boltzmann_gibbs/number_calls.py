"""Example calls of `boltzmann_gibbs`."""

import torch
from boltzbench.kernels.boltzmann_gibbs import boltzmann_gibbs, prepare_units
from support.number_calls import NumberCall, units, weights

MACHINE = prepare_units(torch.ones(5, 5) - torch.eye(5), weights(5))

CALLS = (
    NumberCall(
        boltzmann_gibbs,
        {
            "states": units(3, 5), "machine": MACHINE, "sweeps": 2, "beta": 0.5, "seed": 7, "first_sweep": 3,
            "first_chain": 2,
        },
    ),
)  # fmt: skip
