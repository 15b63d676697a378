"""The operation ``spin_glass``: annealed Ising spin glasses, compared spin by spin and with exact distributions."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import numpy as np
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
    PreparedGlass,
    PreparedSchedule,
    anneal_spins,
    energies,
    lattice_glass,
    pack_walkers,
    prepare_glass,
    prepare_schedule,
    random_walkers,
    unpack_walkers,
)
from boltzbench.plugins.exact import glass as exact
from boltzbench.plugins.support import draws
from boltzbench.plugins.support.ergodicity import judge_starts, judge_transitions
from boltzbench.plugins.support.operations import moved, operation_hooks, same_bits
from boltzbench.plugins.support.spins import DRAWN_BITS, judge_states, judge_updates, up_probability
from torch import Tensor

BOLTZBENCH_API = 1


def _kind(scenario: str) -> str:
    """The kind of couplings: see `glass_of`."""
    return scenario.removeprefix("metropolis").removeprefix("-").split("-")[0]


def _case(spins: int, walkers: int, sweeps: int, scenario: str = "", **more: Unpack[CaseOptions]) -> Case:
    if _kind(scenario) in ("", "fields") and spins != math.isqrt(spins) ** 2:
        raise ValueError("spins must be a square number, those of a torus; the scenario 'dense' takes any number")
    if walkers % 32:
        raise ValueError("walkers must be a multiple of 32")
    if sweeps < 1:
        raise ValueError("sweeps must be at least 1")
    return Case("spin_glass", {"spins": spins, "walkers": walkers, "sweeps": sweeps}, "int32", scenario, **more)


CASES = (
    _case(9, 4128, 1),
    _case(9, 128, 1, "metropolis"),
    _case(3, 96, 4, "cyclic"),
    *(_case(4, 96, 1, f"{rule}{scenario}") for rule in ("", "metropolis-") for scenario in ("cold", "hot")),
    _case(6, 1056, 1, "dense"),
    _case(6, 96, 1, "metropolis-dense"),
    _case(9, 96, 1, "dense"),
    _case(9, 96, 1, "metropolis-dense"),
    _case(11, 96, 1, "strong"),
    _case(11, 96, 1, "metropolis-strong"),
    *(_case(9, 1056, 2, f"{rule}real") for rule in ("", "metropolis-")),
    *(_case(6, 96, 1, f"{rule}large") for rule in ("", "metropolis-")),
    *(_case(4, 96, 1, f"{rule}large-{heat}") for rule in ("", "metropolis-") for heat in ("cold", "hot")),
    _case(4, 64, 1, "fields"),
    _case(1, 32, 2),
    _case(1, 32, 2, "real"),
    _case(9, 0, 2),
    *(_case(n, 128, 4, scenario, purpose="bench") for n, scenario in ((784, ""), (784, "metropolis"), (64, "real"))),
    *(_case(64, 1 << 22, 20, scenario, purpose="bench", preset="quick") for scenario in ("", "metropolis", "real")),
    _case(256, 1 << 20, 20, purpose="bench", preset="full"),
    _case(30, 1 << 22, 20, "dense", purpose="bench", preset="full"),
)


def glass_of(case: Case) -> tuple[Tensor, Tensor | None]:
    """Couplings and fields, whatever the seed.

    Couplings are -1 or 1 on a square torus, or between all pairs: of magnitude 1 (``dense``), up to 2 (``strong``), up
    to 99999 (``large``), or normal numbers in float32 (``real``). ``fields`` and ``real`` have fields.
    """
    n = case.sizes["spins"]
    generator = torch.Generator().manual_seed(n)
    kind = _kind(case.scenario)
    if kind in ("", "fields"):
        couplings = lattice_glass(math.isqrt(n), math.isqrt(n), generator)
        return couplings, torch.randint(-2, 3, (n,), generator=generator) if kind else None
    if kind == "real":
        upper = torch.randn(n, n, generator=generator).triu(1)
        return upper + upper.t(), torch.randn(n, generator=generator)
    if kind == "large":
        upper = torch.randint(-99999, 100000, (n, n), generator=generator).triu(1)
        return upper + upper.t(), None
    pairs = torch.randint(0, 4 if kind == "strong" else 2, (n, n), generator=generator)
    upper = torch.tensor([-1, 1, -2, 2], dtype=torch.float64)[pairs].triu(1)
    return upper + upper.t(), None


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Random spins, cooled from T = 4 to 0.5, or 50000 times that for couplings that are so much larger."""
    sweeps = case.sizes["sweeps"]
    generator = torch.Generator(device).manual_seed(case.seed)
    scale = 50000 if "large" in case.scenario else 1
    temperatures = schedules.geometric(sweeps, 4.0 * scale, 0.5 * scale)
    if case.scenario == "cyclic":
        temperatures = schedules.cyclic_cosine(sweeps, 3.0, 0.3, cycles=2)
    if case.scenario.endswith(("cold", "hot")):
        temperatures = schedules.constant(sweeps, 1e-9 if case.scenario.endswith("cold") else 1e30)
    couplings, fields = glass_of(case)
    return {
        "spins": random_walkers(case.sizes["spins"], case.sizes["walkers"], generator, device),
        "couplings": couplings.to(device),
        "fields": None if fields is None else fields.to(device),
        "temperatures": temperatures.to(device),
        "rule": "metropolis" if case.scenario.startswith("metropolis") else "heat_bath",
        "seed": case.seed + (1 << 63),
        "first_sweep": moved(3, case),
        "first_walker": 1 << 36,
    }


