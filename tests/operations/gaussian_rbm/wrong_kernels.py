"""Wrong kernels of `gaussian_rbm`: see `support/wrong_kernels.py`."""

import torch
from boltzbench.harness import Status
from support.wrong_kernels import mutants, spoiled

OPERATION = "gaussian_rbm"

GAUSSIAN = "chains=70 visible=100 hidden=17 sweeps=1 float32"


WRONG_KERNELS = (
    *spoiled(
        OPERATION,
        ("ignores_sigma", GAUSSIAN, Status.WRONG_VALUES, lambda inputs: {"sigma": torch.ones_like(inputs["sigma"])}),
        ("divides_by_the_square_of_sigma", "mixture of normals", Status.WRONG_LAW,
         lambda inputs: {"weights": inputs["weights"] / inputs["sigma"][:, None]}),
        ("is_a_little_too_hot", "mixture of normals", Status.WRONG_LAW,
         lambda inputs: {"beta": 0.85 * inputs["beta"]}),
        ("forgets_the_visible_bias", "mixture of normals", Status.WRONG_LAW,
         lambda inputs: {"visible_bias": torch.zeros_like(inputs["visible_bias"])}),
        ("never_draws_a_visible_unit", "ergodicity", Status.WRONG_LAW,
         lambda inputs: {"clamped": torch.arange(len(inputs["sigma"]), device=inputs["sigma"].device) == 2}),
        ("unclamps", "clamped chains=65 visible=33 hidden=65 sweeps=1 float32", Status.WRONG_VALUES,
         lambda inputs: {"clamped": None}),
    ),
    *mutants(
        OPERATION,
        ("rbm_gibbs.cu", "x /= sigma", "x *= sigma", GAUSSIAN),
        ("rbm_gibbs.cu", "1.0 / sqrt(", "1.0 / (", "cold chains=65 visible=33 hidden=65 sweeps=1 float32"),
        ("rbm_gibbs.cpp", "std::fma(half.sigma[unit], sums[i] + z[i]", "std::fma(half.sigma[unit], sums[i]", GAUSSIAN),
        ("rbm_gibbs.cpp", "1.0 / std::sqrt(", "1.0 / (", "cold chains=65 visible=33 hidden=65 sweeps=1 float32"),
        ("rbm_gibbs.cpp", "store(z + k + LANES<float>, high)", "store(z + k + LANES<float>, low)", GAUSSIAN),
        ("triton_kernels.py", "* drawn + offset", "* (drawn + offset)", GAUSSIAN),
        ("triton_kernels.py", "state /= tl.load", "state *= tl.load", GAUSSIAN),
    ),
)  # fmt: skip
