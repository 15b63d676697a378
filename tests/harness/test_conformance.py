"""`require_sound` tests a sampler on the targets that it is given, and fails if one of them was not tested."""

import pytest
from boltzbench.harness import conformance
from boltzbench.harness.api.messages import UnknownName
from boltzbench.harness.conformance import require_sound
from boltzbench.harness.discovery.registry import Registry
from boltzbench.harness.validation import judge
from support.wrong_samplers import four_states, gaussian, gibbs, langevin, metropolis, rbm


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    targets = {each.name: each for each in (gaussian(), rbm(), four_states())}
    samplers = {each.name: each for each in (langevin(), metropolis(), gibbs(), gibbs("wrong", sign=-1.0))}
    monkeypatch.setattr(conformance, "load_registry", lambda: Registry({}, (), (), (), targets, samplers))
    monkeypatch.setattr(judge, "CHAINS", 6000)


@pytest.fixture
def tested(monkeypatch):
    names = []
    honest = judge.validate

    def noted(sampler, target, *given, **more):
        names.append(target.name)
        return honest(sampler, target, *given, **more)

    monkeypatch.setattr(judge, "validate", noted)
    return names


def test_only_the_targets_of_these_names_are_tested(tested):
    require_sound("metropolis", targets=["four"])
    assert tested == ["four"]
    tested.clear()
    require_sound("metropolis")
    assert tested == ["gaussian", "small_rbm", "four"]


def test_a_named_target_that_the_sampler_refuses_is_a_failure():
    with pytest.raises(AssertionError, match=r"'metropolis' was not tested on 'gaussian': made for four"):
        require_sound("metropolis", targets=["four", "gaussian"])


@pytest.mark.parametrize(
    ("targets", "error", "words"),
    [
        (["fuor"], UnknownName, "unknown target 'fuor': did you mean four"),
        ("four", TypeError, "targets must be a list of names, got the string 'four'"),
        ([], ValueError, "targets must name at least one target"),
    ],
)
def test_wrong_names_of_targets(targets, error, words, tested):
    with pytest.raises(error, match=words):
        require_sound("metropolis", targets=targets)
    assert tested == []


def test_a_broken_sampler_fails_in_a_few_lines():
    with pytest.raises(AssertionError) as failure:
        require_sound("wrong", targets=["small_rbm"])
    first, *lines = str(failure.value).splitlines()
    lines = [line.strip() for line in lines if not line.strip().startswith("assert ")]  # pytest adds a line and indents
    assert "claims about wrong failed:" in first
    assert 3 < len(lines) < 8
    assert lines[-1].startswith("+")
    assert any("law of state after 1 step: chi-square" in line for line in lines)


def test_without_a_law_it_fails_unless_told_so(monkeypatch):
    from dataclasses import replace

    lawless = replace(four_states(), law=lambda temperature, dynamics: None)
    monkeypatch.setattr(
        conformance, "load_registry", lambda: Registry({}, (), (), (), {"four": lawless}, {"m": metropolis("m")})
    )
    require_sound("m", laws=False)
    with pytest.raises(AssertionError, match="no claim tests sampler 'm' against an exact law"):
        require_sound("m")
