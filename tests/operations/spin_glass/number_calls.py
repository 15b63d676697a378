"""Example calls of simulated annealing and its states."""

import torch
from boltzbench.kernels.spin_glass import anneal_spins, lattice_glass, random_walkers
from support.number_calls import NumberCall

CPU = torch.device("cpu")


def generator():
    return torch.Generator().manual_seed(1)


CALLS = (
    NumberCall(
        anneal_spins,
        {
            "spins": random_walkers(4, 64, generator(), CPU), "couplings": lattice_glass(2, 2, generator()),
            "temperatures": torch.tensor([2.0, 0.5], dtype=torch.float64), "seed": 7, "first_sweep": 3,
            "first_walker": 32,
        },
    ),
    NumberCall(random_walkers, {"spins": 4, "walkers": 64, "generator": generator(), "device": CPU}),
    NumberCall(lattice_glass, {"height": 2, "width": 3, "generator": generator()}),
)  # fmt: skip
