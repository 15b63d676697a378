"""Example calls of replica exchange and its systems."""

import torch
from boltzbench.kernels.parallel_tempering import (
    IsingReplicas,
    RbmReplicas,
    integrate,
    parallel_tempering,
    swap_replicas,
)
from support.number_calls import NumberCall, weights

BETAS = torch.tensor([0.0, 0.5], dtype=torch.float64)
ENERGIES = weights(3, 2, dtype=torch.float64)
REPLICAS = {"count": 4, "seed": 7, "sweeps": 2, "first": 3}


def advanced(replicas):
    return replicas.advance(BETAS.repeat(2), 1), replicas.log_states


CALLS = (
    NumberCall(
        swap_replicas,
        {
            "replica_at": torch.tensor([[0, 1]] * 3, dtype=torch.int32), "energies": ENERGIES, "betas": BETAS,
            "seed": 7, "round_number": 2, "first_ladder": 3,
        },
    ),
    NumberCall(
        RbmReplicas,
        {"weights": weights(5, 3), "visible_bias": weights(5), "hidden_bias": weights(3), **REPLICAS},
        advanced,
    ),
    NumberCall(IsingReplicas, {"height": 2, "width": 4, "coupling": 0.5, "field": 0.25, **REPLICAS}, advanced),
    NumberCall(
        integrate, {"betas": BETAS, "mean_energy": ENERGIES, "variance": ENERGIES.abs(), "log_states": 2.0}
    ),
    NumberCall(
        parallel_tempering,
        {"replicas": IsingReplicas(2, 2, 4, seed=7), "betas": [0.0, 0.5], "rounds": 2, "burn_in": 1, "seed": 7},
        lambda result: result[:4],
    ),
)  # fmt: skip
