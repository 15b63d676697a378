"""The tensors of one update as a kernel sees them: a table of addresses, and which block works on which tensor."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}


@dataclass(frozen=True)
class UpdateList:
    """Parameters and gradients that are not empty, contiguous, with the number of each tensor in the stream.

    ``strided`` pairs each parameter that is not contiguous with the contiguous copy that is updated in its place.
    """

    parameters: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    numbers: tuple[int, ...]
    strided: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, parameters: Sequence[Tensor], gradients: Sequence[Tensor], numbers: Sequence[int]) -> "UpdateList":
        kept = [entry for entry in zip(parameters, gradients, numbers, strict=True) if entry[0].numel()]
        dense = [x.detach().contiguous() for x, _, _ in kept]
        return cls(
            tuple(dense),
            tuple(g.detach().contiguous() for _, g, _ in kept),
            tuple(number for _, _, number in kept),
            tuple((x, copy) for (x, _, _), copy in zip(kept, dense, strict=True) if not x.is_contiguous()),
        )

    @property
    def elements(self) -> int:
        return sum(x.numel() for x in self.parameters)

    def write_back(self) -> None:
        """Copy what was updated in a contiguous copy to where it belongs."""
        for x, copy in self.strided:
            x.copy_(copy)

    def table(self, block_elements: int) -> tuple[Tensor, Tensor]:
        """``(tensors, blocks)`` on the parameters' device, both int64.

        A row of ``tensors``: address of the parameter, address of the gradient, elements, code of the dtype, number
        in the stream. A row of ``blocks``: the tensor that the block works on, and its first element there.
        """
        rows = tuple(
            (x.data_ptr(), g.data_ptr(), x.numel(), DTYPE_CODES[x.dtype], number)
            for x, g, number in zip(self.parameters, self.gradients, self.numbers, strict=True)
        )
        return _table(rows, block_elements, self.parameters[0].device)


@functools.lru_cache(maxsize=128)
def _table(
    rows: tuple[tuple[int, int, int, int, int], ...], block_elements: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Kept, since copying it to a GPU waits for the GPU: a later update of the same tensors only launches.

    It holds addresses and sizes alone, so it is right for whatever lies there.
    """
    blocks = []
    for index, (_, _, elements, _, _) in enumerate(rows):
        first = torch.arange(0, elements, block_elements)
        blocks.append(torch.stack((torch.full_like(first, index), first), dim=1))
    return torch.tensor(rows, dtype=torch.int64).to(device), torch.cat(blocks).to(device)
