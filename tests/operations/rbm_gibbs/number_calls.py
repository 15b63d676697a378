"""Example calls of block Gibbs sampling, and of the random numbers of its units."""

import torch
from boltzbench.kernels.philox import Stream
from boltzbench.kernels.rbm_gibbs import (
    draw_normals,
    draw_uniforms,
    gaussian_gibbs,
    gibbs,
    pack_states,
    unpack_states,
)
from support.number_calls import NumberCall, units, weights

MACHINE = {"weights": weights(5, 3), "visible_bias": weights(5), "hidden_bias": weights(3)}
NUMBERS = {"sweeps": 2, "beta": 0.5, "seed": 7, "first_sweep": 3, "first_chain": 2, "return_hidden_probability": True}
DRAWS = {
    "shape": torch.Size((3, 5)), "seed": 7, "step": 3, "stream": Stream.HIDDEN, "first_chain": 2,
    "device": torch.device("cpu"),
}  # fmt: skip

CALLS = (
    NumberCall(gibbs, {"visible": units(4, 5), **MACHINE, **NUMBERS}),
    NumberCall(gaussian_gibbs, {"visible": weights(4, 5), "sigma": torch.ones(5), **MACHINE, **NUMBERS}),
    NumberCall(draw_uniforms, DRAWS, unchecked=("step",)),
    NumberCall(draw_normals, DRAWS, unchecked=("step",)),
    NumberCall(unpack_states, {"words": pack_states(units(4, 5)), "units": 5}),
)
