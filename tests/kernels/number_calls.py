"""Example calls of annealed importance sampling, training, schedules and the random stream."""

import torch
from boltzbench.kernels import ais, draws, philox, rbm_training, schedules
from support.number_calls import NumberCall, units, weights

MACHINE = rbm_training.Machine(weights(5, 3), weights(5), weights(3))
STATE = rbm_training.TrainingState(MACHINE, units(4, 5), 0, 0)
DATA = units(6, 5)
RATES = {"sweeps": 2, "rate": 0.25, "weight_decay": 0.5, "beta": 0.5, "seed": 7}
PLACE = {
    "first": 3, "count": 6, "seed": 7, "step": 2, "stream": philox.Stream.NOISE, "tensor": 1,
    "device": torch.device("cpu"),
}  # fmt: skip

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
