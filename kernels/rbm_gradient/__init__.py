"""The gradient of a restricted Boltzmann machine's log-likelihood: the positive minus the negative phase."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.derivatives import not_differentiable
from ..common.dispatch import (
    backend_module,
    choose_backend,
    note_written,
    require_output,
    require_results,
    require_tensor,
    running_on,
)
from ..machines.chain_checks import require_common_beta
from ..machines.rbm_checks import require_bias, require_states, require_values, require_weights
from .launches import Phase
from .reference import hidden_probabilities, statistics

__all__ = ["Gradient", "hidden_probabilities", "log_likelihood_gradient", "statistics"]


class Gradient(NamedTuple):
    """float32: ``weights`` (visible units, hidden units), ``visible_bias`` and ``hidden_bias``."""

    weights: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor


@not_differentiable("beta")
def log_likelihood_gradient(
    data: Tensor,
    model: Tensor,
    weights: Tensor | None = None,
    hidden_bias: Tensor | None = None,
    beta: float = 1.0,
    *,
    data_hidden: Tensor | None = None,
    model_hidden: Tensor | None = None,
    out: Gradient | None = None,
    check_values: bool = True,
    backend: str = "auto",
) -> Gradient:
    """``dW_ij = <v_i h_j>_data - <v_i h_j>_model``, ``db_i`` and ``dc_j`` likewise: means over chains.

    With ``E(v, h) = -b.v - c.h - v.W.h`` and ``p`` proportional to ``exp(-beta E)``, it estimates the gradient of the
    mean log-likelihood of the data, divided by beta, if the model's states are draws from ``p``. If they are a few
    sweeps away from the data, it is the update of contrastive divergence.

    Args:
        data, model: uint8 states 0 or 1 of the visible units, (chains, visible units), any strides, at least one chain
            each; the numbers of chains may differ.
        data_hidden, model_hidden: the hidden units of the same chains, (chains, hidden units): uint8 states or float32
            probabilities. By default ``P(h_j = 1 | v) = sigmoid(beta (c_j + sum_i v_i W_ij))`` is computed.
        weights: (visible units, hidden units), float32, float16 or bfloat16; any strides. Required, with
            ``hidden_bias``, unless both ``data_hidden`` and ``model_hidden`` are given.
        hidden_bias: (hidden units,), ``weights``'s dtype.
        beta: the inverse temperature, positive and at most the largest float32 number.
        out: contiguous float32 tensors for the result; they must not share memory with each other or the arguments.
        check_values: check that states are 0 or 1, probabilities lie in [0, 1] and parameters are finite. On a GPU
            this waits for the device.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, there is no chain, a value is out of range, weights are missing, or
            ``backend`` is unknown or cannot run here (``triton``: layers of 2**26 units).

    Sums are float32, in an order that depends on shapes only: the same arguments give the same bits, and equal phases
    give a gradient of exactly 0.

    The result has no derivative, on any backend: it is detached, and the transforms of ``torch.func`` raise
    NotImplementedError.

    Source: Hinton, "Training products of experts by minimizing contrastive divergence", Neural Computation 14 (2002).
    """
    require_states("data", data, None)
    require_states("model", model, data.device)
    if data.shape[1] != model.shape[1]:
        raise ValueError(f"model must have {data.shape[1]} visible units, as data has, got {model.shape[1]}")
    for name, visible in (("data", data), ("model", model)):
        if not len(visible):
            raise ValueError(f"{name} must hold at least one chain, got shape {tuple(visible.shape)}")
    beta = require_common_beta(beta, positive=True)
    given = {"data_hidden": data_hidden, "model_hidden": model_hidden}
    missing = [name for name, hidden in given.items() if hidden is None]
    if (weights is None or hidden_bias is None) and missing:
        raise ValueError(f"weights and hidden_bias are needed to compute {missing[0]}: pass them, or {missing[0]}")
    parameters: dict[str, Tensor] = {}
    if weights is not None:
        parameters["weights"] = require_weights(weights, data.shape[1], data.device)
        hidden_units = weights.shape[1]
        if hidden_bias is not None:
            parameters["hidden_bias"] = require_bias("hidden_bias", hidden_bias, hidden_units, weights)
    else:
        assert data_hidden is not None
        hidden_units = data_hidden.shape[-1]
    states, probabilities = {"data": data, "model": model}, dict[str, Tensor]()
    for (name, hidden), visible in zip(given.items(), (data, model), strict=True):
        if hidden is None:
            continue
        require_tensor(name, hidden, (torch.uint8, torch.float32), data.device)
        if hidden.shape != (len(visible), hidden_units):
            raise ValueError(f"{name} must have shape {(len(visible), hidden_units)}, got {tuple(hidden.shape)}")
        (states if hidden.dtype is torch.uint8 else probabilities)[name] = hidden
    if check_values:
        require_values(states, parameters)
        for name, hidden in probabilities.items():
            if hidden.numel() and not bool(((hidden >= 0) & (hidden <= 1)).all()):
                raise ValueError(f"{name} must lie in [0, 1]")
    chosen = choose_backend(backend, data.device, __name__)
    shapes = (torch.Size((data.shape[1], hidden_units)), data.shape[1:], torch.Size((hidden_units,)))
    if out is None:
        out = Gradient(*(data.new_empty(shape, dtype=torch.float32) for shape in shapes))
    require_results(out, Gradient._fields)
    taken = {**states, **probabilities, **parameters}
    for name, value, shape in zip(Gradient._fields, out, shapes, strict=True):
        require_tensor(f"out.{name}", value, (torch.float32,), data.device)
        require_output(f"out.{name}", value, shape, taken)
        taken[f"out.{name}"] = value
    phases = [
        Phase(
            visible.contiguous(),
            visible.new_empty((len(visible), hidden_units), dtype=torch.float32)
            if hidden is None
            else hidden.contiguous(),
            hidden is None,
        )
        for visible, hidden in ((data, data_hidden), (model, model_hidden))
    ]
    kernels = backend_module(chosen, __name__)
    to_infer = [phase for phase in phases if phase.to_infer]
    with running_on(data.device):
        if to_infer and hidden_units and weights is not None and hidden_bias is not None:
            kernels.infer(to_infer, weights, hidden_bias.contiguous(), beta)
        kernels.gradient(*phases, out)
    for value in out:
        note_written(value)
    return out
