"""Generalised cross-entropy, ``L_q = (1 - p_y**q) / q`` of softmax probabilities: a loss robust to label noise.

`generalised_cross_entropy` works with autograd and ``torch.compile``; the module `GeneralisedCrossEntropy` replaces
``torch.nn.CrossEntropyLoss``, with its class weights, label smoothing and probabilities as targets.
`generalised_cross_entropy_forward` and `generalised_cross_entropy_backward` compute loss and gradient of labels
directly.
"""

from typing import Literal

import torch
from torch import Tensor

from ..common.derivatives import (
    gradient_by_formula,
    is_gradient_differentiated,
    needs_formula,
    not_differentiable,
    values_of,
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
from ..numbers import INT64_MAX, can_check, integer, real
from ..rows import formulas
from ..rows.checks import DTYPES, accumulation_dtype, reduced_shape
from . import reference, targets

__all__ = [
    "GeneralisedCrossEntropy",
    "generalised_cross_entropy",
    "generalised_cross_entropy_backward",
    "generalised_cross_entropy_forward",
    "reference",
]

Reduction = Literal["none", "mean", "sum"]
REDUCTIONS = ("none", "mean", "sum")
SMALLEST_Q = 2.0**-100
"""A smaller q counts as 0, so that ``q log p_y`` does not underflow and ``1 / q`` does not overflow. The loss
changes by a factor of about ``1 - q log(1 / p_y) / 2``."""


def generalised_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    q: float = 0.7,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    backend: str = "auto",
) -> Tensor:
    """``L_q(z, y) = (1 - p_y**q) / q`` with ``p = softmax(z)``, computed from the logits ``z``.

    With class weights ``w`` and probabilities ``t`` as targets, ``L_q(z, t) = sum_k t_k w_k (1 - p_k**q) / q``. At
    q = 0 all options mean what they mean in ``torch.nn.functional.cross_entropy``.

    The kernels compute the losses of labels that are not smoothed: the forward pass reads the logits once; the backward
    pass reads them once and writes the gradient once. Smoothed labels and probabilities take the formula in torch on
    every backend, with several passes over the logits.

    Args:
        logits: ``z`` of shape (classes,), (rows, classes) or (rows, classes, ...), float64, float32, float16 or
            bfloat16, with any strides. 16-bit logits are computed in float32.
        labels: ``y``, int64, of that shape without the classes: 0 to classes - 1, or ``ignore_index``. Or ``t``, the
            probabilities of the classes, of the shape of ``logits`` and of any of these dtypes. They are not checked:
            they may have any sum.
        q: from 0 to 1. 1 gives ``1 - p_y``, half the mean absolute error; 0 gives the limit ``-log p_y``, the
            cross-entropy.
        weight: ``w``, of shape (classes,) and of any of these dtypes; 1 by default. The values are not checked.
        label_smoothing: ``s`` from 0 to 1 makes the targets ``(1 - s) t_k + s / classes``; a label ``y`` has
            ``t_y = 1``.
        reduction: ``none`` gives the losses, in the shape of ``logits`` without the classes; ``sum`` their sum;
            ``mean`` the sum divided by the sum of ``w_y`` over the labels that are not ignored (NaN if all are
            ignored), for probabilities divided by the number of rows.
        ignore_index: a row with this label has loss 0 and gradient 0, even if its logits are infinite or NaN. With
            probabilities it must be negative, since there are no labels to ignore.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Returns:
        A tensor in the precision of accumulation: float64 for float64 logits, else float32, as under autocast.

    Raises:
        TypeError: ``logits``, ``labels`` or ``weight`` is not a dense tensor of a supported dtype.
        ValueError: shapes do not fit; ``q`` or ``label_smoothing`` is outside of [0, 1]; a label of a CPU tensor is out
            of range; ``ignore_index`` could be a class although ``labels`` are probabilities; ``reduction`` is unknown;
            ``backend`` is unknown or cannot run here. Labels on a GPU are not checked, since the host would have to
            wait for them: a label out of range makes loss and gradient of its row NaN.

    The gradient is ``dL/dz_i = sum_k t_k w_k p_k**q (p_i - delta_ik)``. Loss and gradient are computed from differences
    of logits, so that their errors do not grow with the level of a row.

    Derivatives with respect to ``logits``, ``weight`` and probabilities, the same on every backend:

    | | |
    |---|---|
    | reverse mode (``backward``, ``autograd.grad``) | yes, on the backend |
    | twice and more (``create_graph=True``) | yes, by the formula in torch |
    | forward mode (``jvp``, ``jacfwd``, ``forward_ad``) | yes, by the formula in torch |
    | ``torch.func`` (``grad``, ``vmap``, ``jacrev``, ``hessian``) | yes, by the formula in torch |
    | ``torch.compile`` | yes; not twice, which torch refuses |

    A class with logit -inf has probability 0. If it is the label, or if all logits are -inf, the loss is ``1 / q`` (inf
    at q = 0). A class with ``t_k w_k = 0`` adds nothing to the loss, also where torch gives NaN because its logit is
    -inf. NaN gives NaN. A logit of +inf gives all other classes probability 0, and its own class NaN. The gradient
    follows with these probabilities: where all logits are -inf, it is 0, or at q = 0 -1 for the label.

    Source: Z. Zhang, M. Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy labels",
    NeurIPS 2018.
    """
    _require_reduction(reduction)
    q, ignore_index = _require_q(q), _require_ignore_index(ignore_index)
    label_smoothing = targets.require_smoothing(label_smoothing)
    are_labels = not (isinstance(labels, Tensor) and labels.is_floating_point())
    dim = _require_fitting(logits, labels) if are_labels else targets.require_probabilities(logits, labels)
    if not are_labels and ignore_index >= 0:
        raise ValueError(f"ignore_index must be negative where labels are probabilities, got {ignore_index}")
    if weight is not None:
        targets.require_weight(weight, logits, dim)
    if not torch.compiler.is_compiling():  # under the compiler, the operator chooses when it runs
        backend = choose_backend(backend, logits.device, __name__)
    if are_labels and not label_smoothing:
        losses = _losses_of_labels(logits, labels, dim, q, ignore_index, backend)
        if weight is not None:
            losses = targets.weighted(losses, labels, weight, ignore_index)
    else:
        _require_for_formula(logits, labels if are_labels else None, dim, ignore_index, q, label_smoothing)
        given = targets.smoothed(logits, labels, dim, label_smoothing, weight, ignore_index if are_labels else None)
        losses = targets.losses(*given, dim, _usable(q))
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (_total(labels, weight, ignore_index, losses.dtype) if are_labels else losses.numel())


