"""Example calls of the partition functions."""

import torch
from boltzbench.kernels.enumeration import log_partition, rbm_log_partition
from support.number_calls import NumberCall, weights

CALLS = (
    NumberCall(
        rbm_log_partition,
        {"weights": weights(5, 3), "visible_bias": weights(5), "hidden_bias": weights(3), "beta": 0.5},
        differentiable=("beta",),
    ),
    NumberCall(
        log_partition,
        {"weights": torch.ones(5, 5) - torch.eye(5), "biases": weights(5), "beta": 0.5},
        differentiable=("beta",),
    ),
)
