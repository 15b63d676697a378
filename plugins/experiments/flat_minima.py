"""Does Langevin dynamics prefer flat minima? Measured where the answer is exact, and on a small network.

On a line with a flat and a sharp minimum of equal depth (`exact.flat_and_sharp`), chains start in the minima with the
probabilities of the Boltzmann law. Their final occupancy is compared with the stationary law of the discretised chain,
from its transfer operator. A perceptron with one hidden layer is then sampled at several temperatures and quenched to a
nearby minimum. The largest eigenvalue of its Hessian and its held-out accuracy have no exact values to compare with.

Sources: Hochreiter and Schmidhuber, Neural Computation 9 (1997); Welling and Teh, ICML 2011.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from boltzbench.harness import Curve, Dynamics, Estimate, Experiment, Findings, Plot, hookimpl
from boltzbench.kernels.sgld import sgld_update
from boltzbench.plugins.exact.flat_and_sharp import FLAT, SADDLE, SHARP, SOFTNESS, energy
from boltzbench.plugins.exact.laws import on_a_line
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.experiments import first_parameters, logits, mean_and_error, mean_of_law
from torch import Tensor
from torch.nn.functional import cross_entropy

BOLTZBENCH_API = 1

TEMPERATURES = (1.0, 2.0)
STEPS = {0.05: 1500, 0.1: 600}
"""Steps for each step size: about 8 times the slowest relaxation at temperature 1. That is 189 and 69 steps by the
transfer operator's second eigenvalue, so 5e-4 of the initial deviation remains."""
CHAINS = 4096

HEATS = (0.0, 1e-3, 4e-3)
"""Temperatures of the network; its energy is the mean loss."""
SEEDS = 4
HIDDEN_UNITS = 16
BATCH = 256
STEP_SIZE = 0.8
HEATED_STEPS = 500
QUENCHED_STEPS = 100
ITERATIONS = 12
"""Of the power method; close eigenvalues, which it separates slowly, are equally sharp."""


@cache
def flat_share(temperature: float, step_size: float) -> float:
    """The exact probability of the flat minimum in the discretised chain, or in the Boltzmann law at step size 0."""
    dynamics = Dynamics("langevin", {"step_size": step_size}) if step_size else Dynamics()
    law = on_a_line(energy, temperature, dynamics, (SADDLE,))
    assert law is not None
    (well,) = (each for each in law.projections if each.name == "well")
    assert well.probabilities is not None
    return float(well.probabilities[0])


def sampled_share(temperature: float, step_size: float, chains: int, device: torch.device, seed: int) -> float:
    """The share of ``chains`` chains in the flat minimum after `sgld_update` steps from the Boltzmann law's shares."""
    flat = round(chains * flat_share(temperature, 0.0))
    x = torch.tensor([FLAT[0]] * flat + [SHARP[0]] * (chains - flat), device=device)
    (left, k_left), (right, k_right) = FLAT, SHARP
    for step in range(STEPS[step_size]):
        to_left, to_right = x - left, x - right
        sharp = torch.sigmoid((k_left * to_left.square() - k_right * to_right.square()) / (2 * SOFTNESS))
        gradient = torch.lerp(k_left * to_left, k_right * to_right, sharp)
        sgld_update(x, gradient, step_size, temperature, seed=seed, step=step)
    return float((x < SADDLE).double().mean())


def occupancy(chains: int, device: torch.device, seed: int) -> Findings:
    """The share of chains in the flat minimum and its exact value, with binomial errors."""
    estimates, curves = [], []
    fine = (1.0, 1.5, 2.0)
    for number, step_size in enumerate((0.0, *STEPS)):
        name = f"step {step_size:g}"
        exact = tuple(_odds(flat_share(temperature, step_size)) for temperature in fine)
        curves.append(Curve(name if step_size else "no step", fine, exact, exact=True))
        if not step_size:
            continue
        odds, errors = [], []
        for temperature in TEMPERATURES:
            share = sampled_share(temperature, step_size, chains, device, seed + (number << 32))
            expected = flat_share(temperature, step_size)
            error = math.sqrt(expected * (1 - expected) / chains)
            claim = f"flat share, T = {temperature:g}, {name}"
            estimates.append(mean_of_law(claim, share, (0.0, 1.0), (1 - expected, expected), chains))
            odds.append(_odds(share))
            errors.append(error / (1 - share) ** 2 if share < 1 else math.inf)
        curves.append(Curve(name, TEMPERATURES, tuple(odds), tuple(errors)))
    plot = Plot("Occupancy of the flat over the sharp minimum", "temperature", "occupancy ratio", tuple(curves))
    return Findings(tuple(estimates), (plot,))


