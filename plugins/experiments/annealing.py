"""Passage times over a barrier, and the success rates of annealing schedules on Ising spin glasses.

Walkers in the double well ``(x^2 - 1)^2`` pass from -1 to 1. Glasses on tori are cooled once, slowly, or in cosine
cycles with the same total of sweeps. A walker succeeds if it is in a ground state at the end of the last cycle, or of
any cycle.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from boltzbench.harness import Curve, Estimate, Experiment, Findings, Plot, hookimpl
from boltzbench.kernels import schedules
from boltzbench.kernels.annealed_langevin import annealed_langevin
from boltzbench.kernels.spin_glass import anneal_spins, lattice_glass, prepare_glass, random_walkers
from boltzbench.plugins.exact import double_well as exact_double_well
from boltzbench.plugins.exact import glass as exact_glass
from boltzbench.plugins.support.experiments import fast_backend, mean_and_error, mean_of_law
from torch import Tensor

BOLTZBENCH_API = 1

SPIN_GLASS = "boltzbench.kernels.spin_glass"

TEMPERATURES = (0.3, 0.4, 0.5, 0.7, 1.0)
STEP_SIZE = 0.1
LATE = 8.0
"""Passages are cut off at this multiple of the mean in continuous time, in theory as in the experiment."""
HOT, COLD = 3.0, 0.2
CYCLES = 8
SMALL_WAYS = (
    ("one cooling", 1, (2, 3, 4, 6, 8)),
    ("last of 2 cycles", 2, (4, 8, 12, 16)),
    ("any of 2 cycles", 2, (4, 8, 12)),
)
"""Schedules for the 4 x 4 torus, with exact success rates: name, cycles, and totals of sweeps."""
LARGE_SWEEPS = (64, 128, 256)
"""Totals of sweeps on the 8 x 8 torus, where only the ground-state energies are known. Multiples of `CYCLES`, at least
two sweeps in a cycle."""
GLASSES = 12
"""Number of 8 x 8 glasses."""


def passages(device: torch.device, seed: int, walkers: int) -> tuple[list[Estimate], Plot]:
    """Mean first passage times from -1 to 1, cut off by `LATE`, in continuous time: eps / 2 for each step."""
    estimates, measured, errors, chain = [], [], [], []
    for number, temperature in enumerate(TEMPERATURES):
        most = math.ceil(LATE * exact_double_well.continuum_passage(temperature) / (STEP_SIZE / 2))
        law = exact_double_well.passage_probabilities(most, temperature, STEP_SIZE).numpy()
        times = np.minimum(np.arange(1, most + 2), most) * (STEP_SIZE / 2)
        start = torch.full((walkers,), -1.0, device=device)
        found = annealed_langevin(
            start, schedules.constant(most, temperature), STEP_SIZE, threshold=1.0, seed=seed + number,
            backend=fast_backend(device, SPIN_GLASS),
        ).passages  # fmt: skip
        assert found is not None
        value = float((torch.where(found < 0, most, found) * (STEP_SIZE / 2)).double().mean())
        estimate = mean_of_law(f"mean passage time, T = {temperature:g}", value, times, law, walkers)
        estimates.append(estimate)
        measured.append(value)
        errors.append(estimate.stderr or 0.0)
        chain.append(float(law @ times))
    fine = torch.linspace(0.28, 1.05, 60, dtype=torch.float64).tolist()
    curves = (
        Curve("continuum", tuple(fine), tuple(map(exact_double_well.continuum_passage, fine)), exact=True),
        Curve("Kramers' formula", tuple(fine), tuple(map(exact_double_well.kramers, fine)), exact=True),
        Curve(f"chain of step size {STEP_SIZE:g}", TEMPERATURES, tuple(chain), exact=True),
        Curve("measured", TEMPERATURES, tuple(measured), tuple(errors)),
    )
    plot = Plot("First passage from -1 to 1 in the double well", "temperature", "mean time", curves, y_log=True)
    return estimates, plot


def _cooling(sweeps: int, cycles: int) -> list[Tensor]:
    """Temperatures for one slow cooling, or for each of the cycles."""
    if cycles == 1:
        return [schedules.geometric(sweeps, HOT, COLD)]
    return list(schedules.cyclic_cosine(sweeps, HOT, COLD, cycles).chunk(cycles))


def _successes(
    couplings: Tensor, ground: float, parts: list[Tensor], device: torch.device, seed: int, walkers: int
) -> tuple[Tensor, Tensor]:
    """For each walker, whether it is in a ground state at the end of the last part, and of any part."""
    glass = prepare_glass(couplings, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    spins, first, ever = random_walkers(len(couplings), walkers, generator, device), 0, None
    for temperatures in parts:
        run = anneal_spins(
            spins, glass, temperatures, seed=seed, first_sweep=first, backend=fast_backend(device, SPIN_GLASS)
        )
        spins, first = run.spins, first + len(temperatures)
        last = run.energies == ground
        ever = last if ever is None else ever | last
    assert ever is not None
    return last, ever


def _exact_successes(energies: Tensor, parts: list[Tensor]) -> tuple[float, float]:
    """The exact probabilities of both kinds of success, from the law over all states.

    ``new`` is the mass that has not succeeded at the end of an earlier part.
    """
    ground = energies == energies.min()
    law = torch.full_like(energies, 1 / len(energies))
    new, found = law, 0.0
    for temperatures in parts:
        for temperature in temperatures.tolist():
            law = exact_glass.after_sweep(law, energies, temperature)
            new = exact_glass.after_sweep(new, energies, temperature) if len(parts) > 1 else law
        found += float(new[ground].sum())
        new = torch.where(ground, 0.0, new)
    return float(law[ground].sum()), found


def _rates(name: str, sweeps: tuple[int, ...], rates: list[tuple[float, float]]) -> Curve:
    return Curve(name, tuple(map(float, sweeps)), tuple(p for p, _ in rates), tuple(error for _, error in rates))


def small_torus(device: torch.device, seed: int, walkers: int) -> tuple[list[Estimate], Plot]:
    """Success rates on 4 x 4 spins against the number of sweeps, compared with the exact rates."""
    couplings = lattice_glass(4, 4, torch.Generator().manual_seed(4))
    energies = exact_glass.state_energies(couplings)
    ground = float(energies.min())
    curves, estimates = [], []
    for name, cycles, budgets in SMALL_WAYS:
        measured, exact = [], []
        for sweeps in budgets:
            parts = _cooling(sweeps, cycles)
            chosen = int(name.startswith("any"))
            rate, error = mean_and_error(_successes(couplings, ground, parts, device, seed + sweeps, walkers)[chosen])
            p = _exact_successes(energies, parts)[chosen]
            measured.append((rate, error))
            exact.append(p)
            claim = f"4 x 4 in {sweeps}: {name}"
            estimates.append(mean_of_law(claim, rate, (0.0, 1.0), (1 - p, p), walkers))
        curves.append(Curve(name, tuple(map(float, budgets)), tuple(exact), exact=True))
        curves.append(_rates(name, budgets, measured))
    plot = Plot("A 4 x 4 glass: walkers in a ground state", "total sweeps", "share", tuple(curves), x_log=True)
    return estimates, plot


def large_torus(device: torch.device, seed: int, walkers: int) -> tuple[list[Estimate], Plot]:
    """Success rates on 8 x 8 spins: the difference of cycles and one cooling, averaged over glasses."""
    glasses = [lattice_glass(8, 8, torch.Generator().manual_seed(number)) for number in range(GLASSES)]
    grounds = [exact_glass.torus_ground_energy(couplings, 8, 8) for couplings in glasses]
    rates: dict[str, list[Tensor]] = {"one cooling": [], "last": [], "any": []}
    for sweeps in LARGE_SWEEPS:
        each: dict[str, list[Tensor]] = {name: [] for name in rates}
        for number, (couplings, ground) in enumerate(zip(glasses, grounds, strict=True)):
            of = (device, seed + 1000 * number + sweeps, walkers)
            each["one cooling"].append(_successes(couplings, ground, _cooling(sweeps, 1), *of)[0].double().mean().cpu())
            last, ever = _successes(couplings, ground, _cooling(sweeps, CYCLES), *of)
            each["last"].append(last.double().mean().cpu())
            each["any"].append(ever.double().mean().cpu())
        for name, values in each.items():
            rates[name].append(torch.stack(values))
    estimates = []
    for name in ("last", "any"):
        for sweeps, slow, cyclic in zip(LARGE_SWEEPS, rates["one cooling"], rates[name], strict=True):
            value, error = mean_and_error(cyclic - slow)
            claim = f"8 x 8 in {sweeps}: {name} - one cooling"
            estimates.append(Estimate(claim, value, error))
    estimates += _energies_in_equilibrium(glasses[0], device, seed, 4 * walkers)
    titles = {"one cooling": "one cooling", **{end: f"{end} of {CYCLES} cycles" for end in ("last", "any")}}
    curves = tuple(
        _rates(titles[name], LARGE_SWEEPS, [mean_and_error(each) for each in of]) for name, of in rates.items()
    )
    title = f"{GLASSES} glasses of 8 x 8: walkers in a ground state, error bars over glasses"
    return estimates, Plot(title, "total sweeps", "share", curves, x_log=True)


def _energies_in_equilibrium(couplings: Tensor, device: torch.device, seed: int, walkers: int) -> list[Estimate]:
    """Mean energies after slow cooling to temperatures where 8 x 8 spins decorrelate within some ten sweeps."""
    estimates = []
    for number, temperature in enumerate((2.0, 1.5)):
        generator = torch.Generator(device).manual_seed(seed + number)
        spins = random_walkers(len(couplings), walkers, generator, device)
        temperatures = torch.cat((schedules.geometric(100, HOT, temperature), schedules.constant(200, temperature)))
        run = anneal_spins(spins, couplings, temperatures, seed=seed + number, backend=fast_backend(device, SPIN_GLASS))
        exact = exact_glass.torus_mean_energy(couplings, 8, 8, temperature)
        estimates.append(Estimate(f"energy of 8 x 8, T = {temperature:g}", *mean_and_error(run.energies), exact))
    return estimates


def run(device: torch.device, seed: int) -> Findings:
    on_gpu = device.type == "cuda"
    found = (
        passages(device, seed, 1_000_000 if on_gpu else 6000),
        small_torus(device, seed, 1 << 20 if on_gpu else 1 << 14),
        large_torus(device, seed, 1 << 20 if on_gpu else 1024),
    )
    estimates = tuple(estimate for each, _ in found for estimate in each)
    return Findings(estimates, tuple(plot for _, plot in found))


EXPERIMENT = Experiment(
    name="annealing",
    summary="Passage times; success rates on spin glasses, by cycles or one cooling.",
    source="Kramers, Physica 7 (1940); Kirkpatrick et al., Science 220 (1983); Zhang et al., ICLR 2020",
    run=run,
)


@hookimpl
def register_experiments(register: Callable[[Experiment], None]) -> None:
    register(EXPERIMENT)
