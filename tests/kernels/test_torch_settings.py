"""What a program sets in torch, and its threads, change no result: default dtype, default device, autocast."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

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
def other_defaults() -> Iterator[None]:
    """float64, and a device where a tensor that is made there by mistake has no numbers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {"defaults": other_defaults, "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16)}


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


@pytest.mark.parametrize("backend", [*BACKENDS, "triton", "cupy"])
def test_threads_at_the_same_time_get_the_results_of_one(backend):
    if dispatch.unavailable(backend, torch.device("cpu")):
        pytest.skip("cannot run here")
    calls = [CALLS["sgld.update.sgld_update"], CALLS["parallel_tempering.exchange.swap_replicas"]]
    expected = [bits(call.run(backend)) for call in calls]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(lambda number: bits(calls[number % 2].run(backend)), range(6)))
    finally:
        sys.setswitchinterval(interval)
    assert found == 3 * expected
