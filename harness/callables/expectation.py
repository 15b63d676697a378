"""What the results of a callable should be, and how far they may lie from it."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..agreement.agreement import difference
from ..agreement.guarded_memory import differs
from ..api.messages import describe_error
from ..api.operations import Expected
from .arguments import copied, shares_memory
from .binding import Binding
from .bounds import Bound, bound, reduction_length


class Expectation:
    """The reference in float64, or without one the callable itself on copies of the arguments: then a launch must give
    what the same call gives on other memory."""

    def __init__(
        self,
        fn: Callable[..., Any],
        binding: Binding,
        reference: Callable[..., Any] | None,
        given: Bound | float | None,
    ) -> None:
        self._binding = binding
        self._given = Bound(absolute=given) if isinstance(given, int | float) else given
        self.states: Sequence[str] = ()
        """The arguments that the call changes in place. Their tensors are no results besides."""
        self._wide = reference is not None
        self._judge: Any = fn if reference is None else reference
        if isinstance(reference, nn.Module):
            self._judge = copy.deepcopy(reference).double()

    def results(self, inputs: Mapping[str, Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The results for these inputs, and what the inputs are after the call."""
        copies = {name: self._widened(each) for name, each in inputs.items()}
        found = self._binding.bound(self._judge, copies, wide=self._wide)()
        return self._besides_states(found, copies), copies

    def try_reference(self) -> list[Tensor]:
        """The results for the arguments as given. Finds out which of them the reference changes in place.

        Raises ValueError if it fails.
        """
        inputs = self._binding.tensors
        try:
            found, after = self.results(inputs)
        except Exception as error:
            hint = "it gets the arguments in float64"
            if isinstance(error, RuntimeError):  # torch's for dtypes that do not go together
                hint += ", and must not mix them with tensors of other dtypes"
            raise ValueError(f"the reference raised {describe_error(error)}: {hint}") from error
        self.states = [n for n, each in inputs.items() if each.numel() and bool(differs(after[n], self._widened(each)))]
        return self._besides_states(found, after)

    def bounds(self, results: Sequence[Tensor]) -> list[Bound]:
        """The bound of each result: as given, or from its dtype and the number of elements that it depends on."""
        if self._given is not None:
            return [self._given if each.is_floating_point() else Bound() for each in results]
        return [bound(each.dtype, self._length) for each in results]

    def _besides_states(self, found: Sequence[Tensor], after: Mapping[str, Tensor]) -> list[Tensor]:
        states = [after[name] for name in self.states]
        return [each.detach() for each in found if not shares_memory(each, states)]

    @functools.cached_property
    def _length(self) -> int:
        """How many elements of the inputs a result depends on; where autograd cannot say, the largest extent of one."""
        found = None
        if self._wide:
            inputs = {name: self._widened(each) for name, each in self._binding.tensors.items()}
            leaves = [each.requires_grad_() for each in inputs.values() if each.is_floating_point()]
            try:
                with torch.enable_grad():
                    results = self._binding.bound(self._judge, inputs, wide=True, graph=True)()
                found = reduction_length(results, leaves)
            except Exception:  # it has no gradient; whether it works at all is found out elsewhere
                found = None
        extents = [extent for each in self._binding.tensors.values() for extent in each.shape]
        return found or max(extents, default=1) or 1

    def _widened(self, tensor: Tensor) -> Tensor:
        if not (self._wide and tensor.is_floating_point()):
            return copied(tensor)
        return tensor.detach().to(torch.float64, copy=True)


def expected(value: Tensor, dtype: torch.dtype, limit: Bound) -> Expected:
    """A value with its bound. What ``dtype`` rounds to infinity is expected to be infinite. Integers stay integers."""
    wide = value.detach().to(torch.float64)
    if not value.is_floating_point():
        return Expected(value.detach(), limit.allowed(wide))
    if dtype.is_floating_point and dtype.itemsize > 1:
        wide = torch.where(wide.to(dtype).isinf(), wide.to(dtype).to(torch.float64), wide)
    return Expected(wide, limit.allowed(wide))


def agree(results: Sequence[Tensor], others: Sequence[Tensor], bounds: Sequence[Bound]) -> bool:
    """Whether results are the same within their bounds."""
    return all(_agree(*each) for each in zip(results, others, bounds, strict=True))


def _agree(one: Tensor, other: Tensor, limit: Bound) -> bool:
    if one.shape != other.shape:
        return False
    right = expected(other, one.dtype, limit)
    same, distance = difference(one.detach(), right.value)
    return bool((same | (distance <= right.bound)).all())
