"""Checks of arguments that functions of restricted Boltzmann machines share.

Wrong types and dtypes raise TypeError, wrong shapes and values ValueError. The message names the argument.
"""

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..numbers import can_check
from . import chain_checks

WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def require_states(name: str, states: Tensor, device: torch.device | None) -> Tensor:
    """Require uint8 of shape (chains, units)."""
    require_tensor(name, states, (torch.uint8,), device)
    if states.dim() != 2:
        raise ValueError(f"{name} must have shape (chains, units), got {tuple(states.shape)}")
    return states


def require_weights(weights: Tensor, units: int, device: torch.device) -> Tensor:
    """Require one of `WEIGHT_DTYPES` and shape (``units``, hidden units)."""
    require_tensor("weights", weights, WEIGHT_DTYPES, device)
    if weights.dim() != 2 or weights.shape[0] != units:
        raise ValueError(
            f"weights must have shape ({units}, hidden units) for {units} visible units, got {tuple(weights.shape)}"
        )
    return weights


def require_bias(name: str, bias: Tensor, units: int, weights: Tensor) -> Tensor:
    """Require shape (``units``,) and the dtype and device of ``weights``."""
    require_tensor(name, bias, (weights.dtype,), weights.device)
    if bias.shape != (units,):
        raise ValueError(f"{name} must have shape ({units},), got {tuple(bias.shape)}")
    return bias


def require_beta(beta: float | Tensor, states: Tensor) -> float | Tensor:
    """Require a positive number or a float tensor (chains,); returns a float or contiguous float64."""
    return chain_checks.require_beta(beta, len(states), states.device, positive=True)


def require_values(states: dict[str, Tensor], parameters: dict[str, Tensor], beta: float | Tensor = 1.0) -> None:
    """Require 0 and 1 in ``states``, finite ``parameters``, and finite positive numbers in a tensor ``beta``."""
    faults = {f"{name} must hold only 0 and 1": (value > 1).any() for name, value in states.items()}
    faults |= {f"{name} must be finite": ~torch.isfinite(value).all() for name, value in parameters.items()}
    chain_checks.require_no_fault(faults | chain_checks.beta_faults(beta, positive=True))


def require_images(name: str, images: Tensor, weights: Tensor | None = None) -> Tensor:
    """Require uint8 of shape (images, visible units), at least one, for the machine with ``weights`` if that is given.

    On a CPU the values must be 0 and 1.
    """
    require_states(name, images, None if weights is None else weights.device)
    if not len(images):
        raise ValueError(f"{name} must hold at least one image, got shape {tuple(images.shape)}")
    if weights is not None and images.shape[1] != len(weights):
        raise ValueError(f"{name} must have shape (images, {len(weights)}), got {tuple(images.shape)}")
    if can_check(images) and bool((images > 1).any()):
        raise ValueError(f"{name} must hold only 0 and 1, got {int(images.max())}")
    return images
