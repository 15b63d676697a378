"""Which derivatives a public function has. The backend never decides that.

A kernel computes a function's value and, called by autograd, its gradient. Everything else (gradients of gradients,
forward mode, the transforms of ``torch.func``) comes from the function's formula in torch, on every backend.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..numbers import require_no_gradient

P = ParamSpec("P")
R = TypeVar("R")


def needs_formula(*tensors: Tensor) -> bool:
    """Whether a transform of ``torch.func`` is active, or a tensor has a tangent of forward mode.

    An operator with a kernel passes neither on: it drops tangents without an error.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level < 0:
        return False
    if torch.compiler.is_compiling():
        raise RuntimeError("torch.compile drops the tangents of forward mode (forward_ad): use one of the two")
    return any(_has_tangent(tensor) for tensor in tensors)


def _has_tangent(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]


def require_no_derivative_of_out(**tensors: Tensor) -> None:
    """Raise ValueError if autograd would need the history of a result written to ``out``."""
    named = " or ".join(filter(None, (", ".join(list(tensors)[:-1]), list(tensors)[-1])))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors.values()):
        raise ValueError(f"out must be None when {named} requires a gradient")
    if needs_formula(*tensors.values()):
        raise ValueError("out must be None in forward mode and under the transforms of torch.func (jvp, grad, vmap)")


def is_gradient_differentiated(grad: Tensor) -> bool:
    """Whether a backward function with the incoming gradient ``grad`` must return a differentiable gradient."""
    return torch.is_grad_enabled() or needs_formula(grad)


def gradient_by_formula(
    formula: Callable[..., Tensor], grad: Tensor, inputs: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradient of ``formula(*inputs)`` with respect to each input that requires one, itself differentiable.

    Without ``create_graph`` autograd is off in a backward function; then only forward mode and ``torch.func``
    differentiate the gradient.
    """
    is_recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        # One input may be computed from another. Views keep that path out of the gradient: autograd adds it again.
        views = [None if value is None else value.view_as(value) for value in inputs]
        wanted = [view for view in views if view is not None and view.requires_grad]
        found = iter(torch.autograd.grad(formula(*views), wanted, grad, create_graph=is_recorded))
    return [next(found) if view is not None and view.requires_grad else None for view in views]


def values_of(tensor: Tensor) -> Tensor:
    """The values in memory, without the wrappers of ``torch.func``: a check reads those of a whole batch at once."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def any_true(fault: Tensor) -> bool:
    """Whether ``fault`` is true anywhere, also under ``vmap``: there for any element of the batch."""
    return bool(values_of(fault).any())


def not_differentiable(*numbers: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compute a function without autograd: its result never has a gradient or a tangent, on any backend.

    ``numbers`` names its arguments that are numbers or sequences of numbers. They are refused if a caller expects a
    derivative with respect to them. Other tensors may require a gradient, as the weights of a model in training do.
    Under a transform of ``torch.func`` the function raises NotImplementedError.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        places = {name: place for place, name in enumerate(signature(function).parameters) if name in numbers}
        assert len(places) == len(numbers), f"{function.__qualname__} has no argument of one of the names {numbers}"

        @wraps(function)
        def detached(*args: P.args, **kwargs: P.kwargs) -> R:
            require_no_transform(function.__name__)
            for name, place in places.items():
                value = args[place] if place < len(args) else kwargs.get(name)
                for each in value if isinstance(value, list | tuple) else (value,):
                    if isinstance(each, Tensor):
                        require_no_gradient(name, each)
            with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
                return function(*args, **kwargs)

        return detached

    return decorate


def require_no_transform(name: str) -> None:
    """Raise NotImplementedError under a transform of ``torch.func``: the function ``name`` supports none."""
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            f"{name} has no derivative and does not support the transforms of torch.func (jvp, grad, vmap): call it "
            "outside of them"
        )
