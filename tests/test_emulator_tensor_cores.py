"""Tensor-core products, asynchronous copies and clusters of blocks of `device.cuh` on the emulator."""

from pathlib import Path

import numpy as np
import pytest
import torch
from boltzbench.kernels import emulator
from boltzbench.kernels.cuda_module import CudaModule, EmulatorError, unavailable

CPU = torch.device("cpu")
MODULE = CudaModule(
    Path(__file__).parent / "cuda" / "tensor_cores.cu",
    ["product<float>", "product<i32>", "product_of_double", "copies<0>", "copies<1>"],
)
CLUSTERS = CudaModule(Path(__file__).parent / "cuda" / "clusters.cu", ["ring<true>", "ring<false>", "parted"])
SHARING = CudaModule(Path(__file__).parent / "cuda" / "clusters_sharing.cu", ["sharing"])

pytestmark = pytest.mark.skipif(unavailable(CPU) is not None, reason=str(unavailable(CPU)))


def product(kernel, a, b, c, lanes=32):
    out = torch.empty_like(c)
    MODULE.launch(kernel, (1,), (32,), [a, b, c, out, lanes], device=CPU)
    return out


def test_a_product_of_bytes_is_exact_and_wraps():
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randint(-128, 128, (rows, 32), generator=generator, dtype=torch.int16).to(torch.int8) for rows in (16, 8)
    )
    c = torch.randint(-(2**31), 2**31, (16, 8), generator=generator).to(torch.int32)
    exact = (c.long() + a.long() @ b.long().t() + 2**31) % 2**32 - 2**31
    assert torch.equal(product("product<i32>", a, b, c).long(), exact)


def test_a_product_of_bfloat16_is_cut_once():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(rows, 16, generator=generator).to(torch.bfloat16) for rows in (16, 8))
    c = torch.randn(16, 8, generator=generator)
    exact = c.double() + a.double() @ b.double().t()
    found = product("product<float>", a, b, c).double()
    assert (found.abs() <= exact.abs()).all()
    assert ((found - exact).abs() <= 2.0**-23 * exact.abs()).all()
    assert not torch.equal(found, exact)
    whole = [x.round() for x in (a, b, c)]
    exact = whole[2].double() + whole[0].double() @ whole[1].double().t()
    assert torch.equal(product("product<float>", *whole).double(), exact)


def test_a_product_of_double_is_rounded_to_double():
    a, b = (torch.randn(8, 4, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (0, 1))
    c, out = torch.ones(8, 8, dtype=torch.float64), torch.empty(8, 8, dtype=torch.float64)
    MODULE.launch("product_of_double", (1,), (32,), [a, b, c, out], device=CPU)
    torch.testing.assert_close(out, c + a @ b.t(), rtol=0, atol=4 * 2.0**-52 * 10)


def test_a_product_needs_every_lane():
    a, b, c = torch.zeros(16, 32, dtype=torch.int8), torch.zeros(8, 32, dtype=torch.int8), torch.zeros(16, 8).int()
    with pytest.raises(EmulatorError, match=r"mma at .* lane 31, which has exited"):
        product("product<i32>", a, b, c, lanes=31)


def copies(groups, offset=0):
    given, out = torch.arange(1, 261, dtype=torch.int32), torch.empty(2, 32, 4, dtype=torch.int32)
    MODULE.launch(f"copies<{groups}>", (1,), (32,), [given, out, np.int64(offset)], device=CPU)
    expected = given[:256].view(2, 32, 4).clone()
    expected[:, 1::2] = 0
    return out.flip(1), expected


def test_copies_arrive_when_they_are_waited_for_and_not_before():
    found, expected = copies(0)
    assert torch.equal(found, expected)
    found, expected = copies(1)
    assert torch.equal(found[0], expected[0])
    assert (found[1] == -1).all()  # as shared memory was before


def test_a_copy_from_an_address_that_is_not_aligned():
    with pytest.raises(EmulatorError, match=r"copy_async at .* not a multiple of 16"):
        copies(0, offset=1)


def ring(sync, blocks=8, rounds=3, leaves=3):
    board, out = torch.full((blocks,), -1000, dtype=torch.int32), torch.zeros(blocks, dtype=torch.int32)
    CLUSTERS.launch(f"ring<{sync}>", (blocks,), (64,), [board, out, rounds, leaves], device=CPU)
    return out.tolist()


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_blocks_of_a_cluster_wait_for_each_other(order):
    with emulator.schedule(order):
        assert ring("true") == [3 * 10 * (4 * (i // 4) + (i + 1) % 4) + 3 for i in range(8)]
        assert ring("true") != ring("false")  # who does not wait reads what was there before


def test_what_clusters_cannot_do():
    with pytest.raises(EmulatorError, match=r"3 blocks of a cluster of 4 wait for others that have ended"):
        ring("true", leaves=1)
    with pytest.raises(EmulatorError, match=r"cluster_sync at clusters.cu:\d+: a grid of 6 blocks is not of whole"):
        ring("true", blocks=6)
    with pytest.raises(EmulatorError, match=r"(?s)deadlock.*threads 0-31 wait in cluster_sync"):
        CLUSTERS.launch("parted", (4,), (64,), [], device=CPU)
    assert ring("true", blocks=4) == [33, 63, 93, 3]
    with pytest.raises(EmulatorError, match="static shared memory is one for all blocks"):
        SHARING.launch("sharing", (4,), (32,), [torch.empty(128, dtype=torch.int32)], device=CPU)
