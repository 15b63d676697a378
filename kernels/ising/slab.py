"""Some rows of one large lattice, which knows its neighbouring rows by copies: what a device holds that has not all."""

import torch
from torch import Tensor

from ..common.dispatch import backend_module, choose_backend, running_on
from ..machines.packed_spins import PARTS
from ..numbers import INT64_MAX, integer, real
from ..philox import check_counter
from .acceptance import RULES, thresholds
from .request import LaunchRequest
from .states import require_packed, unpack_spins

ROWS_AT_ONCE = 1024
"""Rows that `Slab.sums` unpacks at a time."""


class Slab:
    """Rows ``first_row`` to ``first_row + rows - 1`` of one lattice, and half sweeps of any of them.

    A half sweep reads the rows above and below the slab from ``above`` and ``below``. The caller copies them there, for
    each colour after that colour's half sweep. With the right copies every row gets the spins that
    `boltzbench.kernels.ising.ising_sweeps` gives it in the whole lattice, on every backend.

    Args:
        spins: packed spins of the slab's rows: int32 (1, 2, rows, ceil(width / 64)), ``rows`` even; copied.
        width: sites of a row, even.
        beta: inverse temperature, not negative and possibly infinite.
        first_row: the number of the slab's first row in the whole lattice, even.
        coupling, field, rule, seed, backend: as in `boltzbench.kernels.ising.ising_sweeps`.

    Raises:
        TypeError: ``spins`` is not a dense int32 tensor.
        ValueError: a shape does not match, a number is odd or out of range, ``rule`` or ``backend`` is unknown.
    """

    spins: Tensor
    """int32 (1, 2, rows, words): the rows of the slab, a view that half sweeps change."""
    below: Tensor
    """int32 (2, words): the row after the last one, for each colour."""
    above: Tensor
    """int32 (2, words): the row before the first one."""

    def __init__(
        self,
        spins: Tensor,
        width: int,
        beta: float,
        *,
        first_row: int,
        coupling: float = 1.0,
        field: float = 0.0,
        rule: str = "heat_bath",
        seed: int,
        backend: str = "auto",
    ) -> None:
        self.width = require_packed(spins, width)
        if len(spins) != 1:
            raise ValueError(f"spins must be those of one lattice, got {len(spins)} lattices")
        _, _, self.rows, words = spins.shape
        self.first_row = integer("first_row", first_row, 0, INT64_MAX // (words * PARTS) - self.rows)
        if self.first_row % 2:
            raise ValueError(f"first_row must be even, got {first_row}")
        self.coupling, self.field = real("coupling", coupling), real("field", field)
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
        self.seed, _, _ = check_counter(seed, 0)
        self._kernels = backend_module(choose_backend(backend, spins.device, __package__), __package__)
        beta = real("beta", beta, least=0, infinite=True)
        inverse_temperature = torch.tensor([beta], dtype=torch.float64, device="cpu")
        self._table = thresholds(inverse_temperature, self.coupling, self.field, rule).contiguous().to(spins.device)
        # The kernels close a lattice into a torus: the row below comes after the slab, and the row above is the last.
        self._all = spins.new_zeros((1, 2, self.rows + 2, words))
        self.spins, self.below, self.above = self._all[:, :, :-2], self._all[0, :, -2], self._all[0, :, -1]
        self.spins.copy_(spins)

    def half_sweep(self, colour: int, sweep: int, first: int = 0, rows: int | None = None) -> None:
        """Update the sites of a colour in ``rows`` rows of the slab, by default all from its row ``first`` on.

        ``sweep`` is the number of the sweep in the random stream. ``above`` and ``below`` must hold the other colour as
        it is before this half sweep.
        """
        colour, first = integer("colour", colour, 0, 1), integer("first", first)
        rows = self.rows - first if rows is None else integer("rows", rows)
        if not first <= first + rows <= self.rows:
            raise ValueError(f"rows must lie in a slab of {self.rows}, got {rows} from {first} on")
        _, sweep, _ = check_counter(self.seed, sweep, step_name="sweep")
        if not rows:
            return
        half = LaunchRequest(
            self._all, self._all, self._all, self.width, self._table, 1 if self.coupling >= 0 else -1, colour,
            self.seed, sweep, self.first_row * self._all.shape[3], first, rows,
        )  # fmt: skip
        with running_on(self._all.device):
            self._kernels.half_sweep(half)

    def sums(self) -> Tensor:
        """``sum s`` of the slab, and ``sum s s'`` over the bonds of its sites to the right and below: int64 (2,).

        ``below`` must hold both colours as they are.
        """
        total = torch.zeros(2, dtype=torch.int64, device=self._all.device)
        for first in range(0, self.rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, self.rows - first)
            spins = unpack_spins(self._all[:, :, first : first + count + 2], self.width)[0]
            s, below = spins[:count], spins[1 : count + 1]
            bonds = (s * s.roll(-1, 1)).sum(dtype=torch.int64) + (s * below).sum(dtype=torch.int64)
            total += torch.stack((s.sum(dtype=torch.int64), bonds))
        return total
