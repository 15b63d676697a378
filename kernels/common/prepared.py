"""Launches that are made many times: they keep the tables and counters that one call makes.

    launch = prepared(ising_sweeps, spins, width, beta=betas, seed=7, out=out)
    launch()  # makes thresholds on the device, then launches
    launch()  # only launches, so that a CUDA graph captures the kernels alone

A function that makes a table calls `keep`. In a plain call of that function nothing is kept. What belongs to a stream
or to a capture asks `stream_number` and `is_capturing`.
"""

from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

_Kept = dict[Hashable, tuple[object, tuple[Tensor, ...], Any]]
"""What a prepared launch keeps, by name: memory and versions of the sources, the sources, and the result."""

_kept: ContextVar[_Kept | None] = ContextVar("boltzbench_kept", default=None)


def prepared(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """A function without arguments that calls ``function`` with these, and keeps its tables from call to call.

    The first call, and the first one after a write to a tensor that a table was made from, makes tables. Call it once
    outside of a CUDA graph before you capture it, and again after such a write. A write past autograd (``x.data``, a
    NumPy view) goes unnoticed. Launches of one prepared function must not run side by side on two streams.
    """
    kept: _Kept = {}

    def launch() -> T:
        token = _kept.set(kept)
        try:
            return function(*args, **kwargs)
        finally:
            _kept.reset(token)

    return launch


def is_prepared() -> bool:
    """Whether the call comes from a launch of `prepared`."""
    return _kept.get() is not None


def keep(name: Hashable, make: Callable[[], T], *sources: Tensor) -> T:
    """``make()``, or in a launch of `prepared` what an earlier call made from the present values of ``sources``.

    ``name`` says what is made, with all numbers that it depends on. Tensors made in inference mode count no versions,
    so that nothing made from them is kept.
    """
    kept = _kept.get()
    if kept is None or any(source.is_inference() for source in sources):
        return make()
    now = [(x.data_ptr(), x.dtype, x.shape, x.stride(), x._version) for x in sources]
    if name not in kept or kept[name][0] != now:
        kept[name] = now, sources, make()
    result: T = kept[name][2]
    return result


def stream_number(device: torch.device) -> int:
    """A number for torch's current stream of ``device``; a CPU has one stream."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def is_capturing(device: torch.device) -> bool:
    """Whether the current stream of ``device`` is being captured in a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
