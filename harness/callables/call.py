"""Makes an operation with one case and one implementation of a callable and its arguments: then the check, the clocks
and the audit of registered kernels apply to it."""

import importlib
import inspect
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import count
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ..agreement.agreement import Rejected, reject_on_error
from ..agreement.guarded_memory import NAN_POISON, differs, overwrite
from ..api.operations import Agreement, Case, Cost, Expected, Implementation, Inputs, Launch, Operation, Status, Tensors
from ..execution.plan import Step
from .arguments import Arguments, copied, shares_memory
from .binding import Binding, leaves_of, names_of, require_tensors
from .bounds import Bound
from .expectation import Expectation, agree, expected
from .request import Request

BACKEND = "callable"

INTERPRETERS = (
    ("triton.runtime.interpreter", "GridExecutor", "__call__", "Triton interpreted a kernel"),
    ("boltzbench.kernels.emulator", "EmulatedModule", "launch", "a CUDA C kernel ran in the emulator"),
)
"""What runs kernels for a GPU on a CPU: module, class, method, and the words for it."""

RANDOM = "random results: values unchecked"


@dataclass(frozen=True)
class Call:
    """A callable and its arguments, ready to be checked and timed as ``step`` on ``device``.

    ``checked``: a reference decides on its values. ``notes`` are for the reader of its figures. ``seconds`` is how long
    its second call took. ``interpreted`` says why its time means nothing; usually empty. ``counted``: the bytes are
    those of all arguments and results.
    """

    step: Step
    device: torch.device
    label: str
    checked: bool
    notes: tuple[str, ...]
    seconds: float
    interpreted: str
    counted: bool
    borrowed: tuple[tuple[Tensor, Tensor], ...]

    @property
    def cost(self) -> Cost:
        assert isinstance(self.step.subject, Case)
        return self.step.operation.cost(self.step.subject)

    def give_back(self) -> None:
        """Put back the values of the callable's own tensors, which the harness has overwritten with poison."""
        with torch.no_grad():
            for tensor, before in self.borrowed:
                tensor.copy_(before)


def names_for(fn: Callable[..., Any], request: Request, name: str = "") -> tuple[str, str]:
    """The names of the operation and of the implementation: what the reference computes, and who does it."""
    return name_of(request.reference or fn), name or name_of(fn)


def name_of(fn: Callable[..., Any]) -> str:
    """The name of a callable in tables."""
    while hasattr(fn, "func"):  # functools.partial
        fn = fn.func
    name = str(getattr(fn, "__name__", None) or type(fn).__name__)
    return "lambda" if name == "<lambda>" else name


