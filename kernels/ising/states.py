"""Spins on a checkerboard: unpacked, as numbers -1 and +1, or packed, with 32 spins of one colour in a word.

Site (i, j) has colour ``(i + j) % 2``. Packed spins are int32 (lattices, 2, height, ceil(width / 64)). A row has
``width / 2`` sites of each colour, numbered from left to right: site ``k`` is bit ``k % 32`` of word ``k // 32``, 1 for
+1. Bits beyond the last site are 0. The neighbours of a site have the other colour, so a half sweep changes one colour
and reads its neighbours from the other.
"""

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..machines.packed_spins import REAL_DTYPES, WORD, pack_bits, require_spins, unpack_bits
from ..numbers import can_check, integer, real


def words_of(width: int) -> int:
    """The number of words for the sites of one colour in a row."""
    return -(-(integer("width", width) // 2) // WORD)


def require_packed(spins: Tensor, width: int) -> int:
    """The width as an int. Raises TypeError or ValueError unless ``spins`` are packed spins of lattices that wide.

    The bits beyond the last site are checked on a CPU only.
    """
    require_tensor("spins", spins, (torch.int32,), None)
    width = integer("width", width)
    if width < 2 or width % 2:
        raise ValueError(f"width must be even and at least 2, or the checkerboard does not close; got {width}")
    if spins.ndim != 4 or spins.shape[1] != 2 or spins.shape[3] != words_of(width):
        raise ValueError(
            f"spins must have shape (lattices, 2, height, {words_of(width)}) for width {width}, "
            f"got {tuple(spins.shape)}"
        )
    _, _, height, words = spins.shape
    if height < 2 or height % 2:
        raise ValueError(f"height must be even and at least 2, or the checkerboard does not close; got {height}")
    sites = width // 2 % WORD  # in the last word of a row; 0: all bits are sites
    if sites and can_check(spins) and bool((spins[..., -1] >> sites).any()):
        raise ValueError(f"spins must hold 0 in the bits beyond the last site of a row of {width}")
    if height * words >= 1 << 30:
        raise ValueError(f"spins must have fewer than 2**30 words in a colour of a lattice, got {height * words}")
    return width


def _column_is_odd(height: int, colour: int, device: torch.device) -> Tensor:
    """Whether the sites of a colour are in odd columns, for each row: bool (height, 1)."""
    return ((torch.arange(height, device=device) + colour) % 2 == 1)[:, None]


def pack_spins(spins: Tensor) -> Tensor:
    """Pack ``spins``, -1 or +1 of any dtype, (lattices, height, width) with even sides."""
    require_spins(spins)
    if spins.ndim != 3 or any(side % 2 or side < 2 for side in spins.shape[1:]):
        raise ValueError(f"spins must have shape (lattices, even height, even width), got {tuple(spins.shape)}")
    lattices, height, width = spins.shape
    pairs = (spins > 0).view(lattices, height, width // 2, 2)
    padded = torch.zeros((lattices, 2, height, words_of(width) * WORD), dtype=torch.int64, device=spins.device)
    for colour in (0, 1):
        odd = _column_is_odd(height, colour, spins.device)
        padded[:, colour, :, : width // 2] = torch.where(odd, pairs[..., 1], pairs[..., 0])
    return pack_bits(padded.view(lattices, 2, height, words_of(width), WORD))


def unpack_spins(words: Tensor, width: int) -> Tensor:
    """Unpack spins that `pack_spins` packed: int8 -1 or +1, (lattices, height, width)."""
    require_tensor("words", words, (torch.int32,), None)
    width = integer("width", width)
    if words.ndim != 4 or words.shape[1] != 2 or words.shape[3] != words_of(width):
        raise ValueError(
            f"words must have shape (lattices, 2, height, {words_of(width)}) for width {width}, "
            f"got {tuple(words.shape)}"
        )
    lattices, _, height, _ = words.shape
    first, second = unpack_bits(words).flatten(-2)[..., : width // 2].to(torch.int8).unbind(1)
    odd = _column_is_odd(height, 0, words.device)
    pairs = torch.stack((torch.where(odd, second, first), torch.where(odd, first, second)), dim=-1)
    return (2 * pairs - 1).view(lattices, height, width)


def energy(spins: Tensor, coupling: float = 1.0, field: float = 0.0, *, check_values: bool = True) -> Tensor:
    """``E = -J sum s s' - h sum s`` over the bonds to the right and below: float64 (lattices,).

    ``spins`` are unpacked: -1 or +1 of any signed dtype, (lattices, height, width). Packed words and units 0 and 1
    raise ValueError, a dtype without -1 raises TypeError. ``check_values`` checks that all spins are -1 or +1; on a GPU
    this waits for the device.
    """
    if isinstance(spins, Tensor) and spins.dtype in (torch.bool, torch.uint8):
        raise TypeError(f"spins must be -1 or +1, which {spins.dtype} cannot hold; units s are the spins 2 s - 1")
    require_tensor("spins", spins, REAL_DTYPES, None)
    if spins.ndim != 3:
        packed = ": unpack words by unpack_spins" if spins.ndim == 4 and spins.dtype == torch.int32 else ""
        raise ValueError(f"spins must have shape (lattices, height, width), got {tuple(spins.shape)}{packed}")
    if check_values and not bool((spins.abs() == 1).all()):
        raise ValueError("spins must be -1 or +1; units s of 0 and 1 are the spins 2 s - 1")
    coupling, field = real("coupling", coupling), real("field", field)
    s = spins.to(torch.int32)
    bonds = (s * (s.roll(-1, 1) + s.roll(-1, 2))).sum((1, 2))
    return -coupling * bonds.double() - field * s.sum((1, 2)).double()
