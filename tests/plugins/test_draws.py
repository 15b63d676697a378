"""``judge_draws`` passes correct samplers with their own random stream, and rejects wrong ones."""

import math

import numpy as np
import pytest
import torch
from boltzbench.harness import Status
from boltzbench.kernels.ising import pack_spins, unpack_spins
from boltzbench.kernels.spin_glass import energies, pack_walkers, unpack_walkers
from boltzbench.plugins.operations.langevin import sgld
from boltzbench.plugins.operations.machines import rbm_gibbs
from boltzbench.plugins.operations.spins import ising, spin_glass
from boltzbench.plugins.support import draws

CPU = torch.device("cpu")


def machine_inputs(chains=400, visible=24, hidden=18, sweeps=1, seed=0, scenario=""):
    return rbm_gibbs.make_inputs(rbm_gibbs._case(chains, visible, hidden, sweeps, scenario=scenario, seed=seed), CPU)


def sample(inputs, seed=0, *, bias_sign=1.0, beta=1.0, one_number_for_all_chains=False, shared=False):
    """Draws of a float64 sampler, which is correct with the default arguments."""
    generator = torch.Generator().manual_seed(seed)
    weights, b, c = (inputs[name].double() for name in ("weights", "visible_bias", "hidden_bias"))
    beta = beta * inputs["beta"]
    visible = start = inputs["states"].double()
    for _ in range(inputs["sweeps"]):
        p = torch.sigmoid(beta * (bias_sign * c + visible @ weights))
        u = torch.rand(p.shape, generator=generator, dtype=torch.float64)
        hidden = (u < p).double()
        p = torch.sigmoid(beta * (b + hidden @ weights.t()))
        v = torch.rand(p.shape, generator=generator, dtype=torch.float64)
        if shared:
            v = torch.cat((u, v), 1)[:, : p.shape[1]]
        if one_number_for_all_chains:
            v = v[:1].expand(p.shape)
        visible = (v < p).double()
        if "clamped" in inputs:
            visible = torch.where(inputs["clamped"], start, visible)
    p = torch.sigmoid(inputs["beta"] * (c + visible @ weights))
    states = {"visible": visible.to(torch.uint8), "hidden": hidden.to(torch.uint8)}
    return {**states, "hidden_probability": p.float()}


@pytest.mark.parametrize("scenario", ["", "clamped", "cold", "beta-zero"])
@pytest.mark.parametrize("sweeps", [1, 3])
def test_right_gibbs_draws_pass(scenario, sweeps):
    for seed in range(10):
        inputs = machine_inputs(sweeps=sweeps, seed=seed, scenario=scenario)
        verdict = rbm_gibbs.judge_draws(inputs, sample(inputs, seed))
        assert verdict.passed, verdict.message


@pytest.mark.parametrize("sizes", [(1, 1, 1), (0, 3, 2), (3, 2, 0)])
def test_few_gibbs_draws_pass(sizes):
    inputs = machine_inputs(*sizes)
    assert rbm_gibbs.judge_draws(inputs, sample(inputs)).passed


@pytest.mark.parametrize(
    "wrong",
    [{"bias_sign": -1.0}, {"beta": 0.5}, {"beta": 2.0}, {"one_number_for_all_chains": True}, {"shared": True}],
    ids=str,
)
def test_wrong_gibbs_draws_are_rejected(wrong):
    inputs = machine_inputs(chains=4000)
    assert rbm_gibbs.judge_draws(inputs, sample(inputs, **wrong)).status is Status.WRONG_LAW


def test_wrong_gibbs_values_are_rejected():
    inputs = machine_inputs(scenario="clamped")
    right = sample(inputs)
    moved = torch.where(inputs["clamped"], 1 - inputs["states"], right["visible"])
    for wrong, words in (
        ({"visible": right["visible"] | 2}, "visible holds a state other than 0 and 1"),
        ({"visible": moved}, "a clamped visible unit has moved"),
        ({"hidden_probability": right["hidden_probability"] + 0.001}, "hidden_probability is off by 0.001"),
        ({"hidden_probability": right["hidden_probability"] * torch.nan}, "hidden_probability is off by inf"),
    ):
        verdict = rbm_gibbs.judge_draws(inputs, right | wrong)
        assert verdict.status is Status.WRONG_VALUES
        assert words in verdict.message