def _odds(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


def network(heats: Sequence[float], seeds: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Sharpness and held-out accuracy after SGLD at each heat and a quench: two float64 (heats, seeds)."""
    found = [_trained(heat, seeds, device) for heat in heats]
    return torch.stack([sharpness for sharpness, _ in found]), torch.stack([accuracy for _, accuracy in found])


def _trained(heat: float, seeds: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Sharpness and accuracy for each seed. Parameters have the seed as first dimension, and each seed its own loss."""
    pixels, labels = (part.to(device) for part in digits.images())
    train, held_out = slice(None, digits.TRAINING_IMAGES), slice(digits.TRAINING_IMAGES, None)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    parameters = first_parameters(generators, HIDDEN_UNITS, device)

    def losses(x: Tensor, y: Tensor) -> Tensor:
        rows = logits(x, parameters, torch.tanh).flatten(0, 1)
        return cross_entropy(rows, y.flatten(), reduction="none").view(y.shape).mean(1)

    def full_loss() -> Tensor:
        return losses(pixels[train].expand(len(seeds), -1, -1), labels[train].expand(len(seeds), -1)).sum()

    for step in range(HEATED_STEPS + QUENCHED_STEPS):
        if step < HEATED_STEPS:
            chosen = torch.stack([torch.randint(digits.TRAINING_IMAGES, (BATCH,), generator=g) for g in generators])
            loss = losses(pixels[chosen.to(device)], labels[chosen.to(device)]).sum()
        else:
            loss = full_loss()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            temperature = heat if step < HEATED_STEPS else 0.0
            sgld_update(parameters, gradients, STEP_SIZE, temperature, seed=seeds[0], step=step)
    with torch.no_grad():
        answers = logits(pixels[held_out].expand(len(seeds), -1, -1), parameters, torch.tanh).argmax(2)
        accuracy = (answers == labels[held_out]).double().mean(1)
    return _largest_eigenvalue(full_loss, parameters).double().cpu(), accuracy.cpu()


def _largest_eigenvalue(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """The largest Hessian eigenvalue of each seed's loss, (seeds,), by the power method on all seeds at once."""
    gradients = torch.autograd.grad(loss(), parameters, create_graph=True)
    vectors = [torch.ones_like(each) for each in parameters]
    for _ in range(ITERATIONS):
        squares = torch.stack([each.square().sum((1, 2)) for each in vectors]).sum(0)
        vectors = [each / squares.sqrt()[:, None, None] for each in vectors]
        images = torch.autograd.grad(gradients, parameters, vectors, retain_graph=True)
        eigenvalue = torch.stack([(a * b).sum((1, 2)) for a, b in zip(images, vectors, strict=True)]).sum(0)
        vectors = list(images)
    return eigenvalue


def run(device: torch.device, seed: int) -> Findings:
    on_gpu = device.type == "cuda"
    line = occupancy(CHAINS * (64 if on_gpu else 1), device, seed)
    seeds = range(seed, seed + (20 if on_gpu else SEEDS))
    sharpness, accuracy = network(HEATS, seeds, device)
    estimates, plots = list(line.estimates), list(line.plots)
    named = {"sharpness": ("largest eigenvalue of the Hessian", sharpness), "accuracy": ("held-out accuracy", accuracy)}
    for what, (axis, values) in named.items():
        means, errors = values.mean(1), values.std(1) / math.sqrt(len(seeds))
        change = values[1:] - values[0]  # seed by seed
        for heat, of in zip(HEATS[1:], change, strict=True):
            estimates.append(Estimate(f"{what}, T = {heat:g} minus T = 0", *mean_and_error(of)))
        curve = Curve(what, HEATS, tuple(means.tolist()), tuple(errors.tolist()))
        title = f"{what.capitalize()} of a network after SGLD and a quench"
        plots.append(Plot(title, "temperature", axis, (curve,)))
    return Findings(tuple(estimates), tuple(plots))


@hookimpl
def register_experiments(register: Callable[[Experiment], None]) -> None:
    register(
        Experiment(
            name="flat_minima",
            summary="Does Langevin dynamics prefer flat minima?",
            source="Hochreiter and Schmidhuber, Neural Computation 9 (1997); Welling and Teh, ICML 2011",
            run=run,
        )
    )
