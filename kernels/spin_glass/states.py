"""Spins of many walkers: unpacked, as numbers -1 and +1, or packed, with 32 walkers in a word; their energies.

Packed spins are int32 (n, walkers / 32), a row for each spin. Walker ``k`` is bit ``k % 32`` of word ``k // 32``, 1 for
+1. The number of walkers is a multiple of 32.
"""

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..machines.packed_spins import REAL_DTYPES, WORD, pack_bits, require_spins, unpack_bits
from ..machines.spins_and_units import require_bonds
from ..numbers import can_check, integer

CHUNK = 1 << 14
"""Walkers that `energies` unpacks at a time."""


def pack_walkers(spins: Tensor) -> Tensor:
    """Pack ``spins``, -1 or +1 of any dtype, (walkers, n)."""
    require_spins(spins)
    if spins.ndim != 2 or len(spins) % WORD:
        raise ValueError(f"spins must have shape (walkers, n), walkers a multiple of {WORD}; got {tuple(spins.shape)}")
    return pack_bits((spins > 0).t().reshape(spins.shape[1], len(spins) // WORD, WORD))


def unpack_walkers(words: Tensor) -> Tensor:
    """Unpack spins that `pack_walkers` packed: int8 -1 or +1, (walkers, n)."""
    _require_words(words)
    return (2 * unpack_bits(words).flatten(1).t() - 1).to(torch.int8)


def _require_words(words: Tensor) -> None:
    require_tensor("words", words, (torch.int32,), None)
    if words.ndim != 2:
        raise ValueError(f"words must have shape (n, walkers / {WORD}), got {tuple(words.shape)}")


def random_walkers(spins: int, walkers: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Packed spins at infinite temperature, from a generator on ``device``."""
    spins, walkers = integer("spins", spins), integer("walkers", walkers)
    if walkers % WORD:
        raise ValueError(f"walkers must be a multiple of {WORD}, got {walkers}")
    shape = (spins, walkers // WORD)
    low, high = -(1 << 31), 1 << 31
    return torch.randint(low, high, shape, generator=generator, device=device, dtype=torch.int64).to(torch.int32)


def energies(words: Tensor, couplings: Tensor, fields: Tensor | None = None) -> Tensor:
    """``-sum_{i<j} J_ij s_i s_j - sum_i h_i s_i`` of each walker: float64 (walkers,), for packed spins.

    Couplings (n, n), symmetric and 0 on the diagonal, and fields (n,) are of any real or integer dtype, on any device,
    and finite; the values are checked on a CPU only. Sums are in float64, exact for integers.
    """
    _require_words(words)
    require_tensor("couplings", couplings, REAL_DTYPES, None)
    each = couplings.to(words.device, torch.float64)
    if fields is not None:
        require_tensor("fields", fields, REAL_DTYPES, None)
    held = each.new_zeros(len(words)) if fields is None else fields.to(words.device, torch.float64)
    if each.shape != (len(words), len(words)):
        raise ValueError(f"couplings must have shape ({len(words)}, {len(words)}), got {tuple(each.shape)}")
    require_bonds("couplings", each, "fields", held, check_values=can_check(each))
    found = torch.empty(words.shape[1] * WORD, dtype=torch.float64, device=words.device)
    for first in range(0, words.shape[1], CHUNK // WORD):
        s = unpack_walkers(words[:, first : first + CHUNK // WORD]).double()
        found[first * WORD : first * WORD + len(s)] = -0.5 * ((s @ each) * s).sum(1) - s @ held
    return found


def lattice_glass(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random couplings -1 and +1 on a torus: float64 (n, n), site (i, j) at ``i * width + j``.

    On a side of 2 the two bonds between a pair of sites add up; a side of 1 has none.
    """
    height, width = integer("height", height), integer("width", width)
    site = torch.arange(height * width, device="cpu").view(height, width)
    couplings = site.new_zeros((height * width,) * 2, dtype=torch.float64)
    for side, length in enumerate((height, width)):
        signs = 2.0 * torch.randint(0, 2, (height * width,), generator=generator, device="cpu").double() - 1
        if length > 1:
            couplings.index_put_((site.flatten(), site.roll(-1, side).flatten()), signs, accumulate=True)
    return couplings + couplings.t()
