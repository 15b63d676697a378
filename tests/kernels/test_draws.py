"""Draws in C++ and in torch are the same numbers of the stream, for any range of elements."""

import pytest
import torch
from boltzbench.kernels import draws
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.philox import Stream

CPU = torch.device("cpu")
PLACE = {"seed": 7 + (5 << 32), "step": 3, "stream": Stream.NOISE, "tensor": 2, "device": CPU}


def drawn(first, count, dtype):
    return draws.normal_draws(first, count, dtype=dtype, **PLACE), draws.uniform_draws(first, count, **PLACE)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 2), (4, 64), (2**40 + 1, 1001), (5, 0), (7, 100_000)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 2e-15)])
def test_native_draws_are_those_in_torch(first, count, dtype, error, monkeypatch):
    if reason := dispatch.unavailable("native", CPU):
        pytest.skip(reason)
    normal, uniform = drawn(first, count, dtype)
    monkeypatch.setattr(draws, "unavailable", lambda backend, device: "no compiler")
    in_torch, uniform_in_torch = drawn(first, count, dtype)
    assert normal.dtype == in_torch.dtype == dtype
    torch.testing.assert_close(normal, in_torch, rtol=0, atol=error)
    assert torch.equal(uniform, uniform_in_torch)
    assert normal.shape == uniform.shape == (count,)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_any_range_and_number_of_threads_gives_the_same_bits(backend, monkeypatch):
    if backend == "torch":
        monkeypatch.setattr(draws, "unavailable", lambda backend, device: "no compiler")
    whole = drawn(5, 40_000, torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        parts = [drawn(first, count, torch.float32) for first, count in ((5, 1), (6, 30_001), (30_007, 9_998))]
    finally:
        torch.set_num_threads(threads)
    for all_at_once, split in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(split), all_at_once)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"dtype": torch.float16}, TypeError, "dtype must be float32 or float64, got float16"),
        ({"first": -1}, ValueError, "first must"),
        ({"count": -1}, ValueError, "count must"),
        ({"seed": 1 << 64}, ValueError, "seed must"),
        ({"step": 1 << 32}, ValueError, "step must"),
        ({"tensor": 1 << 24}, ValueError, "tensor must"),
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_bad_arguments_are_named(change, error, words, backend, monkeypatch):
    if backend == "torch":
        monkeypatch.setattr(draws, "unavailable", lambda backend, device: "no compiler")
    with pytest.raises(error, match=words):
        draws.normal_draws(**{"first": 0, "count": 8, "dtype": torch.float32, **PLACE, **change})
