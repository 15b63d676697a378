"""The operation ``annealed_langevin``: walkers in a double well, compared one by one and with exact distributions."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from boltzbench import harness
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
from boltzbench.kernels import schedules
from boltzbench.kernels.annealed_langevin import annealed_langevin, noise
from boltzbench.kernels.common.prepared import prepared
from boltzbench.plugins.exact import double_well as exact
from boltzbench.plugins.support.operations import moved, operation_hooks, same_bits
from torch import Tensor

BOLTZBENCH_API = 1

STEP_SIZE = 0.05
PASSAGES = ("passages", "continued")


def _case(walkers: int, steps: int, scenario: str = "", **more: Unpack[CaseOptions]) -> Case:
    if steps < 1 or (scenario == "cyclic" and (steps < 8 or steps % 4)):
        raise ValueError("steps must be at least 1, and in the scenario 'cyclic' a multiple of 4 from 8 on")
    return Case("annealed_langevin", {"walkers": walkers, "steps": steps}, "float32", scenario, **more)


CASES = (
    _case(2003, 8),
    *(_case(1027, 12, scenario) for scenario in (*PASSAGES, "cyclic", "cold")),
    _case(1025, 3, "nan"),
    _case(1, 1),
    _case(3, 2, "passages"),
    _case(0, 4),
    _case(1 << 20, 20, purpose="bench"),
    _case(10_000_000, 100, purpose="bench", preset="quick"),
    _case(10_000_000, 100, "passages", purpose="bench", preset="quick"),
    _case(1 << 20, 2000, "cyclic", purpose="bench", preset="full"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Positions near the wells and the barrier, none far enough out to diverge; the first is within a group."""
    walkers, steps = case.sizes["walkers"], case.sizes["steps"]
    generator = torch.Generator(device).manual_seed(case.seed)
    x = torch.randn(walkers, generator=generator, device=device).clamp(-3, 3)
    if case.scenario == "nan":
        x[::5] = math.nan
    temperatures = schedules.geometric(steps, 1.0, 0.1)
    if case.scenario == "cyclic":
        temperatures = schedules.cyclic_cosine(steps, 1.0, 0.05, cycles=4)
    if case.scenario == "cold":
        temperatures = schedules.constant(steps, 1e-30)
    inputs = {
        "x": x,
        "temperatures": temperatures.to(device),
        "step_size": STEP_SIZE,
        "threshold": 0.7 if case.scenario in PASSAGES else None,
        "seed": case.seed + (1 << 63),
        "first_step": moved(5, case),
        "first_walker": (1 << 34) + 3,
    }
    if case.scenario == "continued":
        passages = torch.full((walkers,), -1, dtype=torch.int32, device=device)
        passages[::3] = 2
        inputs["passages"] = passages
    return inputs


