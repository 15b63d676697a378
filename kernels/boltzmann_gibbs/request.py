"""Many sweeps of many chains: what every backend implements."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .prepared import PreparedMachine


@dataclass(frozen=True)
class LaunchRequest:
    """``out`` receives the states after ``sweeps`` sweeps from ``states``; both are uint8 (chains, units), contiguous.

    - ``low``: the byte of a unit at 0, or of a spin -1; the other state is 1.
    - ``beta``: a number, or float64 (chains,), contiguous.
    - ``clamped``: bool (chains, units), any strides, or None: these units keep their state.
    """

    states: Tensor
    out: Tensor
    machine: PreparedMachine
    sweeps: int
    beta: float | Tensor
    seed: int
    first_sweep: int
    first_chain: int
    clamped: Tensor | None

    @property
    def low(self) -> int:
        return 255 if self.machine.spins else 0

    def in_order(self) -> Tensor:
        """The states as bool, (chains, units), in the order of the machine."""
        return self.states[:, self.machine.order] == 1

    def put(self, up: Tensor) -> None:
        """Write ``out`` from states 0 or 1 in the order of the machine, (chains, units)."""
        up = up[:, self.machine.rank].to(torch.uint8)
        self.out.copy_(up if self.low == 0 else 2 * up - 1)  # -1 is the byte 255
