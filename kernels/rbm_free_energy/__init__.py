"""The free energy of a restricted Boltzmann machine: the energy of visible states with hidden units summed out.

`free_energy_reference` is the same formula in torch, without checks, in the dtype of the parameters.
"""

import torch
from torch import Tensor

from ..common.derivatives import (
    gradient_by_formula,
    is_gradient_differentiated,
    needs_formula,
    require_no_derivative_of_out,
)
from ..common.dispatch import (
    NO_GRAPH,
    backend_module,
    choose_backend,
    note_written,
    require_output,
    require_tensor,
    running_on,
)
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
        beta: the inverse temperature, positive and at most the largest float32 number: a number, or a float32 or
            float64 tensor (chains,), with respect to which there is a gradient.
        out: contiguous float32 tensor (chains,) for the result, without autograd; it must not share memory with the
            arguments.
        check_values: check that states are 0 or 1 and parameters are finite. On a GPU this waits for the device.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a state is not 0 or 1, a parameter is NaN or infinite, beta is not positive,
            or ``backend`` is unknown or cannot run here.

    Sums are float32, in an order that depends on shapes only: the same arguments give the same bits.

    With the logistic function ``s`` and ``z_j = beta (c_j + sum_i v_i W_ij)``, the gradients of ``F`` are
    ``dF/dW_ij = -v_i s(z_j)``, ``dF/db_i = -v_i`` and ``dF/dc_j = -s(z_j)``. Derivatives with respect to ``weights``,
    the biases and a ``beta`` of shape (chains,) are the same on every backend:

    | | |
    |---|---|
    | reverse mode (``backward``, ``autograd.grad``) | yes, by products in torch |
    | twice and more (``create_graph=True``) | yes, by the formula in torch |
    | forward mode (``jvp``, ``jacfwd``, ``forward_ad``) | yes, by the formula in torch |
    | ``torch.func`` (``grad``, ``vmap``, ``jacrev``, ``hessian``) | yes, by the formula in torch |
    | ``torch.compile`` | yes, in one graph with ``check_values=False``; not twice, which torch refuses |

    Source: Hinton, "A practical guide to training restricted Boltzmann machines", UTML TR 2010-003, section 16.
    """
    require_states("visible", visible, None)
    require_weights(weights, visible.shape[1], visible.device)
    require_bias("visible_bias", visible_bias, weights.shape[0], weights)
    require_bias("hidden_bias", hidden_bias, weights.shape[1], weights)
    betas = require_beta(beta, visible)
    parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
    if check_values:
        require_values({"visible": visible}, parameters, betas)
    if not torch.compiler.is_compiling():  # under the compiler, the operator chooses when it runs
        backend = choose_backend(backend, visible.device, __name__)
    tensors = {**parameters, **({"beta": betas} if isinstance(betas, Tensor) else {})}
    if out is None:
        if needs_formula(*tensors.values()):
            return reference.wide_free_energy(visible, weights, visible_bias, hidden_bias, betas)
        number, several = (1.0, betas) if isinstance(betas, Tensor) else (betas, None)
        result: Tensor = _forward_op(visible, weights, visible_bias, hidden_bias, several, number, backend)
        return result
    require_no_derivative_of_out(**tensors, out=out)
    require_tensor("out", out, (torch.float32,), visible.device)
    given = {"beta": beta} if isinstance(beta, Tensor) else {}
    require_output("out", out, visible.shape[:1], {"visible": visible, **parameters, **given})
    _forward(visible, weights, visible_bias, hidden_bias, betas, backend, out)
    note_written(out)
    return out


def _forward(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor, backend: str,
    out: Tensor,
) -> None:  # fmt: skip
    if len(visible):
        with running_on(visible.device):
            backend_module(choose_backend(backend, visible.device, __name__), __name__).forward(
                visible.contiguous(), weights, visible_bias.contiguous(), hidden_bias.contiguous(), beta, out
            )


# The operators that torch.compile and autograd see. ``betas`` replaces ``beta`` if there is one for each chain.


@torch.library.custom_op("boltzbench::rbm_free_energy", mutates_args=(), tags=NO_GRAPH)
def _forward_op(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, betas: Tensor | None, beta: float,
    backend: str,
) -> Tensor:  # fmt: skip
    out = visible.new_empty(len(visible), dtype=torch.float32)
    require_beta(beta, visible)  # torch.compile has left it to the operator
    _forward(visible, weights, visible_bias, hidden_bias, beta if betas is None else betas, backend, out)
    return out


@_forward_op.register_fake
def _(visible, weights, visible_bias, hidden_bias, betas, beta, backend):  # type: ignore[no-untyped-def]
    return visible.new_empty(len(visible), dtype=torch.float32)


@torch.library.custom_op("boltzbench::rbm_free_energy_backward", mutates_args=())
def _backward_op(
    grad: Tensor, visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, betas: Tensor | None,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_parameters = reference.gradient(grad, visible, weights, hidden_bias, beta if betas is None else betas)
    weights_grad, visible_grad, hidden_grad = (part.to(weights.dtype) for part in of_parameters[:3])
    return weights_grad, visible_grad, hidden_grad, of_parameters[3].to(torch.float64)


@_backward_op.register_fake
def _(grad, visible, weights, visible_bias, hidden_bias, betas, beta):  # type: ignore[no-untyped-def]
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in (weights, visible_bias)]
    return *parts, torch.empty_like(hidden_bias), grad.new_empty(len(visible), dtype=torch.float64)


def _save_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # torch's own context object
    *tensors, ctx.beta, _ = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]  # torch's own context object
    visible, *inputs = ctx.saved_tensors
    if is_gradient_differentiated(grad):

        def formula(weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, betas: Tensor | None) -> Tensor:
            return reference.wide_free_energy(
                visible, weights, visible_bias, hidden_bias, ctx.beta if betas is None else betas
            )

        return None, *gradient_by_formula(formula, grad, inputs), None, None
    *of_parameters, of_betas = _backward_op(grad, visible, *inputs, ctx.beta)
    return None, *of_parameters, None if inputs[-1] is None else of_betas, None, None


_forward_op.register_autograd(_backward, setup_context=_save_for_backward)
