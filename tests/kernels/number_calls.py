"""Example calls of annealed importance sampling, algorithms over ranks, training, schedules and the random stream."""

from contextlib import AbstractContextManager

import torch
from boltzbench.kernels import ais, distributed, draws, philox, rbm_training, schedules
from boltzbench.kernels.parallel_tempering import IsingReplicas
from support.number_calls import NumberCall, units, weights

MACHINE = rbm_training.Machine(weights(5, 3), weights(5), weights(3))
STATE = rbm_training.TrainingState(MACHINE, units(4, 5), 0, 0)
DATA = units(6, 5)
RATES = {"sweeps": 2, "rate": 0.25, "weight_decay": 0.5, "beta": 0.5, "seed": 7}
PLACE = {
    "first": 3, "count": 6, "seed": 7, "step": 2, "stream": philox.Stream.NOISE, "tensor": 1,
    "device": torch.device("cpu"),
}  # fmt: skip


def lattices(first: int, count: int) -> IsingReplicas:
    return IsingReplicas(2, 4, count, seed=7, first=first)


def entered(joined: AbstractContextManager) -> int:
    with joined as (ranks, _):
        return ranks.size


def advanced(lattice: distributed.IsingLattice) -> torch.Tensor:
    lattice.advance()
    return lattice.spins


CALLS = (
    NumberCall(
        ais.annealed_importance_sampling,
        dict(zip(("weights", "visible_bias", "hidden_bias"), MACHINE, strict=True))
        | {"schedule": [0.0, 0.5, 1.0], "chains": 4, "sweeps": 2, "seed": 7, "first_chain": 3},
    ),
    NumberCall(
        ais.ising_annealed_importance_sampling,
        {
            "height": 2, "width": 4, "schedule": [0.0, 0.5, 1.0], "lattices": 3, "coupling": 0.5, "field": 0.25,
            "sweeps": 2, "seed": 7, "first_lattice": 3,
        },
    ),
    NumberCall(
        distributed.annealed_importance_sampling,
        dict(zip(("weights", "visible_bias", "hidden_bias"), MACHINE, strict=True))
        | {"schedule": [0.0, 0.5, 1.0], "chains": 4, "seed": 7, "first_chain": 3},
    ),
    NumberCall(
        distributed.ising_annealed_importance_sampling,
        {"height": 2, "width": 4, "schedule": [0.0, 0.5, 1.0], "lattices": 3, "seed": 7, "first_lattice": 3},
    ),
    NumberCall(
        distributed.IsingLattice,
        {
            "height": 4, "width": 4, "beta": 0.5, "seed": 7, "coupling": 0.5, "field": 0.25, "first_sweep": 3,
            "device": torch.device("cpu"),
        },
        advanced,
        infinite=("beta",),
    ),
    NumberCall(
        distributed.parallel_tempering,
        {"make_replicas": lattices, "count": 4, "betas": [0.0, 0.5], "rounds": 2, "burn_in": 1, "seed": 7},
    ),
    NumberCall(
        distributed.population_annealing,
        {"make_replicas": lattices, "replicas": 3, "betas": [0.0, 0.5], "seed": 7},
    ),
    NumberCall(
        distributed.rbm_log_partition,
        dict(zip(("weights", "visible_bias", "hidden_bias"), MACHINE, strict=True)) | {"beta": 0.5, "fixed_units": 2},
    ),
    NumberCall(
        distributed.log_partition,
        {"weights": torch.ones(3, 3) - torch.eye(3), "biases": weights(3), "beta": 0.5, "fixed_units": 2},
    ),
    NumberCall(distributed.persistent_contrastive_divergence, {"state": STATE, "batch": DATA, "blocks": 2, **RATES}),
    NumberCall(distributed.join, {"timeout": 60.0, "device": "cpu"}, then=entered),
    NumberCall(draws.normal_draws, PLACE | {"dtype": torch.float64}),
    NumberCall(draws.uniform_draws, PLACE),
    NumberCall(philox.check_counter, {"seed": 7, "step": 3, "tensor": 2, "steps": 4}),
    NumberCall(philox.signed_seed, {"seed": 7}),
    NumberCall(philox.round_keys, {"seed": 7}),
    NumberCall(philox.philox4x32, {"counter": (torch.arange(4),) * 4, "seed": 7}),
    NumberCall(
        philox.random_words,
        {"groups": torch.arange(4), "seed": 7, "step": 3, "stream": philox.Stream.NOISE, "tensor": 2},
        unchecked=("step",),
    ),
    NumberCall(
        rbm_training.initial_state,
        {"data": DATA, "hidden_units": 3, "seed": 7, "chains": 2, "scale": 0.5, "beta": 0.5},
    ),
    NumberCall(rbm_training.minibatch, {"data": DATA, "size": 2, "seed": 7, "step": 4}),
    NumberCall(rbm_training.contrastive_divergence, {"state": STATE, "batch": DATA, **RATES}),
    NumberCall(rbm_training.persistent_contrastive_divergence, {"state": STATE, "batch": DATA, **RATES}),
    NumberCall(
        rbm_training.maximum_likelihood,
        {"state": STATE, "data": DATA, "rate": 0.25, "weight_decay": 0.5, "beta": 0.5},
    ),
    NumberCall(
        rbm_training.phase_gradient,
        {"state": STATE, "batch": DATA, "start": DATA, "sweeps": 2, "beta": 0.5, "seed": 7, "first_chain": 3},
    ),
    NumberCall(
        rbm_training.updated,
        {"machine": MACHINE, "change": MACHINE, "rate": 0.25, "weight_decay": 0.5, "beta": 0.5},
    ),
    NumberCall(rbm_training.log_partition, {"machine": MACHINE, "beta": 0.5}),
    NumberCall(rbm_training.log_likelihood, {"machine": MACHINE, "data": DATA, "beta": 0.5}),
    NumberCall(rbm_training.model_statistics, {"machine": MACHINE, "beta": 0.5}),
    NumberCall(rbm_training.exact_gradient, {"machine": MACHINE, "data": DATA, "beta": 0.5}),
    NumberCall(schedules.constant, {"steps": 3, "temperature": 0.5}),
    NumberCall(schedules.linear, {"steps": 3, "start": 2.0, "end": 0.5}),
    NumberCall(schedules.geometric, {"steps": 3, "start": 2.0, "end": 0.5}),
    NumberCall(schedules.cyclic_cosine, {"steps": 6, "hot": 2.0, "cold": 0.5, "cycles": 2}),
    NumberCall(schedules.custom, {"temperatures": [2.0, 0.5]}),
)  # fmt: skip
