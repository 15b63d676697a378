"""The free energy on all backends: against a sum over hidden states, at large fields, with strides."""

import math

import pytest
import torch
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.rbm_free_energy import free_energy
from boltzbench.plugins.exact.states import all_units
from support.devices import DEVICE
from support.threads import threads

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def _backend(name):
    reason = dispatch.unavailable(name, DEVICE)
    return pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


@pytest.fixture(params=[_backend(name) for name in dispatch.backends_of("boltzbench.kernels.rbm_free_energy")])
def backend(request):
    return request.param


def machine(visible, hidden, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)
        for shape in ((visible, hidden), (visible,), (hidden,))
    )


def states(chains, units, seed=1):
    return (torch.rand(chains, units, generator=torch.Generator().manual_seed(seed)) < 0.5).to(torch.uint8).to(DEVICE)


def enumerated(visible, weights, visible_bias, hidden_bias, beta):
    """``-(1/beta) log sum_h exp(-beta E(v, h))`` over all hidden states."""
    v, h = visible.double(), all_units(len(hidden_bias), DEVICE).double()
    energy = -(v @ visible_bias.double())[:, None] - (h @ hidden_bias.double()) - v @ weights.double() @ h.t()
    return -torch.logsumexp(-beta * energy, 1) / beta


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_the_hidden_units_are_summed_out(backend, dtype, beta):
    parameters, visible = machine(11, 7, dtype), states(40, 11)
    found = free_energy(visible, *parameters, beta, backend=backend)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), enumerated(visible, *parameters, beta), rtol=1e-6, atol=3e-6 / beta)


def test_a_beta_for_each_chain(backend):
    parameters, visible = machine(5, 70), states(9, 5)
    betas = torch.linspace(0.2, 4.0, 9, device=DEVICE)
    together = free_energy(visible, *parameters, betas, backend=backend)
    one_by_one = [
        free_energy(v[None], *parameters, float(beta), backend=backend) for v, beta in zip(visible, betas, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(one_by_one), rtol=1e-6, atol=1e-5)
    assert len(set(together.tolist())) == 9


def test_both_layers_give_the_same_partition_function(backend):
    weights, b, c = machine(6, 9)
    log_z = torch.logsumexp(-free_energy(all_units(6, DEVICE), weights, b, c, backend=backend).double(), 0)
    turned = torch.logsumexp(-free_energy(all_units(9, DEVICE), weights.t(), c, b, backend=backend).double(), 0)
    assert log_z.item() == pytest.approx(turned.item(), abs=1e-5)


@pytest.mark.parametrize("size", [90.0, 1e4, 1e30])
def test_large_fields(backend, size):
    """Softplus is its argument for large arguments and 0 far below zero; products of its terms do not overflow."""
    weights = torch.full((1, 130), size, device=DEVICE)
    weights[:, 65:] = -size
    zero = torch.zeros(131, device=DEVICE)
    visible = torch.tensor([[1], [0]], dtype=torch.uint8, device=DEVICE)
    found = free_energy(visible, weights, zero[:1], zero[:130], backend=backend).tolist()
    assert found == pytest.approx([-65 * size, -130 * math.log(2)], rel=1e-6)


def test_strided_arguments_and_repeated_calls(backend):
    (weights, b, c), visible = machine(40, 70), states(21, 40)
    plain = free_energy(visible, weights, b, c, backend=backend)
    again = free_energy(visible, weights, b, c, backend=backend)
    assert torch.equal(plain, again)
    wide = torch.stack((weights, -weights), -1)
    for v, w in (
        (visible.t().contiguous().t(), weights.t().contiguous().t()),
        (visible.repeat_interleave(3, 1)[:, ::3], wide[:, :, 0]),
    ):
        assert torch.allclose(free_energy(v, w, b, c, backend=backend), plain, rtol=1e-6)
    row = visible[:1].expand(21, 40)
    assert torch.allclose(free_energy(row, weights, b, c, backend=backend), plain[:1].expand(21), rtol=1e-6)


@pytest.mark.skipif(dispatch.unavailable("native", DEVICE) is not None, reason="no native kernels")
def test_native_bits_do_not_depend_on_threads_or_batches():
    parameters, visible = machine(77, 70), states(300, 77)
    found = []
    for number in (1, 3):
        with threads(number):
            found.append(free_energy(visible, *parameters, backend="native"))
    found.append(torch.cat([free_energy(part, *parameters, backend="native") for part in visible.split(13)]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_empty_and_single(backend):
    (weights, b, c), none = machine(4, 3), states(0, 4)
    assert free_energy(none, weights, b, c, backend=backend).shape == (0,)
    visible = states(5, 4)
    found = free_energy(visible, weights[:, :0], b, c[:0], backend=backend)
    torch.testing.assert_close(found, -(visible.float() @ b), rtol=1e-6, atol=1e-6)
    found = free_energy(visible[:, :0], weights[:0], b[:0], c, backend=backend)
    expected = -torch.nn.functional.softplus(c).sum()
    torch.testing.assert_close(found, expected.expand(5), rtol=1e-6, atol=1e-6)


def test_wrong_arguments_are_named(backend):
    (weights, b, c), visible = machine(4, 3), states(5, 4)
    run = lambda *args, **more: free_energy(*args, backend=backend, **more)  # noqa: E731
    for arguments, error, words in (
        ((visible.float(), weights, b, c), TypeError, "visible must have dtype"),
        ((visible, weights.t(), b, c), ValueError, "weights must have shape"),
        ((visible, weights, c, c), ValueError, "visible_bias must have shape"),
        ((visible, weights, b, b), ValueError, "hidden_bias must have shape"),
        ((visible, weights, b, c.double()), TypeError, "hidden_bias must have dtype"),
        ((visible, weights, b, c, 0.0), ValueError, "beta must be finite and positive"),
        ((visible, weights, b, c, torch.ones(4, device=DEVICE)), ValueError, "beta must be a number or have shape"),
        ((visible, weights, b, c, torch.zeros(5, device=DEVICE)), ValueError, "beta must be finite and positive"),
        ((visible + 1, weights, b, c), ValueError, "visible must hold only 0 and 1"),
        ((visible, weights * math.inf, b, c), ValueError, "weights must be finite"),
    ):
        with pytest.raises(error, match=words):
            run(*arguments)
    with pytest.raises(ValueError, match="out must have shape"):
        run(visible, weights, b, c, out=torch.empty(4, device=DEVICE))
    both = torch.zeros(9, device=DEVICE)
    with pytest.raises(ValueError, match="out must not share memory with visible_bias"):
        run(visible, weights, both[:4], c, out=both[2:7])
