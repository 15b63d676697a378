"""Prepared weights: their parts, errors for wrong ones, and draws in each precision on each backend."""

import dataclasses
import math

import pytest
import torch
from boltzbench.kernels import emulator
from boltzbench.kernels.philox import Stream
from boltzbench.kernels.rbm_gibbs import GibbsResult, draw_uniforms, gibbs, prepare_weights
from boltzbench.kernels.rbm_gibbs.reference import half_sweep as reference_half_sweep
from boltzbench.kernels.rbm_gibbs.request import LaunchRequest
from boltzbench.kernels.rbm_gibbs.states import aligned_rows
from boltzbench.kernels.rbm_gibbs.tensor_cores.half_sweeps import matrix_half_sweep
from boltzbench.kernels.rbm_gibbs.tensor_cores.tiles import TILES
from boltzbench.plugins.operations.machines.rbm_gibbs import _Layer
from operations.rbm_gibbs.machines import BACKENDS, DEVICE, NEEDS_CUPY, SPLIT, model

# ---- the parts


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("visible_units", "hidden_units"), [(1, 1), (17, 100), (784, 500), (0, 5), (5, 0)])
def test_parts_add_up_to_the_weights(visible_units, hidden_units, transposed):
    weights = model(1, visible_units, hidden_units)[1]
    weights[::3] *= 2.0**-20
    if transposed:
        weights = weights.t()
    for precision in SPLIT:
        prepared = prepare_weights(weights, precision)
        for operand, matrix in ((prepared.to_hidden, weights.t()), (prepared.to_visible, weights)):
            units, given = matrix.shape
            assert operand.parts.shape[1] % 128 == operand.parts.shape[2] % 64 == 0
            whole = operand.parts.double().sum(0)
            if precision == "int8x3":
                numbers = operand.numbers()
                assert numbers.abs().max() <= 0x7F7F7F if numbers.numel() else True
                whole = numbers * operand.scale.double()[:, None]
            assert not whole[units:].any()
            assert not whole[:, given:].any()
            error = (whole[:units, :given] - matrix.double()).abs()
            if precision == "bf16":
                assert (error <= 2.0**-8 * matrix.abs()).all()
                assert torch.equal(operand.parts[0, :units, :given], matrix.to(torch.bfloat16))
            elif precision == "bf16x3":
                assert not error.any()
            elif error.numel():
                assert (error <= 1.004 * 2.0**-23 * matrix.double().abs().amax(1, keepdim=True)).all()


def test_digits_at_the_ends_of_the_range():
    tiny, huge = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
    weights = torch.tensor([[huge, 1.0, 0.0, tiny, 2.0**-149, -0.999, 0.9999999, 1.0 + 2.0**-23]], device=DEVICE)
    operand = prepare_weights(torch.cat((weights, -weights)), "int8x3").to_hidden
    whole = operand.numbers()[:8, :2] * operand.scale[:8].double()[:, None]
    torch.testing.assert_close(whole[:, 0], weights[0].double(), rtol=2.0**-22, atol=0)
    assert torch.equal(whole[:, 0], -whole[:, 1])


