"""Every public function names the argument of which it refuses the type, the layout, the shape or the values."""

import math
import re

import pytest
import torch
from boltzbench.kernels import ais, boltzmann_gibbs, parallel_tempering, rbm_gibbs, rbm_training, sgld, spin_glass
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.draws import normal_draws
from boltzbench.kernels.generalised_cross_entropy import generalised_cross_entropy_forward
from boltzbench.kernels.ising import Slab, ising_sweeps, pack_spins, units_of, unpack_spins
from boltzbench.kernels.machines.states import random_spins
from boltzbench.kernels.philox import Stream, fractions, philox4x32, random_words
from boltzbench.kernels.rbm_free_energy import free_energy
from boltzbench.kernels.rbm_gradient import log_likelihood_gradient
from boltzbench.kernels.thermodynamics import thermodynamics
from support import number_calls
from support.number_calls import units, weights

CALLS = number_calls.calls()
KINDS = {
    "list": lambda x: x.tolist(),
    "str": lambda x: "tensor",
    "int": lambda x: 3,
    "sparse": torch.Tensor.to_sparse,
    "complex": lambda x: x.to(torch.complex64),
}
OF_ANY_DTYPE = {"rbm_training.minibatch"}
"""Functions that only index a tensor."""
CPU = torch.device("cpu")
BETAS = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
W, B, C, V = weights(9, 7), weights(9), weights(7), units(6, 9)
BONDS = (W[:7] + W[:7].t()).fill_diagonal_(0)
UNITS = boltzmann_gibbs.prepare_units(BONDS, C)


def tensor_arguments():
    for name, call in CALLS.items():
        for argument, value in call.arguments.items():
            if isinstance(value, torch.Tensor):
                yield pytest.param(call, argument, id=f"{name}-{argument}")


@pytest.mark.parametrize(("call", "argument"), list(tensor_arguments()))
def test_a_tensor_of_another_type_is_refused_by_name(call, argument):
    for kind, change in KINDS.items():
        if kind == "complex" and call.name in OF_ANY_DTYPE:
            continue
        with pytest.raises(TypeError) as raised:
            call.run("torch" if call.has_backend else None, **{argument: change(call.arguments[argument])})
        assert re.match(rf"{argument}\b", str(raised.value)), f"{kind}: {raised.value}"


