"""Training: the exact bias of CD-k, the likelihood of the digits, convergence of maximum likelihood, resumption."""

import math

import pytest
import torch
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.rbm_training import (
    Machine,
    TrainingState,
    contrastive_divergence,
    exact_gradient,
    initial_state,
    log_likelihood,
    log_partition,
    maximum_likelihood,
    minibatch,
    model_statistics,
    persistent_contrastive_divergence,
)
from boltzbench.plugins.exact.states import all_units
from boltzbench.plugins.experiments.contrastive_divergence import (
    data_law,
    gradient_and_error,
    moments,
    sampled_gradient,
    slow_machine,
    transition,
    visible_law,
)
from boltzbench.plugins.support import digits
from support.devices import DEVICE

CHAINS = 200_000
CRITICAL = 6.0
"""Standard errors: for some 20 comparisons of some 10 statistics the probability of a false alarm is 4e-7."""


def test_the_transition_keeps_the_invariant_distribution():
    for beta in (0.5, 1.0):
        p, sweep = visible_law(slow_machine(), beta), transition(slow_machine(), beta)
        assert (sweep.sum(1) - 1).abs().max() < 1e-14
        assert (p @ sweep - p).abs().max() < 1e-15


def test_one_visible_and_one_hidden_unit_match_the_closed_form():
    """The bias of <v> under CD-k is ``(q - p) lambda^k``, as for any chain with two states."""
    w, b, c = 1.3, -0.4, 0.6

    def logistic(x):
        return 1 / (1 + math.exp(-x))

    rate = (logistic(c + w) - logistic(c)) * (logistic(b + w) - logistic(b))
    machine = Machine(torch.tensor([[w]]), torch.tensor([b]), torch.tensor([c]))
    p, q = visible_law(machine), torch.tensor([0.1, 0.9], dtype=torch.float64)
    for k in (1, 2, 5):
        after = q @ torch.linalg.matrix_power(transition(machine), k)
        assert float(after[1] - p[1]) == pytest.approx(float(q[1] - p[1]) * rate**k, rel=1e-5)


@pytest.mark.parametrize("sweeps", [1, 2, 5, 10])
def test_the_bias_of_contrastive_divergence(sweeps):
    found = sampled_gradient(slow_machine(), sweeps, CHAINS, DEVICE, seed=sweeps)
    exact, error = gradient_and_error(slow_machine(), sweeps, CHAINS)
    assert ((found - exact).abs() / error).max() < CRITICAL
    without_bias = (data_law() - visible_law(slow_machine())) @ moments(slow_machine())
    assert ((found - without_bias).abs() / error).max() > CRITICAL, "CD-k must differ from the exact gradient"
    for wrong in (sweeps - 1, sweeps + 1):
        other, error = gradient_and_error(slow_machine(), wrong, CHAINS)
        assert ((found - other).abs() / error).max() > CRITICAL, f"the test cannot tell {sweeps} from {wrong} sweeps"


@pytest.mark.parametrize("backend", ["triton", "cupy", "native"])
def test_the_kernels_and_the_reference_have_the_same_gradient(backend):
    """A draw or two near a tie may differ, each by one chain's share."""
    if reason := dispatch.unavailable(backend, DEVICE):
        pytest.skip(reason)
    found, reference = (sampled_gradient(slow_machine(), 2, 3000, DEVICE, 3, each) for each in (backend, "torch"))
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-3)


@pytest.mark.parametrize("update", [contrastive_divergence, persistent_contrastive_divergence])
def test_the_likelihood_of_the_digits_rises(update):
    data = digits.binary_images().to(DEVICE)
    state = initial_state(data, 8, seed=4, chains=100, scale=0.3)
    before = log_likelihood(state.machine, data)
    for _ in range(40):
        state = update(state, minibatch(data, 200, 4, state.step), rate=0.5, seed=4)
    assert (state.step, state.sweep) == (40, 40)
    gained = log_likelihood(state.machine, data) - before
    assert gained > 2.0, f"gained only {gained} nats for each image, of some 26"


