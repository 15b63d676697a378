"""``judge_draws`` passes correct samplers with their own random stream, and rejects wrong ones."""

import math

import numpy as np
import pytest
import torch
from boltzbench.harness import Status
from boltzbench.plugins.operations.langevin import sgld
from boltzbench.plugins.operations.machines import rbm_gibbs
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
