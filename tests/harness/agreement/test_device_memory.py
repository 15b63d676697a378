"""Errors of several libraries that say that a device is out of memory."""

import sys

import pytest
import torch
from boltzbench.harness.agreement.device_memory import free_caches, is_out_of_memory


class OutOfMemoryError(MemoryError):
    """As in CuPy."""


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        OutOfMemoryError("Out of memory allocating 1,024 bytes (allocated so far: 512 bytes)."),
        RuntimeError("cudaErrorMemoryAllocation: out of memory"),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_each_library_has_its_words(error: Exception) -> None:
    assert is_out_of_memory(error)
    outer = ValueError("the backend failed")
    outer.__cause__ = error
    assert is_out_of_memory(outer), "one error led to another"


@pytest.mark.parametrize(
    "error",
    [
        None,
        MemoryError("no room"),
        RuntimeError("out of resource: shared memory, Required: 300000, Hardware limit: 232448"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_other_errors_are_not_of_memory(error: Exception | None) -> None:
    assert not is_out_of_memory(error)


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not is_out_of_memory(one)


def test_the_caches_of_torch_and_cupy_are_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[str] = []

    class Pool:
        def __init__(self, name: str) -> None:
            self.name = name

        def free_all_blocks(self) -> None:
            freed.append(self.name)

    class Cupy:
        get_default_memory_pool = staticmethod(lambda: Pool("cupy"))
        get_default_pinned_memory_pool = staticmethod(lambda: Pool("pinned"))

    monkeypatch.setitem(sys.modules, "cupy", Cupy)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append("torch"))
    free_caches()
    assert freed == [], "this process uses no GPU"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    free_caches()
    assert freed == ["torch", "cupy", "pinned"]
