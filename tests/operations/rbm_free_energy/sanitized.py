"""The CUDA C kernels of `rbm_free_energy` on odd shapes, for `test_sanitized.py`."""

import torch
from boltzbench.kernels.rbm_free_energy import free_energy
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    for dtype in (torch.float32, torch.bfloat16):
        for chains, visible_units, hidden_units in ((1, 1, 1), (17, 100, 17), (130, 33, 66), (3, 0, 5), (3, 5, 0)):
            visible = (random(chains, visible_units) > 0).to(torch.uint8)
            weights, biases = random(visible_units, hidden_units, dtype=dtype), random(100, dtype=dtype)
            for given in (weights, weights.t().contiguous().t()):
                for beta in (0.7, torch.linspace(0.5, 2.0, chains), 0.3, torch.linspace(2.0, 0.5, chains)):
                    found.append(
                        free_energy(visible, given, biases[:visible_units], biases[:hidden_units], beta, backend="cupy")
                    )
    return found
