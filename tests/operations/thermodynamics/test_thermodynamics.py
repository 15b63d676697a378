"""Thermodynamics on the three backends: against extended precision and exact results, edge values, bad arguments."""

import math

import numpy as np
import pytest
import torch
from boltzbench.kernels.thermodynamics import thermodynamics
from support.devices import DEVICE

INF, NAN = math.inf, math.nan


def tensor(values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def exact(x, beta):
    """``log Z, U, Var`` of each row in extended precision."""
    z = x.to(torch.float64).cpu().numpy().astype(np.longdouble)
    scaled = z * np.longdouble(beta)
    peak = scaled.max(axis=1, keepdims=True)
    weights = np.exp(scaled - peak)
    total = weights.sum(axis=1)
    p = weights / total[:, None]
    mean = (p * z).sum(axis=1)
    return (peak[:, 0] + np.log(total)), -mean, (p * (z - mean[:, None]) ** 2).sum(axis=1)


def require_right(result, x, beta, tolerance):
    for got, wanted, scale in zip(result[:3], exact(x, beta), (1.0, 20.0, 0.0), strict=True):
        error = np.abs(got.double().cpu().numpy() - wanted.astype(np.float64))
        assert (error <= tolerance * (np.abs(wanted).astype(np.float64) + scale)).all(), error.max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("beta", [1.0, -0.7, 0.0, 0.05])
def test_random_rows(backend, dtype, beta):
    generator = torch.Generator().manual_seed(3)
    for rows, n in ((5, 37), (9, 128), (2, 1031)):
        level = 20 * torch.randn(rows, 1, generator=generator)
        x = (3 * torch.randn(rows, n, generator=generator) + level).to(dtype).to(DEVICE)
        result = thermodynamics(x, -1, beta, backend=backend)
        assert all(value.dtype is (torch.float64 if dtype is torch.float64 else torch.float32) for value in result[:3])
        require_right(result, x, beta, 1e-13 if dtype is torch.float64 else 3e-5)


def test_two_levels(backend):
    """Degeneracy g of an excited level e: Z = 1 + g exp(-beta e), U = e g exp(-beta e) / Z, C = beta^2 U (e - U)."""
    beta, e, g = 0.8, 2.5, 6
    result = thermodynamics(tensor([[0.0] + [-e] * g], torch.float64), -1, beta, backend=backend)
    z = 1 + g * math.exp(-beta * e)
    u = e * g * math.exp(-beta * e) / z
    wanted = (-math.log(z) / beta, u, beta * (u + math.log(z) / beta), beta**2 * u * (e - u))
    found = (result.free_energy, result.energy, result.entropy, result.heat_capacity)
    torch.testing.assert_close(torch.stack(found)[:, 0], tensor(wanted, torch.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_edge_values(backend, dtype, sign):
    rows = [
        ([-INF, -INF, -INF, -INF], -INF, NAN, NAN),
        ([-INF, 5.0, -INF, -INF], 5.0, -5.0, 0.0),
        ([INF, 1.0, 2.0, -INF], INF, NAN, NAN),
        ([NAN, 1.0, 2.0, INF], NAN, NAN, NAN),
        ([0.0, -1e30, -3e38, -INF], 0.0, 0.0, 0.0),
        ([7.5, 7.5, 7.5, 7.5], 7.5 + math.log(4), -7.5, 0.0),
        ([1.0, -INF, 3.0, -INF], 3.0 + math.log1p(math.exp(-2)), None, None),
    ]
    x = tensor([row for row, *_ in rows], dtype) * sign
    result = thermodynamics(x, -1, sign, backend=backend)
    for number, (_, log_z, energy, variance) in enumerate(rows):
        assert result.log_z[number].item() == pytest.approx(log_z, rel=1e-6, nan_ok=True)
        if energy is not None:
            assert result.energy[number].item() == pytest.approx(sign * energy, rel=0, abs=0, nan_ok=True)
            assert result.variance[number].item() == pytest.approx(variance, rel=0, abs=0, nan_ok=True)
    p = 1 / (1 + math.exp(-2))
    assert result.energy[6].item() == pytest.approx(-sign * (3 * p + 1 - p), rel=1e-6)
    assert result.variance[6].item() == pytest.approx(4 * p * (1 - p), rel=1e-6)
    flat = thermodynamics(x, -1, 0.0, backend=backend)
    assert flat.variance[5].item() == 0.0
    assert flat.log_z[6].isnan(), "0 * inf is NaN, as in log-sum-exp"


def test_a_single_state_has_no_variance(backend):
    x = tensor([[0.0], [-3.3], [1e-3], [1e30], [-1e-30]])
    result = thermodynamics(x, backend=backend)
    assert torch.equal(result.log_z, x[:, 0])
    assert torch.equal(result.energy, -x[:, 0])
    assert torch.equal(result.variance, torch.zeros(5, device=DEVICE))


@pytest.mark.parametrize("n", [70_000, 70_001])
def test_split_rows(backend, n):
    x = torch.randn(2, n, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    x[1] = torch.linspace(-40, 40, n)  # each part has more weight than all parts before it
    require_right(thermodynamics(x, backend=backend), x, 1.0, 3e-5)
    x[0, n - 5] = NAN
    assert thermodynamics(x, backend=backend).variance.isnan().tolist() == [True, False]


def test_strides_and_shapes(backend):
    x = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    result = thermodynamics(x, 1, 0.5, backend=backend)
    assert result.variance.shape == (3, 5)
    flat = x.transpose(1, 2).reshape(15, 40)
    require_right([value.reshape(15) for value in result[:3]], flat, 0.5, 3e-5)
    empty = thermodynamics(x[:, :0], 1, backend=backend)
    assert (empty.log_z == -INF).all()
    assert empty.energy.isnan().all()


def test_out_is_written_and_wrong_arguments_are_named(backend):
    x = torch.randn(4, 9, device=DEVICE)
    out = tuple(torch.full((4,), NAN, device=DEVICE) for _ in range(3))
    result = thermodynamics(x, backend=backend, out=out)
    assert all(given is returned for given, returned in zip(out, result[:3], strict=True))
    require_right(out, x, 1.0, 3e-5)
    with pytest.raises(ValueError, match=r"^out energy must not share memory with out log_z"):
        thermodynamics(x, backend=backend, out=(out[0], out[0], out[1]))
    with pytest.raises(ValueError, match=r"^out variance must have shape"):
        thermodynamics(x, backend=backend, out=(out[0], out[1], torch.zeros(5, device=DEVICE)))
    with pytest.raises(TypeError, match=r"^out log_z must"):
        thermodynamics(x, backend=backend, out=(out[0].double(), out[1], out[2]))
    with pytest.raises(ValueError, match=r"^x must not require a gradient"):
        thermodynamics(x.requires_grad_(), backend=backend)
    with pytest.raises(ValueError, match=r"^beta must be finite"):
        thermodynamics(x.detach(), -1, INF, backend=backend)


def test_states_of_very_high_energy_have_no_effect(backend):
    """A mask is often the lowest finite number: its distance overflows, and its weight is 0."""
    x = torch.zeros(1, 16384, device=DEVICE)
    x[:, 8192:] = torch.finfo(torch.float32).min
    result = thermodynamics(x, backend=backend)
    assert result.log_z.item() == pytest.approx(math.log(8192))
    assert (result.energy.item(), result.variance.item()) == (0.0, 0.0)


def test_a_lazily_negated_tensor_is_refused(backend):
    x = torch.complex(torch.zeros(4, device=DEVICE), tensor([1.0, 2.0, 3.0, 4.0])).conj().imag
    with pytest.raises(ValueError, match="x must not be a lazily negated view"):
        thermodynamics(x, backend=backend)
