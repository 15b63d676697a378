"""Choosing the backend of a public function, and the checks that all of them share."""

import importlib
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

from .. import cuda_module
from . import triton_runtime

NO_GRAPH = (torch.Tag.cudagraph_unsafe,)
"""For operators that keep tables or counters between calls: torch.compile is not to put them into graphs of its own."""

BACKENDS = ("torch", "triton", "cupy")


def unavailable(backend: str, device: torch.device) -> str | None:
    """Why ``backend`` cannot run for tensors on ``device``, or None if it can."""
    if backend == "triton":
        return triton_runtime.unavailable(device)
    if backend == "cupy":
        return cuda_module.unavailable(device)
    return None


def choose_backend(backend: str, device: torch.device) -> str:
    """The backend to use: ``auto`` takes torch on a CPU and the first of triton, cupy, torch that runs on a GPU.

    Raises ValueError, naming the argument, if the backend is unknown or cannot run on ``device``.
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "auto":
        if device.type != "cuda":
            return "torch"
        return next(name for name in ("triton", "cupy", "torch") if unavailable(name, device) is None)
    reason = unavailable(backend, device)
    if reason is not None:
        raise ValueError(f"backend {backend!r} cannot run on {device}: {reason}")
    return backend


def backend_module(backend: str, package: str) -> ModuleType:
    """The module of ``package`` that holds the kernels of ``backend``, imported on first use."""
    name = {"torch": "reference", "triton": "triton_kernels", "cupy": "cuda_kernels"}[backend]
    return importlib.import_module(f"{package}.{name}")


def overlaps(a: Tensor, b: Tensor) -> bool:
    """True if the memory that ``a`` spans meets the memory that ``b`` spans."""
    if a.numel() == 0 or b.numel() == 0 or a.device != b.device:
        return False
    (a_first, a_end), (b_first, b_end) = span(a), span(b)
    return a_first < b_end and b_first < a_end


def span(x: Tensor) -> tuple[int, int]:
    """First address and the one after the last that the elements of ``x`` (not empty) lie between."""
    first = x.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return first, first + (last + 1) * x.element_size()


def require_tensor(name: str, value: object, dtypes: tuple[torch.dtype, ...], device: torch.device | None) -> Tensor:
    """``value`` itself if it is a dense tensor of one of ``dtypes`` on ``device``; else TypeError or ValueError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")
    if value.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must have dtype {names}; got {str(value.dtype).removeprefix('torch.')}")
    if device is not None and value.device != device:
        raise ValueError(f"{name} must be on {device}, got {value.device}")
    if not torch.compiler.is_compiling() and value.is_neg():
        raise ValueError(f"{name} must not be negated lazily, as the imaginary part of a conjugate is: resolve_neg()")
    return value


def running_on(device: torch.device) -> AbstractContextManager[object]:
    """Makes ``device`` the current one, on whose current stream a kernel then runs."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def require_output(name: str, value: Tensor, shape: torch.Size, inputs: dict[str, Tensor]) -> None:
    """Raise ValueError unless ``value`` is contiguous, of ``shape``, and shares no memory with ``inputs``."""
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    if not value.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {value.stride()}")
    for other, tensor in inputs.items():
        if overlaps(value, tensor):
            raise ValueError(f"{name} must not share memory with {other}")


def note_written(x: Tensor) -> None:
    """Tell autograd that a kernel has written to ``x``, so that it refuses a gradient through the old values."""
    if not x.is_inference():
        torch.autograd.graph.increment_version(x)
