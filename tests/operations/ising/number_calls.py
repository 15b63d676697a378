"""Example calls of the Ising model's functions."""

import torch
from boltzbench.kernels.ising import Slab, energy, ising_sweeps, lattice_couplings, pack_spins, unpack_spins, words_of
from support.number_calls import NumberCall, units

SPINS = 2 * units(3, 2, 4).to(torch.int8) - 1


def swept(slab: Slab) -> torch.Tensor:
    slab.half_sweep(0, 3)
    return slab.spins


CALLS = (
    NumberCall(
        ising_sweeps,
        {
            "spins": pack_spins(SPINS), "width": 4, "sweeps": 2, "beta": 0.5, "coupling": 0.5, "field": 0.25,
            "seed": 7, "first_sweep": 3, "first_lattice": 2,
        },
        infinite=("beta",),
    ),
    NumberCall(
        Slab,
        {
            "spins": pack_spins(SPINS[:1]), "width": 4, "beta": 0.5, "first_row": 2, "coupling": 0.5, "field": 0.25,
            "seed": 7,
        },
        swept,
        infinite=("beta",),
    ),
    NumberCall(energy, {"spins": SPINS, "coupling": 0.5, "field": 0.25}),
    NumberCall(lattice_couplings, {"height": 2, "width": 4, "coupling": 0.5}),
    NumberCall(unpack_spins, {"words": pack_spins(SPINS), "width": 4}),
    NumberCall(words_of, {"width": 4}),
)  # fmt: skip
