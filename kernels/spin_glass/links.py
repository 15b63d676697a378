"""Any couplings and fields in fixed point, so that local fields and energies are exact integers on every backend.

The local field of spin i is ``f_i = h_i + sum_j J_ij s_j``; a flip costs ``dE = 2 s_i f_i``. Couplings and fields are
rounded to multiples of ``2**-exponent``, where ``|h_i| + sum_j |J_ij|`` is below ``2**30`` of them for every spin.

A probability is computed by integers too, from the rate ``r = 2 log2(e) / T = m 2**(e - 32)`` with a whole ``m`` of 32
bits: ``t = floor(2**26 r |f|)`` from a product of 64 bits, and ``2**32 exp(-|dE| / T)`` by `factors`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TOTAL_BITS = 30
FRACTION_BITS = 26
"""Of ``t``. The number 32, whose power 2**-32 is less than any random number, then is bit 31."""
POWERS = (4294967295, 2977043973, 1031755804, 238330987, 41142264, 5475002, 468251)
"""Coefficients of ``2**32 2**-x`` in -x for x in [0, 1); the same in links.cu and triton_links.py."""
LINKS_OF_A_LOAD, LINKS_OF_A_STEP = 2, 4
MOST_EXPONENT = 1000


@dataclass(frozen=True)
class Links:
    """The tables of the kernels that sum the local field of each walker.

    - ``links`` int32 (links, 2): another spin, and the coupling. Links of coupling 0 fill the list of each spin up to a
      multiple of `LINKS_OF_A_STEP`.
    - ``first`` int32 (n + 1,): the first of each spin's loads; ``sizes``: the number of each spin's links.
    - ``fields`` int32 (n, 2): ``h_i - sum_j J_ij``, to which twice the couplings of all spins +1 are added, and
      ``h_i``.
    - ``exponent``: couplings and fields are in units of ``2**-exponent``.
    """

    links: Tensor
    first: Tensor
    fields: Tensor
    sizes: tuple[int, ...]
    exponent: int

    @property
    def unit(self) -> float:
        """The energy of a coupling 1 of the tables."""
        return 2.0**-self.exponent


def links_of(couplings: Tensor, fields: Tensor, device: torch.device) -> Links:
    """The tables of symmetric ``couplings``, float64 (n, n), and ``fields``, float64 (n,), finite, on the CPU."""
    most = float((couplings.abs().sum(1) + fields.abs()).max())
    if not math.isfinite(most):
        raise ValueError("couplings and fields of a spin must add up to a finite number")
    exponent = min(TOTAL_BITS - math.frexp(most)[1], MOST_EXPONENT) if most else 0
    whole, held = ((each * 2.0**exponent).round().long() for each in (couplings, fields))
    spin, other = whole.nonzero().unbind(1)
    coupling = whole[spin, other]
    degree = torch.bincount(spin, minlength=len(whole))
    sizes = degree + -degree % LINKS_OF_A_STEP
    first = torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))
    links = first.new_zeros((int(first[-1]), 2), dtype=torch.int32)
    place = first[spin] + torch.arange(len(spin), device="cpu") - (degree.cumsum(0) - degree)[spin]
    links[place] = torch.stack((other, coupling), 1).int()
    total = torch.zeros_like(held).index_add_(0, spin, coupling)
    return Links(
        links.to(device),
        (first // LINKS_OF_A_LOAD).int().to(device),
        torch.stack((held - total, held), 1).int().to(device),
        tuple(sizes.tolist()),
        exponent,
    )


def rates_of(temperatures: Tensor) -> Tensor:
    """``m``, as uint32 bits, and ``e`` of ``2 log2(e) / T = m 2**(e - 32)``: int32 (sweeps, 2)."""
    rate = (2 * math.log2(math.e) / temperatures).clamp(max=torch.finfo(torch.float64).max)
    fraction, exponent = torch.frexp(rate)
    whole = (fraction * 2.0**32).round().clamp(max=2.0**32 - 1).long().int()
    return torch.stack((whole, exponent.int()), 1).contiguous()


def factors(field: Tensor, rate: Tensor, exponent: int) -> Tensor:
    """``2**32 exp(-|dE| / T)``, at most ``2**32 - 1``, for local fields, int64, in units of ``2**-exponent``.

    ``rate`` is one of `rates_of`. The relative error is at most 2**-25, and the result is rounded down to a whole
    number. The kernels compute the same function.
    """
    whole, power = rate.long().unbind()
    whole, shift = whole & 0xFFFFFFFF, (32 - FRACTION_BITS + exponent - power).clamp(0, 63)
    t = field.abs() * whole >> shift
    x = t & (1 << FRACTION_BITS) - 1
    value = torch.full_like(t, POWERS[-1])
    for coefficient in POWERS[-2::-1]:
        value = coefficient - (value * x >> FRACTION_BITS)
    return torch.where(t >> 31 == 0, value >> (t >> FRACTION_BITS & 31), 0)
