"""What a program sets in torch changes no result: the default dtype, the default device, autocast."""

from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from boltzbench.kernels import rbm_gibbs
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.generalised_cross_entropy import generalised_cross_entropy
from boltzbench.kernels.ising import units_of
from boltzbench.kernels.rbm_free_energy import free_energy, free_energy_reference
from boltzbench.kernels.rbm_gradient import hidden_probabilities, statistics
from support import number_calls
from support.number_calls import units, weights
from torch.utils._pytree import tree_leaves

CALLS = number_calls.calls()
BACKENDS = ("torch", "native")
W, B, C, V = weights(9, 7), weights(9), weights(7), units(6, 9)
LOGITS, LABELS = weights(2, 5), torch.tensor([1, 2])
BONDS = (W[:7] + W[:7].t()).fill_diagonal_(0)


@contextmanager
def default_dtype(dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def autocast() -> AbstractContextManager:
    return torch.autocast("cpu", dtype=torch.bfloat16)


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "device": lambda: torch.device("meta"),  # a tensor made there by mistake has no numbers
    "autocast": autocast,
}


def bits(result: object) -> list[object]:
    tensors = [leaf.detach() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return [(x.dtype, x.device, tuple(x.shape), x.contiguous().numpy().tobytes()) for x in tensors if x.is_cpu] + [
        x.device for x in tensors if not x.is_cpu
    ]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", CALLS)
def test_no_setting_changes_a_result(name, setting):
    call = CALLS[name]
    for backend in BACKENDS if call.has_backend else (None,):
        if backend and dispatch.unavailable(backend, torch.device("cpu")):
            continue
        expected = bits(call.run(backend))
        with SETTINGS[setting]():
            assert bits(call.run(backend)) == expected, backend


def gradients(function, *inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    result = function(*inputs)
    return [result, *torch.autograd.grad(result.sum(), inputs)]


FORMULAS = {
    "loss of smoothed labels": lambda: gradients(
        lambda z: generalised_cross_entropy(z, LABELS, 0.0, label_smoothing=0.1), LOGITS
    ),
    "loss under vmap": lambda: torch.func.vmap(generalised_cross_entropy)(LOGITS, LABELS),
    "free energy": lambda: gradients(lambda w, b, c: free_energy(V, w, b, c), W, B, C),
    "free energy in forward mode": lambda: torch.func.jvp(lambda w: free_energy(V, w, B, C), (W,), (W,)),
    "reference of the free energy": lambda: free_energy_reference(V, W, B, C, 1.0),
    "hidden probabilities": lambda: hidden_probabilities(V, W, C, 1.0),
    "statistics": lambda: statistics(V, hidden_probabilities(V, W, C, 1.0)),
    "probabilities": lambda: rbm_gibbs.probabilities(V, W, C, 1.0),
    "energy of units": lambda: units_of(BONDS, C).energy(V[:, :7]),
    "reals of a Gaussian machine": lambda: rbm_gibbs.gaussian_gibbs(V.float(), W, B, C, B.abs() + 0.5, seed=7),
}
"""What the calls above leave out."""


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", FORMULAS)
def test_no_setting_changes_a_formula(name, setting):
    expected = bits(FORMULAS[name]())
    with SETTINGS[setting]():
        assert bits(FORMULAS[name]()) == expected
