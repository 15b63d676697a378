"""Does generalised cross-entropy bear wrong labels better than cross-entropy? Measured on scikit-learn's digits.

A perceptron with one hidden layer is trained on the first four fifths of the images, a share of whose labels has been
replaced by one of the other classes, all alike (symmetric noise), and asked for the true labels of the rest. Both
losses see the same wrong labels, first weights and batches, so that their accuracies differ seed by seed.

Source of the claim: Z. Zhang, M. Sabuncu, NeurIPS 2018, for networks that can learn wrong labels by heart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from boltzbench.harness import Curve, Estimate, Experiment, Findings, Plot, hookimpl
from boltzbench.kernels.generalised_cross_entropy import generalised_cross_entropy
from boltzbench.plugins.support import digits
from torch import Tensor

BOLTZBENCH_API = 1

NOISES = (0.0, 0.2, 0.4, 0.6)
QS = (0.0, 0.7)
SEEDS = 10
HIDDEN_UNITS = 128
EPOCHS = 100
CPU_SEEDS, CPU_EPOCHS = 3, 40
"""What the experiment has time for there: long enough to learn wrong labels by heart."""
BATCH = 100
RATE = 0.1
MOMENTUM = 0.9


@dataclass(frozen=True)
class Accuracy:
    """Share of held-out images that are told rightly, of ``len(values)`` trainings: one for each seed."""

    noise: float
    q: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def stderr(self) -> float:
        return _stderr(self.values)


@dataclass(frozen=True)
class Gain:
    """What ``q`` gains in held-out accuracy over cross-entropy at a rate of noise: mean over seeds, its error, z."""

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
    """The held-out accuracy for each rate of noise and each q. The same arguments give the same numbers."""
    return [Accuracy(noise, q, tuple(train(q, noise, seeds, epochs).tolist())) for noise in noises for q in qs]


def gains(accuracies: Sequence[Accuracy]) -> list[Gain]:
    """Each q beside q = 0 at the same noise, seed by seed."""
    plain = {each.noise: each.values for each in accuracies if each.q == 0}
    found = []
    for each in accuracies:
        if each.q:
            differences = [ours - theirs for ours, theirs in zip(each.values, plain[each.noise], strict=True)]
            found.append(Gain(each.noise, each.q, sum(differences) / len(differences), _stderr(differences)))
    return found


def train(q: float, noise: float, seeds: Sequence[int], epochs: int = EPOCHS) -> Tensor:
    """Held-out accuracies, float64 (seeds,): stochastic gradient descent with momentum, all seeds at once.

    What a seed draws does not depend on the others.
    """
    pixels, labels = (part[: digits.TRAINING_IMAGES] for part in digits.images())
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    given = torch.stack([with_noise(labels, noise, generator) for generator in generators])
    parameters = [
        _first_weights(generators, *shape) for shape in ((digits.PIXELS, HIDDEN_UNITS), (HIDDEN_UNITS, digits.CLASSES))
    ]
    parameters += [torch.zeros(len(seeds), 1, units) for units in (HIDDEN_UNITS, digits.CLASSES)]
    for each in parameters:
        each.requires_grad_()
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM)
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(pixels), generator=generator) for generator in generators])
        for batch in torch.split(orders, BATCH, dim=1):
            logits = _logits(pixels[batch], parameters)
            # The mean of each seed's batch, so that seeds do not share a rate.
            losses = generalised_cross_entropy(logits.transpose(1, 2), given.gather(1, batch), q, reduction="none")
            optimizer.zero_grad()
            torch.autograd.backward(losses.mean(1).sum())
            optimizer.step()
    held_out = digits.images()[0][digits.TRAINING_IMAGES :].expand(len(seeds), -1, -1)
    with torch.no_grad():
        found = _logits(held_out, parameters).argmax(2)
    return (found == digits.held_out_labels()).double().mean(1)


def with_noise(labels: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """``labels``, each with probability ``noise`` replaced by one of the other classes."""
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is a probability, got {noise}")
    wrong = torch.rand(len(labels), generator=generator) < noise
    shift = torch.randint(1, digits.CLASSES, labels.shape, generator=generator)
    return torch.where(wrong, (labels + shift) % digits.CLASSES, labels)


def _first_weights(generators: Sequence[torch.Generator], inputs: int, outputs: int) -> Tensor:
    """(seeds, inputs, outputs), of variance 2 / inputs (K. He et al., ICCV 2015)."""
    draws = torch.stack([torch.randn(inputs, outputs, generator=generator) for generator in generators])
    return draws * math.sqrt(2 / inputs)


def _logits(pixels: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """(seeds, images, classes) of ``pixels`` (seeds, images, pixels)."""
    first, second, first_bias, second_bias = parameters
    return torch.baddbmm(second_bias, torch.relu(torch.baddbmm(first_bias, pixels, first)), second)


def _stderr(values: Sequence[float]) -> float:
    """Of the mean."""
    return float(torch.tensor(values, dtype=torch.float64).std() / math.sqrt(len(values)))


def run(device: torch.device, seed: int) -> Findings:
    """Trains on the CPU, whatever the device: the networks are small."""
    seeds, epochs = (SEEDS, EPOCHS) if device.type == "cuda" else (CPU_SEEDS, CPU_EPOCHS)
    found = measure(seeds=range(seed, seed + seeds), epochs=epochs)
    curves = []
    for q in QS:
        own = [each for each in found if each.q == q]
        means, errors = tuple(each.mean for each in own), tuple(each.stderr for each in own)
        curves.append(Curve(f"q = {q:g}" if q else "cross-entropy", NOISES, means, errors))
    plot = Plot("Digits learned from wrong labels", "share of wrong labels", "held-out accuracy", tuple(curves))
    gained = [Estimate(f"gain in accuracy, noise {each.noise:g}", each.mean, each.stderr) for each in gains(found)]
    return Findings(tuple(gained), (plot,))


@hookimpl
def register_experiments(register: Callable[[Experiment], None]) -> None:
    register(
        Experiment(
            name="label_noise",
            summary="Does generalised cross-entropy bear wrong labels better?",
            source="Zhang and Sabuncu, NeurIPS 2018",
            run=run,
        )
    )
