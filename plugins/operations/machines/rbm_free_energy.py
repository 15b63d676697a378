"""The operation ``rbm_free_energy``: the free energy of each chain of a restricted Boltzmann machine."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack

import torch
from boltzbench.harness import (
    Advance,
    Agreement,
    Case,
    CaseOptions,
    Cost,
    Expected,
    Inputs,
    Launch,
    Law,
    Operation,
    Tensors,
)
from boltzbench.kernels.common.prepared import prepared
from boltzbench.kernels.rbm_free_energy import free_energy, free_energy_reference
from boltzbench.plugins.exact.rbm import LOG_Z, fixture
from boltzbench.plugins.exact.states import all_units
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.machines import BETAS, NOTE, PARTS, fields_and_errors, near_log_z, random_weights
from boltzbench.plugins.support.operations import operation_hooks
from torch import Tensor

BOLTZBENCH_API = 1


def _case(
    chains: int, visible: int, hidden: int, dtype: str = "float32", scenario: str = "", **more: Unpack[CaseOptions]
) -> Case:
    sizes = {"chains": chains, "visible": visible, "hidden": hidden}
    return Case("rbm_free_energy", sizes, dtype, scenario, **more)


CASES = (
    *(_case(70, 100, 17, dtype) for dtype in PARTS),
    *(_case(65, 33, 130, scenario=scenario) for scenario in (*BETAS, "betas", "transposed", "sliced", "outliers")),
    *(_case(40, 130, 70, dtype, "outliers") for dtype in ("float16", "bfloat16")),
    _case(40, 2, 1, scenario="outliers"),  # with few terms, the last part of a weight exceeds the bound
    _case(5, 1, 1),
    _case(17, 64, 64, "bfloat16", "betas"),
    _case(4, 6, 0),
    _case(4, 0, 6),
    _case(0, 6, 3),
    _case(520, 12, 40),
    _case(256, 64, 64, purpose="bench"),
    *(_case(64, 784, 500, dtype, purpose="bench", preset="quick") for dtype in ("float32", "bfloat16")),
    *(_case(8192, 1024, 1024, dtype, purpose="bench", preset="quick") for dtype in ("float32", "bfloat16")),
    *(
        _case(8192, n, n, dtype, purpose="bench", preset="full")
        for n, dtype in ((1024, "float16"), (256, "bfloat16"), (4096, "float32"), (4096, "bfloat16"))
    ),
    _case(digits.IMAGES, digits.PIXELS, digits.HIDDEN_UNITS, scenario="digits", purpose="real", preset="quick"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Weights as `random_weights`, biases of scale 1, and states that are 1 with probability 0.62."""
    chains, visible, hidden = (case.sizes[name] for name in ("chains", "visible", "hidden"))
    generator = torch.Generator(device).manual_seed(case.seed)
    random = partial(torch.randn, generator=generator, device=device)
    if case.scenario == "digits":
        weights, visible_bias, hidden_bias = (part.to(device) for part in digits.machine())
        states = digits.resampled(digits.binary_images(), case.seed).to(device)
    else:
        weights = random_weights(case, random)
        visible_bias, hidden_bias = random(visible), random(hidden)
        states = (random(chains, visible) < 0.3).to(torch.uint8)
    if case.scenario == "sliced":
        weights, states = torch.cat((weights, weights), 1)[:, ::2], torch.cat((states, states), 1)[:, ::2]
    dtype = case.torch_dtype
    beta: float | Tensor = BETAS.get(case.scenario, 1.0)
    if case.scenario == "betas":
        beta = torch.linspace(0.1, 3.0, chains, dtype=torch.float64, device=device)
    return {
        "states": states,
        "weights": weights.to(dtype),
        "visible_bias": visible_bias.to(dtype),
        "hidden_bias": hidden_bias.to(dtype),
        "beta": beta,
    }


def make_outputs(inputs: Inputs) -> Tensors:
    states = inputs["states"]
    return {"free_energy": states.new_empty(len(states), dtype=torch.float32)}


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The bound, with u = 2**-24, fields x within e (`fields_and_errors`), and s the softplus of z = beta x, is

        sum_j sigmoid(z_j) e_j + 16 u hidden / beta + u (hidden + 8) sum_j s_j / beta
        + u (visible + 8) sum_i v_i |b_i|

    The slope of the softplus is the logistic function, taken at the largest field within the error. A unit's own
    arithmetic is an ex2 (2 ulp of at most 1), a sum, a product and its share of one lg2: 16u / beta. Then the sum over
    units, in any order, and the biases.
    """
    states, beta, u = inputs["states"].double(), inputs["beta"], 2.0**-24
    weights, visible_bias, hidden_bias = (inputs[name].double() for name in ("weights", "visible_bias", "hidden_bias"))
    value = free_energy_reference(states, weights, visible_bias, hidden_bias, beta)
    scale = beta[:, None] if isinstance(beta, Tensor) else torch.tensor([[beta]], dtype=torch.float64)
    scale = scale.to(states.device)
    x, e = fields_and_errors(inputs["states"], inputs["weights"], inputs["hidden_bias"])
    softplus = torch.nn.functional.softplus(scale * x, threshold=100.0)
    hidden = weights.shape[1]
    bound = (
        (torch.sigmoid(scale * (x + e)) * e).sum(1)
        + (16 * u * hidden + u * (hidden + 8) * softplus.sum(1)) / scale[:, 0]
        + u * (len(weights) + 8) * (states @ visible_bias.abs())
    )
    return {"free_energy": Expected(value, bound)}


def cost(case: Case) -> Cost:
    """On tensor cores a float32 weight takes three bfloat16 products."""
    chains, visible, hidden = (case.sizes[name] for name in ("chains", "visible", "hidden"))
    flops = 2 * chains * visible * hidden * PARTS[case.dtype]
    parameters = (visible * hidden + visible + hidden) * case.torch_dtype.itemsize
    return Cost(
        items=chains,
        unit="chains",
        bytes_read=chains * visible + parameters,
        bytes_written=4 * chains,
        flops=flops,
        matrix_flops=flops,
        matrix_dtype="bfloat16",
        special_calls=chains * hidden,
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    run = prepared(
        free_energy, inputs["states"], inputs["weights"], inputs["visible_bias"], inputs["hidden_bias"],
        inputs["beta"], out=outputs["free_energy"], check_values=False, backend=backend,
    )  # fmt: skip

    def launch() -> Tensors:
        run()
        return outputs

    return launch


def sums_to_the_partition_function(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """``log sum_v exp(-F(v))`` over all visible states is the known log Z of `fixture`."""
    inputs: dict[str, Any] = {name: part.float().to(device) for name, part in fixture().items()}
    found = advance({**inputs, "states": all_units(10, device), "beta": 1.0})["free_energy"]
    # Parameters are rounded to float32, fields and sums have at most 20 terms: the error of F, about 16, is 100 u.
    return near_log_z(float(torch.logsumexp(-found.double().cpu(), 0)), LOG_Z, 100 * 2.0**-24 * 16)


OPERATION = Operation(
    name="rbm_free_energy",
    summary="The free energy of each chain of a restricted Boltzmann machine.",
    formula="F(v) = -b.v - (1/beta) sum_j log(1 + exp(beta (c_j + sum_i v_i W_ij)))",
    source="Hinton, UTML TR 2010-003",
    kind="map",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    laws=(Law("partition function", "exp(-F) over all states adds up to Z", sums_to_the_partition_function),),
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.rbm_free_energy", note=NOTE
)
