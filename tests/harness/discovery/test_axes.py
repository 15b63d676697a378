from dataclasses import replace

import pytest
from boltzbench.harness import Case
from boltzbench.harness.api.messages import UsageError
from boltzbench.harness.discovery.axes import axes_of, parse_sizes, with_other_sizes
from boltzbench.harness.discovery.registry import OtherSizes, Registry
from support.fakes import case, law, operation


@pytest.mark.parametrize(
    ("texts", "sizes"),
    [
        (["n=4096"], [{"n": 4096}]),
        (["n=1_000"], [{"n": 1000}]),
        (["n=1,2, 4"], [{"n": 1}, {"n": 2}, {"n": 4}]),
        (["n=1:70:x4"], [{"n": 1}, {"n": 4}, {"n": 16}, {"n": 64}]),
        (["n=1:64:x4,5"], [{"n": 1}, {"n": 4}, {"n": 16}, {"n": 64}, {"n": 5}]),
        (["n=100:500:+200"], [{"n": 100}, {"n": 300}, {"n": 500}]),
        (["n=0:1:+1"], [{"n": 0}, {"n": 1}]),
        (
            ["rows=1:16:x16,columns=8,9"],
            [{"rows": r, "columns": c} for r in (1, 16) for c in (8, 9)],
        ),
        (["a=1,b=2", "a=3,b=4", "a=1,b=2"], [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
    ],
)
def test_sizes_are_read(texts, sizes):
    assert list(parse_sizes(texts)) == sizes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4096", "--sizes 4096: begin with an axis, such as rows=1024"),
        ("n=", "n= is no size; accepted are a number, a list 1,2,4, or a range 1:1024:x4 or 100:500:+100"),
        ("n=-1", "n=-1 is no size"),
        ("n=1.5", "n=1.5 is no size"),
        ("n=1:64", "n=1:64 is no size"),
        ("n=64:1:x2", "n=64:1:x2 is empty, since it begins above its end"),
        ("n=1:64:x1", "n=1:64:x1 never ends; it must begin at 1 or above, and the factor be at least 2"),
        ("n=0:64:x2", "n=0:64:x2 never ends"),
        ("n=0:64:+0", "n=0:64:+0 never ends; the step must be at least 1"),
        ("n=1,n=2", "the axis n is named twice; a list is n=1,2,4"),
        ("a b=1", "'a b' is no name of an axis"),
        ("n=1:1000000000000:+1", "at most 1000 cases are accepted, and these are 1000000000000"),
        ("a=1:100:+1,b=1:100:+1", "at most 1000 cases are accepted, and these are 10000"),
        ("n=1:10000:+1,7", "n has more than 1000 values"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(text, words):
    with pytest.raises(UsageError) as caught:
        parse_sizes([text])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_options_together_are_counted():
    with pytest.raises(UsageError, match="at most 1000"):
        parse_sizes(["a=1:600:+1", "b=1:600:+1"])


def made(wanted, *operations):
    registry = with_other_sizes(Registry({each.name: each for each in operations}, (), ()), wanted)
    return {name: each.cases for name, each in registry.operations.items()}


def double(**fields):
    cases = [
        case(3),
        case(9, dtype="float64"),
        case(7, scenario="outliers"),
        case(8, scenario="digits", purpose="real"),
    ]
    return operation(cases=cases, laws=(law(),), **fields)


def test_the_cases_take_the_place_of_the_operations_own():
    wanted = OtherSizes(({"n": 5}, {"n": 9}), ("float64", "float32"), (), ("double",), "bench")
    other = operation("other")
    found = made(wanted, double(), other)
    assert found["other"] == other.cases
    assert [each.label for each in found["double"]] == [
        f"n={n} {dtype}" for n in (5, 9) for dtype in ("float64", "float32")
    ]
    assert {(each.purpose, each.preset, each.seed) for each in found["double"]} == {("bench", "smoke", 0)}
    (plain,) = made(OtherSizes(({"n": 3},)), double())["double"]
    assert plain == case(3), "as the operation's own case of this size, so that runs compare"
    assert with_other_sizes(Registry({"double": double()}, (), ()), wanted).operations["double"].laws == ()
    (special,) = made(OtherSizes(({"n": 3},), scenarios=("outliers",)), double())["double"]
    assert special.label == "outliers n=3 float32"


def refusing(n):
    if n % 2:
        raise ValueError("n must be even")
    return case(n)


@pytest.mark.parametrize(
    ("wanted", "make", "words"),
    [
        (OtherSizes(({"m": 5},)), {}, "--sizes: unknown axis of double 'm': choose from n"),
        (OtherSizes(({},)), {}, "--sizes: double also needs n=N"),
        (OtherSizes(({"n": 5},)), {"case": None}, "operation double has cases of its own sizes only"),
        (OtherSizes(({"n": 5},)), {"case": refusing}, "double refuses n=5: n must be even"),
        (OtherSizes(({"n": 4},), ("half",)), {"case": refusing}, "--dtype half: cases of double have dtype 'float32'"),
        (OtherSizes(({"n": 4},), ("flaot32",)), {}, "unknown dtype of double 'flaot32': did you mean float32"),
        (OtherSizes(({"n": 4},), ("float64",), ("outliers",)), {}, "unknown dtype of double, outliers 'float64'"),
        (OtherSizes(({"n": 4},), (), ("digits",)), {}, "unknown scenario of double 'digits': choose from outliers"),
        (OtherSizes(({"n": 4},)), {"case": lambda n: 1 / 0}, "could make no case of n=4: ZeroDivisionError"),
        (OtherSizes(({"n": 4},)), {"case": lambda n: n}, "could make no case of n=4"),
        (OtherSizes(({"n": 4},)), {"case": lambda n: case(n + 1)}, "could make no case of n=4: it made n=5 float32"),
        (OtherSizes(({"n": 4},)), {"case": lambda n: Case("other", {"n": n}, "float32")}, "operation 'other'"),
        (OtherSizes(tuple({"n": n} for n in range(600)), ("float32", "float64")), {}, "these are 1200"),
    ],
)
def test_what_an_operation_refuses_is_one_sentence(wanted, make, words):
    with pytest.raises(UsageError) as caught:
        made(wanted, replace(double(), **make))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_axes_are_the_parameters_that_are_sizes():
    def make(rows, columns=4, dtype="float32", scenario="", **more):
        raise NotImplementedError

    assert axes_of(replace(double(), case=make)) == {"rows": True, "columns": False}
    assert axes_of(replace(double(), case=None)) == {}
