"""Example calls of the free energy."""

from boltzbench.kernels.rbm_free_energy import free_energy
from support.number_calls import NumberCall, units, weights

CALLS = (
    NumberCall(
        free_energy,
        {
            "visible": units(4, 5), "weights": weights(5, 3), "visible_bias": weights(5), "hidden_bias": weights(3),
            "beta": 0.5,
        },
    ),
)  # fmt: skip
