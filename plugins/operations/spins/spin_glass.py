"""The operation ``spin_glass``: annealed Ising spin glasses, compared spin by spin and with exact distributions."""

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
from boltzbench.kernels import schedules
from boltzbench.kernels.philox import Stream, random_words
from boltzbench.kernels.spin_glass import (
    RULES,
    anneal_spins,
    bonds_of,
    lattice_glass,
    pack_walkers,
    random_walkers,
    unpack_walkers,
)
from boltzbench.plugins.exact import glass as exact
from boltzbench.plugins.support.ergodicity import judge_starts, judge_transitions
from boltzbench.plugins.support.operations import operation_hooks, same_bits
from boltzbench.plugins.support.spins import DRAWN_BITS, judge_states
from torch import Tensor

BOLTZBENCH_API = 1


def _case(spins: int, walkers: int, sweeps: int, scenario: str = "", **more: Unpack[CaseOptions]) -> Case:
    return Case("spin_glass", {"spins": spins, "walkers": walkers, "sweeps": sweeps}, "int32", scenario, **more)


CASES = (
    _case(9, 4128, 1),
    _case(9, 96, 1, "metropolis"),
    _case(3, 96, 4, "cyclic"),
    *(_case(4, 96, 1, f"{rule}{scenario}") for rule in ("", "metropolis-") for scenario in ("cold", "hot")),
    _case(6, 1056, 1, "dense"),
    _case(6, 96, 1, "metropolis-dense"),
    _case(9, 96, 1, "dense"),
    _case(9, 96, 1, "metropolis-dense"),
    _case(11, 96, 1, "strong"),
    _case(11, 96, 1, "metropolis-strong"),
    _case(1, 32, 2),
    _case(9, 0, 2),
    _case(9, 64, 1, purpose="bench"),
    *(_case(64, 1 << 22, 20, rule, purpose="bench", preset="quick") for rule in ("", "metropolis")),
    _case(256, 1 << 20, 20, purpose="bench", preset="full"),
    _case(30, 1 << 22, 20, "dense", purpose="bench", preset="full"),
)


def couplings_of(case: Case) -> Tensor:
    """Couplings, whatever the seed: -1 or 1 on a square torus; or between all pairs, of magnitude 1, or up to 2."""
    n = case.sizes["spins"]
    generator = torch.Generator().manual_seed(n)
    if case.scenario in ("", "metropolis"):
        return lattice_glass(math.isqrt(n), math.isqrt(n), generator)
    pairs = torch.randint(0, 4 if case.scenario.endswith("strong") else 2, (n, n), generator=generator)
    upper = torch.tensor([-1, 1, -2, 2], dtype=torch.float64)[pairs].triu(1)
    return upper + upper.t()


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Random spins, cooled from T = 4 to 0.5."""
    sweeps = case.sizes["sweeps"]
    generator = torch.Generator(device).manual_seed(case.seed)
    temperatures = schedules.geometric(sweeps, 4.0, 0.5)
    if case.scenario == "cyclic":
        temperatures = schedules.cyclic_cosine(sweeps, 3.0, 0.3, cycles=2)
    if case.scenario.endswith(("cold", "hot")):
        temperatures = schedules.constant(sweeps, 1e-9 if case.scenario.endswith("cold") else 1e30)
    return {
        "spins": random_walkers(case.sizes["spins"], case.sizes["walkers"], generator, device),
        "couplings": couplings_of(case),
        "temperatures": temperatures.to(device),
        "rule": "metropolis" if case.scenario.startswith("metropolis") else "heat_bath",
        "seed": case.seed + (1 << 63),
        "first_sweep": 3,
        "first_walker": 1 << 36,
    }


def make_outputs(inputs: Inputs) -> Tensors:
    spins = inputs["spins"]
    found = torch.empty(32 * spins.shape[1], dtype=torch.int32, device=spins.device)
    return {"annealed": torch.empty_like(spins), "energies": found}


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The sweeps spin by spin, with flip probabilities in float64 from the change of energy. Spins must be equal."""
    spins, device = unpack_walkers(inputs["spins"]).double(), inputs["spins"].device
    couplings = inputs["couplings"].to(device, torch.float64)
    walkers, n = spins.shape
    group = inputs["first_walker"] // 32 + torch.arange(walkers // 32, device=device)
    part, bit = torch.arange(8, device=device), torch.arange(32, device=device)
    for sweep, temperature in enumerate(inputs["temperatures"]):
        for i in range(n):
            change = 2 * spins[:, i] * (spins @ couplings[i])
            groups = (group * n + i)[:, None] * 8 + part
            drawn = random_words(groups, inputs["seed"], inputs["first_sweep"] + sweep, Stream.GLASS_SITES)
            number = torch.zeros((len(group), 32), dtype=torch.int64, device=device)
            for each in drawn.flatten(1).unbind(1):
                number = number << 1 | each[:, None] >> bit & 1
            number = number.flatten().double()
            if inputs["rule"] == "heat_bath":
                against = number < (2.0**32 / (1 + torch.exp(change.abs() / temperature))).round()
                flips = torch.where(change > 0, against, ~against)
            else:
                threshold = (torch.exp(-change / temperature) * 2.0**32).round().clamp(max=2.0**32 - 1)
                flips = (change <= 0) | (number < threshold)
            spins[:, i] = torch.where(flips, -spins[:, i], spins[:, i])
    final = -0.5 * ((spins @ couplings) * spins).sum(1)
    return {"annealed": Expected(pack_walkers(spins).double()), "energies": Expected(final)}


