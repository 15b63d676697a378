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
def energy_law(height: int, width: int, beta: float) -> tuple[Tensor, Tensor]:
    """The energies of a torus of even sides at ``J = 1`` and their probabilities: float64 (h w + 1,) each.

    Z at complex temperatures gives the characteristic function of the energy, ``<exp(i s E)> = Z(beta - i s) /
    Z(beta)``, and a Fourier transform its law: energies are multiples of 4. Probabilities below 1e-12 are 0.
    """
    if height % 2 or width % 2:
        raise ValueError(f"height and width must be even, got {height} and {width}")
    sites = height * width
    levels = sites + 1
    s = 2 * math.pi / (4 * levels) * torch.arange(levels, dtype=torch.float64)
    logs = torch.cat([_complex_log_partition(torch.complex(torch.full_like(each, beta), -each), height, width)
                      for each in torch.split(s, 1024)])  # fmt: skip
    characteristic = torch.exp(logs - logs[0]) * torch.exp(2j * s * sites)  # of the level (E + 2 n) / 4
    law = torch.fft.fft(characteristic).real / levels
    law = torch.where(law > 1e-12, law, 0.0)
    return 4.0 * torch.arange(levels, dtype=torch.float64) - 2 * sites, law / law.sum()


def _complex_log_partition(k: Tensor, height: int, width: int) -> Tensor:
    """`log_partition` at complex temperatures, complex128 (temperatures,), for even sides.

    ``g_l = g_(2w - l)``, so all factors but those of ``g_0`` and ``g_w = 2K - ln tanh K`` are squares: no sign of a
    complex ``g_l`` matters. Modulo 2 pi i, on which even powers do not depend.
    """
    place = torch.arange(1, width, dtype=torch.float64)
    gamma = torch.acosh((torch.cosh(2 * k) / torch.tanh(2 * k))[:, None] - torch.cos(math.pi * place / width))
    ends = torch.stack((2 * k + torch.log(torch.tanh(k)), 2 * k - torch.log(torch.tanh(k))), 1)
    odd, even = height * gamma[:, 0::2], height * gamma[:, 1::2]
    shift = odd.real.sum(1)
    total = torch.zeros_like(k)
    for sign in (1, -1):
        total += torch.exp(odd.sum(1) - shift) * torch.prod((1 + sign * torch.exp(-odd)) ** 2, 1)
        alone = torch.prod(1 + sign * torch.exp(-height * ends), 1)
        scale = torch.exp(even.sum(1) + height * ends.sum(1) / 2 - shift)
        total += scale * alone * torch.prod((1 + sign * torch.exp(-even)) ** 2, 1)
    return height * width / 2 * torch.log(2 * torch.sinh(2 * k)) - math.log(2) + shift + torch.log(total)


@functools.cache
def all_states(height: int, width: int) -> Tensor:
    """int8 spins of every state, (2**(height width), height, width); site i is bit i of the index."""
    return all_spins(height * width).view(-1, height, width)
