"""The label-noise experiment: the noise has the stated law, seeds are independent, and the loss shows its gain."""

import math

import pytest
import torch
from boltzbench.plugins.experiments import label_noise
from boltzbench.plugins.experiments.label_noise import Accuracy, Gain, gains, measure, train, with_noise
from boltzbench.plugins.support import digits

SEEDS = range(3)
EPOCHS = 40


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices are small, and tests may run in parallel."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def measured():
    return measure((0.0, 0.4), (0.0, 0.7), SEEDS, EPOCHS)


def test_labels_are_wrong_at_the_given_rate_with_uniform_wrong_classes():
    labels = digits.images()[1].repeat(50)
    noisy = with_noise(labels, 0.3, torch.Generator().manual_seed(0))
    shift = (noisy - labels) % digits.CLASSES
    counts = torch.bincount(shift, minlength=digits.CLASSES).double() / len(labels)
    error = math.sqrt(0.3 * 0.7 / len(labels))
    assert counts[0].item() == pytest.approx(0.7, abs=5 * error)
    assert counts[1:].tolist() == pytest.approx([0.3 / 9] * 9, abs=5 * error)
    assert torch.equal(with_noise(labels, 0.0, torch.Generator()), labels)
    assert (with_noise(labels, 1.0, torch.Generator()) != labels).all()
    with pytest.raises(ValueError, match=r"^noise must be a probability, got 1.5"):
        with_noise(labels, 1.5, torch.Generator())


def test_training_of_a_seed_does_not_depend_on_other_seeds():
    together = train(0.7, 0.2, (4, 5), epochs=3)
    torch.testing.assert_close(together[1:], train(0.7, 0.2, (5,), epochs=3), rtol=0, atol=2 / 360)
    assert torch.equal(together, train(0.7, 0.2, (4, 5), epochs=3))


def test_generalised_cross_entropy_is_more_robust_to_label_noise(measured):
    clean, noisy = gains(measured)
    assert noisy.mean > 5 * noisy.stderr > 0, noisy
    assert noisy.mean > 0.05, "the gain is a few images only"
    assert abs(clean.mean) < 0.02, "accuracy changes without label noise"
    assert min(each.mean for each in measured if each.noise == 0) > 0.88


def test_a_loss_that_ignores_q_shows_no_gain(measured, monkeypatch):
    loss = label_noise.generalised_cross_entropy
    monkeypatch.setattr(
        label_noise, "generalised_cross_entropy", lambda logits, labels, q, **more: loss(logits, labels, 0.0, **more)
    )
    (plain,) = (each for each in measured if (each.noise, each.q) == (0.4, 0.0))
    ignoring = Accuracy(0.4, 0.7, tuple(train(0.7, 0.4, SEEDS, EPOCHS).tolist()))
    (gain,) = gains([plain, ignoring])
    assert gain.z < 2


def test_gains_compare_accuracies_seed_by_seed():
    found = gains([Accuracy(0.2, 0.0, (0.1, 0.5, 0.9)), Accuracy(0.2, 0.7, (0.2, 0.6, 1.0))])
    assert found == [Gain(0.2, 0.7, pytest.approx(0.1), pytest.approx(0.0, abs=1e-12))]
    accuracy = Accuracy(0.2, 0.7, (0.1, 0.2, 0.6))
    assert accuracy.mean == pytest.approx(0.3)
    assert accuracy.stderr == pytest.approx(math.sqrt(0.07 / 3))
    assert Gain(0.2, 0.7, 0.1, 0.0).z == math.inf
    assert Gain(0.2, 0.7, 0.0, 0.0).z == 0
