"""The verdict names the cause of each planted error, and finds slight errors with more chains than gross ones."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from boltzbench.harness.validation.calibration.planted_errors import named_errors, power_library
from boltzbench.harness.validation.calibration.power import chains_needed, named_causes
from boltzbench.harness.validation.calibration.small_discrete import bit_by_bit, four_states, gibbs, rbm
from boltzbench.harness.validation.calibration.small_well import gaussian, hmc, langevin, mala
from boltzbench.harness.validation.chains import Chains, start_of
from boltzbench.harness.validation.symptoms import (
    dependent_moves,
    not_exchangeable,
    separate_classes,
    shared_numbers,
    wrong_acceptance,
    wrong_elements,
)

NAMED = {each.sampler.name: each for each in named_errors()}
LIBRARY = {each.sampler.name: each for each in power_library()}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMED)
def test_one_of_the_first_two_lines_names_the_cause(name):
    (found,) = named_causes([NAMED[name]], seed=3)
    assert found.line, found.words
    assert found.seconds < 20


def test_there_are_thirty_causes_and_forty_errors():
    assert len(NAMED) == len(named_errors()) >= 30
    assert len(LIBRARY) == len(power_library()) >= 40
    assert all(each.cause for each in NAMED.values())


def test_a_cause_that_is_not_named_is_noticed():
    error = replace(LIBRARY["Gibbs: a bond lost"], cause="the acceptance is ignored")
    (found,) = named_causes([error], 3, chains=4000)
    assert found.line == 0
    assert found.words
    (found,) = named_causes([replace(error, sampler=gibbs())], 3, chains=1000)
    assert (found.line, found.words) == (0, "passed")


SLIGHT = {
    "MALA with swaps: sign": 256,
    "Langevin: variance of the noise 10% too large": 4000,
    "Langevin: variance of the noise 1% too large": None,
}


def test_the_power_is_that_of_the_number_of_chains():
    found = dict(chains_needed((LIBRARY[name] for name in SLIGHT), 3, (256, 4000)))
    assert found == SLIGHT


RIGHT = [(langevin, gaussian), (mala, gaussian), (hmc, gaussian), (gibbs, rbm), (bit_by_bit, four_states)]


def draws_of(target, law, chains, purpose, seed):
    return start_of(target, law, chains, seed, purpose)


@pytest.mark.parametrize(("sampler", "target"), RIGHT, ids=lambda each: each.__name__)
def test_right_samplers_show_no_symptoms(sampler, target):
    sampler, target = sampler(), target()
    law, run = target.law(1.0, sampler.dynamics(target)), Chains(sampler, target)
    start, exact = (start_of(target, law, 8000, 0, purpose) for purpose in ("start", "exact"))
    x = run.last(start, 0, [(1, 1.0)])
    for seed in range(3):
        given = run, target, partial(draws_of, target, law, seed=seed), seed, 1.0
        assert (shared_numbers(*given), dependent_moves(*given)) == (None, None)
    assert wrong_elements(x, exact) is None
    assert wrong_acceptance(sampler, target, start, x) is None


def test_the_sign_of_an_acceptance_that_is_not_counted_is_named():
    """Nor is detailed balance claimed: a position that stays shows that steps reject."""
    error = NAMED["MALA: sign of the acceptance"]
    silent = replace(error, sampler=replace(error.sampler, accepted=None, reversible=False))
    (found,) = named_causes([silent], 3)
    assert (found.line, "the acceptance's sign is wrong" in found.words) == (1, True)
    target = gaussian()
    start = start_of(target, target.law(1.0, langevin().dynamics(target)), 1000, 0, "start")
    uphill = torch.where(torch.arange(1000)[:, None] > 0, 1.1 * start, start)
    assert "sign is wrong" in wrong_acceptance(langevin(), target, start, uphill)
    assert wrong_acceptance(langevin(), target, start, 1.1 * start) is None, "no step rejects"
    down = torch.where(torch.arange(1000)[:, None] > 0, 0.9 * start, start)
    assert wrong_acceptance(langevin(), target, start, down) is None, "more than the sign needs detailed balance"


def test_exchangeable_pairs_are_rejected_at_the_stated_rate():
    found = []
    for seed in range(400):
        x = torch.randn(2, 2, 300, generator=torch.Generator().manual_seed(seed)).numpy()
        found.append(not_exchangeable({"f": (x[0, 0], x[0, 1]), "g": (x[1, 0], x[1, 1])})[0])
    assert sum(p < 0.05 for p in found) / len(found) <= 0.08
    f, g, h = torch.randn(3, 300, generator=torch.Generator().manual_seed(0)).numpy()
    p_value, words = not_exchangeable({"f": (f, g), "g": (h, f)})
    assert p_value < 1e-9
    assert words.startswith("f before g is larger ")


def test_classes_of_states_that_no_step_connects():
    there_and_back = torch.tensor([[0, 2], [1, 3], [0, 2]], dtype=torch.uint8)[..., None]
    assert separate_classes(there_and_back) == 2
    assert separate_classes(torch.cat([there_and_back, torch.tensor([[[2], [0]]], dtype=torch.uint8)])) == 1
