"""Packed states: their layout, and that kernels draw the same states in bits as in bytes."""

import pytest
import torch
from boltzbench.kernels.rbm_gibbs import GibbsResult, gibbs, pack_states, prepare_weights, unpack_states
from operations.rbm_gibbs.machines import BACKENDS, DEVICE, SPLIT, model, some_units


@pytest.mark.parametrize("units", [0, 1, 63, 64, 65, 200])
def test_each_unit_is_one_bit(units):
    states = model(5, units, 0)[0]
    words = pack_states(states)
    assert words.shape == (5, (units + 63) // 64)
    for unit in range(units):
        assert torch.equal(words[:, unit // 64] >> unit % 64 & 1, states[:, unit].long())
    assert torch.equal(unpack_states(words, units), states)
    if units % 64:
        assert not (words[:, -1] >> units % 64).any()


@pytest.mark.parametrize("size", [(1, 1, 1), (70, 100, 17), (131, 17, 130)], ids=str)
@pytest.mark.parametrize("precision", SPLIT)
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_draws_match_bytes(backend, precision, size):
    """With a temperature for each chain and clamped units. The rows before and after the result stay unchanged."""
    visible, weights, b, c = model(*size)
    chains, visible_units, hidden_units = size
    clamped = some_units(visible.shape)
    betas = torch.linspace(0.2, 2.0, chains, dtype=torch.float64, device=DEVICE)
    given = (prepare_weights(weights, precision), b, c, 2, betas)
    rest = {"seed": 3, "first_chain": 5, "clamped": clamped, "return_hidden_probability": True, "backend": backend}
    plain = gibbs(visible, *given, **rest)
    words = [(units + 63) // 64 for units in (visible_units, hidden_units)]
    band = [torch.full((chains + 2, n), -77, device=DEVICE) for n in words]
    out = GibbsResult(*(x[1:-1] for x in band), torch.empty(chains, hidden_units, device=DEVICE))
    packed = gibbs(pack_states(visible), *given, **rest, out=out)
    assert torch.equal(packed.visible, pack_states(plain.visible))
    assert torch.equal(packed.hidden, pack_states(plain.hidden))
    assert torch.equal(packed.hidden_probability, plain.hidden_probability)
    assert all((x[[0, -1]] == -77).all() for x in band)
    if chains > 1:
        assert not torch.equal(plain.visible, visible)


def test_errors_name_wrong_packed_states():
    visible, weights, b, c = model(6, 70, 5)
    prepared, words = prepare_weights(weights, "int8x3"), pack_states(visible)
    good = gibbs(words, prepared, b, c, seed=1)
    beyond = words.clone()
    beyond[3, 1] |= 1 << 6
    for states, given, error, message in (
        (beyond, prepared, ValueError, "^visible must hold 0 beyond the last unit"),
        (-words.abs() - 1, prepared, ValueError, "^visible must hold 0 beyond the last unit"),
        (words[:, :1], prepared, ValueError, r"^visible must have shape \(chains, 2\)"),
        (words.to(torch.int32), prepared, TypeError, "^visible must have dtype uint8, int64"),
        (words, weights, TypeError, "^visible must have dtype uint8 for a plain matrix"),
        (words, prepare_weights(weights, "float32"), TypeError, "^visible must have dtype uint8 for a plain matrix"),
    ):
        with pytest.raises(error, match=message):
            gibbs(states, given, b, c, seed=1)
    with pytest.raises(TypeError, match=r"^out.visible must have dtype int64"):
        gibbs(words, prepared, b, c, seed=1, out=good._replace(visible=visible))
    with pytest.raises(ValueError, match=r"^out.hidden must have shape \(6, 1\)"):
        gibbs(words, prepared, b, c, seed=1, out=good._replace(hidden=words.clone()))
    with pytest.raises(ValueError, match=r"^words must have shape \(chains, 2\)"):
        unpack_states(words[:, :1], 70)
