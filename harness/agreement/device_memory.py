"""How to tell that a device is out of memory, and how to free what caches hold."""

import sys

import torch

_WORDS = ("out of memory", "cublas_status_alloc_failed")
"""In the messages of torch, CuPy, Triton, the CUDA driver and runtime ("out of memory"), and of cuBLAS."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one that led to it, says that the memory of the device is exhausted."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in _WORDS):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def free_caches() -> None:
    """Return to the device the memory that torch and CuPy keep in this process for later allocations."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    torch.cuda.empty_cache()
    if cupy := sys.modules.get("cupy"):
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()
