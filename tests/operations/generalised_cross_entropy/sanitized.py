"""The CUDA C kernels of `generalised_cross_entropy` on odd shapes, for `test_sanitized.py`."""

import torch
from boltzbench.kernels.generalised_cross_entropy import (
    generalised_cross_entropy_backward,
    generalised_cross_entropy_forward,
)
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [random(rows, n, dtype=dtype) for rows, n in ((1, 1), (9, 33), (3, 128), (2, 1025), (1, 4103))]
        inputs += [random(37, 65, dtype=dtype).t(), random(2, 32_776, dtype=dtype), random(130, dtype=dtype)[1:]]
        inputs += [random(3, 7, 10, dtype=dtype)]
        for x in inputs:
            dim = min(1, x.dim() - 1)
            shape = [size for k, size in enumerate(x.shape) if k != dim]
            labels = (random(*shape, seed=1).abs() * x.shape[dim]).long().clamp(max=x.shape[dim] - 1)
            labels.view(-1)[-1] = x.shape[dim] - 1
            for q in (0.0, 0.7):
                loss, lse, peak = generalised_cross_entropy_forward(x, labels, q, backend="cupy")
                slope = generalised_cross_entropy_backward(loss + 1, x, labels, lse, q, peak=peak, backend="cupy")
                found += [loss, lse, peak, slope]
    return found
