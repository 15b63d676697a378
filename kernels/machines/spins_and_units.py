"""Exact maps between Ising couplings of spins -1 and +1 and Boltzmann machine weights of units 0 and 1.

With ``s = 2 x - 1``, ``J`` and ``W`` symmetric and zero on the diagonal,

    E(s) = -1/2 s.J.s - h.s        E(x) = -1/2 x.W.x - b.x        E(s) = E(x) + constant

hold with ``W = 4 J``, ``b = 2 h - 2 J 1`` and ``constant = sum h - 1/2 sum J``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.derivatives import any_true
from ..common.dispatch import without_autocast
from ..numbers import integer, real


class SpinMachine(NamedTuple):
    """Couplings (n, n), symmetric, diagonal 0; fields (n,). The units' energy is this energy plus ``constant``."""

    couplings: Tensor
    fields: Tensor
    constant: Tensor

    @without_autocast
    def energy(self, spins: Tensor) -> Tensor:
        """``-1/2 s.J.s - h.s`` for spins -1 and +1, (..., n)."""
        s = spins.to(self.couplings.dtype)
        return -0.5 * ((s @ self.couplings) * s).sum(-1) - s @ self.fields


class UnitMachine(NamedTuple):
    """Weights (n, n), symmetric, diagonal 0; biases (n,). The spins' energy is this energy plus ``constant``."""

    weights: Tensor
    biases: Tensor
    constant: Tensor

    @without_autocast
    def energy(self, units: Tensor) -> Tensor:
        """``-1/2 x.W.x - b.x`` for units 0 and 1, (..., n)."""
        x = units.to(self.weights.dtype)
        return -0.5 * ((x @ self.weights) * x).sum(-1) - x @ self.biases


def units_of(couplings: Tensor, fields: Tensor) -> UnitMachine:
    """The machine of units 0 and 1 with ``E(s) = E(x) + constant``. Raises ValueError as `require_bonds`."""
    require_bonds("couplings", couplings, "fields", fields)
    total = couplings.sum(1)
    return UnitMachine(4 * couplings, 2 * (fields - total), fields.sum() - total.sum() / 2)


def spins_of(weights: Tensor, biases: Tensor) -> SpinMachine:
    """The machine of spins with ``E(x) = E(s) + constant``. Raises ValueError as `require_bonds`."""
    require_bonds("weights", weights, "biases", biases)
    total = weights.sum(1)
    return SpinMachine(weights / 4, biases / 2 + total / 4, -(biases.sum() / 2 + total.sum() / 8))


def lattice_couplings(height: int, width: int, coupling: float = 1.0) -> Tensor:
    """The couplings of the torus in `boltzbench.kernels.ising`: float64 (n, n), site (i, j) at ``i * width + j``.

    Along a side of 2, two bonds join each pair of neighbours, and their couplings add up.
    """
    height, width, coupling = integer("height", height), integer("width", width), real("coupling", coupling)
    site = torch.arange(height * width, device="cpu").view(height, width)
    couplings = site.new_zeros((height * width,) * 2, dtype=torch.float64)
    for side in (0, 1):
        pair = (site.flatten(), site.roll(-1, side).flatten())
        couplings.index_put_(pair, couplings.new_tensor(coupling), accumulate=True)
    return couplings + couplings.t()


def require_bonds(name: str, matrix: Tensor, vector_name: str, vector: Tensor, *, check_values: bool = True) -> None:
    """Require a symmetric ``matrix`` (n, n), 0 on the diagonal, and a ``vector`` (n,) of its dtype, both finite.

    Raises ValueError and names the argument. Without ``check_values`` only shapes and dtypes are checked.
    """
    for argument, value in ((name, matrix), (vector_name, vector)):
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            raise TypeError(f"{argument} must be a dense torch tensor, got {type(value).__name__}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {tuple(matrix.shape)}")
    if vector.shape != matrix.shape[:1]:
        raise ValueError(f"{vector_name} must have shape ({len(matrix)},), got {tuple(vector.shape)}")
    if not matrix.is_floating_point() or vector.dtype != matrix.dtype:
        raise ValueError(f"{name} and {vector_name} must be of one floating dtype")
    if not check_values:
        return
    for argument, values in ((name, matrix), (vector_name, vector)):
        if any_true(~torch.isfinite(values)):
            raise ValueError(f"{argument} must be finite")
    if any_true(matrix.diagonal() != 0):
        raise ValueError(f"{name} must be 0 on the diagonal: a unit has no bond with itself")
    if any_true(matrix != matrix.t()):
        raise ValueError(f"{name} must be symmetric")
