"""The operation ``logsumexp``, forward and backward, and its three implementations."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

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
from boltzbench.kernels.logsumexp import accumulation_dtype, logsumexp, logsumexp_backward, reference
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.operations import operation_hooks
from boltzbench.plugins.support.rows import (
    ACCESS,
    BETAS,
    DTYPES,
    beta_of,
    exponent_roundings,
    roundoffs,
    row_case,
    row_sums,
    rows_of,
    smallest_kept,
)
from torch import Tensor

BOLTZBENCH_API = 1

SHAPES = ((1 << 20, 128), (1 << 16, 2048), (1 << 12, 1 << 15), (1 << 10, 1 << 17), (1, 1 << 27))
LARGE_SHAPES = ((1 << 12, 1 << 17), (1, 1 << 30))
"""From many short rows to one long row: a few lanes, a warp, a block or several blocks take a row."""

_case: Callable[..., Case] = partial(row_case, "logsumexp")

CASES = (
    *(_case(37, 1031, dtype) for dtype in DTYPES),
    *(_case(37, 1031, dtype, "backward") for dtype in DTYPES),
    *(
        _case(5, 512, scenario=scenario)
        for scenario in (*BETAS, "outliers", "shifted", "infinities", "nan", "expanded")
    ),
    *(
        _case(67, 300, scenario=scenario)
        for scenario in ("transposed", "sliced", "unaligned", "transposed backward", "cold backward")
    ),
    *(_case(14, 67, dtype, f"level{pass_}") for dtype in DTYPES for pass_ in ("", " backward")),
    *(_case(14, 67, scenario=f"{beta} level backward") for beta in ("cold", "negative")),
    _case(3, 70001, scenario="split"),
    _case(2, 70000, "float16", "split"),
    _case(1, 70003, scenario="split remainder"),
    _case(1, 4103, scenario="remainder"),
    *(_case(70, 128, dtype, scenario) for dtype in ("float32", "bfloat16") for scenario in ("", "backward")),
    _case(2001, 3, scenario="short"),
    _case(1, 1),
    _case(4, 0),
    _case(0, 7),
    *(_case(3, columns) for columns in (31, 33, 255, 257, 4095, 4097)),
    _case(1024, 1024, purpose="bench"),
    _case(1024, 1024, "float32", "backward", purpose="bench"),
    *(
        _case(rows, columns, dtype, scenario, purpose="bench", preset=preset)  # at least 256 MB each
        for dtype, scenario, preset in (
            ("float32", "", "quick"),
            ("bfloat16", "", "quick"),
            ("float32", "backward", "quick"),
            ("float16", "", "full"),
            ("float64", "", "full"),
            ("bfloat16", "backward", "full"),
            ("float64", "backward", "full"),
        )
        for rows, columns in SHAPES
    ),
    *(
        _case(rows, columns, dtype, scenario, purpose="bench", preset="full")
        for dtype in ("float32", "bfloat16")
        for scenario in ("", "backward")
        for rows, columns in LARGE_SHAPES
        if columns < 1 << 30 or not scenario  # the gradient's reference holds many tensors, of 8 GB each there
    ),
    _case(2048, 65536, "float32", "transposed", purpose="bench", preset="full"),
    _case(1, 1 << digits.HIDDEN_UNITS, "float32", "digits log Z", purpose="real"),
    _case(10, digits.IMAGES // 10, "float32", "digits free energies", purpose="real"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    x, words = rows_of(case, device), case.scenario.split()
    inputs: dict[str, Any] = {"x": x, "dim": 1, "beta": beta_of(case)}
    if "backward" in words:
        generator = torch.Generator(device).manual_seed(case.seed + 1)
        inputs |= row_sums(x, inputs["beta"]) | {"apart": "level" in words}
        inputs["grad"] = torch.randn(len(x), generator=generator, device=device).to(x.dtype)
    return inputs


def make_outputs(inputs: Inputs) -> Tensors:
    x = inputs["x"]
    if "grad" in inputs:
        return {"dx": torch.empty_like(x, memory_format=torch.contiguous_format)}
    return {"y": x.new_empty(x.shape[0])}


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """Forward: ``2u (|y| + |max| + ln n + 1)``, from rounding the scaled maximum, the logarithm and their sum.

    Backward: the roundings of the exponent (`exponent_roundings`) are a relative error of the result, and eight more
    roundings follow. Results below the smallest normal number may be flushed.
    """
    x, beta = inputs["x"].double(), inputs["beta"]
    u, u_out = roundoffs(inputs["x"].dtype)
    if "grad" not in inputs:
        y = reference.logsumexp(x, 1, beta)
        n = x.shape[1]
        largest = ((x.amax(1) if beta > 0 else x.amin(1)) * beta).abs() if n else torch.zeros_like(y)
        bound = 2 * u * (y.abs() + largest + math.log(max(n, 1)) + 1) + u_out * y.abs()
        return {"y": Expected(y, torch.nan_to_num(bound, nan=0.0, posinf=0.0))}
    grad = inputs["grad"].double()
    dx = reference.gradient(grad, x, inputs["log_total"].double(), inputs["peak"].double(), 1, beta)
    relative = u * (exponent_roundings(x, beta, inputs) + 8) + u_out
    flushed = smallest_kept(inputs["x"].dtype) * (1.0 + grad.abs()[:, None])
    return {"dx": Expected(dx, dx.abs() * relative + flushed)}


def cost(case: Case) -> Cost:
    elements, rows = math.prod(case.sizes.values()), case.sizes["rows"]
    size = case.torch_dtype.itemsize
    if "backward" in case.scenario:
        row_bytes = rows * (size + 2 * accumulation_dtype(case.torch_dtype).itemsize)
        return Cost(
            elements, "elements", elements * size + row_bytes, elements * size, 4 * elements, special_calls=elements
        )
    return Cost(elements, "elements", elements * size, rows * size, 4 * elements, special_calls=elements)


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    x, dim, beta = inputs["x"], inputs["dim"], inputs["beta"]
    run: Callable[[], Tensor]
    if "grad" in inputs:
        arguments = (inputs["grad"], x, inputs["log_total"], dim, beta)
        run = prepared(logsumexp_backward, *arguments, peak=inputs["peak"], out=outputs["dx"], backend=backend)
    else:
        run = prepared(logsumexp, x, dim, beta, out=outputs["y"], backend=backend)

    def launch() -> Tensors:
        run()
        return outputs

    return launch


OPERATION = Operation(
    name="logsumexp",
    summary="The logarithm of a partition function for each row, and its gradient.",
    formula="y = log sum_i exp(beta x_i); dy/dx_i = beta exp(beta x_i - y)",
    source="Blanchard, Higham, Higham, IMA J. Numer. Anal. 41 (2021)",
    kind="map",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.logsumexp", note=ACCESS
)
