"""Samplers with one planted error each: those whose cause the verdict must name, and those for the power."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...api.samplers import Sampler, Target
from ..symptoms import UNFIT
from .small_discrete import bit_by_bit, four_states, gibbs, metropolis, rbm
from .small_samplers import Noise, State, Step, advance_by, chains_of, uniforms
from .small_well import gaussian, hmc, langevin, langevin_step, mala, noise_of, well_energy


@dataclass(frozen=True)
class Planted:
    """A sampler with one error. ``cause`` is what one of the first two lines of the verdict must say."""

    sampler: Sampler
    target: Callable[[], Target]
    cause: str = ""


REUSED = "step 2 draws the same random numbers as step 1"
SAME_PATH = "take the same path from one start"
TOGETHER = "they share random numbers within a step"
NEIGHBOURS = "steps 2 and 3 share random numbers"
UNCORRECTED = "without a Metropolis correction"
IGNORED_HEAT = "temperature 1 at every temperature: it is ignored"
WRONG_SIGN = "the acceptance's sign is wrong"


def _element_1_too_hot(state: State) -> Tensor:
    return noise_of()(state) * torch.tensor([1.0, 1.3])


def _repeated_from_step_2(state: State) -> int:
    return (int(state["step"]) + 1) // 2


def _units_of(step: Callable[[State], int]) -> Noise:
    return lambda state: uniforms(state["seed"], chains_of(state), step(state), 6)


def _only_element_0(stiffness: Tensor, x: Tensor) -> Tensor:
    """The energy, that of element 1 halved."""
    return (stiffness * torch.tensor([1.0, 0.5]) * x * x).sum(1, keepdim=True) / 2


def _negated(weights: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return -weights, -b, -c


def _bias_of_unit_1(weights: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return weights, b * torch.tensor([1.0, -3.0, 1.0]), c


def named_errors() -> list[Planted]:
    """Thirty errors in Langevin dynamics, MALA, HMC and Gibbs sampling, and the cause to be named."""
    return [
        *(Planted(langevin(f"Langevin: {name}", **pieces), gaussian, cause) for name, pieces, cause in _of_langevin()),
        Planted(
            replace(langevin("Langevin: half the step size", eps=0.4), dynamics=langevin().dynamics),
            gaussian,
            "the law is that of a step size 0.5 times as large",
        ),
        *(Planted(mala(f"MALA: {name}", **pieces), gaussian, cause) for name, pieces, cause in _of_mala()),
        *(Planted(hmc(f"HMC: {name}", **pieces), gaussian, cause) for name, pieces, cause in _of_hmc()),
        *(Planted(gibbs(f"Gibbs: {name}", **pieces), rbm, cause) for name, pieces, cause in _of_gibbs()),
        Planted(
            bit_by_bit("Gibbs: fixed order, said to be reversible", reversible=True),
            four_states,
            "detailed balance of 1 step",
        ),
        Planted(
            metropolis("Gibbs: both bits flip together", propose=lambda x, u: 1 - x), four_states, "not ergodic"
        ),
    ]  # fmt: skip


Rows = Iterator[tuple[str, dict[str, Any], str]]


def _of_langevin() -> Rows:
    yield "one noise for all steps", {"noise": noise_of(step=lambda s: 0)}, REUSED
    yield "each noise used in two steps", {"noise": noise_of(step=lambda s: s["step"] // 2)}, REUSED
    yield "each noise used in two steps, from step 2", {"noise": noise_of(step=_repeated_from_step_2)}, NEIGHBOURS
    yield "step % 37", {"noise": noise_of(step=lambda s: s["step"] % 37)}, "step 38 draws the same random numbers"
    yield "pairs of chains share noise", {"noise": noise_of(chain=lambda s: (chains_of(s) + 1) // 2)}, SAME_PATH
    yield "chain % 4096", {"noise": noise_of(chain=lambda s: chains_of(s) % 4096)}, SAME_PATH
    yield "seed & 0xff", {"noise": noise_of(seed=lambda s: s["seed"] & 0xFF)}, SAME_PATH
    yield "one number for both elements", {"noise": lambda s: noise_of()(s)[:, :1].expand(-1, 2)}, TOGETHER
    yield "twice the temperature", {"heat": lambda t: 2 * t}, "the law is that of 2 times the temperature"
    yield "temperature ignored", {"heat": lambda t: 0 * t + 1}, IGNORED_HEAT
    yield "root of the temperature", {"heat": lambda t: t**0.5}, "the temperature to the power 0.5"
    yield "eps, not eps / 2", {"drift": 1.0}, "the law is that of a gradient 2 times as large"
    yield "element 1 has 1.3 times the noise", {"noise": _element_1_too_hot}, "the law of element 1 alone is wrong"


def _of_mala() -> Rows:
    yield "every proposal accepted", {"accept": lambda u, r: u < 2}, UNCORRECTED
    yield "sign of the acceptance", {"accept": lambda u, r: u.log() < -r}, WRONG_SIGN
    yield "energies not divided by T", {"heat": lambda t: 0 * t + 1}, IGNORED_HEAT
    yield "energies doubled", {"heat": lambda t: t / 2}, "the law is that of 0.5 times the temperature"
    yield "energy of element 1 halved", {"energy": _only_element_0}, "the law of element 1 alone is wrong"
    yield "densities of the proposals left out", {"density": 0.0, "eps": 1.2}, UNFIT


def _of_hmc() -> Rows:
    yield "every proposal accepted", {"accept": lambda u, r: u < 2}, UNCORRECTED
    yield "sign of the acceptance", {"accept": lambda u, r: u.log() < -r, "leap": 1.3}, WRONG_SIGN
    yield "temperature ignored", {"heat": lambda t: 0 * t + 1, "momentum_heat": lambda t: 0 * t + 1}, IGNORED_HEAT
    yield "kinetic energy left out", {"kinetic": 0.0, "leap": 1.2}, UNFIT
    yield "one momentum for all steps", {"noise": noise_of(step=lambda s: 0)}, "draws the same random numbers as step 1"


def _of_gibbs() -> Rows:
    yield "one number for all units", {"chance": lambda u: u[:, :1].expand(-1, 5)}, TOGETHER
    yield "numbers used in two steps, from step 2", {"noise": _units_of(_repeated_from_step_2)}, NEIGHBOURS
    yield "hidden units never drawn", {"hidden": False}, "no chain ever changed element 3"
    yield "sign of the energy", {"change": _negated}, "the law is that of the energy with the opposite sign"
    yield "bias of unit 1", {"change": _bias_of_unit_1}, "the law of element 1 alone is wrong"
    yield "biases not divided by T", {"bias_temperature": lambda t: 1.0}, "a term is not divided by it"


# ---- the errors of which power is measured

FACTORS = (1.01, 1.02, 1.05, 1.1)


def _correlated(correlation: float, chain: Callable[[State], Tensor]) -> Noise:
    """Noise of variance 1 that chains of equal ``chain`` share in part."""
    own, shared = noise_of(), noise_of(seed=lambda s: ~int(s["seed"]), chain=chain)
    return lambda s: (1 - correlation) ** 0.5 * own(s) + correlation**0.5 * shared(s)


def _blocks_from_step_8(state: State) -> Tensor:
    return noise_of(chain=(lambda s: chains_of(s) // 32) if state["step"] >= 8 else chains_of)(state)


def _row_0_as_chain_0(state: State) -> Tensor:
    return noise_of(chain=lambda s: torch.cat([torch.zeros(1, dtype=torch.int64), chains_of(s)[1:]]))(state)


def _growing(state: State, x: Tensor) -> Tensor:
    return 1.2 * x if state["step"] >= 16 else x


def _sometimes_far(state: State, x: Tensor) -> Tensor:
    return torch.where(uniforms(state["seed"], chains_of(state), -1 - state["step"], 1) < 2e-3, x + 100, x)


def _after(step: Step, change: Callable[[State, Tensor], Tensor]) -> Step:
    return lambda state, t: change(state, step(state, t))


def _without(row: int, column: int, factor: float, weights: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    weights = weights.clone()
    weights[row, column] *= factor
    return weights, b, c


def _biases_times(factor: float, weights: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return weights, factor * b, factor * c


def _energy_in(dtype: torch.dtype, stiffness: Tensor, x: Tensor) -> Tensor:
    return well_energy(stiffness, x).to(dtype).double()


def _times(factor: float, t: Any) -> Any:
    return factor * t


def power_library() -> list[Planted]:
    """Forty errors, from gross to slight."""
    noises: dict[str, Noise] = {
        "chain % 65536": noise_of(chain=lambda s: chains_of(s) % 65536),
        "chain % 4096": noise_of(chain=lambda s: chains_of(s) % 4096),
        "seed & 0xff": noise_of(seed=lambda s: s["seed"] & 0xFF),
        "step % 37": noise_of(step=lambda s: s["step"] % 37),
        "step & 0xff": noise_of(step=lambda s: s["step"] & 0xFF),
        "neighbours correlated by 0.2": _correlated(0.2, lambda s: chains_of(s) // 2),
        "chains at distance 2 correlated by 0.8": _correlated(0.8, lambda s: chains_of(s) // 4 * 2 + chains_of(s) % 2),
        "blocks of 32 share noise from step 8": _blocks_from_step_8,
        "row 0 of a call uses chain 0's noise": _row_0_as_chain_0,
    }
    wells = [langevin(f"Langevin: {name}", noise=noise) for name, noise in noises.items()]
    for words, change in (("times 1.2 from step 16", _growing), ("0.2 % of positions + 100", _sometimes_far)):
        wells.append(langevin(f"Langevin: {words}", advance=advance_by(_after(langevin_step(), change))))
    wells.append(mala("MALA: neighbours correlated by 0.5", noise=_correlated(0.5, lambda s: chains_of(s) // 2)))
    for factor in FACTORS:
        percent = f"{factor - 1:.0%} too large"
        wells += [
            langevin(f"Langevin: variance of the noise {percent}", heat=partial(_times, factor)),
            langevin(f"Langevin: drift {percent}", drift=0.5 * factor),
            mala(f"MALA: correction for the proposal {percent}", density=factor),
            hmc(f"HMC: kinetic energy {percent}", kinetic=factor),
        ]
    swaps = {
        "sign": lambda u, r: u.log() < -r,
        "always accepted": lambda u, r: u < 2,
        "half the exponent": lambda u, r: u.log() < r / 2,
    }
    wells += [mala(f"MALA with swaps: {name}", swap=accept) for name, accept in swaps.items()]
    wells += [
        mala(f"MALA: energies in {str(dtype)[6:]}", energy=partial(_energy_in, dtype))
        for dtype in (torch.float16, torch.bfloat16)
    ]
    units = [
        gibbs("Gibbs: hidden units never drawn", hidden=False),
        gibbs("Gibbs: all units drawn at once", at_once=True),
        gibbs("Gibbs: a bond lost", change=partial(_without, 0, 0, 0.0)),
        gibbs("Gibbs: a bond of a third lost", change=partial(_without, 2, 1, 0.0)),
        gibbs("Gibbs: a bond halved", change=partial(_without, 0, 0, 0.5)),
        *(
            gibbs(f"Gibbs: biases {factor - 1:.0%} too large", change=partial(_biases_times, factor))
            for factor in FACTORS[1:]
        ),
    ]
    return [*(Planted(each, gaussian) for each in wells), *(Planted(each, rbm) for each in units)]