def make_outputs(inputs: Inputs) -> Tensors:
    outputs = {"moved": torch.empty_like(inputs["x"])}
    if inputs["threshold"] is not None:
        outputs["passed"] = torch.empty_like(inputs["x"], dtype=torch.int32)
    return outputs


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The walk in float64 from the same random bits, and a bound on the rounding errors of a float32 walk.

    With ``a = -2 eps`` and ``d = x^2 - 1``, u = 2**-24, a step's roundings are at most ``u |a x| (x^2 + 3 |d|)`` in the
    product (less where it is fused), ``u |x + a x d|`` and ``u |x'|`` in the two sums, and in the noise ``12 u r s``
    with r the Box-Muller radius (``philox.cuh``) and s its scale, which is rounded itself, ``u |z|``.
    An earlier error e grows to ``|1 + a (3 x^2 - 1)| e + |a| (3 |x| e^2 + e^3)``.

    A first passage must be exact, unless the threshold lies within the error of a position. Then every step at which
    it may have happened is right.
    """
    u = 2.0**-24
    x, factor = inputs["x"].double(), -2 * inputs["step_size"]
    error = torch.zeros_like(x)
    threshold = inputs["threshold"]
    earliest = torch.full_like(x, -1)
    certain = torch.full_like(x, -1)
    level = 0.0 if threshold is None else float(torch.tensor(threshold, dtype=torch.float32))
    if "passages" in inputs:
        earliest, certain = inputs["passages"].double(), inputs["passages"].double()
    scales = torch.sqrt(inputs["step_size"] * inputs["temperatures"])
    for number, scale in enumerate(scales):
        z, radius = noise(len(x), inputs["seed"], inputs["first_step"] + number, inputs["first_walker"], x.device)
        largest = x.abs() + error
        slope = largest.square() + 1
        product = (factor * largest).abs() * slope
        rounding = u * (4 * product + 2 * (largest + product) + 2 * scale * z.abs() + 12 * scale * radius)
        stretched = (1 + factor * (3 * x.square() - 1)).abs() * error
        error = stretched + abs(factor) * (3 * x.abs() + error) * error.square() + rounding + 2.0**-126
        x = x + factor * x * (x.square() - 1) + scale * z
        step = inputs["first_step"] + number + 1
        earliest[(earliest < 0) & (x + error >= level)] = step
        certain[(certain < 0) & (x - error >= level)] = step
    results = {"moved": Expected(x, error.nan_to_num(nan=0.0))}
    if threshold is not None:
        results["passed"] = Expected((earliest + certain) / 2, (earliest - certain).abs() / 2)
    return results


def cost(case: Case) -> Cost:
    walkers, steps = case.sizes["walkers"], case.sizes["steps"]
    size = 8 if case.scenario in PASSAGES else 4
    return Cost(
        items=walkers * steps,
        unit="walker-steps",
        bytes_read=(size if case.scenario == "continued" else 4) * walkers,
        bytes_written=size * walkers,
        flops=26 * walkers * steps,
        random_words=walkers * steps,
        special_calls=walkers * steps,
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    def walk() -> object:
        return annealed_langevin(
            inputs["x"], inputs["temperatures"], inputs["step_size"], threshold=inputs["threshold"],
            passages=inputs.get("passages"), seed=inputs["seed"], first_step=inputs["first_step"],
            first_walker=inputs["first_walker"], out=outputs["moved"], passages_out=outputs.get("passed"),
            backend=backend,
        )  # fmt: skip

    run = prepared(walk)

    def launch() -> Tensors:
        run()
        return outputs

    return launch


def _numbers(seed: int, step_size: float, **given: Any) -> dict[str, Any]:
    numbers = {"step_size": step_size, "threshold": None, "seed": seed, "first_step": 0, "first_walker": 0}
    return {**numbers, **given}


WALKERS, CPU_WALKERS = 1_000_000, 20_000


def _walkers(device: torch.device) -> int:
    return WALKERS if device.type == "cuda" else CPU_WALKERS


def _cells(x: Tensor, upto: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The counts of positions in 48 cells, and the probabilities by the distribution function ``upto``."""
    edges = torch.linspace(-1.9, 1.9, 47, dtype=torch.float64)
    chances = torch.cat((torch.zeros(1), upto(edges), torch.ones(1))).diff()
    return torch.bincount(torch.bucketize(x.double().cpu(), edges, right=True), minlength=48), chances.clamp(min=0)