def make_outputs(inputs: Inputs) -> Tensors:
    spins = inputs["spins"]
    found = torch.empty(32 * spins.shape[1], dtype=torch.float64, device=spins.device)
    return {"annealed": torch.empty_like(spins), "energies": found}


def _numbers_of_bonds(inputs: Inputs, group: Tensor, sweep: int, i: int) -> Tensor:
    """The random number of spin i for each walker, from the bits of 32 words: float64 (walkers,)."""
    part, bit = torch.arange(8, device=group.device), torch.arange(32, device=group.device)
    groups = (group * len(inputs["spins"]) + i)[:, None] * 8 + part
    drawn = random_words(groups, inputs["seed"], inputs["first_sweep"] + sweep, Stream.GLASS_SITES)
    number = torch.zeros((len(group), 32), dtype=torch.int64, device=group.device)
    for each in drawn.flatten(1).unbind(1):
        number = number << 1 | each[:, None] >> bit & 1
    return number.flatten().double()


def _numbers_of_links(inputs: Inputs, group: Tensor, sweep: int, i: int) -> Tensor:
    """The same for glasses of links, where each walker has words of its own."""
    walker = (group[:, None] * 32 + torch.arange(32, device=group.device)).flatten()
    groups = walker * -(-len(inputs["spins"]) // 4) + i // 4
    return random_words(groups, inputs["seed"], inputs["first_sweep"] + sweep, Stream.GLASS_LINKS)[:, i % 4].double()


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The sweeps spin by spin, with flip probabilities in float64 from the change of energy.

    Spins of a glass of bonds must be equal. In a glass of links, rounded couplings change a local field by at most
    their errors e, hence dE by 2 e and a probability by at most ``2 e / T``; the probability itself has a relative
    error of 2**-25 and two roundings. A walker whose number lies within that of its threshold, or whose field within e
    of zero, is uncertain from then on: one in 10**7 updates or fewer.
    """
    spins, device = unpack_walkers(inputs["spins"]).double(), inputs["spins"].device
    couplings = inputs["couplings"].to(device, torch.float64)
    walkers, n = spins.shape
    fields = torch.zeros(n, dtype=torch.float64, device=device)
    if inputs["fields"] is not None:
        fields = inputs["fields"].to(device, torch.float64)
    totals = couplings.abs().sum(1) + fields.abs()
    by_bonds = inputs["fields"] is None and bool((couplings == couplings.round()).all()) and float(totals.max()) <= 31
    unit = 2.0 ** (math.frexp(float(totals.max()))[1] - 30)
    wrong, wrong_fields = ((each - unit * (each / unit).round()).abs() for each in (couplings, fields))
    wrong_by = wrong.sum(1) + wrong_fields
    group = inputs["first_walker"] // 32 + torch.arange(walkers // 32, device=device)
    uncertain = torch.zeros(walkers, dtype=torch.bool, device=device)
    numbers = _numbers_of_bonds if by_bonds else _numbers_of_links
    for sweep, temperature in enumerate(inputs["temperatures"]):
        for i in range(n):
            field = spins @ couplings[i] + fields[i]
            change = 2 * spins[:, i] * field
            number = numbers(inputs, group, sweep, i)
            p = torch.sigmoid(-change.abs() / temperature)
            if inputs["rule"] == "metropolis":
                p = torch.exp(-change.clamp(min=0) / temperature)
            threshold = (2.0**32 * p).round().clamp(max=2.0**32 - 1)
            against = number < threshold
            up = spins[:, i] > 0
            if inputs["rule"] == "metropolis":
                up = up ^ ((change <= 0) | against)
            else:
                along = up ^ (change <= 0) if by_bonds else field >= 0
                up = along ^ against
            if not by_bonds:
                width = 2.0**32 * (2.0**-25 * p + 2 * wrong_by[i] / temperature) + 2
                uncertain |= ((number - threshold).abs() <= width) & (p > 0)
                uncertain |= (field.abs() <= wrong_by[i]) & (wrong_by[i] > 0)
            spins[:, i] = torch.where(up, 1.0, -1.0)
    final = -0.5 * ((spins @ couplings) * spins).sum(1) - spins @ fields
    rounded = wrong.sum() / 2 + wrong_fields.sum()
    width = rounded * (1 + 2.0**-20) + uncertain * 2 * totals.sum()  # more than the rounding of sums in float64
    words = uncertain.view(-1, 32).any(1).double() * 2.0**32
    return {"annealed": Expected(pack_walkers(spins).double(), words), "energies": Expected(final, width)}


MOST_DRAWS = 1 << 20
"""The most spins whose draws are tested one by one, and in the mean."""


def judge_draws(inputs: Inputs, outputs: Tensors) -> Agreement:
    """Test the spins of a sampler with its own random stream, at a significance level of 1e-6, and their energies.

    After one sweep spin i has been drawn given the spins before it, which are known, and the start of those behind it.
    So all draws are tested by their exact probabilities. After several sweeps, energies, overlaps with the start and
    each spin are compared in the mean with walkers of the torch backend from the same start.
    """
    couplings, fields, found = inputs["couplings"], inputs["fields"], outputs["energies"]
    wanted = energies(outputs["annealed"], couplings, fields)
    total = float(couplings.double().abs().sum()) + (0.0 if fields is None else float(fields.double().abs().sum()))
    off = (found - wanted).abs().nan_to_num(nan=math.inf)
    if not bool((off <= 2.0**-48 * total).all()):
        first = int(off.argmax())
        message = f"energies: walker {first} has {found[first]:.9g}, its spins {wanted[first]:.9g}"
        return Agreement(Status.WRONG_VALUES, message, error=float(off[first]), bound=2.0**-48 * total)
    if not inputs["spins"].numel():
        return Agreement(Status.PASSED, "no spins", error=0.0, bound=0.0)
    step = -(-32 * inputs["spins"].numel() // MOST_DRAWS)
    start, words = (each[:, ::step].contiguous() for each in (inputs["spins"], outputs["annealed"]))
    before, after = unpack_walkers(start).double(), unpack_walkers(words).double()
    if len(inputs["temperatures"]) == 1:
        return harness.all_of(_judge_one_sweep(inputs, before, after))
    reference = torch.empty_like(start)
    anneal_spins(
        start, prepare_glass(couplings, fields, device=start.device), inputs["temperatures"], rule=inputs["rule"],
        seed=(inputs["seed"] + 1) % (1 << 64), out=reference, backend="torch",
    )  # fmt: skip
    drawn = unpack_walkers(reference).double()
    pairs = {f"spin {i}": (after[:, i], drawn[:, i]) for i in range(len(couplings))}
    pairs["energy"] = (energies(words, couplings, fields), energies(reference, couplings, fields))
    pairs["overlap with the start"] = ((after * before).sum(1), (drawn * before).sum(1))
    return harness.all_of([draws.same_mean(*each, name, 1e-6 / len(pairs)) for name, each in pairs.items()])


def _judge_one_sweep(inputs: Inputs, before: Tensor, after: Tensor) -> list[Agreement]:
    couplings = inputs["couplings"].to(before.device, torch.float64)
    field = after @ couplings.triu(1) + before @ couplings.tril(-1)  # couplings are symmetric
    if inputs["fields"] is not None:
        field = field + inputs["fields"].to(before.device, torch.float64)
    exponent = 2 * before * field / inputs["temperatures"][0]
    p, generator = up_probability(before, exponent, inputs["rule"]), np.random.Generator(np.random.SFC64(20))
    return judge_updates(after > 0, p, before, "spins", 1e-6, generator)[0]


def cost(case: Case) -> Cost:
    spins, walkers, sweeps = (case.sizes[name] for name in ("spins", "walkers", "sweeps"))
    flips = spins * walkers * sweeps
    return Cost(
        items=flips,
        unit="flips",
        bytes_read=spins * walkers // 8,
        bytes_written=spins * walkers // 8 + 8 * walkers,
        random_words=flips if case.scenario.endswith("real") else flips * DRAWN_BITS // 32,
    )


def _prepared(inputs: Inputs) -> tuple[PreparedGlass, PreparedSchedule]:
    device = inputs["spins"].device
    glass = prepare_glass(inputs["couplings"], inputs["fields"], device=device)
    return glass, prepare_schedule(inputs["temperatures"], device=device)


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    glass, schedule = _prepared(inputs)

    def launch() -> Tensors:
        nonlocal glass, schedule
        if not (glass.is_current and schedule.is_current):
            glass, schedule = _prepared(inputs)
        anneal_spins(
            inputs["spins"], glass, schedule, rule=inputs["rule"], seed=inputs["seed"],
            first_sweep=inputs["first_sweep"], first_walker=inputs["first_walker"], out=outputs["annealed"],
            energies_out=outputs["energies"], backend=backend,
        )  # fmt: skip
        return outputs

    return launch


def _numbers(seed: int, **given: Any) -> dict[str, Any]:
    return {"fields": None, "rule": "heat_bath", "seed": seed, "first_sweep": 0, "first_walker": 0, **given}


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


def real_graph() -> tuple[Tensor, Tensor]:
    """Real couplings between all pairs of 7 spins, and a field for each, in float32."""
    generator = torch.Generator().manual_seed(0)
    upper = torch.randn(7, 7, generator=generator).triu(1)
    return upper + upper.t(), torch.randn(7, generator=generator)


def _judge(states: Tensor, law: Tensor, energies: Tensor, false_alarm: float) -> list[Agreement]:
    """Test drawn states by their energies, and by five of their spins, since energies do not distinguish sites."""
    _, level = torch.unique(energies, return_inverse=True)
    return judge_states(states, law, (level, torch.arange(len(law)) & 31), false_alarm)


def leaves_invariant(rule: str, real: bool, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Walkers that start as exact draws at T = 1.5 are still exact draws after a sweep."""
    (couplings, fields), temperature = real_graph() if real else (graph(), None), 1.5
    each = exact.state_energies(couplings.double(), fields)
    law = torch.softmax(-each / temperature, 0)
    generator = torch.Generator().manual_seed(seed)
    start = torch.multinomial(law, _walkers(device), replacement=True, generator=generator)
    inputs = {
        "spins": pack_walkers(exact.spins_of_states(start, len(couplings))).to(device),
        "couplings": couplings.to(device),
        "temperatures": schedules.constant(1, temperature).to(device),
        **_numbers(seed, rule=rule, fields=None if fields is None else fields.to(device)),
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
    inputs = {"spins": start, "couplings": couplings.to(device), "temperatures": temperatures.to(device)}
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


def pair() -> Tensor:
    """Four spins, of which two have a coupling of 1 and two are free."""
    couplings = torch.zeros(4, 4, dtype=torch.float64)
    couplings[0, 1] = couplings[1, 0] = 1
    return couplings


SMALL_WALKERS = {"cuda": (2048, 1 << 16), "cpu": (128, 512)}
"""For `reaches_every_state`: walkers in each state of 4 spins, and of each start of 8 spins."""


GLASSES = {"": 1, " links": 40}
"""For laws of bonds and of links: a factor of couplings and temperatures. 40 is too strong for bonds."""


def reaches_every_state(strength: int, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """One sweep makes the exact transitions of 4 spins in a ring, and with two free; a ring of 8 forgets its start.

    At T = 2, where 15 sweeps of the exact transition matrix come within a chi-square distance of 1e-6; couplings and T
    times ``strength``.
    """
    temperature = 2.0 * strength
    of_a_state, of_a_start = SMALL_WALKERS[device.type]

    def run(states: Tensor, couplings: Tensor, sweeps: int, stream: int) -> Tensor:
        inputs = {
            "spins": pack_walkers(exact.spins_of_states(states, len(couplings))).to(device),
            "couplings": couplings.to(device),
            "temperatures": schedules.constant(sweeps, temperature).to(device),
        }
        return exact.states_of(unpack_walkers(advance({**inputs, **_numbers(seed + stream)})["annealed"]).cpu())

    verdicts = []
    for number, (name, couplings) in enumerate((("ring", ring(4)), ("free spins", pair()))):
        start = torch.arange(16).repeat(of_a_state)
        energies = exact.state_energies(strength * couplings)
        matrix = exact.after_sweep(torch.eye(16, dtype=torch.float64), energies, temperature)
        judged = judge_transitions(start, run(start, strength * couplings, 1, number << 32), matrix, 2.5e-7)
        verdicts += [replace(each, message=f"{name}: {each.message}") for each in judged]
    starts = {
        "all spins up": torch.full((of_a_start,), 255),
        "random spins": torch.randint(0, 256, (of_a_start,), generator=torch.Generator().manual_seed(seed)),
        "spins of alternating sign": torch.full((of_a_start,), 0b01010101),
    }
    drawn = run(torch.cat([*starts.values()]), strength * ring(8), 15, 2 << 32).view(len(starts), -1)
    energies = exact.state_energies(strength * ring(8))
    _, level = torch.unique(energies, return_inverse=True)
    cells = (level, torch.arange(256) & 31)
    law = torch.softmax(-energies / temperature, 0)
    verdicts += judge_starts(dict(zip(starts, drawn, strict=True)), law, cells, 5e-7)
    return harness.all_of(verdicts)


def composes(strength: int, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """A schedule in one call gives the same spins as two calls, and as two calls for parts of the walkers."""
    generator = torch.Generator().manual_seed(seed)
    couplings = (strength * (torch.ones(4, 4) - torch.eye(4))).to(device)
    start = random_walkers(4, 320, generator, torch.device("cpu")).to(device)
    temperatures = strength * schedules.geometric(2, 3.0, 0.5).to(device)

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
    formula="for each t and i: s_i -> -s_i with probability 1 / (1 + exp(dE / T_t)), E = -sum_{i<j} J_ij s_i s_j - h.s",
    source="Edwards and Anderson, J. Phys. F 5 (1975); Kirkpatrick, Gelatt and Vecchi, Science 220 (1983)",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    parameters=("couplings", "fields", "temperatures"),
    moving=("first_sweep",),
    judge_draws=judge_draws,
    laws=(
        *(
            Law(
                f"enumeration {rule}{' real' if real else ''}",
                "a sweep leaves the distribution of a small glass invariant",
                partial(leaves_invariant, rule, real),
            )
            for rule in RULES
            for real in (False, True)
        ),
        *(
            Law(
                f"schedule {rule}",
                "the distribution after cooling is that of the transition matrices",
                partial(follows_a_schedule, rule),
            )
            for rule in RULES
        ),
        *(
            Law(
                f"ergodicity{kind}",
                "sweeps by the heat bath lead from every start to the distribution",
                partial(reaches_every_state, strength),
            )
            for kind, strength in GLASSES.items()
        ),
        *(
            Law(
                f"composition{kind}",
                "splitting sweeps or walkers over calls changes no spin",
                partial(composes, strength),
                shared_stream=True,
            )
            for kind, strength in GLASSES.items()
        ),
    ),
)


register_operations, register_implementations = operation_hooks(OPERATION, prepare, "boltzbench.kernels.spin_glass")
