"""The checks that `gibbs` and `gaussian_gibbs` share, and their result."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.dispatch import require_output, require_results, require_tensor
from ..machines.chain_checks import require_chains
from ..numbers import integer
from ..philox import STEP_LIMIT, check_counter


class GibbsResult(NamedTuple):
    """States after the last sweep, with all tensors on the device of the states given.

    - ``visible``: uint8 0/1, (chains, visible units); float32 from `gaussian_gibbs`.
    - ``hidden``: uint8 0/1, (chains, hidden units), from which the last visible states were drawn.
    - ``hidden_probability``: float32 ``P(h = 1 | visible)`` for the returned visible states, (chains, hidden units),
      or None unless requested.

    Where the states given are packed, ``visible`` and ``hidden`` are packed too.
    """

    visible: Tensor
    hidden: Tensor
    hidden_probability: Tensor | None


def require_place(
    seed: int, first_sweep: int | Tensor, sweeps: int, first_chain: int, chains: int, units: int, device: torch.device
) -> tuple[int, int, int, int, Tensor | None]:
    """Seed, first sweep, sweeps, first chain, and the tensor on the device to which the kernels add the first sweep.

    ``units`` is the size of the larger layer.
    """
    sweeps = integer("sweeps", sweeps, 1, STEP_LIMIT)
    on_device = None
    if isinstance(first_sweep, Tensor):
        on_device = require_tensor("first_sweep", first_sweep, (torch.int64,), device)
        if on_device.numel() != 1:
            raise ValueError(f"first_sweep must be a number or hold one, got shape {tuple(on_device.shape)}")
        first_sweep = 0
    seed, first_sweep, _ = check_counter(seed, first_sweep, steps=sweeps, step_name="first_sweep")
    return seed, first_sweep, sweeps, require_chains(first_chain, chains, units), on_device


def require_biases(weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> None:
    for name, bias, units in (
        ("visible_bias", visible_bias, weights.shape[0]),
        ("hidden_bias", hidden_bias, weights.shape[1]),
    ):
        if bias.shape != (units,):
            raise ValueError(f"{name} must have shape ({units},), got {tuple(bias.shape)}")


def sweep_faults(first_step: Tensor | None, sweeps: int) -> dict[str, Tensor]:
    """For `require_no_fault`: the range of a ``first_sweep`` on the device."""
    if first_step is None:
        return {}
    last = STEP_LIMIT - sweeps
    return {f"first_sweep must lie in [0, 2**32 - {sweeps}]": ((first_step < 0) | (first_step > last)).any()}


def finite_faults(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For `require_no_fault`: numbers that are NaN or infinite."""
    return {f"{name} must be finite": ~torch.isfinite(value).all() for name, value in parameters.items()}


def require_result(
    out: GibbsResult | None,
    arguments: Mapping[str, object],
    hidden: tuple[int, torch.dtype],
    probabilities: int | None,
) -> GibbsResult:
    """``out``, or new tensors. The tensors among ``arguments`` share no memory with the result.

    ``hidden``: the columns and dtype of the hidden states. ``probabilities``: how many hidden units have theirs
    returned, or None.
    """
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    visible = tensors["visible"]
    chains, device = len(visible), visible.device
    wanted = {"visible": (visible.shape, visible.dtype), "hidden": (torch.Size((chains, hidden[0])), hidden[1])}
    if probabilities is not None:
        wanted["hidden_probability"] = (torch.Size((chains, probabilities)), torch.float32)
    if out is None:
        made = [visible.new_empty(shape, dtype=dtype) for shape, dtype in wanted.values()]
        return GibbsResult(made[0], made[1], made[2] if probabilities is not None else None)
    require_results(out, GibbsResult._fields)
    out = GibbsResult(*out)
    if (out.hidden_probability is None) != (probabilities is None):
        raise ValueError("out.hidden_probability must be a tensor if and only if return_hidden_probability is set")
    for name, (shape, dtype) in wanted.items():
        value = require_tensor(f"out.{name}", getattr(out, name), (dtype,), device)
        require_output(f"out.{name}", value, shape, tensors)
        tensors[f"out.{name}"] = value
    return out
