"""The CUDA C kernels of `logsumexp` on odd shapes, for `test_sanitized.py`."""

import torch
from boltzbench.kernels.logsumexp import logsumexp, logsumexp_backward
from support.sanitized import DTYPES, far_apart, random, same_as_close_together
from torch import Tensor


def results() -> list[Tensor]:
    def forward_and_backward(x: Tensor) -> tuple[Tensor, Tensor]:
        lse = logsumexp(x, -1, 0.7, backend="cupy")
        exact = lse if x.dtype.itemsize > 2 else lse.to(torch.float32)
        return lse, logsumexp_backward(torch.ones_like(lse), x, exact, -1, 0.7, backend="cupy")

    found = [y for dtype in DTYPES for x in far_apart(dtype) for y in same_as_close_together(forward_and_backward, x)]
    for dtype in DTYPES:
        # Each size in a tensor of its own, so that one element too far is outside of it.
        inputs = [
            random(rows, n, dtype=dtype) for rows, n in ((1, 1), (3, 31), (9, 33), (3, 128), (2, 1025), (3, 4104))
        ]
        inputs += [random(n, 37, dtype=dtype).t() for n in (1, 65, 261)]
        inputs += [random(5, 6, 7, dtype=dtype)[:, ::2, 1:].permute(1, 2, 0), random(7, 1, dtype=dtype).expand(7, 40)]
        inputs += [random(4, 3, 2, 3, 5, dtype=dtype).permute(4, 1, 3, 0, 2), random(130, dtype=dtype)[1:]]
        for x in inputs:
            for beta in (0.7, -1.0):
                lse = logsumexp(x, -1, beta, backend="cupy")
                exact = lse if dtype.itemsize > 2 else lse.to(torch.float32)
                grad = torch.ones_like(lse)
                found += [lse, logsumexp_backward(grad, x, exact, -1, beta, backend="cupy")]
        for n in (32_769, 32_776):
            found.append(logsumexp(random(1, n, dtype=dtype), backend="cupy"))
    return found