def make_call(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    request: Request,
    names: tuple[str, str],
) -> Call:
    """Call ``fn`` twice on copies of its arguments, and the reference, to see what there is to check and to time.

    ``names`` are those of the operation and of the implementation. Raises `Rejected` for what the callable does wrong,
    ValueError or TypeError for arguments or a reference that cannot be used.
    """
    if not callable(fn):
        raise TypeError(f"expected a callable: got {reprlib.repr(fn)}")
    _require_no_misspelt_option(fn, kwargs)
    binding = Binding(Arguments(fn, args, kwargs, request.keep), request.backward)
    calls = count(1)
    seen = _look(fn, binding, calls)
    expectation = Expectation(fn, binding, request.reference, request.bound)
    bounds = expectation.bounds(seen.results)
    repeats = agree(seen.results[: len(seen.before)], seen.before, bounds[: len(seen.before)])
    if seen.borrowed:
        with naming(fn, next(calls)):
            _require_own_work(fn, binding, seen.borrowed, expectation, repeats)
    expectation.states = seen.written
    right = expectation.try_reference() if request.reference is not None else None
    if unexpected := [each for each in seen.written if each not in expectation.states]:
        raise Rejected(
            Status.MODIFIED_INPUT,
            f"it changes {', '.join(unexpected)} in place, and the reference does not: "
            "if that is meant, the reference has to do the same",
        )
    changed = [seen.inputs[name] for name in expectation.states]
    results = [
        _Result(name, place, each.shape, each.dtype, each.device, limit, _viewed(each, seen.inputs))
        for place, (name, each, limit) in enumerate(zip(binding.names, seen.results, bounds, strict=True))
        if not shares_memory(each, changed)
    ]
    random = not repeats
    if right is not None:
        _require_same_form(results, right)
        own = [seen.results[each.place] for each in results]
        random = not repeats and not agree(own, right, [each.bound for each in results])

    def judge(inputs: Inputs) -> dict[str, Expected]:
        if request.reference is not None:
            found, after = expectation.results(inputs)
        else:
            own = [(tensor, tensor.clone()) for tensor, _ in seen.borrowed]
            for tensor, _ in own:  # other poison than that of the launch, in case it writes nothing
                overwrite(tensor, NAN_POISON)
            with naming(fn, next(calls)):
                found, after = expectation.results(inputs)
            found = [each.clone() for each in found]
            for tensor, kept in own:  # the results that are judged lie there
                tensor.copy_(kept)
        values = {one.name: expected(value, one.dtype, one.bound) for one, value in zip(results, found, strict=True)}
        states = [binding.tensors[name] for name in expectation.states]
        for name, state, limit in zip(expectation.states, states, expectation.bounds(states), strict=True):
            values[name] = expected(after[name], state.dtype, limit)
        return values

    cost = _least_work(request, binding, results, expectation.states)
    operation = _operation(names[0], binding, results, expectation.states, request.sizes, judge, cost)
    implementation = _implementation(fn, names, binding, results, expectation.states, random, calls)
    return Call(
        Step(operation, implementation, operation.cases[0], 0),
        binding.arguments.device or seen.results[0].device,
        binding.arguments.label,
        checked=request.reference is not None and not random,
        notes=tuple(_notes(binding.arguments, request, right or (), results, expectation.states, random)),
        seconds=seen.seconds,
        interpreted=", and ".join(sorted(seen.interpreted)),
        counted=request.bytes is None,
        borrowed=seen.borrowed,
    )


