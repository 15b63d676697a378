"""The CUDA C kernels of `rbm_gradient` on odd shapes, for `test_sanitized.py`."""

import torch
from boltzbench.kernels.rbm_gradient import log_likelihood_gradient
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    sizes = ((1, 1, 1, 1), (17, 30, 100, 17), (33, 5, 131, 66), (300, 257, 7, 5), (3, 2, 4, 0), (3, 2, 0, 4))
    for data_chains, model_chains, visible_units, hidden_units in sizes:
        data = (random(data_chains, visible_units) > 0).to(torch.uint8)
        model = (random(model_chains, visible_units, seed=1) > 0).to(torch.uint8)
        weights, bias = random(visible_units, hidden_units), random(hidden_units)
        for given in (weights, weights.t().contiguous().t()):
            found += log_likelihood_gradient(data, model, given, bias, backend="cupy")
        hidden = (random(data_chains, hidden_units, seed=2) > 0).to(torch.uint8)
        found += log_likelihood_gradient(data, model, weights, bias, data_hidden=hidden, backend="cupy")
    return found
