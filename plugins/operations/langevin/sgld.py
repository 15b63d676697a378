"""The operation ``sgld``: the Langevin update, compared element by element and with exact distributions."""

import math
from functools import partial
from typing import Any

import torch
from boltzbench import harness
from boltzbench.harness import (
    Advance,
    Agreement,
    Case,
    Cost,
    Inputs,
    Law,
    Operation,
    Status,
    Tensors,
)
from boltzbench.kernels.sgld import computing_dtype, noise, sgld_update
from boltzbench.plugins.support import digits, draws, langevin
from boltzbench.plugins.support.langevin import (
    CHAINS,
    MIXED,
    STOCHASTIC,
    TEMPERATURES,
    Scheme,
    Terms,
    noise_scale,
    tensors,
    uncorrelated,
)
from torch import Tensor

BOLTZBENCH_API = 1


def _formula(x: Tensor, g: Tensor, state: Tensor | None, xi: Tensor, radius: Tensor, inputs: Inputs) -> Terms:
    """Errors: four roundings of each term."""
    half, scale = 0.5 * inputs["step_size"], noise_scale(inputs)
    error = 4 * (x.abs() + (half * g).abs() + scale * xi.abs()) + 12 * scale * radius
    return Terms(x - half * g + scale * xi, error)


LANGEVIN = Scheme("sgld", sgld_update, _formula)
_case = partial(langevin.case, "sgld")

BENCH_SIZES = ((1, 1 << 27), (200, 1 << 19))
"""Tensors, elements of each."""

