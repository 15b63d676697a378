"""Real data for the ``real`` cases: scikit-learn's bundled digits, and two models of them fitted here in seconds.

The 1,797 images of 8 x 8 pixels come with scikit-learn (Alpaydin and Kaynak, UCI, 1998).
"""

import functools
from typing import NamedTuple

import torch
from boltzbench.kernels.rbm_gibbs import gibbs
from torch import Tensor

IMAGES = 1797
PIXELS = 64
CLASSES = 10
HIDDEN_UNITS = 16
"""Few enough to sum over all 65,536 hidden states."""
TRAINING_IMAGES = 1437
"""The first four fifths; the rest is held out."""


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

    The same for every call with the same arguments: initial weights, batches and chains all follow from ``seed``.
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
            chains, _, dreamed = gibbs(
                chains, weights, visible_bias, hidden_bias, seed=seed, first_sweep=step,
                return_hidden_probability=True, check_values=False,
            )  # fmt: skip
            step += 1
            inferred = torch.sigmoid(hidden_bias + shown @ weights)
            assert dreamed is not None
            fantasies = chains.float()
            scale = rate * (1 - epoch / epochs)
            weights += scale * (shown.t() @ inferred / len(shown) - fantasies.t() @ dreamed / len(chains))
            visible_bias += scale * (shown.mean(0) - fantasies.mean(0))
            hidden_bias += scale * (inferred.mean(0) - dreamed.mean(0))
    return Machine(weights, visible_bias, hidden_bias)


def hidden_free_energies() -> Tensor:
    """Of each of the 65,536 hidden states, with the visible units summed out: their log-sum-exp is log Z."""
    weights, visible_bias, hidden_bias = machine()
    bits = torch.arange(1 << HIDDEN_UNITS)[:, None] >> torch.arange(HIDDEN_UNITS) & 1
    hidden = bits.to(torch.float32)
    return -hidden @ hidden_bias - torch.nn.functional.softplus(visible_bias + hidden @ weights.t()).sum(1)


def image_free_energies() -> Tensor:
    """Of each image, with the hidden units summed out: float32 (1797,)."""
    weights, visible_bias, hidden_bias = machine()
    shown = binary_images().float()
    return -shown @ visible_bias - torch.nn.functional.softplus(hidden_bias + shown @ weights).sum(1)


def energy_gradient(weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the energy of logistic regression on the training images: negative log likelihood of all of them
    plus half the square of every parameter (a standard normal prior). Shapes (64, 10) and (10,)."""
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
