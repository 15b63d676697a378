"""Block Gibbs on its three backends: draw by draw against float64, continuation, splitting, clamping, bad input."""

import itertools
import math

import pytest
import torch
from boltzbench.kernels.philox import Stream
from boltzbench.kernels.rbm_gibbs import GibbsResult, draw_uniforms, gibbs
from operations.rbm_gibbs.machines import ALL_BACKENDS, BACKENDS, DEVICE

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(params=ALL_BACKENDS)
def backend(request):
    return request.param


def model(chains, visible_units, hidden_units, dtype=torch.float32, seed=0, exact=False):
    """States, weights and biases. ``exact``: multiples of 1/16, with exact sums in any order."""
    generator = torch.Generator().manual_seed(seed)

    def parameter(*shape):
        value = torch.randn(shape, generator=generator)
        return ((value * 16).round() / 16 if exact else value).to(dtype).to(DEVICE)

    visible = torch.randint(0, 2, (chains, visible_units), generator=generator).to(torch.uint8).to(DEVICE)
    return visible, parameter(visible_units, hidden_units), parameter(visible_units), parameter(hidden_units)


def run(visible, weights, visible_bias, hidden_bias, *args, **options):
    """Call `gibbs`, and check that it leaves its inputs unchanged and returns states 0 or 1."""
    inputs = (visible, weights, visible_bias, hidden_bias)
    before = [value.clone() for value in inputs]
    result = gibbs(*inputs, *args, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
    for states, units in ((result.visible, weights.shape[0]), (result.hidden, weights.shape[1])):
        assert states.dtype is torch.uint8
        assert states.shape == (len(visible), units)
        assert states.numel() == 0 or states.max() <= 1
    return result


def exact_probability(given, weights, bias, beta):
    """In float64, from the values that the kernel reads; and the bound of a float32 kernel's error."""
    given, weights, bias = given.double(), weights.double(), bias.double()
    u = 2.0**-24
    size = bias.abs() + given @ weights.abs()
    bound = (weights.shape[0] + 2) * u * beta * size / 4 + 4 * u
    return torch.sigmoid(beta * (bias + given @ weights)), bound


def require_draws(states, given, weights, bias, beta, seed, step, stream, first_chain=0, drawn=None):
    """Each state is ``u < p``, unless rounding cannot decide, which is rare."""
    p, bound = exact_probability(given, weights, bias, beta)
    u = draw_uniforms(states.shape, seed, step, stream, first_chain, states.device).double()
    near = (u - p).abs() <= bound
    wrong = (states.bool() != (u < p)) & ~near
    if drawn is not None:
        wrong &= drawn
    assert not wrong.any(), (
        f"{int(wrong.sum())} of {wrong.numel()} draws are wrong, first {wrong.nonzero()[0].tolist()}"
    )
    assert near.sum() <= 2 + 1e-3 * near.numel()


SIZES = [(1, 1, 1), (17, 100, 17), (100, 17, 1), (65, 1, 100), (3, 64, 65), (64, 33, 63), (2, 5, 130)]


@pytest.mark.parametrize(("chains", "visible_units", "hidden_units"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sweep_draw_by_draw(backend, dtype, chains, visible_units, hidden_units):
    seed, step, first_chain, beta = 2**63 + 12345, 7, 3, 0.8
    visible, *parameters = model(chains, visible_units, hidden_units, dtype)
    weights, visible_bias, hidden_bias = parameters
    result = run(
        visible, *parameters, 1, beta, seed=seed, first_sweep=step, first_chain=first_chain,
        return_hidden_probability=True, backend=backend,
    )  # fmt: skip
    numbers = (beta, seed, step)
    require_draws(result.hidden, visible, weights, hidden_bias, *numbers, Stream.HIDDEN, first_chain)
    require_draws(result.visible, result.hidden, weights.t(), visible_bias, *numbers, Stream.VISIBLE, first_chain)
    p, bound = exact_probability(result.visible, weights, hidden_bias, beta)
    assert result.hidden_probability.dtype is torch.float32
    assert ((result.hidden_probability.double() - p).abs() <= bound).all()


@pytest.mark.parametrize("strides", ["transposed", "sliced", "expanded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strided_arguments(backend, strides, dtype):
    visible, weights, visible_bias, hidden_bias = model(21, 34, 19, dtype, exact=True)
    plain = weights.contiguous()
    if strides == "transposed":
        weights = weights.t().contiguous().t()
        visible = visible.t().contiguous().t()
    elif strides == "sliced":
        weights = torch.stack((weights, -weights), -1).repeat_interleave(2, 0)[::2, :, 0]
        visible = visible.repeat_interleave(3, 1)[:, ::3]
        hidden_bias, visible_bias = hidden_bias.repeat_interleave(2)[::2], visible_bias.repeat_interleave(2)[::2]
    else:
        weights, hidden_bias = weights[:, :1].expand(34, 19), hidden_bias[:1].expand(19)
        visible = visible[:1].expand(21, 34)
        plain = weights.contiguous()
    result = run(visible, weights, visible_bias, hidden_bias, 2, seed=5, backend=backend)
    again = run(
        visible.contiguous(), plain, visible_bias.contiguous(), hidden_bias.contiguous(), 2, seed=5, backend=backend
    )
    assert torch.equal(result.visible, again.visible)
    assert torch.equal(result.hidden, again.hidden)


def test_backends_draw_the_same_states():
    arguments = model(40, 31, 18, exact=True)
    results = [run(*arguments, 6, 0.5, seed=21, backend=name) for name in BACKENDS]
    for result in results[1:]:
        assert torch.equal(result.visible, results[0].visible)
        assert torch.equal(result.hidden, results[0].hidden)
    assert not torch.equal(results[0].visible, arguments[0])


# ---- splitting a run


def test_several_sweeps_match_several_calls(backend):
    visible, *parameters = model(70, 17, 9, exact=True)
    whole = run(visible, *parameters, 4, 0.7, seed=8, return_hidden_probability=True, backend=backend)
    v = visible
    for sweep in range(4):
        part = run(
            v, *parameters, 1, 0.7, seed=8, first_sweep=sweep, return_hidden_probability=True, backend=backend
        )  # fmt: skip
        if sweep:
            assert not torch.equal(part.visible, v)
        v = part.visible
    assert torch.equal(whole.visible, part.visible)
    assert torch.equal(whole.hidden, part.hidden)
    assert torch.equal(whole.hidden_probability, part.hidden_probability)


@pytest.mark.parametrize("cuts", [(0, 1, 71), (0, 64, 71), (0, 10, 30, 71)])
def test_a_split_batch_draws_the_same(backend, cuts):
    visible, *parameters = model(71, 17, 9, exact=True)
    whole = run(visible, *parameters, 2, seed=8, backend=backend)
    parts = [
        run(visible[a:b], *parameters, 2, seed=8, first_chain=a, backend=backend) for a, b in itertools.pairwise(cuts)
    ]
    assert torch.equal(whole.visible, torch.cat([part.visible for part in parts]))
    assert torch.equal(whole.hidden, torch.cat([part.hidden for part in parts]))


def test_chains_far_out_in_the_stream(backend):
    visible, *parameters = model(5, 6, 7)
    first = 2**40 + 1
    result = run(visible, *parameters, seed=8, first_chain=first, first_sweep=2**32 - 1, backend=backend)
    weights, _, hidden_bias = parameters
    require_draws(result.hidden, visible, weights, hidden_bias, 1.0, 8, 2**32 - 1, Stream.HIDDEN, first)


def test_seed_sweep_and_chain_all_change_the_draws(backend):
    visible, *parameters = model(40, 30, 20)
    base = {"seed": 1, "first_sweep": 0, "first_chain": 0}
    results = [
        run(visible, *parameters, **(base | change), backend=backend).hidden
        for change in ({}, {"seed": 1 + 2**32}, {"seed": 2}, {"first_sweep": 1}, {"first_chain": 40})
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(results) for b in results[:i])
    assert torch.equal(results[0], run(visible, *parameters, **base, backend=backend).hidden)


# ---- clamping


@pytest.mark.parametrize("shape", ["units", "chains and units", "strided"])
def test_clamped_units_keep_their_state(backend, shape):
    visible, *parameters = model(67, 37, 11)
    weights, visible_bias, _ = parameters
    clamped = torch.rand(67, 37, generator=torch.Generator().manual_seed(4)).to(DEVICE) < 0.4
    if shape == "units":
        clamped = clamped[0]
    elif shape == "strided":
        clamped = clamped.t().contiguous().t()
    kept = clamped.clone()
    one = run(visible, *parameters, seed=3, clamped=clamped, backend=backend)
    held = clamped.expand(67, 37)
    assert torch.equal(one.visible[held], visible[held])
    require_draws(one.visible, one.hidden, weights.t(), visible_bias, 1.0, 3, 0, Stream.VISIBLE, drawn=~held)
    many = run(visible, *parameters, 4, seed=3, clamped=clamped, backend=backend)
    assert torch.equal(many.visible[held], visible[held])
    assert not torch.equal(many.visible[~held], visible[~held])
    assert torch.equal(kept, clamped)


def test_all_or_no_units_clamped(backend):
    visible, *parameters = model(9, 14, 5)
    everything = torch.ones(14, dtype=torch.bool, device=DEVICE)
    assert torch.equal(run(visible, *parameters, 3, seed=3, clamped=everything, backend=backend).visible, visible)
    free = run(visible, *parameters, 3, seed=3, clamped=~everything, backend=backend)
    assert torch.equal(free.visible, run(visible, *parameters, 3, seed=3, backend=backend).visible)


# ---- edges


@pytest.mark.parametrize("dtype", DTYPES)
def test_beta_zero_draws_fair_coins(backend, dtype):
    visible, *parameters = model(33, 21, 13, dtype)
    result = run(visible, *parameters, 1, 0.0, seed=6, return_hidden_probability=True, backend=backend)
    for states, stream in ((result.hidden, Stream.HIDDEN), (result.visible, Stream.VISIBLE)):
        u = draw_uniforms(states.shape, 6, 0, stream, 0, DEVICE)
        assert torch.equal(states.bool(), u < 0.5)
    assert (result.hidden_probability == 0.5).all()


@pytest.mark.parametrize("size", [100.0, 1e4, 3e38])
def test_certain_units_are_certain(backend, size):
    visible, weights, visible_bias, hidden_bias = model(50, 8, 6)
    signs = torch.tensor([1.0, -1.0], device=DEVICE)
    visible_bias, hidden_bias = size * signs.repeat(4), size * signs.repeat(3)
    result = run(
        visible, weights, visible_bias, hidden_bias, 2, 2.0, seed=6, return_hidden_probability=True, backend=backend
    )
    assert torch.equal(result.visible, (visible_bias > 0).to(torch.uint8).expand(50, 8))
    assert torch.equal(result.hidden, (hidden_bias > 0).to(torch.uint8).expand(50, 6))
    assert torch.isfinite(result.hidden_probability).all()
    torch.testing.assert_close(result.hidden_probability, result.hidden.float(), rtol=0, atol=1e-30)


@pytest.mark.parametrize(("chains", "visible_units", "hidden_units"), [(5, 7, 0), (5, 0, 7), (0, 7, 4), (5, 0, 0)])
def test_empty_layers_and_batches(backend, chains, visible_units, hidden_units):
    visible, *parameters = model(chains, visible_units, hidden_units)
    result = run(visible, *parameters, 2, 0.9, seed=6, return_hidden_probability=True, backend=backend)
    assert result.hidden_probability.shape == (chains, hidden_units)
    weights, visible_bias, hidden_bias = parameters
    if chains:
        require_draws(result.visible, result.hidden, weights.t(), visible_bias, 0.9, 6, 1, Stream.VISIBLE)
    if not visible_units:
        require_draws(result.hidden, visible, weights, hidden_bias, 0.9, 6, 1, Stream.HIDDEN)


def test_memory_around_out_is_unchanged(backend):
    visible, *parameters = model(5, 7, 3)
    bands = [torch.full((64 + n,), 77, dtype=d, device=DEVICE) for n, d in ((35, torch.uint8), (15, torch.uint8))]
    bands.append(torch.full((64 + 15,), 77.0, device=DEVICE))
    out = GibbsResult(*(b[32:-32].view(5, -1) for b in bands))
    for value in out:
        value.fill_(255 if value.dtype is torch.uint8 else math.nan)
    result = run(visible, *parameters, 3, seed=6, return_hidden_probability=True, out=out, backend=backend)
    expected = run(visible, *parameters, 3, seed=6, return_hidden_probability=True, backend=backend)
    for value, other, band in zip(result, expected, bands, strict=True):
        assert torch.equal(value, other)
        assert (band[:32] == 77).all()
        assert (band[-32:] == 77).all()
    assert result.visible.data_ptr() == out.visible.data_ptr()


# ---- wrong arguments


def _spoilt(value):
    return lambda tensor: tensor.index_fill(0, torch.tensor([1], device=DEVICE), value)


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("visible", _spoilt(2), ValueError),
        ("visible", _spoilt(255), ValueError),
        ("visible", lambda t: t.float(), TypeError),
        ("visible", lambda t: t.bool(), TypeError),
        ("visible", lambda t: t.to(torch.int64), TypeError),
        ("visible", lambda t: t[0], ValueError),
        ("visible", lambda t: t[None], ValueError),
        ("visible", lambda t: t.tolist(), TypeError),
        ("weights", _spoilt(math.nan), ValueError),
        ("weights", _spoilt(math.inf), ValueError),
        ("weights", _spoilt(-math.inf), ValueError),
        ("weights", lambda t: t.double(), TypeError),
        ("weights", lambda t: t.to_sparse(), TypeError),
        ("weights", lambda t: t.t(), ValueError),
        ("weights", lambda t: t[None], ValueError),
        ("weights", lambda t: t.to("meta"), ValueError),
        ("visible_bias", _spoilt(math.nan), ValueError),
        ("visible_bias", lambda t: t.half(), TypeError),
        ("visible_bias", lambda t: t[1:], ValueError),
        ("visible_bias", lambda t: t[None], ValueError),
        ("hidden_bias", _spoilt(-math.inf), ValueError),
        ("hidden_bias", lambda t: t.half(), TypeError),
        ("hidden_bias", lambda t: t[1:], ValueError),
        ("clamped", lambda t: t.to(torch.uint8), TypeError),
        ("clamped", lambda t: t[1:], ValueError),
        ("clamped", lambda t: t.expand(2, 7), ValueError),
        ("sweeps", lambda _: 0, ValueError),
        ("sweeps", lambda _: -1, ValueError),
        ("beta", lambda _: -0.1, ValueError),
        ("beta", lambda _: math.nan, ValueError),
        ("beta", lambda _: math.inf, ValueError),
        ("backend", lambda _: "cuda", ValueError),
    ],
)
def test_errors_name_the_wrong_argument(backend, name, change, error):
    visible, weights, visible_bias, hidden_bias = model(5, 7, 4)
    arguments = {
        "visible": visible, "weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias,
        "clamped": torch.zeros(7, dtype=torch.bool, device=DEVICE), "sweeps": 1, "beta": 1.0, "backend": backend,
    }  # fmt: skip
    arguments[name] = change(arguments[name])
    with pytest.raises(error, match=rf"^{name} must"):
        gibbs(**arguments, seed=0)


def test_errors_name_the_wrong_part_of_out(backend):
    visible, *parameters = model(5, 7, 7)
    good = gibbs(visible, *parameters, seed=0, return_hidden_probability=True, backend=backend)
    shared = torch.zeros(60, dtype=torch.uint8, device=DEVICE)
    for out, name, error in (
        (good._replace(visible=visible), "out.visible", ValueError),
        (good._replace(visible=good.visible[:4]), "out.visible", ValueError),
        (good._replace(visible=good.visible.t().contiguous().t()), "out.visible", ValueError),
        (good._replace(visible=good.visible.float()), "out.visible", TypeError),
        (good._replace(hidden=good.visible), "out.hidden", ValueError),
        (good._replace(visible=shared[:35].view(5, 7), hidden=shared[25:].view(5, 7)), "out.hidden", ValueError),
        (good._replace(hidden=visible), "out.hidden", ValueError),
        (good._replace(hidden_probability=parameters[0][:5]), "out.hidden_probability", ValueError),
        (good._replace(hidden_probability=good.hidden), "out.hidden_probability", TypeError),
        (good._replace(hidden_probability=None), "out.hidden_probability", ValueError),
    ):
        with pytest.raises(error, match=rf"^{name} must"):
            gibbs(visible, *parameters, seed=0, return_hidden_probability=True, out=out, backend=backend)
    with pytest.raises(ValueError, match=r"^out.hidden_probability must"):
        gibbs(visible, *parameters, seed=0, out=good, backend=backend)
    clamped = torch.zeros(5, 7, dtype=torch.bool, device=DEVICE)
    out = GibbsResult(clamped.view(torch.uint8), good.hidden, None)
    with pytest.raises(ValueError, match=r"^out.visible must not share memory with clamped"):
        gibbs(visible, *parameters, seed=0, clamped=clamped, out=out, backend=backend)
