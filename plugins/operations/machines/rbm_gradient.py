"""The operation ``rbm_gradient``: the gradient of a restricted Boltzmann machine's log-likelihood."""

import math
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
    Status,
    Tensors,
)
from boltzbench.kernels.common.prepared import prepared
from boltzbench.kernels.rbm_gradient import Gradient, hidden_probabilities, log_likelihood_gradient, statistics
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.machines import BETAS, NOTE, PARTS, fields_and_errors, random_weights
from boltzbench.plugins.support.operations import operation_hooks
from torch import Tensor

BOLTZBENCH_API = 1

RESULTS = ("weights_gradient", "visible_bias_gradient", "hidden_bias_gradient")
"""In the order of `Gradient`. An output with the name of an input would be a state, so these end in ``_gradient``."""
MOST_PARTS = 128
"""Parts that the kernels split chains into, at most."""


def _case(
    data: int,
    model: int,
    visible: int,
    hidden: int,
    dtype: str = "float32",
    scenario: str = "",
    **more: Unpack[CaseOptions],
) -> Case:
    sizes = {"data": data, "model": model, "visible": visible, "hidden": hidden}
    return Case("rbm_gradient", sizes, dtype, scenario, **more)


CASES = (
    *(_case(70, 41, 100, 17, dtype) for dtype in PARTS),
    *(_case(65, 33, 33, 70, scenario=scenario) for scenario in (*BETAS, "states", "sampled model", "transposed")),
    _case(40, 40, 20, 30, scenario="outliers"),
    _case(300, 700, 18, 21),
    _case(513, 600, 18, 21, scenario="states"),
    _case(2, 1, 3, 40, scenario="sampled model"),  # with few chains, the last part of a probability exceeds the bound
    _case(1, 1, 1, 1),
    _case(3, 2, 4, 0),
    _case(3, 2, 0, 4),
    _case(256, 256, 64, 64, purpose="bench"),
    *(
        _case(64, 64, 784, 500, scenario=scenario, purpose="bench", preset="quick")
        for scenario in ("", "sampled model")
    ),
    *(_case(8192, 8192, 1024, 1024, scenario=scenario, purpose="bench", preset="quick") for scenario in ("", "states")),
    *(
        _case(8192, 8192, 1024, 1024, dtype, scenario, purpose="bench", preset="full")
        for dtype, scenario in (("bfloat16", ""), ("float32", "sampled model"))
    ),
    _case(digits.IMAGES, 100, digits.PIXELS, digits.HIDDEN_UNITS, scenario="digits", purpose="real", preset="quick"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Visible states, and hidden units by scenario.

    ``states`` gives hidden states for all chains, ``sampled model`` gives hidden probabilities for the model's chains,
    as `gibbs` returns them. Other hidden probabilities are left to the implementation.
    """
    data_chains, model_chains, visible, hidden = (case.sizes[name] for name in ("data", "model", "visible", "hidden"))
    generator = torch.Generator(device).manual_seed(case.seed)
    random = partial(torch.randn, generator=generator, device=device)
    data = (random(data_chains, visible) < 0.3).to(torch.uint8)
    model = (random(model_chains, visible) < -0.3).to(torch.uint8)
    if case.scenario == "digits":
        weights, _, hidden_bias = (part.to(device) for part in digits.machine())
        data = digits.resampled(digits.binary_images(), case.seed).to(device)
    else:
        weights, hidden_bias = random_weights(case, random), random(hidden)
    if case.scenario == "transposed":
        data = data.t().contiguous().t()
    inputs: dict[str, Any] = {
        "data": data,
        "model": model,
        "weights": weights.to(case.torch_dtype),
        "hidden_bias": hidden_bias.to(case.torch_dtype),
        "beta": BETAS.get(case.scenario, 1.0),
    }
    if case.scenario == "states":
        inputs["data_hidden"] = (random(data_chains, hidden) < 0.5).to(torch.uint8)
        inputs["model_hidden"] = (random(model_chains, hidden) < 0.0).to(torch.uint8)
    if case.scenario == "sampled model":
        inputs["model_hidden"] = torch.sigmoid(random(model_chains, hidden))
    return inputs


def make_outputs(inputs: Inputs) -> Tensors:
    visible, hidden = inputs["weights"].shape
    shapes = ((visible, hidden), (visible,), (hidden,))
    return {
        name: inputs["weights"].new_empty(shape, dtype=torch.float32)
        for name, shape in zip(RESULTS, shapes, strict=True)
    }


def _phase(inputs: Inputs, name: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The means of one phase, and bounds of their errors from the probabilities and from the sums.

    The error of a computed probability is a quarter of its field's error, plus 4u. The relative error of a sum of n
    probabilities is 6 n u on tensor cores, with three parts each, and n u elsewhere; sums of states are exact. Adding
    up to n parts takes one rounding for each part; means and their difference take 8.
    """
    visible, hidden, u = inputs[name], inputs.get(f"{name}_hidden"), 2.0**-24
    beta, chains = inputs["beta"], len(visible)
    off = torch.zeros((), dtype=torch.float64, device=visible.device)
    if hidden is None:
        _, e = fields_and_errors(visible, inputs["weights"], inputs["hidden_bias"])
        off = (beta * e / 4).clamp(max=1.0) + 4 * u
        hidden = hidden_probabilities(visible, inputs["weights"].double(), inputs["hidden_bias"].double(), beta)
    exact = hidden.dtype is torch.uint8
    h = hidden.double()
    means = statistics(visible, h)
    h_off = off.expand(h.shape)
    products, _, alone = statistics(visible, h_off)
    added = u * (8 + min(chains, MOST_PARTS))
    return means, (
        products + (added + u * (0 if exact else 6 * chains)) * means[0],
        added * means[1],
        alone + (added + u * (0 if exact else chains)) * means[2],
    )


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The difference of two means; the bound is the sum of both bounds."""
    (data, data_off), (model, model_off) = _phase(inputs, "data"), _phase(inputs, "model")
    return {
        name: Expected(data[place] - model[place], data_off[place] + model_off[place])
        for place, name in enumerate(RESULTS)
    }


def cost(case: Case) -> Cost:
    """On tensor cores: one bfloat16 product for states, three for probabilities, and the products for the fields."""
    chains = {name: case.sizes[name] for name in ("data", "model")}
    visible, hidden = case.sizes["visible"], case.sizes["hidden"]
    given = {"data": case.scenario == "states", "model": case.scenario in ("states", "sampled model")}
    computed = sum(chains[name] for name in chains if not given[name])
    parts = 1 if case.scenario == "states" else 3
    total = sum(chains.values())
    flops = 2 * visible * hidden * (parts * total + PARTS[case.dtype] * computed)
    hidden_bytes = (1 if case.scenario == "states" else 4) * hidden * (total - computed)
    parameters = (visible * hidden + hidden) * case.torch_dtype.itemsize if computed else 0
    return Cost(
        items=total,
        unit="chains",
        bytes_read=total * visible + hidden_bytes + parameters,
        bytes_written=4 * (visible * hidden + visible + hidden),
        flops=flops,
        matrix_flops=flops,
        matrix_dtype="bfloat16",
        special_calls=2 * hidden * computed,
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    run = prepared(
        log_likelihood_gradient, inputs["data"], inputs["model"], inputs["weights"], inputs["hidden_bias"],
        inputs["beta"], data_hidden=inputs.get("data_hidden"), model_hidden=inputs.get("model_hidden"),
        out=Gradient(*(outputs[name] for name in RESULTS)), check_values=False, backend=backend,
    )  # fmt: skip

    def launch() -> Tensors:
        run()
        return outputs

    return launch


def equal_phases_cancel(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """If data and model have the same states, the gradient is exactly 0, with few chains and with many."""
    generator = torch.Generator().manual_seed(seed)
    largest = []
    for chains in (7, 900):
        states = (torch.rand(chains, 19, generator=generator) < 0.4).to(torch.uint8).to(device)
        inputs: dict[str, Any] = {
            "data": states,
            "model": states.clone(),
            "weights": torch.randn(19, 23, generator=generator).to(device),
            "hidden_bias": torch.randn(23, generator=generator).to(device),
            "beta": 1.0,
        }
        found = advance(inputs)
        largest += [float(found[name].abs().max()) for name in RESULTS]
    worst = max(largest, key=lambda error: (math.isnan(error), error))
    if worst != 0.0:
        message = f"the gradient of equal phases must be 0; its largest magnitude is {worst:.3g}"
        return Agreement(Status.WRONG_LAW, message, error=worst, bound=0.0)
    return Agreement(Status.PASSED, error=0.0, bound=0.0)


OPERATION = Operation(
    name="rbm_gradient",
    summary="The gradient of a restricted Boltzmann machine's log-likelihood, from chains of data and model.",
    formula="dW = <v h>_data - <v h>_model, db = <v>_data - <v>_model, dc = <h>_data - <h>_model",
    source="Hinton, Neural Computation 14 (2002)",
    kind="map",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    laws=(
        Law("equal phases", "where data and model are the same states, the gradient is exactly 0", equal_phases_cancel),
    ),
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.rbm_gradient", note=NOTE
)
