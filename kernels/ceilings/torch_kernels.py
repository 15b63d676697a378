"""The limits of a device as torch reaches them: its copies and reductions, and matrix products of cuBLAS or oneDNN."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .prepared import PIECE, Prepared

ROW = 1 << 14
"""Numbers in one norm: few enough for an accurate float32 sum, so many that writing the norm costs nothing."""

PRECISIONS = {
    "float32": (torch.float32, "ieee", 5e-5),
    "tf32": (torch.float32, "tf32", 5e-3),
    "bfloat16": (torch.bfloat16, "ieee", 3e-2),
    "float16": (torch.float16, "ieee", 5e-3),
    "int8": (torch.int8, "ieee", 0.0),
}
"""For a product of matrices: the dtype, the precision setting for float32, and the error allowed: several times the
rounding of the result. For float32 it is small enough to distinguish IEEE from TF32."""


def read(device: torch.device, size: int) -> Prepared:
    """Reads ``size`` bytes, a multiple of 4 `ROW`: the Euclidean norm of each row of float32 numbers."""
    x = _random(size // 4, device).view(-1, ROW)
    norms = torch.zeros(len(x), device=device)

    def launch() -> None:
        torch.linalg.vector_norm(x, dim=1, out=norms)

    def check() -> str | None:
        pieces = torch.split(x, PIECE // ROW)
        expected = torch.cat([torch.linalg.vector_norm(piece.double(), dim=1) for piece in pieces])
        wrong = torch.nonzero((norms - expected).abs() > 1e-3 * expected)
        return f"the norm of row {int(wrong[0])} is wrong" if len(wrong) else None

    return launch, check


def write(device: torch.device, size: int) -> Prepared:
    """Writes ``size`` bytes: the same float32 number everywhere."""
    x = torch.zeros(size // 4, device=device)
    value = 1.5  # exact in float32

    def launch() -> None:
        x.fill_(value)

    def check() -> str | None:
        written = sum((int((piece == value).sum()) for piece in torch.split(x, PIECE)), 0)
        return None if written == x.numel() else f"{written} of {x.numel()} elements were written"

    return launch, check


def copy(device: torch.device, size: int) -> Prepared:
    """Reads ``size`` bytes and writes as many."""
    x = _random(size // 4, device)
    y = torch.zeros_like(x)

    def launch() -> None:
        y.copy_(x)

    return launch, lambda: None if torch.equal(x, y) else "the copy differs"


def matrix(device: torch.device, precision: str, n: int) -> Prepared:
    """Multiplies two ``n`` by ``n`` matrices in one of `PRECISIONS`.

    Random data, with both signs: a GPU may run faster on zeros.
    """
    dtype, float32_precision, tolerance = PRECISIONS[precision]
    generator = torch.Generator(device).manual_seed(0)
    if dtype is torch.int8:
        a, b = (torch.randint(-127, 128, (n, n), generator=generator, device=device).to(dtype) for _ in range(2))
        product = torch.zeros((n, n), dtype=torch.int32, device=device)
        b = b.t().contiguous().t()  # the layout that tensor cores need
    else:
        a, b = (torch.randn((n, n), generator=generator, device=device).to(dtype) for _ in range(2))
        product = torch.zeros((n, n), dtype=dtype, device=device)
    multiply = torch._int_mm if dtype is torch.int8 else torch.matmul

    def launch() -> None:
        with _float32_precision(float32_precision):
            multiply(a, b, out=product)

    return launch, lambda: product_error(product, a, b, tolerance)


def product_error(product: Tensor, a: Tensor, b: Tensor, tolerance: float) -> str | None:
    """A message if ``product`` is not the product of ``a`` and ``b``, or None.

    (A B) s = A (B s) for random signs s, in float64 (Freivalds 1977), finds a wrong element.
    """
    generator = torch.Generator(b.device).manual_seed(1)
    signs = torch.randint(0, 2, b.shape[1:], generator=generator, device=b.device).double() * 2 - 1
    found, expected = _apply(product, signs), _apply(a, _apply(b, signs))
    error = float((found - expected).abs().max() / expected.square().mean().sqrt())
    return None if error <= tolerance else f"the product is off by {error:.2g} of its size, more than {tolerance}"


def _random(count: int, device: torch.device) -> Tensor:
    return torch.randn(count, generator=torch.Generator(device).manual_seed(0), device=device)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """The product in float64, a few rows at a time."""
    pieces = torch.split(matrix, max(1, PIECE // matrix.shape[1]))
    return torch.cat([rows.double() @ vector for rows in pieces])


@contextmanager
def _float32_precision(precision: str) -> Iterator[None]:
    """Set the precision of float32 matrix products on a GPU, ``ieee`` or ``tf32``, and restore it afterwards."""
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    backend.fp32_precision = precision
    try:
        yield
    finally:
        backend.fp32_precision = before
