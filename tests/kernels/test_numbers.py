"""Every public function takes the same kinds of numbers, on every backend, and names the argument that it refuses."""

import inspect
import math
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.numbers import integer, real, reals
from boltzbench.kernels.rows.checks import normal_dim
from support import number_calls
from support.number_calls import NumberCall
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten

CALLS = number_calls.calls()
TOO_LARGE = 1 << 70


def walk(*kinds: str):
    """Each argument of the given kinds with each backend of its function."""
    for name, function in number_calls.public_functions().items():
        if name not in CALLS:
            continue
        for argument, kind in number_calls.number_arguments(function).items():
            for backend in dispatch.BACKENDS if CALLS[name].has_backend else (None,):
                if kind in kinds:
                    yield pytest.param(CALLS[name], argument, backend, id=f"{name}-{argument}-{backend or ''}")


def test_every_public_function_with_numbers_has_an_example_call():
    missing = number_calls.public_functions().keys() - CALLS.keys()
    assert not missing, f"add calls to tests/operations/<operation>/number_calls.py: {sorted(missing)}"


def test_example_calls_without_a_function_are_found():
    assert not CALLS.keys() - number_calls.public_functions().keys()


def skip_unless_it_runs(backend: str | None) -> None:
    reason = dispatch.unavailable(backend, torch.device("cpu")) if backend else None
    if reason:
        pytest.skip(reason)


def plain(value: object) -> list[object]:
    """The leaves of a result, comparable with ``==``: bits of tensors, fields of objects."""
    leaves: list[object] = []
    for leaf in tree_flatten(value)[0]:
        if isinstance(leaf, torch.Tensor):
            leaves.append((leaf.dtype, leaf.shape, leaf.detach().contiguous().numpy().tobytes()))
        elif leaf is None or isinstance(leaf, str | int | float | np.generic):
            leaves.append((type(leaf), str(leaf)))
    return leaves


def same_results(call: NumberCall, backend: str | None, arguments: Iterable[str], kinds: Iterable[Callable], one=None):
    """Numbers of each kind give the result of Python's numbers; all ``arguments`` change at once."""
    values = {name: one or call.value(name) for name in arguments}
    if not values:
        return
    wanted = plain(call.run(backend, **values))
    for kind in kinds:
        assert plain(call.run(backend, **{name: kind(value) for name, value in values.items()})) == wanted, kind


def refused(call: NumberCall, backend: str | None, argument: str, value: object, error=(TypeError, ValueError)) -> None:
    try:
        call.run(backend, **{argument: value})
    except Exception as caught:
        raised = caught
    else:
        pytest.fail(f"{argument}={value!r} is accepted")
    assert isinstance(raised, error), f"{value!r}: {raised!r}"
    assert re.match(rf"{argument}\b", str(raised)), f"{value!r}: {raised}"


def refused_with_derivatives(call: NumberCall, backend: str | None, argument: str, value: torch.Tensor) -> None:
    refused(call, backend, argument, value.clone().requires_grad_(), ValueError)
    with forward_ad.dual_level():
        refused(call, backend, argument, forward_ad.make_dual(value, torch.ones_like(value)), ValueError)


def optional(call: NumberCall, argument: str) -> bool:
    """Whether None stands for no number."""
    function = call.function.__init__ if inspect.isclass(call.function) else call.function
    hint = str(function.__annotations__.get(argument, ""))
    return "None" in hint


def float32(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32)


