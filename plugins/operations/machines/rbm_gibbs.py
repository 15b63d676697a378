"""The operation ``rbm_gibbs``: sweeps of block Gibbs, checked draw by draw and against enumeration."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from boltzbench import harness
from boltzbench.harness import (
    Advance,
    Agreement,
    Case,
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
from boltzbench.kernels.philox import Stream
from boltzbench.kernels.rbm_gibbs import (
    GibbsResult,
    PreparedWeights,
    draw_uniforms,
    gibbs,
    pack_states,
    prepare_weights,
    probabilities,
    unpack_states,
)
from boltzbench.plugins.exact.states import all_units, number_of
from boltzbench.plugins.support import digits, draws
from boltzbench.plugins.support.block_gibbs import layers_case, make_outputs, sizes_of
from boltzbench.plugins.support.ergodicity import judge_starts, judge_transitions
from boltzbench.plugins.support.operations import moved, operation_hooks, same_bits
from torch import Tensor

BOLTZBENCH_API = 1

BETAS = {"hot": 0.5, "cold": 2.0, "beta-zero": 0.0}
PRODUCTS = {"bf16": ("bfloat16", 1), "bf16x3": ("bfloat16", 3), "int8x3": ("int8", 3)}
"""The precisions of weights prepared for tensor cores: dtype and number of the products."""
PRECISIONS = {**{name: name for name in PRODUCTS}, "packed": "int8x3", "clamped bf16": "bf16"}
"""The precision of a scenario. With ``packed`` the kernels read and write states packed 64 to a word."""


_case = partial(layers_case, "rbm_gibbs")
BENCH_SIZES = ((256, 10), (1024, 10), (4096, 2))
"""Units of each layer, and sweeps."""

CASES = (
    *(_case(70, 100, 17, dtype=dtype) for dtype in ("float32", "float16", "bfloat16")),
    *(_case(65, 33, 65, scenario=scenario) for scenario in (*BETAS, "clamped", "transposed", "outliers")),
    _case(5, 1, 1),
    _case(9, 17, 4),
    _case(4, 6, 0),
    _case(0, 6, 3),
    _case(33, 20, 12, sweeps=5),
    _case(1030, 64, 64, scenario="clamped"),
    *(_case(70, 100, 17, scenario=precision) for precision in PRODUCTS),
    _case(33, 20, 12, sweeps=5, scenario="int8x3"),
    *(_case(9, 70, 33, sweeps=2, scenario=precision) for precision in ("bf16", "bf16x3")),
    _case(70, 100, 17, sweeps=2, scenario="packed"),
    _case(70, 100, 17, sweeps=2, scenario="clamped bf16"),
    _case(60, 140, 150, sweeps=2, scenario="bf16"),
    _case(3, 70, 560, sweeps=2, scenario="int8x3"),
    _case(256, 48, 48),
    _case(512, 784, 500, 5, purpose="bench"),
    *(
        _case(8192, n, n, sweeps, dtype, purpose="bench", preset="quick")
        for dtype in ("float32", "bfloat16")
        for n, sweeps in BENCH_SIZES
    ),
    *(_case(8192, n, n, sweeps, "float16", purpose="bench", preset="full") for n, sweeps in BENCH_SIZES),
    *(
        _case(8192, n, n, sweeps, scenario=precision, purpose="bench", preset="quick")
        for precision in PRODUCTS
        for n, sweeps in BENCH_SIZES
    ),
    _case(64, 784, 500, 10, purpose="bench", preset="quick"),
    _case(64, 784, 500, 10, scenario="int8x3", purpose="bench", preset="quick"),
    _case(digits.IMAGES, digits.PIXELS, digits.HIDDEN_UNITS, 1, scenario="digits", purpose="real"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Weights of scale 1/sqrt(units), so that probabilities lie all over (0, 1).

    For ``bf16`` they are numbers of bfloat16, so that the check is as sharp as in the other precisions. The bound holds
    for any weights, but where they are rounded it allows a hundredth of a probability.
    """
    chains, visible, hidden, sweeps = sizes_of(case)
    generator = torch.Generator(device).manual_seed(case.seed)
    random = partial(torch.randn, generator=generator, device=device)
    if case.scenario == "digits":
        weights, visible_bias, hidden_bias = (part.to(device) for part in digits.machine())
        states = digits.resampled(digits.binary_images(), case.seed).to(device)
    else:
        weights = 4.0 / math.sqrt(max(visible, hidden, 1)) * random(visible, hidden)
        visible_bias, hidden_bias = random(visible), random(hidden)
        states = (random(chains, visible) < 0.3).to(torch.uint8)
    if case.scenario == "outliers":
        weights[::7] *= 30.0
    if case.scenario.endswith("bf16"):
        weights = weights.to(torch.bfloat16).to(torch.float32)
    if case.scenario == "transposed":
        weights = weights.t().contiguous().t()
    dtype = case.torch_dtype
    inputs: dict[str, Any] = {
        "states": states,
        "weights": weights.to(dtype),
        "visible_bias": visible_bias.to(dtype),
        "hidden_bias": hidden_bias.to(dtype),
        "sweeps": sweeps,
        "beta": BETAS.get(case.scenario, 1.0),
        "seed": case.seed + (1 << 63),
        "first_sweep": moved(3, case),
        "first_chain": 1 << 31,
        "precision": PRECISIONS.get(case.scenario, "float32"),
        "packed": case.scenario == "packed",
    }
    if case.scenario.startswith("clamped"):
        inputs["clamped"] = random(visible) < -0.5
    return inputs


