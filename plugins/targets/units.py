"""Targets of 0/1 units: a restricted Boltzmann machine small enough to enumerate, free and with clamped units."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from boltzbench.harness import Dynamics, ExactLaw, Target, hookimpl
from boltzbench.plugins.exact.laws import Function, cached, enumerated
from boltzbench.plugins.exact.rbm import fixture
from boltzbench.plugins.exact.states import all_units, number_of
from torch import Tensor

BOLTZBENCH_API = 1

VISIBLE, HIDDEN = 10, 8


def machine(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The parameters of the RBM: weights (10, 8), visible_bias (10,), hidden_bias (8,)."""
    return {name: part.to(dtype) for name, part in fixture().items()}


def rbm_energy(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """``E(v, h) = -b.v - c.h - v.W.h`` of units (chains, visible + hidden), in the parameters' dtype."""
    weights, b, c = (parameters[name].to(x.device) for name in ("weights", "visible_bias", "hidden_bias"))
    units = x.to(weights.dtype)
    v, h = units[:, : len(b)], units[:, len(b) :]
    energy: Tensor = -v @ b - h @ c - (v @ weights * h).sum(1)
    return energy


def rbm_law(
    parameters: Mapping[str, Tensor], held: Sequence[int], temperature: float, dynamics: Dynamics
) -> ExactLaw | None:
    """The law over all 2**18 states, or over the states with the first units at the values ``held``.

    Cells: eight visible units, all hidden units, and four of each together.
    """
    if dynamics.name != "exact":
        return None
    states = all_units(VISIBLE + HIDDEN)
    states = states[(states[:, : len(held)] == torch.tensor(held, dtype=torch.uint8)).all(1)]
    wide = {name: value.double() for name, value in parameters.items()}
    cells: dict[str, Function] = {
        "v_0..v_7": lambda x: number_of(x[:, :8]),
        "hidden": lambda x: number_of(x[:, VISIBLE:]),
        "v_6..v_9, h_0..h_3": lambda x: number_of(x[:, VISIBLE - 4 : VISIBLE + 4]),
    }
    means: dict[str, Function] = {
        "v_9": lambda x: x[:, VISIBLE - 1].float(),
        "energy": partial(rbm_energy, parameters),
    }
    return enumerated(states, rbm_energy(wide, states), temperature, cells, means)


def _rbm(name: str, summary: str, formula: str, temperatures: tuple[float, ...], held: Sequence[int] = ()) -> Target:
    parameters = machine()
    return Target(
        name=name,
        summary=summary,
        formula=formula,
        source="Smolensky 1986; enumeration",
        kind="rbm",
        shape=(VISIBLE + HIDDEN,),
        dtype="uint8",
        parameters=parameters,
        energy=partial(rbm_energy, parameters),
        law=cached(partial(rbm_law, parameters, held)),
        temperatures=temperatures,
        clamped=torch.arange(VISIBLE + HIDDEN) < len(held) if held else None,
    )


def rbm() -> Target:
    return _rbm(
        "rbm",
        "A restricted Boltzmann machine of 10 visible and 8 hidden units, enumerated.",
        "E(v, h) = -b.v - c.h - v.W.h, W_ij = sin(1.7 i + 0.9 j + 0.3), b_i = 0.3 cos i, c_j = -0.2 sin(j + 1)",
        (1.0, 0.5, 2.0),
    )


HELD = (1, 0, 1)
"""The values of the clamped units of `rbm_clamped`, its first visible ones."""


def rbm_clamped() -> Target:
    return _rbm(
        "rbm_clamped",
        "The machine of rbm with its first three visible units clamped to 1, 0, 1.",
        "E(v, h) as in rbm, given v_0 = 1, v_1 = 0, v_2 = 1",
        (1.0, 2.0),
        HELD,
    )


@hookimpl
def register_targets(register: Callable[[Target], None]) -> None:
    register(rbm())
    register(rbm_clamped())
