"""The operation ``fermi_dirac``: the occupation of independent levels, judged element by element."""

from typing import Unpack

import torch
from boltzbench.harness import Case, CaseOptions, Cost, Expected, Inputs, Launch, Operation, Tensors
from boltzbench.kernels.fermi_dirac import fermi_dirac
from boltzbench.plugins.support.operations import operation_hooks

BOLTZBENCH_API = 1


def _case(levels: int, scenario: str = "", **more: Unpack[CaseOptions]) -> Case:
    return Case("fermi_dirac", {"levels": levels}, "float32", scenario, **more)


CASES = (
    *(_case(levels) for levels in (1, 0, 1023, 1024, 5003)),
    _case(4099, "cold"),
    _case(515, "infinities"),
    _case(1 << 16, purpose="bench"),
    _case(1 << 28, purpose="bench", preset="quick"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Standard normal numbers; ``cold``: 40 times as large; ``infinities``: some infinite, some NaN."""
    generator = torch.Generator(device).manual_seed(case.seed)
    x = torch.randn(case.sizes["levels"], generator=generator, device=device)
    if case.scenario == "cold":
        x *= 40
    if case.scenario == "infinities":
        x[::3], x[1::5], x[2::7] = torch.inf, -torch.inf, torch.nan
    return {"x": x}


def make_outputs(inputs: Inputs) -> Tensors:
    return {"y": torch.empty_like(inputs["x"])}


def reference(inputs: Inputs, outputs: Tensors) -> dict[str, Expected]:
    """``exp`` as a power of two rounds the product with log2(e), so that its relative error is 2 |x| u at most, with
    u the unit roundoff; the functions' own errors and three roundings are less than 8 u. Tiny results may become 0."""
    x = inputs["x"].double()
    y = torch.sigmoid(x)
    precision = torch.finfo(torch.float32)
    bound = precision.eps / 2 * (8 + 2 * x.abs()) * y + precision.smallest_normal
    return {"y": Expected(y, bound.nan_to_num(nan=0.0, posinf=0.0))}


def cost(case: Case) -> Cost:
    n = case.sizes["levels"]
    return Cost(items=n, unit="levels", bytes_read=4 * n, bytes_written=4 * n, flops=2 * n, special_calls=2 * n)


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        return {"y": fermi_dirac(inputs["x"], out=outputs["y"], backend=backend)}

    return launch


OPERATION = Operation(
    name="fermi_dirac",
    summary="Fermi-Dirac occupation of independent levels.",
    formula="y = 1 / (1 + exp(-x)), x = (mu - E) / T",
    source="Fermi 1926, Dirac 1926",
    kind="map",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=reference,
    cost=cost,
    case=_case,
)

register_operations, register_implementations = operation_hooks(OPERATION, prepare, "boltzbench.kernels.fermi_dirac")
