"""Block Gibbs with real-valued (Gaussian) visible units and binary hidden ones.

Energy ``E(v, h) = sum_i (v_i - b_i)^2 / (2 sigma_i^2) - c.h - sum_ij (v_i / sigma_i) W_ij h_j``, ``p(v, h)``
proportional to ``exp(-beta E)``. One sweep draws ``h_j ~ Bernoulli(sigmoid(beta (c_j + sum_i v_i W_ij / sigma_i)))``
for all hidden units, then ``v_i ~ Normal(b_i + sigma_i sum_j W_ij h_j, sigma_i^2 / beta)`` for all visible ones.

Source: Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313 (2006),
supporting material. Cho, Ilin and Raiko, "Improved learning of Gaussian-Bernoulli restricted Boltzmann machines", ICANN
2011, divide by ``sigma_i^2`` in the last term, so their weights are ``sigma_i W_ij``.
"""

from functools import partial

import torch
from torch import Tensor

from ..common.derivatives import not_differentiable
from ..common.dispatch import backend_module, choose_backend, require_tensor, running_on
from ..machines.chain_checks import beta_faults, require_beta, require_clamped, require_no_fault
from ..philox import Stream
from .checks import GibbsResult, finite_faults, require_biases, require_place, require_result, sweep_faults
from .half_sweeps import note_results, run_half_sweeps
from .request import LaunchRequest


@not_differentiable("beta")
def gaussian_gibbs(
    visible: Tensor,
    weights: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    sigma: Tensor,
    sweeps: int = 1,
    beta: float | Tensor = 1.0,
    *,
    seed: int,
    first_sweep: int | Tensor = 0,
    first_chain: int = 0,
    clamped: Tensor | None = None,
    return_hidden_probability: bool = False,
    out: GibbsResult | None = None,
    check_values: bool = True,
    backend: str = "auto",
) -> GibbsResult:
    """Advance every chain by ``sweeps`` sweeps and return the new states: float32 ``visible``, uint8 ``hidden``.

    Args:
        visible: float32, finite, shape (chains, visible units); not modified.
        weights: float32, shape (visible units, hidden units); any strides.
        visible_bias, sigma: float32, one value for each visible unit; ``sigma`` positive.
        hidden_bias: float32, one value for each hidden unit.
        beta: the inverse temperature, finite and positive: a number, or float32 or float64 of shape (chains,).
        sweeps, seed, first_sweep, first_chain, clamped, return_hidden_probability, out, check_values, backend: as in
            `gibbs`. The only plan is a launch for each half sweep.

    Raises:
        TypeError: an argument is not a dense tensor of float32 (``clamped``: bool).
        ValueError: shapes do not match, a number is NaN, infinite or out of range, or ``backend`` cannot run here.

    Hidden units draw as in `gibbs`. Visible unit ``i`` of chain ``n`` in sweep ``t`` draws normal number
    ``i % 4`` of group ``(first_chain + n) * ceil(units / 4) + i // 4`` at step ``first_sweep + t`` of the same stream.

    The result has no derivative, as that of `gibbs`.
    """
    require_tensor("visible", visible, (torch.float32,), None)
    parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias, "sigma": sigma}
    for name, value in parameters.items():
        require_tensor(name, value, (torch.float32,), visible.device)
    if weights.dim() != 2:
        raise ValueError(f"weights must have shape (visible units, hidden units), got {tuple(weights.shape)}")
    if visible.dim() != 2 or visible.shape[1] != len(weights):
        raise ValueError(f"visible must have shape (chains, {len(weights)}), got {tuple(visible.shape)}")
    require_biases(weights, visible_bias, hidden_bias)
    if sigma.shape != visible_bias.shape:
        raise ValueError(f"sigma must have shape ({len(weights)},), got {tuple(sigma.shape)}")
    (visible_units, hidden_units), chains, device = weights.shape, len(visible), visible.device
    seed, first_step, sweeps, first_chain, counted_from = require_place(
        seed, first_sweep, sweeps, first_chain, chains, max(weights.shape), device
    )
    beta = require_beta(beta, chains, device, positive=True)
    clamped = require_clamped(clamped, torch.Size((chains, visible_units)), device)
    if check_values:
        faults = sweep_faults(counted_from, sweeps) | finite_faults({"visible": visible, **parameters})
        faults["sigma must be positive"] = (sigma <= 0).any()
        require_no_fault(faults | beta_faults(beta, positive=True))
    kernels = backend_module(choose_backend(backend, device, __package__ or ""), __package__ or "")
    result = require_result(
        out, {"visible": visible, **parameters, "clamped": clamped, "beta": beta}, (hidden_units, torch.uint8),
        hidden_units if return_hidden_probability else None,
    )  # fmt: skip

    common = partial(
        LaunchRequest, beta=beta, seed=seed, first_step=counted_from, first_chain=first_chain, sigma=sigma.contiguous()
    )
    to_hidden = partial(common, weights=weights, bias=hidden_bias.contiguous(), stream=Stream.HIDDEN)
    to_visible = partial(
        common, weights=weights.t(), bias=visible_bias.contiguous(), stream=Stream.VISIBLE, clamped=clamped
    )
    with running_on(device):
        steps = range(first_step, first_step + sweeps)
        run_half_sweeps(
            kernels.half_sweep, to_hidden, to_visible, visible.contiguous(), result.hidden, result.visible, steps
        )
        if result.hidden_probability is not None:
            kernels.half_sweep(to_hidden(given=result.visible, out=result.hidden_probability, step=0))
    note_results(result)
    return result
