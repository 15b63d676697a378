"""The targets: reference values, draws against projections, and laws of discretised chains against chains."""

import math

import numpy as np
import pytest
import torch
from boltzbench.harness import Dynamics, Status, chi_square, within
from boltzbench.plugins.exact import flat_and_sharp
from boltzbench.plugins.exact.laws import langevin_density, linear_variance
from boltzbench.plugins.support import digits
from boltzbench.plugins.targets import continuous, spins, units
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import kstest, norm

CHAINS = 40_000
TARGETS = {}
for family in (continuous, spins, units):
    family.register_targets(lambda target: TARGETS.update({target.name: target}))
KNOWN = [name for name in TARGETS if name != "logistic_digits"]
LINE = ["double_well", "gaussian_mixture", "flat_and_sharp"]
FINITE = ["rbm", "ising"]
EXACT = Dynamics()


def langevin(step_size):
    return Dynamics("langevin", {"step_size": step_size})


def sghmc(step_size, friction):
    return Dynamics("sghmc", {"step_size": step_size, "friction": friction})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def projection(law, name):
    return next(each for each in law.projections if each.name == name)


def rejected(x, law, false_alarm=1e-6):
    """The projections in which independent draws ``x`` disagree with the law."""
    wrong = []
    for each in law.projections:
        values = each.of(x)
        assert values.shape == (len(x),)
        if each.probabilities is not None:
            counts = torch.bincount(values, minlength=len(each.probabilities))
            wrong += [each.name] * (not chi_square(counts, each.probabilities, false_alarm=false_alarm).passed)
        if each.cdf is not None:
            wrong += [each.name] * bool(kstest(values.double().numpy(), each.cdf).pvalue < false_alarm)
        if each.mean is not None:
            values = values.double()
            stderr = float(values.std()) / math.sqrt(len(x))
            verdict = within(float(values.mean()), each.mean, stderr, false_alarm=false_alarm)
            wrong += [f"mean of {each.name}"] * (verdict.status is not Status.PASSED)
    return wrong


def test_the_eight_targets():
    assert list(TARGETS) == [
        "quadratic_wells", "double_well", "gaussian_mixture", "flat_and_sharp", "logistic_digits",
        "ising", "rbm", "rbm_clamped",
    ]  # fmt: skip
    for target in TARGETS.values():
        x = torch.zeros((3, *target.shape), dtype=target.torch_dtype)
        assert target.energy(x).shape == (3,)
        assert target.temperatures


# ---- exact answers


def test_rbm_agrees_with_an_independent_enumeration():
    law = units.rbm_law(units.machine(torch.float64), (), 1.0, EXACT)
    assert law.log_z == pytest.approx(15.116010115197419, abs=1e-12)
    probabilities = projection(law, "v_0..v_7").probabilities
    assert float(probabilities[1::2].sum()) == pytest.approx(0.676150006, abs=5e-10)  # of v_0 = 1
    assert TARGETS["rbm"].law(1.0, EXACT).log_z == pytest.approx(15.116010115197419, abs=1e-6)


def test_the_clamped_rbm_is_the_rbm_conditioned_on_its_clamped_units():
    """The partition functions of all clampings add up to that of the free machine, and draws keep clamped units."""
    machine = units.machine(torch.float64)
    parts = [units.rbm_law(machine, (i, j), 1.0, EXACT).log_z for i in (0, 1) for j in (0, 1)]
    assert torch.logsumexp(torch.tensor(parts, dtype=torch.float64), 0) == pytest.approx(15.116010115197419, abs=1e-12)
    target = TARGETS["rbm_clamped"]
    drawn = target.law(1.0, EXACT).draw(1000, generator())
    held = drawn[:, target.clamped]
    assert (held == torch.tensor(units.HELD)).all()
    assert held.shape == (1000, 3)


def test_rbm_energy_is_the_sum_over_units_and_bonds():
    x = torch.tensor([[1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0]], dtype=torch.uint8)
    v, h = [0, 3, 9], [1, 6]
    bonds = sum(math.sin(1.7 * i + 0.9 * j + 0.3) for i in v for j in h)
    fields = sum(0.3 * math.cos(i) for i in v) + sum(-0.2 * math.sin(j + 1) for j in h)
    assert float(TARGETS["rbm"].energy(x)) == pytest.approx(-bonds - fields, abs=1e-5)


def test_ising_energy_at_the_critical_temperature():
    law = TARGETS["ising"].law(2 / math.log(1 + math.sqrt(2)), EXACT)
    assert projection(law, "energy").mean / 16 == pytest.approx(-1.5656238, abs=5e-8)
    assert TARGETS["ising"].temperatures[0] == pytest.approx(2.269185314213022, abs=1e-15)


def test_ising_energy_counts_each_bond_once():
    up = torch.ones(1, 4, 4, dtype=torch.int8)
    one_down = up.clone()
    one_down[0, 3, 0] = -1
    assert TARGETS["ising"].energy(torch.cat((up, one_down))).tolist() == [-32.0, -24.0]