def words(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def machine(**options):
    return ais.annealed_importance_sampling(W, B, C, [0.0, 1.0], 4, seed=7, **options)


REFUSED = {
    # a product of shapes that fit by chance
    "couplings of one dimension": (lambda: spin_glass.energies(words(64, 2), weights(64)), "couplings must have shape"),
    "triangular couplings": (lambda: spin_glass.energies(words(7, 2), BONDS.triu()), "couplings must be symmetric"),
    "one field": (lambda: spin_glass.energies(words(7, 2), BONDS, C[:1]), "fields must have shape"),
    "rungs of another ladder": (
        lambda: parallel_tempering.integrate(BETAS, weights(3, 2), weights(3, 2), 1.0), "mean_energy must have shape",
    ),
    "betas from 1": (
        lambda: parallel_tempering.integrate(BETAS + 1, weights(2, 3), weights(2, 3), 1.0), "betas must increase from 0"
    ),
    # bits read as those of another dtype
    "words of another length": (lambda: spin_glass.unpack_walkers(words(7, 2, dtype=torch.int64)), "words must have"),
    "lattices of another length": (lambda: unpack_spins(words(1, 2, 4, 1, dtype=torch.int64), 4), "words must have"),
    "states in words": (lambda: rbm_gibbs.pack_states(V.long()), "states must have dtype"),
    "states beyond 1": (lambda: rbm_gibbs.pack_states(5 * V), "states must hold only 0 and 1"),
    "half words": (lambda: rbm_gibbs.unpack_states(words(2, 1), 3), "words must have dtype"),
    "half groups": (lambda: random_words(words(3), 7, 0, Stream.NOISE), "groups must be"),
    "half counters": (lambda: philox4x32((words(3), words(3), words(3), words(3)), 7), r"counter\[0\] must be"),
    "complex spins": (lambda: pack_spins(torch.ones(1, 2, 2, dtype=torch.complex64)), "spins must have dtype"),
    # grey images
    "grey images": (lambda: rbm_training.initial_state(200 * V, 3, 7), "data must hold only 0 and 1, got 200"),
    "likelihood of grey images": (
        lambda: rbm_training.log_likelihood(rbm_training.Machine(W, B, C), 2 * V), "data must hold only 0 and 1",
    ),
    "no images": (
        lambda: rbm_training.log_likelihood(rbm_training.Machine(W, B, C), V[:0]), "data must hold at least one image"
    ),
    "narrow images": (
        lambda: rbm_training.contrastive_divergence(
            rbm_training.TrainingState(rbm_training.Machine(W, B, C)), V[:, 1:], rate=0.1, seed=7
        ),
        "batch must have shape",
    ),
    # random numbers that were drawn before: the counter wraps
    "lattices beyond the counter": (
        lambda: random_spins(4, 4, 1, seed=7, first_lattice=1 << 62), "first_lattice must lie in",
    ),
    "replicas beyond the counter": (
        lambda: parallel_tempering.RbmReplicas(W, B, C, 4, seed=7, first=1 << 62), "first must lie in",
    ),
    "lattices of a ladder": (
        lambda: parallel_tempering.IsingReplicas(4, 4, 4, seed=7, first=1 << 62), "first must lie in",
    ),
    "chains beyond the counter": (
        lambda: rbm_gibbs.draw_uniforms(V.shape, 7, 0, Stream.HIDDEN, 1 << 62, CPU), "first_chain must lie in",
    ),
    "rows beyond the counter": (
        lambda: Slab(random_spins(4, 4, 1, seed=7), 4, 0.4, first_row=1 << 62, seed=7), "first_row must lie in",
    ),
    # memory beyond the slab
    "a third colour": (lambda: slab().half_sweep(2, 0), "colour must lie in"),
    "a sweep beyond the stream": (lambda: slab().half_sweep(0, 1 << 32), "sweep must lie in"),
    "a row before the slab": (lambda: slab().half_sweep(0, 0, -1, 1), "first must be at least 0"),
    "a stream beyond its 8 bits": (lambda: random_words(words(3).long(), 7, 0, 300), "stream must lie in"),
    "draws of such a stream": (
        lambda: normal_draws(0, 4, 7, 0, 300, 0, torch.float32, CPU), "stream must lie in",
    ),
    # numbers that a dtype does not hold
    "fractions in float16": (lambda: fractions(words(3).long() - 1, torch.float16), "dtype must be float32 or"),
    "weights of several runs": (lambda: ais.LogPartitionEstimate.of(W.double()), "log_weights must have shape"),
    "weights in float32": (lambda: ais.LogPartitionEstimate.of(B + 1e5), "log_weights must have dtype float64"),
    "lists of couplings": (lambda: units_of([[0.0]], [1.0]), "couplings must be a dense torch tensor, got list"),
    "a method that the optimizer lost": (lambda: stepped(method="adam"), "method must be one of"),
    "a step size from a schedule": (lambda: stepped(lr=math.nan), "lr must be finite"),
    # results
    "two results": (lambda: thermodynamics(W, out=(B, B)), "out must be a tuple of 3"),
    "a tensor for results": (lambda: generalised_cross_entropy_forward(W, B.long(), out=5), "out must have a tensor"),
    "one result": (
        lambda: parallel_tempering.swap_replicas(
            words(2, 3), weights(2, 3).double(), BETAS, seed=7, round_number=0, out=(words(2, 3),)
        ),
        "out must be a tuple of 2",
    ),
    "two gradients": (lambda: log_likelihood_gradient(V, V, W, C, out=(W, B)), "out must be a tuple of 3"),
    "states without probabilities": (
        lambda: rbm_gibbs.gibbs(V, W, B, C, seed=7, out=(V.clone(), units(6, 7))), "out must be a tuple of 3",
    ),
    "no parameters": (lambda: sgld.sgld_update(None, W, 0.1, seed=7, step=0), "parameters must be a torch tensor or"),
    "no gradients": (lambda: sgld.sgld_update(W, None, 0.1, seed=7, step=0), "gradients must be a torch tensor or"),
    "no squares": (lambda: sgld.psgld_update(W, W, None, 0.1, seed=7, step=0), "squares must be a torch tensor or"),
    "weights of three dimensions": (
        lambda: ais.annealed_importance_sampling(W[None], B, C, [0.0, 1.0], 4, seed=7), "weights must have shape",
    ),
}  # fmt: skip


def stepped(**changes: object) -> None:
    parameter = torch.nn.Parameter(B.clone())
    optimizer = sgld.SGLD([parameter], 0.1, seed=7)
    optimizer.param_groups[0].update(changes)
    parameter.grad = B
    optimizer.step()


def slab() -> Slab:
    return Slab(random_spins(4, 4, 1, seed=7), 4, 0.4, first_row=0, seed=7)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_give_a_wrong_result_is_refused_by_name(name):
    call, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=rf"^{message}"):
        call()