CASES = (
    *(_case(1, 5003, dtype) for dtype in MIXED),
    *(_case(1, 4097, scenario=scenario) for scenario in (*TEMPERATURES, "outliers", "nan", "unaligned", "expanded")),
    _case(1, 5003, "bfloat16", STOCHASTIC),
    _case(9, 1031, scenario="mixed"),
    _case(1, 1),
    _case(1, 0),
    *(_case(1, elements) for elements in (3, 4095, 4096, 8193)),
    _case(1, 1 << 22, purpose="bench"),
    *(
        _case(tensors, elements, dtype, purpose="bench", preset="quick")
        for dtype in ("float32", "bfloat16")
        for tensors, elements in BENCH_SIZES
    ),
    *(_case(tensors, elements, "float16", purpose="bench", preset="full") for tensors, elements in BENCH_SIZES),
    *(
        _case(tensors, elements, "bfloat16", STOCHASTIC, purpose="bench", preset="quick")
        for tensors, elements in BENCH_SIZES
    ),
    _case(2, digits.PIXELS * digits.CLASSES, scenario="digits", purpose="real"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """As `langevin.make_inputs`; or the weights of a classifier of digits and the gradient of its energy."""
    if case.scenario != "digits":
        return langevin.make_inputs(LANGEVIN, case, device)
    generator = torch.Generator(device).manual_seed(case.seed)
    shapes = ((digits.PIXELS, digits.CLASSES), (digits.CLASSES,))
    both = [0.1 * torch.randn(shape, generator=generator, device=device) for shape in shapes]
    inputs = langevin.numbers_of(LANGEVIN, case)
    for index, (x, g) in enumerate(zip(both, digits.energy_gradient(*both), strict=True)):
        inputs |= {f"parameter_{index}": x, f"gradient_{index}": g}
    return inputs


def judge_draws(inputs: Inputs, outputs: Tensors) -> Agreement:
    """Test the noise of a sampler with its own random stream, at a significance level of 1e-6.

    The difference from ``x - (eps / 2) g``, in units of ``sqrt(eps T)``, is standard normal, and independent of other
    elements, other tensors and the gradient. No element may differ by more than the largest of as many normal numbers;
    at temperature 0, by rounding only. The distribution is tested where the noise is far above rounding.
    """
    half, scale = 0.5 * inputs["step_size"], noise_scale(inputs)
    pairs = list(zip(tensors(inputs, "parameter"), tensors(inputs, "gradient"), strict=True))
    elements, one = sum(x.numel() for x, _ in pairs), 0.5e-6 / max(len(pairs), 1)
    largest = _normal_quantile(0.25e-6 / max(elements, 1))
    verdicts, before = [], torch.empty(0, dtype=torch.float64)
    for index, (x, g) in enumerate(pairs):
        name = f"parameter_{index}"
        wide = computing_dtype(x.dtype)
        u, u_out = torch.finfo(wide).eps / 2, torch.finfo(x.dtype).eps / 2 if x.dtype != wide else 0.0
        u_out *= 2 if inputs.get("rounding") == STOCHASTIC else 1
        drift = (half * g.double()).flatten()
        moved, found = x.double().flatten() - drift, outputs[name].double().flatten()
        finite = moved.isfinite()
        error = torch.where(finite, found - moved, 0.0).abs()
        magnitude = torch.where(finite, x.double().flatten().abs() + drift.abs(), 0.0) + largest * scale
        rounding = (4 * u + u_out) * magnitude + torch.finfo(x.dtype).smallest_normal
        same = (found == moved) | (found.isnan() & moved.isnan())
        wrong = torch.where(finite, ~(error <= largest * scale + rounding), ~same)
        if bool(wrong.any()):
            first = int(wrong.to(torch.uint8).argmax())
            message = f"{name}: element {first} is {found[first]:.9g}, too far from {moved[first]:.9g}"
            return Agreement(Status.WRONG_VALUES, message, error=math.inf, bound=float(largest))
        seen = torch.where(finite, scale > 20 * rounding, False)
        if not scale or not bool(seen.any()):
            continue
        scores = ((found - moved) / scale)[seen][:MOST_DRAWS]
        common = min(len(scores), len(before))
        others = {"the gradient": g.flatten()[seen][:MOST_DRAWS]}
        if common:
            earlier = torch.cat((before[:common], scores.new_zeros(len(scores) - common)))
            others[f"that of parameter_{index - 1}"] = earlier
        verdicts += draws.normal_scores(scores, f"noise of {name}", one, unrelated_to=others)
        before = scores
    passed = Agreement(Status.PASSED, "within rounding", error=0.0, bound=0.0)
    return harness.all_of(verdicts) if verdicts else passed


def _normal_quantile(tail: float) -> float:
    """The standard normal number that is exceeded with this probability."""
    return float(-torch.special.ndtri(torch.tensor(tail, dtype=torch.float64)))


def cost(case: Case) -> Cost:
    of = [(digits.PIXELS * digits.CLASSES, torch.float32), (digits.CLASSES, torch.float32)]
    return langevin.cost(LANGEVIN, case, of if case.scenario == "digits" else None)


prepare = partial(langevin.prepare, LANGEVIN)

MOST_DRAWS = 1 << 17
"""The most elements of a tensor that are tested: with more, the test would detect the rounding of 16-bit parameters."""


def quadratic_well(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """U = k x^2 / 2: the discretised chain has variance T / (k (1 - eps k / 4)), lag-1 correlation 1 - eps k / 2.

    Every element is an independent chain that starts as an exact draw, so the standard errors are those of independent
    normal draws.
    """
    stiffness, step_size, temperature, steps = 2.0, 0.3, 0.7, 3
    variance = temperature / (stiffness * (1 - step_size * stiffness / 4))
    correlation = 1 - step_size * stiffness / 2
    generator = torch.Generator().manual_seed(seed)
    x = (math.sqrt(variance) * torch.randn(CHAINS, generator=generator, dtype=torch.float64)).float().to(device)
    numbers = {"step_size": step_size, "temperature": temperature, "seed": seed}
    noises = []
    for step in range(steps):
        before = x
        x = advance({"parameter_0": x, "gradient_0": stiffness * x, "step": step, **numbers})["parameter_0"]
        noises.append((x - before * correlation).double().cpu() / math.sqrt(step_size * temperature))
    last, previous = x.double().cpu(), before.double().cpu()
    false_alarm = 1e-6 / 5
    checks = [
        harness.within(float(last.mean()), 0.0, math.sqrt(variance / CHAINS), what="mean", false_alarm=false_alarm),
        harness.within(
            float(last.square().mean()), variance, variance * math.sqrt(2 / CHAINS), what="variance",
            false_alarm=false_alarm,
        ),
        harness.within(
            float((last * previous).mean()), variance * correlation,
            variance * math.sqrt((1 + correlation**2) / CHAINS), what="lag-1 covariance", false_alarm=false_alarm,
        ),
        # Reusing noise, from step to step or between neighbours, changes no marginal distribution.
        uncorrelated(noises[0], noises[1], "the noise of two steps", false_alarm),
        uncorrelated(noises[0][0::2], noises[0][1::2], "the noise of neighbours", false_alarm),
    ]  # fmt: skip
    return harness.all_of(checks)


def unbiased_rounding(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """When bfloat16 parameters move by a part of the spacing of their numbers, the mean move is exact.

    At temperature 0, from 1 and from -3, by several parts: each element is rounded to the number above or below, with
    the probability that makes the mean exact. Numbers that bfloat16 holds stay unchanged.
    """
    spacing, step_size, parts = 2.0**-7, 0.5, (0.0, 2.0**-9, 0.25, 0.5, 0.625, 1.0)
    checks = []
    for start, step in ((1.0, 0), (-3.0, 1)):
        gap = spacing * (1 if start == 1.0 else 2)
        # Downwards, away from a power of two, where the spacing changes: from 1 + 8 spacings on.
        x = torch.full((len(parts), CHAINS), start + 8 * gap, dtype=torch.bfloat16, device=device)
        wanted = -torch.tensor(parts, dtype=torch.float64)[:, None] * gap
        g = (-2 / step_size * wanted).to(torch.bfloat16).expand(x.shape).contiguous().to(device)
        numbers = {"step_size": step_size, "temperature": 0.0, "seed": seed, "step": step, "rounding": STOCHASTIC}
        result = advance({"parameter_0": x, "gradient_0": g, **numbers})["parameter_0"]
        moved = (result.double() - x.double()).cpu() / gap
        for part, row in zip(parts, moved, strict=True):
            error = math.sqrt(part * (1 - part) / CHAINS)
            checks.append(
                harness.within(
                    float(row.mean()), -part, error, what=f"mean move of {start + 8 * gap:g} by {part:g} of a spacing",
                    false_alarm=1e-6 / (2 * len(parts)),
                )
            )  # fmt: skip
    return harness.all_of(checks)


def posterior_of_the_digits(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Bayesian logistic regression on the digits: 300 steps from zero, the predictions of the last 150 averaged.

    Compared with the same chain in float64 on the same stream: the predictive probabilities may differ by the rounding
    errors that accumulate over the run. The accuracy is reported.
    """
    step_size, steps, kept = 2.0e-4, 300, 150
    shapes = ((digits.PIXELS, digits.CLASSES), (digits.CLASSES,))
    ours = [torch.zeros(shape, device=device) for shape in shapes]
    exact = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    predicted = torch.zeros(len(digits.held_out_labels()), digits.CLASSES, dtype=torch.float64)
    wanted = torch.zeros_like(predicted)
    for step in range(steps):
        inputs: dict[str, Any] = {"step_size": step_size, "temperature": 1.0, "seed": seed, "step": step}
        for index, (x, g) in enumerate(zip(ours, digits.energy_gradient(*ours), strict=True)):
            inputs |= {f"parameter_{index}": x, f"gradient_{index}": g}
        result = advance(inputs)
        ours = [result["parameter_0"], result["parameter_1"]]
        for index, (x, g) in enumerate(zip(exact, digits.energy_gradient(*exact), strict=True)):
            xi = noise(x.numel(), torch.float32, seed, step, index, x.device).view_as(x)
            exact[index] = x - 0.5 * step_size * g + math.sqrt(step_size) * xi
        if step >= steps - kept:
            predicted += digits.held_out_probabilities(*ours).double().cpu() / kept
            wanted += digits.held_out_probabilities(*exact) / kept
    error = float((predicted - wanted).abs().max())
    accuracy = float((predicted.argmax(1) == digits.held_out_labels()).double().mean())
    # Each step adds at most 2**-23 of rounding to parameters of order 1, which the convex energy does not amplify.
    bound = steps * 2.0**-23 * digits.PIXELS
    message = f"posterior predictive accuracy {accuracy:.1%} on {len(predicted)} held-out digits"
    good = error <= bound
    return Agreement(Status.PASSED if good else Status.WRONG_LAW, message, error=error, bound=bound)


OPERATION = Operation(
    name="sgld",
    summary="The update of stochastic gradient Langevin dynamics, in place, for a list of tensors in one launch.",
    formula="x <- x - (eps / 2) g + sqrt(eps T) xi",
    source="Welling and Teh, ICML 2011, with temperature",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=partial(langevin.make_outputs, LANGEVIN),
    reference=partial(langevin.expected, LANGEVIN),
    cost=cost,
    case=_case,
    judge_draws=judge_draws,
    moving=("step",),
    laws=(
        Law("quadratic well", "the exact distribution of the discretised chain, and independent noise", quadratic_well),
        Law(
            "unbiased rounding",
            "stochastic rounding of bfloat16 parameters is exact in the mean",
            unbiased_rounding,
            shared_stream=True,
        ),
        Law(
            "digits posterior",
            "logistic regression predicts like the same chain in float64",
            posterior_of_the_digits,
            shared_stream=True,
        ),
    ),
)


register_operations, register_implementations = langevin.hooks(OPERATION, LANGEVIN, "langevin")
