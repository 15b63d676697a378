"""The suite's samplers: invariant laws, bit-identical results for every split of a run, agreement of backends."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from boltzbench.harness import Sampler, Target, chi_square
from boltzbench.kernels.common import dispatch
from boltzbench.plugins.exact.ising import all_states
from boltzbench.plugins.exact.states import all_units, number_of
from boltzbench.plugins.operations.machines import boltzmann_gibbs
from boltzbench.plugins.samplers import discrete, langevin, metropolis
from boltzbench.plugins.samplers.langevin import ELEMENTS_OF_A_TENSOR
from boltzbench.plugins.support.samplers import curvatures
from scipy import stats

CPU = torch.device("cpu")
FALSE_ALARM = 1e-6
FAR = 98306 * (ELEMENTS_OF_A_TENSOR // 3) - 3  # beyond 2**31 elements, three chains before the end of an sgld tensor
SAMPLERS = (*discrete.SAMPLERS, *langevin.SAMPLERS, *metropolis.SAMPLERS)
BY_NAME = {sampler.name: sampler for sampler in SAMPLERS}


def target(name, kind, shape, dtype, energy, **parameters):
    return Target(name, "", "", "", kind, shape, dtype, parameters, energy, lambda temperature, dynamics: None)


def gaussian(curvatures, dtype="float32"):
    k = torch.tensor(curvatures, dtype=getattr(torch, dtype))
    return target("gaussian", "continuous", (len(k),), dtype, lambda x: 0.5 * (k * x * x).sum(1))


def rbm():
    w = torch.tensor([[1.2, -0.7], [0.4, 0.9], [-1.5, 0.3]])
    b, c = torch.tensor([0.2, -0.5, 0.1]), torch.tensor([-0.3, 0.6])

    def energy(x):
        v, h = x[:, :3].float(), x[:, 3:].float()
        return -(v @ b) - h @ c - ((v @ w) * h).sum(1)

    return target("rbm", "rbm", (5,), "uint8", energy, weights=w, visible_bias=b, hidden_bias=c)


def ising(length=4, coupling=0.8):
    def energy(x):
        s = x.float()
        return -coupling * (s * (s.roll(1, 1) + s.roll(1, 2))).sum((1, 2))

    return target("ising", "ising", (length, length), "int8", energy, length=length, coupling=coupling)


DOUBLE_WELL = target("double-well", "continuous", (1,), "float32", lambda x: ((x * x - 1) ** 2).sum(1))
LOGISTIC = target(
    "logistic", "continuous", (3,), "float32", lambda x: torch.nn.functional.softplus(x).sum(1) + 0.1 * (x * x).sum(1)
)


def target_for(sampler: Sampler):
    return next(t for t in (LOGISTIC, rbm(), ising()) if sampler.refuses(t) is None)


def start_for(target, chains, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((chains, *target.shape), generator=generator)
    if target.torch_dtype.is_floating_point:
        return x.to(target.torch_dtype)
    return ((x > 0).to(target.torch_dtype)) if target.kind == "rbm" else x.sign().to(target.torch_dtype)


def run(sampler, target, start, steps, temperature, seed=5, first_chain=0):
    return sampler.advance(sampler.init(target, start, seed, first_chain), steps, temperature)


def available(sampler):
    reason = dispatch.unavailable(sampler.backend, CPU)  # also of a sampler that is not judged on a CPU
    return pytest.param(sampler, id=sampler.name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


every_sampler = pytest.mark.parametrize("sampler", [available(sampler) for sampler in SAMPLERS])


# ---- properties of every sampler


@every_sampler
def test_any_split_of_chains_and_steps_gives_the_same_bits(sampler):
    law = target_for(sampler)
    start = start_for(law, 7)
    kept = start.clone()
    temperature = torch.tensor([0.5, 2.0, 0.5, 2.0, 1.0, 1.0, 0.5])
    whole = run(sampler, law, start, 3, temperature, first_chain=FAR)
    assert torch.equal(start, kept)
    again = run(sampler, law, start, 3, temperature, first_chain=FAR)
    assert torch.equal(whole["x"], again["x"])

    parts = []
    for first, end in ((0, 2), (2, 3), (3, 7)):
        state = sampler.init(law, start[first:end], 5, FAR + first)
        for steps in (1, 0, 2):
            state = sampler.advance(state, steps, temperature[first:end])
        parts.append(state["x"])
    assert torch.equal(torch.cat(parts), whole["x"])

    shifted = run(sampler, law, start, 3, temperature, first_chain=FAR + 7)
    other_seed = run(sampler, law, start, 3, temperature, seed=6, first_chain=FAR)
    assert not torch.equal(shifted["x"], whole["x"])
    assert not torch.equal(other_seed["x"], whole["x"])


@every_sampler
def test_each_chain_has_its_own_temperature(sampler):
    law = target_for(sampler)
    start = start_for(law, 6)
    temperature = torch.tensor([0.5, 2.0, 0.5, 2.0, 2.0, 0.5])
    mixed = run(sampler, law, start, 2, temperature)["x"]
    for value in (0.5, 2.0):
        alike = run(sampler, law, start, 2, value)["x"]
        assert torch.equal(mixed[temperature == value], alike[temperature == value])
    with pytest.raises(ValueError, match="temperature must"):
        run(sampler, law, start, 1, temperature[:3])
    with pytest.raises(ValueError, match="temperature must be finite"):
        run(sampler, law, start, 1, -1.0)


@every_sampler
def test_a_sampler_refuses_targets_that_it_does_not_support(sampler):
    accepted = [t.kind for t in (LOGISTIC, rbm(), ising()) if sampler.refuses(t) is None]
    assert len(accepted) == 1
    if accepted == ["ising"] and sampler.clamps is False:  # gibbs_by_colours sweeps any lattice
        assert "odd" in sampler.refuses(ising(length=5))
    with pytest.raises(ValueError, match="start must be"):
        sampler.init(target_for(sampler), torch.zeros(3, 99), 0, 0)


@pytest.mark.parametrize("name", ["block_gibbs", "sgld"])
@pytest.mark.parametrize("backend", ["triton", "cupy", "native"])
def test_backends_agree(name, backend):
    if reason := dispatch.unavailable(backend, CPU):
        pytest.skip(reason)
    ours, reference = BY_NAME[f"{name}_{backend}"], BY_NAME[f"{name}_torch"]
    law = target_for(ours)
    start = start_for(law, 40)
    a, b = (run(each, law, start, 3, 0.7, first_chain=FAR)["x"] for each in (ours, reference))
    if name == "block_gibbs":
        assert torch.equal(a, b)
    else:
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_native_samplers_draw_what_cuda_c_draws_and_replace_it_on_a_cpu():
    names = [name.removesuffix("_native") for name in BY_NAME if name.endswith("_native")]
    assert {"block_gibbs", "sgld", "ising_packed"} <= set(names)
    native, cuda_c = BY_NAME["ising_packed_native"], BY_NAME["ising_packed_cupy"]
    if native.unavailable(CPU) is not None:
        assert cuda_c.unavailable(CPU) == dispatch.unavailable("cupy", CPU)
        pytest.skip(native.unavailable(CPU))
    assert cuda_c.unavailable(CPU) == "emulated on a CPU, where ising_packed_native runs"
    assert BY_NAME["sgld_triton"].unavailable(CPU) == "interpreted on a CPU, where sgld_native runs"
    assert BY_NAME["sgld_torch"].unavailable(CPU) is None
    law = target_for(native)
    start = start_for(law, 40)
    assert torch.equal(*(run(each, law, start, 3, 0.7, first_chain=FAR)["x"] for each in (native, cuda_c)))


# ---- invariant laws, from exact starts


def require_law(values, cdf):
    p = stats.kstest(values.double().numpy(), cdf).pvalue
    assert p > FALSE_ALARM, p


def rejects(values, cdf):
    return stats.kstest(values.double().numpy(), cdf).pvalue < FALSE_ALARM


def normal_law(variance):
    return stats.norm(scale=math.sqrt(variance)).cdf


def discrete_start(law, states, temperature, chains, seed=0):
    p = torch.softmax(-law.energy(states).double() / temperature, 0)
    drawn = torch.multinomial(p, chains, replacement=True, generator=torch.Generator().manual_seed(seed))
    return states[drawn], p


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sgld_has_the_law_of_its_step_size(dtype):
    k, eps, chains = [1.0, 0.5, 0.1], 1.0, 20000
    law = gaussian(k, dtype)
    sampler = langevin.sgld("torch", step_size=eps)
    assert sampler.dynamics(law).name == "langevin"
    assert sampler.dynamics(law).numbers == {"step_size": eps}
    heat = torch.cat((torch.full((chains,), 0.25), torch.full((chains,), 3.0)))
    variance = torch.tensor([1 / (each * (1 - eps * each / 4)) for each in k])
    start = start_for(law, 2 * chains) * (heat[:, None] * variance).sqrt().to(law.torch_dtype)
    x = run(sampler, law, start, 8, heat)["x"]
    for i in range(3):
        require_law(x[:chains, i], normal_law(0.25 * float(variance[i])))
        require_law(x[chains:, i], normal_law(3.0 * float(variance[i])))
    assert rejects(x[:chains, 0], normal_law(0.25))  # law of continuous time
    assert rejects(x[chains:, 0], normal_law(0.25 * float(variance[0])))  # other temperature


@pytest.mark.parametrize("friction", [0.1, 0.6, 1.0])
def test_sghmc_has_the_law_of_its_step_size(friction):
    k, eta, chains = [1.0, 0.3], 0.9, 20000
    law = gaussian(k)
    heat = torch.cat((torch.full((chains,), 0.25), torch.full((chains,), 3.0)))
    variance = torch.tensor([1 / (each * (1 - eta * each / (2 * (2 - friction)))) for each in k])
    start = start_for(law, 2 * chains) * (heat[:, None] * variance).sqrt()
    sampler = langevin.sghmc(step_size=eta, friction=friction)
    for steps in (1, 9):  # after one step already: the first momentum has its stationary law given x
        state = run(sampler, law, start, steps, heat)
        for i in range(2):
            require_law(state["x"][:chains, i], normal_law(0.25 * float(variance[i])))
            require_law(state["x"][chains:, i], normal_law(3.0 * float(variance[i])))
            momentum = 2 * eta * 3.0 / (2 - friction - eta * k[i] / 2)
            require_law(state["momentum"][chains:, i], normal_law(momentum))
    assert rejects(state["x"][:chains, 0], normal_law(0.25))


def test_psgld_scales_drift_and_noise():
    """A constant gradient g keeps ``V = g^2``, so the displacement after n steps has a known normal law."""
    slope, eps, damping, n, chains = torch.tensor([0.5, -3.0]), 0.1, 0.2, 6, 20000
    law = target("ramp", "continuous", (2,), "float32", lambda x: (slope * x).sum(1))
    sampler = langevin.psgld(step_size=eps, damping=damping)
    assert sampler.dynamics(law).name == "psgld"
    heat = torch.cat((torch.full((chains,), 0.25), torch.full((chains,), 2.0)))
    x = run(sampler, law, torch.zeros(2 * chains, 2), n, heat)["x"]
    for i, g in enumerate(slope.tolist()):
        preconditioner = 1 / (damping + abs(g))
        for part, temperature in ((x[:chains, i], 0.25), (x[chains:, i], 2.0)):
            drift, spread = -n * eps / 2 * preconditioner * g, n * eps * temperature * preconditioner
            require_law(part, stats.norm(drift, math.sqrt(spread)).cdf)
            assert rejects(part, stats.norm(drift, math.sqrt(spread * preconditioner)).cdf)


@pytest.mark.parametrize("name", ["metropolis", "mala"])
def test_metropolis_keeps_the_double_well(name):
    chains, grid = 20000, np.linspace(-3, 3, 6001)
    starts, laws = [], []
    for temperature in (0.25, 1.0):
        density = np.exp(-((grid**2 - 1) ** 2) / temperature)
        cdf = np.concatenate(([0], np.cumsum((density[1:] + density[:-1]) / 2)))
        cdf /= cdf[-1]
        laws.append(lambda x, cdf=cdf: np.interp(x, grid, cdf))
        starts.append(np.interp(np.random.default_rng(3).random(chains), cdf, grid))
    start = torch.tensor(np.concatenate(starts), dtype=torch.float32)[:, None]
    heat = torch.tensor([0.25, 1.0]).repeat_interleave(chains)
    sampler = BY_NAME[name]
    state = run(sampler, DOUBLE_WELL, start, 15, heat)
    require_law(state["x"][:chains, 0], laws[0])
    require_law(state["x"][chains:, 0], laws[1])
    assert rejects(state["x"][:chains, 0], laws[1])
    accepted = sampler.accepted(state)
    assert accepted.shape == (2 * chains,)
    assert 0.1 < accepted.mean() < 0.999
    assert not torch.equal(state["x"], start)
    unadjusted = run(langevin.sgld("torch", step_size=0.12), DOUBLE_WELL, start, 15, heat)["x"]
    assert rejects(unadjusted[chains:, 0], laws[1])  # without acceptance the law differs


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_block_gibbs_keeps_the_joint_law(temperature):
    law, chains = rbm(), 100_000
    states = torch.tensor(list(itertools.product((0, 1), repeat=5)), dtype=torch.uint8)
    start, p = discrete_start(law, states, temperature, chains)
    x = run(BY_NAME["block_gibbs_torch"], law, start, 3, temperature)["x"]
    cells = (x.long() * torch.tensor([16, 8, 4, 2, 1])).sum(1)
    counts = torch.bincount(cells, minlength=32)
    assert chi_square(counts, p).passed
    _, other = discrete_start(law, states, 1.0, 1)
    assert not chi_square(counts, other).passed


@pytest.mark.parametrize("rule", ["metropolis", "heat_bath"])
@pytest.mark.parametrize("temperature", [1.4, 4.0])
def test_ising_keeps_the_law(rule, temperature):
    law, chains = ising(), 40_000
    states = all_states(4, 4)
    start, p = discrete_start(law, states, temperature, chains)
    state = run(discrete.ising(rule), law, start, 4, temperature)

    def observed(x):  # energy and magnetization together
        return (law.energy(x) / 0.8).round().long() * 64 + x.sum((1, 2), dtype=torch.int64)

    values, cells = observed(states).unique(return_inverse=True)
    chances = torch.zeros(len(values), dtype=torch.float64).index_add_(0, cells, p)
    counts = torch.bincount(torch.searchsorted(values, observed(state["x"])), minlength=len(values))
    assert chi_square(counts, chances).passed
    assert (state["x"] != start).float().mean() > 0.01
    _, other = discrete_start(law, states, temperature * 1.1, 1)
    assert not chi_square(counts, torch.zeros_like(chances).index_add_(0, cells, other)).passed
    if rule == "metropolis":
        assert 0.01 < discrete.ising(rule).accepted(state).mean() < 0.9


def test_gibbs_by_colours_keeps_the_law_of_units_that_are_not_clamped():
    weights, biases = boltzmann_gibbs.example(7)
    held = torch.arange(7) == 3

    def energy(x):
        x = x.float()
        return -((x @ weights) * x).sum(1) / 2 - x @ biases

    law = replace(target("units", "boltzmann", (7,), "uint8", energy, weights=weights, biases=biases), clamped=held)
    states = all_units(7)
    states, temperature, chains = states[states[:, 3] == 1], 0.8, 20_000
    start, p = discrete_start(law, states, temperature, chains)
    x = run(BY_NAME["gibbs_by_colours_cupy"], law, start, 2, temperature)["x"]
    index, cells = number_of(x), number_of(states)
    assert bool(torch.isin(index, cells).all())
    counts = torch.bincount(torch.searchsorted(cells, index), minlength=len(cells))
    assert chi_square(counts, p).passed
    _, other = discrete_start(law, states, 1.0, 1)
    assert not chi_square(counts, other).passed


# ---- step sizes


def test_step_sizes_follow_the_curvature():
    law = gaussian([0.5, 8.0, 2.0])
    assert curvatures(law).max().item() == pytest.approx(8.0, rel=1e-2)
    assert BY_NAME["sgld_torch"].dynamics(law).numbers["step_size"] == 0.062
    for sampler in SAMPLERS:
        if sampler.refuses(law) is None:
            assert sampler.dynamics(law) == sampler.dynamics(gaussian([0.5, 8.0, 2.0]))
            assert all(number > 0 for number in sampler.dynamics(law).numbers.values())
