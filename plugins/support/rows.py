"""Cases, inputs and roundoffs of the operations on rows."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack

import torch
from boltzbench.harness import Case, CaseOptions
from boltzbench.kernels.rows import accumulation_dtype, softmax
from boltzbench.plugins.support import digits
from torch import Tensor

DTYPES = ("float32", "float64", "float16", "bfloat16")
ACCESS = "128-bit loads if rows are contiguous and begin at multiples of 16 bytes, else more loads of one element"
BETAS = {"hot": 0.25, "cold": 3.0, "negative": -0.7, "beta-zero": 0.0}
"""The inverse temperature by the first word of a scenario; 1 in all other scenarios."""
LEVELS = (1e8, -1e9, 1e30, -1e30, 1e4, torch.finfo(torch.float64).min, 0.0)
"""The levels of consecutive rows in the scenario ``level``, as far as the dtype reaches."""


def row_case(
    operation: str, rows: int, columns: int, dtype: str = "float32", scenario: str = "", **more: Unpack[CaseOptions]
) -> Case:
    return Case(operation, {"rows": rows, "columns": columns}, dtype, scenario, **more)


def beta_of(case: Case) -> float:
    return BETAS.get(case.scenario.partition(" ")[0], 1.0)


def rows_of(case: Case, device: torch.device) -> Tensor:
    """Rows of different scale and level. With plain uniform noise the results would hardly depend on the data."""
    rows, columns = case.sizes["rows"], case.sizes["columns"]
    words = case.scenario.split()
    generator = torch.Generator(device).manual_seed(case.seed)
    random = partial(torch.randn, generator=generator, device=device)
    if case.scenario == "digits log Z":
        x = -digits.jittered(digits.hidden_free_energies(), case.seed).to(device)[None, :]
    elif case.scenario == "digits free energies":
        free_energies = digits.resampled(digits.image_free_energies(), case.seed)
        x = -free_energies[: rows * columns].to(device).view(rows, columns)
    else:
        x = random(rows, columns)
        x = x.mul_(torch.exp(random(rows, 1))).add_(20.0 * random(rows, 1))
    if "outliers" in words or "far" in words:
        x[:, columns // 3] += 60.0 if "outliers" in words else 3000.0
    if "shifted" in words:
        x += 1.0e4
    if "level" in words:
        x = _lifted(x, case.torch_dtype)
    x = x.to(case.torch_dtype)
    if "infinities" in words:
        x[0], x[1, ::2], x[2, -1] = -torch.inf, -torch.inf, torch.inf
    if "nan" in words:
        x[0, 7] = torch.nan
        x[1, 3], x[1, 5] = torch.inf, torch.nan
    if "transposed" in words:
        x = x.t().contiguous().t()
    elif "sliced" in words:
        x = torch.cat((x, x), dim=1)[:, ::2]
    elif "unaligned" in words:
        x = torch.cat((x[:, :1], x), dim=1)[:, 1:]
    elif "expanded" in words:
        x = x[:, :1].expand(rows, columns)
    return x


def _lifted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` on the `LEVELS`, every seventh row masked throughout, and half of each row without a level."""
    finfo = torch.finfo(dtype)
    levels = torch.tensor(LEVELS, dtype=torch.float64, device=x.device).repeat(len(x))[: len(x), None]
    masked = (levels == 0) & (torch.arange(x.shape[1], device=x.device) % 2 == 1)
    return torch.where(masked, finfo.min, (levels + x).clamp(finfo.min, finfo.max))


def row_sums(x: Tensor, beta: float) -> dict[str, Tensor]:
    """What a gradient needs of each row: ``lse``, or apart ``log_total`` and ``peak``, so that no level is rounded."""
    log_total, peak = softmax.sums(x.double(), 1, beta)
    numbers = {"lse": peak * beta + log_total, "log_total": log_total, "peak": peak}
    return {name: number.to(accumulation_dtype(x.dtype)) for name, number in numbers.items()}


def exponent_roundings(x: Tensor, beta: float, rows: Mapping[str, Any]) -> Tensor:
    """How many unit roundoffs the exponent ``beta (x - peak) - log_total`` of a probability may be off.

    An implementation may subtract lse from beta x: ``2 (|beta x| + |lse|)``, from rounding both products with log2(e)
    and the difference.

    In the scenario ``level`` (``rows["apart"]``) no term may grow with the level of a row. The difference d = x - peak
    is rounded, and so may be beta log2(e): ``2 |beta d|``. The product of log_total and log2(e), and in float32 an FMA
    with the small part of beta log2(e), add ``2 |log_total|``. The last FMA rounds the exponent: ``|beta d| +
    |log_total|``. Where the former bound is less, it holds there too.
    """
    peak, log_total = (rows[name].double()[:, None] for name in ("peak", "log_total"))
    levels = 2 * (magnitude(x * beta) + magnitude(peak * beta + log_total))
    if not rows["apart"]:
        return levels
    distances = 3 * (magnitude((x - peak) * beta) + magnitude(log_total))
    return torch.minimum(distances, levels).nan_to_num()  # an overflow, where the probability is 0


def magnitude(x: Tensor) -> Tensor:
    """``|x|``; 0 where x is infinite or NaN, since there is no rounding error."""
    return x.abs().nan_to_num(0.0, 0.0, 0.0)


def roundoffs(dtype: torch.dtype) -> tuple[float, float]:
    """Unit roundoff of the accumulation, and of rounding to a 16-bit output (0 for other dtypes)."""
    wide = accumulation_dtype(dtype)
    return torch.finfo(wide).eps / 2, torch.finfo(dtype).eps / 2 if dtype != wide else 0.0


def smallest_kept(dtype: torch.dtype) -> float:
    """The smallest result that a kernel must not flush to 0. In float16 that includes subnormal numbers."""
    finfo = torch.finfo(dtype)
    return finfo.smallest_normal * (finfo.eps if dtype is torch.float16 else 1.0)
