"""The free energy of a restricted Boltzmann machine: the energy of visible states with hidden units summed out.

`free_energy_reference` is the same formula in torch, without checks, in the dtype of the parameters.
"""

import torch
from torch import Tensor

from ..common.dispatch import backend_module, choose_backend, note_written, require_output, require_tensor, running_on
from ..machines.rbm_checks import require_beta, require_bias, require_states, require_values, require_weights
from . import reference
from .reference import free_energy as free_energy_reference

__all__ = ["free_energy", "free_energy_reference", "reference"]


def free_energy(
    visible: Tensor,
    weights: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    beta: float | Tensor = 1.0,
    *,
    out: Tensor | None = None,
    check_values: bool = True,
    backend: str = "auto",
) -> Tensor:
    """``F(v) = -b.v - (1/beta) sum_j log(1 + exp(beta (c_j + sum_i v_i W_ij)))`` of each chain; float32, (chains,).

    With ``E(v, h) = -b.v - c.h - v.W.h`` and ``p(v, h)`` proportional to ``exp(-beta E)``, the marginal ``p(v)`` is
    proportional to ``exp(-beta F(v))``. For the free energy of hidden states exchange the layers:
    ``free_energy(hidden, weights.t(), hidden_bias, visible_bias)``.

    Args:
        visible: uint8 states 0 or 1, shape (chains, visible units), any strides; copied if not contiguous.
        weights: shape (visible units, hidden units), float32, float16 or bfloat16; any strides.
        visible_bias, hidden_bias: one value for each unit, ``weights``'s dtype.
        beta: the inverse temperature, finite and positive: a number, or a float32 or float64 tensor (chains,).
        out: contiguous float32 tensor (chains,) for the result; it must not share memory with the arguments.
        check_values: check that states are 0 or 1 and parameters are finite. On a GPU this waits for the device.
        backend: ``auto``, ``torch``, ``triton`` or ``cupy``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a state is not 0 or 1, a parameter is NaN or infinite, beta is not positive,
            or ``backend`` is unknown or cannot run here.

    Sums are float32, in an order that depends on shapes only: the same arguments give the same bits.

    Source: Hinton, "A practical guide to training restricted Boltzmann machines", UTML TR 2010-003, section 16.
    """
    require_states("visible", visible, None)
    require_weights(weights, visible.shape[1], visible.device)
    require_bias("visible_bias", visible_bias, weights.shape[0], weights)
    require_bias("hidden_bias", hidden_bias, weights.shape[1], weights)
    betas = require_beta(beta, visible)
    parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
    if check_values:
        require_values({"visible": visible}, parameters, {"beta": betas})
    chosen = choose_backend(backend, visible.device)
    if out is None:
        out = visible.new_empty(len(visible), dtype=torch.float32)
    require_tensor("out", out, (torch.float32,), visible.device)
    given = {"beta": beta} if isinstance(beta, Tensor) else {}
    require_output("out", out, visible.shape[:1], {"visible": visible, **parameters, **given})
    if len(visible):
        with running_on(visible.device):
            backend_module(chosen, __name__).forward(
                visible.contiguous(), weights, visible_bias.contiguous(), hidden_bias.contiguous(), betas, out
            )
    note_written(out)
    return out
