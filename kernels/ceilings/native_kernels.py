"""Calls `ceilings.cpp`, the limits of a CPU, and recomputes its results in torch to check them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..native import Keys, NativeModule
from ..philox import Stream, normals, random_words
from .prepared import WEYL, Prepared, data, difference, exclusive_or, require_multiple, sum_of_words
from .torch_kernels import product_error

MODULE = NativeModule(Path(__file__).with_name("ceilings.cpp"))

PIECE_BYTES = 4 << 18
REPEATS = 64
GROUPS = 1 << 14
"""The three constants are as in ceilings.cpp; the last two are the units, or groups of random words, of a part."""
PARTS_CHECKED = 8
SEED = 0x0123456789ABCDEF


class Arithmetic(NamedTuple):
    """A kernel: the operations of a part, the sums that it writes for each, and these, computed in torch."""

    function: str
    operations: int
    sums: int
    dtype: torch.dtype
    results: Callable[[int], Tensor]
    tolerance: float
    """The largest absolute error of a sum; 0 for integers."""


def _beginnings(part: int, elements: int) -> Tensor:
    """The starts of the chains of each unit: float64 (units, elements)."""
    unit = torch.arange(part * REPEATS, (part + 1) * REPEATS)
    return 1 + (unit & 0xFFF).double()[:, None] / 4096 + torch.arange(elements) / 64


def _fma(elements: int, part: int) -> Tensor:
    # x <- a x + 1 has the fixed point 1 / (1 - a) = 1024, and the distance from it shrinks by a in each step.
    return (1024.0 + (1.0 - 2.0**-10) ** 1024 * (_beginnings(part, elements) - 1024.0)).sum(0)


def _exponentials(part: int) -> Tensor:
    x = _beginnings(part, 64)
    for _ in range(8):
        x = torch.exp(-x)
    return x.sum(0)


def _logic(part: int) -> Tensor:
    unit = torch.arange(part * REPEATS, (part + 1) * REPEATS)
    number = unit[:, None] * 128 + torch.arange(128)
    a, b, c = ((number * factor).to(torch.int32) for factor in (WEYL, 0xD2511F53, 0xCD9E8D57))
    for _ in range(1000):
        a = a ^ (b & c)
        b = b ^ (c | a)
        c = c ^ (a & ~b)
    return (a.long() + 3 * b.long() + 5 * c.long()).sum(0).to(torch.int32)


def _philox(part: int) -> Tensor:
    groups = torch.arange(part * GROUPS, (part + 1) * GROUPS)
    return exclusive_or(random_words(groups, SEED, 0, Stream.NOISE).flatten()).to(torch.int32)[None]


def _normals(part: int) -> Tensor:
    index = torch.arange(4 * part * GROUPS, 4 * (part + 1) * GROUPS)
    words = (index * WEYL & 0xFFFFFFFF).view(GROUPS, 4)
    return normals(words, torch.float64).sum()[None]


ARITHMETIC = {
    # A step contracts, so that at most 1024 roundings of a number below 1024 add up, two for each step without an fma.
    "fma": Arithmetic(
        "fma_float32", REPEATS * 160 * 1024, 160, torch.float32, lambda part: _fma(160, part), 64 * 1024**2 * 2.0**-23
    ),
    "float64 fma": Arithmetic(
        "fma_float64", REPEATS * 80 * 1024, 80, torch.float64, lambda part: _fma(80, part), 64 * 1024**2 * 2.0**-52
    ),
    "exp": Arithmetic("exponentials", REPEATS * 64 * 8, 64, torch.float32, _exponentials, 64 * 16 * 2.0**-24),
    "logic": Arithmetic("logic", REPEATS * 128 * 3000, 128, torch.int32, _logic, 0.0),
    "philox": Arithmetic("philox_words", GROUPS * 4, 1, torch.int32, _philox, 0.0),
    # Partial sums stay far below 2^10, and at most 2^13 of them are rounded; a normal number is off by 2^-18 at most.
    "normal numbers": Arithmetic("normal_numbers", GROUPS * 8, 1, torch.float32, _normals, 0.5),
}
"""A normal number takes two calls of special functions: a half each of a logarithm, a root, a sine and a cosine."""


def read(device: torch.device, size: int) -> Prepared:
    """Reads ``size`` bytes, a multiple of `PIECE_BYTES`."""
    require_multiple("size", size, PIECE_BYTES, "bytes")
    x = data(size, device)
    sums = torch.zeros(size // PIECE_BYTES, dtype=torch.int32)
    return lambda: MODULE.call("read", x, size // 4, sums), lambda: sum_of_words(sums, size)


def write(device: torch.device, size: int) -> Prepared:
    """Writes ``size`` bytes; otherwise as `read`."""
    require_multiple("size", size, PIECE_BYTES, "bytes")
    x = torch.zeros(size // 4, dtype=torch.int32, device=device)
    return lambda: MODULE.call("write", x, size // 4, WEYL), lambda: difference(x)


def copy(device: torch.device, size: int) -> Prepared:
    """Reads ``size`` bytes and writes as many; otherwise as `read`."""
    require_multiple("size", size, PIECE_BYTES, "bytes")
    x = data(size, device)
    y = torch.zeros_like(x)
    return lambda: MODULE.call("copy", x, size // 4, y), lambda: difference(y)


def arithmetic(device: torch.device, name: str, parts: int) -> Prepared:
    """Runs ``parts`` parts of the kernel ``name`` of `ARITHMETIC`."""
    kind = ARITHMETIC[name]
    sums = torch.zeros((parts, kind.sums), dtype=kind.dtype, device=device)
    keys = (Keys.of(SEED),) if name == "philox" else ()

    def check() -> str | None:
        idle = torch.nonzero((sums == 0).all(1))
        if len(idle):
            return f"part {int(idle[0])} was left out"
        for part in sorted({*torch.linspace(0, parts - 1, PARTS_CHECKED).long().tolist()}):
            found, expected = sums[part].double(), kind.results(part).double()
            wrong = torch.nonzero(~((found - expected).abs() <= kind.tolerance))
            if len(wrong):
                at = int(wrong[0])
                return f"sum {at} of part {part} is {found[at]}, not {expected[at]}"
        return None

    return lambda: MODULE.call(kind.function, parts, *keys, sums), check


def binary_product(device: torch.device, n: int) -> Prepared:
    """Multiplies states of 0 and 1 (n, n) by float32 weights (n, n), by tables of the sums of four weights."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randint(0, 2, (n, n), generator=generator, dtype=torch.uint8)
    weights, product = torch.randn((n, n), generator=generator), torch.zeros((n, n))
    return (
        lambda: MODULE.call("binary_product", states, weights, product, n),
        lambda: product_error(product, states, weights, 5e-5),
    )
