"""Block Gibbs with real-valued visible units: draws against float64, split runs, strides, wrong arguments."""

import itertools
import math

import pytest
import torch
from boltzbench.kernels.philox import Stream
from boltzbench.kernels.rbm_gibbs import GibbsResult, draw_normals, draw_uniforms, gaussian_gibbs
from operations.rbm_gibbs.machines import ALL_BACKENDS, DEVICE, some_units

U = 2.0**-24


@pytest.fixture(params=ALL_BACKENDS)
def backend(request):
    return request.param


def model(chains, visible_units, hidden_units, seed=0):
    """Multiples of 1/8, and powers of two for sigma, so that fields and means are exact in any order of summation."""
    generator = torch.Generator().manual_seed(seed)

    def eighths(*shape):
        return (torch.randn(shape, generator=generator) * 8).round().to(DEVICE) / 8

    sigma = 2.0 ** torch.randint(-2, 3, (visible_units,), generator=generator).to(DEVICE)
    return (
        eighths(chains, visible_units), eighths(visible_units, hidden_units), eighths(visible_units),
        eighths(hidden_units), sigma,
    )  # fmt: skip


@pytest.mark.parametrize("size", [(1, 1, 1), (70, 100, 17), (3, 65, 130), (5, 0, 7), (5, 7, 0), (0, 3, 2)], ids=str)
def test_a_sweep_draw_by_draw(backend, size):
    v, w, b, c, sigma = model(*size)
    sigma = sigma * 1.1
    held = some_units(v.shape)
    beta = torch.linspace(0.2, 2.0, len(v), device=DEVICE)
    at = {"seed": 2**63 + 5, "first_sweep": 2**32 - 1, "first_chain": 2**40}
    before = v.clone()
    result = gaussian_gibbs(
        v, w, b, c, sigma, 1, beta, **at, clamped=held, return_hidden_probability=True, backend=backend
    )
    assert torch.equal(before, v)
    place = (at["seed"], at["first_sweep"])
    given, weights, each = v.double() / sigma.double(), w.double(), beta.double()[:, None]
    p = torch.sigmoid(each * (c.double() + given @ weights))
    # A sum of K products of quotients (2 ulp in Triton) rounds K + 4 times; p takes a quarter, and rounds itself.
    bound = each * (len(w) + 6) * U * (c.double().abs() + given.abs() @ weights.abs()) / 4 + 4 * U
    u = draw_uniforms(p.shape, *place, Stream.HIDDEN, at["first_chain"], DEVICE).double()
    wrong = (result.hidden.bool() != (u < p)) & ((u - p).abs() > bound)
    assert not wrong.any()
    z = draw_normals(v.shape, *place, Stream.VISIBLE, at["first_chain"], DEVICE) / each.sqrt()
    field = result.hidden.double() @ weights.t()
    exact = torch.where(held, v.double(), b.double() + sigma.double() * (field + z))
    # A normal number is within 12 u of its radius, at most 6.77; then three roundings and those of the sum.
    size_of_sum = b.double().abs() + sigma.double() * (result.hidden.double() @ weights.t().abs() + 6.77 / each.sqrt())
    assert ((result.visible.double() - exact).abs() <= (w.shape[1] + 16) * U * size_of_sum).all()
    assert torch.equal(result.visible[held], v[held])
    given = result.visible.double() / sigma.double()
    p = torch.sigmoid(each * (c.double() + given @ weights))
    bound = each * (len(w) + 6) * U * (c.double().abs() + given.abs() @ weights.abs()) / 4 + 4 * U
    assert ((result.hidden_probability.double() - p).abs() <= bound).all()


def test_split_runs_draw_the_same_on_every_backend(backend):
    v, *parameters = model(40, 19, 11)
    whole = gaussian_gibbs(v, *parameters, 3, 0.25, seed=7, backend=backend)
    step = v
    for sweep in range(3):
        step = gaussian_gibbs(step, *parameters, 1, 0.25, seed=7, first_sweep=sweep, backend=backend).visible
    assert torch.equal(step, whole.visible)
    parts = [
        gaussian_gibbs(v[a:e], *parameters, 3, 0.25, seed=7, first_chain=a, backend=backend)
        for a, e in itertools.pairwise((0, 7, 40))
    ]
    assert torch.equal(torch.cat([part.visible for part in parts]), whole.visible)
    assert torch.equal(torch.cat([part.hidden for part in parts]), whole.hidden)
    other = gaussian_gibbs(v, *parameters, 3, 0.25, seed=7, backend="torch")
    assert torch.equal(other.hidden, whole.hidden)
    torch.testing.assert_close(other.visible, whole.visible, rtol=1e-5, atol=1e-5)


def test_strided_arguments_and_an_out_argument(backend):
    v, w, b, c, sigma = model(9, 14, 5)
    plain = gaussian_gibbs(v, w, b, c, sigma, 2, seed=3, backend=backend)
    band = torch.full((64 + 9 * 14,), 77.0, device=DEVICE)
    out = GibbsResult(band[32:-32].view(9, 14), torch.empty(9, 5, dtype=torch.uint8, device=DEVICE), None)
    spread = gaussian_gibbs(
        v.t().contiguous().t(), w.t().contiguous().t(), b.repeat_interleave(2)[::2], c, sigma.repeat_interleave(3)[::3],
        2, seed=3, out=out, backend=backend,
    )  # fmt: skip
    assert torch.equal(spread.visible, plain.visible)
    assert torch.equal(out.visible, plain.visible)
    assert (band[:32] == 77).all()
    assert (band[-32:] == 77).all()


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("visible", lambda t: (t > 0).to(torch.uint8), TypeError),
        ("visible", lambda t: t.index_fill(0, torch.tensor([1], device=t.device), math.nan), ValueError),
        ("visible", lambda t: t[:, 1:], ValueError),
        ("weights", lambda t: t.bfloat16(), TypeError),
        ("weights", lambda t: t / 0, ValueError),
        ("weights", lambda t: t[0], ValueError),
        ("visible_bias", lambda t: t[1:], ValueError),
        ("hidden_bias", lambda t: t.double(), TypeError),
        ("sigma", lambda t: t[1:], ValueError),
        ("sigma", lambda t: 0 * t, ValueError),
        ("sigma", lambda t: -t, ValueError),
        ("sigma", lambda t: t / 0, ValueError),
        ("sigma", lambda _: 1.0, TypeError),
        ("beta", lambda _: 0.0, ValueError),
        ("beta", lambda _: math.nan, ValueError),
        ("beta", lambda _: torch.zeros(5, device=DEVICE), ValueError),
        ("clamped", lambda t: t[1:], ValueError),
        ("sweeps", lambda _: 0, ValueError),
        ("first_sweep", lambda _: -1, ValueError),
        ("first_sweep", lambda _: torch.tensor([-1], device=DEVICE), ValueError),
        ("first_chain", lambda _: -1, ValueError),
    ],
)
def test_errors_name_the_wrong_argument(name, change, error):
    v, w, b, c, sigma = model(5, 7, 4)
    arguments = {
        "visible": v, "weights": w, "visible_bias": b, "hidden_bias": c, "sigma": sigma, "sweeps": 1, "beta": 1.0,
        "clamped": torch.zeros(7, dtype=torch.bool, device=DEVICE), "first_sweep": 0, "first_chain": 0,
    }  # fmt: skip
    arguments[name] = change(arguments[name])
    with pytest.raises(error, match=rf"^{name} must"):
        gaussian_gibbs(**arguments, seed=0)
