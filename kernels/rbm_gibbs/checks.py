"""The checks that the public functions of block Gibbs share."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.dispatch import require_output, require_tensor
from ..philox import STEP_LIMIT, check_counter


class GibbsResult(NamedTuple):
    """States after the last sweep: ``visible`` and ``hidden`` are uint8 0/1, of shapes (chains, visible units) and
    (chains, hidden units), or packed as the states given were; ``hidden`` is what the last visible states were drawn
    from. ``hidden_probability`` is float32 ``P(h = 1 | visible)``, (chains, hidden units), for the returned visible
    states, if asked for. Real-valued visible units (`gaussian_gibbs`) are float32.
    """

    visible: Tensor
    hidden: Tensor
    hidden_probability: Tensor | None


def require_place(
    seed: int, first_sweep: int | Tensor, sweeps: int, first_chain: int, chains: int, units: int, device: torch.device
) -> tuple[int, Tensor | None]:
    """The number of the first sweep, and the tensor of one element on the device from which it is counted, if any.

    ``units``: of the larger layer.
    """
    if sweeps < 1:
        raise ValueError(f"sweeps must be at least 1, got {sweeps}")
    on_device = None
    if isinstance(first_sweep, Tensor):
        on_device = require_tensor("first_sweep", first_sweep, (torch.int64,), device)
        if on_device.numel() != 1:
            raise ValueError(f"first_sweep must be a number or hold one, got shape {tuple(on_device.shape)}")
        first_sweep = 0
    check_counter(seed, first_sweep, steps=sweeps, step_name="first_sweep")
    last_group = (first_chain + chains) * (units // 4 + 1)
    if first_chain < 0 or last_group >= 1 << 63:
        raise ValueError(f"first_chain must not be negative nor lead beyond 2**63 groups of units, got {first_chain}")
    return first_sweep, on_device


def require_clamped(clamped: Tensor | None, chains: int, units: int, device: torch.device) -> Tensor | None:
    """Of shape (chains, units)."""
    if clamped is None:
        return None
    require_tensor("clamped", clamped, (torch.bool,), device)
    each, one = (chains, units), (units,)
    if clamped.shape not in (each, one):
        raise ValueError(f"clamped must have shape {one} or {each}, got {tuple(clamped.shape)}")
    return clamped.expand(each)


def require_beta(beta: float | Tensor, visible: Tensor) -> float | Tensor:
    """A number, or float64 for each chain: the same bits in every kernel."""
    if isinstance(beta, Tensor):
        require_tensor("beta", beta, (torch.float32, torch.float64), visible.device)
        if beta.shape != visible.shape[:1]:
            raise ValueError(f"beta must be a number or have shape ({len(visible)},), got {tuple(beta.shape)}")
        return beta.to(torch.float64).contiguous()
    if not (math.isfinite(beta) and beta >= 0):
        raise ValueError(f"beta must be finite and not negative, got {beta}")
    return beta


def require_biases(weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> None:
    for name, bias, units in (
        ("visible_bias", visible_bias, weights.shape[0]),
        ("hidden_bias", hidden_bias, weights.shape[1]),
    ):
        if bias.shape != (units,):
            raise ValueError(f"{name} must have shape ({units},), got {tuple(bias.shape)}")


def sweep_faults(first_step: Tensor | None, sweeps: int) -> dict[str, Tensor]:
    """What `require_no_fault` is to look for in a ``first_sweep`` on the device."""
    if first_step is None:
        return {}
    last = STEP_LIMIT - sweeps
    return {f"first_sweep must lie in [0, 2**32 - {sweeps}]": ((first_step < 0) | (first_step > last)).any()}


def require_no_fault(faults: Mapping[str, Tensor]) -> None:
    """Raise ValueError with the first message whose value, a bool on the device, is true.

    One transfer for all of them: on a GPU each would wait for the device.
    """
    for message, fault in zip(faults, torch.stack(list(faults.values())).tolist(), strict=True):
        if fault:
            raise ValueError(message)


Shapes = dict[str, tuple[torch.Size, torch.dtype] | None]
"""Of each part of the result, in order: None if it is not wanted."""


def allocate(visible: Tensor, shapes: Shapes) -> GibbsResult:
    return GibbsResult(*(each and visible.new_empty(each[0], dtype=each[1]) for each in shapes.values()))  # type: ignore[arg-type]


def require_results(out: GibbsResult, shapes: Shapes, arguments: dict[str, Tensor]) -> None:
    if (out.hidden_probability is None) != (shapes["hidden_probability"] is None):
        raise ValueError("out.hidden_probability must be a tensor if and only if return_hidden_probability is set")
    taken = dict(arguments)
    for (name, wanted), value in zip(shapes.items(), out, strict=True):
        if wanted is not None:
            value = require_tensor(f"out.{name}", value, wanted[1:], arguments["visible"].device)
            require_output(f"out.{name}", value, wanted[0], taken)
            taken[f"out.{name}"] = value
