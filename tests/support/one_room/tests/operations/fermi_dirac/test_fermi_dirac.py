"""The occupation of levels: known values, symmetry between particles and holes, and refused arguments."""

import math

import pytest
import torch
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.fermi_dirac import fermi_dirac

BACKENDS = [name for name in dispatch.BACKENDS if dispatch.unavailable(name, torch.device("cpu")) is None]


@pytest.mark.parametrize("backend", BACKENDS)
def test_known_values(backend):
    y = fermi_dirac(torch.tensor([-math.inf, -math.log(3), 0.0, math.log(3), math.inf]), backend=backend)
    torch.testing.assert_close(y, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_particles_and_holes_fill_each_level(backend):
    x = torch.linspace(-20, 20, 1001)
    both = fermi_dirac(x, backend=backend) + fermi_dirac(-x, backend=backend)
    torch.testing.assert_close(both, torch.ones_like(both))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="x must be contiguous"):
        fermi_dirac(torch.zeros(4, 4).t()[:2])
    with pytest.raises(TypeError, match="x must have dtype float32"):
        fermi_dirac(torch.zeros(4, dtype=torch.float64))
