"""`torch.compile` of functions with a second value of a number, which it then traces as a variable."""

import math

import pytest
import torch
from boltzbench.kernels.enumeration import log_partition, rbm_log_partition
from boltzbench.kernels.generalised_cross_entropy import generalised_cross_entropy
from boltzbench.kernels.logsumexp import logsumexp
from boltzbench.kernels.rbm_free_energy import free_energy
from boltzbench.kernels.sgld import psgld_update, sghmc_update, sgld_update
from support.number_calls import units, weights

LABELS = torch.tensor([0, 2, 1, 2])
PLACE = {"seed": 7, "step": 3}


def log_z(x, beta):
    return logsumexp(x, 1, beta)


def loss(x, q):
    return generalised_cross_entropy(x, LABELS, q)


def free_energies(x, beta):
    return free_energy(units(5, 4), x, x[:, 0].contiguous(), x[0].contiguous(), beta, check_values=False)


def log_z_of_layers(x, beta):
    return rbm_log_partition(x, x[:, 0].contiguous(), x[0].contiguous(), beta, check_values=False)


def log_z_of_couplings(x, beta):
    return log_partition(torch.ones(4, 4) - torch.eye(4), x[:, 0].contiguous(), beta, check_values=False)


def sgld(x, step_size):
    y = x.clone()
    sgld_update(y, x, step_size, 0.5, **PLACE)
    return y


def psgld(x, step_size):
    y, squares = x.clone(), x.square()
    psgld_update(y, x, squares, step_size, 0.5, **PLACE)
    return y + squares


def sghmc(x, step_size):
    y, momenta = x.clone(), x.square()
    sghmc_update(y, x, momenta, step_size, 0.5, **PLACE)
    return y + momenta


FUNCTIONS = (log_z, loss, sgld, psgld, sghmc, free_energies, log_z_of_layers, log_z_of_couplings)
NAMES = {sgld: "step_size", psgld: "step_size", sghmc: "step_size", loss: "q"}  # others: beta


def compiled(function, dynamic):
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)


@pytest.mark.parametrize(
    ("function", "dynamic"), [*((each, True) for each in FUNCTIONS), *((each, None) for each in FUNCTIONS[:5])]
)
def test_other_numbers_run_or_are_refused(function, dynamic):
    x, run = weights(4, 3), compiled(function, dynamic)
    for number in (0.25, 0.5, 0.75, 1.0):
        assert torch.equal(run(x, number), function(x, number))
    wrong = [math.nan, math.inf, *([] if function is log_z else [-1.0]), *([0.0] if function is free_energies else [])]
    for number in wrong:
        with pytest.raises(ValueError, match=rf"^{NAMES.get(function, 'beta')} must"):
            run(x, number)


@pytest.mark.parametrize("function", [log_z, loss])
def test_gradients_with_other_numbers(function):
    run = compiled(function, None)
    for number in (0.25, 0.5, 0.75):
        x, y = (weights(4, 3).requires_grad_() for _ in "12")
        run(x, number).sum().backward()
        function(y, number).sum().backward()
        assert torch.equal(x.grad, y.grad)


def test_a_check_that_cannot_be_traced_is_rejected():
    def finite(x, beta):
        if not math.isfinite(beta):
            raise ValueError("beta must be finite")
        return x * beta

    run = compiled(finite, True)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        run(weights(4, 3), 0.25)
