"""The operation ``sgld``: the Langevin update, judged element by element and against exact laws."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from boltzbench import harness
from boltzbench.harness import (
    Advance,
    Agreement,
    Case,
    Cost,
    Expected,
    Implementation,
    Inputs,
    Launch,
    Law,
    Operation,
    Status,
    Tensors,
    hookimpl,
)
from boltzbench.kernels.dispatch import unavailable
from boltzbench.kernels.sgld import sgld_update
from boltzbench.kernels.sgld.reference import computing_dtype, noise
from boltzbench.kernels.variants import variants_of
from boltzbench.plugins import digits, draws, torch_compile
from torch import Tensor

BOLTZBENCH_API = 1

MIXED = ("float32", "float64", "bfloat16", "float16")
"""The dtypes of the tensors of a ``mixed`` case, in turn."""
TEMPERATURES = {"cold": 0.0, "hot": 25.0}


def _case(tensors: int, elements: int, dtype: str = "float32", variant: str = "", **more: str) -> Case:
    return Case("sgld", {"tensors": tensors, "elements": elements}, dtype, variant, **more)  # type: ignore[arg-type]


CASES = (
    *(_case(1, 5003, dtype) for dtype in MIXED),
    *(_case(1, 4097, variant=variant) for variant in (*TEMPERATURES, "outliers", "nan", "unaligned", "expanded")),
    _case(9, 1031, variant="mixed"),
    _case(1, 1),
    _case(1, 0),
    *(_case(1, elements) for elements in (3, 4095, 4096, 8193)),
    _case(1, 1 << 20, purpose="bench"),
    *(
        _case(tensors, elements, dtype, purpose="bench", preset=preset)
        for dtype, preset in (("float32", "quick"), ("bfloat16", "quick"), ("float16", "full"))
        for tensors, elements in ((1, 1 << 27), (200, 1 << 19))
    ),
    _case(2, digits.PIXELS * digits.CLASSES, variant="digits", purpose="real"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Tensors ``parameter_i`` and ``gradient_i``; sizes differ from tensor to tensor where there are several."""
    generator = torch.Generator(device).manual_seed(case.seed)
    random = partial(torch.randn, generator=generator, device=device)
    inputs: dict[str, Any] = {"step_size": 0.01, "temperature": TEMPERATURES.get(case.variant, 0.5)}
    inputs |= {"seed": case.seed + (1 << 63), "step": 5}
    if case.variant == "digits":
        weights, bias = 0.1 * random(digits.PIXELS, digits.CLASSES), 0.1 * random(digits.CLASSES)
        for index, (x, g) in enumerate(zip((weights, bias), digits.energy_gradient(weights, bias), strict=True)):
            inputs |= {f"parameter_{index}": x, f"gradient_{index}": g}
        return inputs
    for index in range(case.sizes["tensors"]):
        elements = max(0, case.sizes["elements"] - 7 * index)
        dtype = getattr(torch, MIXED[index % len(MIXED)]) if case.variant == "mixed" else case.torch_dtype
        x, g = random(elements).to(dtype), (3.0 * random(elements)).to(dtype)
        if case.variant == "outliers":
            x[::11] *= 1e6
            g[::13] *= 1e6
        if case.variant == "nan":
            g[::5], g[1::5] = torch.nan, torch.inf
        if case.variant == "unaligned":
            x, g = torch.cat((x[:1], x))[1:], torch.cat((g[:3], g))[3:]
        if case.variant == "expanded":
            g = g[:1].expand(elements)
        inputs |= {f"parameter_{index}": x, f"gradient_{index}": g}
    return inputs


def _tensors(inputs: Mapping[str, Any], name: str) -> list[Tensor]:
    count = sum(1 for key in inputs if key.startswith(f"{name}_"))
    return [inputs[f"{name}_{index}"] for index in range(count)]