def cost(case: Case) -> Cost:
    spins, walkers, sweeps = (case.sizes[name] for name in ("spins", "walkers", "sweeps"))
    flips = spins * walkers * sweeps
    return Cost(
        items=flips,
        unit="flips",
        bytes_read=spins * walkers // 8,
        bytes_written=spins * walkers // 8 + 4 * walkers,
        random_words=flips * DRAWN_BITS // 32,
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    bonds = bonds_of(inputs["couplings"]).on(inputs["spins"].device)

    def launch() -> Tensors:
        result = anneal_spins(
            inputs["spins"], bonds, inputs["temperatures"], rule=inputs["rule"], seed=inputs["seed"],
            first_sweep=inputs["first_sweep"], first_walker=inputs["first_walker"], out=outputs["annealed"],
            backend=backend,
        )  # fmt: skip
        outputs["energies"].copy_(result.energies)
        return outputs

    return launch


def _numbers(seed: int, **given: Any) -> dict[str, Any]:
    return {"rule": "heat_bath", "seed": seed, "first_sweep": 0, "first_walker": 0, **given}


WALKERS, CPU_WALKERS = 1 << 19, 8192


def _walkers(device: torch.device) -> int:
    return WALKERS if device.type == "cuda" else CPU_WALKERS


def torus() -> Tensor:
    """Couplings -1 and 1 on a torus of 3 x 4 spins."""
    return lattice_glass(3, 4, torch.Generator().manual_seed(1))


def graph() -> Tensor:
    """Couplings between all pairs of 9 spins, of magnitude up to 2."""
    upper = torch.randint(-2, 3, (9, 9), generator=torch.Generator().manual_seed(0)).double().triu(1)
    return upper + upper.t()


def _judge(states: Tensor, law: Tensor, energies: Tensor, false_alarm: float) -> list[Agreement]:
    """Test drawn states by their energies, and by five of their spins, since energies do not distinguish sites."""
    _, level = torch.unique(energies, return_inverse=True)
    return judge_states(states, law, (level, torch.arange(len(law)) & 31), false_alarm)


def leaves_invariant(rule: str, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Walkers that start as exact draws at T = 1.5 are still exact draws after a sweep."""
    couplings, temperature = graph(), 1.5
    each = exact.state_energies(couplings)
    law = torch.softmax(-each / temperature, 0)
    generator = torch.Generator().manual_seed(seed)
    start = torch.multinomial(law, _walkers(device), replacement=True, generator=generator)
    inputs = {
        "spins": pack_walkers(exact.spins_of_states(start, len(couplings))).to(device),
        "couplings": couplings,
        "temperatures": schedules.constant(1, temperature).to(device),
        **_numbers(seed, rule=rule),
    }
    final = unpack_walkers(advance(inputs)["annealed"]).cpu()
    return harness.all_of(_judge(exact.states_of(final), law, each, 1e-6))


def follows_a_schedule(rule: str, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Random walkers, cooled from 3 to 0.5 in 2 sweeps, have the distribution that the transition matrices give.

    This includes the share of walkers in a ground state. The energies returned must be those of the spins.
    """
    couplings, temperatures = torus(), schedules.geometric(2, 3.0, 0.5)
    each = exact.state_energies(couplings)
    law, walkers = exact.law_after(each, temperatures, rule), _walkers(device)
    generator = torch.Generator().manual_seed(seed)
    start = random_walkers(len(couplings), walkers, generator, torch.device("cpu")).to(device)
    inputs = {"spins": start, "couplings": couplings, "temperatures": temperatures.to(device)}
    result = advance({**inputs, **_numbers(seed, rule=rule)})
    states = exact.states_of(unpack_walkers(result["annealed"]).cpu())
    found = result["energies"].cpu().double()
    wrong = int((found != each[states]).sum())
    if wrong:
        message = f"energies: {wrong} of {walkers} are not those of the spins"
        return Agreement(Status.WRONG_LAW, message, error=float(wrong), bound=0.0)
    p = float(law[each == each.min()].sum())
    rate = float((found == each.min()).double().mean())
    error = math.sqrt(p * (1 - p) / walkers)
    success = harness.within(rate, p, error, what="share of ground states", false_alarm=5e-7)
    return harness.all_of([success, *_judge(states, law, each, 5e-7)])


def ring(n: int) -> Tensor:
    """Couplings 1 between each spin and the next."""
    forward = torch.eye(n, dtype=torch.float64).roll(1, 1)
    return forward + forward.t()


SMALL_WALKERS = {"cuda": (2048, 1 << 16), "cpu": (128, 512)}
"""For `reaches_every_state`: walkers in each state of 4 spins, and of each start of 8 spins."""


def reaches_every_state(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """One sweep makes the exact transitions of a ring of 4 spins and of 4 free spins; a ring of 8 forgets its start.

    At T = 2, where 15 sweeps of the exact transition matrix come within a chi-square distance of 1e-6.
    """
    temperature = 2.0
    of_a_state, of_a_start = SMALL_WALKERS[device.type]

    def run(states: Tensor, couplings: Tensor, sweeps: int, stream: int) -> Tensor:
        inputs = {
            "spins": pack_walkers(exact.spins_of_states(states, len(couplings))).to(device),
            "couplings": couplings,
            "temperatures": schedules.constant(sweeps, temperature).to(device),
        }
        return exact.states_of(unpack_walkers(advance({**inputs, **_numbers(seed + stream)})["annealed"]).cpu())

    verdicts = []
    for number, (name, couplings) in enumerate((("ring", ring(4)), ("free spins", torch.zeros(4, 4)))):
        start = torch.arange(16).repeat(of_a_state)
        matrix = exact.after_sweep(torch.eye(16, dtype=torch.float64), exact.state_energies(couplings), temperature)
        judged = judge_transitions(start, run(start, couplings, 1, number << 32), matrix, 2.5e-7)
        verdicts += [replace(each, message=f"{name}: {each.message}") for each in judged]
    starts = {
        "all spins up": torch.full((of_a_start,), 255),
        "random spins": torch.randint(0, 256, (of_a_start,), generator=torch.Generator().manual_seed(seed)),
        "spins of alternating sign": torch.full((of_a_start,), 0b01010101),
    }
    drawn = run(torch.cat([*starts.values()]), ring(8), 15, 2 << 32).view(len(starts), -1)
    energies = exact.state_energies(ring(8))
    _, level = torch.unique(energies, return_inverse=True)
    cells = (level, torch.arange(256) & 31)
    law = torch.softmax(-energies / temperature, 0)
    verdicts += judge_starts(dict(zip(starts, drawn, strict=True)), law, cells, 5e-7)
    return harness.all_of(verdicts)


def composes(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """A schedule in one call gives the same spins as two calls, and as two calls for parts of the walkers."""
    generator = torch.Generator().manual_seed(seed)
    couplings = torch.ones(4, 4) - torch.eye(4)
    start = random_walkers(4, 320, generator, torch.device("cpu")).to(device)
    temperatures = schedules.geometric(2, 3.0, 0.5).to(device)

    def run(spins: Tensor, sweeps: slice, first_walker: int = 0) -> Tensor:
        inputs = {"spins": spins, "couplings": couplings, "temperatures": temperatures[sweeps]}
        numbers = _numbers(seed, first_sweep=sweeps.start, first_walker=first_walker)
        return advance({**inputs, **numbers})["annealed"].clone()

    whole = run(start, slice(0, 2))
    stepped = start
    for sweep in range(2):
        stepped = run(stepped, slice(sweep, sweep + 1))
    parts = torch.cat((run(start[:, :3], slice(0, 2)), run(start[:, 3:], slice(0, 2), 96)), dim=1)
    split = {"two calls of one sweep": {"annealed": stepped}, "two parts of the walkers": {"annealed": parts}}
    return same_bits({"annealed": whole}, split)


OPERATION = Operation(
    name="spin_glass",
    summary="Simulated annealing of Ising spin glasses, all walkers through a whole schedule in one launch.",
    formula="for each t and i: s_i -> -s_i with probability 1 / (1 + exp(dE / T_t)), E = -sum_{i<j} J_ij s_i s_j",
    source="Edwards and Anderson, J. Phys. F 5 (1975); Kirkpatrick, Gelatt and Vecchi, Science 220 (1983)",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    laws=(
        *(
            Law(
                f"enumeration {rule}",
                "a sweep leaves the distribution of a small glass invariant",
                partial(leaves_invariant, rule),
            )
            for rule in RULES
        ),
        *(
            Law(
                f"schedule {rule}",
                "the distribution after cooling is that of the transition matrices",
                partial(follows_a_schedule, rule),
            )
            for rule in RULES
        ),
        Law("ergodicity", "sweeps by the heat bath lead from every start to the distribution", reaches_every_state),
        Law("composition", "splitting sweeps or walkers over calls changes no spin", composes, shared_stream=True),
    ),
)


register_operations, register_implementations = operation_hooks(OPERATION, prepare, "boltzbench.kernels.spin_glass")