def test_double_well_by_quadrature():
    law = TARGETS["double_well"].law(0.25, EXACT)
    found = (math.exp(law.log_z), projection(law, "x squared").mean, projection(law, "energy").mean)
    assert found == pytest.approx((0.947838, 0.917671, 0.144829), abs=5e-7)


def test_mixture_in_closed_form():
    law = TARGETS["gaussian_mixture"].law(1.0, EXACT)
    x = np.linspace(-6, 6, 1001)
    components = zip(continuous.WEIGHTS, continuous.CENTRES, continuous.DEVIATIONS, strict=True)
    exact = sum(weight * norm.cdf(x, centre, deviation) for weight, centre, deviation in components)
    assert law.log_z == pytest.approx(0.0, abs=1e-9)
    assert np.abs(projection(law, "x").cdf(x) - exact).max() < 2e-6


def test_the_flat_minimum_is_likelier_by_the_root_of_the_ratio_of_stiffnesses():
    """At a temperature equal to the softness the law is a mixture of two normal laws."""
    law = TARGETS["flat_and_sharp"].law(flat_and_sharp.SOFTNESS, EXACT)
    flat, sharp = projection(law, "well").probabilities.tolist()
    assert flat / sharp == pytest.approx(math.sqrt(16.0), rel=1e-5)