def flip_probability(exponent, rule):
    """``exponent``: the change of energy over the temperature."""
    return torch.exp(-exponent).clamp(max=1) if rule == "metropolis" else torch.sigmoid(-exponent)


def lattice_inputs(lattices=64, side=16, sweeps=1, scenario="", seed=0):
    return ising.make_inputs(ising._case(lattices, side, side, sweeps, scenario, seed=seed), CPU)


def sweep_lattices(
    inputs, seed=0, *, colours=(0, 1), beta=1.0, shared=False, alike=False, rule=None, still_rows=0, axes=(1, 2)
):
    """Spins of a float64 sampler, which is correct with the default arguments."""
    generator = torch.Generator().manual_seed(seed)
    s = unpack_spins(inputs["spins"], inputs["width"]).double()
    parity = (torch.arange(s.shape[1])[:, None] + torch.arange(s.shape[2])) % 2
    moves = torch.arange(s.shape[1])[:, None] >= still_rows
    for _ in range(inputs["sweeps"]):
        u = torch.rand(s.shape, generator=generator, dtype=torch.float64)
        for colour in colours:
            around = sum(s.roll(shift, axis) for shift in (1, -1) for axis in axes)
            change = 2 * s * (inputs["coupling"] * around + inputs["field"])
            exponent = torch.where(change.abs() < 1e-9, 0.0, beta * inputs["beta"][:, None, None] * change)
            p = flip_probability(exponent, rule or inputs["rule"])
            u = u.roll(1, 2) if shared else torch.rand(s.shape, generator=generator, dtype=torch.float64)
            u = u[:1].expand(u.shape) if alike else u
            s = torch.where((u < p) & (parity == colour) & moves, -s, s)
    return {"advanced": pack_spins(s)}


@pytest.mark.parametrize(
    "scenario", ["", "metropolis", "field", "metropolis-field", "antiferromagnet", "beta-infinite"]
)
@pytest.mark.parametrize("sweeps", [1, 3])
def test_right_lattices_pass(scenario, sweeps):
    for seed in range(5):
        for lattices, side in ((64, 16), (2, 64), (9, 2)):
            inputs = lattice_inputs(lattices, side, sweeps, scenario, seed)
            verdict = ising.judge_draws(inputs, sweep_lattices(inputs, seed))
            assert verdict.passed, verdict.message


