"""The operation ``thermodynamics``: log Z, mean and variance of the energy, and its three implementations."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from boltzbench.harness import (
    Case,
    Cost,
    Expected,
    Inputs,
    Launch,
    Operation,
    Tensors,
)
from boltzbench.kernels.common.prepared import prepared
from boltzbench.kernels.rows import accumulation_dtype
from boltzbench.kernels.thermodynamics import reference, thermodynamics
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.operations import operation_hooks
from boltzbench.plugins.support.rows import ACCESS, BETAS, DTYPES, beta_of, row_case, rows_of
from torch import Tensor

BOLTZBENCH_API = 1

RESULTS = ("log_z", "energy", "variance")

_case: Callable[..., Case] = partial(row_case, "thermodynamics")

CASES = (
    *(_case(37, 1031, dtype) for dtype in DTYPES),
    *(_case(70, 128, dtype) for dtype in ("float32", "bfloat16")),
    *(
        _case(5, 512, scenario=scenario)
        for scenario in (*BETAS, "outliers", "shifted", "infinities", "nan", "expanded")
    ),
    *(_case(67, 300, scenario=scenario) for scenario in ("transposed", "sliced", "unaligned", "negative unaligned")),
    _case(3, 70001, scenario="split"),
    _case(2, 70000, "float16", "split"),
    _case(1, 70003, scenario="beta-zero far split"),
    _case(3, 4, scenario="equal"),
    _case(9, 1),
    _case(4, 0),
    _case(0, 7),
    _case(1024, 1024, purpose="bench"),
    *(
        _case(rows, columns, dtype, purpose="bench", preset=preset)
        for dtype, preset in (("float32", "quick"), ("bfloat16", "full"))
        for rows, columns in ((1 << 20, 128), (1 << 12, 1 << 15), (1, 1 << 27))
    ),
    _case(1, 1 << digits.HIDDEN_UNITS, "float32", "digits log Z", purpose="real"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Rows as for log-sum-exp; in the scenario ``equal`` the elements of a row are equal."""
    x = rows_of(case, device)
    if case.scenario == "equal":
        x = x[:, :1].expand(x.shape).contiguous()
    return {"x": x, "dim": 1, "beta": beta_of(case)}


def make_outputs(inputs: Inputs) -> Tensors:
    x = inputs["x"]
    return {name: x.new_empty(x.shape[0], dtype=accumulation_dtype(x.dtype)) for name in RESULTS}


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The bounds in the docstring of `thermodynamics`, for chunks of up to 32 elements, and the bound of log-sum-exp.

    The variance within a chunk of m <= 32 elements is a difference, which magnifies errors by m. Its three sums and
    products have up to 12 consecutive roundings each: 36 m u Var. Flushed weights are below the smallest normal number.
    """
    x, beta = inputs["x"].double(), inputs["beta"]
    finfo = torch.finfo(accumulation_dtype(inputs["x"].dtype))
    u, n = finfo.eps / 2, x.shape[1]
    if not n:
        empty = x.new_zeros(len(x))
        special = (empty - torch.inf, empty + torch.nan, empty + torch.nan)
        return {name: Expected(value, 0.0) for name, value in zip(RESULTS, special, strict=True)}
    log_z, energy, variance = reference.thermodynamics(x, 1, beta)
    best = (x.amin(1) if beta < 0 else x.amax(1)).nan_to_num()
    weights = torch.exp((x - best[:, None]) * beta)
    p, seen = weights / weights.sum(1, keepdim=True), weights > 0
    distance = torch.where(seen, x - best[:, None], 0.0)
    off = torch.where(seen, x + energy[:, None], 0.0)  # from the mean
    r = 32 + 4 * math.log(n)
    weight_error = u * (4 * abs(beta) * distance.abs() + r)
    mean_distance, squares = (p * distance).sum(1).abs(), (p * distance**2).sum(1)
    flushed = finfo.smallest_normal * n
    bounds = {
        "log_z": 2 * u * (log_z.abs() + (best * beta).abs() + math.log(n) + 1),
        "energy": (p * weight_error * off.abs()).sum(1) + u * (r * mean_distance + energy.abs())
        + flushed * distance.abs().amax(1),
        "variance": (p * weight_error * (off**2 + variance[:, None])).sum(1)
        + 2 * u * variance.sqrt() * (r * mean_distance + squares.sqrt()) + 36 * 32 * u * variance
        + (u * r * mean_distance) ** 2 + flushed * distance.abs().amax(1) ** 2,
    }  # fmt: skip
    values = {"log_z": log_z, "energy": energy, "variance": variance}
    return {name: Expected(values[name], bounds[name].nan_to_num(0.0, 0.0, 0.0)) for name in RESULTS}


def cost(case: Case) -> Cost:
    elements, rows = math.prod(case.sizes.values()), case.sizes["rows"]
    size, wide = case.torch_dtype.itemsize, accumulation_dtype(case.torch_dtype).itemsize
    return Cost(elements, "elements", elements * size, 3 * rows * wide, 8 * elements, special_calls=elements)


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    out: tuple[Tensor, Tensor, Tensor] = (outputs["log_z"], outputs["energy"], outputs["variance"])

    run = prepared(thermodynamics, inputs["x"], inputs["dim"], inputs["beta"], out=out, backend=backend)

    def launch() -> Tensors:
        run()
        return outputs

    return launch


OPERATION = Operation(
    name="thermodynamics",
    summary="Log Z, mean and variance of the energy of each row from one read: F, U, S and C.",
    formula="log Z = log sum_i exp(beta x_i); U = sum_i p_i E_i; Var = sum_i p_i (E_i - U)^2; E = -x",
    source="T. Chan, G. Golub, R. LeVeque, Am. Stat. 37 (1983) 242; E. Schubert, M. Gertz, SSDBM 2018",
    kind="map",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.thermodynamics", note=ACCESS
)
