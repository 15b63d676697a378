"""The tensors of one update as a kernel sees them: a table of addresses, and which block works on which tensor."""

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
        tensors, blocks = [], []
        for index, (x, g, number) in enumerate(zip(self.parameters, self.gradients, self.numbers, strict=True)):
            tensors.append([x.data_ptr(), g.data_ptr(), x.numel(), DTYPE_CODES[x.dtype], number])
            first = torch.arange(0, x.numel(), block_elements)
            blocks.append(torch.stack((torch.full_like(first, index), first), dim=1))
        device = self.parameters[0].device
        return torch.tensor(tensors, dtype=torch.int64).to(device), torch.cat(blocks).to(device)
