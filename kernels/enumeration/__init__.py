"""The partition function by enumeration: one launch sums over all ``2**n`` states and never stores their energies.

`rbm_log_partition` enumerates the smaller layer of a restricted Boltzmann machine and sums the other layer out.
`log_partition` enumerates all units of a Boltzmann machine with any couplings. For an Ising model map spins to units
by `boltzbench.kernels.ising.units_of`.
"""

import torch
from torch import Tensor

from ..common.derivatives import any_true, gradient_by_formula, needs_formula, values_of
from ..common.dispatch import NO_GRAPH, backend_module, choose_backend, require_tensor, running_on
from ..machines.rbm_checks import require_bias, require_values
from ..machines.spins_and_units import require_bonds
from ..numbers import real
from . import reference

__all__ = ["MOST_UNITS", "log_partition", "rbm_log_partition"]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MOST_UNITS = 40
"""Units that are enumerated without ``force``, at most."""
FAST = 1e13
"""Terms per second of a fast GPU, approximately: for the time in the error message."""


def rbm_log_partition(
    weights: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    beta: float | Tensor = 1.0,
    *,
    force: bool = False,
    check_values: bool = True,
    backend: str = "auto",
) -> Tensor:
    """``log Z = log sum_x exp(beta b.x) prod_j (1 + exp(beta (c_j + sum_i x_i W_ij)))`` of a restricted machine.

    ``x`` runs through all states of the smaller layer, which has biases ``b``, and ``j`` through the units of the other
    layer. The energy is ``E(v, h) = -b.v - c.h - v.W.h`` with units 0 and 1, and ``Z = sum exp(-beta E)``.

    Args:
        weights: (visible units, hidden units), float64, float32, float16 or bfloat16; any strides.
        visible_bias, hidden_bias: one value for each unit, ``weights``'s dtype.
        beta: the inverse temperature, finite and not negative: a number, or a float tensor of no dimensions.
        force: enumerate more than 40 units.
        check_values: check that parameters are finite and not too large. On a GPU this waits for the device. Without
            the check the result is NaN for such parameters.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Returns a float64 tensor of no dimensions. ``torch`` and ``native`` compute in float64. ``triton`` and ``cupy``
    multiply factors in float32 and add the products in float64: their error is at most ``(4 m + 64) 2**-24`` for ``m``
    units in the larger layer.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a number is out of range, the smaller layer has more than 40 units without
            ``force``, ``backend`` is unknown or cannot run here, or parameters are too large for ``triton`` and
            ``cupy``. They are too large if, for half of the smaller layer's units, the magnitudes of the weights to one
            unit, or of the biases, add up to more than 80 / beta.

    The gradients are ``beta <v_i h_j>``, ``beta <v_i>`` and ``beta <h_j>``, means under ``p(v, h)``.
    Derivatives with respect to ``weights``, biases and a tensor ``beta`` are the same on every backend:

    | | |
    |---|---|
    | reverse mode (``backward``, ``autograd.grad``) | yes, by a second enumeration, in torch and float64 |
    | twice and more (``create_graph=True``) | yes, by the formula in torch, which stores all states |
    | forward mode (``jvp``, ``jacfwd``, ``forward_ad``) | yes, by the formula in torch |
    | ``torch.func`` (``grad``, ``vmap``, ``jacrev``, ``hessian``) | yes, likewise |
    | ``torch.compile`` | yes, in one graph with ``check_values=False``; not twice, which torch refuses |
    """
    require_tensor("weights", weights, DTYPES, None)
    if weights.ndim != 2:
        raise ValueError(f"weights must have shape (visible units, hidden units), got {tuple(weights.shape)}")
    require_bias("visible_bias", visible_bias, weights.shape[0], weights)
    require_bias("hidden_bias", hidden_bias, weights.shape[1], weights)
    beta = _require_beta(beta, weights.device, check_values)
    _require_few(min(weights.shape), max(weights.shape), force)
    w, b, c = (beta * part.double() for part in (weights, visible_bias, hidden_bias))
    if w.shape[0] > w.shape[1]:
        w, b, c = w.t(), c, b
    if check_values:
        require_values({}, {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias})
    return _log_sum(w, b, c, beta, backend, check_values)


