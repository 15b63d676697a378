"""The gradient on all backends: against enumeration and float64, for every kind of hidden units, and repeatable."""

import itertools
import math

import pytest
import torch
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.rbm_gradient import log_likelihood_gradient
from boltzbench.kernels.rbm_gradient.launches import split_chains
from boltzbench.kernels.rbm_gradient.reference import hidden_probabilities, statistics
from boltzbench.kernels.rbm_training import Machine, exact_gradient, log_likelihood, log_partition
from boltzbench.plugins.exact.states import all_units
from support.devices import DEVICE
from support.threads import threads


def _backend(name):
    reason = dispatch.unavailable(name, DEVICE)
    return pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


@pytest.fixture(params=[_backend(name) for name in dispatch.backends_of("boltzbench.kernels.rbm_gradient")])
def backend(request):
    return request.param


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def states(*shape, seed=1):
    return (random(*shape, seed=seed) < 0.3).to(torch.uint8)


def require_close(found, expected, tolerance=2e-6):
    for name, got, wanted in zip(found._fields, found, expected, strict=True):
        assert got.dtype is torch.float32
        assert got.shape == wanted.shape, name
        assert torch.allclose(got.double(), wanted, rtol=1e-5, atol=tolerance), name


KINDS = ("computed", "states", "probabilities")


@pytest.mark.parametrize(("data_kind", "model_kind"), list(itertools.product(KINDS, KINDS)))
def test_every_kind_of_hidden_units(backend, data_kind, model_kind):
    weights, bias, beta = random(33, 70), random(70), 0.7
    phases, given, expected = (states(65, 33), states(34, 33, seed=2)), [], []
    for number, (visible, kind) in enumerate(zip(phases, (data_kind, model_kind), strict=True)):
        hidden = torch.sigmoid(random(len(visible), 70, seed=3 + number))
        hidden = (hidden < 0.6).to(torch.uint8) if kind == "states" else hidden
        given.append(None if kind == "computed" else hidden)
        computed = hidden_probabilities(visible, weights.double(), bias.double(), beta)
        expected.append(statistics(visible, computed if kind == "computed" else hidden.double()))
    found = log_likelihood_gradient(
        *phases, weights, bias, beta, data_hidden=given[0], model_hidden=given[1], backend=backend
    )
    require_close(found, [a - b for a, b in zip(*expected, strict=True)])


def test_against_enumeration(backend):
    """Model states occur in proportion to their probabilities, up to rounding, which bounds the error."""
    machine = Machine(random(6, 4), random(6, seed=1), random(4, seed=2))
    visible, data = all_units(6, DEVICE), states(50, 6)
    wide = machine.double()
    field = wide.hidden_bias + visible.double() @ wide.weights
    log_weight = visible.double() @ wide.visible_bias + torch.nn.functional.softplus(field).sum(1)
    p = torch.softmax(log_weight, 0)
    assert torch.logsumexp(log_weight, 0).item() == pytest.approx(log_partition(machine).item(), rel=1e-12)
    counts = (8_000 * p).round().long()
    model = visible.repeat_interleave(counts, 0)
    found = log_likelihood_gradient(data, model, machine.weights, machine.hidden_bias, backend=backend)
    rounding = float((counts / counts.sum() - p).abs().sum())
    require_close(found, exact_gradient(machine, data), tolerance=rounding + 3e-6)
    assert found.weights.abs().max() > 8 * rounding


def test_the_exact_gradient_is_the_slope_of_the_log_likelihood():
    machine, data = Machine(random(4, 5), random(4, seed=1), random(5, seed=2)).double(), states(30, 4)
    parameters = [part.clone().requires_grad_() for part in machine]
    beta, v = 0.6, data.double()

    def score(visible):
        field = parameters[2] + visible @ parameters[0]
        return beta * visible @ parameters[1] + torch.nn.functional.softplus(beta * field).sum(1)

    value = score(v).mean() - torch.logsumexp(score(all_units(4, DEVICE).double()), 0)
    likelihood = log_likelihood(Machine(*parameters), data, beta)
    assert likelihood.item() == pytest.approx(value.item(), rel=1e-12)
    for each in (value, likelihood):
        slopes = torch.autograd.grad(each, parameters)
        for exact, slope in zip(exact_gradient(machine, data, beta), slopes, strict=True):
            torch.testing.assert_close(beta * exact, slope, rtol=1e-10, atol=1e-12)
    turned = Machine(machine.weights.t(), machine.hidden_bias, machine.visible_bias)
    torch.testing.assert_close(log_partition(turned, beta), log_partition(machine, beta), rtol=1e-13, atol=0)