def test_maximum_likelihood_converges_to_zero_gradient():
    data = all_units(3)[torch.tensor([1, 1, 1, 6, 6, 3, 0, 7])].to(DEVICE)
    state, beta = initial_state(data, 3, seed=0, scale=0.5), 0.8
    likelihoods = []
    for _ in range(3000):
        state = maximum_likelihood(state, data, rate=2.0, beta=beta, weight_decay=0.01)
        if state.step % 300 == 0:
            likelihoods.append(float(log_likelihood(state.machine, data, beta)))
    change = exact_gradient(state.machine, data, beta)
    assert (beta * change.weights - 0.01 * state.machine.weights).abs().max() < 1e-5
    assert max(part.abs().max() for part in change[1:]) < 1e-5
    assert likelihoods[-1] > likelihoods[0]
    of_data = data.double().mean(0)
    torch.testing.assert_close(model_statistics(state.machine, beta).visible_bias, of_data, rtol=0, atol=1e-5)


def test_training_resumes_from_a_saved_state(tmp_path):
    data = digits.binary_images()[:100].to(DEVICE)

    def trained(state, updates):
        for _ in range(updates):
            batch = minibatch(data, 30, 7, state.step)
            state = persistent_contrastive_divergence(state, batch, sweeps=2, rate=0.1, weight_decay=0.01, seed=7)
        return state

    start = initial_state(data, 5, seed=7, chains=20)
    whole = trained(start, 9)
    torch.save(trained(start, 4), tmp_path / "state.pt")
    kept = torch.load(tmp_path / "state.pt", weights_only=False)
    resumed = trained(TrainingState(Machine(*kept.machine), *kept[1:]), 5)
    assert (resumed.step, resumed.sweep) == (9, 18)
    assert torch.equal(resumed.chains, whole.chains)
    assert all(torch.equal(a, b) for a, b in zip(resumed.machine, whole.machine, strict=True))
    other = persistent_contrastive_divergence(start, data, rate=0.1, seed=8)
    assert not torch.equal(other.chains, persistent_contrastive_divergence(start, data, rate=0.1, seed=7).chains)


def test_each_epoch_visits_every_image_once_in_a_new_order():
    data = torch.arange(50, dtype=torch.uint8)[:, None]
    epochs = [torch.cat([minibatch(data, 16, 3, 4 * epoch + batch) for batch in range(4)]) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch.flatten().tolist()) == list(range(50))
    assert len({tuple(epoch.flatten().tolist()) for epoch in epochs}) == 3


def test_temperature_and_decay():
    """Parameters divided by beta give the same distribution at beta; weight decay applies to weights only."""
    machine = slow_machine()
    colder = Machine(*(part / 2 for part in machine))
    torch.testing.assert_close(log_partition(colder, 2.0), log_partition(machine), rtol=1e-12, atol=0)
    data = all_units(3)[[1, 6, 3, 3]].to(DEVICE)
    state, change = TrainingState(machine), exact_gradient(machine, data)
    decayed = maximum_likelihood(state, data, rate=0.1, weight_decay=0.5).machine.weights
    torch.testing.assert_close(decayed, (machine.weights + 0.1 * change.weights - 0.05 * machine.weights).float())


def test_wrong_arguments_are_named():
    data = all_units(3)
    state = initial_state(data, 2, seed=0)
    with pytest.raises(ValueError, match="state has no persistent chains"):
        persistent_contrastive_divergence(state, data, rate=0.1, seed=0)
    with pytest.raises(ValueError, match="enumeration takes at most 20 units in the smaller layer, got 21"):
        log_partition(Machine(torch.zeros(21, 22), torch.zeros(21), torch.zeros(22)))
    with pytest.raises(ValueError, match="rate must be finite"):
        maximum_likelihood(state, data, rate=math.nan)
    with pytest.raises(ValueError, match=r"size must lie in \[1, 8\]"):
        minibatch(data, 9, 0, 0)
    with pytest.raises(ValueError, match="data must hold at least one image"):
        initial_state(data[:0], 2, seed=0)
    half = state._replace(machine=Machine(*(part.half() for part in state.machine)))
    with pytest.raises(TypeError, match="weights must have dtype float32 to be trained"):
        contrastive_divergence(half, data, rate=0.1, seed=0)
