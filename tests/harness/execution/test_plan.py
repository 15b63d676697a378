import pytest
from boltzbench.harness.execution.plan import plan
from support.fakes import case, implementation, law, operation


def labels(steps):
    return [(step.operation.name, step.label, step.implementation.name) for step in steps]


def test_a_plan_goes_case_by_case_then_law_by_law():
    selection = [
        (operation(laws=(law(),)), [implementation("a"), implementation("b")]),
        (operation("other"), [implementation("a")]),
    ]
    assert labels(plan(selection, ("check", "law"))) == [
        ("double", "n=3 float32", "a"),
        ("double", "n=3 float32", "b"),
        ("double", "outliers n=7 float32", "a"),
        ("double", "outliers n=7 float32", "b"),
        ("double", "law: doubles one", "a"),
        ("double", "law: doubles one", "b"),
        ("other", "n=3 float32", "a"),
        ("other", "outliers n=7 float32", "a"),
    ]


@pytest.mark.parametrize(("preset", "sizes"), [("smoke", [64, 32]), ("quick", [64, 32]), ("full", [64, 128, 32])])
def test_a_preset_contains_the_smaller_ones(preset, sizes):
    steps = plan([(operation(), [implementation()])], ("bench", "real"), preset)
    assert [step.subject.sizes["n"] for step in steps] == sizes
    assert {step.purpose for step in steps} == {"bench", "real"}


def test_seeds_are_the_cases_own_unless_one_is_given():
    selection = [(operation(cases=[case(3, seed=5)], laws=(law(),)), [implementation()])]
    assert [step.seed for step in plan(selection, ("check", "law"))] == [5, 0]
    assert [step.seed for step in plan(selection, ("check", "law"), seed=9)] == [9, 9]
