"""Example calls of log-sum-exp and its gradient."""

import torch
from boltzbench.kernels.logsumexp import logsumexp, logsumexp_backward
from support.number_calls import NumberCall, weights

X = weights(4, 3)

CALLS = (
    NumberCall(logsumexp, {"x": X, "dim": 1, "beta": 0.5}, signed=("dim",)),
    NumberCall(
        logsumexp_backward,
        {"grad": weights(4), "x": X, "lse": torch.logsumexp(0.5 * X, 1), "dim": 1, "beta": 0.5},
        signed=("dim",),
    ),
)