def leaves_invariant(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Exact draws of the discretised chain's invariant distribution are still exact draws after 16 steps.

    The step size is 0.1, where ``<x^2>`` and ``<E>`` differ from the continuum's by far more than their errors.
    """
    temperature, step_size, steps = 0.25, 0.1, 16
    law = exact.stationary_law(temperature, step_size)
    walkers = _walkers(device)
    start = law.draw(walkers, torch.Generator().manual_seed(seed))[:, 0].to(device)
    temperatures = schedules.constant(steps, temperature).to(device)
    x = advance({"x": start, "temperatures": temperatures, **_numbers(seed, step_size)})["moved"].cpu()
    (cdf,) = (each.cdf for each in law.projections if each.cdf is not None)
    verdicts = [harness.chi_square(*_cells(x, lambda y: torch.from_numpy(cdf(y.numpy()))), false_alarm=1e-6 / 3)]
    means = exact.stationary_means(temperature, step_size)
    for name, values in (("x squared", x.double().square()), ("energy", exact.energy(x.double()))):
        error = float(values.std()) / math.sqrt(walkers)
        verdicts.append(
            harness.within(float(values.mean()), means[name], error, what=f"mean {name}", false_alarm=1e-6 / 3)
        )
    return harness.all_of(verdicts)


def follows_a_schedule(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Boltzmann draws at T = 1, cooled to 0.1 in 12 steps, have the distribution that the transfer operators give."""
    temperatures, step_size = schedules.geometric(12, 1.0, 0.1), 0.05
    start = exact.boltzmann(1.0)
    grid = torch.linspace(-exact.WALL, exact.WALL, 1 << 14, dtype=torch.float64)
    upto = start(grid).cumsum(0)
    uniform = torch.rand(_walkers(device), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = grid[torch.searchsorted(upto, uniform * upto[-1])].float().to(device)
    inputs = {"x": x, "temperatures": temperatures.to(device), **_numbers(seed, step_size)}
    final = advance(inputs)["moved"]
    return harness.chi_square(*_cells(final, exact.law_after(start, temperatures, step_size)))


def passes_the_barrier(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """First passages from -1 to 1 at T = 0.8 within 48 steps of size 0.2 have the chain's exact distribution."""
    temperature, step_size, steps = 0.8, 0.2, 48
    walkers = _walkers(device) // 2
    inputs = {
        "x": torch.full((walkers,), -1.0, device=device),
        "temperatures": schedules.constant(steps, temperature).to(device),
        **_numbers(seed, step_size, threshold=1.0, first_step=7),
    }
    passed = advance(inputs)["passed"].cpu().long()
    cell = torch.where(passed < 0, steps, passed - 8)
    if bool(((cell < 0) | (cell > steps)).any()):
        return Agreement(
            Status.WRONG_LAW,
            "passed: a first passage is reported at a step that was not made",
            error=math.inf,
            bound=0.0,
        )
    chances = exact.passage_probabilities(steps, temperature, step_size)
    return harness.chi_square(torch.bincount(cell, minlength=steps + 1), chances)


def composes(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """A schedule in one call gives the same bits as three calls, and as two calls for parts of the walkers."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(203, generator=generator).to(device)
    temperatures = schedules.geometric(9, 1.0, 0.1).to(device)
    passages = torch.full((203,), -1, dtype=torch.int32, device=device)

    def run(first: int, end: int, steps: slice, state: Tensors) -> Tensors:
        numbers = _numbers(seed, STEP_SIZE, threshold=0.5, first_step=steps.start, first_walker=first)
        parts = {name: state[of][first:end] for name, of in (("x", "moved"), ("passages", "passed"))}
        result = advance({**parts, "temperatures": temperatures[steps], **numbers})
        return {name: value.clone() for name, value in result.items()}

    start = {"moved": x, "passed": passages}
    whole = run(0, 203, slice(0, 9), start)
    stepped: Tensors = start
    for steps in (slice(0, 1), slice(1, 5), slice(5, 9)):
        stepped = run(0, 203, steps, stepped)
    halves = [run(first, end, slice(0, 9), start) for first, end in ((0, 54), (54, 203))]
    parts = {name: torch.cat([half[name] for half in halves]) for name in start}
    return same_bits(whole, {"three calls": stepped, "two parts of the walkers": parts})


OPERATION = Operation(
    name="annealed_langevin",
    summary="Langevin walkers in a double well, through a whole schedule of temperatures in one launch.",
    formula="x <- x - 2 eps x (x^2 - 1) + sqrt(eps T_t) xi, for each t; first t with x >= threshold",
    source="Kramers, Physica 7 (1940); Welling and Teh, ICML 2011; Kirkpatrick et al., Science 220 (1983)",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    parameters=("temperatures",),
    moving=("first_step",),
    laws=(
        Law("stationary", "walkers keep the invariant distribution of the chain at its step size", leaves_invariant),
        Law("schedule", "the distribution after cooling is that of the transfer operators", follows_a_schedule),
        Law("first passage", "first passages from -1 to 1 have the chain's distribution", passes_the_barrier),
        Law("composition", "splitting steps or walkers over calls changes no bit", composes, shared_stream=True),
    ),
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.annealed_langevin"
)
