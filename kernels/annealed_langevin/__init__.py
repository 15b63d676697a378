"""Langevin walkers in a double well: one launch takes them through a whole schedule of temperatures.

``x' = x - (eps / 2) E'(x) + sqrt(eps T_t) xi`` with ``E = (x^2 - 1)^2``: the update of `boltzbench.kernels.sgld` with
a temperature for each step, and with the gradient computed in the kernel.

Sources: Kramers, Physica 7 (1940); Welling and Teh, ICML 2011, with temperature; Kirkpatrick, Gelatt and Vecchi,
Science 220 (1983).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..common.derivatives import not_differentiable
from ..common.dispatch import backend_module, choose_backend, note_written, require_output, require_tensor, running_on
from ..common.prepared import keep
from ..numbers import INT64_MAX, integer, real
from ..philox import check_counter
from ..schedules import require_schedule
from .reference import noise
from .request import LaunchRequest

__all__ = ["AnnealedWalkers", "annealed_langevin", "noise"]


class AnnealedWalkers(NamedTuple):
    """Positions ``x``, float32 (walkers,), and first ``passages``, int32 (walkers,), or None without a threshold."""

    x: Tensor
    passages: Tensor | None


@not_differentiable("temperatures", "step_size", "threshold")
def annealed_langevin(
    x: Tensor,
    temperatures: Tensor,
    step_size: float,
    *,
    threshold: float | None = None,
    passages: Tensor | None = None,
    seed: int,
    first_step: int = 0,
    first_walker: int = 0,
    out: Tensor | None = None,
    passages_out: Tensor | None = None,
    backend: str = "auto",
) -> AnnealedWalkers:
    """Advance every walker by ``x' = x - 2 eps x (x^2 - 1) + sqrt(eps T_t) xi``, once for each temperature.

    Args:
        x: positions, float32 (walkers,); not modified.
        temperatures: temperature of each step, float64 (steps,), positive and finite, on the CPU or the device of
            ``x``; see `boltzbench.kernels.schedules`. Values on a GPU are not checked.
        step_size: ``eps``, not negative. A walker with ``eps x^2`` beyond about 1 diverges to infinity and NaN.
        threshold: report for each walker the number of the first step that ended at ``x >= threshold``, or -1 if there
            was none. Step 0 of the stream has number 1.
        passages: first passages of an earlier part of the run, int32 (walkers,), -1 for none; not modified.
        seed: the key of the random stream, in [0, 2**64).
        first_step: number of the first step in the stream; to continue a run, pass the number of steps done.
        first_walker: number of the first walker in the stream, so that a batch split over calls takes the same walks.
        out, passages_out: contiguous tensors to write to; they must not share memory with the arguments.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, the schedule is empty, a number is out of range, passages are given without
            a threshold, or ``backend`` is unknown or cannot run here.

    Walker ``i`` takes normal ``i % 4`` of group ``i // 4`` of the stream ``WALKERS`` at step ``first_step + t``. On one
    backend, splitting walkers or steps over calls changes no bit. Walks on different backends differ by rounding.

    The result has no derivative, on any backend: it is detached, and the transforms of ``torch.func`` raise
    NotImplementedError.
    """
    require_tensor("x", x, (torch.float32,), None)
    if x.ndim != 1:
        raise ValueError(f"x must have shape (walkers,), got {tuple(x.shape)}")
    walkers = len(x)
    require_tensor("temperatures", temperatures, (torch.float64,), None)
    if temperatures.device.type != "cpu" and temperatures.device != x.device:
        raise ValueError(f"temperatures must be on the CPU or on {x.device}, got {temperatures.device}")
    require_schedule("temperatures", temperatures)
    step_size = real("step_size", step_size, least=0)
    seed, first_step, _ = check_counter(seed, first_step, steps=len(temperatures), step_name="first_step")
    first_walker = integer("first_walker", first_walker, 0, INT64_MAX - walkers)
    if threshold is None and (passages is not None or passages_out is not None):
        raise ValueError("passages or passages_out needs a threshold")
    if threshold is not None:
        threshold = real("threshold", threshold, infinite=True)
    if threshold is not None and first_step + len(temperatures) >= 1 << 31:
        raise ValueError("first_step: with a threshold, the number of the last step must be less than 2**31")
    given = {"x": x, "temperatures": temperatures}
    if passages is not None:
        require_tensor("passages", passages, (torch.int32,), x.device)
        if passages.shape != x.shape:
            raise ValueError(f"passages must have shape ({walkers},), got {tuple(passages.shape)}")
        given["passages"] = passages
    chosen = choose_backend(backend, x.device, __name__)
    result = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    require_tensor("out", result, (torch.float32,), x.device)
    require_output("out", result, x.shape, given)
    passed = None
    if threshold is not None:
        passed = torch.empty_like(result, dtype=torch.int32) if passages_out is None else passages_out
        require_tensor("passages_out", passed, (torch.int32,), x.device)
        require_output("passages_out", passed, x.shape, {**given, "out": result})
    if walkers:
        scales = keep(
            ("scales", step_size), lambda: torch.sqrt(step_size * temperatures).float().to(x.device), temperatures
        )
        with np.errstate(over="ignore"):
            level = float(np.float32(threshold or 0.0))  # rounded like the positions
        earlier = None if passages is None else passages.contiguous()
        walk = LaunchRequest(
            x.contiguous(), earlier, result, passed, scales, step_size, level, seed, first_step, first_walker
        )
        with running_on(x.device):
            backend_module(chosen, __name__).walk(walk)
    note_written(result)
    if passed is not None:
        note_written(passed)
    return AnnealedWalkers(result, passed)