class _Layer:
    """The draws of one layer given the other in float64, with the distance of each draw from a tie."""

    def __init__(self, inputs: Inputs, stream: Stream) -> None:
        to_hidden = stream is Stream.HIDDEN
        self.inputs, self.stream = inputs, stream
        self.weights: Tensor = inputs["weights"].double() if to_hidden else inputs["weights"].double().t()
        self.bias: Tensor = inputs["hidden_bias" if to_hidden else "visible_bias"].double()

    def probabilities(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """``p`` and the bound of a kernel's error: ``beta / 4`` times the error of its logit, and ``4u``.

        The slope of the logistic function is at most 1/4. Its arithmetic adds a few u = 2**-24, and so do the three
        roundings of the test ``u (1 + exp(-x)) < 1``.
        """
        beta = self.inputs["beta"]
        width = beta * self._logit_error(given.double()) / 4 + 4 * 2.0**-24
        return probabilities(given, self.weights, self.bias, beta), width

    def _logit_error(self, given: Tensor) -> Tensor:
        """By precision, for K given units; the sums run over the weights of the units at 1.

        - ``float32``: a sum of K terms in any order, with rounding errors of u times the sum of magnitudes each:
          ``(K + 3) u (|bias| + sum|w|)``.
        - ``bf16``: the rounding of the weights, ``sum|w - bfloat16(w)|``, and sums that tensor cores may truncate
          instead of rounding, 2u: ``(2K + 3) u (|bias| + (1 + 2**-8) sum|w|)``.
        - ``bf16x3``: three parts hold a float32 exactly. The magnitudes of their 3K terms add up to at most
          ``1 + 2**-6`` times ``sum|w|``: ``(6K + 3) u (|bias| + (1 + 2**-6) sum|w|)``.
        - ``int8x3``: weights rounded to 23 bits below the largest weight of the drawn unit: at most ``1.004 * 2**-23``
          of that for each unit at 1. Sums are exact; then a conversion and two roundings, ``3u (|bias| + sum|w|)``.
        """
        u, terms, precision = 2.0**-24, len(self.weights), self.inputs.get("precision", "float32")
        total, bias = given @ self.weights.abs(), self.bias.abs()
        if precision == "bf16":
            lost = (self.weights - self.weights.to(torch.bfloat16).double()).abs()
            return given @ lost + (2 * terms + 3) * u * (bias + (1 + 2.0**-8) * total)
        if precision == "bf16x3":
            return (6 * terms + 3) * u * (bias + (1 + 2.0**-6) * total)
        if precision == "int8x3":
            largest = self.weights.abs().amax(0) if terms else torch.zeros_like(self.bias)
            return given.sum(1, keepdim=True) * (1.004 * 2.0**-23 * largest) + 3 * u * (bias + total)
        return (terms + 3) * u * (bias + total)

    def draws(self, given: Tensor, sweep: int) -> tuple[Tensor, Tensor]:
        """The states (0 or 1, float64), and whether each is so near a tie that both values are right."""
        p, width = self.probabilities(given)
        step, inputs = inputs_step(self.inputs, sweep), self.inputs
        u = draw_uniforms(p.shape, inputs["seed"], step, self.stream, inputs["first_chain"], p.device).double()
        return (u < p).double(), (u - p).abs() <= width


def inputs_step(inputs: Inputs, sweep: int) -> int:
    step: int = inputs["first_sweep"] + sweep
    return step


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """Each layer given the states of the other layer that the implementation returned, so that a near-tie stays local.

    The hidden states of a later sweep depend on states that are not returned. There the check compares a chain with the
    reference up to its first near-tie.
    """
    hidden_layer, visible_layer = _Layer(inputs, Stream.HIDDEN), _Layer(inputs, Stream.VISIBLE)
    start, clamped = inputs["states"].double(), inputs.get("clamped")
    sweeps, visible = inputs["sweeps"], start
    uncertain = torch.zeros((len(start), 1), dtype=torch.bool, device=start.device)
    hidden, near = hidden_layer.draws(visible, 0)
    for sweep in range(1, sweeps):
        uncertain = uncertain | near.any(1, keepdim=True)
        visible, near = visible_layer.draws(hidden, sweep - 1)
        visible = visible if clamped is None else torch.where(clamped, start, visible)
        uncertain = uncertain | near.any(1, keepdim=True)
        hidden, near = hidden_layer.draws(visible, sweep)
    near = near | uncertain
    last, last_near = visible_layer.draws(outputs["hidden"], sweeps - 1)
    if clamped is not None:
        last, last_near = torch.where(clamped, start, last), last_near & ~clamped
    p, width = hidden_layer.probabilities(outputs["visible"])
    return {
        "hidden": Expected(hidden, near.double()),
        "visible": Expected(last, last_near.double()),
        "hidden_probability": Expected(p, width),
    }


def judge_draws(inputs: Inputs, outputs: Tensors) -> Agreement:
    """Test the distribution of the draws, for a sampler with its own random stream; significance level 1e-6.

    The tests take the visible states given the hidden ones, and after one sweep the hidden states given the start.
    After several sweeps the hidden states depend on states that are not returned; `keeps_the_law` covers that case.
    """
    hidden, visible, start = outputs["hidden"], outputs["visible"], inputs["states"]
    for name, states in (("hidden", hidden), ("visible", visible)):
        if bool((states > 1).any()):
            return Agreement(Status.WRONG_VALUES, f"{name} holds a state other than 0 and 1", error=math.inf, bound=0.0)
    free = torch.ones_like(visible, dtype=torch.bool)
    if "clamped" in inputs:
        free &= ~inputs["clamped"]
        if bool(((visible != start) & ~free).any()):
            return Agreement(Status.WRONG_VALUES, "a clamped visible unit has moved", error=math.inf, bound=0.0)
    hidden_layer, visible_layer = _Layer(inputs, Stream.HIDDEN), _Layer(inputs, Stream.VISIBLE)
    p, tolerance = hidden_layer.probabilities(visible)
    error = (outputs["hidden_probability"].double() - p).abs().nan_to_num(nan=math.inf)
    if bool((error > tolerance).any()):
        worst = int((error / tolerance).argmax())
        far, bound = float(error.flatten()[worst]), float(tolerance.flatten()[worst])
        return Agreement(Status.WRONG_VALUES, f"hidden_probability is off by {far:.3g}, bound {bound:.3g}", far, bound)

    generator = np.random.Generator(np.random.SFC64(20))
    p, _ = visible_layer.probabilities(hidden)
    seen, field, width = draws.bernoulli_scores(visible, p, generator), p - 0.5, max(visible.shape[1], 1)
    scores = seen
    if "clamped" in inputs:
        scores, field, width = seen[free], field[free], 1
    verdicts = draws.normal_scores(scores, "visible draws", 0.5e-6, width=width, unrelated_to={"their field": field})
    if inputs["sweeps"] == 1:
        p, _ = hidden_layer.probabilities(start)
        mine = draws.bernoulli_scores(hidden, p, generator)
        beside, common = torch.zeros_like(mine), min(mine.shape[1], seen.shape[1])
        beside[:, :common] = torch.where(free, seen, 0.0)[:, :common]
        others = {"their field": p - 0.5, "visible draws of the chain": beside}
        width = max(hidden.shape[1], 1)
        verdicts += draws.normal_scores(mine, "hidden draws", 0.5e-6, width=width, unrelated_to=others)
    return harness.all_of(verdicts)


def cost(case: Case) -> Cost:
    chains, visible, hidden, sweeps = sizes_of(case)
    units = chains * (visible + hidden) * sweeps
    parameters = (visible * hidden + visible + hidden) * case.torch_dtype.itemsize
    dtype, parts = PRODUCTS.get(PRECISIONS.get(case.scenario, ""), (case.dtype, 1))
    products = parts * (2 * sweeps + 1)  # one more for the probabilities
    flops = 2 * chains * visible * hidden * products
    return Cost(
        items=units,
        unit="unit updates",
        bytes_read=chains * visible + parameters,
        bytes_written=chains * (visible + 5 * hidden),
        flops=flops,
        matrix_flops=flops,
        matrix_dtype=dtype,
        random_words=units,
        special_calls=units + chains * hidden,
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    weights: Tensor | PreparedWeights = inputs["weights"]
    precision = inputs.get("precision", "float32")
    if precision != "float32":
        weights = prepare_weights(inputs["weights"], precision)

    out = GibbsResult(outputs["visible"], outputs["hidden"], outputs["hidden_probability"])
    packed = bool(inputs.get("packed", False))

    def sweep() -> GibbsResult:
        nonlocal weights
        if isinstance(weights, PreparedWeights) and not weights.is_current:
            weights = prepare_weights(inputs["weights"], precision)
        states = inputs["states"]
        return gibbs(
            pack_states(states) if packed else states, weights, inputs["visible_bias"], inputs["hidden_bias"],
            inputs["sweeps"], inputs["beta"], seed=inputs["seed"], first_sweep=inputs["first_sweep"],
            first_chain=inputs["first_chain"], clamped=inputs.get("clamped"), return_hidden_probability=True,
            check_values=False, precision=precision, backend=backend, out=None if packed else out,
        )  # fmt: skip

    run = prepared(sweep)

    def launch() -> Tensors:
        result = run()
        if packed and result.hidden_probability is not None:
            out.visible.copy_(unpack_states(result.visible, out.visible.shape[1]))
            out.hidden.copy_(unpack_states(result.hidden, out.hidden.shape[1]))
            outputs["hidden_probability"].copy_(result.hidden_probability)
        return outputs

    return launch


def _machine(visible: int, hidden: int, device: torch.device, precision: str = "float32") -> dict[str, Any]:
    i, j = torch.arange(visible, dtype=torch.float64), torch.arange(hidden, dtype=torch.float64)
    weights = torch.sin(1.7 * i[:, None] + 0.9 * j + 0.3).float()
    if precision == "bf16":  # rounded weights define another machine with its own distribution
        weights = weights.to(torch.bfloat16).to(torch.float32)
    return {
        "weights": weights.to(device),
        "visible_bias": (0.3 * torch.cos(i)).float().to(device),
        "hidden_bias": (-0.2 * torch.sin(j + 1)).float().to(device),
    }


def joint_law(machine: Mapping[str, Any], beta: float) -> Tensor:
    """``p(v, h)`` by enumeration: float64, (2**visible, 2**hidden); unit i of a state is bit i of its index."""
    weights, b, c = (machine[name].double().cpu() for name in ("weights", "visible_bias", "hidden_bias"))
    v, h = all_units(len(b)).double(), all_units(len(c)).double()
    log_weight = beta * ((v @ b)[:, None] + (h @ c)[None, :] + v @ weights @ h.t())
    return torch.softmax(log_weight.flatten(), 0).view(len(v), len(h))


CHAINS = 107_000
"""For 16 states: significance level 1e-6, power 0.999 at a chi-distance of 0.03."""
CPU_CHAINS = 48_000
MANY_CHAINS = 500_000
"""The same level and power for 1024 states."""


def keeps_the_law(sweeps: int, beta: float, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Sweeps leave the exact distribution invariant: chains start as exact draws of the visible states, and after the
    sweeps both layers must still follow the exact distribution."""
    return harness.all_of(_law_verdicts((4, 3), CHAINS, sweeps, beta, advance, device, seed, "float32", 1e-6))


def keeps_the_laws(
    units: tuple[int, int], chains: int, precisions: Sequence[str], advance: Advance, device: torch.device, seed: int
) -> Agreement:
    """`keeps_the_law` for one sweep at each of three temperatures, in each of ``precisions``.

    Each trial has ``chains`` chains. On a CPU, where most kernels are interpreted, the trials share `CPU_CHAINS`.
    """
    betas = (0.5, 1.0, 2.0)
    trials = [(precision, beta) for precision in precisions for beta in betas]
    each = chains if device.type == "cuda" else CPU_CHAINS // len(trials)
    verdicts = []
    for number, (precision, beta) in enumerate(trials):
        first = seed + (number << 32)
        verdicts += _law_verdicts(units, each, 1, beta, advance, device, first, precision, 1e-6 / len(trials))
    return harness.all_of(verdicts)


def _law_verdicts(
    units: tuple[int, int], chains: int, sweeps: int, beta: float, advance: Advance, device: torch.device, seed: int,
    precision: str, false_alarm: float,
) -> list[Agreement]:  # fmt: skip
    machine = _machine(*units, device, precision)
    law = joint_law(machine, beta)
    start = torch.multinomial(law.sum(1), chains, replacement=True, generator=torch.Generator().manual_seed(seed))
    numbers = {"sweeps": sweeps, "beta": beta, "seed": seed, "first_sweep": 0, "first_chain": 0}
    result = advance({"states": all_units(units[0])[start].to(device), **machine, **numbers, "precision": precision})
    verdicts = []
    for name, exact in (("visible", law.sum(1)), ("hidden", law.sum(0))):
        states = result[name].cpu()
        if not bool(((states == 0) | (states == 1)).all()):
            wrong = f"{name} holds a state other than 0 and 1"
            return [Agreement(Status.WRONG_LAW, wrong, error=math.inf, bound=0.0)]
        counts = torch.bincount(number_of(states), minlength=len(exact))
        verdicts.append(harness.chi_square(counts, exact, false_alarm=false_alarm / 2))
    return verdicts


SMALL_CHAINS = {"cuda": (2048, 1 << 14), "cpu": (64, 256)}
"""For `reaches_every_state`: chains in each of 16 states, and of each start."""


def reaches_every_state(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """One sweep makes the exact transitions between the visible states of a 4 x 3 machine; 6 sweeps forget the start.

    In each precision, at beta 1, where 5 sweeps of the exact transition matrix come within a chi-square distance of
    1e-6. The hidden units of a sweep are drawn from the visible ones alone, so the visible states are a Markov chain.
    """
    of_a_state, of_a_start = SMALL_CHAINS[device.type]
    precisions = ("float32", *PRODUCTS)
    rate = 1e-6 / (2 * len(precisions))
    start, generator = torch.arange(16).repeat(of_a_state), torch.Generator().manual_seed(seed)
    starts = {
        "all units 0": torch.zeros(of_a_start, dtype=torch.int64),
        "all units 1": torch.full((of_a_start,), 15),
        "random units": torch.randint(16, (of_a_start,), generator=generator),
        "stripes": torch.full((of_a_start,), 0b0101),
    }
    first = torch.cat([*starts.values()])
    verdicts = []
    for number, precision in enumerate(precisions):
        machine = _machine(4, 3, device, precision)
        inputs = {**machine, "precision": precision, "beta": 1.0, "first_sweep": 0, "first_chain": 0}
        ends: list[Tensor] = []
        for sweeps, states in ((1, start), (6, first)):
            stream = {"sweeps": sweeps, "seed": seed + (2 * number + len(ends) << 32)}
            result = advance({**inputs, **stream, "states": all_units(4)[states].to(device)})["visible"]
            ends.append(number_of(result.cpu()))
        law = joint_law(machine, 1.0)
        judged = judge_transitions(start, ends[0], (law / law.sum(1, keepdim=True)) @ (law / law.sum(0)).t(), rate)
        drawn = dict(zip(starts, ends[1].view(len(starts), -1), strict=True))
        judged += judge_starts(drawn, law.sum(1), (torch.arange(16),), rate)
        verdicts += [replace(each, message=f"{precision}: {each.message}") for each in judged]
    return harness.all_of(verdicts)


def composes(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Five sweeps in one call give the same states as five calls, also with the number of the first sweep on the
    device, and the same as two calls for parts of the batch."""
    states = all_units(8)[:200].to(device)
    numbers = {"beta": 1.0, "seed": seed, "first_sweep": 0, "first_chain": 0, "sweeps": 5}
    inputs = {"states": states, **_machine(8, 5, device), **numbers}
    whole = advance(inputs)["visible"]
    stepped = states
    for sweep in range(5):
        stepped = advance({**inputs, "states": stepped, "sweeps": 1, "first_sweep": sweep})["visible"]
    parts = [
        advance({**inputs, "states": states[first:end], "first_chain": first})["visible"]
        for first, end in ((0, 77), (77, 200))
    ]
    done = torch.zeros(1, dtype=torch.int64, device=device)
    counted = states
    for _ in range(5):
        counted = advance({**inputs, "states": counted, "sweeps": 1, "first_sweep": done})["visible"]
        done += 1
    splits = {
        "five calls of one sweep": stepped,
        "five calls that read their number from the device": counted,
        "two parts of the batch": torch.cat(parts),
    }
    return same_bits({"visible": whole}, {how: {"visible": other} for how, other in splits.items()})


OPERATION = Operation(
    name="rbm_gibbs",
    summary="Sweeps of block Gibbs sampling of a restricted Boltzmann machine.",
    formula="h ~ Bernoulli(sigmoid(beta (c + v W))), v ~ Bernoulli(sigmoid(beta (b + W h)))",
    source="Hinton, Neural Computation 14 (2002)",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    parameters=("weights", "visible_bias", "hidden_bias"),
    moving=("first_sweep",),
    judge_draws=judge_draws,
    laws=(
        Law(
            "enumeration beta=0.5",
            "two sweeps leave the exact law of a 4 x 3 machine invariant",
            partial(keeps_the_law, 2, 0.5),
        ),
        Law(
            "enumeration beta=2",
            "one sweep leaves the exact law of a 4 x 3 machine invariant",
            partial(keeps_the_law, 1, 2.0),
        ),
        *(
            Law(
                f"enumeration {precision}",
                "a sweep on tensor cores leaves the exact law of a 4 x 3 machine invariant at three temperatures",
                partial(keeps_the_laws, (4, 3), CHAINS, (precision,)),
            )
            for precision in PRODUCTS
        ),
        Law(
            "enumeration 10 x 8",
            "a sweep leaves the exact law of a 10 x 8 machine invariant, in each precision at three temperatures",
            partial(keeps_the_laws, (10, 8), MANY_CHAINS, ("float32", *PRODUCTS)),
        ),
        Law("ergodicity", "sweeps lead from every start to the distribution, in each precision", reaches_every_state),
        Law("composition", "splitting sweeps or chains over calls changes no state", composes, shared_stream=True),
    ),
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.rbm_gibbs", "binary"
)