@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("rule", ["", "metropolis"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"beta": 0.7}, {"beta": -1.0}, {"colours": (0,)}, {"axes": (1, 1)},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("shape", [(64, 16), (1, 128)], ids=str)
def test_wrong_lattices_are_rejected(wrong, rule, sweeps, shape):
    inputs = lattice_inputs(*shape, sweeps, rule)
    inputs["beta"] = torch.full_like(inputs["beta"], 0.4)
    assert ising.judge_draws(inputs, sweep_lattices(inputs, **wrong)).status is Status.WRONG_LAW


@pytest.mark.parametrize(
    "wrong",
    [{"alike": True}, {"shared": True}, {"rule": "metropolis"}, {"colours": (1, 0)}, {"still_rows": 2}],
    ids=str,
)
def test_wrong_draws_of_one_sweep_are_rejected(wrong):
    inputs = lattice_inputs(256)
    assert ising.judge_draws(inputs, sweep_lattices(inputs, **wrong)).status is Status.WRONG_LAW


@pytest.mark.parametrize("rule", ["", "metropolis"])
def test_a_sweep_too_many_is_rejected(rule):
    inputs = lattice_inputs(1000, 16, 2, rule)
    assert ising.judge_draws(inputs, sweep_lattices(inputs)).passed
    assert ising.judge_draws(inputs, sweep_lattices({**inputs, "sweeps": 3})).status is Status.WRONG_LAW


@pytest.mark.parametrize("scenario", ["beta-infinite", "metropolis-beta-infinite"])
def test_one_impossible_spin_is_rejected(scenario):
    inputs = lattice_inputs(scenario=scenario)
    right = unpack_spins(sweep_lattices(inputs)["advanced"], 16)
    aligned = right * (right.roll(1, 1) + right.roll(-1, 1) + right.roll(1, 2) + right.roll(-1, 2)) == 4
    lattice, row, column = (aligned & ((torch.arange(16)[:, None] + torch.arange(16)) % 2 == 1)).nonzero()[0]
    right[lattice, row, column] *= -1
    verdict = ising.judge_draws(inputs, {"advanced": pack_spins(right)})
    assert verdict.status is Status.WRONG_LAW
    assert "odd sites: 1 of 8192 have a probability below" in verdict.message


def test_a_bit_without_a_site_is_rejected():
    inputs = lattice_inputs()
    outputs = sweep_lattices(inputs)
    outputs["advanced"][3, 1, 2, 0] |= 1 << 20
    assert ising.judge_draws(inputs, outputs).status is Status.WRONG_VALUES


def glass_inputs(spins=9, walkers=1024, sweeps=1, scenario="", seed=0):
    inputs = spin_glass.make_inputs(spin_glass._case(spins, walkers, sweeps, scenario, seed=seed), CPU)
    return {**inputs, "temperatures": inputs["temperatures"].clamp(min=2)}


def anneal(inputs, seed=0, *, heat=1.0, rule=None, backwards=False, alike=False, still=()):
    generator = torch.Generator().manual_seed(seed)
    s, couplings = unpack_walkers(inputs["spins"]).double(), inputs["couplings"].double()
    fields = torch.zeros(len(couplings)) if inputs["fields"] is None else inputs["fields"].double()
    order = [i for i in range(len(couplings)) if i not in still]
    for temperature in inputs["temperatures"]:
        for i in reversed(order) if backwards else order:
            change = 2 * s[:, i] * (s @ couplings[i] + fields[i])
            u = torch.rand(len(s), generator=generator, dtype=torch.float64)
            u = u[:1].expand(len(s)) if alike else u
            flips = u < flip_probability(change / (heat * temperature), rule or inputs["rule"])
            s[:, i] = torch.where(flips, -s[:, i], s[:, i])
    words = pack_walkers(s)
    return {"annealed": words, "energies": energies(words, inputs["couplings"], inputs["fields"])}


@pytest.mark.parametrize("scenario", ["", "metropolis", "real", "metropolis-real", "dense", "cold", "large-hot"])
@pytest.mark.parametrize("sweeps", [1, 4])
def test_right_walkers_pass(scenario, sweeps):
    for seed in range(5):
        for spins, walkers in ((9, 1024), (1, 32), (4, 32)):
            inputs = glass_inputs(spins, walkers, sweeps, scenario, seed)
            verdict = spin_glass.judge_draws(inputs, anneal(inputs, seed))
            assert verdict.passed, verdict.message


@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("rule", ["", "metropolis"])
@pytest.mark.parametrize("scenario", ["", "real"])
@pytest.mark.parametrize("wrong", [{"heat": 2.0}, {"still": (4,)}, {"alike": True}], ids=str)
def test_wrong_walkers_are_rejected(wrong, scenario, rule, sweeps):
    inputs = glass_inputs(9, 4096, sweeps, "-".join(filter(None, (rule, scenario))))
    assert spin_glass.judge_draws(inputs, anneal(inputs, **wrong)).status is Status.WRONG_LAW


def test_another_order_of_the_spins_is_rejected():
    inputs = glass_inputs(9, 4096)
    assert spin_glass.judge_draws(inputs, anneal(inputs, backwards=True)).status is Status.WRONG_LAW


@pytest.mark.parametrize("value", [math.nan, math.inf, 2.0])
def test_wrong_energies_of_walkers_are_rejected(value):
    inputs = glass_inputs()
    outputs = anneal(inputs)
    outputs["energies"][13] += value
    verdict = spin_glass.judge_draws(inputs, outputs)
    assert verdict.status is Status.WRONG_VALUES
    assert "walker 13 has" in verdict.message


def langevin_inputs(elements=20000, tensors=1, dtype="float32", scenario="", seed=0):
    return sgld.make_inputs(sgld._case(tensors, elements, dtype, scenario, seed=seed), CPU)


def step(inputs, seed=0, *, spread=1.0, drift=1.0, noise=lambda z: z, one_noise=False):
    generator = torch.Generator().manual_seed(seed)
    outputs, scale = {}, spread * math.sqrt(inputs["step_size"] * inputs["temperature"])
    tensors = (name for name in inputs if name.startswith("parameter"))
    for name in tensors:
        x, g = inputs[name], inputs[name.replace("parameter", "gradient")]
        if one_noise:
            generator.manual_seed(seed)
        z = noise(torch.randn(x.shape, generator=generator, dtype=torch.float64))
        moved = x.double() - drift * 0.5 * inputs["step_size"] * g.double() + scale * z
        outputs[name] = moved.to(x.dtype)
    return outputs


@pytest.mark.parametrize("scenario", ["", "cold", "hot", "outliers", "nan"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_right_noise_passes(dtype, scenario):
    if scenario == "outliers" and dtype == "float16":
        return  # beyond its range
    for seed in range(5):
        inputs = langevin_inputs(dtype=dtype, scenario=scenario, seed=seed)
        verdict = sgld.judge_draws(inputs, step(inputs, seed))
        assert verdict.passed, verdict.message


@pytest.mark.parametrize("elements", [0, 1, 3])
def test_little_noise_passes(elements):
    inputs = langevin_inputs(elements)
    assert sgld.judge_draws(inputs, step(inputs)).passed


@pytest.mark.parametrize(
    "wrong",
    [
        {"spread": 1.1},
        {"spread": 0.0},
        {"drift": -1.0},
        {"drift": 0.5},
        {"noise": lambda z: (z + z.roll(1)) / math.sqrt(2)},
        {"noise": lambda z: z[:77].repeat(1 + len(z) // 77)[: len(z)]},
        {"noise": lambda z: (12**0.5) * (torch.special.ndtr(z) - 0.5)},
        {"noise": lambda z: z.abs()},
    ],
    ids=["too wide", "none", "uphill", "half the drift", "neighbours", "repeated", "uniform", "one-sided"],
)
def test_wrong_noise_is_rejected(wrong):
    inputs = langevin_inputs()
    assert sgld.judge_draws(inputs, step(inputs, **wrong)).status is Status.WRONG_LAW


def test_noise_shared_by_tensors_is_rejected():
    inputs = langevin_inputs(tensors=2)
    assert sgld.judge_draws(inputs, step(inputs)).passed
    verdict = sgld.judge_draws(inputs, step(inputs, one_noise=True))
    assert verdict.status is Status.WRONG_LAW
    assert "that of parameter_0" in verdict.message


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("scenario", ["", "cold", "nan"])
def test_one_element_far_off_is_rejected(scenario, value):
    inputs = langevin_inputs(scenario=scenario)
    outputs = step(inputs)
    outputs["parameter_0"][13] = value
    verdict = sgld.judge_draws(inputs, outputs)
    assert verdict.status is Status.WRONG_VALUES
    assert "element 13 is " in verdict.message


def test_noise_at_temperature_zero_is_rejected():
    inputs = langevin_inputs(scenario="cold")
    outputs = step(inputs)
    outputs["parameter_0"] *= 1 + 1e-5
    assert sgld.judge_draws(inputs, outputs).status is Status.WRONG_VALUES


def test_bernoulli_scores_are_standard_normal():
    generator = np.random.Generator(np.random.SFC64(1))
    p = torch.from_numpy(generator.random((200, 500)))
    drawn = torch.from_numpy(generator.random((200, 500))) < p
    z = draws.bernoulli_scores(drawn, p, generator)
    assert abs(float(z.mean())) < 0.02
    assert abs(float(z.var()) - 1) < 0.03
    impossible = draws.bernoulli_scores(torch.ones(9, 9), torch.zeros(9, 9), generator)
    assert bool((impossible < -5).all())
