"""The CUDA C kernels of `thermodynamics` on odd shapes, for `test_sanitized.py`."""

import torch
from boltzbench.kernels.thermodynamics import thermodynamics
from support.sanitized import far_apart, random, same_as_close_together
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [random(rows, n, dtype=dtype) for rows, n in ((1, 1), (9, 33), (3, 128), (2, 1025), (1, 4103))]
        inputs += [random(65, 37, dtype=dtype).t(), random(1, 32_776, dtype=dtype), random(130, dtype=dtype)[1:]]
        for x in inputs:
            for beta in (0.7, -1.0):
                found += thermodynamics(x, -1, beta, backend="cupy")[:3]
        for x in far_apart(dtype):
            found += same_as_close_together(lambda x: thermodynamics(x, -1, 0.7, backend="cupy")[:3], x)
    return found
