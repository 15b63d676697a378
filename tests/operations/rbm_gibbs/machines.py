"""Shared by the tests of block Gibbs: the device, the backends, and small random machines."""

import math

import pytest
import torch
from boltzbench.kernels import native
from boltzbench.kernels.common import dispatch
from support.devices import DEVICE

SPLIT = ("bf16", "bf16x3", "int8x3")
BACKENDS = [name for name in dispatch.BACKENDS if dispatch.unavailable(name, DEVICE) is None]
NEEDS_CUPY = pytest.mark.skipif("cupy" not in BACKENDS, reason=str(dispatch.unavailable("cupy", DEVICE)))
NEEDS_NATIVE = pytest.mark.skipif(native.unavailable(DEVICE) is not None, reason=str(native.unavailable(DEVICE)))


def _parameter(name):
    reason = dispatch.unavailable(name, DEVICE)
    return pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


ALL_BACKENDS = [_parameter(name) for name in dispatch.BACKENDS]
"""Parameters of a fixture; those that cannot run here are skipped."""


def model(chains, visible_units, hidden_units, seed=0, dtype=torch.float32):
    """States, weights and biases; weights of scale 4 / sqrt(units), so that probabilities lie all over (0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    scale = 4.0 / math.sqrt(max(visible_units, hidden_units, 1))
    visible = torch.randint(0, 2, (chains, visible_units), generator=generator, dtype=torch.uint8)
    shapes = ((visible_units, hidden_units), (visible_units,), (hidden_units,))
    weights, b, c = (torch.randn(shape, generator=generator) for shape in shapes)
    return (visible.to(DEVICE), *((x.to(dtype)).to(DEVICE) for x in (scale * weights, b, c)))


def some_units(shape):
    """Which of the units are clamped: about three of ten."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(4)).to(DEVICE) < 0.3
