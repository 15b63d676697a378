"""Algorithms over ranks against the function for one process, and against exact answers where there is none."""

import math
import warnings

import pytest
import torch
import torch.distributed as dist
from boltzbench.kernels import ais, enumeration
from boltzbench.kernels import distributed as over_ranks
from boltzbench.kernels import parallel_tempering as tempering
from boltzbench.kernels.distributed import Ranks
from boltzbench.kernels.distributed.cost import STEPS
from boltzbench.kernels.ising import lattice_couplings, units_of
from boltzbench.kernels.parallel_tempering import IsingReplicas, RbmReplicas
from boltzbench.kernels.rbm_training import initial_state, minibatch, persistent_contrastive_divergence
from support.ranks import SIZES, Failed


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


MACHINE = drawn(11, 7), drawn(11), drawn(7)
BETAS = torch.linspace(0, 1, 6, dtype=torch.float64)


def same(found, wanted):
    """Whether two results have the same bits."""
    if isinstance(wanted, tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return torch.equal(torch.as_tensor(found), torch.as_tensor(wanted))


def equal_on(pool, function, wanted, *arguments, sizes=SIZES):
    for size in sizes:
        for found in pool.run(size, function, *arguments):
            assert same(found, wanted), (size, found, wanted)


def annealed_rbm(group, single=False):
    module, options = (ais, {}) if single else (over_ranks, {"ranks": Ranks(group)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ais.CollapsedWeights)
        return module.annealed_importance_sampling(
            *MACHINE, BETAS, 21, base_bias=drawn(11), seed=3, first_chain=5, **options
        )


def annealed_lattices(group, single=False):
    module, options = (ais, {}) if single else (over_ranks, {"ranks": Ranks(group)})
    return module.ising_annealed_importance_sampling(4, 4, BETAS, 16, seed=3, field=0.1, **options)


@pytest.mark.parametrize("function", [annealed_rbm, annealed_lattices])
def test_importance_sampling_estimates_alike(pool, function):
    equal_on(pool, function, pool.run(1, function, True)[0])


def rbm_replicas(first, count):
    return RbmReplicas(*MACHINE, count, seed=3, first=first)


def lattices(first, count):
    return IsingReplicas(4, 4, count, seed=3, first=first)


def tempered(group, make, rounds=8):
    return over_ranks.parallel_tempering(globals()[make], 18, BETAS, rounds, burn_in=2, seed=5, ranks=Ranks(group))


@pytest.mark.parametrize("make", [rbm_replicas, lattices])
def test_replicas_exchange_alike(pool, make):
    wanted = tempering.parallel_tempering(make(0, 18), BETAS, 8, burn_in=2, seed=5)
    assert wanted.swap_rates.min() > 0
    equal_on(pool, tempered, wanted, make.__name__)


def population(group, count=50):
    found = over_ranks.population_annealing(lattices, count, BETAS * 0.4, seed=5, ranks=Ranks(group))
    return found._replace(states=Ranks(group).gather(found.states))


def test_a_population_is_annealed_alike(pool):
    wanted = population(None)
    assert 1 < wanted.mean_square_family < 50
    equal_on(pool, population, wanted)
    few = population(None, 3)
    equal_on(pool, population, few, 3, sizes=(2, 8))


def exact_lattices(group):
    units = units_of(lattice_couplings(4, 4, 1.0), torch.zeros(16, dtype=torch.float64))
    logs = [enumeration.log_partition(units.weights, units.biases, b) - b * units.constant for b in 0.4 * BETAS]
    return torch.stack(logs)


def test_a_population_estimates_log_z(pool):
    """Of 4 x 4 spins at each temperature, within six times the error of independent families of equal size."""
    found = population(None, 2000)
    error = (found.log_z - pool.run(1, exact_lattices)[0]).abs()
    assert error[0] < 1e-12
    assert error.max() < 6 * math.sqrt(found.mean_square_family / 2000)


def enumerated(group, turned=False, single=False):
    weights, visible_bias, hidden_bias = MACHINE
    if turned:
        weights, visible_bias, hidden_bias = weights.t(), hidden_bias, visible_bias
    if single:
        return enumeration.rbm_log_partition(weights, visible_bias, hidden_bias, 0.7)
    return over_ranks.rbm_log_partition(weights, visible_bias, hidden_bias, 0.7, fixed_units=4, ranks=Ranks(group))


def enumerated_couplings(group, fixed, single=False):
    weights = drawn(6, 6).double()
    machine = (weights + weights.t()) * (1 - torch.eye(6)), drawn(6).double(), 0.7
    if single:
        return enumeration.log_partition(*machine)
    return over_ranks.log_partition(*machine, fixed_units=fixed, ranks=Ranks(group))


@pytest.mark.parametrize(
    ("function", "argument"),
    [(enumerated, False), (enumerated, True), *((enumerated_couplings, fixed) for fixed in (0, 3, 9))],
)
def test_enumeration_adds_up_alike(pool, function, argument):
    """``argument``: which layer is the smaller one, or how many of 9 units are fixed."""
    (wanted,), (exact,) = pool.run(1, function, argument), pool.run(1, function, argument, True)
    assert float(wanted) == pytest.approx(float(exact), rel=1e-14)
    equal_on(pool, function, wanted, argument)


def units_enumerated(group):
    """How many units each part enumerates."""
    units, honest = [], enumeration.rbm_log_partition

    def spy(weights, *rest, **options):
        units.append(min(weights.shape))
        return honest(weights, *rest, **options)

    enumeration.rbm_log_partition = spy
    try:
        over_ranks.rbm_log_partition(*MACHINE, fixed_units=4)
    finally:
        enumeration.rbm_log_partition = honest
    return units


def test_the_smaller_layer_is_divided(pool):
    assert pool.run(8, units_enumerated) == [[7 - 4] * 2] * 8


DATA = (drawn(96, 11, seed=2) > 0.5).to(torch.uint8)


def trained(group, blocks=8, updates=3, module=over_ranks):
    """The machine, and all chains."""
    ranks = Ranks(group)
    state = initial_state(DATA, 7, seed=1, chains=48, scale=0.3)
    chains, images = ranks.share(48, multiple=48 // blocks), ranks.share(24, multiple=24 // blocks)
    state = state._replace(chains=state.chains[chains.start : chains.stop])
    for _ in range(updates):
        batch = minibatch(DATA, 24, seed=1, step=state.step)[images.start : images.stop]
        state = over_ranks.persistent_contrastive_divergence(
            state, batch, blocks=blocks, sweeps=2, rate=0.5, weight_decay=0.01, seed=1, ranks=Ranks(group)
        )
    return (*state.machine, ranks.gather(state.chains), state.step, state.sweep)


def test_training_updates_alike(pool):
    state = initial_state(DATA, 7, seed=1, chains=48, scale=0.3)
    first = state
    for _ in range(3):
        batch = minibatch(DATA, 24, seed=1, step=state.step)
        state = persistent_contrastive_divergence(state, batch, sweeps=2, rate=0.5, weight_decay=0.01, seed=1)
    wanted = trained(None)
    assert same(trained(None, 1), (*state.machine, state.chains, state.step, state.sweep))
    equal_on(pool, trained, wanted)
    one = trained(None, 8, 1)
    batch = minibatch(DATA, 24, seed=1, step=0)
    single = persistent_contrastive_divergence(first, batch, sweeps=2, rate=0.5, weight_decay=0.01, seed=1).machine
    for mine, theirs in zip(one[:3], single, strict=True):
        assert (mine - theirs).abs().max() <= 0.5 * 2 * (48 + 24 + 8) * 2**-24 + 2**-22


def headers(group):
    """Headers of an update of training, and of a round of replica exchange."""
    ranks, messages, honest = Ranks(group), [], dist.isend
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "isend", lambda *sent, **place: messages.append(sent) or honest(*sent, **place))

        def counted(function, *arguments):
            messages.clear()
            function(group, *arguments)
            return len(messages) / math.log2(ranks.size)

        once, twice = counted(trained, 8, 1), counted(trained, 8, 2)
        few, more = counted(tempered, "lattices", 3), counted(tempered, "lattices", 5)
    return twice - once, (more - few) / 2


def test_the_model_counts_the_headers_of_a_step(pool):
    modelled = {step.name: step.exchanges[0] for step in STEPS if step.exchanges}
    wanted = modelled["training"].count, modelled["replica exchange"].count
    assert pool.run(4, headers) == [wanted] * 4


def too_few_chains(group):
    over_ranks.annealed_importance_sampling(*MACHINE, BETAS, 7, seed=3, ranks=Ranks(group))


def too_few_blocks(group):
    trained(group, 2)


def uneven_blocks(group):
    state = initial_state(DATA, 7, seed=1, chains=6)
    over_ranks.persistent_contrastive_divergence(state, DATA[:5], blocks=8, rate=0.1, seed=1, ranks=Ranks(group))


def other_machine(group):
    machine = [part + (Ranks(group).rank == 2) for part in MACHINE]
    over_ranks.rbm_log_partition(*machine, ranks=Ranks(group))


def bad_replicas(group):
    def make(first, count):
        if first > 9:
            raise MemoryError("no memory for replicas")
        return lattices(first, count)

    over_ranks.population_annealing(make, 16, BETAS, seed=5, ranks=Ranks(group))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (too_few_chains, "chains must be at least 8 for 4 ranks, two for each, got 7"),
        (too_few_blocks, "blocks must be at least 4, the number of ranks, got 2"),
        (uneven_blocks, "batch must hold this rank's 2 blocks, so a multiple of 2 rows; got 5"),
        (other_machine, "weights must be the same on every rank"),
        (bad_replicas, "no memory for replicas"),
    ],
)
def test_bad_input_is_one_sentence_on_every_rank(pool, function, words):
    for found in pool.outcomes(4, function):
        assert isinstance(found, Failed), found
        assert words in found.message, found