@pytest.mark.parametrize("beta", [1e39, 1e300, torch.full((6,), 1e39, dtype=torch.float64)], ids=str)
@pytest.mark.parametrize("function", ["gibbs", "gaussian_gibbs", "free_energy", "boltzmann_gibbs", "gradient"])
def test_a_beta_beyond_float32_is_refused(function, beta):
    """Kernels multiply float32 fields by it, and infinity times 0 is NaN: a unit of probability 1/2 was always 0."""
    zeros = (torch.zeros_like(each) for each in (W, B, C))
    calls = {
        "gibbs": lambda: rbm_gibbs.gibbs(V, *zeros, 1, beta, seed=7),
        "gaussian_gibbs": lambda: rbm_gibbs.gaussian_gibbs(V.float(), *zeros, torch.ones(9), 1, beta, seed=7),
        "free_energy": lambda: free_energy(V, *zeros, beta),
        "boltzmann_gibbs": lambda: boltzmann_gibbs.boltzmann_gibbs(units(6, 7), UNITS, 1, beta, seed=7),
        "gradient": lambda: log_likelihood_gradient(V, V, W, C, beta if isinstance(beta, float) else 1e39),
    }
    with pytest.raises(ValueError, match=r"^beta must (lie in \[0, 3.40282e\+38\]|be at most 3.40282e\+38)"):
        calls[function]()


@pytest.mark.parametrize("backend", ["torch", "native", "triton", "cupy"])
def test_bits_beyond_the_last_site_are_refused(backend):
    """Some backends read them as neighbours, others do not."""
    if dispatch.unavailable(backend, CPU):
        pytest.skip("cannot run here")
    spins = random_spins(4, 10, 1, seed=7)
    for bit in (5, 31):
        wrong = spins | torch.tensor((1 << bit) - (1 << 32 if bit == 31 else 0), dtype=torch.int32)
        with pytest.raises(ValueError, match=r"^spins must hold 0 in the bits beyond the last site of a row of 10"):
            ising_sweeps(wrong, 10, seed=7, backend=backend)
    full = torch.full((1, 2, 4, 1), -1, dtype=torch.int32)
    assert ising_sweeps(full, 64, beta=math.inf, seed=7, backend=backend).equal(full)


TRANSFORMED = {
    "ising_sweeps": lambda beta: ising_sweeps(random_spins(4, 4, 3, seed=7), 4, 1, beta, seed=7),
    "boltzmann_gibbs": lambda beta: boltzmann_gibbs.boltzmann_gibbs(units(3, 7), UNITS, 1, beta, seed=7),
    "anneal_spins": lambda beta: spin_glass.anneal_spins(words(7, 2), BONDS, beta, seed=7),
    "swap_replicas": lambda beta: parallel_tempering.swap_replicas(words(2, 3), W[:2, :3].double(), beta, seed=7,
                                                                   round_number=0),
    "preparing a schedule": lambda beta: spin_glass.prepare_schedule(beta + 1),
    "preparing a glass": lambda beta: spin_glass.prepare_glass(beta[:, None] * beta),
    "preparing a machine": lambda beta: boltzmann_gibbs.prepare_units(beta[:, None] * beta, beta),
    "prepare_weights": lambda beta: rbm_gibbs.prepare_weights(beta[:, None].float(), "bf16"),
    "an update in place": lambda beta: sgld.sgld_update(beta, beta, 0.1, seed=7, step=0),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_are_refused_by_name(name):
    function = TRANSFORMED[name]
    with pytest.raises(NotImplementedError, match=rf"^{name} has no derivative"):
        torch.func.vmap(function)(BETAS.expand(2, 3))


def test_a_sampler_inside_a_differentiated_loss_is_refused_by_name():
    spins = random_spins(4, 4, 1, seed=7)
    with pytest.raises(NotImplementedError, match=r"^ising_sweeps has no derivative"):
        torch.func.grad(lambda w: w * ising_sweeps(spins, 4, seed=7).sum())(torch.tensor(2.0))
