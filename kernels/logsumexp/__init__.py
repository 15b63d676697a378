"""Log-sum-exp: the logarithm of a partition function, ``log Z = log sum_i exp(beta x_i)`` with ``x = -energy``.

`logsumexp` works with autograd and ``torch.compile``. `logsumexp_backward` computes its gradient directly.
"""

import torch
from torch import Tensor

from ..common.derivatives import (
    gradient_by_formula,
    is_gradient_differentiated,
    needs_formula,
    not_differentiable,
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
from ..rows import formulas
from ..rows.checks import DTYPES, accumulation_dtype, normal_dim, reduced_shape, require_finite_beta
from . import reference

__all__ = ["accumulation_dtype", "logsumexp", "logsumexp_backward", "reference"]


def logsumexp(
    x: Tensor,
    dim: int = -1,
    beta: float = 1.0,
    *,
    keepdim: bool = False,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """``y = log sum_i exp(beta * x_i)`` over one dimension, without overflow.

    Args:
        x: any strided tensor of float64, float32, float16 or bfloat16. 16-bit inputs accumulate in float32.
        dim: the dimension to reduce; negative counts from the end.
        beta: the inverse temperature, applied inside the kernel; its magnitude is at most half the largest number of
            the precision of accumulation, 1.7e38 in float32.
        keepdim: keep the reduced dimension with size 1.
        out: write to this contiguous tensor of the result's shape and of ``x``'s dtype and device, without autograd. It
            must not share memory with ``x``.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Returns:
        A contiguous tensor of ``x``'s dtype. An empty sum is -inf, and so is a row where every ``beta x_i`` is -inf. A
        row where a ``beta x_i`` is +inf gives +inf. A row with NaN gives NaN, as does a row with an infinite element
        where ``beta`` is 0, or rounds to 0 in the precision of accumulation. Elements further from the one of largest
        weight than the largest number of that precision have weight 0, and give NaN where ``beta`` is 0.

    Raises:
        TypeError: ``x`` or ``out`` is not a dense tensor of a supported dtype.
        IndexError: ``dim`` is out of range.
        ValueError: ``beta`` is NaN or too large, ``out`` does not fit, or ``backend`` is unknown or cannot run here.

    The gradient is ``dy/dx_i = beta exp(beta x_i - y)``, zero where every ``beta x_i`` is -inf. It is computed from the
    distances to the largest ``beta x_i``, so that its error does not grow with the level of a row.

    Derivatives, the same on every backend:

    | | |
    |---|---|
    | reverse mode (``backward``, ``autograd.grad``) | yes, on the backend |
    | twice and more (``create_graph=True``) | yes, by the formula in torch |
    | forward mode (``jvp``, ``jacfwd``, ``forward_ad``) | yes, by the formula in torch |
    | ``torch.func`` (``grad``, ``vmap``, ``jacrev``, ``hessian``) | yes, by the formula in torch |
    | ``torch.compile`` | yes; not twice, which torch refuses |
    """
    require_tensor("x", x, DTYPES, None)
    dim = normal_dim(dim, x.dim())
    beta = require_finite_beta(beta, x.dtype)
    if not torch.compiler.is_compiling():  # under the compiler, the operator chooses when it runs
        backend = choose_backend(backend, x.device, __name__)
    if out is None:
        if needs_formula(x):
            result = formulas.logsumexp(x, dim, beta)
            return result.unsqueeze(dim) if keepdim else result
        y: Tensor = _forward_op(x, dim, beta, backend)[0]
        return y.unsqueeze(dim) if keepdim else y
    require_tensor("out", out, (x.dtype,), x.device)
    require_no_derivative_of_out(x=x, out=out)
    shape = reduced_shape(x, dim)
    require_output("out", out, torch.Size((*shape[:dim], 1, *shape[dim:])) if keepdim else shape, {"x": x})
    _forward(x, dim, beta, backend, out.view(shape))
    note_written(out)
    return out


@not_differentiable("beta")
def logsumexp_backward(
    grad: Tensor,
    x: Tensor,
    lse: Tensor,
    dim: int = -1,
    beta: float = 1.0,
    *,
    peak: Tensor | None = None,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The gradient of `logsumexp` with respect to ``x``: ``grad * beta * exp(beta * (x - peak) - lse)``.

    Args:
        grad: gradient with respect to the result, of ``x``'s dtype and of its shape without ``dim``.
        x: the input of the forward pass.
        lse: ``log sum_i exp(beta (x_i - peak))`` in the precision of accumulation: float64 for a float64 ``x``, else
            float32. Without ``peak``, the result of the forward pass in that precision.
        dim, beta, backend: as in `logsumexp`.
        peak: what ``lse`` is relative to, a number per row like ``lse``: best the finite ``x_i`` of largest weight.
            Default: 0. Then the gradient has a relative error of about ``u (|beta x_i| + |lse|)`` with the unit
            roundoff ``u``, so that in float32 it has no digits where ``|lse|`` is 1e7.
        out: a contiguous tensor like ``x`` to write to; it must not share memory with the inputs.

    Returns:
        A contiguous tensor of ``x``'s shape and dtype; zero in a row whose ``lse`` is -inf.
    """
    require_tensor("x", x, DTYPES, None)
    dim = normal_dim(dim, x.dim())
    beta = require_finite_beta(beta, x.dtype)
    shape = reduced_shape(x, dim)
    require_tensor("grad", grad, (x.dtype,), x.device)
    require_tensor("lse", lse, (accumulation_dtype(x.dtype),), x.device)
    peak = torch.zeros_like(lse) if peak is None else peak
    require_tensor("peak", peak, (lse.dtype,), x.device)
    for name, value in (("grad", grad), ("lse", lse), ("peak", peak)):
        if value.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    chosen = choose_backend(backend, x.device, __name__)
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    require_tensor("out", out, (x.dtype,), x.device)
    require_output("out", out, x.shape, {"x": x, "grad": grad, "lse": lse, "peak": peak})
    if x.numel():
        with running_on(x.device):
            rows = (lse.contiguous(), peak.contiguous())
            backend_module(chosen, __name__).backward(grad.contiguous(), x, *rows, dim, beta, out)
        note_written(out)
    return out


def _forward(
    x: Tensor,
    dim: int,
    beta: float,
    backend: str,
    y: Tensor,
    log_total: Tensor | None = None,
    peak: Tensor | None = None,
) -> None:
    """Write ``y`` and, if given, ``log_total`` and ``peak``. An empty sum is -inf and needs no launch."""
    if x.numel():
        with running_on(x.device):
            backend_module(backend, __name__).forward(x, dim, beta, y, log_total, peak)
        return
    y.fill_(-torch.inf)
    if log_total is not None and peak is not None:
        log_total.fill_(-torch.inf)
        peak.fill_(0.0)


# The operators that torch.compile and autograd see. The forward operator also returns the two numbers whose sum is the
# result, ``y = beta peak + log_total``, in the precision of accumulation. The gradient needs them apart: computed from
# the rounded sum, it would have a relative error of u |y|.


@torch.library.custom_op("boltzbench::logsumexp", mutates_args=(), tags=NO_GRAPH)
def _forward_op(x: Tensor, dim: int, beta: float, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    results: tuple[Tensor, Tensor, Tensor] = _empty_results(x, dim)
    require_finite_beta(beta, x.dtype)  # torch.compile has left it to the operator
    _forward(x, dim, beta, choose_backend(backend, x.device, __name__), *results)
    return results


@_forward_op.register_fake
def _empty_results(x: Tensor, dim: int, beta: float = 1.0, backend: str = "") -> tuple[Tensor, Tensor, Tensor]:
    shape, wide = reduced_shape(x, dim), accumulation_dtype(x.dtype)
    return x.new_empty(shape), x.new_empty(shape, dtype=wide), x.new_empty(shape, dtype=wide)


@torch.library.custom_op("boltzbench::logsumexp_backward", mutates_args=(), tags=NO_GRAPH)
def _backward_op(
    grad: Tensor, x: Tensor, log_total: Tensor, peak: Tensor, dim: int, beta: float, backend: str
) -> Tensor:
    return logsumexp_backward(grad, x, log_total, dim, beta, peak=peak, backend=backend)


@_backward_op.register_fake
def _(grad: Tensor, x: Tensor, log_total: Tensor, peak: Tensor, dim: int, beta: float, backend: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # torch's own context object
    x, ctx.dim, ctx.beta, ctx.backend = inputs
    ctx.save_for_backward(x, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx, grad, *_grads):  # type: ignore[no-untyped-def]  # torch's own context object
    if is_gradient_differentiated(grad):
        inputs = ctx.saved_tensors[:1]
        return *gradient_by_formula(lambda x: formulas.logsumexp(x, ctx.dim, ctx.beta), grad, inputs), None, None, None
    return _backward_op(grad, *ctx.saved_tensors, ctx.dim, ctx.beta, ctx.backend), None, None, None


_forward_op.register_autograd(_backward, setup_context=_save_for_backward)