def _losses_of_labels(logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int, backend: str) -> Tensor:
    if not needs_formula(logits):
        losses: Tensor = _forward_op(logits, labels, q, ignore_index, backend)[0]
        return losses
    _require_for_formula(logits, labels, dim, ignore_index, q)
    return formulas.generalised_cross_entropy(logits, labels, dim, _usable(q), ignore_index)


def _total(labels: Tensor, weight: Tensor | None, ignore_index: int, dtype: torch.dtype) -> Tensor:
    """What the mean divides by: the sum of the labels' weights, or the number of labels that are not ignored."""
    if weight is None:
        return (labels != ignore_index).sum()
    return targets.weights_of(labels, weight.to(dtype), ignore_index).sum()


class GeneralisedCrossEntropy(torch.nn.Module):
    """`generalised_cross_entropy` as a module, in place of ``torch.nn.CrossEntropyLoss``.

    ``weight`` is a buffer, as there: it moves with the module and is part of its ``state_dict``.
    """

    weight: Tensor | None

    def __init__(
        self,
        q: float = 0.7,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        backend: str = "auto",
        *,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        q, ignore_index = _require_q(q), _require_ignore_index(ignore_index)
        _require_reduction(reduction)
        self.q, self.reduction, self.ignore_index, self.backend = q, reduction, ignore_index, backend
        self.label_smoothing = targets.require_smoothing(label_smoothing)
        if weight is not None:
            targets.require_weight(weight)
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return generalised_cross_entropy(
            logits, labels, self.q, weight=self.weight, label_smoothing=self.label_smoothing, reduction=self.reduction,
            ignore_index=self.ignore_index, backend=self.backend,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"q={self.q}, reduction={self.reduction!r}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}"
        )


@not_differentiable("q")
def generalised_cross_entropy_forward(
    logits: Tensor,
    labels: Tensor,
    q: float = 0.7,
    *,
    ignore_index: int = -100,
    out: tuple[Tensor, ...] | None = None,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """``(loss, lse, peak)`` of each row, without autograd: `generalised_cross_entropy`, the log-sum-exp of the logits
    minus ``peak``, and ``peak``, the largest logit (0 if it is infinite).

    The arguments are those of `generalised_cross_entropy`. If ``out`` is given, the results are written to these
    contiguous tensors, which have the shape of ``labels``, the precision of accumulation, and no memory in common with
    the inputs. If ``out`` has no tensor for ``peak``, then ``lse`` is the log-sum-exp of the logits themselves; rounded
    at the level of its row, it has too few digits for the gradient of rows of a high level. ``lse`` and ``peak`` are
    also computed for ignored rows.
    """
    q, ignore_index = _require_q(q), _require_ignore_index(ignore_index)
    dim = _require_fitting(logits, labels)
    chosen = choose_backend(backend, logits.device, __name__)
    if out is None:
        out = _empty_results(logits, labels)
    if not isinstance(out, tuple | list) or len(out) not in (2, 3):
        got = len(out) if isinstance(out, tuple | list) else type(out).__name__
        raise ValueError(f"out must have a tensor for loss, one for lse and may have one for peak, got {got}")
    others = {"logits": logits, "labels": labels}
    for name, tensor in zip(("out loss", "out lse", "out peak"), out, strict=False):
        require_tensor(name, tensor, (accumulation_dtype(logits.dtype),), logits.device)
        require_output(name, tensor, labels.shape, others)
        others[name] = tensor
    _require_labels_in_range(logits, labels, dim, ignore_index)
    if logits.numel():
        with running_on(logits.device):
            kernels = backend_module(chosen, __name__)
            kernels.forward(logits, labels.contiguous(), dim, _usable(q), ignore_index, *out)
    for tensor in out:
        note_written(tensor)
    return out


@not_differentiable("q")
def generalised_cross_entropy_backward(
    grad: Tensor,
    logits: Tensor,
    labels: Tensor,
    lse: Tensor,
    q: float = 0.7,
    *,
    peak: Tensor | None = None,
    ignore_index: int = -100,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The gradient with respect to ``logits``: ``grad * p_y**q (p_i - delta_iy)``, ``p_i = exp(z_i - peak - lse)``.

    Args:
        grad: gradient with respect to the losses, of the same shape and dtype as the losses.
        logits, labels, q, ignore_index, backend: as in `generalised_cross_entropy`.
        lse, peak: results of `generalised_cross_entropy_forward`. Without ``peak``, ``lse`` is the log-sum-exp of the
            logits themselves, and ``p_i`` has a relative error of about ``u (|z_i| + |lse|)`` with the unit roundoff
            ``u`` of the accumulation, so that in float32 it has no digits where ``|lse|`` is 1e7.
        out: a contiguous tensor like ``logits`` to write to; it must not share memory with the inputs.

    Returns:
        A contiguous tensor of the shape and dtype of ``logits``; zero in a row whose label is ignored.
    """
    q, ignore_index = _require_q(q), _require_ignore_index(ignore_index)
    dim = _require_fitting(logits, labels)
    wide = accumulation_dtype(logits.dtype)
    require_tensor("lse", lse, (wide,), logits.device)
    peak = torch.zeros_like(lse) if peak is None else peak
    for name, value in (("grad", grad), ("lse", lse), ("peak", peak)):
        require_tensor(name, value, (wide,), logits.device)
        if value.shape != labels.shape:
            raise ValueError(f"{name} must have shape {tuple(labels.shape)}, got {tuple(value.shape)}")
    chosen = choose_backend(backend, logits.device, __name__)
    if out is None:
        out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    require_tensor("out", out, (logits.dtype,), logits.device)
    others = {"logits": logits, "labels": labels, "grad": grad, "lse": lse, "peak": peak}
    require_output("out", out, logits.shape, others)
    _require_labels_in_range(logits, labels, dim, ignore_index)
    if logits.numel():
        with running_on(logits.device):
            rows = (labels.contiguous(), lse.contiguous(), peak.contiguous())
            kernels = backend_module(chosen, __name__)
            kernels.backward(grad.contiguous(), logits, *rows, dim, _usable(q), ignore_index, out)
        note_written(out)
    return out


def _require_fitting(logits: Tensor, labels: Tensor) -> int:
    """The dimension of the classes. Raises TypeError or ValueError if the arguments do not fit together."""
    require_tensor("logits", logits, DTYPES, None)
    require_tensor("labels", labels, (torch.int64,), logits.device)
    if not logits.dim():
        raise ValueError("logits must have a dimension of classes, got a single number")
    dim = min(1, logits.dim() - 1)
    shape = reduced_shape(logits, dim)
    if labels.shape != shape:
        raise ValueError(f"labels must have shape {tuple(shape)}, got {tuple(labels.shape)}")
    if not logits.shape[dim] and labels.numel():
        raise ValueError("logits must have at least one class, got none")
    return dim


def _require_reduction(reduction: str) -> None:
    _require_no_weight("reduction", reduction)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")


def _require_q(q: float) -> float:
    _require_no_weight("q", q)
    return real("q", q, least=0, most=1)


def _require_no_weight(name: str, value: object) -> None:
    """The first argument of ``torch.nn.CrossEntropyLoss`` holds the class weights."""
    if isinstance(value, Tensor) and value.dim():
        raise TypeError(
            f"{name} must not be a tensor of shape {tuple(value.shape)}: pass class weights by name, weight=..."
        )


def _require_ignore_index(ignore_index: int) -> int:
    return integer("ignore_index", ignore_index, -INT64_MAX - 1)


def _usable(q: float) -> float:
    return q if q >= SMALLEST_Q else 0.0


def _require_for_formula(
    logits: Tensor, labels: Tensor | None, dim: int, ignore_index: int, q: float, label_smoothing: float = 0.0
) -> None:
    """The checks that an operator makes when it runs, where there is none."""
    if not torch.compiler.is_compiling():
        if labels is not None:
            _require_labels_in_range(logits, values_of(labels), dim, ignore_index)
        return
    for name, value in (("q", q), ("label_smoothing", label_smoothing)):  # a label out of range gives NaN
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1]")


def _require_labels_in_range(logits: Tensor, labels: Tensor, dim: int, ignore_index: int) -> None:
    if not can_check(labels):
        return
    classes = logits.shape[dim]
    wrong = ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
    if wrong.any():
        raise ValueError(
            f"labels must lie in [0, {classes - 1}] or be ignore_index, {ignore_index}; got {int(labels[wrong][0])}"
        )


# The operators that torch.compile and autograd see.


@torch.library.custom_op("boltzbench::generalised_cross_entropy", mutates_args=(), tags=NO_GRAPH)
def _forward_op(
    logits: Tensor, labels: Tensor, q: float, ignore_index: int, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    results: tuple[Tensor, Tensor, Tensor] = _empty_results(logits, labels)
    generalised_cross_entropy_forward(logits, labels, q, ignore_index=ignore_index, out=results, backend=backend)
    return results


@_forward_op.register_fake
def _empty_results(
    logits: Tensor, labels: Tensor, q: float = 0.0, ignore_index: int = 0, backend: str = ""
) -> tuple[Tensor, Tensor, Tensor]:
    loss = logits.new_empty(labels.shape, dtype=accumulation_dtype(logits.dtype))
    return loss, torch.empty_like(loss), torch.empty_like(loss)


@torch.library.custom_op("boltzbench::generalised_cross_entropy_backward", mutates_args=(), tags=NO_GRAPH)
def _backward_op(
    grad: Tensor, logits: Tensor, labels: Tensor, lse: Tensor, peak: Tensor, q: float, ignore_index: int, backend: str
) -> Tensor:
    return generalised_cross_entropy_backward(
        grad, logits, labels, lse, q, peak=peak, ignore_index=ignore_index, backend=backend
    )


@_backward_op.register_fake
def _(
    grad: Tensor, logits: Tensor, labels: Tensor, lse: Tensor, peak: Tensor, q: float, ignore_index: int, backend: str
) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save_for_backward(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # torch's own context object
    logits, labels, ctx.q, ctx.ignore_index, ctx.backend = inputs
    ctx.save_for_backward(logits, labels, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx, grad, *_grads):  # type: ignore[no-untyped-def]  # torch's own context object
    if is_gradient_differentiated(grad):
        logits, labels = ctx.saved_tensors[:2]
        dim, q = min(1, logits.dim() - 1), _usable(ctx.q)
        slopes = gradient_by_formula(
            lambda z: formulas.generalised_cross_entropy(z, labels, dim, q, ctx.ignore_index), grad, (logits,)
        )
        return *slopes, None, None, None, None
    slope = _backward_op(grad, *ctx.saved_tensors, ctx.q, ctx.ignore_index, ctx.backend)
    return slope, None, None, None, None


_forward_op.register_autograd(_backward, setup_context=_save_for_backward)
