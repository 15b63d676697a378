"""Energy and heat capacity of the Ising model against temperature, compared with Kaufman's partition function.

Lattices start with all spins up below the critical temperature and at random above it: from a random start, a cold
lattice may keep stripes for a long time. After enough sweeps to forget the start, each lattice is an independent draw.
The heat capacity is a mean of squares about the exact energy. The exact law of the energy gives standard errors and
tails: a sample variance of 300 cold lattices is so skewed that a normal tail at 1e-7 is wrong by a factor of ten
thousand.

Source: Kaufman, Phys. Rev. 76 (1949).
"""

import math
from collections.abc import Callable

import torch
from boltzbench.harness import Curve, Estimate, Experiment, Findings, Plot, hookimpl
from boltzbench.kernels.ising import energy, ising_sweeps, pack_spins, unpack_spins
from boltzbench.plugins.exact.ising import CRITICAL_BETA, energy_law, kaufman
from boltzbench.plugins.support.experiments import fast_backend, mean_of_law
from torch import Tensor

BOLTZBENCH_API = 1

TEMPERATURES = (1.6, 2.0, 2.2, 2.3, 2.5, 3.0, 4.0)
SIDE, LATTICES = 8, 300
GPU_SIDE, GPU_LATTICES = 32, 4000
RELAXATION = 2.17
"""Dynamic exponent: at the critical temperature the relaxation time grows as the side to this power (Nightingale and
Blöte, Phys. Rev. Lett. 76, 1996: 2.1665). The experiment sweeps five times as long."""


def run(device: torch.device, seed: int) -> Findings:
    on_gpu = device.type == "cuda"
    side, lattices = (GPU_SIDE, GPU_LATTICES) if on_gpu else (SIDE, LATTICES)
    sweeps = math.ceil(5 * side**RELAXATION)
    generator = torch.Generator().manual_seed(seed)
    spins = (
        2 * torch.randint(0, 2, (len(TEMPERATURES), lattices, side, side), generator=generator, dtype=torch.int8) - 1
    )
    cold = torch.tensor([1 / temperature > CRITICAL_BETA for temperature in TEMPERATURES])
    spins[cold] = 1
    beta = torch.tensor(TEMPERATURES, dtype=torch.float64).reciprocal().repeat_interleave(lattices).to(device)
    start = pack_spins(spins.flatten(0, 1)).to(device)
    result = ising_sweeps(
        start, side, sweeps, beta, seed=seed, backend=fast_backend(device, "boltzbench.kernels.ising")
    )
    energies = energy(unpack_spins(result, side)).cpu().double().view(len(TEMPERATURES), lattices) / side**2
    estimates: list[Estimate] = []
    points: list[list[float]] = []
    for temperature, drawn in zip(TEMPERATURES, energies, strict=True):
        exact = kaufman(side, side, 1 / temperature)
        levels, law = energy_law(side, side, 1 / temperature)
        levels = levels / side**2

        def heat(energies: Tensor, mean: float = exact.energy, temperature: float = temperature) -> Tensor:
            return side**2 / temperature**2 * (energies - mean).square()

        found = (
            mean_of_law(f"energy of a spin, T = {temperature:g}", float(drawn.mean()), levels, law, lattices),
            mean_of_law(f"heat capacity, T = {temperature:g}", float(heat(drawn).mean()), heat(levels), law, lattices),
        )
        estimates += found
        points.append([number for each in found for number in (each.measured, each.stderr or 0.0)])
    fine = tuple(1.5 + 0.1 * i for i in range(27))
    of = [kaufman(side, side, 1 / temperature) for temperature in fine]
    means, errors, heats, heat_errors = (tuple(column) for column in zip(*points, strict=True))
    torus = f"{side} x {side} torus"
    plots = (
        Plot(
            f"Energy, {torus}", "temperature / J", "energy of a spin / J",
            (
                Curve("energy", fine, tuple(each.energy for each in of), exact=True),
                Curve("energy", TEMPERATURES, means, errors),
            ),
        ),
        Plot(
            f"Heat capacity, {torus}", "temperature / J", "heat capacity of a spin",
            (
                Curve("heat capacity", fine, tuple(each.specific_heat for each in of), exact=True),
                Curve("heat capacity", TEMPERATURES, heats, heat_errors),
            ),
        ),
    )  # fmt: skip
    return Findings(tuple(estimates), plots)


@hookimpl
def register_experiments(register: Callable[[Experiment], None]) -> None:
    register(
        Experiment(
            name="ising_thermodynamics",
            summary="Energy and heat capacity of the Ising model.",
            source="Kaufman, Phys. Rev. 76 (1949)",
            run=run,
        )
    )
