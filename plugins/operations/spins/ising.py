"""The operation ``ising``: checkerboard sweeps of Ising lattices, compared spin by spin and with exact results."""

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
from boltzbench.kernels.common.prepared import prepared
from boltzbench.kernels.ising import RULES, energy, ising_sweeps, lattice_couplings, pack_spins, unpack_spins, words_of
from boltzbench.kernels.philox import Stream, random_words
from boltzbench.plugins.exact.glass import after_sweep, state_energies
from boltzbench.plugins.exact.ising import CRITICAL_BETA, all_states, energy_law, kaufman
from boltzbench.plugins.exact.states import all_spins, number_of
from boltzbench.plugins.support import draws
from boltzbench.plugins.support.ergodicity import judge_starts, judge_transitions
from boltzbench.plugins.support.operations import moved, operation_hooks, same_bits
from boltzbench.plugins.support.spins import DRAWN_BITS, judge_states, judge_updates, up_probability
from torch import Tensor

BOLTZBENCH_API = 1

STREAMS = (Stream.EVEN_SITES, Stream.ODD_SITES)
"""The random stream of each colour."""
FIELDS = {"field": 0.3, "metropolis-field": -0.3}
BETAS = {
    f"{rule}{name}": beta
    for rule in ("", "metropolis-")
    for name, beta in (("beta-zero", 0.0), ("beta-infinite", math.inf))
}


def _case(
    lattices: int, height: int, width: int, sweeps: int = 1, scenario: str = "", **more: Unpack[CaseOptions]
) -> Case:
    if min(height, width) < 2 or height % 2 or width % 2:
        raise ValueError("height and width must be even and at least 2, or the checkerboard does not close")
    if sweeps < 1:
        raise ValueError("sweeps must be at least 1")
    sizes = {"lattices": lattices, "height": height, "width": width, "sweeps": sweeps}
    return Case("ising", sizes, "int32", scenario, **more)


BENCH_SIZES = ((1, 16384, 4), (1, 4096, 16), (256, 512, 16), (65536, 32, 16))
"""Lattices, side, sweeps."""

