"""Partition functions by enumeration, annealed importance sampling and parallel tempering.

On a restricted Boltzmann machine and an Ising model small enough to enumerate, all three estimate log Z. A plot shows
the errors of both sampling methods against the number of sweeps. Annealed importance sampling then gives the held-out
log likelihood of a machine trained on digits.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from boltzbench.harness import Curve, Estimate, Experiment, Findings, Plot, hookimpl
from boltzbench.kernels.ais import (
    CollapsedWeights,
    LogPartitionEstimate,
    annealed_importance_sampling,
    ising_annealed_importance_sampling,
)
from boltzbench.kernels.enumeration import log_partition, rbm_log_partition
from boltzbench.kernels.ising import lattice_couplings, units_of
from boltzbench.kernels.parallel_tempering import IsingReplicas, RbmReplicas, Tempering, parallel_tempering
from boltzbench.kernels.rbm_free_energy import free_energy
from boltzbench.kernels.rbm_training import Machine, initial_state, minibatch, persistent_contrastive_divergence
from boltzbench.plugins.exact.ising import kaufman
from boltzbench.plugins.exact.rbm import LOG_Z, fixture
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.experiments import fast_backend, with_students_t
from torch import Tensor

BOLTZBENCH_API = 1

SIDE, BETA = 4, 0.44
RUNGS = 9


class Budget(NamedTuple):
    """Numbers of chains, annealing steps, replica ladders, tempering rounds, and training updates on the digits."""

    chains: int
    steps: tuple[int, ...]
    lattice_steps: int
    ladders: int
    rounds: tuple[int, ...]
    updates: int
    digits_steps: int


BUDGETS = {
    "cpu": Budget(400, (5, 15, 50, 150), 150, 48, (20, 60, 150), 600, 300),
    "cuda": Budget(100_000, (5, 15, 50, 150, 500, 1500), 1000, 1000, (30, 100, 300, 1000), 5000, 10_000),
}


def run(device: torch.device, seed: int) -> Findings:
    with warnings.catch_warnings(record=True, action="always", category=CollapsedWeights) as caught:
        found = _run(device, seed)
    others = [each for each in caught if not issubclass(each.category, CollapsedWeights)]
    for each in others:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    several = Estimate("AIS runs with collapsed weights", float(len(caught) - len(others)))
    return replace(found, estimates=(*found.estimates, several))


def _run(device: torch.device, seed: int) -> Findings:
    budget = BUDGETS["cuda" if device.type == "cuda" else "cpu"]
    wide = Machine(*(part.to(device) for part in fixture().values()))
    machine = Machine(*(part.float() for part in wide))
    exact = float(rbm_log_partition(*wide))
    estimates = [Estimate("log Z, RBM, enumeration", exact, exact=LOG_Z, bound=(4 * 10 + 64) * 2.0**-24)]
    estimates += [*_of_lattice(device, seed, budget)]
    annealed = []
    for number, steps in enumerate(budget.steps):
        found = annealed_importance_sampling(*machine, _ladder(1.0, steps), budget.chains, seed=seed + number)
        annealed.append((budget.chains * steps, found.log_z, found.stderr))
    estimates.append(_of_annealing("log Z, RBM, AIS", found, LOG_Z))
    estimates.append(Estimate("effective sample size, AIS, RBM", found.ess))
    tempered = []
    for number, rounds in enumerate(budget.rounds):
        replicas = RbmReplicas(*machine, budget.ladders * RUNGS, seed=seed + 100 + number)
        run_of = parallel_tempering(replicas, _ladder(1.0, RUNGS - 1), rounds, burn_in=rounds // 5, seed=seed + number)
        tempered.append((replicas.count * (rounds + rounds // 5), run_of.log_z, run_of.stderr))
    estimates += _of_tempering("RBM", run_of, LOG_Z)
    estimates += _of_digits(device, seed, budget)
    return Findings(tuple(estimates), (_plot(annealed, tempered),))


def _ladder(beta: float, steps: int) -> Tensor:
    return torch.linspace(0, beta, steps + 1, dtype=torch.float64)


def _of_tempering(name: str, found: Tempering, exact: float) -> list[Estimate]:
    """The standard error is that of a mean over independent ladders."""
    return [
        with_students_t(
            Estimate(f"log Z, {name}, tempering", found.log_z, found.stderr, exact=exact), len(found.mean_energy)
        ),
        Estimate(f"lowest swap acceptance, {name}", float(found.swap_rates.min())),
    ]


def _of_annealing(claim: str, found: LogPartitionEstimate, exact: float) -> Estimate:
    """The standard error is that of a mean over independent chains."""
    return with_students_t(Estimate(claim, found.log_z, found.stderr, exact=exact), len(found.log_weights))


def _of_lattice(device: torch.device, seed: int, budget: Budget) -> list[Estimate]:
    """The Ising torus, enumerated as a Boltzmann machine of 0/1 units and sampled as spins."""
    name = "torus"
    exact = kaufman(SIDE, SIDE, BETA).log_z
    couplings = lattice_couplings(SIDE, SIDE).to(device)
    units = units_of(couplings, couplings.new_zeros(SIDE**2))
    enumerated = float(log_partition(units.weights, units.biases, BETA)) - BETA * float(units.constant)
    backend = fast_backend(device, "boltzbench.kernels.ising")
    annealed = ising_annealed_importance_sampling(
        SIDE, SIDE, _ladder(BETA, budget.lattice_steps), budget.chains, seed=seed + 200, device=device, backend=backend
    )
    replicas = IsingReplicas(SIDE, SIDE, budget.ladders * RUNGS, seed=seed + 201, device=device, backend=backend)
    rounds = budget.rounds[-1]
    tempered = parallel_tempering(replicas, _ladder(BETA, RUNGS - 1), rounds, burn_in=rounds // 5, seed=seed)
    return [
        Estimate(f"log Z, {name}, enumeration", enumerated, exact=exact, bound=1e-10),
        _of_annealing(f"log Z, {name}, AIS", annealed, exact),
        *_of_tempering(name, tempered, exact),
    ]


def _of_digits(device: torch.device, seed: int, budget: Budget) -> list[Estimate]:
    """Persistent contrastive divergence on the training images, then the mean held-out log likelihood by AIS."""
    images = digits.binary_images().to(device)
    training, held_out = images[: digits.TRAINING_IMAGES], images[digits.TRAINING_IMAGES :]
    state = initial_state(training, digits.HIDDEN_UNITS, seed=seed, chains=100)
    for _ in range(budget.updates):
        batch = minibatch(training, 100, seed=seed, step=state.step)
        state = persistent_contrastive_divergence(state, batch, sweeps=1, rate=0.2, seed=seed)
    machine = state.machine
    base = torch.logit(training.float().mean(0).clamp(0.01, 0.99))
    found = annealed_importance_sampling(
        *machine, _ladder(1.0, budget.digits_steps), budget.chains, base_bias=base, seed=seed + 202
    )
    exact = float(rbm_log_partition(*machine.double()))
    unnormalised = -float(free_energy(held_out, *machine).double().mean())
    independent = _log_likelihood_of_independent_pixels(training, held_out)
    return [
        with_students_t(
            Estimate(
                "log p of a held-out digit, AIS", unnormalised - found.log_z, found.stderr, exact=unnormalised - exact
            ),
            budget.chains,
        ),
        Estimate("effective sample size, AIS, digits", found.ess),
        Estimate("log p of independent pixels", independent),
    ]


def _log_likelihood_of_independent_pixels(training: Tensor, held_out: Tensor) -> float:
    p = training.double().mean(0).clamp(0.01, 0.99)
    x = held_out.double()
    return float((x * p.log() + (1 - x) * (-p).log1p()).sum(1).mean())


def _plot(annealed: list[tuple[int, float, float]], tempered: list[tuple[int, float, float]]) -> Plot:
    sweeps = [point[0] for point in (*annealed, *tempered)]
    curves = [Curve("exact", (float(min(sweeps)), float(max(sweeps))), (LOG_Z, LOG_Z), exact=True)]
    for name, points in (("AIS", annealed), ("parallel tempering, integrated", tempered)):
        x, y, errors = (tuple(map(float, part)) for part in zip(*points, strict=True))
        curves.append(Curve(name, x, y, errors))
    return Plot(
        "log Z estimators against budget, 10 x 8 machine", "sweeps of all chains", "log Z", tuple(curves), x_log=True
    )


@hookimpl
def register_experiments(register: Callable[[Experiment], None]) -> None:
    register(
        Experiment(
            "partition_function",
            "log Z by enumeration, by annealed importance sampling and by tempering.",
            "Neal, Statistics and Computing 11 (2001); Salakhutdinov and Murray, ICML 2008",
            run,
        )
    )