def log_partition(
    weights: Tensor,
    biases: Tensor,
    beta: float | Tensor = 1.0,
    *,
    force: bool = False,
    check_values: bool = True,
    backend: str = "auto",
) -> Tensor:
    """``log Z = log sum_x exp(beta (1/2 x.W.x + b.x))`` over all states of ``n`` units 0 and 1 with any couplings.

    For a restricted machine `rbm_log_partition` takes fewer operations. For spins subtract ``beta * constant``, with
    the constant of `boltzbench.kernels.ising.units_of`.

    Args:
        weights: (n, n), symmetric, 0 on the diagonal; float64, float32, float16 or bfloat16, any strides.
        biases: (n,), ``weights``'s dtype.
        beta, force, backend: as for `rbm_log_partition`.
        check_values: check that ``weights`` is symmetric and parameters are finite and not too large. On a GPU this
            waits for the device.

    Returns a float64 tensor of no dimensions, computed in float64 throughout.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: as for `rbm_log_partition`, or ``weights`` is not symmetric with 0 on the diagonal. Parameters are
            too large for ``triton`` and ``cupy`` if the energies of the first 16 units, in the field of the others,
            can spread over more than 600 / beta.

    The gradients are ``beta <x_i x_j> / 2`` and ``beta <x_i>``: each of ``W_ij`` and ``W_ji`` counts on its own.
    Derivatives with respect to ``weights``, biases and a tensor ``beta`` are the same on every backend:

    | | |
    |---|---|
    | reverse mode (``backward``, ``autograd.grad``) | yes, by a second enumeration, in torch and float64 |
    | twice and more (``create_graph=True``) | yes, by the formula in torch, which stores all states |
    | forward mode (``jvp``, ``jacfwd``, ``forward_ad``) | yes, by the formula in torch |
    | ``torch.func`` (``grad``, ``vmap``, ``jacrev``, ``hessian``) | yes, likewise |
    | ``torch.compile`` | yes, in one graph with ``check_values=False``; not twice, which torch refuses |
    """
    require_tensor("weights", weights, DTYPES, None)
    require_tensor("biases", biases, (weights.dtype,), weights.device)
    require_bonds("weights", weights, "biases", biases, check_values=check_values)
    beta = _require_beta(beta, weights.device, check_values)
    _require_few(len(weights), 1, force)
    w, b = beta * weights.double(), beta * biases.double()
    if check_values:
        require_values({}, {"weights": weights, "biases": biases})
    return _log_sum(w, b, None, beta, backend, check_values)


def _require_beta(beta: float | Tensor, device: torch.device, check_values: bool) -> float | Tensor:
    """A float, or the tensor, with respect to which there is a gradient."""
    if not isinstance(beta, Tensor) or not beta.is_floating_point():
        return _require_number(beta)
    require_tensor("beta", beta, DTYPES, device)
    if beta.dim():
        raise ValueError(f"beta must be a number or a tensor of no dimensions, got shape {tuple(beta.shape)}")
    if check_values:
        values = values_of(beta)
        wrong = values[~(torch.isfinite(values) & (values >= 0))]
        if len(wrong):
            raise ValueError(f"beta must be finite and not negative, got {float(wrong[0])}")
    return beta


def _require_number(beta: object) -> float:
    return real("beta", beta, least=0)


def _require_few(units: int, factors: int, force: bool) -> None:
    if units > MOST_UNITS and not force:
        terms = 2.0**units * max(factors, 1)
        raise ValueError(
            f"weights: enumerating {units} units takes 2**{units} states, {terms:.2g} terms, {terms / FAST:.2g} s at "
            f"{FAST:.0e} terms a second; pass force=True, or estimate log Z by sampling (boltzbench.kernels.ais)"
        )


def _require_in_range(found: Tensor) -> None:
    if any_true(found.isnan()):
        raise ValueError(
            "weights and biases, times beta, are too large for the exponents of this backend: use backend='torch'"
        )


def _log_sum(w: Tensor, b: Tensor, c: Tensor | None, beta: float | Tensor, backend: str, check_values: bool) -> Tensor:
    if not torch.compiler.is_compiling():  # under the compiler, the operator chooses when it runs
        backend = choose_backend(backend, w.device, __name__)
    if needs_formula(w, b, *([] if c is None else [c])):
        return _formula(w, b, c)
    found: Tensor = _forward_op(w, b, c, 1.0 if isinstance(beta, Tensor) else beta, backend)
    if check_values:
        _require_in_range(found)
    return found


def _formula(w: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
    return reference.machine_sum(w, b) if c is None else reference.product_sum(w, b, c)


# The operators that torch.compile and autograd see. Without ``c`` they enumerate a machine with any couplings. ``w``,
# ``b`` and ``c`` include ``beta``: the operator only checks that number, which torch.compile has left to it.


@torch.library.custom_op("boltzbench::enumeration", mutates_args=(), tags=NO_GRAPH)
def _forward_op(w: Tensor, b: Tensor, c: Tensor | None, beta: float, backend: str) -> Tensor:
    _require_number(beta)
    kernels = backend_module(choose_backend(backend, w.device, __name__), __name__)
    with running_on(w.device):
        found: Tensor = (
            kernels.machine_sum(w.contiguous(), b.contiguous())
            if c is None
            else kernels.product_sum(w.contiguous(), b, c)
        )
    return found


@_forward_op.register_fake
def _(w, b, c, beta, backend):  # type: ignore[no-untyped-def]
    return w.new_empty(())


@torch.library.custom_op("boltzbench::enumeration_backward", mutates_args=())
def _backward_op(w: Tensor, b: Tensor, c: Tensor | None, log_z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return reference.gradient(w, b, c, log_z)


@_backward_op.register_fake
def _(w, b, c, log_z):  # type: ignore[no-untyped-def]
    return w.new_empty(w.shape), w.new_empty(b.shape), w.new_empty(0 if c is None else c.shape)


def _save_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # torch's own context object
    ctx.save_for_backward(*inputs[:3], output)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]  # torch's own context object
    *inputs, log_z = ctx.saved_tensors
    if torch.is_grad_enabled():  # the gradient is to be differentiated
        return *gradient_by_formula(_formula, grad, inputs), None, None
    of_w, of_b, of_c = (grad * part for part in _backward_op(*inputs, log_z))
    return of_w, of_b, None if inputs[2] is None else of_c, None, None


_forward_op.register_autograd(_backward, setup_context=_save_for_backward)
