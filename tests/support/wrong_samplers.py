"""Samplers with one bug each, on small targets with exact laws, and right ones that look odd.

`WRONG` names for each bug the claim of `validate` that must fail because of it. The pieces are those of
`small_well.py` and `small_discrete.py` in `harness/validation/calibration`; `planted_errors.py` there holds more bugs,
with their causes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from boltzbench.harness import Dynamics, ExactLaw, Projection, Sampler, Status, Target, temperature_at
from boltzbench.harness.validation.calibration.small_discrete import flip_mostly_up, four_states, gibbs, metropolis, rbm
from boltzbench.harness.validation.calibration.small_samplers import (
    Advance,
    Noise,
    State,
    advance_by,
    as_normal,
    begin,
    chains_of,
    only,
    uniform_noise,
    uniforms,
)
from boltzbench.harness.validation.calibration.small_well import gaussian, langevin, langevin_step, mala, noise_of
from scipy.special import ndtr, stdtr
from torch import Tensor

Change = Callable[[State, int, Any], Any]

RIGHT = [(langevin(), gaussian), (metropolis(), four_states), (gibbs(), rbm)]


@dataclass(frozen=True)
class Wrong:
    """A sampler with one bug, and the claim (how it begins, and its status) that fails for it."""

    sampler: Sampler
    target: Callable[[], Target]
    claim: str
    status: Status
    message: str = ""
    chains: int = 20_000


def _with(change: Change) -> Advance:
    """Langevin dynamics at the temperature ``change(state, steps, temperature)``, which may also change the state."""
    right = advance_by(langevin_step())

    def advance(state: Any, steps: int, temperature: Any) -> State:
        return right(state, steps, change(state, steps, temperature))

    return advance


def _each_step(change: Callable[[State, Tensor], Tensor]) -> Advance:
    step = langevin_step()
    return advance_by(lambda state, t: change(state, step(state, t)))


def _nan_at_step_seven(state: State, x: Tensor) -> Tensor:
    x[(chains_of(state) == 3) & torch.tensor(state["step"] == 6)] = math.nan
    return x


def _one_stuck(state: State, x: Tensor) -> Tensor:
    return torch.where((chains_of(state) == 5)[:, None], state["x"], x)


def _rest_stuck(state: State, x: Tensor) -> Tensor:
    return torch.where((chains_of(state) >= 19_000)[:, None], state["x"], x)


def _far_off(state: State, x: Tensor) -> Tensor:
    u = uniforms(state["seed"], chains_of(state), -1 - state["step"], 1)
    return torch.where(u < 1e-4, x + 1e6, x)


def _growing_after_step_16(state: State, x: Tensor) -> Tensor:
    return 1.2 * x if state["step"] >= 16 else x


def _sometimes_far_after_step_16(state: State, x: Tensor) -> Tensor:
    u = uniforms(state["seed"], chains_of(state), -1 - state["step"], 2)
    return torch.where((u < 2e-3) & torch.tensor(state["step"] >= 16), x + 100, x)


def _previous_temperature(state: State, steps: int, temperature: Any) -> Any:
    before = state["temperature"]
    state["temperature"] = temperature
    return temperature if before is None else before


def _first_temperature(state: State, steps: int, temperature: Any) -> Any:
    if state["temperature"] is None:
        state["temperature"] = temperature
    return state["temperature"]


def _restarted(state: State, steps: int, temperature: Any) -> Any:
    state["step"] = 0
    return temperature


def _first_of_temperatures(state: State, steps: int, temperature: Any) -> Any:
    one_for_each = isinstance(temperature, torch.Tensor) and temperature.dim() == 1
    return float(temperature[0]) if one_for_each else temperature


def _first_row(state: State, steps: int, temperature: Any) -> Any:
    return temperature_at(temperature, 0)


def _no_tensors(state: State, steps: int, temperature: Any) -> Any:
    return float(temperature)


def _spoiled_target(state: State, steps: int, temperature: Any) -> Any:
    state["target"].parameters["stiffness"].mul_(1.001)
    return temperature


def _batch_noise(state: State) -> Tensor:
    generator = torch.Generator().manual_seed(state["seed"] * 7919 + state["step"])
    return torch.randn(*state["x"].shape, generator=generator, dtype=torch.float64).flip(0)


def _correlated(correlation: float, chain: Callable[[State], Tensor]) -> Noise:
    """Noise of variance 1 that chains of equal ``chain`` share in part."""
    own, shared = noise_of(), noise_of(seed=lambda s: ~int(s["seed"]), chain=chain)
    return lambda s: (1 - correlation) ** 0.5 * own(s) + correlation**0.5 * shared(s)


def _blocks_from_step_8(state: State) -> Noise | Tensor:
    return noise_of(chain=(lambda s: chains_of(s) // 32) if state["step"] >= 8 else chains_of)(state)


def _row_0_as_chain_0(state: State) -> Tensor:
    return noise_of(chain=lambda s: torch.cat([torch.zeros(1, dtype=torch.int64), chains_of(s)[1:]]))(state)


def _shared_state() -> Noise:
    """Keeps its step counter in the sampler and not in the state."""
    counter = {"step": 0}

    def step(state: State) -> int:
        counter["step"] += 1
        return counter["step"]

    return noise_of(step=step)


LAW, VALUES = Status.WRONG_LAW, Status.WRONG_VALUES

WRONG = [
    Wrong(
        langevin("one noise for all chains", noise=noise_of(chain=lambda s: 0)), gaussian, "independent streams", LAW
    ),
    Wrong(
        langevin("neighbours share noise", noise=noise_of(chain=lambda s: chains_of(s) // 2)),
        gaussian,
        "independent",
        LAW,
    ),
    Wrong(langevin("eps, not eps / 2", drift=1.0), gaussian, "law of", LAW),
    Wrong(
        langevin("seed + step", noise=noise_of(lambda s: s["seed"] + s["step"], step=lambda s: 0)),
        gaussian,
        "independent",
        LAW,
    ),
    Wrong(
        langevin("seed + chain", noise=noise_of(lambda s: 0, lambda s: chains_of(s) + s["seed"])),
        gaussian,
        "independent",
        LAW,
    ),
    Wrong(
        langevin("first_chain ignored", noise=noise_of(chain=lambda s: torch.arange(len(s["x"])))),
        gaussian,
        "any split of chains",
        VALUES,
    ),
    Wrong(langevin("order of chains", noise=_batch_noise), gaussian, "any split of chains", VALUES),
    Wrong(langevin("seed ignored", noise=noise_of(seed=lambda s: 0)), gaussian, "another seed", VALUES),
    Wrong(
        langevin("uniform noise", noise=lambda s: (uniform_noise(s)[:, :2] - 0.5) * 12**0.5), gaussian, "law of", LAW
    ),
    Wrong(langevin("noise variance 3 % off", heat=lambda t: 1.03 * t), gaussian, "mean of x", LAW, "", 200_000),
    Wrong(
        langevin("correlated elements", noise=lambda s: as_normal(uniform_noise(s)[:, :1]).expand(-1, 2)),
        gaussian,
        "spread of x_0 + x_1",
        LAW,
    ),
    Wrong(
        langevin("global generator", noise=lambda s: torch.randn(*s["x"].shape).double()), gaussian, "same seed", VALUES
    ),
    Wrong(langevin("steps counted by the sampler", noise=_shared_state()), gaussian, "same seed", VALUES),
    Wrong(langevin("steps counted by the call", advance=_with(_restarted)), gaussian, "any split of steps", VALUES),
    Wrong(
        langevin("previous temperature", advance=_with(_previous_temperature)), gaussian, "any split of steps", VALUES
    ),
    Wrong(langevin("first temperature", advance=_with(_first_temperature)), gaussian, "temperature matters", VALUES),
    Wrong(
        langevin("first chain's temperature", advance=_with(_first_of_temperatures)),
        gaussian,
        "a temperature for each chain",
        VALUES,
    ),
    Wrong(
        langevin("no tensor of temperatures", advance=_with(_no_tensors)),
        gaussian,
        "a temperature for each chain",
        Status.ERROR,
    ),
    Wrong(
        langevin("target modified", advance=_with(_spoiled_target)),
        gaussian,
        "form",
        Status.MODIFIED_INPUT,
        "step 1: the target's parameter 'stiffness'",
    ),
    Wrong(
        langevin("nan", advance=_each_step(_nan_at_step_seven)),
        gaussian,
        "form",
        VALUES,
        "step 7, chain 3: nan, which is not finite",
    ),
    Wrong(
        langevin("float64", advance=_each_step(lambda s, x: x.double())),
        gaussian,
        "form",
        Status.WRONG_DTYPE,
        "step 1: torch.float64",
    ),
    Wrong(
        langevin("shape", advance=_each_step(lambda s, x: x[:, :1])),
        gaussian,
        "form",
        Status.WRONG_SHAPE,
        "step 1: shape (64, 1), not (64, 2)",
    ),
    Wrong(
        langevin("another start", lambda target, start, *a: begin(target, start + 0.1, *a)),
        gaussian,
        "form",
        VALUES,
        "init, chain 0",
    ),
    Wrong(langevin("chain 5 stuck", advance=_each_step(_one_stuck)), gaussian, "moves", LAW, "chain 5 never moved"),
    Wrong(
        langevin("first row of a schedule", advance=_with(_first_row)), gaussian, "a temperature for each step", VALUES
    ),
    Wrong(
        replace(gibbs("clamped unit drawn"), clamps=True),
        lambda: replace(rbm(), clamped=torch.arange(5) == 1),
        "form",
        VALUES,
        "step 1, chain ",
    ),
    Wrong(
        langevin(
            "chains in groups of four", noise=noise_of(chain=lambda s: s["first"] // 4 * 4 + torch.arange(len(s["x"])))
        ),
        gaussian,
        "any split of chains",
        VALUES,
    ),
    Wrong(
        langevin("seed * 1000 + chain", noise=noise_of(lambda s: 0, lambda s: s["seed"] * 1000 + chains_of(s))),
        gaussian,
        "independent streams",
        LAW,
        "chain ",
    ),
    Wrong(
        langevin("noise again after 32 steps", noise=noise_of(step=lambda s: s["step"] % 32)),
        gaussian,
        "fresh noise in every step",
        LAW,
        "step 33 draws the same random numbers as step 1",
    ),
    *(
        Wrong(langevin(name, noise=noise), gaussian, claim, status, message, 4000)
        for name, noise, claim, status, message in (
            ("chain % 65536", noise_of(chain=lambda s: chains_of(s) % 65536), "independent streams", LAW, ""),
            ("step & 0xff", noise_of(step=lambda s: s["step"] & 0xFF), "fresh noise", LAW, "step 257 draws"),
            ("step % 512", noise_of(step=lambda s: s["step"] % 512), "fresh noise", LAW, "step 513 draws"),
            ("row 0 of a call is chain 0", _row_0_as_chain_0, "any split of chains", VALUES, "after one step, "),
        )
    ),
    *(
        Wrong(langevin(name, noise=noise), gaussian, "independent chains", LAW, message, 40_000)
        for name, noise, message in (
            (
                "pairs correlated by 0.2",
                _correlated(0.2, lambda s: chains_of(s) // 2),
                "element ",
            ),
            (
                "second neighbours by 0.8",
                _correlated(0.8, lambda s: chains_of(s) // 4 * 2 + chains_of(s) % 2),
                "element ",
            ),
            ("blocks of 32 from step 8", _blocks_from_step_8, "element "),
        )
    ),
    Wrong(
        mala("neighbours correlated by 0.5", noise=_correlated(0.5, lambda s: chains_of(s) // 2)),
        gaussian,
        "independent chains",
        LAW,
        "element ",
        40_000,
    ),
    Wrong(langevin("last chains stuck", advance=_each_step(_rest_stuck)), gaussian, "idle chains anywhere", LAW),
    Wrong(langevin("far off, rarely", advance=_each_step(_far_off)), gaussian, "mean of x_0", LAW, "measured "),
    Wrong(
        langevin("grows after 16 steps", advance=_each_step(_growing_after_step_16)),
        gaussian,
        "mean of x_0^2 after 64 steps",
        LAW,
        chains=4000,
    ),
    Wrong(
        langevin("far off after 16 steps", advance=_each_step(_sometimes_far_after_step_16)),
        gaussian,
        "mean of x_0 after 64 steps",
        LAW,
        chains=4000,
    ),
    Wrong(metropolis("accepts always", lambda u, r, s: u < 2), four_states, "law of state", LAW),
    Wrong(metropolis("accepts never", lambda u, r, s: u > 2), four_states, "moves", LAW),
    Wrong(metropolis("inverted ratio", lambda u, r, s: u.log() < -r), four_states, "law of state", LAW),
    Wrong(metropolis("uncorrected proposal", propose=flip_mostly_up), four_states, "law of state", LAW),
    Wrong(
        metropolis("barker's ratio with metropolis' sign", lambda u, r, s: u < torch.sigmoid(2 * r)),
        four_states,
        "law of state",
        LAW,
    ),
    Wrong(gibbs("a unit of 2", after=lambda x, u: torch.where(u < 0.01, 2, x)), rbm, "form", VALUES, "step "),
    Wrong(gibbs("sign of a bias", sign=-1.0), rbm, "law of state", LAW),
    Wrong(gibbs("thresholds", chance=lambda u: u * 0 + 0.5), rbm, "independent streams", LAW),
]


# Right samplers that look odd: few values of a move, starts that are hard to leave, a law with a heavy tail.


def on_a_line(name: str, law: Any, energy: Callable[[Tensor], Tensor]) -> Target:
    """A target on a line with the law ``law`` of scipy, or a function of a generator, and its mean square."""
    draw, cdf, square = law

    def exact(temperature: float, dynamics: Dynamics) -> ExactLaw:
        squares = Projection("x^2", lambda x: x[:, 0].double() ** 2, mean=square)
        return ExactLaw(draw, (Projection("x", lambda x: x[:, 0].double(), cdf=cdf, mean=0.0), squares))

    return Target(name, "", "", "", name, (1,), "float32", {}, lambda x: energy(x[:, 0].double()), exact)


def normal_on_a_line() -> Target:
    law = (lambda n, g: torch.randn(n, 1, generator=g), ndtr, 1.0)
    return on_a_line("normal", law, lambda x: x**2 / 2)


SPIKE = 2e-4


def spike_in_a_normal() -> Target:
    """0.9 N(0, 1) + 0.1 N(0, 4e-8)."""

    def draw(chains: int, generator: torch.Generator) -> Tensor:
        narrow = torch.rand(chains, 1, generator=generator) < 0.1
        return torch.randn(chains, 1, generator=generator) * torch.where(narrow, SPIKE, 1.0)

    def energy(x: Tensor) -> Tensor:
        return -torch.log(0.9 * torch.exp(-(x**2) / 2) + 0.1 / SPIKE * torch.exp(-((x / SPIKE) ** 2) / 2))

    return on_a_line("spike", (draw, lambda x: 0.9 * ndtr(x) + 0.1 * ndtr(x / SPIKE), 0.9 + 0.1 * SPIKE**2), energy)


def student_t6() -> Target:
    def draw(chains: int, generator: torch.Generator) -> Tensor:
        squares = torch.randn(chains, 6, generator=generator, dtype=torch.float64).square().mean(1, keepdim=True)
        return torch.randn(chains, 1, generator=generator, dtype=torch.float64) / squares.sqrt()

    return on_a_line("t6", (draw, lambda x: stdtr(6, x), 1.5), lambda x: 3.5 * torch.log1p(x**2 / 6))


def walk(name: str, kind: str, proposal: Callable[[Tensor], Tensor], reflected: bool = False) -> Sampler:
    """Metropolis at temperature 1 for any temperature: its law does not depend on it, nor do these targets'."""

    def step(state: State, t: Any) -> Tensor:
        u, x, energy = uniform_noise(state), state["x"], state["target"].energy
        y = (x.double() + proposal(u[:, :1])).float()
        x = torch.where(u[:, 1:].log() < ((energy(x) - energy(y))[:, None] / t), y, x)
        return -x if reflected else x

    return Sampler(name, "", "", "torch", begin, advance_by(step), refuses=only(kind))


