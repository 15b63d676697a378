"""Shared by the Langevin updates `sgld`, `psgld` and `sghmc`: lists of tensors, bounds on one update, its cost, cases.

Tensors are named ``parameter_i`` and ``gradient_i``, and ``square_i`` or ``momentum_i`` if the scheme has a state.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Unpack

import torch
from boltzbench import harness
from boltzbench.harness import (
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
from boltzbench.kernels.sgld import computing_dtype, noise, rounded_stochastically, rounding_bits
from boltzbench.plugins.support import operations
from torch import Tensor

MIXED = ("float32", "float64", "bfloat16", "float16")
"""The dtypes of the tensors of a ``mixed`` case, in turn."""
TEMPERATURES = {"cold": 0.0, "hot": 25.0}
ACCESS = "accesses of 128 bits for tensors that begin at multiples of 16 bytes, else element by element"
STOCHASTIC = "stochastic"
"""The scenario with stochastic rounding of bfloat16 parameters."""


@dataclass(frozen=True)
class Terms:
    """One update in float64: the new position and state, and the error of either in units of roundoff."""

    position: Tensor
    error: Tensor
    state: Tensor | None = None
    state_error: Tensor | None = None


Formula = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, Inputs], Terms]
"""``(x, g, state, xi, radius, inputs)``, with ``xi`` the normals and ``radius`` their Box-Muller radii."""


@dataclass(frozen=True)
class Scheme:
    """An update: its public function, its formula, the name of its state, and its additional numbers."""

    operation: str
    update: Callable[..., None]
    formula: Formula
    state: str = ""
    special_calls: int = 2
    numbers: Mapping[str, float] = field(default_factory=dict)


def case(
    operation: str, tensors: int, elements: int, dtype: str = "float32", scenario: str = "", **more: Unpack[CaseOptions]
) -> Case:
    return Case(operation, {"tensors": tensors, "elements": elements}, dtype, scenario, **more)


def tensors(inputs: Mapping[str, Any], name: str) -> list[Tensor]:
    count = sum(1 for key in inputs if key.startswith(f"{name}_"))
    return [inputs[f"{name}_{index}"] for index in range(count)]


def numbers_of(scheme: Scheme, chosen: Case) -> dict[str, Any]:
    """All inputs that are not tensors."""
    inputs = {"step_size": 0.01, "temperature": TEMPERATURES.get(chosen.scenario, 0.5), **scheme.numbers}
    inputs |= {"seed": chosen.seed + (1 << 63), "step": operations.moved(5, chosen)}
    return inputs | ({"rounding": STOCHASTIC} if chosen.scenario == STOCHASTIC else {})


def make_inputs(scheme: Scheme, chosen: Case, device: torch.device) -> Inputs:
    """Random tensors; if there are several, their sizes differ."""
    generator = torch.Generator(device).manual_seed(chosen.seed)
    random = partial(torch.randn, generator=generator, device=device)
    inputs = numbers_of(scheme, chosen)
    for index in range(chosen.sizes["tensors"]):
        elements = max(0, chosen.sizes["elements"] - 7 * index)
        dtype = getattr(torch, MIXED[index % len(MIXED)]) if chosen.scenario == "mixed" else chosen.torch_dtype
        x, g = random(elements).to(dtype), (3.0 * random(elements)).to(dtype)
        if chosen.scenario == "outliers":
            x[::11] *= 1e6
            g[::13] *= 1e6
        if chosen.scenario == "nan":
            g[::5], g[1::5] = torch.nan, torch.inf
        if chosen.scenario == "unaligned":
            x, g = torch.cat((x[:1], x))[1:], torch.cat((g[:3], g))[3:]
        if chosen.scenario == "expanded":
            g = g[:1].expand(elements)
        inputs |= {f"parameter_{index}": x, f"gradient_{index}": g}
        if scheme.state:
            state = 0.1 * random(elements).to(computing_dtype(dtype))
            inputs[f"{scheme.state}_{index}"] = state.square() if scheme.state == "square" else state
    return inputs


def make_outputs(scheme: Scheme, inputs: Inputs) -> Tensors:
    """Parameters and their states, which are updated in place."""
    names = ["parameter", *([scheme.state] if scheme.state else [])]
    return {
        f"{name}_{index}": torch.empty_like(x, memory_format=torch.contiguous_format)
        for name in names
        for index, x in enumerate(tensors(inputs, name))
    }


def expected(scheme: Scheme, inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The update in float64 with the noise of the stream.

    Bound: the roundings that the formula counts; an error of at most ``12 u r`` of a normal, with r the Box-Muller
    radius (``philox.cuh``); one rounding to a 16-bit parameter. For given bits, stochastic rounding is monotonic in the
    value: it rounds anything within the bound to a number between the rounded ends, which nearly always are the same.
    """
    results = {}
    for index, (x, g) in enumerate(zip(tensors(inputs, "parameter"), tensors(inputs, "gradient"), strict=True)):
        wide = computing_dtype(x.dtype)
        u, u_out = torch.finfo(wide).eps / 2, torch.finfo(x.dtype).eps / 2 if x.dtype != wide else 0.0
        groups_of_four = -(-x.numel() // 4) * 4
        z = noise(groups_of_four, wide, inputs["seed"], inputs["step"], index, x.device)
        radius = z.view(-1, 2).norm(dim=1).repeat_interleave(2)[: x.numel()].view_as(x)
        z = z[: x.numel()].view_as(x)
        state = inputs[f"{scheme.state}_{index}"].double() if scheme.state else None
        terms = scheme.formula(x.double(), g.double(), state, z, radius, inputs)
        error = u * terms.error + torch.finfo(x.dtype).smallest_normal
        if inputs.get("rounding") == STOCHASTIC and x.dtype is torch.bfloat16:
            bits = rounding_bits(x.numel(), inputs["seed"], inputs["step"], index, x.device).view_as(x)
            ends = [(terms.position + side * error).float() for side in (-1, 1)]
            low, high = (rounded_stochastically(end, bits).double() for end in ends)
            finite = terms.position.isfinite()
            value = torch.where(finite, (low + high) / 2, terms.position)
            error = (high - low) / 2
        else:
            value = terms.position
            error = error + u_out * value.abs()
        results[f"parameter_{index}"] = Expected(value, error.nan_to_num(nan=0.0, posinf=0.0))
        if terms.state is not None and terms.state_error is not None:
            bound = u * terms.state_error + torch.finfo(wide).smallest_normal
            results[f"{scheme.state}_{index}"] = Expected(terms.state, bound.nan_to_num(nan=0.0, posinf=0.0))
    return results


def sizes(chosen: Case) -> list[tuple[int, torch.dtype]]:
    """Elements and dtype of each tensor."""
    dtypes = MIXED if chosen.scenario == "mixed" else (chosen.dtype,)
    return [
        (max(0, chosen.sizes["elements"] - 7 * index), getattr(torch, dtypes[index % len(dtypes)]))
        for index in range(chosen.sizes["tensors"])
    ]


def cost(scheme: Scheme, chosen: Case, of: list[tuple[int, torch.dtype]] | None = None) -> Cost:
    """``of``: elements and dtype of each tensor, if they are not those of `sizes`."""
    lists = sizes(chosen) if of is None else of
    elements = sum(count for count, _ in lists)
    size = sum(count * dtype.itemsize for count, dtype in lists)
    states = sum(count * computing_dtype(dtype).itemsize for count, dtype in lists) if scheme.state else 0
    noisy = TEMPERATURES.get(chosen.scenario, 0.5) > 0
    rounding = sum(count for count, dtype in lists if dtype is torch.bfloat16) if chosen.scenario == STOCHASTIC else 0
    return Cost(
        items=elements,
        unit="parameters",
        bytes_read=2 * size + states,
        bytes_written=size + states,
        flops=(8 if scheme.state else 4) * elements,
        random_words=(elements if noisy else 0) + rounding // 2,
        special_calls=scheme.special_calls * elements if noisy else 0,
    )


def prepare(scheme: Scheme, backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    states = [tensors(outputs, scheme.state)] if scheme.state else []
    run = partial(
        scheme.update, tensors(outputs, "parameter"), tensors(inputs, "gradient"), *states, inputs["step_size"],
        inputs["temperature"], seed=inputs["seed"], rounding=inputs.get("rounding", "nearest"),
        backend=backend, **{name: inputs[name] for name in scheme.numbers},
    )  # fmt: skip

    def launch() -> Tensors:
        run(step=inputs["step"])
        return outputs

    return launch


def noise_scale(inputs: Inputs) -> float:
    """``sqrt(step size * temperature)``."""
    return math.sqrt(inputs["step_size"] * inputs["temperature"])


CHAINS = 100_000


def standard_normal(scores: Tensor, what: str, false_alarm: float) -> list[Agreement]:
    """Test independent standard normal scores: mean 0, variance 1, and uncorrelated neighbours."""
    n, each, square = len(scores), false_alarm / 3, float(scores.square().mean())
    return [
        harness.within(float(scores.mean()), 0.0, n**-0.5, what=f"mean of {what}", false_alarm=each),
        harness.within(square, 1.0, (2 / n) ** 0.5, what=f"variance of {what}", false_alarm=each),
        uncorrelated(scores[0 : n - 1 : 2], scores[1:n:2], f"neighbours' {what}", each),
    ]


def uncorrelated(scores: Tensor, others: Tensor, what: str, false_alarm: float) -> Agreement:
    """Test that the covariance of independent standard normal scores is 0."""
    products = scores * others
    return harness.within(
        float(products.mean()), 0.0, len(products) ** -0.5, what=f"covariance of {what}", false_alarm=false_alarm
    )


def _cases(operation: str) -> tuple[Case, ...]:
    return (
        *(case(operation, 1, 2051, dtype) for dtype in MIXED),
        *(case(operation, 1, 4097, scenario=scenario) for scenario in ("cold", "nan", "unaligned")),
        case(operation, 1, 4097, "bfloat16", "stochastic"),
        case(operation, 9, 1031, scenario="mixed"),
        *(case(operation, 1, elements) for elements in (0, 1, 4096)),
        case(operation, 1, 1 << 22, purpose="bench"),
        *(
            case(operation, tensors, elements, dtype, scenario, purpose="bench", preset="full")
            for dtype, scenario in (("float32", ""), ("bfloat16", "stochastic"))
            for tensors, elements in ((1, 1 << 27), (200, 1 << 19))
        ),
    )


def operation(scheme: Scheme, summary: str, formula: str, source: str, law: Law) -> Operation:
    return Operation(
        name=scheme.operation,
        summary=summary,
        formula=formula,
        source=source,
        kind="sampler",
        cases=_cases(scheme.operation),
        make_inputs=partial(make_inputs, scheme),
        make_outputs=partial(make_outputs, scheme),
        reference=partial(expected, scheme),
        cost=partial(cost, scheme),
        case=partial(case, scheme.operation),
        laws=(law,),
        moving=("step",),
    )


def hooks(operation: Operation, scheme: Scheme, kind: str) -> tuple[operations.Hook, operations.Hook]:
    """The hooks of ``operation``; ``kind`` is the name that `boltzbench.kernels.sgld` has for the scheme."""
    return operations.operation_hooks(operation, partial(prepare, scheme), "boltzbench.kernels.sgld", kind, note=ACCESS)