def float64(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


NO_INTEGERS = [1.0, 1.5, "1", True, np.True_, np.float64(1), torch.tensor(1.5), torch.tensor(True), [1], Decimal(1)]
NO_REALS = ["1", True, np.True_, 1j, torch.tensor(True), torch.tensor(1j), [1.0], Decimal(1)]


@pytest.mark.parametrize(
    ("call", "backend"),
    [
        pytest.param(call, backend, id=f"{call.name}-{backend or ''}")
        for call in CALLS.values()
        for backend in (dispatch.BACKENDS if call.has_backend else (None,))
    ],
)
def test_accepted_numbers(call, backend):
    skip_unless_it_runs(backend)
    kinds = number_calls.number_arguments(call.function)
    integers, real_numbers = ([name for name in kinds if kinds[name] == kind] for kind in ("integer", "real"))
    same_results(call, backend, integers, (np.int64, np.uint64, np.array, torch.tensor))
    same_results(call, backend, real_numbers, (np.float32, np.float64, float32, Fraction))
    same_results(call, backend, real_numbers, (float, np.int64, torch.tensor), one=1)
    for sequence in (name for name in kinds if kinds[name] in ("integers", "reals")):
        if kinds[sequence] == "integers":
            same_results(call, backend, [sequence], (lambda values: [np.int64(each) for each in values],))
        else:
            same_results(call, backend, [sequence], (lambda values: list(map(np.float32, values)), float64))
    if real_numbers:
        with torch.no_grad():
            call.run(backend, **{name: float32(call.value(name)).requires_grad_() for name in real_numbers})


@pytest.mark.parametrize(("call", "argument", "backend"), walk("integer"))
def test_refused_integers(call, argument, backend):
    skip_unless_it_runs(backend)
    for wrong in NO_INTEGERS:
        refused(call, backend, argument, wrong, TypeError)
    if not optional(call, argument):
        refused(call, backend, argument, None, TypeError)
    refused(call, backend, argument, TOO_LARGE, (ValueError, IndexError) if argument == "dim" else ValueError)
    if argument not in call.signed:
        refused(call, backend, argument, -1, ValueError)
        refused(call, backend, argument, np.int64(-1), ValueError)
        if argument not in call.unchecked:
            refused(call, backend, argument, torch.tensor(-1), ValueError)


@pytest.mark.parametrize(("call", "argument", "backend"), walk("real"))
def test_refused_reals(call, argument, backend):
    skip_unless_it_runs(backend)
    value = float(call.value(argument))
    for wrong in NO_REALS:
        refused(call, backend, argument, wrong, TypeError)
    if not optional(call, argument):
        refused(call, backend, argument, None, TypeError)
    for nan in (math.nan, np.float32(math.nan), torch.tensor(math.nan)):
        refused(call, backend, argument, nan, ValueError)
    if argument not in call.infinite:
        for number in (math.inf, -math.inf, 10**400, float32(math.inf)):
            refused(call, backend, argument, number, ValueError)
    if argument not in call.differentiable:
        refused_with_derivatives(call, backend, argument, torch.tensor(value))


@pytest.mark.parametrize(("call", "argument", "backend"), walk("integers", "reals"))
def test_refused_sequences(call, argument, backend):
    skip_unless_it_runs(backend)
    value = list(call.value(argument))
    whole = isinstance(value[0], int)
    for wrong in NO_INTEGERS if whole else NO_REALS:
        refused(call, backend, argument, [*value[:-1], wrong], TypeError)
    refused(call, backend, argument, [*value[:-1], -TOO_LARGE], ValueError)
    if not whole:
        dtype = torch.float64
        refused(call, backend, argument, [*value[:-1], math.nan], ValueError)
        refused_with_derivatives(call, backend, argument, torch.tensor(value, dtype=dtype))
        listed = [*value[:-1], torch.tensor(float(value[-1]), requires_grad=True)]
        refused(call, backend, argument, listed, ValueError)
    for wrong in ("12", 1):
        refused(call, backend, argument, wrong, TypeError)


# ---- wrong checks: what the walk rejects


def test_a_range_check_without_a_type_is_rejected():
    def only_ranges(seed: int) -> int:
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must lie in [0, 2**64), got {seed}")
        return seed & 0xFFFFFFFF

    call = NumberCall(only_ranges, {"seed": 7})
    with pytest.raises(AssertionError, match="unsupported operand"):
        refused(call, None, "seed", 1.5)
    with pytest.raises(pytest.fail.Exception, match="is accepted"):
        refused(call, None, "seed", True)
    with pytest.raises(AssertionError):
        same_results(call, None, ["seed"], [np.int64])


def test_a_message_that_names_another_argument_is_rejected():
    call = NumberCall(lambda step: integer("seed", step), {"step": 7})
    with pytest.raises(AssertionError, match="seed must be an integer"):
        refused(call, None, "step", 1.5)


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f: torch.func.jvp(f, (torch.tensor(0.5),), (torch.tensor(1.0),)),
        lambda f: torch.func.grad(f)(torch.tensor(0.5)),
        lambda f: torch.func.vmap(f)(torch.tensor([0.5, 1.0])),
        lambda f: torch.autograd.functional.jacobian(f, torch.tensor(0.5)),
    ],
)
def test_no_derivative_is_dropped(derivative):
    with pytest.raises(ValueError, match=r"^x must not require a gradient or have a tangent"):
        derivative(lambda x: torch.ones(()) * real("x", x))


# ---- messages


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: integer("n", 1.5),
            "n must be an integer, or a CPU tensor with one and no dimensions; got 1.5 of type",
        ),
        (lambda: integer("n", None), "n must be an integer, or a CPU tensor with one and no dimensions; got None"),
        (lambda: integer("n", torch.tensor([1])), "got a int64 tensor of shape (1,) on cpu"),
        (lambda: integer("n", 0, 1), "n must be at least 1, got 0"),
        (lambda: integer("n", 1 << 64, 0, (1 << 64) - 1), "n must lie in [0, 2**64 - 1], got 18446744073709551616"),
        (lambda: integer("n", 1 << 64), "n must be at most 2**63 - 1, got 18446744073709551616"),
        (lambda: normal_dim(0, 0), "dim must be a dimension of x, but x is a single number without dimensions; got 0"),
        (lambda: normal_dim(3, 2), "dim must lie in [-2, 1] for a tensor of 2 dimensions, got 3"),
        (lambda: integer("n", 3, 1, 2, " for a pair"), "n must lie in [1, 2] for a pair, got 3"),
        (lambda: real("x", "1"), "x must be a number, or a CPU tensor with one and no dimensions; got '1' of type str"),
        (lambda: real("x", math.inf), "x must be finite, got inf"),
        (lambda: real("x", -1, least=0), "x must be finite and not negative, got -1"),
        (lambda: real("x", 0, positive=True), "x must be finite and positive, got 0"),
        (lambda: real("x", 2, least=0, most=1), "x must lie in [0, 1], got 2"),
        (lambda: real("x", -1, least=0, infinite=True), "x must not be negative or NaN, got -1"),
        (lambda: real("x", math.nan, infinite=True), "x must not be NaN, got nan"),
        (lambda: real("x", torch.ones((), requires_grad=True)), "x must not require a gradient"),
        (lambda: reals("x", [0.5, "1"]), "x[1] must be a number"),
        (lambda: reals("x", torch.ones(2, 2)), "x must have one dimension, got shape (2, 2)"),
    ],
)
def test_messages(check, message):
    with pytest.raises((TypeError, ValueError, IndexError), match=re.escape(message)):
        check()
