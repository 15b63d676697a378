"""Exact thermodynamics of the Ising model on a torus: Kaufman's partition function; all states of small lattices.

Sources: Kaufman, Phys. Rev. 76 (1949); Ferdinand and Fisher, Phys. Rev. 185 (1969).
"""

import functools
import math
from typing import NamedTuple

import torch
from boltzbench.plugins.exact.states import all_spins
from torch import Tensor

CRITICAL_BETA = math.log(1 + math.sqrt(2)) / 2


class Thermodynamics(NamedTuple):
    """log Z, ``<E> / n`` and the specific heat ``beta**2 Var(E) / n`` of a lattice of ``n`` spins with ``J = 1``."""

    log_z: float
    energy: float
    specific_heat: float


def log_partition(k: Tensor, height: int, width: int) -> Tensor:
    """``log Z`` at ``K = beta J > 0`` without a field, differentiable; float64, shape ().

    ``Z = 1/2 (2 sinh 2K)^(hw/2) (C_odd + S_odd + C_even + S_even)`` with the products over r < w

    - ``C_odd = prod 2 cosh(h g_(2r+1) / 2)`` and ``S_odd = prod 2 sinh(h g_(2r+1) / 2)``,
    - ``C_even`` and ``S_even``, the same with ``g_(2r)``,

    where ``cosh g_l = cosh 2K coth 2K - cos(pi l / w)``, ``g_l > 0`` except ``g_0 = 2K + ln tanh K``.
    """
    place = torch.arange(2 * width, dtype=torch.float64)
    cosh = torch.cosh(2 * k) / torch.tanh(2 * k) - torch.cos(math.pi * place / width)
    first = 2 * k + torch.log(torch.tanh(k))
    gamma = torch.cat((first[None], torch.acosh(cosh[1:])))
    grown = height * gamma  # the factors exp(h g / 2) are summed in the exponent, less shift: no overflow
    odd, even = grown[1::2], grown[0::2]
    shift = torch.maximum(odd.sum(), even.sum()).detach() / 2
    terms = []
    for each in (odd, even):
        cosh_product = torch.exp(torch.log1p(torch.exp(-each)).sum())
        # The first factor stays outside the logarithm: at the critical point g_0 = 0 makes it 0.
        sinh_product = -torch.expm1(-each[0]) * torch.exp(torch.log(-torch.expm1(-each[1:])).sum())
        terms.append(torch.exp(each.sum() / 2 - shift) * (cosh_product + sinh_product))
    return height * width / 2 * torch.log(2 * torch.sinh(2 * k)) - math.log(2) + shift + torch.log(terms[0] + terms[1])


@functools.cache
def kaufman(height: int, width: int, beta: float) -> Thermodynamics:
    """Thermodynamics of the torus at ``J = 1``, from derivatives of `log_partition` by beta."""
    k = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    log_z = log_partition(k, height, width)
    (slope,) = torch.autograd.grad(log_z, k, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, k)
    n = height * width
    return Thermodynamics(log_z.item(), -slope.item() / n, beta**2 * curvature.item() / n)


@functools.cache
def all_states(height: int, width: int) -> Tensor:
    """int8 spins of every state, (2**(height width), height, width); site i is bit i of the index."""
    return all_spins(height * width).view(-1, height, width)
