"""Is generalised cross-entropy more robust to label noise than cross-entropy? Measured on scikit-learn's digits.

A perceptron with one hidden layer is trained on the first four fifths of the images. A share of their labels has been
replaced by other classes, chosen uniformly (symmetric noise). The accuracy is measured on the other images. Both losses
use the same wrong labels, initial weights and batches, so accuracies are compared seed by seed.

Source of the claim: Z. Zhang, M. Sabuncu, NeurIPS 2018, for networks that can memorize wrong labels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from boltzbench.harness import Curve, Estimate, Experiment, Findings, Plot, hookimpl
from boltzbench.kernels.generalised_cross_entropy import generalised_cross_entropy
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.experiments import first_parameters, logits, mean_and_error
from torch import Tensor

BOLTZBENCH_API = 1

NOISES = (0.0, 0.2, 0.4, 0.6)
QS = (0.0, 0.7)
SEEDS = 10
HIDDEN_UNITS = 128
EPOCHS = 100
CPU_SEEDS, CPU_EPOCHS = 3, 40
"""Fewer on a CPU to save time, but enough epochs to memorize wrong labels."""
BATCH = 100
RATE = 0.1
MOMENTUM = 0.9


@dataclass(frozen=True)
class Accuracy:
    """The held-out accuracy for each seed."""

    noise: float
    q: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return _mean_and_error(self.values)[0]

    @property
    def stderr(self) -> float:
        return _mean_and_error(self.values)[1]


@dataclass(frozen=True)
class Gain:
    """The gain of ``q`` in held-out accuracy over cross-entropy at a noise rate: mean over seeds and standard error."""

    noise: float
    q: float
    mean: float
    stderr: float

    @property
    def z(self) -> float:
        return self.mean / self.stderr if self.stderr else math.copysign(math.inf, self.mean) if self.mean else 0.0


def measure(
    noises: Sequence[float] = NOISES,
    qs: Sequence[float] = QS,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
) -> list[Accuracy]:
    """The held-out accuracy for each noise rate and each q. The same arguments give the same numbers."""
    return [Accuracy(noise, q, tuple(train(q, noise, seeds, epochs).tolist())) for noise in noises for q in qs]


def gains(accuracies: Sequence[Accuracy]) -> list[Gain]:
    """The gain of each q over q = 0 at the same noise, seed by seed."""
    plain = {each.noise: each.values for each in accuracies if each.q == 0}
    found = []
    for each in accuracies:
        if each.q:
            differences = [ours - theirs for ours, theirs in zip(each.values, plain[each.noise], strict=True)]
            found.append(Gain(each.noise, each.q, *_mean_and_error(differences)))
    return found


def train(q: float, noise: float, seeds: Sequence[int], epochs: int = EPOCHS) -> Tensor:
    """Held-out accuracies, float64 (seeds,), after stochastic gradient descent with momentum.

    All seeds train at once; the random numbers of a seed do not depend on the others.
    """
    pixels, labels = (part[: digits.TRAINING_IMAGES] for part in digits.images())
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    given = torch.stack([with_noise(labels, noise, generator) for generator in generators])
    parameters = first_parameters(generators, HIDDEN_UNITS, torch.device("cpu"))
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM)
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(pixels), generator=generator) for generator in generators])
        for batch in torch.split(orders, BATCH, dim=1):
            classes = logits(pixels[batch], parameters, torch.relu).transpose(1, 2)
            # The mean over each seed's batch: the learning rate does not depend on the number of seeds.
            losses = generalised_cross_entropy(classes, given.gather(1, batch), q, reduction="none")
            optimizer.zero_grad()
            torch.autograd.backward(losses.mean(1).sum())
            optimizer.step()
    held_out = digits.images()[0][digits.TRAINING_IMAGES :].expand(len(seeds), -1, -1)
    with torch.no_grad():
        found = logits(held_out, parameters, torch.relu).argmax(2)
    return (found == digits.held_out_labels()).double().mean(1)


def with_noise(labels: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """``labels``, each with probability ``noise`` replaced by one of the other classes."""
    if not 0 <= noise <= 1:
        raise ValueError(f"noise must be a probability, got {noise}")
    wrong = torch.rand(len(labels), generator=generator) < noise
    shift = torch.randint(1, digits.CLASSES, labels.shape, generator=generator)
    return torch.where(wrong, (labels + shift) % digits.CLASSES, labels)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    return mean_and_error(torch.tensor(values, dtype=torch.float64))


def run(device: torch.device, seed: int) -> Findings:
    """Trains on the CPU, because the networks are small; a GPU only selects more seeds and epochs."""
    seeds, epochs = (SEEDS, EPOCHS) if device.type == "cuda" else (CPU_SEEDS, CPU_EPOCHS)
    found = measure(seeds=range(seed, seed + seeds), epochs=epochs)
    curves = []
    for q in QS:
        own = [each for each in found if each.q == q]
        means, errors = tuple(each.mean for each in own), tuple(each.stderr for each in own)
        curves.append(Curve(f"q = {q:g}" if q else "cross-entropy", NOISES, means, errors))
    plot = Plot("Digits learned from noisy labels", "share of wrong labels", "held-out accuracy", tuple(curves))
    gained = [Estimate(f"gain in accuracy, noise {each.noise:g}", each.mean, each.stderr) for each in gains(found)]
    return Findings(tuple(gained), (plot,))


@hookimpl
def register_experiments(register: Callable[[Experiment], None]) -> None:
    register(
        Experiment(
            name="label_noise",
            summary="Is generalised cross-entropy more robust to label noise?",
            source="Zhang and Sabuncu, NeurIPS 2018",
            run=run,
        )
    )