def test_errors_of_prepare_weights():
    weights = model(1, 5, 4)[1]
    for value, message in (
        (weights.double(), "^weights must have dtype"),
        (weights.tolist(), "^weights must be a torch tensor"),
        (weights[0], "^weights must have shape"),
        (weights.index_fill(0, torch.tensor([1], device=DEVICE), math.nan), "^weights must be finite"),
        (weights.index_fill(0, torch.tensor([1], device=DEVICE), -math.inf), "^weights must be finite"),
        (weights[:1].expand(65537, 4), "^weights must have at most 65536 units"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            prepare_weights(value, "int8x3")
    with pytest.raises(ValueError, match=r"^weights must have at most 16777216 units"):
        prepare_weights(weights[:1].expand((1 << 24) + 1, 4), "bf16")
    with pytest.raises(ValueError, match=r"^precision must be one of"):
        prepare_weights(weights, "fp8")
    with pytest.raises(ValueError, match=r"^weights must lie within the range of bfloat16"):
        prepare_weights(torch.full((2, 2), 3.4e38, device=DEVICE), "bf16x3")


def test_errors_for_prepared_weights_that_do_not_match():
    visible, weights, b, c = model(6, 5, 4)
    prepared = prepare_weights(weights, "bf16x3")
    gibbs(visible, prepared, b, c, seed=1, precision="bf16x3")
    for wanted in ("float32", "int8x3"):
        with pytest.raises(ValueError, match=r"^precision must be that of the weights, bf16x3"):
            gibbs(visible, prepared, b, c, seed=1, precision=wanted)
    with pytest.raises(ValueError, match=r"^precision must be one of"):
        gibbs(visible, prepared, b, c, seed=1, precision="tf32")
    with pytest.raises(ValueError, match=r"^precision must be that of the weights, float32"):
        gibbs(visible, weights, b, c, seed=1, precision="bf16x3")
    with pytest.raises(ValueError, match=r"^weights must have shape \(6"):
        gibbs(torch.zeros(6, 6, dtype=torch.uint8, device=DEVICE), prepared, b, c, seed=1)
    with pytest.raises(ValueError, match=r"^hidden_bias must have shape"):
        gibbs(visible, prepared, b, b, seed=1)
    with pytest.raises(ValueError, match=r"^visible must hold only"):
        gibbs(visible + 2, prepared, b, c, seed=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        prepared.precision = "bf16"
    weights.t()[0] += 1.0
    with pytest.raises(ValueError, match=r"^weights must not be written to after prepare_weights"):
        gibbs(visible, prepared, b, c, seed=1)
    gibbs(visible, prepare_weights(weights, "bf16x3"), b, c, seed=1)


def test_prepared_float32_is_the_plain_matrix():
    visible, weights, b, c = model(6, 5, 4)
    plain = gibbs(visible, weights, b, c, 3, seed=1, precision="float32")
    assert torch.equal(gibbs(visible, prepare_weights(weights, "float32"), b, c, 3, seed=1).visible, plain.visible)


# ---- draw by draw


def require_draws(result, visible, weights, b, c, beta, seed, step, first_chain, precision):
    """The draws lie within the bounds of the plugin's check."""
    inputs = {"weights": weights, "visible_bias": b, "hidden_bias": c, "beta": beta, "precision": precision}
    for stream, given, states in (
        (Stream.HIDDEN, visible, result.hidden),
        (Stream.VISIBLE, result.hidden, result.visible),
    ):
        p, width = _Layer(inputs, stream).probabilities(given)
        u = draw_uniforms(p.shape, seed, step, stream, first_chain, DEVICE).double()
        near = (u - p).abs() <= width
        assert not ((states.bool() != (u < p)) & ~near).any()
        assert near.sum() <= 5 + 8 * width.sum()  # the expected number is twice the sum of the widths
    p, width = _Layer(inputs, Stream.HIDDEN).probabilities(result.visible)
    assert ((result.hidden_probability.double() - p).abs() <= width).all()


@pytest.mark.parametrize("size", [(1, 1, 1), (17, 100, 17), (130, 17, 100), (3, 784, 500)], ids=str)
@pytest.mark.parametrize("precision", SPLIT)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sweep_draw_by_draw(backend, precision, size):
    visible, weights, b, c = model(*size)
    result = gibbs(
        visible, prepare_weights(weights, precision), b, c, 1, 0.8, seed=2**63 + 5, first_sweep=7, first_chain=3,
        return_hidden_probability=True, backend=backend,
    )  # fmt: skip
    require_draws(result, visible, weights, b, c, 0.8, 2**63 + 5, 7, 3, precision)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_can_be_split(dtype):
    visible, weights, b, c = model(9, 40, 21, dtype=dtype)
    results = [
        gibbs(visible, prepare_weights(weights, "int8x3"), b, c, 2, seed=3, backend=backend) for backend in BACKENDS
    ]
    plain = gibbs(visible, weights, b, c, 2, seed=3)
    assert all(torch.equal(result.visible, plain.visible) for result in results)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["float32", *SPLIT])
def test_each_chain_has_its_own_beta(backend, precision):
    visible, weights, b, c = model(40, 33, 18)
    prepared = prepare_weights(weights, precision)
    betas = torch.tensor([0.0, 0.3, 1.0, 2.5], dtype=torch.float64, device=DEVICE).repeat(10)
    mixed = gibbs(visible, prepared, b, c, 2, betas, seed=3, return_hidden_probability=True, backend=backend)
    for beta in betas[:4].tolist():
        alone = gibbs(visible, prepared, b, c, 2, beta, seed=3, return_hidden_probability=True, backend=backend)
        own = betas == beta
        for one, other in zip(mixed, alone, strict=True):
            assert torch.equal(one[own], other[own])
    assert not torch.equal(mixed.hidden, alone.hidden)


@pytest.mark.parametrize(
    ("beta", "error"),
    [
        (torch.ones(39), ValueError),
        (torch.ones(40, 1), ValueError),
        (torch.ones(40, dtype=torch.int64), TypeError),
        (torch.full((40,), -1.0), ValueError),
        (torch.full((40,), math.nan), ValueError),
    ],
)
def test_errors_name_a_wrong_beta(beta, error):
    visible, weights, b, c = model(40, 5, 4)
    with pytest.raises(error, match=r"^beta must"):
        gibbs(visible, weights, b, c, 1, beta.to(DEVICE), seed=3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", SPLIT)
def test_clamped_units_and_an_out_argument(backend, precision):
    """Kernels read and write aligned rows of 48 units in place, and rows of 37 units through a copy."""
    for visible_units in (37, 48):
        visible, weights, b, c = model(67, visible_units, 11)
        prepared = prepare_weights(weights, precision)
        held = torch.rand(67, visible_units, generator=torch.Generator().manual_seed(4)).to(DEVICE) < 0.4
        out = GibbsResult(
            *(torch.full((67, n), 255, dtype=torch.uint8, device=DEVICE) for n in (visible_units, 11)), None
        )
        for clamped in (held, held.t().contiguous().t(), held[0]):
            result = gibbs(visible, prepared, b, c, 2, seed=3, clamped=clamped, out=out, backend=backend)
            expected = gibbs(visible, prepared, b, c, 2, seed=3, clamped=clamped, backend="torch")
            assert result.visible.data_ptr() == out.visible.data_ptr()
            assert torch.equal(result.visible, expected.visible)
            assert torch.equal(result.hidden, expected.hidden)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", SPLIT)
def test_certain_units_are_certain(backend, precision):
    visible, weights, _, _ = model(50, 8, 6)
    signs = torch.tensor([1.0, -1.0], device=DEVICE)
    for size in (100.0, 1e4, 3e38):
        b, c = size * signs.repeat(4), size * signs.repeat(3)
        result = gibbs(visible, prepare_weights(weights, precision), b, c, 2, 2.0, seed=6, backend=backend)
        assert torch.equal(result.visible, (b > 0).to(torch.uint8).expand(50, 8))
        assert torch.equal(result.hidden, (c > 0).to(torch.uint8).expand(50, 6))


# ---- digits of int8: seed and weights determine every state


@pytest.mark.parametrize("size", [(1, 1, 1), (70, 100, 33), (130, 17, 65)], ids=str)
def test_backends_agree_bit_for_bit_in_int8x3(size):
    """Also at a temperature and with biases where float32 is often too near a tie to decide."""
    visible, weights, b, c = model(*size)
    for beta, bias in ((0.7, 1.0), (30.0, 1.0), (1e-3, 1e4)):
        results = [
            gibbs(visible, prepare_weights(weights, "int8x3"), bias * b, bias * c, 2, beta, seed=9, backend=backend)
            for backend in BACKENDS
        ]
        for result in results[1:]:
            assert torch.equal(result.visible, results[0].visible)
            assert torch.equal(result.hidden, results[0].hidden)


def _half(precision):
    given, weights, _, bias = model(150, 100, 70)
    operand = prepare_weights(weights, precision).to_hidden
    given = aligned_rows(given).copy_(given)
    out = aligned_rows(torch.full((150, 70), 9, dtype=torch.uint8, device=DEVICE))
    return LaunchRequest(given, operand, bias, out, 1.0, 5, 2, Stream.HIDDEN, 4)


@NEEDS_CUPY
@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("precision", SPLIT)
def test_every_tile_and_order_of_threads_draws_the_same(precision, order):
    expected = _half(precision)
    reference_half_sweep(expected)
    for tile in TILES[precision]:
        half = _half(precision)
        with emulator.schedule(order):
            matrix_half_sweep(half, tile)
        assert torch.equal(half.out, expected.out), tile
        padding = half.out.as_strided((150, 10), (80, 1), 70)
        assert not padding.any()


@pytest.mark.skipif("triton" not in BACKENDS or DEVICE.type != "cpu", reason="sets tiles of the interpreter")
@pytest.mark.parametrize(("chains", "units", "given"), [(64, 32, 64), (256, 128, 32)])
def test_every_triton_tile_draws_the_same(monkeypatch, chains, units, given):
    from boltzbench.kernels.rbm_gibbs import triton_kernels
    from boltzbench.kernels.rbm_gibbs.tensor_cores import triton_tile

    expected, half = _half("int8x3"), _half("int8x3")
    reference_half_sweep(expected)
    monkeypatch.setattr(triton_tile, "MOST_INTERPRETED", chains * units)
    monkeypatch.setattr(triton_kernels, "MATRIX_GIVEN", given)
    monkeypatch.setitem(triton_kernels.MATRIX_UNITS, "int8x3", units)
    triton_kernels.half_sweep(half)
    assert torch.equal(half.out, expected.out)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_split_batch_draws_the_same(backend):
    visible, weights, b, c = model(71, 17, 9)
    prepared = prepare_weights(weights, "int8x3")
    whole = gibbs(visible, prepared, b, c, 2, seed=8, backend=backend)
    for cut in (1, 64):
        parts = [
            gibbs(part, prepared, b, c, 2, seed=8, first_chain=first, backend=backend)
            for part, first in ((visible[:cut], 0), (visible[cut:], cut))
        ]
        assert torch.equal(whole.visible, torch.cat([part.visible for part in parts]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_decides_ties_of_float32(backend):
    """Weights of 0, and biases at the logits of the uniforms: every draw is as near a tie as float32 allows."""
    chains, units = 64, 48
    u = draw_uniforms(torch.Size((chains, units)), 5, 0, Stream.HIDDEN, 0, DEVICE).double()[0]
    bias = torch.log(u / (1 - u)).float()
    expected = u * (1 + torch.exp(-bias.double())) < 1
    assert 10 < expected.sum() < 38
    visible = torch.zeros(chains, 4, dtype=torch.uint8, device=DEVICE)
    weights = torch.zeros(4, units, device=DEVICE)
    result = gibbs(visible, prepare_weights(weights, "int8x3"), bias.new_zeros(4), bias, seed=5, backend=backend)
    assert torch.equal(result.hidden[0].bool(), expected)