CASES = (
    _case(5, 6, 70),
    _case(5, 6, 70, scenario="metropolis"),
    *(_case(3, 10, 66, scenario=f"{rule}antiferromagnet") for rule in ("", "metropolis-")),
    *(_case(3, 4, 130, scenario=scenario) for scenario in (*FIELDS, *BETAS)),
    _case(70, 4, 4, sweeps=3),
    _case(70, 4, 4, sweeps=3, scenario="metropolis"),
    _case(9, 2, 2, sweeps=2),
    _case(2, 64, 128),
    _case(2, 64, 128, sweeps=2),
    _case(0, 4, 6),
    *(_case(1, 1024, 1024, 2, scenario, purpose="bench") for scenario in ("", "metropolis")),
    *(
        _case(lattices, side, side, sweeps, scenario, purpose="bench", preset="quick")
        for scenario in ("", "metropolis")
        for lattices, side, sweeps in BENCH_SIZES
    ),
    *(
        _case(lattices, side, side, sweeps, "field", purpose="bench", preset="full")
        for lattices, side, sweeps in BENCH_SIZES
    ),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Random spins, and a beta of 0.2 to 0.7 for each lattice."""
    lattices, height, width = (case.sizes[name] for name in ("lattices", "height", "width"))
    words = words_of(width)
    generator = torch.Generator(device).manual_seed(case.seed)
    bits = torch.randint(
        -(1 << 31), 1 << 31, (lattices, 2, height, words), generator=generator, device=device, dtype=torch.int64
    )
    present = torch.full((words,), (1 << 32) - 1, device=device)
    present[-1] >>= 32 * words - width // 2
    if case.scenario in BETAS:
        beta = torch.full((lattices,), BETAS[case.scenario], dtype=torch.float64, device=device)
    else:
        beta = 0.2 + 0.5 * torch.rand(lattices, generator=generator, device=device, dtype=torch.float64)
    return {
        "spins": (bits & present).to(torch.int32),
        "beta": beta,
        "width": width,
        "sweeps": case.sizes["sweeps"],
        "coupling": -0.8 if case.scenario.endswith("antiferromagnet") else 1.0,
        "field": FIELDS.get(case.scenario, 0.0),
        "rule": "metropolis" if case.scenario.startswith("metropolis") else "heat_bath",
        "seed": case.seed + (1 << 63),
        "first_sweep": moved(3, case),
        "first_lattice": 1 << 31,
    }


def make_outputs(inputs: Inputs) -> Tensors:
    return {"advanced": torch.empty_like(inputs["spins"])}


def _changes(spins: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The change of energy if a spin flips, and that times beta, for each spin: float64 (lattices, height, width)."""
    around = spins.roll(1, 1) + spins.roll(-1, 1) + spins.roll(1, 2) + spins.roll(-1, 2)
    change = 2 * spins * (inputs["coupling"] * around + inputs["field"])
    return change, torch.where(change.abs() < 1e-9, 0.0, inputs["beta"][:, None, None] * change)


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The sweeps spin by spin, with flip probabilities in float64 from the change of energy. Spins must be equal."""
    width, rule = inputs["width"], inputs["rule"]
    spins = unpack_spins(inputs["spins"], width).double()
    lattices, height, _ = spins.shape
    device = spins.device
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    words, bit = words_of(width), torch.arange(32, device=device)
    word = torch.arange(lattices * height * words, device=device).view(lattices, height, words)
    word += inputs["first_lattice"] * height * words
    for sweep in range(inputs["sweeps"]):
        for colour in (0, 1):
            change, exponent = _changes(spins, inputs)
            p = torch.exp(-exponent) if rule == "metropolis" else 1 / (1 + torch.exp(exponent))
            number = torch.zeros((*word.shape, 32), dtype=torch.int64, device=device)
            for part in range(8):
                drawn = random_words(word * 8 + part, inputs["seed"], inputs["first_sweep"] + sweep, STREAMS[colour])
                for each in drawn.unbind(-1):
                    number = number << 1 | each[..., None] >> bit & 1
            number = number.flatten(2)[..., : width // 2].repeat_interleave(2, -1)  # columns of a pair share one
            if rule == "heat_bath" and not inputs["field"]:
                against = number.double() < (2.0**32 / (1 + torch.exp(exponent.abs()))).round()
                flips = torch.where(change > 1e-9, against, ~against)
            else:
                flips = number.double() < (p * 2.0**32).round()
            flips &= ((row + column) % 2 == colour).to(device)
            spins = torch.where(flips, -spins, spins)
    return {"advanced": Expected(pack_spins(spins).double())}


MOST_DRAWS = 1 << 20
"""The most sites of a colour whose draws are tested one by one."""
MOST_SITES = 1 << 24
"""The most sites of lattices that are compared with the reference, beyond the first lattice."""


def judge_draws(inputs: Inputs, outputs: Tensors) -> Agreement:
    """Test the spins of a sampler with its own random stream, at a significance level of 1e-6.

    The sites of a colour are drawn independently, given the sites of the other one and, by Metropolis, their spins
    before. So after one sweep all draws are tested by their exact probabilities. After several sweeps this holds for
    the odd sites of the heat bath only, and lattices or bands of rows are compared in the mean with the reference.
    """
    width, heat_bath, sweeps = inputs["width"], inputs["rule"] == "heat_bath", inputs["sweeps"]
    spins = unpack_spins(outputs["advanced"], width).double()
    if not torch.equal(pack_spins(spins), outputs["advanced"]):
        return Agreement(Status.WRONG_VALUES, "advanced: a bit without a site is set", error=math.inf, bound=0.0)
    if not spins.numel():
        return Agreement(Status.PASSED, "no spins", error=0.0, bound=0.0)
    start = unpack_spins(inputs["spins"], width).double()
    odd = (torch.arange(spins.shape[1])[:, None] + torch.arange(width)) % 2 == 1
    odd = odd.to(spins.device).expand(spins.shape)
    generator = np.random.Generator(np.random.SFC64(20))
    first, unrelated = _some(start, odd), None
    if sweeps == 1:
        p, even = _some(_up(start, inputs), ~odd), _some(start, ~odd)
        verdicts, scores = judge_updates(_some(spins, ~odd) > 0, p, even, "even sites", 5e-7, generator)
        unrelated = {"those of even sites": scores, "flips of even sites": scores * even * first}
    else:
        verdicts = _compare_in_the_mean(inputs, spins, start)
    if sweeps == 1 or heat_bath:  # the heat bath depends on no spin before
        p = _some(_up(torch.where(odd, start, spins), inputs), odd)
        verdicts += judge_updates(_some(spins, odd) > 0, p, first, "odd sites", 5e-7, generator, unrelated)[0]
    return harness.all_of(verdicts)


def _up(before: Tensor, inputs: Inputs) -> Tensor:
    """The probability that a spin is up, after an update of one colour of the spins ``before``."""
    return up_probability(before, _changes(before, inputs)[1], inputs["rule"])


def _some(each: Tensor, sites: Tensor) -> Tensor:
    """The values at the sites of a colour: (lattices, sites), or of some lattices and rows if there are many."""
    lattices, height, width = each.shape
    of_rows = each[sites].view(lattices, height, width // 2)
    row_step = -(-height * width // 2 // MOST_DRAWS)
    of_rows = of_rows[:, ::row_step]
    return of_rows[:: -(-of_rows.numel() // MOST_DRAWS)].flatten(1)


def _compare_in_the_mean(inputs: Inputs, spins: Tensor, start: Tensor) -> list[Agreement]:
    """Energy, magnetisation and overlap with the start: those of the torch backend from the same start, in the mean.

    They are taken of whole lattices, or of bands of rows that sweeps hardly correlate if there are few lattices.
    """
    lattices, height, width = spins.shape
    step = -(-lattices * height * width // max(MOST_SITES, height * width))
    spins, start, beta = spins[::step], start[::step], inputs["beta"][::step]
    reference = ising_sweeps(
        inputs["spins"][::step].contiguous(), width, inputs["sweeps"], beta, coupling=inputs["coupling"],
        field=inputs["field"], rule=inputs["rule"], seed=(inputs["seed"] + 1) % (1 << 64), backend="torch",
    )  # fmt: skip
    drawn = unpack_spins(reference, width).double()
    thick = min(height, 4 * inputs["sweeps"]) if lattices < 64 else height
    rows = next(each for each in range(thick, height + 1) if height % each == 0)
    if spins.numel() < 1000:
        return [Agreement(Status.PASSED, "too few spins for means", error=0.0, bound=0.0)]

    def of_bands(each: Tensor) -> Tensor:
        return each.reshape(-1, rows * width).sum(1)

    def quantities(s: Tensor) -> dict[str, Tensor]:
        bonds = -inputs["coupling"] * s * (s.roll(-1, 1) + s.roll(-1, 2)) - inputs["field"] * s
        return {"energy": of_bands(bonds), "magnetisation": of_bands(s), "overlap with the start": of_bands(s * start)}

    found, wanted = quantities(spins), quantities(drawn)
    return [draws.same_mean(found[name], wanted[name], name, 1.5e-7) for name in found]


def cost(case: Case) -> Cost:
    lattices, height, width, sweeps = (case.sizes[name] for name in ("lattices", "height", "width", "sweeps"))
    spins = lattices * height * width
    return Cost(
        items=spins * sweeps,
        unit="flips",
        bytes_read=spins // 8,
        bytes_written=spins // 8,
        random_words=spins * sweeps * DRAWN_BITS // 32,
    )


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    def sweep() -> Tensor:
        return ising_sweeps(
            inputs["spins"], inputs["width"], inputs["sweeps"], inputs["beta"], coupling=inputs["coupling"],
            field=inputs["field"], rule=inputs["rule"], seed=inputs["seed"], first_sweep=inputs["first_sweep"],
            first_lattice=inputs["first_lattice"], out=outputs["advanced"], backend=backend,
        )  # fmt: skip

    run = prepared(sweep)

    def launch() -> Tensors:
        run()
        return outputs

    return launch


def _numbers(width: int, seed: int, **given: Any) -> dict[str, Any]:
    numbers = {"width": width, "coupling": 1.0, "field": 0.0, "rule": "heat_bath", "seed": seed}
    return {**numbers, "sweeps": 1, "first_sweep": 0, "first_lattice": 0, **given}


LATTICES = 260_000
"""Enough draws for the 80 or so joint values of energy and magnetisation: see `leaves_invariant`."""
CPU_LATTICES = 12_000


def leaves_invariant(rule: str, field: float, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Lattices of 4 x 4 that start as exact draws are exact draws after two sweeps, at three temperatures in one call.

    Tested by the joint distribution of energy and magnetisation, and by the spins of a row, since energy and
    magnetisation do not distinguish sites.
    """
    betas = (0.2, 0.44, 0.6)
    each = (LATTICES if device.type == "cuda" else CPU_LATTICES) // len(betas)
    states = all_states(4, 4)
    energies, magnetisation = energy(states, field=field), states.sum((1, 2), dtype=torch.int64)
    _, cell = torch.unique(torch.stack((energies, magnetisation.double())), dim=1, return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    laws = [torch.softmax(-beta * energies, 0) for beta in betas]
    start = torch.cat([torch.multinomial(law, each, replacement=True, generator=generator) for law in laws])
    beta = torch.tensor(betas, dtype=torch.float64, device=device).repeat_interleave(each)
    numbers = _numbers(4, seed, sweeps=2, rule=rule, field=field)
    result = advance({"spins": pack_spins(states[start]).to(device), "beta": beta, **numbers})["advanced"]
    drawn = number_of(unpack_spins(result, 4).cpu().flatten(1) > 0).view(len(betas), each)
    row = torch.arange(1 << 16) & 15
    verdicts = []
    for law, states in zip(laws, drawn, strict=True):
        verdicts += judge_states(states, law, (cell, row), 1e-6 / len(betas))
    return harness.all_of(verdicts)


TORI = ((8, 0.3, 20, 400), (32, 0.4, 1500, 2000), (128, 0.4, 1500, 500), (8, CRITICAL_BETA, 2500, 20_000))
"""Side, beta, sweeps and lattices. The relaxation time in sweeps is about the 2.17th power of the side or of the
correlation length (1.6 sites at 0.3, 6.0 at 0.4), whichever is smaller. After at least seven times as many sweeps, the
bias of a random start is smaller than the noise.
"""


SMALL_CHAINS = {"cuda": (1024, 20_000), "cpu": (96, 400)}
"""For `reaches_every_state`: lattices of each state of 2 x 2 sites, and of each start of 4 x 4 sites."""


def reaches_every_state(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """One sweep makes the exact transitions of a 2 x 2 torus; sweeps of a 4 x 4 torus forget their start.

    At beta 0 and 0.2, where 12 sweeps of the exact transition matrix come within a chi-square distance of 1e-6. In the
    stripes, every spin has two neighbours of each sign.
    """
    betas = (0.0, 0.2)
    of_a_state, of_a_start = SMALL_CHAINS[device.type]

    def run(spins: Tensor, betas: Tensor, sweeps: int, stream: int) -> Tensor:
        side = spins.shape[1]
        inputs = {"spins": pack_spins(spins).to(device), "beta": betas.to(device)}
        result = advance({**inputs, **_numbers(side, seed + stream, sweeps=sweeps)})["advanced"]
        return number_of(unpack_spins(result, side).cpu().flatten(1) > 0)

    energies = state_energies(lattice_couplings(2, 2))
    start = torch.arange(16).repeat(of_a_state)
    each_beta = torch.tensor(betas, dtype=torch.float64)
    end = run(
        all_spins(4)[start].view(-1, 2, 2).repeat(len(betas), 1, 1), each_beta.repeat_interleave(len(start)), 1, 0
    ).view(len(betas), -1)
    row, generator = torch.arange(4), torch.Generator().manual_seed(seed)
    starts = {
        "all spins up": torch.ones(of_a_start, 4, 4),
        "random spins": 2.0 * torch.randint(0, 2, (of_a_start, 4, 4), generator=generator) - 1,
        "diagonal stripes": (1.0 - 2 * ((row[:, None] + row) % 4 // 2)).expand(of_a_start, 4, 4),
    }
    spins = torch.cat([*starts.values()]).repeat(len(betas), 1, 1)
    drawn = run(spins, each_beta.repeat_interleave(len(starts) * of_a_start), 12, 1 << 32)
    states = all_states(4, 4)
    all_energies, magnetisation = energy(states), states.sum((1, 2), dtype=torch.int64)
    _, cell = torch.unique(torch.stack((all_energies, magnetisation.double())), dim=1, return_inverse=True)
    verdicts = []
    for beta, found, final in zip(betas, end, drawn.view(len(betas), len(starts), -1), strict=True):
        matrix = torch.eye(16, dtype=torch.float64)
        matrix = after_sweep(matrix, energies, 1 / beta if beta else math.inf, order=(0, 3, 1, 2))
        law, rate = torch.softmax(-beta * all_energies, 0), 1e-6 / (2 * len(betas))
        judged = judge_transitions(start, found, matrix, rate)
        judged += judge_starts(dict(zip(starts, final, strict=True)), law, (cell, torch.arange(1 << 16) & 15), rate)
        verdicts += [replace(each, message=f"beta {beta:g}: {each.message}") for each in judged]
    return harness.all_of(verdicts)


def agrees_with_kaufman(rule: str, advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Mean energy and specific heat of independent lattices, from a random start, by the exact law of the energy.

    The specific heat is a mean of squares about the exact energy. Standard errors and tails are exact. On a CPU, where
    most kernels are interpreted, only the first torus is tested.
    """
    tori = TORI if device.type == "cuda" else TORI[:1]
    verdicts = []
    for number, (side, beta, sweeps, lattices) in enumerate(tori):
        generator = torch.Generator().manual_seed(seed + number)
        spins = 2 * torch.randint(0, 2, (lattices, side, side), generator=generator, dtype=torch.int8) - 1
        betas = torch.full((lattices,), beta, dtype=torch.float64, device=device)
        numbers = _numbers(side, seed + (number << 32), sweeps=sweeps, rule=rule)
        result = advance({"spins": pack_spins(spins).to(device), "beta": betas, **numbers})["advanced"]
        drawn = energy(unpack_spins(result, side)).cpu() / side**2
        mean = kaufman(side, side, beta).energy
        levels, law = energy_law(side, side, beta)
        rate, of_torus = 1e-6 / (2 * len(tori)), f"of a {side} x {side} torus at beta {beta:.3f}"
        quantities = {"energy": (drawn, levels / side**2)}
        quantities["specific heat"] = (
            (beta * side * (drawn - mean)).square(), (beta * side * (levels / side**2 - mean)).square()
        )  # fmt: skip
        for what, (found, values) in quantities.items():
            verdicts.append(
                harness.mean_of_draws(
                    float(found.mean()), values, law, lattices, false_alarm=rate, what=f"{what} {of_torus}"
                )
            )
    return harness.all_of(verdicts)


def composes(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Three sweeps in one call give the same spins as three calls, and as two calls for parts of the batch."""
    generator = torch.Generator().manual_seed(seed)
    spins = 2 * torch.randint(0, 2, (50, 6, 10), generator=generator, dtype=torch.int8) - 1
    packed, beta = pack_spins(spins).to(device), torch.linspace(0.1, 0.8, 50, dtype=torch.float64, device=device)

    def run(first: int, end: int, **given: Any) -> Tensor:
        inputs = {"spins": packed[first:end], "beta": beta[first:end], "first_lattice": first}
        return advance({**_numbers(10, seed), **inputs, **given})["advanced"]

    whole = run(0, 50, sweeps=3)
    stepped = packed
    for sweep in range(3):
        stepped = run(0, 50, spins=stepped, first_sweep=sweep)
    parts = torch.cat([run(first, end, sweeps=3) for first, end in ((0, 17), (17, 50))])
    split = {"three calls of one sweep": {"advanced": stepped}, "two parts of the batch": {"advanced": parts}}
    return same_bits({"advanced": whole}, split)


OPERATION = Operation(
    name="ising",
    summary="Checkerboard sweeps of many Ising lattices on a torus, with one bit for each spin.",
    formula="s -> -s with probability 1 / (1 + exp(beta dE)) or min(1, exp(-beta dE)), E = -J sum s s' - h sum s",
    source="Glauber, J. Math. Phys. 4 (1963); Metropolis et al., J. Chem. Phys. 21 (1953)",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    parameters=("beta",),
    moving=("first_sweep",),
    judge_draws=judge_draws,
    laws=(
        *(
            Law(
                f"enumeration {rule}{' field' if field else ''}",
                "two sweeps leave the distribution of a 4 x 4 torus invariant, at three temperatures",
                partial(leaves_invariant, rule, field),
            )
            for rule in RULES
            for field in (0.0, 0.3)
        ),
        Law("ergodicity", "sweeps by the heat bath lead from every start to the distribution", reaches_every_state),
        *(
            Law(
                f"Kaufman {rule}",
                "energy and specific heat of tori agree with Kaufman's",
                partial(agrees_with_kaufman, rule),
            )
            for rule in RULES
        ),
        Law("composition", "splitting sweeps or lattices over calls changes no spin", composes, shared_stream=True),
    ),
)


register_operations, register_implementations = operation_hooks(OPERATION, prepare, "boltzbench.kernels.ising")