def make_outputs(inputs: Inputs) -> Tensors:
    """The parameters are state: they are advanced in place."""
    return {
        f"parameter_{index}": torch.empty_like(x, memory_format=torch.contiguous_format)
        for index, x in enumerate(_tensors(inputs, "parameter"))
    }


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The update in float64 with the noise of the stream.

    Bound: four roundings u of each term's magnitude; a normal is off by at most ``12 u r`` with r the radius of Box
    and Muller (``2 pi`` roundings of the angle and a few of the functions); one rounding to a 16-bit parameter.
    """
    half, scale = 0.5 * inputs["step_size"], math.sqrt(inputs["step_size"] * inputs["temperature"])
    results = {}
    for index, (x, g) in enumerate(zip(_tensors(inputs, "parameter"), _tensors(inputs, "gradient"), strict=True)):
        wide = computing_dtype(x.dtype)
        u, u_out = torch.finfo(wide).eps / 2, torch.finfo(x.dtype).eps / 2 if x.dtype != wide else 0.0
        groups_of_four = -(-x.numel() // 4) * 4
        z = noise(groups_of_four, wide, inputs["seed"], inputs["step"], index, x.device)
        radius = z.view(-1, 2).norm(dim=1).repeat_interleave(2)[: x.numel()].view_as(x)
        z = z[: x.numel()].view_as(x)
        value = x.double() - half * g.double() + scale * z
        magnitude = x.double().abs() + (half * g.double()).abs() + scale * z.abs()
        bound = 4 * u * magnitude + 12 * u * scale * radius + u_out * value.abs() + torch.finfo(x.dtype).smallest_normal
        results[f"parameter_{index}"] = Expected(value, torch.nan_to_num(bound, nan=0.0, posinf=0.0))
    return results


def judge_draws(inputs: Inputs, outputs: Tensors) -> Agreement:
    """The law of the noise, for a sampler with a stream of its own: false alarm 1e-6.

    What was added to ``x - (eps / 2) g``, in units of ``sqrt(eps T)``, is standard normal, independent from element to
    element and tensor to tensor, and of the gradient. No element may be further off than the largest of as many normal
    numbers; at temperature 0 that is by rounding alone. The law is tested where rounding cannot be seen in it.
    """
    half, scale = 0.5 * inputs["step_size"], math.sqrt(inputs["step_size"] * inputs["temperature"])
    pairs = list(zip(_tensors(inputs, "parameter"), _tensors(inputs, "gradient"), strict=True))
    elements, one = sum(x.numel() for x, _ in pairs), 0.5e-6 / max(len(pairs), 1)
    largest = _normal_quantile(0.25e-6 / max(elements, 1))
    verdicts, before = [], torch.empty(0, dtype=torch.float64)
    for index, (x, g) in enumerate(pairs):
        name = f"parameter_{index}"
        wide = computing_dtype(x.dtype)
        u, u_out = torch.finfo(wide).eps / 2, torch.finfo(x.dtype).eps / 2 if x.dtype != wide else 0.0
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


def _sizes(case: Case) -> list[tuple[int, int]]:
    """Elements and bytes per element of each tensor."""
    if case.variant == "digits":
        return [(digits.PIXELS * digits.CLASSES, 4), (digits.CLASSES, 4)]
    dtypes = MIXED if case.variant == "mixed" else (case.dtype,)
    return [
        (max(0, case.sizes["elements"] - 7 * index), getattr(torch, dtypes[index % len(dtypes)]).itemsize)
        for index in range(case.sizes["tensors"])
    ]


def cost(case: Case) -> Cost:
    elements = sum(count for count, _ in _sizes(case))
    size = sum(count * width for count, width in _sizes(case))
    noisy = TEMPERATURES.get(case.variant, 0.5) > 0
    return Cost(
        items=elements,
        unit="parameters",
        bytes_read=2 * size,
        bytes_written=size,
        flops=4 * elements,
        random_words=elements if noisy else 0,
        special_calls=2 * elements if noisy else 0,
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    run = partial(
        sgld_update, _tensors(outputs, "parameter"), _tensors(inputs, "gradient"), inputs["step_size"],
        inputs["temperature"], seed=inputs["seed"], step=inputs["step"], backend=backend,
    )  # fmt: skip

    def launch() -> Tensors:
        run()
        return outputs

    return launch


MOST_DRAWS = 1 << 17
"""So many elements of a tensor are tested: with more, the rounding of a 16-bit parameter would show in the law."""

CHAINS = 100_000


def quadratic_well(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """U = k x^2 / 2: the discretised chain keeps variance T / (k (1 - eps k / 4)), lag-1 correlation 1 - eps k / 2.

    Every element is a chain of its own that starts as an exact draw; so all products of draws of different chains
    are independent, and the standard errors are those of independent normal draws.
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
        noises.append((x - before * correlation).double().cpu())
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
    ]  # fmt: skip
    # Noise reused from step to step, or between neighbouring elements, leaves every marginal law as it was.
    noise_variance = step_size * temperature
    for what, product in (
        ("covariance of the noise of two steps", noises[0] * noises[1]),
        ("covariance of the noise of neighbours", noises[0][0::2] * noises[0][1::2]),
    ):
        error = noise_variance / math.sqrt(len(product))
        checks.append(harness.within(float(product.mean()), 0.0, error, what=what, false_alarm=false_alarm))
    return harness.all_of(checks)


def posterior_of_the_digits(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Bayesian logistic regression on the digits: 300 steps from zero, the predictions of the last 150 averaged.

    Held to the same chain in float64 on the same stream: the predictive probabilities may differ by no more than
    rounding grows to over the run, and the accuracy is reported.
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
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    judge_draws=judge_draws,
    laws=(
        Law("quadratic well", "the exact law of the discretised chain, and independent noise", quadratic_well),
        Law(
            "digits posterior",
            "logistic regression predicts like the same chain in float64",
            posterior_of_the_digits,
            shared_stream=True,
        ),
    ),
)


@hookimpl
def register_operations(register: Callable[[Operation], None]) -> None:
    register(OPERATION)


@hookimpl
def register_implementations(register: Callable[[Implementation], None]) -> None:
    for backend in ("torch", "triton", "cupy"):
        register(
            Implementation(
                "sgld",
                backend,
                backend,
                partial(prepare, backend),
                partial(unavailable, backend),
                variants=partial(variants_of, backend, "boltzbench.kernels.sgld"),
            )
        )
    compiled = torch_compile.prepare_langevin
    register(Implementation("sgld", "torch_compile", "torch", compiled, torch_compile.unavailable))