@pytest.mark.parametrize("friction", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("stiffness", [0.25, 4.0])
def test_variance_of_sghmc_solves_the_lyapunov_equation(stiffness, friction):
    step_size, temperature = 0.2, 0.7
    kick = np.array([[1.0, 0.0], [-step_size * stiffness, 1 - friction]])  # of (x, p)
    drift = np.array([[1.0, 1.0], [0.0, 1.0]])
    noise = drift @ np.diag([0.0, 2 * friction * step_size * temperature]) @ drift.T
    covariance = solve_discrete_lyapunov(drift @ kick, noise)
    found = linear_variance(stiffness, temperature, sghmc(step_size, friction))
    assert found == pytest.approx(covariance[0, 0], rel=1e-10)
    assert covariance[0, 1] == pytest.approx(covariance[1, 1] / 2, rel=1e-10)


def test_transfer_operator_gives_the_normal_law_of_a_quadratic_well():
    stiffness, step_size, temperature = 2.0, 0.3, 0.7
    variance = linear_variance(stiffness, temperature, langevin(step_size))
    density = langevin_density(lambda x: stiffness * x[:, 0].square() / 2, temperature, step_size, -6.0, 6.0)
    x = np.linspace(-3, 3, 101)
    assert np.abs(density(x) - norm.pdf(x, scale=math.sqrt(variance))).max() < 1e-10
    assert np.abs(density(x) - norm.pdf(x, scale=math.sqrt(temperature / stiffness))).max() > 0.01


@pytest.mark.parametrize("name", LINE)
@pytest.mark.parametrize("step_size", [0.01, 0.1])
def test_transfer_operator_does_not_depend_on_its_grid(name, step_size):
    energy, x = TARGETS[name].energy, np.linspace(-3, 3, 101)
    ends = {"double_well": (-3.0, 3.0), "gaussian_mixture": (-9.0, 9.0), "flat_and_sharp": (-8.0, 4.0)}[name]
    coarse = langevin_density(energy, 0.5, step_size, *ends)
    fine = langevin_density(energy, 0.5, step_size, ends[0] - 0.05, ends[1] + 0.02, 4.5)
    assert np.abs(coarse(x) - fine(x)).max() < 1e-8


def test_no_law_is_claimed_where_none_is_known():
    wells, well = TARGETS["quadratic_wells"], TARGETS["double_well"]
    assert wells.law(1.0, langevin(0.24)) is not None
    assert wells.law(1.0, langevin(0.26)) is None  # the stiffest well is unstable
    assert wells.law(1.0, sghmc(0.3, 0.1)) is None
    assert well.law(1.0, langevin(2.0)) is None
    assert well.law(0.25, langevin(1e-7)) is None  # too fine a grid
    for target in TARGETS.values():
        assert target.law(1.0, Dynamics("psgld", {"step_size": 0.01})) is None
    for name in FINITE:
        assert TARGETS[name].law(1.0, langevin(0.01)) is None


# ---- draws


CASES = [(name, temperature, EXACT) for name in KNOWN for temperature in TARGETS[name].temperatures]
CASES += [(name, TARGETS[name].temperatures[0], langevin(0.1)) for name in ("quadratic_wells", *LINE)]
CASES += [("quadratic_wells", 1.0, sghmc(0.1, 0.3))]


@pytest.mark.parametrize(("name", "temperature", "dynamics"), CASES)
def test_draws_agree_with_every_projection(name, temperature, dynamics):
    law = TARGETS[name].law(temperature, dynamics)
    x = law.draw(CHAINS, generator())
    assert x.shape == (CHAINS, *TARGETS[name].shape)
    assert x.dtype == TARGETS[name].torch_dtype
    assert rejected(x, law) == []
    for each in law.projections:
        assert each.probabilities is None or float(each.probabilities.sum()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", KNOWN)
def test_draws_of_another_temperature_are_rejected(name):
    first, other = TARGETS[name].temperatures[:2]
    assert rejected(TARGETS[name].law(other, EXACT).draw(CHAINS, generator()), TARGETS[name].law(first, EXACT))


@pytest.mark.parametrize("name", KNOWN)
def test_draws_depend_on_the_generator_alone_and_laws_are_cached(name):
    law = TARGETS[name].law(1.0, EXACT)
    assert law is TARGETS[name].law(1.0, Dynamics("exact", {"step_size": 0.1}))
    assert torch.equal(law.draw(100, generator(1)), law.draw(100, generator(1)))
    assert not torch.equal(law.draw(100, generator(1)), law.draw(100, generator(2)))


def test_projections_detect_missing_correlations_of_units():
    """Each half of the units has its right marginal law, but the halves are independent."""
    law = TARGETS["rbm"].law(1.0, EXACT)
    x, other = law.draw(CHAINS, generator(1)), law.draw(CHAINS, generator(2))
    mixed = torch.cat((x[:, :10], other[:, 10:]), 1)
    assert "v_6..v_9, h_0..h_3" in rejected(mixed, law)
    assert not {"v_0..v_7", "hidden", "v_9"} & set(rejected(mixed, law))


def test_projections_detect_coordinates_that_share_their_noise():
    law = TARGETS["quadratic_wells"].law(1.0, EXACT)
    scales = torch.tensor(continuous.STIFFNESSES).rsqrt()
    shared = torch.randn(CHAINS, 1, generator=generator()) * scales
    assert {"sum of scores", "squared radius"} <= set(rejected(shared, law))
    assert not [name for name in rejected(shared, law) if name.startswith("x_")]


# ---- chains


def gradient(target, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(target.energy(x).sum(), x)[0]


def langevin_chain(target, x, temperature, step_size, steps=5):
    x, normals = x.double(), generator(3)
    for _ in range(steps):
        xi = torch.randn(x.shape, generator=normals, dtype=x.dtype)
        x = x - step_size / 2 * gradient(target, x) + math.sqrt(step_size * temperature) * xi
    return x.to(target.torch_dtype)


@pytest.mark.parametrize(
    ("name", "temperature", "step_size"),
    [("quadratic_wells", 1.0, 0.1), ("double_well", 0.25, 0.1), ("gaussian_mixture", 1.0, 0.2),
     ("flat_and_sharp", 0.5, 0.1), ("flat_and_sharp", 1.0, 0.05)],
)  # fmt: skip
def test_a_langevin_chain_keeps_its_own_stationary_law_and_not_that_of_the_target(name, temperature, step_size):
    target = TARGETS[name]
    law, continuum = target.law(temperature, langevin(step_size)), target.law(temperature, EXACT)
    assert rejected(langevin_chain(target, law.draw(CHAINS, generator()), temperature, step_size), law) == []
    assert rejected(langevin_chain(target, continuum.draw(CHAINS, generator()), temperature, step_size), continuum)
    assert rejected(continuum.draw(CHAINS, generator()), law)


@pytest.mark.parametrize("exact_momentum", [True, False])
def test_an_sghmc_chain_keeps_its_law_if_its_first_momentum_is_drawn_given_the_position(exact_momentum):
    target, temperature, step_size, friction = TARGETS["quadratic_wells"], 0.5, 0.1, 0.3
    law = target.law(temperature, sghmc(step_size, friction))
    x, normals = law.draw(CHAINS, generator()).double(), generator(3)
    p = math.sqrt(step_size * temperature) * torch.randn(x.shape, generator=normals, dtype=x.dtype)
    if exact_momentum:
        p = step_size / (2 - friction) * gradient(target, x) + p / math.sqrt(1 - friction / 2)
    for _ in range(4):
        xi = torch.randn(x.shape, generator=normals, dtype=x.dtype)
        kick = math.sqrt(2 * friction * step_size * temperature) * xi
        p = (1 - friction) * p - step_size * gradient(target, x) + kick
        x = x + p
    assert (rejected(x.float(), law) == []) == exact_momentum


# ---- gradients


@pytest.mark.parametrize("name", ["quadratic_wells", *LINE])
def test_energies_are_differentiable(name):
    target = TARGETS[name]
    x = torch.randn(5, *target.shape, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(target.energy, x)


def test_gradient_of_the_logistic_posterior():
    x = 0.1 * torch.randn(2, 65, 10, generator=generator(), dtype=torch.float64)
    found = gradient(TARGETS["logistic_digits"], x)
    for chain in range(2):
        weights, bias = digits.energy_gradient(x[chain, :64], x[chain, 64])
        torch.testing.assert_close(found[chain], torch.cat((weights, bias[None])), rtol=1e-6, atol=1e-6)
    flat = TARGETS["logistic_digits"].energy(torch.zeros(1, 65, 10))
    assert float(flat) == pytest.approx(1437 * math.log(10), rel=1e-5)