def _require_no_misspelt_option(fn: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Raise TypeError for a keyword that the callable does not take, and that is nearly an option."""
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):  # a function of C
        return
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    for name in kwargs:
        near = get_close_matches(name, [each.name for each in fields(Request)], n=1)
        if near and name not in parameters:
            raise TypeError(f"{name_of(fn)} takes no argument {name!r}: did you mean the option {near[0]!r}?")


@dataclass(frozen=True)
class _Look:
    """What two calls on copies of the arguments show.

    ``before`` are the results of the first call, ``results`` those of the second, with the gradients, and ``inputs``
    the arguments after it. ``written`` names the arguments that a call changes. ``borrowed`` are results in memory that
    the callable keeps from call to call, with their values.
    """

    before: list[Tensor]
    results: list[Tensor]
    inputs: dict[str, Tensor]
    written: list[str]
    borrowed: tuple[tuple[Tensor, Tensor], ...]
    seconds: float
    interpreted: set[str]


def _look(fn: Callable[..., Any], binding: Binding, calls: Iterator[int]) -> _Look:
    given = binding.arguments.tensors
    first = {name: copied(each) for name, each in given.items()}
    interpreted: set[str] = set()
    with _noticing(interpreted), naming(fn, next(calls)):
        result = binding.call(fn, first)
        _wait()
    require_tensors(result)
    leaves = leaves_of(result)
    binding.know_results(names_of(result), leaves)
    written = [name for name, each in given.items() if each.numel() and bool(differs(first[name], copied(each)))]
    if not leaves and not written:
        raise Rejected(
            Status.ERROR,
            "it returns nothing and changes none of its arguments, so that its work cannot be seen: "
            "return the result, or pass the tensor that it writes to",
        )
    before = [leaf.detach().clone() for leaf in leaves]
    places = [leaf.untyped_storage().data_ptr() for leaf in leaves]  # a graph of torch.compile may reclaim them
    second = {name: copied(each) for name, each in binding.tensors.items()}
    with _noticing(interpreted), naming(fn, next(calls)):
        call = binding.bound(fn, second)
        begin = perf_counter()
        results = call()
        _wait()
        seconds = perf_counter() - begin
    if len(results) != len(binding.names):
        raise Rejected(Status.ERROR, f"call 2 returned {len(results)} tensors, call 1 {len(binding.names)}")
    results = [each.detach() for each in results]
    kept = [
        each
        for place, each in zip(places, results, strict=False)
        if each.numel() and each.untyped_storage().data_ptr() == place
    ]
    return _Look(before, results, second, written, tuple((each, each.clone()) for each in kept), seconds, interpreted)


@dataclass(frozen=True)
class _Result:
    """A result that is judged: its name, its place among all, its form, its bound, and the argument that it is a view
    of, if any."""

    name: str
    place: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    bound: Bound
    view_of: str

    @property
    def nbytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize


@contextmanager
def naming(fn: Callable[..., Any], number: int) -> Iterator[None]:
    """Reject the callable for what it raises, and say in which call it did."""
    with reject_on_error():
        try:
            yield
        except Exception as error:
            error.add_note(f"raised by call {number} of {name_of(fn)}")
            raise


def _operation(
    name: str,
    binding: Binding,
    results: Sequence[_Result],
    states: Sequence[str],
    sizes: Mapping[str, int],
    judge: Callable[[Inputs], dict[str, Expected]],
    cost: Cost,
) -> Operation:
    dtypes = [*(each.dtype for each in binding.tensors.values()), *(each.dtype for each in results)]

    def make_outputs(inputs: Inputs) -> Tensors:
        made = {each.name: torch.empty(each.shape, dtype=each.dtype, device=each.device) for each in results}
        return {**{name: copied(inputs[name]) for name in states}, **made}

    return Operation(
        name=name,
        summary="",
        formula="",
        source="",
        kind="map",
        cases=(Case(name, sizes, str(dtypes[0]).removeprefix("torch."), purpose="bench"),),
        make_inputs=lambda case, device: binding.values(case.seed),
        make_outputs=make_outputs,
        reference=lambda inputs, outputs: judge(inputs),
        cost=lambda case: cost,
        parameters=binding.constant,
        judge_draws=lambda inputs, outputs: Agreement(Status.PASSED),
    )


def _implementation(
    fn: Callable[..., Any],
    names: tuple[str, str],
    binding: Binding,
    results: Sequence[_Result],
    states: Sequence[str],
    random: bool,
    calls: Iterator[int],
) -> Implementation:
    whole = len(binding.names)
    places = [(each.name, each.place) for each in results]

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        call = binding.bound(fn, {name: outputs[name] if name in states else inputs[name] for name in binding.tensors})
        after = {name: outputs[name] for name in states}

        def launch() -> Tensors:
            number = next(calls)
            try:
                leaves = call()
            except Exception as error:
                error.add_note(f"raised by call {number} of {name_of(fn)}")
                raise
            if len(leaves) != whole:
                raise ValueError(f"call {number} returned {len(leaves)} tensors, call 1 {whole}")
            return {**after, **{name: leaves[i] for name, i in places}}

        return launch

    return Implementation(*names, BACKEND, prepare, own_stream=random)


def _notes(
    arguments: Arguments,
    request: Request,
    right: Sequence[Tensor],
    results: Sequence[_Result],
    states: Sequence[str],
    random: bool,
) -> Iterator[str]:
    if random and request.reference is not None:
        yield RANDOM
    if states and request.reference is None:
        yield f"{', '.join(states)}: changed in place, and restored before each launch"
    for each in results:
        if each.view_of:
            yield f"{each.name} is a view of {each.view_of}: no time was spent on it"
    for each, value in zip(results, right, strict=False):
        if value.is_floating_point() and value.dtype is not torch.float64:
            dtype = str(value.dtype).removeprefix("torch.")
            yield f"the reference gives {each.name} in {dtype}, not in float64: its rounding counts as an error"
    if request.reference is not None:
        yield from _coarser(arguments, results)
    if not arguments.tensors:
        yield "no tensor arguments: each launch has the same values, so results may be kept"
    elif not (arguments.varying or request.backward):
        yield "no argument has values that can be scaled: each launch has the same, so results may be kept"


def _coarser(arguments: Arguments, results: Sequence[_Result]) -> Iterator[str]:
    """A note on each result that has less precision than all arguments, and so a wider bound than those would give."""
    given = [torch.finfo(each.dtype).eps for each in arguments.tensors.values() if each.is_floating_point()]
    for each in results:
        if given and each.dtype.is_floating_point and torch.finfo(each.dtype).eps > max(given):
            dtype = str(each.dtype).removeprefix("torch.")
            yield f"{each.name} is {dtype}, with less precision than the arguments: judged by the rounding of {dtype}"


def _viewed(result: Tensor, arguments: Mapping[str, Tensor]) -> str:
    """The argument in whose memory a result lies."""
    return next((name for name, each in arguments.items() if shares_memory(result, [each])), "")


def _require_own_work(
    fn: Callable[..., Any],
    binding: Binding,
    borrowed: Sequence[tuple[Tensor, Tensor]],
    expectation: Expectation,
    repeats: bool,
) -> None:
    """Reject a callable that returns a tensor of its own, unless each call writes the same results to all of it."""
    own = "a tensor that is not among its arguments"
    if not repeats:
        words = f"it changes {own}, so that each call has another result: pass that tensor as an argument"
        raise Rejected(Status.ERROR, words)
    call = binding.bound(fn, {name: copied(each) for name, each in binding.tensors.items()})
    before = [each for _, each in borrowed]
    try:
        for tensor, _ in borrowed:
            overwrite(tensor, NAN_POISON)
        call()
        now = [tensor.clone() for tensor, _ in borrowed]
    finally:
        for tensor, each in borrowed:
            tensor.copy_(each)
    if not agree(now, before, expectation.bounds(before)):
        words = f"it returns {own}, and does not write to all of it in each call: no work can be seen"
        raise Rejected(Status.ERROR, words)


def _require_same_form(results: Sequence[_Result], right: Sequence[Tensor]) -> None:
    if len(right) != len(results):
        own = f"{len(results)} ({', '.join(each.name for each in results)})" if results else "none"
        raise ValueError(f"the reference returns {len(right)} tensors besides what it changes, the callable {own}")
    for each, value in zip(results, right, strict=True):
        if each.shape != value.shape:
            words = f"{each.name} has shape {tuple(each.shape)}, the reference's {tuple(value.shape)}"
            raise Rejected(Status.WRONG_SHAPE, words)
        if each.dtype.is_floating_point != value.is_floating_point():
            raise Rejected(Status.WRONG_DTYPE, f"{each.name} has dtype {each.dtype}, the reference's {value.dtype}")


def _least_work(request: Request, binding: Binding, results: Sequence[_Result], states: Sequence[str]) -> Cost:
    """Bytes count each input and each result once, unless given. A given number is divided as these are."""
    read = sum(map(_distinct_bytes, binding.tensors.values()))
    written = sum(each.nbytes for each in results if not each.view_of)
    written += sum(_distinct_bytes(binding.tensors[name]) for name in states)
    if request.bytes is not None:
        written = round(request.bytes * written / ((read + written) or 1))
        read = round(request.bytes) - written
    dtypes = [*(each.dtype for each in binding.tensors.values()), *(each.dtype for each in results)]
    dtype = str(next((each for each in dtypes if each.is_floating_point), torch.float32)).removeprefix("torch.")
    return Cost(1, "calls", read, written, flops=round(request.flops or 0), matrix_dtype=dtype)


def _distinct_bytes(tensor: Tensor) -> int:
    """Bytes of the elements, those that an expanded dimension repeats counted once."""
    count = tensor.itemsize
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= 1 if stride == 0 and size else size
    return count


def _wait() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


@contextmanager
def _noticing(seen: set[str]) -> Iterator[None]:
    """Add what is interpreted meanwhile, in words."""

    def noticing(method: Any, words: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.add(words)
            return method(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for module, kind, method, words in INTERPRETERS:
            if module in sys.modules:
                owner = getattr(importlib.import_module(module), kind)
                stack.enter_context(patch.object(owner, method, noticing(getattr(owner, method), words)))
        yield
