"""`require_agreement` checks an implementation. `require_sound` tests a sampler on the targets that it is given, and
fails if one of them was not tested."""

import pytest
from boltzbench.harness import Unsupported, conformance
from boltzbench.harness.api.messages import UnknownName
from boltzbench.harness.conformance import require_agreement, require_sound
from boltzbench.harness.discovery.registry import Registry
from boltzbench.harness.validation import judge
from boltzbench.harness.validation.standing import quick_targets
from support import fakes
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


def test_targets_of_many_elements_are_for_thorough_tests(tested, monkeypatch):
    from dataclasses import replace

    large = replace(four_states(), name="large", shape=(65,))
    monkeypatch.setattr(
        conformance, "load_registry",
        lambda: Registry({}, (), (), (), {"four": four_states(), "large": large}, {"metropolis": metropolis()}),
    )  # fmt: skip
    require_sound("metropolis")
    assert tested == ["four"]
    with pytest.raises(AssertionError, match="its law draws"):
        require_sound("metropolis", thorough=True)
    assert tested == ["four", "four", "large"]
    assert [each.name for each in quick_targets([large])] == ["large"]


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


def test_an_implementation_that_agrees_and_others(monkeypatch):
    operation = fakes.operation(laws=(fakes.law(),), cases=[fakes.case(n) for n in (3, 4, 5, 6)])
    gone = fakes.implementation("gone", unavailable=lambda device: "no wand")
    refusing = fakes.implementation("refusing", prepare=refuse)
    known = Registry({"double": operation}, (fakes.implementation(), gone, refusing), ())
    monkeypatch.setattr(conformance, "load_registry", lambda: known)
    require_agreement("double", "torch")
    require_agreement("double", fakes.implementation("unregistered"))
    with pytest.raises(AssertionError) as caught:
        require_agreement("double", fakes.implementation("wrong", factor=2.5))
    first, *lines, last = str(caught.value).splitlines()[:5]
    assert first == "double wrong: 5 of 5 failed:"
    assert lines[0].startswith("wrong_values in n=3 float32: ")
    assert (len(lines), last) == (3, "+2 more")
    with pytest.raises(AssertionError, match="double wrong: 4 of 4 failed:"):
        require_agreement("double", fakes.implementation("wrong", factor=2.5), laws=False)
    with pytest.raises(AssertionError, match="double refusing: nothing was checked: only odd sizes"):
        require_agreement("double", "refusing")
    with pytest.raises(AssertionError, match="double gone: it cannot run on cpu: no wand"):
        require_agreement("double", "gone")
    with pytest.raises(UnknownName, match="unknown operation 'duble': did you mean double"):
        require_agreement("duble", "torch")
    with pytest.raises(UnknownName, match="unknown implementation of double 'trch': did you mean torch"):
        require_agreement("double", "trch")


def refuse(inputs, outputs):
    raise Unsupported("only odd sizes")