def independent_t6() -> Sampler:
    def step(state: State, t: Any) -> Tensor:
        noise = as_normal(uniforms(state["seed"], chains_of(state), state["step"], 7))
        drawn: Tensor = noise[:, :1] / noise[:, 1:].square().mean(1, keepdim=True).sqrt() * (t if state else 1.0)
        return drawn.float()

    return Sampler("independent draws", "", "", "torch", begin, advance_by(step), refuses=only("t6"))


ODD = [
    (walk("steps of 3/8", "normal", lambda u: torch.where(u < 0.5, -0.375, 0.375)), normal_on_a_line),
    (walk("reflected walk", "normal", lambda u: 2.4 * as_normal(u), reflected=True), normal_on_a_line),
    (walk("long steps", "spike", lambda u: 1.5 * as_normal(u)), spike_in_a_normal),
    (independent_t6(), student_t6),
]


def ar1(name: str, correlation: float, seconds: float, clock: Any) -> Sampler:
    """x' = a x + sqrt((1 - a^2) T) xi in a unit well, each step taking ``seconds`` of a clock that it moves on."""

    def step(state: State, t: Any) -> Tensor:
        clock.now += seconds
        noise = as_normal(uniforms(state["seed"], chains_of(state), state["step"], 1))
        x: Tensor = state["x"].double()
        return (correlation * x + ((1 - correlation**2) * torch.as_tensor(t)).sqrt() * noise).float()

    return Sampler(name, "AR(1).", "Yule 1927", "torch", begin, advance_by(step))
