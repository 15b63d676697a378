"""The operation ``gaussian_rbm``: block Gibbs with real-valued visible units, checked draw by draw and exactly."""

import math
from collections.abc import Mapping
from dataclasses import replace
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
    Inputs,
    Launch,
    Law,
    Operation,
    Tensors,
)
from boltzbench.kernels.philox import Stream
from boltzbench.kernels.rbm_gibbs import GibbsResult, draw_normals, draw_uniforms, gaussian_gibbs
from boltzbench.plugins.exact.states import all_units, number_of
from boltzbench.plugins.support import draws
from boltzbench.plugins.support.block_gibbs import layers_case, make_outputs, sizes_of
from boltzbench.plugins.support.operations import moved, operation_hooks
from torch import Tensor

BOLTZBENCH_API = 1

U = 2.0**-24
CELLS = 32
BETAS = {"hot": 0.25, "cold": 4.0}


_case = partial(layers_case, "gaussian_rbm")

CASES = (
    _case(70, 100, 17),
    *(_case(65, 33, 65, scenario=scenario) for scenario in (*BETAS, "betas", "clamped", "transposed", "outliers")),
    _case(33, 20, 12, sweeps=3),
    _case(5, 1, 1),
    _case(0, 6, 3),
    _case(256, 64, 64, purpose="bench"),
    *(_case(8192, n, n, sweeps, purpose="bench", preset="quick") for n, sweeps in ((256, 10), (1024, 10))),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Weights of scale 1/sqrt(units), and visible states within some sigmas of the bias."""
    chains, visible, hidden, sweeps = sizes_of(case)
    generator = torch.Generator(device).manual_seed(case.seed)
    random = partial(torch.randn, generator=generator, device=device)
    sigma = torch.exp(0.5 * random(visible))
    bias = random(visible)
    weights = 2.0 / math.sqrt(max(visible, hidden, 1)) * random(visible, hidden)
    if case.scenario == "outliers":
        weights[::7] *= 30.0
    if case.scenario == "transposed":
        weights = weights.t().contiguous().t()
    inputs: dict[str, Any] = {
        "states": bias + sigma * random(chains, visible),
        "weights": weights,
        "visible_bias": bias,
        "hidden_bias": random(hidden),
        "sigma": sigma,
        "sweeps": sweeps,
        "beta": BETAS.get(case.scenario, 1.0),
        "seed": case.seed + (1 << 63),
        "first_sweep": moved(3, case),
        "first_chain": 1 << 31,
    }
    if case.scenario == "betas":
        inputs["beta"] = torch.linspace(0.25, 4.0, chains, device=device)
    if case.scenario == "clamped":
        inputs["clamped"] = random(visible) < -0.5
    return inputs


class _Reference:
    """The two half sweeps in float64, with the bounds of a kernel's error; ``u = 2**-24``."""

    def __init__(self, inputs: Inputs) -> None:
        names = ("weights", "visible_bias", "hidden_bias", "sigma")
        self.weights, self.visible_bias, self.hidden_bias, self.sigma = (inputs[name].double() for name in names)
        self.inputs, beta = inputs, inputs["beta"]
        self.beta: Tensor | float = beta.double()[:, None] if isinstance(beta, Tensor) else beta
        clamped = inputs.get("clamped")
        self.clamped = torch.zeros_like(self.sigma, dtype=torch.bool) if clamped is None else clamped

    def probabilities(self, visible: Tensor, error: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Those of the hidden units, and the bound. ``error`` is the error of ``visible``.

        A sum of K products with quotients of at most 2 ulp rounds to ``(K + 6) u`` of its magnitudes. The slope of the
        logistic function is at most 1/4, and its arithmetic adds ``4u``.
        """
        given, size = visible.double() / self.sigma, self.weights.abs()
        p = torch.sigmoid(self.beta * (self.hidden_bias + given @ self.weights))
        logit_error = (len(size) + 6) * U * (self.hidden_bias.abs() + given.abs() @ size)
        return p, self.beta * (logit_error + (error / self.sigma).expand_as(given) @ size) / 4 + 4 * U

    def hidden(self, visible: Tensor, sweep: int, error: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """The states, float64, and whether each is so near a tie that both values are right."""
        p, width = self.probabilities(visible, error)
        u = draw_uniforms(p.shape, *self._place(sweep, Stream.HIDDEN), p.device).double()
        return (u < p).double(), (u - p).abs() <= width

    def visible(self, hidden: Tensor, sweep: int) -> tuple[Tensor, Tensor]:
        """The states, and their bound: ``K u`` for a sum of K weights, ``12 u`` times the radius of a normal number,
        and four roundings of the terms and of the square root of the temperature."""
        start = self.inputs["states"].double()
        mean, size = hidden.double() @ self.weights.t(), hidden.double() @ self.weights.t().abs()
        groups_of_four = torch.Size((len(start), -(-start.shape[1] // 4) * 4))
        z = draw_normals(groups_of_four, *self._place(sweep, Stream.VISIBLE), start.device) / self.beta**0.5
        radius = z.view(len(start), z.shape[1] // 2, 2).norm(dim=2).repeat_interleave(2, 1)[:, : start.shape[1]]
        x = self.visible_bias + self.sigma * (mean + z[:, : start.shape[1]])
        error = U * (self.weights.shape[1] * size + 12 * radius + 4 * (size + radius)) * self.sigma
        error = error + 2 * U * (self.visible_bias.abs() + x.abs())
        return torch.where(self.clamped, start, x), torch.where(self.clamped, 0.0, error)

    def _place(self, sweep: int, stream: Stream) -> tuple[int, int, Stream, int]:
        return self.inputs["seed"], self.inputs["first_sweep"] + sweep, stream, self.inputs["first_chain"]


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """Each layer given the states of the other layer that the implementation returned, as in ``rbm_gibbs``.

    After several sweeps the check compares the hidden states of a chain with the reference up to its first near-tie.
    """
    reference, visible = _Reference(inputs), inputs["states"].double()
    uncertain = torch.zeros((len(visible), 1), dtype=torch.bool, device=visible.device)
    hidden, near = reference.hidden(visible, 0)
    for sweep in range(1, inputs["sweeps"]):
        uncertain = uncertain | near.any(1, keepdim=True)
        visible, error = reference.visible(hidden, sweep - 1)
        hidden, near = reference.hidden(visible, sweep, error)
    return {
        "hidden": Expected(hidden, (near | uncertain).double()),
        "visible": Expected(*reference.visible(outputs["hidden"], inputs["sweeps"] - 1)),
        "hidden_probability": Expected(*reference.probabilities(outputs["visible"])),
    }


def cost(case: Case) -> Cost:
    chains, visible, hidden, sweeps = sizes_of(case)
    units = chains * (visible + hidden) * sweeps
    flops = 2 * chains * visible * hidden  # of one product
    return Cost(
        items=units,
        unit="unit updates",
        bytes_read=4 * (chains * visible + visible * hidden + 2 * visible + hidden),
        bytes_written=chains * (4 * visible + 5 * hidden),
        flops=flops * (2 * sweeps + 1),  # one more for the probabilities
        matrix_flops=flops * sweeps,  # those with binary states, which need no float32 multiplications
        random_words=units,
        special_calls=units + chains * (hidden + visible * sweeps),
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    out = GibbsResult(outputs["visible"], outputs["hidden"], outputs["hidden_probability"])

    def launch() -> Tensors:
        gaussian_gibbs(
            inputs["states"], inputs["weights"], inputs["visible_bias"], inputs["hidden_bias"], inputs["sigma"],
            inputs["sweeps"], inputs["beta"], seed=inputs["seed"], first_sweep=inputs["first_sweep"],
            first_chain=inputs["first_chain"], clamped=inputs.get("clamped"), return_hidden_probability=True,
            out=out, check_values=False, backend=backend,
        )  # fmt: skip
        return outputs

    return launch


CHAINS, CPU_CHAINS = 107_000, 8_000


class _Mixture:
    """A small machine at ``beta`` and its exact distribution.

    With ``x = v / sigma``, ``p(h)`` is proportional to ``exp(beta (c.h + (b / sigma).W h + |W h|^2 / 2))``, by
    enumeration. Given ``h``, ``x`` is normal with mean ``b / sigma + W h`` and variance ``1 / beta``, so that ``x`` is
    a mixture of normals.
    """

    VISIBLE, HIDDEN = 5, 3
    TESTS = 3 + VISIBLE

    def __init__(self, beta: float) -> None:
        i, j = (torch.arange(units, dtype=torch.float64) for units in (self.VISIBLE, self.HIDDEN))
        machine = {
            "weights": 0.8 * torch.sin(1.7 * i[:, None] + 0.9 * j + 0.3),
            "visible_bias": 0.5 * torch.cos(i),
            "hidden_bias": -0.4 * torch.sin(j + 1),
            "sigma": 1 + 0.6 * torch.sin(2 * i),
        }
        self.beta, self.machine = beta, {name: value.float() for name, value in machine.items()}
        weights, self.bias, c, self.sigma = (value.double() for value in self.machine.values())
        every = all_units(self.HIDDEN).double()
        self.fields = every @ weights.t()
        minus_energy = every @ c + self.fields @ (self.bias / self.sigma) + self.fields.square().sum(1) / 2
        self.law = torch.softmax(beta * minus_energy, 0)

    def advanced(self, advance: Advance, x: Tensor, sweeps: int, device: torch.device, seed: int) -> Tensors:
        """Chains after ``sweeps``, from visible states ``b + sigma x``."""
        given = {"states": (self.bias + self.sigma * x).float(), **self.machine}
        return advance(
            {
                **{name: value.to(device) for name, value in given.items()},
                "sweeps": sweeps, "beta": self.beta, "seed": seed, "first_sweep": 0, "first_chain": 0,
            }
        )  # fmt: skip

    def judge(self, drawn: Tensors, one: float) -> list[Agreement]:
        """`TESTS` tests of independent chains at the significance level ``one``."""
        index, x = number_of(drawn["hidden"].cpu()), (drawn["visible"].cpu().double() - self.bias) / self.sigma
        counts = torch.bincount(index, minlength=len(self.law))
        verdicts = [harness.chi_square(counts, self.law, false_alarm=one)]
        scores = (x - self.fields[index]) * self.beta**0.5
        others = {"their field": self.fields[index]}
        verdicts += draws.normal_scores(scores, "visible draws", one, width=self.VISIBLE, unrelated_to=others)
        for unit in range(self.VISIBLE):  # the distribution function of the mixture maps x to a uniform number
            uniform = torch.special.ndtr((x[:, unit, None] - self.fields[:, unit]) * self.beta**0.5) @ self.law
            counts = torch.bincount((uniform * CELLS).long().clamp(0, CELLS - 1), minlength=CELLS)
            verdicts.append(harness.chi_square(counts, [1 / CELLS] * CELLS, false_alarm=one))
        return verdicts


def keeps_the_law(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Two sweeps leave the exact distribution invariant, at three temperatures. Chains start as exact draws."""
    betas, chains = (0.5, 1.0, 2.0), CHAINS if device.type == "cuda" else CPU_CHAINS
    verdicts = []
    for number, beta in enumerate(betas):
        mixture, generator = _Mixture(beta), torch.Generator().manual_seed(seed + number)
        start = torch.multinomial(mixture.law, chains, replacement=True, generator=generator)
        noise = torch.randn((chains, mixture.VISIBLE), dtype=torch.float64, generator=generator) / beta**0.5
        drawn = mixture.advanced(advance, mixture.fields[start] + noise, 2, device, seed + (number << 32))
        verdicts += mixture.judge(drawn, 1e-6 / len(betas) / mixture.TESTS)
    return harness.all_of(verdicts)


def forgets_its_start(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Ten sweeps lead from states ten sigmas away, and from the biases, to the exact distribution at beta 1.

    The transitions between hidden states, integrated over normal numbers, come within a chi-square distance of 1e-6 of
    the distribution after 8 sweeps.
    """
    mixture, chains = _Mixture(1.0), (CHAINS if device.type == "cuda" else CPU_CHAINS) // 16
    far = torch.full((chains, mixture.VISIBLE), 10.0, dtype=torch.float64)
    starts = {
        "far above": far, "far below": -far, "stripes": far * (1 - 2 * (torch.arange(mixture.VISIBLE) % 2)),
        "the biases": 0 * far,
    }  # fmt: skip
    verdicts = []
    for number, (name, x) in enumerate(starts.items()):
        drawn = mixture.advanced(advance, x, 10, device, seed + (number << 32))
        judged = mixture.judge(drawn, 1e-6 / len(starts) / mixture.TESTS)
        verdicts += [replace(each, message=f"from {name}: {each.message}") for each in judged]
    return harness.all_of(verdicts)


OPERATION = Operation(
    name="gaussian_rbm",
    summary="Sweeps of block Gibbs sampling of a restricted Boltzmann machine with real-valued visible units.",
    formula="h ~ Bernoulli(sigmoid(beta (c + (v / sigma) W))), v ~ Normal(b + sigma W h, sigma^2 / beta)",
    source="Hinton and Salakhutdinov, Science 313 (2006)",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    parameters=("weights", "visible_bias", "hidden_bias", "sigma"),
    moving=("first_sweep",),
    laws=(
        Law("mixture of normals", "two sweeps leave the exact law invariant at three temperatures", keeps_the_law),
        Law("ergodicity", "sweeps lead from distant starts to the exact law", forgets_its_start),
    ),
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.rbm_gibbs", "gaussian"
)
