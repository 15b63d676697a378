"""The CUDA C kernels of `sgld` on odd shapes, for `test_sanitized.py`."""

from unittest import mock

import torch
from boltzbench.kernels.philox import Stream, normals, random_words
from boltzbench.kernels.sgld import psgld_update, request, sghmc_update, sgld_update
from support.sanitized import DTYPES, FAR, random, unwritten
from torch import Tensor


def _beyond_element_2_31(dtype: torch.dtype) -> Tensor:
    """The last elements of one tensor, by its last blocks alone."""
    x, g = unwritten(FAR + 4096, dtype), unwritten(FAR + 4096, dtype)
    x[-8192:], g[-8192:] = random(8192, dtype=dtype), random(8192, dtype=dtype, seed=1)
    first = len(x) - 8192
    xi = normals(random_words(torch.arange(first // 4, len(x) // 4), 3, 4, Stream.NOISE, 0), torch.float64).flatten()
    expected = x[first:].double() - 0.05 * g[first:].double() + 0.1**0.5 * xi
    blocks = request._blocks
    with mock.patch.object(request, "_blocks", lambda *of: blocks(*of)[-3:]):
        sgld_update(x, g, 0.1, 1.0, seed=3, step=4, backend="cupy")
    torch.testing.assert_close(x[first:].double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    return x[first:].clone()


def results() -> list[Tensor]:
    found = [_beyond_element_2_31(dtype) for dtype in DTYPES]
    shapes = [(), (1,), (2,), (3,), (5,), (1023,), (4095,), (4097,), (3, 7), (0,)]
    parameters = [random(*shape, dtype=dtype) for dtype in DTYPES for shape in shapes]
    parameters += [random(9, 5, dtype=dtype).t() for dtype in DTYPES]
    parameters += [random(4102, dtype=dtype)[1:] for dtype in DTYPES]  # not aligned
    gradients = [random(*x.shape, dtype=x.dtype, seed=1) for x in parameters]
    for temperature in (0.0, 1.0):
        sgld_update(parameters, gradients, 0.1, temperature, seed=2**64 - 1, step=2**32 - 1, backend="cupy")
        found += [x.clone() for x in parameters]
    for update in (psgld_update, sghmc_update):
        for chosen in (parameters, [x for x in parameters if x.dtype is torch.bfloat16]):  # mixed, and of one dtype
            states = [torch.ones_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in chosen]
            slopes = [random(*x.shape, dtype=x.dtype, seed=1) for x in chosen]
            update(chosen, slopes, states, 0.1, seed=1, step=2, rounding="stochastic", backend="cupy")
            found += [x.clone() for x in (*chosen, *states)]
    return found
