"""Tensor cores, asynchronous copies, clusters and named barriers of `device.cuh` on the emulator."""

from pathlib import Path

import numpy as np
import pytest
import torch
from boltzbench.kernels import emulator
from boltzbench.kernels.cuda_module import CudaModule, EmulatorError, unavailable
from support import TESTS

CPU = torch.device("cpu")
MODULE = CudaModule(
    TESTS / "kernels" / "cuda" / "tensor_cores.cu",
    [
        *("product<float>", "product<i32>", "product_of_double"),
        *("copies<0>", "copies<1>", "matrices<false>", "matrices<true>"),
    ],
)
BARRIERS = CudaModule(
    TESTS / "kernels" / "cuda" / "barriers.cu",
    ["turns<true>", "turns<false>", "alone", "parted", "split", "twice"],
)
CLUSTERS = CudaModule(TESTS / "kernels" / "cuda" / "clusters.cu", ["ring<true>", "ring<false>", "parted"])
SHARING = CudaModule(TESTS / "kernels" / "cuda" / "clusters_sharing.cu", ["sharing"])

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


def test_a_product_of_bfloat16_is_truncated_once():
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


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_load_by_rows_or_by_columns(transposed):
    given = torch.arange(1, 257, dtype=torch.int16)
    matrices = given.view(32, 8).flip(0).view(4, 8, 8)
    expected = (matrices.mT if transposed else matrices).reshape(4, 32, 2).transpose(0, 1)
    for row_bytes in (16, 32):
        out = torch.empty(32, 4, 2, dtype=torch.int16)
        words = [given.view(torch.int32), out.view(torch.int32)]
        MODULE.launch(f"matrices<{str(transposed).lower()}>", (1,), (32,), [*words, row_bytes], device=CPU)
        assert torch.equal(out, expected)
    with pytest.raises(EmulatorError, match=r"load_matrices at .* not a multiple of 16"):
        MODULE.launch(f"matrices<{str(transposed).lower()}>", (1,), (32,), [*words, 24], device=CPU)


def copies(groups, offset=0):
    given, out = torch.arange(1, 261, dtype=torch.int32), torch.empty(2, 32, 4, dtype=torch.int32)
    MODULE.launch(f"copies<{groups}>", (1,), (32,), [given, out, np.int64(offset)], device=CPU)
    expected = given[:256].view(2, 32, 4).clone()
    expected[:, 1::2] = 0
    return out.flip(1), expected


def test_copies_arrive_at_the_wait_and_not_before():
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
        assert ring("true") != ring("false")  # a reader that does not wait sees the old contents


def test_misuse_of_clusters_is_an_error():
    with pytest.raises(EmulatorError, match=r"3 blocks of a cluster of 4 wait for blocks that have ended"):
        ring("true", leaves=1)
    with pytest.raises(EmulatorError, match=r"cluster_sync at clusters.cu:\d+: a grid of 6 blocks is not a multiple"):
        ring("true", blocks=6)
    with pytest.raises(EmulatorError, match=r"(?s)deadlock.*threads 0-31 wait in cluster_sync"):
        CLUSTERS.launch("parted", (4,), (64,), [], device=CPU)
    assert ring("true", blocks=4) == [33, 63, 93, 3]
    with pytest.raises(EmulatorError, match="does not support static shared memory in clusters"):
        SHARING.launch("sharing", (4,), (32,), [torch.empty(128, dtype=torch.int32)], device=CPU)


def mappings():
    """Memory mappings of this process: two for each stack. The system allows some 65,000."""
    return Path("/proc/self/maps").read_text().count("\n")


def test_clusters_and_modules_release_their_stacks(monkeypatch):
    """A module keeps the stacks of one block, here of 64 threads, until others launch."""
    monkeypatch.setattr(emulator, "_MOST_WITH_STACKS", 1)
    turns("true", 1)
    while len(emulator._with_stacks) != 1:  # each launch releases the stacks of one module
        turns("true", 1)
    before = mappings()
    ring("true")
    assert mappings() < before + 64
    with pytest.raises(EmulatorError, match=r"3 blocks of a cluster of 4 wait"):
        ring("true", leaves=1)
    assert mappings() < before + 64
    turns("true", 1)
    assert mappings() < before + 64


def turns(waits, rounds):
    out = torch.zeros(1, dtype=torch.int32)
    BARRIERS.launch(f"turns<{waits}>", (2,), (64,), [out, rounds], device=CPU)
    return out.item()


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_named_barriers_order_two_warps(order):
    with emulator.schedule(order):
        assert [turns("true", rounds) for rounds in (1, 2)] == [5, 50]
        assert turns("false", 1) == (5 if order == "forward" else 7)  # who only arrives goes on
        with pytest.raises(EmulatorError, match=r"arrives at barrier [12] twice before it opens"):
            turns("false", 2)


@pytest.mark.parametrize(
    ("waits", "number", "threads", "message"),
    [
        (True, 1, 64, r"(?s)deadlock.*threads 0-31 wait in barrier_wait at barriers.cu:\d+"),
        (False, 1, 64, r"ended while 32 of 64 threads had arrived at a barrier"),
        (False, 0, 64, r"barrier_arrive at barriers.cu:\d+: a block has barriers 1 to 15, not 0"),
        (True, 16, 64, r"barrier_wait at barriers.cu:\d+: a block has barriers 1 to 15, not 16"),
        (True, 1, 48, "48 threads are not whole warps of a block of 64"),
        (True, 1, 96, "96 threads are not whole warps of a block of 64"),
    ],
)
def test_misuse_of_named_barriers_is_an_error(waits, number, threads, message):
    with pytest.raises(EmulatorError, match=message):
        BARRIERS.launch("alone", (1,), (64,), [int(waits), number, threads, 32], device=CPU)
    BARRIERS.launch("alone", (1,), (64,), [1, 15, 32, 32], device=CPU)


@pytest.mark.parametrize("waits", [True, False])
def test_half_a_warp_at_a_named_barrier_is_an_error(waits):
    with pytest.raises(
        EmulatorError, match=r"barrier_(wait|arrive) at barriers.cu:\d+: .* lane 1[56], which has exited"
    ):
        BARRIERS.launch("alone", (1,), (64,), [int(waits), 1, 32, 16], device=CPU)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("parted", r"others expect (32|64) threads at barrier 1, not (64|32)"),
        ("split", "lanes of a warp name different barriers or numbers of threads"),
        ("twice", "arrives at barrier 1 twice before it opens"),
    ],
)
def test_warps_must_agree_on_a_named_barrier(kernel, message):
    with pytest.raises(EmulatorError, match=message):
        BARRIERS.launch(kernel, (1,), (64,), [], device=CPU)
