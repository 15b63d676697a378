"""Exact answers for spin glasses, by enumeration of all states, and for a torus by transfer from row to row.

All in float64. States are numbered as in `states`.
"""

from collections.abc import Iterable

import torch
from boltzbench.plugins.exact.states import all_spins, number_of
from torch import Tensor


def state_energies(couplings: Tensor, fields: Tensor | None = None) -> Tensor:
    """``-sum_{i<j} J_ij s_i s_j - sum_i h_i s_i`` of all 2**n states: float64 (2**n,). Each spin doubles the table."""
    energies = torch.zeros(1, dtype=torch.float64)
    for i in range(len(couplings)):
        field = torch.zeros(1, dtype=torch.float64) + (0.0 if fields is None else fields[i])
        for j in range(i):
            field = torch.cat((field - couplings[i, j], field + couplings[i, j]))
        energies = torch.cat((energies + field, energies - field))
    return energies


def states_of(spins: Tensor) -> Tensor:
    """The number of each walker's state, int64 (walkers,), from spins -1 and +1, (walkers, n)."""
    return number_of(spins > 0)


def spins_of_states(states: Tensor, n: int) -> Tensor:
    """The inverse of `states_of`: int8 (walkers, n)."""
    return all_spins(n)[states]


def after_sweep(
    law: Tensor, energies: Tensor, temperature: float, rule: str = "heat_bath", order: Iterable[int] | None = None
) -> Tensor:
    """The probabilities of all states after a sweep by ``rule``, ``heat_bath`` or ``metropolis``.

    ``law`` is (..., states): with the unit matrix, the result is the transition matrix. A sweep visits the spins in
    ``order``, by default that of their numbers.
    """
    states = law.shape[-1]
    for i in range((states - 1).bit_length()) if order is None else order:
        p, e = law.view(-1, states >> i + 1, 2, 1 << i), energies.view(-1, 2, 1 << i)
        change = (e.flip(1) - e) / temperature
        flow = p * (torch.sigmoid(-change) if rule == "heat_bath" else torch.exp(-change.clamp(min=0)))
        law = (p - flow + flow.flip(2)).view(law.shape)
    return law


def law_after(energies: Tensor, temperatures: Tensor, rule: str = "heat_bath") -> Tensor:
    """The probabilities of all states after a sweep at each of the temperatures, from a uniform start."""
    law = torch.full_like(energies, 1 / len(energies))
    for temperature in temperatures.tolist():
        law = after_sweep(law, energies, temperature, rule)
    return law


def _rows(couplings: Tensor, height: int, width: int) -> list[Tensor]:
    """For each row, the energy of its bonds and of the bonds to the next row: (2**width, 2**width) by both states."""
    if height < 3:
        raise ValueError(f"height must be at least 3, so that one bond at most joins two spins; got {height}")
    spins = all_spins(width).double()
    site = torch.arange(height * width).view(height, width)
    rows = []
    for row in range(height):
        within = couplings[site[row]][:, site[row]]
        down = couplings[site[row], site[(row + 1) % height]]
        inside = -0.5 * ((spins @ within) * spins).sum(1)
        rows.append(inside[:, None] - (spins * down) @ spins.t())
    return rows


def torus_ground_energy(couplings: Tensor, height: int, width: int) -> float:
    """The ground-state energy on a torus of at least 3 rows: the minimum over all paths through the rows' states."""
    first, *others = _rows(couplings, height, width)
    lowest = first[: len(first) // 2]  # flipping all spins keeps the energy: half of the starts suffice
    for row in others:
        lowest = torch.stack([(start[:, None] + row).amin(0) for start in lowest])
    return float(lowest.diagonal().min())


def torus_mean_energy(couplings: Tensor, height: int, width: int, temperature: float) -> float:
    """``<E>`` of a glass on a torus of at least 3 rows: minus the derivative of log Z by beta."""
    beta = torch.tensor(1 / temperature, dtype=torch.float64, requires_grad=True)
    product = torch.eye(1 << width, dtype=torch.float64)
    log_z = torch.zeros((), dtype=torch.float64)
    for row in _rows(couplings, height, width):
        shift = row.min()
        product = product @ torch.exp(-beta * (row - shift))
        log_z = log_z - beta * shift
    total = log_z + torch.log(product.diagonal().sum())
    (slope,) = torch.autograd.grad(total, beta)
    return -float(slope)
