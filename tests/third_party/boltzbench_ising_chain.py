"""The energy of the Ising model on a ring, ``E = -sum_i s_i s_{i+1}`` with ``s_i = +-1`` and ``s_{n+1} = s_1``.

The plugin defines this operation and adds an implementation to the built-in ``logsumexp``. It imports only the public
names of `boltzbench.harness`.
"""

from collections.abc import Callable, Mapping

import torch
from boltzbench.harness import Case, Cost, Expected, Implementation, Inputs, Launch, Operation, Tensors, hookimpl

BOLTZBENCH_API = 1

NAME = "ising_chain_energy"


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """``spins``: int8 of +-1, (chains, sites)."""
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.sizes["chains"], case.sizes["sites"])
    spins = 2 * torch.randint(2, shape, generator=generator, dtype=torch.int8) - 1
    return {"spins": spins.to(device)}


def make_outputs(inputs: Inputs) -> Tensors:
    """``energy``: float32, (chains,)."""
    return {"energy": torch.empty(inputs["spins"].shape[0], device=inputs["spins"].device)}


def reference(inputs: Inputs, outputs: Tensors) -> Mapping[str, Expected]:
    """The bound is zero: float32 represents integers below 2**24 exactly."""
    spins = inputs["spins"].double()
    bonds = (spins[:, :-1] * spins[:, 1:]).sum(1) + spins[:, -1] * spins[:, 0]
    return {"energy": Expected(-bonds)}


def cost(case: Case) -> Cost:
    chains, sites = case.sizes["chains"], case.sizes["sites"]
    return Cost(chains, "chains", bytes_read=chains * sites, bytes_written=4 * chains, flops=2 * chains * sites)


def rolled(inputs: Inputs, outputs: Tensors) -> Launch:
    """Multiply each spin by its right neighbour from a rolled copy."""
    spins, energy = inputs["spins"], outputs["energy"]

    def launch() -> Tensors:
        energy.copy_(-(spins * spins.roll(-1, 1)).sum(1))
        return outputs

    return launch


def domain_walls(inputs: Inputs, outputs: Tensors) -> Launch:
    """``E = 2 walls - sites``, where a wall is a bond between unequal spins."""
    spins, energy = inputs["spins"], outputs["energy"]

    def launch() -> Tensors:
        walls = (spins != spins.roll(-1, 1)).sum(1)
        torch.sub(2 * walls, spins.shape[1], out=energy)
        return outputs

    return launch


def two_pass(inputs: Inputs, outputs: Tensors) -> Launch:
    """Log-sum-exp of each row by its maximum and the shifted sum; the gradient if ``grad`` is given."""
    x, beta = inputs["x"], inputs["beta"]
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32

    def forward() -> Tensors:
        scaled = x.to(wide) * beta
        if scaled.shape[1] == 0:
            outputs["y"].fill_(-torch.inf)
            return outputs
        largest = scaled.amax(1)
        shift = torch.where(largest.isfinite(), largest, 0.0)
        outputs["y"].copy_(shift + torch.log(torch.exp(scaled - shift[:, None]).sum(1)))
        return outputs

    def backward() -> Tensors:
        distance = x.double() - inputs["peak"][:, None]
        weights = torch.exp(distance * beta - inputs["log_total"][:, None])
        outputs["dx"].copy_(inputs["grad"].double()[:, None] * beta * weights)
        return outputs

    return backward if "grad" in inputs else forward


@hookimpl
def register_operations(register: Callable[[Operation], None]) -> None:
    cases = (
        Case(NAME, {"chains": 5, "sites": 7}, "float32"),
        Case(NAME, {"chains": 1, "sites": 1}, "float32", scenario="one site"),
        Case(NAME, {"chains": 256, "sites": 1024}, "float32", purpose="bench"),
    )
    register(
        Operation(
            name=NAME,
            summary="Energy of the one-dimensional Ising model with periodic boundary.",
            formula="E = -sum_i s_i s_{i+1}",
            source="Ising, Beitrag zur Theorie des Ferromagnetismus, Z. Phys. 31 (1925)",
            kind="map",
            cases=cases,
            make_inputs=make_inputs,
            make_outputs=make_outputs,
            reference=reference,
            cost=cost,
        )
    )


@hookimpl
def register_implementations(register: Callable[[Implementation], None]) -> None:
    register(Implementation(NAME, "rolled", "torch", rolled))
    register(Implementation(NAME, "domain-walls", "torch", domain_walls))
    register(Implementation("logsumexp", "two-pass", "torch", two_pass))
