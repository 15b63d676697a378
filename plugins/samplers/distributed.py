"""Algorithms over many processes at small sizes, for `boltzbench distributed`."""

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from boltzbench.harness import DistributedAlgorithm, DistributedRun, hookimpl
from boltzbench.kernels import distributed
from boltzbench.kernels.ais import CollapsedWeights
from boltzbench.kernels.distributed import Exchange, IsingLattice, Link, Ranks, measured_link
from boltzbench.kernels.parallel_tempering import IsingReplicas
from boltzbench.kernels.rbm_gibbs import gibbs
from boltzbench.kernels.rbm_training import initial_state
from torch import Tensor

BOLTZBENCH_API = 1

SEED = 7
LATTICE = 4096
"""Sites of a side of the lattice."""
SIDE = 32
"""Sites of a side of each of many lattices."""
CHAINS, REPLICAS, BLOCKS, BATCH = 4096, 1024, 16, 1024
VISIBLE, HIDDEN = 256, 64
SMALL = 16
"""Units of each layer of the machine whose states are enumerated."""


def machine(visible: int, hidden: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    weights = torch.randn(visible, hidden, generator=torch.Generator().manual_seed(SEED)) / visible**0.5
    return weights.to(device), torch.zeros(visible, device=device), torch.zeros(hidden, device=device)


Prepared = tuple[Callable[[int], None], Callable[[], Tensor], Sequence[Exchange], Sequence[Exchange]]
"""What advances, the result, and the exchanges of a step: those that run beside the work, and those that follow it."""


def run_on(ranks: Ranks | None, device: torch.device, prepare: Callable[[Ranks], Prepared]) -> DistributedRun:
    link = None if ranks is None else _link(ranks, device)
    if ranks is None:  # this process alone, whether or not it has joined others
        joined = dist.is_initialized()
        ranks = Ranks(dist.new_group([dist.get_rank()], use_local_synchronization=True) if joined else None)
    advance, result, beside, after = prepare(ranks)
    size = ranks.size

    def expected_seconds(alone: float) -> float:
        work = alone / size * _crowding(size, device)
        if link is None:
            return work
        shown, hidden = (sum(each.seconds(size, link, link, link) for each in these) for these in (after, beside))
        return max(work, hidden) + shown

    return DistributedRun(advance, result, sum(each.sent(size) for each in (*beside, *after)), expected_seconds)


@functools.lru_cache(1)
def _link(ranks: Ranks, device: torch.device) -> Link:
    return measured_link(ranks, device)


def _crowding(size: int, device: torch.device) -> float:
    """By how much ranks that share the cores of a machine slow each other down."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    return 1.0 if device.type == "cuda" else max(1.0, here * torch.get_num_threads() / len(os.sched_getaffinity(0)))


def start_chains(given: Ranks | None, device: torch.device) -> DistributedRun:
    def prepare(ranks: Ranks) -> Prepared:
        share, done = ranks.share(CHAINS), 0
        visible = torch.zeros(len(share), VISIBLE, dtype=torch.uint8, device=device)

        def advance(steps: int) -> None:
            nonlocal visible, done
            visible, _, _ = gibbs(
                visible, *machine(VISIBLE, HIDDEN, device), sweeps=steps, seed=SEED, first_sweep=done,
                first_chain=share.start,
            )  # fmt: skip
            done += steps

        return advance, lambda: ranks.gather(visible), (), ()

    return run_on(given, device, prepare)


def start_lattice(given: Ranks | None, device: torch.device) -> DistributedRun:
    def prepare(ranks: Ranks) -> Prepared:
        lattice = IsingLattice(LATTICE, LATTICE, 0.44, seed=SEED, ranks=ranks, device=device)
        return lattice.advance, lattice.gather, (Exchange.halo(LATTICE),), ()

    return run_on(given, device, prepare)


def start_of(
    function: Callable[[Ranks, torch.device, int], Tensor], exchanges: Callable[[Ranks], Sequence[Exchange]]
) -> Callable[[Ranks | None, torch.device], DistributedRun]:
    """Of an algorithm that begins again in each call and then does a number of steps."""

    def start(given: Ranks | None, device: torch.device) -> DistributedRun:
        def prepare(ranks: Ranks) -> Prepared:
            found: list[Tensor] = []

            def advance(steps: int) -> None:
                found[:] = [function(ranks, device, steps)]

            return advance, lambda: found[0], (), exchanges(ranks)

        return run_on(given, device, prepare)

    return start


def anneal(ranks: Ranks, device: torch.device, steps: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapsedWeights)
        found = distributed.annealed_importance_sampling(
            *machine(VISIBLE, HIDDEN, device), torch.linspace(0, 1, steps + 1), CHAINS, seed=SEED, ranks=ranks
        )
    return found.log_weights


def make_replicas(device: torch.device) -> Callable[[int, int], Any]:
    return lambda first, count: IsingReplicas(SIDE, SIDE, count, first=first, seed=SEED, device=device)


def temper(ranks: Ranks, device: torch.device, steps: int) -> Tensor:
    betas = torch.linspace(0, 0.4, 16)
    found = distributed.parallel_tempering(
        make_replicas(device), REPLICAS, betas, steps, burn_in=0, seed=SEED, ranks=ranks
    )
    return torch.cat([found.mean_energy.flatten(), found.variance.flatten()])


def cool(ranks: Ranks, device: torch.device, steps: int) -> Tensor:
    betas = torch.linspace(0, 0.4, steps)
    return distributed.population_annealing(make_replicas(device), REPLICAS, betas, seed=SEED, ranks=ranks).energies


def enumerate_states(ranks: Ranks, device: torch.device, steps: int) -> Tensor:
    parameters = machine(SMALL, SMALL, device)
    return torch.stack([distributed.rbm_log_partition(*parameters, ranks=ranks) for _ in range(steps)])


def train(ranks: Ranks, device: torch.device, steps: int) -> Tensor:
    images = torch.randint(0, 2, (BATCH, VISIBLE), generator=torch.Generator().manual_seed(SEED), dtype=torch.uint8)
    share = ranks.share(BATCH, multiple=BATCH // BLOCKS)
    whole = initial_state(images.to(device), HIDDEN, SEED, chains=BATCH)
    own = slice(share.start, share.stop)
    assert whole.chains is not None
    state = whole._replace(chains=whole.chains[own])
    for _ in range(steps):
        state = distributed.persistent_contrastive_divergence(
            state, images[own].to(device), blocks=BLOCKS, rate=0.05, seed=SEED, ranks=ranks
        )
    return state.machine.weights


STEPS = 10
"""Of a block that is timed. Of the enumeration, whose steps are whole runs, one."""
LAYERS = f"{VISIBLE} x {HIDDEN} units"


@hookimpl
def register_distributed(register: Callable[[DistributedAlgorithm], None]) -> None:
    for name, summary, step, start in (
        ("chains", f"{CHAINS} chains of a restricted Boltzmann machine of {LAYERS}", "sweep", start_chains),
        ("lattice", f"One Ising lattice of {LATTICE} x {LATTICE} sites in slabs of rows", "sweep", start_lattice),
        (
            "importance", f"Annealed importance sampling of {LAYERS} by {CHAINS} chains", "temperature",
            start_of(anneal, lambda ranks: Exchange.gathered(8 * len(ranks.share(CHAINS)), 3, 1 / STEPS)),
        ),
        (
            "tempering", f"Replica exchange of {REPLICAS} Ising lattices of {SIDE} x {SIDE} sites", "round",
            start_of(temper, lambda ranks: Exchange.gathered(8 * len(ranks.share(REPLICAS)))),
        ),
        (
            "population", f"Population annealing of {REPLICAS} Ising lattices of {SIDE} x {SIDE} sites", "temperature",
            start_of(cool, lambda ranks: Exchange.gathered(8 * len(ranks.share(REPLICAS)), 2)),
        ),
        (
            "enumeration", f"log Z of {SMALL} x {SMALL} units from all states", "log Z",
            start_of(enumerate_states, lambda ranks: Exchange.gathered(8 * len(ranks.share(64)), 3)),
        ),
        (
            "training", f"Persistent contrastive divergence of {LAYERS}, {BATCH} images and chains", "update",
            start_of(train, lambda ranks: Exchange.reduced(4 * (VISIBLE * HIDDEN + VISIBLE + HIDDEN), 3)),
        ),
    ):  # fmt: skip
        register(
            DistributedAlgorithm(name, summary, step, 1 if name == "enumeration" else STEPS, distributed.join, start)
        )
