"""Real data for ``real`` cases: scikit-learn's digits, and models that are fitted to them here within seconds.

scikit-learn includes the 1,797 images of 8 x 8 pixels (Alpaydin and Kaynak, UCI, 1998).
"""

import functools
from typing import NamedTuple

import torch
from boltzbench.kernels.rbm_gibbs import gibbs
from boltzbench.plugins.exact.states import all_units
from torch import Tensor

IMAGES = 1797
PIXELS = 64
CLASSES = 10
HIDDEN_UNITS = 16
"""Few enough to sum over all 65,536 hidden states."""
TRAINING_IMAGES = 1437
"""The first four fifths; the other images are held out."""


class Machine(NamedTuple):
    """A restricted Boltzmann machine: float32 weights (64, 16), visible bias (64,), hidden bias (16,)."""

    weights: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor


@functools.cache
def images() -> tuple[Tensor, Tensor]:
    """``(pixels, labels)``: float32 (1797, 64) in [0, 1], int64 (1797,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.tensor(bunch.data / 16.0, dtype=torch.float32), torch.tensor(bunch.target, dtype=torch.int64)


def binary_images() -> Tensor:
    """The images as states of visible units: uint8 (1797, 64), 1 where a pixel is brighter than half."""
    return (images()[0] > 0.5).to(torch.uint8)


@functools.cache
def machine(epochs: int = 20, rate: float = 1.0, seed: int = 0) -> Machine:
    """A machine trained by persistent contrastive divergence (Tieleman, ICML 2008) with one sweep per batch.

    Initial weights, batches and chains depend on ``seed`` alone.
    """
    data = binary_images()
    generator = torch.Generator().manual_seed(seed)
    weights = 0.01 * torch.randn(PIXELS, HIDDEN_UNITS, generator=generator)
    frequency = data.float().mean(0).clamp(0.01, 0.99)
    visible_bias, hidden_bias = torch.logit(frequency), torch.zeros(HIDDEN_UNITS)
    chains, step = data[:100].clone(), 0
    for epoch in range(epochs):
        for batch in torch.split(torch.randperm(IMAGES, generator=generator), 100):
            shown = data[batch].float()
            chains, _, model_hidden = gibbs(
                chains, weights, visible_bias, hidden_bias, seed=seed, first_sweep=step,
                return_hidden_probability=True, check_values=False,
            )  # fmt: skip
            step += 1
            data_hidden = torch.sigmoid(hidden_bias + shown @ weights)
            assert model_hidden is not None
            fantasies = chains.float()
            scale = rate * (1 - epoch / epochs)
            weights += scale * (shown.t() @ data_hidden / len(shown) - fantasies.t() @ model_hidden / len(chains))
            visible_bias += scale * (shown.mean(0) - fantasies.mean(0))
            hidden_bias += scale * (data_hidden.mean(0) - model_hidden.mean(0))
    return Machine(weights, visible_bias, hidden_bias)


def resampled(each: Tensor, seed: int) -> Tensor:
    """As many rows of ``each`` as it has, drawn with replacement: real data that depend on the seed, and so do their
    means."""
    generator = torch.Generator().manual_seed(seed)
    return each[torch.randint(len(each), (len(each),), generator=generator).to(each.device)]


def jittered(each: Tensor, seed: int, scale: float = 0.1) -> Tensor:
    """``each`` plus normal numbers times ``scale``, which depend on the seed."""
    noise = torch.randn(each.shape, generator=torch.Generator().manual_seed(seed), dtype=each.dtype)
    return each + scale * noise.to(each.device)


@functools.cache
def hidden_free_energies() -> Tensor:
    """Free energies F(h) of all hidden states: float32 (65536,). ``logsumexp(-F)`` is log Z."""
    weights, visible_bias, hidden_bias = machine()
    hidden = all_units(HIDDEN_UNITS).float()
    return -hidden @ hidden_bias - torch.nn.functional.softplus(visible_bias + hidden @ weights.t()).sum(1)


@functools.cache
def image_free_energies() -> Tensor:
    """Free energies F(v) of all images: float32 (1797,)."""
    weights, visible_bias, hidden_bias = machine()
    shown = binary_images().float()
    return -shown @ visible_bias - torch.nn.functional.softplus(hidden_bias + shown @ weights).sum(1)


def energy_gradient(weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the energy of logistic regression on the training images, for weights (64, 10) and bias (10,).

    The energy is the negative log likelihood plus half the square of every parameter (a standard normal prior).
    """
    pixels, labels = (part[:TRAINING_IMAGES].to(weights.device) for part in images())
    residual = torch.softmax(pixels.to(weights.dtype) @ weights + bias, dim=1)
    residual = residual - torch.nn.functional.one_hot(labels, CLASSES)
    return pixels.to(weights.dtype).t() @ residual + weights, residual.sum(0) + bias


def held_out_probabilities(weights: Tensor, bias: Tensor) -> Tensor:
    """Predicted probability of each class for the held-out images: (360, 10)."""
    pixels = images()[0][TRAINING_IMAGES:].to(weights.device, weights.dtype)
    return torch.softmax(pixels @ weights + bias, dim=1)


def held_out_labels() -> Tensor:
    """Labels of the held-out images: int64 (360,)."""
    return images()[1][TRAINING_IMAGES:]