@pytest.mark.parametrize("chains", [(3, 3), (700, 901)])
def test_repeated_calls_give_the_same_bits_and_equal_phases_give_zero(backend, chains):
    """With few chains, and with chains split into parts."""
    data, model, weights, bias = states(chains[0], 20), states(chains[1], 20, seed=5), random(20, 30), random(30)
    first = log_likelihood_gradient(data, model, weights, bias, backend=backend)
    second = log_likelihood_gradient(data, model, weights, bias, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    nothing = log_likelihood_gradient(data, data.clone(), weights, bias, backend=backend)
    assert all(not part.any() for part in nothing)
    assert all(part.any() for part in first)


@pytest.mark.skipif(dispatch.unavailable("native", DEVICE) is not None, reason="no native kernels")
def test_native_bits_do_not_depend_on_threads():
    arguments = states(70, 300, seed=1), states(41, 300, seed=2), random(300, 37), random(37)
    found = []
    for number in (1, 3):
        with threads(number):
            found.append(log_likelihood_gradient(*arguments, backend="native"))
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


def test_parts_cover_all_chains():
    for data, model, tiles, step in itertools.product((1, 31, 700, 8192), (1, 64, 901), (1, 4, 200), (32, 256)):
        split = split_chains(data, model, tiles, step)
        assert (split.parts - 1) * max(split.data_chains, split.model_chains) < max(data, model)
        assert split.parts * split.data_chains >= data
        assert split.parts * split.model_chains >= model
        assert split.parts == 1 or tiles * split.parts <= 128


def test_strides_and_edges(backend):
    data, model, weights, bias = states(10, 7), states(6, 7, seed=5), random(7, 5), random(5)
    plain = log_likelihood_gradient(data, model, weights, bias, backend=backend)
    turned = log_likelihood_gradient(
        data.t().contiguous().t(), model.repeat_interleave(2, 1)[:, ::2], weights.t().contiguous().t(),
        bias.repeat_interleave(2)[::2], backend=backend,
    )  # fmt: skip
    for a, b in zip(plain, turned, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    no_hidden = log_likelihood_gradient(data, model, weights[:, :0], bias[:0], backend=backend)
    assert no_hidden.weights.shape == (7, 0)
    torch.testing.assert_close(no_hidden.visible_bias, plain.visible_bias)
    no_visible = log_likelihood_gradient(data[:, :0], model[:, :0], weights[:0], bias, backend=backend)
    assert no_visible.hidden_bias.abs().max() < 1e-6, "both phases have the same probabilities"
    hidden = states(10, 5, seed=7), states(6, 5, seed=8)
    given = log_likelihood_gradient(data, model, data_hidden=hidden[0], model_hidden=hidden[1], backend=backend)
    expected = [
        a - b
        for a, b in zip(
            *(statistics(v, h.double()) for v, h in zip((data, model), hidden, strict=True)), strict=True
        )
    ]  # fmt: skip
    require_close(given, expected)


def test_wrong_arguments_are_named(backend):
    data, model, weights, bias = states(10, 7), states(6, 7, seed=5), random(7, 5), random(5)
    run = lambda *args, **more: log_likelihood_gradient(*args, backend=backend, **more)  # noqa: E731
    for arguments, more, error, words in (
        ((data.float(), model, weights, bias), {}, TypeError, "data must have dtype"),
        ((data, model[:, :6], weights, bias), {}, ValueError, "model must have 7 visible units"),
        ((data, model[:0], weights, bias), {}, ValueError, "model must hold at least one chain"),
        ((data, model), {}, ValueError, "weights and hidden_bias are needed to compute data_hidden"),
        ((data, model, weights.t(), bias), {}, ValueError, "weights must have shape"),
        ((data, model, weights, bias, math.nan), {}, ValueError, "beta must be finite and positive"),
        ((data, model, weights, bias), {"model_hidden": states(10, 5)}, ValueError, "model_hidden must have shape"),
        ((data, model, weights, bias), {"data_hidden": random(10, 5)}, ValueError, r"data_hidden must lie in \[0, 1\]"),
        ((data + 1, model, weights, bias), {}, ValueError, "data must hold only 0 and 1"),
        ((data, model, weights, bias / 0), {}, ValueError, "hidden_bias must be finite"),
    ):
        with pytest.raises(error, match=words):
            run(*arguments, **more)
    found = run(data, model, weights, bias)
    with pytest.raises(ValueError, match=r"out\.hidden_bias must not share memory with hidden_bias"):
        run(data, model, weights, bias, out=found._replace(hidden_bias=bias))
    with pytest.raises(ValueError, match=r"out\.visible_bias must have shape"):
        run(data, model, weights, bias, out=found._replace(visible_bias=bias))


def test_triton_rejects_too_many_units():
    triton_kernels = pytest.importorskip("boltzbench.kernels.rbm_gradient.triton_kernels")
    states = torch.zeros((1, triton_kernels.MOST_UNITS + 1), dtype=torch.uint8, device=DEVICE)
    hidden = states[:, :1].contiguous()
    with pytest.raises(ValueError, match=r"^data must have at most"):
        log_likelihood_gradient(states, states, data_hidden=hidden, model_hidden=hidden, backend="triton")


@pytest.mark.parametrize("backend", [_backend("torch"), _backend("native")])
def test_many_chains_do_not_add_up_rounding(backend):
    """A sum of 200,000 probabilities in order is off by 6e-4: as many roundings as there are chains, all one way."""
    data, model = states(200_000, 10), 1 - states(200_000, 10, seed=2)
    weights, bias = random(10, 8), random(8)
    of_data, of_model = (
        statistics(each, hidden_probabilities(each, weights.double(), bias.double(), 1.0)) for each in (data, model)
    )
    found = log_likelihood_gradient(data, model, weights, bias, backend=backend)
    for got, one, two in zip(found, of_data, of_model, strict=True):
        torch.testing.assert_close(got.double(), one - two, rtol=0, atol=5e-6)
