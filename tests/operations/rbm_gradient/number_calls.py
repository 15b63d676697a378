"""Example calls of the gradient of the log-likelihood."""

from boltzbench.kernels.rbm_gradient import log_likelihood_gradient
from support.number_calls import NumberCall, units, weights

CALLS = (
    NumberCall(
        log_likelihood_gradient,
        {
            "data": units(4, 5), "model": units(3, 5), "weights": weights(5, 3), "hidden_bias": weights(3),
            "beta": 0.5,
        },
    ),
)  # fmt: skip
