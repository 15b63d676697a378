"""The limits of the device, with which every measurement is compared. Of the kernels for a limit, the best one counts.

A launch on a GPU should take a millisecond or more, far above the cost of the launch itself, and its data should be far
larger than any cache.
"""

from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Ceiling, hookimpl
from boltzbench.kernels.ceilings import Prepared, cuda_kernels, native_kernels, torch_kernels
from boltzbench.kernels.common.dispatch import unavailable

BOLTZBENCH_API = 1

GPU_BYTES = 4 << 30
"""Bytes read, written, or both together; no cache of a GPU holds a tenth of them."""
CPU_BYTES = 256 << 20
GPU_MATRIX = 8192
"""Rows and columns of each matrix."""
CPU_MATRIX = {"float32": 2048, "bfloat16": 1024}
ARITHMETIC = {
    "fma": ("Fma", 1 << 37, 2),
    "exp2": ("Exp2", 1 << 33, 1),
    "wide multiply": ("WideMultiply", 1 << 35, 1),
    "philox": ("Philox", 1 << 32, 1),
}
"""The kernel, the number of its operations in a launch, and the amount of one: a fused multiply-add is two flops."""
LAUNCHES = 1000
NATIVE_ARITHMETIC = {
    "fma": ("fma", 400, 2),
    "float64 fma": ("float64 fma", 400, 2),
    "exp2": ("exp", 4096, 1),
    "philox": ("philox", 512, 1),
    "logic": ("logic", 128, 1),
}
"""For a CPU: the kernel, the number of its parts in a launch, and the amount of one of their operations."""
NORMAL_NUMBERS = 1024
"""Parts of a launch. On a CPU a special function is a polynomial. Those of normal numbers are shorter than that of exp,
so they may set the limit of ``exp2``."""


def _only_on(kind: str, size: int, device: torch.device) -> str | None:
    """Why a ceiling for this kind of device, with ``size`` bytes of data, cannot be measured on ``device``, or None."""
    if device.type != kind:
        return f"its sizes are for a {'GPU' if kind == 'cuda' else 'CPU'}"
    if kind == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    needed = size + (1 << 30)  # the check and torch's allocator need some besides the data
    return None if free >= needed else f"needs {needed >> 20} MiB of memory, of which {free >> 20} are free"


def _cuda_c(size: int, device: torch.device) -> str | None:
    return _only_on("cuda", size, device) or unavailable("cupy", device)


def _native(device: torch.device) -> str | None:
    return _only_on("cpu", 0, device) or unavailable("native", device)


def _on_resident_blocks(kernel: Callable[..., Prepared], size: int, device: torch.device) -> Prepared:
    return kernel(device, size, cuda_kernels.resident_blocks(device))


@hookimpl
def register_ceilings(register: Callable[[Ceiling], None]) -> None:
    for resource, buffers in (("read", 1), ("write", 1), ("copy", 2)):
        by_cuda_c, by_torch = getattr(cuda_kernels, resource), getattr(torch_kernels, resource)
        size = GPU_BYTES // buffers
        per_tile, resident = partial(by_cuda_c, size=size), partial(_on_resident_blocks, by_cuda_c, size)
        register(Ceiling(resource, "cupy per tile", "cupy", GPU_BYTES, per_tile, partial(_cuda_c, GPU_BYTES)))
        register(Ceiling(resource, "cupy resident", "cupy", GPU_BYTES, resident, partial(_cuda_c, GPU_BYTES)))
        for kind, name, amount in (("cuda", "torch", GPU_BYTES), ("cpu", "torch on a CPU", CPU_BYTES)):
            prepare = partial(by_torch, size=amount // buffers)
            register(Ceiling(resource, name, "torch", amount, prepare, partial(_only_on, kind, amount)))
        prepare = partial(getattr(native_kernels, resource), size=CPU_BYTES // buffers)
        register(Ceiling(resource, "native", "native", CPU_BYTES, prepare, _native))

    for resource, (kernel, count, each) in ARITHMETIC.items():
        prepare = partial(cuda_kernels.arithmetic, name=kernel, operations=count)
        register(Ceiling(resource, "cupy", "cupy", count * each, prepare, partial(_cuda_c, 0)))
    for resource, (kernel, parts, each) in NATIVE_ARITHMETIC.items():
        _register_parts(register, resource, "native", kernel, parts, each)
    _register_parts(register, "exp2", "native, normal numbers", "normal numbers", NORMAL_NUMBERS, 1)
    prepare = partial(cuda_kernels.empty, launches=LAUNCHES)
    register(Ceiling("launch", "cupy in a graph", "cupy", LAUNCHES, prepare, partial(_cuda_c, 0)))

    # cuBLAS and oneDNN have the best kernels for products of matrices.
    flops = 2 * GPU_MATRIX**3
    for precision in torch_kernels.PRECISIONS:
        prepare = partial(torch_kernels.matrix, precision=precision, n=GPU_MATRIX)
        on_gpu = partial(_only_on, "cuda", 0)
        register(Ceiling(f"{precision} matrix", "torch", "torch", flops, prepare, on_gpu))
        if precision == "bfloat16":
            # States of 0 and 1 are exact in bfloat16, and a float32 weight is the sum of three bfloat16 numbers. So
            # three products replace one of float32, and on tensor cores they take less time.
            third = (flops // 3, prepare, on_gpu)
            register(Ceiling("float32 matrix", "torch, three of bfloat16", "torch", *third))
    for precision, n in CPU_MATRIX.items():
        prepare = partial(torch_kernels.matrix, precision=precision, n=n)
        on_cpu = partial(_only_on, "cpu", 0)
        register(Ceiling(f"{precision} matrix", "torch on a CPU", "torch", 2 * n**3, prepare, on_cpu))
        # For states of 0 and 1, tables of the sums of four weights replace three additions and all multiplications.
        n = CPU_MATRIX["float32"]
        prepare = partial(native_kernels.binary_product, n=n)
        register(Ceiling(f"{precision} matrix", "native, by tables", "native", 2 * n**3, prepare, _native))


def _register_parts(
    register: Callable[[Ceiling], None], resource: str, name: str, kernel: str, parts: int, each: int
) -> None:
    prepare = partial(native_kernels.arithmetic, name=kernel, parts=parts)
    amount = parts * native_kernels.ARITHMETIC[kernel].operations * each
    register(Ceiling(resource, name, "native", amount, prepare, _native))
