"""A reference that computes the expected values of the same inputs once."""

from collections.abc import Callable, Iterator, Mapping

import torch
from boltzbench.harness import Expected, Inputs, Tensors
from torch import Tensor

Reference = Callable[[Inputs, Tensors], Mapping[str, Expected]]

LAUNCHES = 2
"""Of a check: each has values of its own."""


class _Watched(Mapping[str, Tensor]):
    """Outputs, and whether they were looked at."""

    def __init__(self, outputs: Tensors) -> None:
        self._outputs, self.seen = outputs, False

    def __getitem__(self, name: str) -> Tensor:
        self.seen = True
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        self.seen = True
        return iter(self._outputs)

    def __len__(self) -> int:
        self.seen = True
        return len(self._outputs)


def remembered(reference: Reference) -> Reference:
    """``reference``, which computes nothing again for inputs that equal those of the last two calls in every bit.

    Expected values that depend on the outputs are not kept.
    """
    known: list[tuple[Inputs, Mapping[str, Expected]]] = []

    def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
        for given, values in known:
            if _same(given, inputs):
                return values
        copies = {name: each.clone() if isinstance(each, Tensor) else each for name, each in inputs.items()}
        watched = _Watched(outputs)
        values = reference(copies, watched)  # of copies, since a value may be one of them
        if not watched.seen:
            known[:] = [*known, (copies, values)][-LAUNCHES:]
        return values

    return expected


def _same(one: Inputs, other: Inputs) -> bool:
    return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())


def _equal(one: object, other: object) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and bool(one == other)
    if (one.dtype, one.shape, one.device) != (other.dtype, other.shape, other.device):
        return False
    return torch.equal(*(each.contiguous().flatten().view(torch.uint8) for each in (one, other)))
