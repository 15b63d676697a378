"""Chooses the backend of a public function, and checks arguments that all public functions have."""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import wraps
from types import ModuleType
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from .. import cuda_module, native
from ..native import build_all as build_all
from . import triton_runtime

P = ParamSpec("P")
R = TypeVar("R")

NO_GRAPH = (torch.Tag.cudagraph_unsafe,)
"""Tag of operators that keep tables or counters between calls: torch.compile must not capture them in its graphs."""

BACKENDS = ("torch", "triton", "cupy")
"""The backends that every operation has."""

_MODULES = {"torch": "reference", "triton": "triton_kernels", "cupy": "cuda_kernels", "native": "native_kernels"}


@functools.cache
def backends_of(package: str) -> tuple[str, ...]:
    """The backends of the operation in ``package``: `BACKENDS`, and ``native`` if it has kernels in C++ for CPUs."""
    has_native = bool(package) and importlib.util.find_spec(f"{package}.{_MODULES['native']}") is not None
    return (*BACKENDS, "native") if has_native else BACKENDS


def unavailable(backend: str, device: torch.device) -> str | None:
    """Why ``backend`` cannot run for tensors on ``device``, or None if it can."""
    if backend == "triton":
        return triton_runtime.unavailable(device)
    if backend == "cupy":
        return cuda_module.unavailable(device)
    if backend == "native":
        return native.unavailable(device)
    return None


def choose_backend(backend: str, device: torch.device, package: str = "") -> str:
    """The backend to use. ``package`` holds the operation's kernels.

    ``auto`` is on a GPU the first of triton, cupy, torch that runs there, and on a CPU native if the operation has it
    and a C++ compiler is there, else torch.

    Raises ValueError, naming the argument, if the backend is unknown or cannot run on ``device``.
    """
    known = backends_of(package)
    if backend not in ("auto", *known):
        raise ValueError(f"backend must be one of auto, {', '.join(known)}; got {backend!r}")
    if backend == "auto":
        wanted = ("triton", "cupy", "torch") if device.type == "cuda" else ("native", "torch")
        return next(name for name in wanted if name in known and unavailable(name, device) is None)
    reason = unavailable(backend, device)
    if reason is not None:
        raise ValueError(f"backend {backend!r} cannot run on {device}: {reason}")
    return backend


def automatic(device: torch.device, package: str) -> str:
    """The backend that ``auto`` is on ``device`` for the operation in ``package``, and why, in a line."""
    chosen = choose_backend("auto", device, package)
    if chosen == "native":
        return f"native, compiled by {native.compiler_name()}"
    if device.type == "cpu":
        has_native = "native" in backends_of(package)
        return f"{chosen}: {unavailable('native', device) if has_native else 'it has no native kernels'}"
    better = ("triton", "cupy", "torch")
    skipped = [f"{name} cannot run: {unavailable(name, device)}" for name in better[: better.index(chosen)]]
    return ": ".join([chosen, *(["; ".join(skipped)] if skipped else [])])


def backend_module(backend: str, package: str) -> ModuleType:
    """The module of ``package`` with the kernels of ``backend``, imported on first use."""
    if backend == "triton":
        triton_runtime.launch_one_at_a_time()
    return importlib.import_module(f"{package}.{_MODULES[backend]}")


def overlaps(a: Tensor, b: Tensor) -> bool:
    """True if the memory ranges of ``a`` and ``b`` intersect."""
    if a.numel() == 0 or b.numel() == 0 or a.device != b.device:
        return False
    (a_first, a_end), (b_first, b_end) = span(a), span(b)
    return a_first < b_end and b_first < a_end


def span(x: Tensor) -> tuple[int, int]:
    """First address of the memory of ``x`` (not empty), and the address after its last byte."""
    first = x.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return first, first + (last + 1) * x.element_size()


def require_tensor(name: str, value: object, dtypes: tuple[torch.dtype, ...], device: torch.device | None) -> Tensor:
    """Return ``value``. Raise TypeError or ValueError unless it is dense, of one of ``dtypes`` and on ``device``."""
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
        raise ValueError(f"{name} must not be a lazily negated view (x.conj().imag is one): call resolve_neg()")
    return value


def running_on(device: torch.device) -> AbstractContextManager[object]:
    """Makes ``device`` current, so that a kernel runs on its current stream, and turns autocast off there."""
    if device.type != "cuda":
        return _no_autocast(device)
    if not torch.is_autocast_enabled("cuda"):
        return torch.cuda.device(device)
    both = ExitStack()
    both.enter_context(torch.cuda.device(device))
    both.enter_context(_no_autocast(device))
    return both


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Compute ``function``, whose first tensor is on the device in use, in the dtypes that it states.

    Under ``torch.autocast`` torch rounds the factors of a float32 product to 16 bits, and returns 16 bits.
    """

    @wraps(function)
    def exact(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(each.device for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        with _no_autocast(device):
            return function(*args, **kwargs)

    return exact


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    if device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def require_output(name: str, value: Tensor, shape: torch.Size, inputs: dict[str, Tensor]) -> None:
    """Raise ValueError unless ``value`` is contiguous, of ``shape``, and shares no memory with ``inputs``."""
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    if not value.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {value.stride()}")
    for other, tensor in inputs.items():
        if overlaps(value, tensor):
            raise ValueError(f"{name} must not share memory with {other}")


def require_results(out: object, names: Sequence[str]) -> None:
    """Raise TypeError unless ``out`` is a tuple or list of as many results as there are ``names``."""
    if not isinstance(out, tuple | list) or len(out) != len(names):
        got = f"{len(out)}" if isinstance(out, tuple | list) else type(out).__name__
        raise TypeError(f"out must be a tuple of {len(names)}: {', '.join(names)}; got {got}")


def note_written(x: Tensor) -> None:
    """Tell autograd that a kernel has written to ``x``: it then refuses a gradient through the old values."""
    if not x.is_inference():
        torch.autograd.graph.increment_version(x)
