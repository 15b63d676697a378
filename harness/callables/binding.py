"""A callable as a function of named tensors. Its results are those in what it returns, with names that say where they
stand, and with ``backward`` the gradients behind them."""

import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves

from ..agreement.agreement import Rejected
from ..api.operations import Inputs, Status
from .arguments import FACTORS, Arguments, scaled

GRADIENT = "gradient of "


class Binding:
    """Binds the arguments of a call to a callable.

    With ``backward``, ``names`` ends with the gradients with respect to the floating-point arguments that require one,
    or to all of them if none does. They are those of the sum of all results, each times a random tensor of its shape,
    its cotangent, which is one more input.
    """

    def __init__(self, arguments: Arguments, backward: bool) -> None:
        self.arguments = arguments
        self.backward = backward
        self.names: list[str] = []
        self._cotangents: dict[str, Tensor] = {}
        self._ends: list[int] = []
        required = [each for each in arguments.requiring_grad if each in arguments.floating]
        self._differentiated = list(dict.fromkeys(required or arguments.floating)) if backward else []
        if backward and not self._differentiated:
            raise ValueError("backward=True needs a floating-point tensor among the arguments, to take its gradient")

    def know_results(self, names: Sequence[str], leaves: Sequence[Tensor]) -> None:
        """Take over the names of the results of the forward call, and draw cotangents."""
        self.names = [*names, *(f"{GRADIENT}{each}" for each in self._differentiated)]
        if not self.backward:
            return
        self._ends = [i for i, leaf in enumerate(leaves) if leaf.requires_grad]
        if not self._ends:
            raise Rejected(
                Status.ERROR,
                f"backward=True, but no result depends on {', '.join(self._differentiated)} by autograd: "
                "the callable works without gradients, or detaches its result",
            )
        for i in self._ends:
            generator = torch.Generator(leaves[i].device).manual_seed(i)
            drawn = torch.randn(leaves[i].shape, generator=generator, device=leaves[i].device)
            self._cotangents[f"{GRADIENT}{names[i]}"] = drawn.to(leaves[i].dtype)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The inputs as given: arguments and cotangents."""
        return {**self.arguments.tensors, **self._cotangents}

    @property
    def constant(self) -> tuple[str, ...]:
        """The inputs whose values stay."""
        return tuple(name for name in self.arguments.tensors if name not in self.arguments.varying)

    def values(self, seed: int) -> Inputs:
        """`tensors` for seed 0, other values for any other seed."""
        factors = random.Random(~seed)
        return {
            **self.arguments.values(seed),
            **{
                name: scaled(each, factors.uniform(*FACTORS)) if seed else each
                for name, each in self._cotangents.items()
            },
        }

    def call(self, fn: Callable[..., Any], tensors: Mapping[str, Tensor]) -> Any:
        """What ``fn`` returns for these arguments, without the gradients."""
        args, kwargs = self.arguments.filled(self._for_autograd(tensors))
        with torch.set_grad_enabled(self.backward or torch.is_grad_enabled()):
            return fn(*args, **kwargs)

    def bound(
        self, fn: Callable[..., Any], tensors: Mapping[str, Tensor], *, wide: bool = False, graph: bool = False
    ) -> Callable[[], list[Tensor]]:
        """A function that calls ``fn`` on these tensors, and returns what `names` say.

        ``wide``: dtypes among the arguments become float64. ``graph``: the tensors are leaves of autograd already, and
        the results have a graph that leads to them.
        """
        given = tensors if graph else self._for_autograd(tensors)
        args, kwargs = self.arguments.filled(given, wide=wide)
        if not self.backward:
            return lambda: leaves_of(fn(*args, **kwargs))
        wanted = [given[name] for name in self._differentiated]
        cotangents = [tensors[name] for name in self._cotangents]

        def forward_and_backward() -> list[Tensor]:
            with torch.enable_grad():
                leaves = leaves_of(fn(*args, **kwargs))
                ends = [leaves[i] for i in self._ends]
                found = torch.autograd.grad(ends, wanted, cotangents, create_graph=graph, materialize_grads=True)
            return [*leaves, *found]

        return forward_and_backward

    def _for_autograd(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors; those that require a gradient as leaves that share their memory."""
        wanted = {*self.arguments.requiring_grad, *self._differentiated}
        return {name: each.detach().requires_grad_() if name in wanted else each for name, each in tensors.items()}


def leaves_of(result: Any) -> list[Tensor]:
    """The tensors of a result, in order. This is part of the timed launch: what computes when it is read is timed.

    None holds no tensor. The elements of plain tuples, lists and dicts are read directly, and other pytrees by torch,
    which takes some 10 us.
    """
    kind = type(result)
    if kind is Tensor:
        return [result]
    if kind is tuple or kind is list:
        return [leaf for each in result for leaf in leaves_of(each)]
    if kind is dict:
        return [leaf for each in result.values() for leaf in leaves_of(each)]
    return [leaf for leaf in tree_leaves(result) if leaf is not None]


def names_of(result: Any) -> list[str]:
    """A name for each of `leaves_of`: ``result``, ``result[0]``, ``result['loss']``."""
    return [f"result{keystr(path)}" for path, leaf in tree_flatten_with_path(result)[0] if leaf is not None]


def require_tensors(result: Any) -> None:
    """Raise `Rejected`, with the reason and what to do, unless the result is a pytree of plain tensors and None."""
    for path, leaf in tree_flatten_with_path(result)[0]:
        if leaf is None:
            continue
        what = f"the result{' at ' + keystr(path) if path else ''} is of type"
        kind = type(leaf).__name__
        if isinstance(leaf, Tensor):
            if type(leaf) is not Tensor:
                raise Rejected(Status.ERROR, f"{what} {kind}, which may compute when it is read: return a plain tensor")
            if leaf.is_complex() or leaf.layout is not torch.strided:
                raise Rejected(Status.ERROR, f"{what} {leaf.layout} and {leaf.dtype}: return dense real tensors")
        elif isinstance(leaf, Iterator | AsyncIterator | Awaitable) or inspect.isgenerator(leaf):
            raise Rejected(
                Status.ERROR,
                f"{what} {kind}, which computes when it is read, after the clock has stopped: "
                "measure a function that reads it, such as lambda *args: list(fn(*args))",
            )
        else:
            raise Rejected(Status.ERROR, f"{what} {kind}, neither a tensor nor a pytree of tensors: return tensors")
