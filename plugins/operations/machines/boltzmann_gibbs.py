"""The operation ``boltzmann_gibbs``: sweeps of a Boltzmann machine, checked draw by draw and against enumeration."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
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
from boltzbench.kernels.boltzmann_gibbs import (
    PreparedMachine,
    boltzmann_gibbs,
    draw_uniforms,
    prepare_spins,
    prepare_units,
)
from boltzbench.kernels.ising import lattice_couplings
from boltzbench.plugins.exact.glass import after_sweep
from boltzbench.plugins.exact.states import all_units, number_of
from boltzbench.plugins.support.ergodicity import judge_starts, judge_transitions
from boltzbench.plugins.support.operations import moved, operation_hooks, same_bits
from torch import Tensor

BOLTZBENCH_API = 1

BETAS = {"hot": 0.5, "cold": 2.0, "beta-zero": 0.0}
NEIGHBOURS = 6
"""The mean number of neighbours of a unit, where couplings are sparse."""
BENCH_SIZES = ((1024, 10), (4096, 2))
"""Units and sweeps."""


def _case(chains: int, units: int, sweeps: int = 1, scenario: str = "", **more: Unpack[CaseOptions]) -> Case:
    if units < 1 or sweeps < 1:
        raise ValueError("units and sweeps must be at least 1")
    if scenario == "lattice" and units % math.isqrt(units):
        raise ValueError("units must be the product of two sides of a lattice, such as a square number")
    sizes = {"chains": chains, "units": units, "sweeps": sweeps}
    return Case("boltzmann_gibbs", sizes, "float32", scenario, **more)


CASES = (
    *(_case(70, 37, scenario=scenario) for scenario in ("", *BETAS, "spins", "clamped", "betas clamped")),
    _case(33, 70, scenario="dense"),
    _case(17, 200, scenario="dense"),
    _case(40, 64, sweeps=3, scenario="lattice"),
    _case(5, 1),
    _case(0, 9),
    _case(65, 150, sweeps=2),
    _case(256, 64, purpose="bench"),
    *(
        _case(8192, units, sweeps, scenario, purpose="bench", preset="quick")
        for scenario in ("lattice", "", "dense")
        for units, sweeps in BENCH_SIZES
    ),
    *(_case(8192, units, sweeps, "spins", purpose="bench", preset="full") for units, sweeps in BENCH_SIZES),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Couplings of scale ``2 / sqrt(neighbours)``, so that probabilities lie all over (0, 1).

    A unit has six neighbours on average, or all other units (``dense``), or those of a square lattice on a torus with
    equal couplings (``lattice``).
    """
    chains, units = case.sizes["chains"], case.sizes["units"]
    generator = torch.Generator(device).manual_seed(case.seed)
    random = partial(torch.randn, generator=generator, device=device)
    if case.scenario == "lattice":
        side, coupling = math.isqrt(units), 1 + float(torch.rand((), generator=generator, device=device))
        weights = lattice_couplings(side, units // side, coupling).to(device, torch.float32)
    else:
        density = 1.0 if case.scenario == "dense" else min(1.0, NEIGHBOURS / units)
        present = torch.rand(units, units, generator=generator, device=device) < density
        weights = (2 / math.sqrt(density * units) * random(units, units) * present).triu(1)
        weights = weights + weights.t()
    inputs: dict[str, Any] = {
        "states": (random(chains, units) < 0.3).to(torch.uint8),
        "weights": weights,
        "biases": random(units),
        "spins": case.scenario == "spins",
        "sweeps": case.sizes["sweeps"],
        "beta": BETAS.get(case.scenario, 1.0),
        "seed": case.seed + (1 << 63),
        "first_sweep": moved(3, case),
        "first_chain": (1 << 31) + 1,
    }
    if inputs["spins"]:
        inputs["states"] = 2 * inputs["states"].to(torch.int8) - 1
    if case.scenario == "betas clamped":
        inputs["beta"] = 0.2 + 2 * torch.rand(chains, generator=generator, device=device, dtype=torch.float64)
        inputs["clamped"] = random(chains, units) < -0.5
    if case.scenario == "clamped":
        inputs["clamped"] = random(units) < -0.5
    return inputs


def make_outputs(inputs: Inputs) -> Tensors:
    return {"advanced": torch.empty_like(inputs["states"])}


def _prepared(inputs: Inputs) -> PreparedMachine:
    prepare_machine = prepare_spins if inputs["spins"] else prepare_units
    return prepare_machine(inputs["weights"], inputs["biases"])


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """Each unit in float64, from its form of the machine, given the earlier draws of the implementation's last sweep.

    So a near-tie stays local in that sweep. The states of the sweeps before are not returned; there the check compares
    a chain with the reference up to its first near-tie. The probability of a kernel may be off by

    - ``beta / 4`` times the error of its logit: a sum of K couplings and the bias in any order in float32, and two
      products, with rounding errors of u = 2**-24 times the sum of magnitudes each: ``(K + 3) u (|b| + sum|w|)``. For
      spins these are the magnitudes of the equivalent units, ``w = 4 J`` and ``b = 2 h - 2 sum J``, with one more
      rounding of b;
    - ``4 u`` for the logistic function, or for the three roundings of the test ``u (1 + exp(-x)) < 1``.
    """
    machine = _prepared(inputs)
    spins, beta = inputs["spins"], inputs["beta"]
    beta = beta[:, None] if isinstance(beta, Tensor) else beta
    couplings, fields = inputs["weights"].double(), inputs["biases"].double()
    degree = (couplings != 0).sum(1)
    size = couplings.abs().sum(1)
    size = 4 * size + 2 * (fields.abs() + size) if spins else fields.abs() + size
    width = beta / 4 * (degree + 3) * 2.0**-24 * size + 4 * 2.0**-24
    start = inputs["states"].double()
    clamped = inputs.get("clamped", torch.zeros_like(start, dtype=torch.bool)).expand(start.shape)
    x, drawn = start, outputs["advanced"].double()
    uncertain = torch.zeros((len(start), 1), dtype=torch.bool, device=start.device)
    wanted, near = x, torch.zeros_like(clamped)
    for sweep in range(inputs["sweeps"]):
        last, step = sweep == inputs["sweeps"] - 1, inputs["first_sweep"] + sweep
        u = draw_uniforms(start.shape, inputs["seed"], step, inputs["first_chain"], start.device)
        u = u[:, machine.rank].double()
        x, wanted, near = x.clone(), x.clone(), torch.zeros_like(clamped)
        for units in torch.split(machine.order, list(machine.sizes)):
            field = beta * (fields[units] + x @ couplings[:, units])
            p = torch.sigmoid(2 * field if spins else field)
            up = (u[:, units] < p).double()
            wanted[:, units] = torch.where(clamped[:, units], start[:, units], 2 * up - 1 if spins else up)
            tie = (u[:, units] - p).abs() <= width[..., units]
            near[:, units] = tie & ~clamped[:, units]
            x[:, units] = (drawn if last else wanted)[:, units]
        uncertain = uncertain if last else uncertain | near.any(1, keepdim=True)
    bound = (near | uncertain).double()
    return {"advanced": Expected(wanted, 2 * bound if spins else bound)}


def cost(case: Case) -> Cost:
    chains, units, sweeps = (case.sizes[name] for name in ("chains", "units", "sweeps"))
    neighbours = {"lattice": 4, "dense": units - 1}.get(case.scenario, NEIGHBOURS)
    updates = chains * units * sweeps
    return Cost(
        items=updates,
        unit="unit updates",
        bytes_read=chains * units + 8 * units * neighbours,
        bytes_written=chains * units,
        flops=updates * neighbours,
        random_words=updates,
        special_calls=updates,
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    machine = _prepared(inputs)

    def launch() -> Tensors:
        nonlocal machine
        if not machine.is_current:
            machine = _prepared(inputs)
        boltzmann_gibbs(
            inputs["states"], machine, inputs["sweeps"], inputs["beta"], seed=inputs["seed"],
            first_sweep=inputs["first_sweep"], first_chain=inputs["first_chain"], clamped=inputs.get("clamped"),
            check_values=False, out=outputs["advanced"], backend=backend,
        )  # fmt: skip
        return outputs

    return launch


def example(units: int) -> tuple[Tensor, Tensor]:
    """Weights and biases of a frustrated machine: a ring with chords (odd cycles) and couplings of both signs."""
    i = torch.arange(units)
    weights = torch.zeros(units, units)
    for step in (1, 2, 4):
        weights[i, (i + step) % units] += torch.sin(1.7 * i + 0.9 * step).float() * 1.5
    weights = weights + weights.t()
    return weights, 0.5 * torch.cos(1.0 * i)


def state_energies(weights: Tensor, biases: Tensor, spins: bool = False) -> Tensor:
    """``E`` of every state: float64 (2**n,)."""
    x = all_units(len(biases)).double()
    x = 2 * x - 1 if spins else x
    return -((x @ weights.double() * x).sum(1) / 2 + x @ biases.double())


def exact_law(weights: Tensor, biases: Tensor, beta: float) -> Tensor:
    """``p(x)`` by enumeration: float64 (2**n,)."""
    return torch.softmax(-beta * state_energies(weights, biases), 0)


UNITS = 9
CHAINS, CPU_CHAINS = 340_000, 40_000
"""On a GPU, for 512 states: significance level 1e-6, power 0.999 at a chi-distance of 0.03."""


def _numbers(seed: int, **given: Any) -> dict[str, Any]:
    return {"spins": False, "sweeps": 1, "beta": 1.0, "seed": seed, "first_sweep": 0, "first_chain": 0, **given}


def keeps_the_law(sweeps: int, beta: float, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Sweeps leave the exact distribution invariant: chains start as exact draws and must remain exact draws."""
    weights, biases = example(UNITS)
    law = exact_law(weights, biases, beta)
    chains = CHAINS if device.type == "cuda" else CPU_CHAINS
    start = torch.multinomial(law, chains, replacement=True, generator=torch.Generator().manual_seed(seed))
    result = advance(
        {
            "states": all_units(UNITS)[start].to(device), "weights": weights.to(device), "biases": biases.to(device),
            **_numbers(seed, sweeps=sweeps, beta=beta),
        }
    )["advanced"].cpu()  # fmt: skip
    if bool((result > 1).any()):
        return Agreement(Status.WRONG_LAW, "a state is neither 0 nor 1", error=math.inf, bound=0.0)
    return harness.chi_square(torch.bincount(number_of(result), minlength=1 << UNITS), law)


def torus(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Couplings and fields of a torus of equal spins, which has two colours."""
    return lattice_couplings(height, width).float(), torch.zeros(height * width)


SMALL_CHAINS = {"cuda": (2048, 1 << 16), "cpu": (128, 256)}
"""For `reaches_every_state`: chains in each state of a small machine, and of each start of a larger one."""


def reaches_every_state(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """One sweep makes the exact transitions of machines of 4 and 5 units; 6 sweeps forget the start of 8 or 9.

    After 6 sweeps the exact transition matrix comes within a chi-square distance of 1e-6 of the distribution. On the
    torus, flips without a change of energy are frequent.
    """
    of_a_state, of_a_start = SMALL_CHAINS[device.type]
    small = (
        ("free units", (torch.zeros(4, 4), torch.zeros(4)), False, 1.0),
        ("2 x 2 spins", torus(2, 2), True, 0.2),
        ("5 units on odd cycles", example(5), False, 0.3),
    )
    larger = (("2 x 4 spins", torus(2, 4), True, 0.1), ("9 units on odd cycles", example(9), False, 0.3))
    rate = 1e-6 / len(small + larger)

    def run(start: Tensor, machine: tuple[Tensor, Tensor], spins: bool, stream: int, **numbers: Any) -> Tensor:
        weights, biases = (each.to(device) for each in machine)
        states = all_units(len(biases))[start].to(device)
        inputs = {"weights": weights, "biases": biases, **_numbers(seed + (stream << 32), spins=spins, **numbers)}
        advanced = advance({**inputs, "states": 2 * states.to(torch.int8) - 1 if spins else states})["advanced"]
        return number_of(advanced.cpu() > 0)

    verdicts = []
    for number, (name, machine, spins, beta) in enumerate(small):
        states = 1 << len(machine[1])
        start = torch.arange(states).repeat(of_a_state)
        order = _prepared({"weights": machine[0], "biases": machine[1], "spins": spins}).order.tolist()
        matrix = torch.eye(states, dtype=torch.float64)
        matrix = after_sweep(matrix, state_energies(*machine, spins), 1 / beta, order=order)
        judged = judge_transitions(start, run(start, machine, spins, number, beta=beta), matrix, rate)
        verdicts += [replace(each, message=f"{name}: {each.message}") for each in judged]
    for number, (name, machine, spins, beta) in enumerate(larger, len(small)):
        states = 1 << len(machine[1])
        starts = {
            "all units 0": torch.zeros(of_a_start, dtype=torch.int64),
            "all units 1": torch.full((of_a_start,), states - 1),
            "random units": torch.randint(states, (of_a_start,), generator=torch.Generator().manual_seed(seed)),
            "stripes": torch.full((of_a_start,), 0b101010101 % states),
        }
        drawn = run(torch.cat([*starts.values()]), machine, spins, number, sweeps=6, beta=beta).view(len(starts), -1)
        law = torch.softmax(-beta * state_energies(*machine, spins), 0)
        cells = (torch.arange(states) & 31, torch.arange(states) >> 4)
        judged = judge_starts(dict(zip(starts, drawn, strict=True)), law, cells, rate)
        verdicts += [replace(each, message=f"{name}: {each.message}") for each in judged]
    return harness.all_of(verdicts)


def composes(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Three sweeps in one call give the same states as three calls, and as two calls for parts of the batch."""
    weights, biases = (each.to(device) for each in example(30))
    states = (torch.rand(100, 30, generator=torch.Generator().manual_seed(seed)) < 0.5).to(torch.uint8).to(device)
    inputs = {"weights": weights, "biases": biases, **_numbers(seed, sweeps=3)}
    whole = advance({**inputs, "states": states})["advanced"]
    stepped = states
    for sweep in range(3):
        stepped = advance({**inputs, "states": stepped, "sweeps": 1, "first_sweep": sweep})["advanced"]
    parts = [
        advance({**inputs, "states": states[first:end], "first_chain": first})["advanced"]
        for first, end in ((0, 37), (37, 100))
    ]
    return same_bits(
        {"advanced": whole},
        {"three calls of one sweep": {"advanced": stepped}, "two parts of the batch": {"advanced": torch.cat(parts)}},
    )


OPERATION = Operation(
    name="boltzmann_gibbs",
    summary="Sweeps of heat-bath Gibbs sampling of a Boltzmann machine with any couplings, by graph colouring.",
    formula="x_i ~ Bernoulli(sigmoid(beta (b_i + sum_j W_ij x_j))), all units of a colour at once",
    source="Ackley, Hinton and Sejnowski, Cognitive Science 9 (1985)",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    parameters=("weights", "biases"),
    moving=("first_sweep",),
    laws=(
        Law(
            "enumeration beta=0.5", f"two sweeps leave the exact law of {UNITS} units on odd cycles invariant",
            partial(keeps_the_law, 2, 0.5),
        ),
        Law(
            "enumeration beta=1.5", f"one sweep leaves the exact law of {UNITS} units on odd cycles invariant",
            partial(keeps_the_law, 1, 1.5),
        ),
        Law("ergodicity", "sweeps lead from every start to the distribution", reaches_every_state),
        Law("composition", "splitting sweeps or chains over calls changes no state", composes, shared_stream=True),
    ),
)  # fmt: skip


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.boltzmann_gibbs"
)
