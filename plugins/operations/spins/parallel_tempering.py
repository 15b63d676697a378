"""The operation ``parallel_tempering``: replica exchange, compared pair by pair and with an exact distribution."""

from collections.abc import Mapping
from functools import partial
from itertools import permutations
from typing import Unpack

import torch
from boltzbench import harness
from boltzbench.harness import (
    Advance,
    Agreement,
    Case,
    CaseOptions,
    Cost,
    Expected,
    Inputs,
    Launch,
    Law,
    Operation,
    Tensors,
)
from boltzbench.kernels.parallel_tempering import SwapResult, swap_replicas
from boltzbench.kernels.philox import Stream, random_words
from boltzbench.plugins.support.ergodicity import judge_transitions
from boltzbench.plugins.support.operations import moved, operation_hooks, same_bits
from torch import Tensor

BOLTZBENCH_API = 1


def _case(ladders: int, rungs: int, scenario: str = "", **more: Unpack[CaseOptions]) -> Case:
    sizes = {"ladders": ladders, "rungs": rungs}
    if rungs < 1:
        raise ValueError("rungs must be at least 1")
    return Case("parallel_tempering", sizes, "float64", scenario, **more)


CASES = (
    _case(300, 12),
    _case(301, 7, "odd round"),
    _case(5, 2, "odd round"),
    _case(1000, 1),
    _case(40, 300, "far"),
    _case(0, 4),
    _case(64, 16, purpose="bench"),
    _case(4096, 32, purpose="bench", preset="quick"),
    _case(1 << 20, 32, purpose="bench", preset="full"),
)


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Energies typical of their rungs, for replicas in random order; in ``far`` they differ by hundreds."""
    ladders, rungs = case.sizes["ladders"], case.sizes["rungs"]
    generator = torch.Generator(device).manual_seed(case.seed)
    order = torch.rand((ladders, rungs), generator=generator, device=device).argsort(1)
    noise = torch.randn((ladders, rungs), generator=generator, device=device, dtype=torch.float64)
    return {
        "replica_at": order.to(torch.int32),
        "energies": (300.0 if case.scenario == "far" else 2.0) * noise,
        "betas": torch.linspace(0, 2, rungs, dtype=torch.float64, device=device),
        "seed": case.seed + (1 << 63),
        "round_number": moved(0, case) * 2 + (7 if case.scenario == "odd round" else 4),
        "first_ladder": 1 << 31,
    }


def make_outputs(inputs: Inputs) -> Tensors:
    return {name: torch.empty_like(inputs["replica_at"]) for name in SwapResult._fields}


def expected(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The exchanges pair by pair, from energies in the order of rungs. Replicas must be equal."""
    at, betas = inputs["replica_at"].long(), inputs["betas"]
    energy = inputs["energies"].gather(1, at)
    ladders, rungs = at.shape
    found, accepted = at.clone(), torch.zeros_like(at)
    ladder = inputs["first_ladder"] + torch.arange(ladders, device=at.device)
    for k in range(inputs["round_number"] % 2, rungs - 1, 2):
        place = ladder * rungs + k
        words = random_words(place // 4, inputs["seed"], inputs["round_number"], Stream.SWAP)
        u = (words.gather(1, place[:, None] % 4)[:, 0] // 256).double() / (1 << 24)
        cost = (betas[k + 1] - betas[k]) * (energy[:, k + 1] - energy[:, k])
        # A pair with a favourable exchange always accepts it.
        swapped = torch.where(cost >= 0, True, u < torch.exp(cost))
        accepted[:, k] = swapped
        found[:, k] = torch.where(swapped, at[:, k + 1], at[:, k])
        found[:, k + 1] = torch.where(swapped, at[:, k], at[:, k + 1])
    return {"replica_at": Expected(found.double()), "accepted": Expected(accepted.double())}


def cost(case: Case) -> Cost:
    replicas = case.sizes["ladders"] * case.sizes["rungs"]
    return Cost(
        items=replicas, unit="replicas", bytes_read=12 * replicas, bytes_written=8 * replicas,
        random_words=replicas // 2, special_calls=replicas // 2,
    )  # fmt: skip


def prepare(backend: str, inputs: Inputs, outputs: Tensors) -> Launch:
    run = partial(
        swap_replicas, inputs["replica_at"], inputs["energies"], inputs["betas"], seed=inputs["seed"],
        first_ladder=inputs["first_ladder"], backend=backend,
        out=SwapResult(*(outputs[name] for name in SwapResult._fields)),
    )  # fmt: skip

    def launch() -> Tensors:
        run(round_number=inputs["round_number"])
        return outputs

    return launch


BETAS = torch.tensor((0.0, 0.8, 2.5), dtype=torch.float64)
LEVELS = torch.tensor((0.0, 0.7, 2.0), dtype=torch.float64)
LADDERS = 107_000
"""Enough draws to detect a chi-distance of 0.03 between 27 cells."""


def _exchanged(advance: Advance, at: Tensor, energies: Tensor, device: torch.device, seed: int) -> Tensor:
    """``replica_at``, on the CPU, after an even and an odd round of ladders with inverse temperatures `BETAS`."""
    at = at.to(torch.int32).to(device)
    for number in (0, 1):
        inputs = {
            "replica_at": at, "energies": energies.to(device), "betas": BETAS.to(device), "seed": seed,
            "round_number": number, "first_ladder": 0,
        }  # fmt: skip
        at = advance(inputs)["replica_at"].clone()
    return at.long().cpu()


def leaves_invariant(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Exact draws of a three-level system at three rungs are still exact draws after an even and an odd round."""
    laws = torch.softmax(-BETAS[:, None] * LEVELS, 1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.multinomial(law, LADDERS, replacement=True, generator=generator) for law in laws], 1)
    at = _exchanged(advance, torch.arange(3).repeat(LADDERS, 1), LEVELS[drawn], device, seed)
    a, b, c = drawn.gather(1, at).unbind(1)
    exact = laws[0][:, None, None] * laws[1][:, None] * laws[2]
    return harness.chi_square(torch.bincount(a * 9 + b * 3 + c, minlength=27), exact.flatten())


def reaches_every_order(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Two rounds make the exact transitions between the orders of three replicas, whose energies stay."""
    orders, digits = torch.tensor([*permutations(range(3))]), torch.tensor((9, 3, 1))
    number = torch.empty(27, dtype=torch.int64)
    number[orders @ digits] = torch.arange(len(orders))
    identity = torch.eye(len(orders), dtype=torch.float64)
    matrix = identity
    for k in (0, 1):
        swapped = orders.clone()
        swapped[:, [k, k + 1]] = orders[:, [k + 1, k]]
        gain = (BETAS[k + 1] - BETAS[k]) * (LEVELS[orders[:, k + 1]] - LEVELS[orders[:, k]])
        accept = torch.exp(gain.clamp(max=0))[:, None]
        matrix = matrix @ ((1 - accept) * identity + accept * identity[number[swapped @ digits]])
    start = torch.arange(len(orders)).repeat(2000)
    end = number[_exchanged(advance, orders[start], LEVELS.repeat(len(start), 1), device, seed) @ digits]
    return harness.all_of(judge_transitions(start, end, matrix, 1e-6))


def composes(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """Ladders split over two calls make the same exchanges as in one call."""
    case = _case(500, 9)
    inputs = {**make_inputs(case, device), "seed": seed}
    whole = {name: tensor.clone() for name, tensor in advance(inputs).items()}
    parts = []
    for first, end in ((0, 123), (123, 500)):
        cut = {name: inputs[name][first:end] for name in ("replica_at", "energies")}
        parts.append({k: v.clone() for k, v in advance({**inputs, **cut, "first_ladder": (1 << 31) + first}).items()})
    return same_bits(whole, {"two calls": {name: torch.cat([part[name] for part in parts]) for name in whole}})


OPERATION = Operation(
    name="parallel_tempering",
    summary="Replica exchange between neighbouring temperatures of many ladders.",
    formula="k <-> k + 1 with probability min(1, exp((beta_k - beta_(k+1)) (E_k - E_(k+1))))",
    source="Swendsen and Wang, Phys. Rev. Lett. 57 (1986); Syed et al., J. R. Stat. Soc. B 84 (2022)",
    kind="sampler",
    cases=CASES,
    make_inputs=make_inputs,
    make_outputs=make_outputs,
    reference=expected,
    cost=cost,
    case=_case,
    moving=("round_number",),
    laws=(
        Law("product law", "two rounds leave the joint distribution of three rungs invariant", leaves_invariant),
        Law("ergodicity", "two rounds lead from every order of the replicas to every other", reaches_every_order),
        Law("composition", "splitting ladders over calls changes no exchange", composes, shared_stream=True),
    ),
)


register_operations, register_implementations = operation_hooks(
    OPERATION, prepare, "boltzbench.kernels.parallel_tempering"
)
