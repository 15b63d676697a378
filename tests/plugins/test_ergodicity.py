"""The law that every start leads to the invariant distribution: what it accepts, and what it rejects and why."""

import math

import pytest
import torch
from boltzbench.kernels.ising import lattice_couplings
from boltzbench.plugins.exact.glass import after_sweep, state_energies
from boltzbench.plugins.operations.spins.spin_glass import ring
from boltzbench.plugins.support.ergodicity import judge_graph, judge_starts, judge_transitions

CHECKERBOARD = (0, 3, 1, 2)
"""The order of the sites of 2 x 2: even ones, then odd ones."""
GRAPHS = {
    "ring of 4": (ring(4), None),
    "ring of 8": (ring(8), None),
    "free spins": (torch.zeros(4, 4), None),
    "2 x 2": (lattice_couplings(2, 2), CHECKERBOARD),
}


def transitions(name, temperature, rule):
    couplings, order = GRAPHS[name]
    energies = state_energies(couplings)
    unit = torch.eye(len(energies), dtype=torch.float64)
    return after_sweep(unit, energies, temperature, rule, order), torch.softmax(-energies / temperature, 0)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("temperature", [1.0, 3.0, math.inf])
def test_the_heat_bath_leads_everywhere_and_metropolis_does_not(name, temperature):
    for rule in ("heat_bath", "metropolis"):
        matrix, law = transitions(name, temperature, rule)
        torch.testing.assert_close(law @ matrix, law, rtol=0, atol=1e-15)
        assert judge_graph(matrix > 0).passed == (rule == "heat_bath")


def test_the_message_says_what_is_wrong():
    matrix, _ = transitions("ring of 8", 1.0, "metropolis")
    assert "only 16 of 256 states lead to state 0 and back" in judge_graph(matrix > 0).message
    cycle = torch.eye(6, dtype=torch.bool).roll(1, 1)
    assert "only after multiples of 6 sweeps" in judge_graph(cycle).message
    cycle[0, 3] = True  # cycles of 6 and of 4 states
    assert "only after multiples of 2 sweeps" in judge_graph(cycle).message
    cycle[2, 2] = True
    assert judge_graph(cycle).passed


def test_measured_transitions_must_be_those_of_the_matrix():
    generator = torch.Generator().manual_seed(0)
    matrix, _ = transitions("ring of 4", 2.0, "heat_bath")
    start = torch.arange(16).repeat(128)

    def judged(actual):
        end = torch.multinomial(actual[start], 1, generator=generator)[:, 0]
        return [each for each in judge_transitions(start, end, matrix, 1e-6) if not each.passed]

    assert not judged(matrix)
    assert "reducible" in judged(transitions("ring of 4", 2.0, "metropolis")[0])[0].message
    assert "transitions from state" in judged(transitions("ring of 4", 1.0, "heat_bath")[0])[0].message


def test_a_start_that_is_not_forgotten_is_named():
    law = torch.full((4,), 0.25, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randint(0, most, (400,), generator=generator) for name, most in (("hot", 4), ("cold", 3))}
    verdicts = judge_starts(drawn, law, (torch.arange(4),), 1e-6)
    assert [each.passed for each in verdicts] == [True, False]
    assert verdicts[1].message.startswith("from cold: ")
