"""What the functions of a ceiling return; the data of the bandwidth kernels and their checks, a piece at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

Prepared = tuple[Callable[[], object], Callable[[], str | None]]
"""``(launch, check)``."""

PIECE = 1 << 24
"""Elements that a check handles at a time, so that it needs little memory besides the data."""
WEYL = 0x9E3779B9
"""Word i of the data is i times this modulo 2^32: varied bits, and sums that are known in closed form."""


def words(first: int, end: int, device: torch.device) -> Tensor:
    """Words ``first`` to ``end`` of the data, as int32."""
    index = torch.arange(first, end, dtype=torch.int64, device=device)
    return (index * WEYL).to(torch.int32)  # keeps the low 32 bits


def data(size: int, device: torch.device) -> Tensor:
    """``size`` bytes of data."""
    x = torch.empty(size // 4, dtype=torch.int32, device=device)
    for first in range(0, x.numel(), PIECE):
        end = min(first + PIECE, x.numel())
        x[first:end] = words(first, end, device)
    return x


def difference(x: Tensor) -> str | None:
    """A message about the first word of ``x`` that differs from the data, or None."""
    for first in range(0, x.numel(), PIECE):
        end = min(first + PIECE, x.numel())
        wrong = torch.nonzero(x[first:end] != words(first, end, x.device))
        if len(wrong):
            return f"word {first + int(wrong[0])} was not written"
    return None


def sum_of_words(sums: Tensor, size: int) -> str | None:
    """A message if ``sums`` (int32) do not add up to the sum of ``size`` bytes of data, or None."""
    n = size // 4
    expected = WEYL * (n * (n - 1) // 2) & 0xFFFFFFFF
    found = int(sums.sum(dtype=torch.int64)) & 0xFFFFFFFF
    return None if found == expected else f"the words read add up to {found} modulo 2^32, not to {expected}"


def exclusive_or(x: Tensor) -> Tensor:
    """Exclusive or over the last dimension, of a size that is a power of two."""
    while x.shape[-1] > 1:
        x = x[..., ::2] ^ x[..., 1::2]
    return x[..., 0]


def require_multiple(name: str, value: int, of: int, unit: str) -> None:
    """Raise ValueError unless ``value`` is a positive multiple of ``of``."""
    if value <= 0 or value % of:
        raise ValueError(f"{name} must be a positive multiple of {of} {unit}, got {value}")
