"""Checks an implementation against its operation's reference and laws.

The check prepares an implementation once and launches it twice, in poisoned and guarded memory. Between the launches
it replaces the values of the input tensors in place. This rejects a kernel that leaves an element unwritten, writes
outside its tensors, changes an input, works only the first time, computes in ``prepare``, or returns cached results.
For a kernel with wrong values the message says where they are and how large the error is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from ..api.messages import describe_error
from ..api.operations import (
    Agreement,
    Case,
    Expected,
    Implementation,
    Inputs,
    Law,
    Operation,
    Status,
    Tensors,
    Unsupported,
)
from ..api.statistics import all_of
from .device_memory import is_out_of_memory
from .guarded_memory import (
    HUGE_POISON,
    NAN_POISON,
    Allocate,
    Guarded,
    Poison,
    differs,
    element_at,
    fingerprint,
    first_true,
    overwrite,
    private_memory,
)


class Rejected(Exception):
    """An implementation failed as ``agreement`` says. Internal to the harness."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.agreement = Agreement(status, message)


@contextmanager
def reject_on_error(*, may_refuse: bool = False) -> Iterator[None]:
    """Reject the implementation for any exception raised inside, SystemExit included; Ctrl-C passes through.

    If it ``may_refuse``, `Unsupported` makes the case unavailable instead.
    """
    try:
        yield
    except Rejected:
        raise
    except (Exception, SystemExit) as error:
        if may_refuse and isinstance(error, Unsupported):
            raise Rejected(Status.UNAVAILABLE, str(error)) from error
        status = Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.ERROR
        raise Rejected(status, describe_error(error)) from error


@contextmanager
def _note_origin(what: str) -> Iterator[None]:
    """Note in an exception raised inside that ``what`` raised it, and not the implementation."""
    try:
        yield
    except Rejected:
        raise
    except Exception as error:
        error.add_note(f"raised by {what}, not by the implementation under test")
        raise


Copy = dict[str, tuple[bool, Tensor]]
"""The outputs of a launch by name: whether each lay in the given memory, and its words or the tensor."""


class GuardedCall:
    """One implementation, prepared on guarded copies of ``inputs`` and on guarded outputs.

    ``prepare`` finds the outputs as a launch does, since an autotuner may launch inside it. ``run`` makes one launch
    with everything around it. To time launches, call the parts ``restore``, ``launch`` and ``accept``. ``launch``
    raises what the implementation raises; the other methods raise `Rejected` when it fails. ``allocate`` makes the
    memory of inputs and outputs.
    """

    def __init__(
        self,
        operation: Operation,
        implementation: Implementation,
        inputs: Inputs,
        device: torch.device,
        allocate: Allocate = private_memory,
    ) -> None:
        _require_flat(inputs)
        self._operation = operation
        self._own_stream = implementation.own_stream
        self._device = device
        self._returned: list[Tensor] = []
        self._guarded_inputs = {
            name: Guarded(value, allocate) for name, value in inputs.items() if isinstance(value, Tensor)
        }
        self.inputs: Inputs = {
            name: self._guarded_inputs[name].tensor if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }
        self._given = dict(self.inputs)
        self._write_inputs(inputs, NAN_POISON)
        with _note_origin(f"make_outputs of {operation.name}"):
            outputs = operation.make_outputs(self.inputs)
            self._outputs = {name: Guarded(output, allocate) for name, output in outputs.items()}
            self._require_states_like_inputs()
        self.restore()
        with reject_on_error(may_refuse=True):
            self.launch = implementation.prepare(self._given, self._output_tensors())
            if not callable(self.launch):
                raise TypeError(f"prepare returned {self.launch!r}, which cannot be called")

    def replace_values(self, others: Inputs, poison: Poison) -> bool:
        """Overwrite the input tensors with the values of ``others``, and the numbers that move on from launch to launch
        in the inputs that ``prepare`` was given. If tensors have another layout, rewrite the present values and return
        False.
        """
        fits = self.fits(others)
        if fits:
            self._write_numbers(others)
        self._write_inputs(others if fits else {n: t.clone() for n, t in self._input_tensors().items()}, poison)
        return fits

    def fits(self, others: Inputs) -> bool:
        """Whether ``others`` have the names and layouts of the inputs."""
        return others.keys() == self.inputs.keys() and all(
            isinstance(others[name], Tensor) and _layout(others[name]) == _layout(self.inputs[name])
            for name in self._guarded_inputs
        )

    def put(self, values: Inputs) -> None:
        """Overwrite these inputs, which fit, quickly: elements and moving numbers, and no poison around them."""
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        given = [self._guarded_inputs[name] for name in tensors]
        if given:
            sources = [each.distinct(value) for each, value in zip(given, tensors.values(), strict=True)]
            torch._foreach_copy_([each.elements for each in given], sources)
        for each, value in zip(given, tensors.values(), strict=True):
            each.wrote(value)
        self._write_numbers(values)

    def restore(self, poison: Poison = HUGE_POISON) -> None:
        """Reset state to its initial values and poison every other output. Call this before each launch.

        This also poisons tensors of its own that the implementation returned to `fingerprint`, so that it has to
        write them again.
        """
        for name, output in self._outputs.items():
            state = self._guarded_inputs.get(name)
            output.fill(state.tensor if state else None, poison)
        for tensor in self._returned:
            overwrite(tensor, poison)

    def fingerprint(self, result: Tensors) -> dict[str, Tensor]:
        """Enqueue a checksum of each output of the launch just enqueued, without waiting for the device.

        The checksum does not include work that is not ordered before the end of the launch: on another stream, in a
        thread, or in a lazy tensor. The results must have the right form.
        """
        require_form(result, self._output_tensors())
        mine = [*self._guarded_inputs.values(), *self._outputs.values()]
        self._returned = [result[n] for n in self._outputs if not any(memory.holds(result[n]) for memory in mine)]
        return {
            name: ours.fingerprint() if same_place(result[name], ours.tensor) else fingerprint(result[name])
            for name, ours in self._outputs.items()
        }

    def sums_of_states(self) -> dict[str, Tensor]:
        """Enqueue a checksum of each state after `restore`, to compare with `fingerprint`."""
        return {name: output.fingerprint() for name, output in self._outputs.items() if name in self._guarded_inputs}

    def copy(self, result: Tensors) -> Copy:
        """Enqueue a copy of each output, for `differs`. The results must have the right form."""
        return {
            name: (True, ours.copy())
            if same_place(result[name], ours.tensor)
            else (False, result[name].detach().clone())
            for name, ours in self._outputs.items()
        }

    def differs(self, result: Tensors, copy: Copy) -> Tensor:
        """Enqueue the answer whether any bit of an output differs from the `copy` of another launch's outputs, in this
        memory or in other. The results must have the right form."""
        answers = []
        for name, ours in self._outputs.items():
            in_ours, words = copy[name]
            if in_ours != same_place(result[name], ours.tensor):
                answers.append(torch.ones((), dtype=torch.bool, device=words.device))
            else:
                answers.append(ours.differs(words) if in_ours else differs(result[name], words))
        return torch.stack(answers).any()

    @property
    def nbytes(self) -> int:
        """Bytes that a launch may touch: inputs and outputs with their guard bands."""
        return sum(memory.nbytes for memory in (*self._guarded_inputs.values(), *self._outputs.values()))

    def accept(self, result: Tensors) -> Tensors:
        """Wait for the device, then check what needs no reference: stray writes and the form of the results."""
        with reject_on_error():
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        for name, given in self._guarded_inputs.items():
            if place := given.change():
                raise Rejected(Status.MODIFIED_INPUT, f"input {name!r} was modified: {place}")
        for name, output in self._outputs.items():
            if place := output.spill():
                raise Rejected(Status.OUT_OF_BOUNDS, f"wrote outside output {name!r}: {place}")
        require_form(result, self._output_tensors())
        return result

    def run(self, poison: Poison = HUGE_POISON) -> Tensors:
        self.restore(poison)
        with reject_on_error():
            result = self.launch()
        return self.accept(result)

    def judge(self, result: Tensors) -> Agreement:
        """The verdict on the values: by the reference, or by `judge_draws` for a random stream of its own."""
        return judge_results(self._operation, self._own_stream, self.inputs, result, self._compare)

    def _compare(self, name: str, output: Tensor, expected: Expected) -> Agreement:
        verdict, off = compare(name, output, expected)
        ours = self._outputs[name]
        if verdict.passed or not same_place(output, ours.tensor) or name in self._guarded_inputs:
            return verdict
        unwritten = ours.unwritten() & off
        if not unwritten.any():
            return verdict
        first = element_at(first_true(unwritten), output.shape)
        return replace(
            verdict,
            message=f"{name}: element {first} was never written ({int(unwritten.sum())} such of {output.numel()}): "
            "it holds the poison put there before the launch",
        )

    def _write_numbers(self, values: Inputs) -> None:
        numbers = {name: values[name] for name in self._operation.moving if name in values}
        self.inputs = {**self.inputs, **numbers}
        self._given.update(numbers)

    def _write_inputs(self, values: Inputs, poison: Poison) -> None:
        for name, given in self._guarded_inputs.items():
            given.fill(values[name], poison)
            given.seal()

    def _input_tensors(self) -> dict[str, Tensor]:
        return {name: given.tensor for name, given in self._guarded_inputs.items()}

    def _output_tensors(self) -> dict[str, Tensor]:
        return {name: output.tensor for name, output in self._outputs.items()}

    def _require_states_like_inputs(self) -> None:
        for name, state in self._output_tensors().items():
            given = self.inputs.get(name, state)
            if not isinstance(given, Tensor) or (given.shape, given.dtype) != (state.shape, state.dtype):
                raise ValueError(
                    f"output {name!r} is the state of the input of that name, but not of its shape and dtype"
                )


def judge_results(
    operation: Operation,
    own_stream: bool,
    inputs: Inputs,
    result: Tensors,
    compare_one: Callable[[str, Tensor, Expected], Agreement] = lambda *of: compare(*of)[0],
) -> Agreement:
    """The verdict on the values: by the reference, or by `judge_draws` for a random stream of its own."""
    if own_stream:
        with _note_origin(f"judge_draws of {operation.name}"):
            if operation.judge_draws is None:
                raise ValueError("there is none, so an implementation with a random stream of its own cannot be judged")
            return operation.judge_draws(inputs, result)
    with _note_origin(f"the reference of {operation.name}"):
        expected = operation.reference(inputs, result)
        if expected.keys() != result.keys():
            raise ValueError(f"it returns outputs {sorted(expected)}, not {sorted(result)}")
        if circular := _caused_by_output(operation, inputs, result, expected):
            return circular
        return all_of([compare_one(name, result[name], expected[name]) for name in result])


def _caused_by_output(
    operation: Operation, inputs: Inputs, result: Tensors, expected: Mapping[str, Expected]
) -> Agreement | None:
    """A failure if NaN or infinity is expected only because the implementation's outputs contain such values.

    A reference that conditions later draws on earlier ones would otherwise accept NaN as a consequence of NaN.
    """
    numbers = {name: _computable(tensor) for name, tensor in result.items()}
    if all(tensor.isfinite().all() for tensor in numbers.values()):
        return None
    finite = {name: tensor.nan_to_num(0.0, 0.0, 0.0).to(result[name].dtype) for name, tensor in numbers.items()}
    given_finite = operation.reference(inputs, finite)
    for name, each in expected.items():
        value, other = _computable(each.value), _computable(given_finite[name].value)
        circular = ~value.isfinite() & ~((value == other) | (value.isnan() & other.isnan()))
        if circular.any():
            first = element_at(first_true(circular), circular.shape)
            wanted = value.flatten()[circular.flatten()][0].item()
            message = f"{name}: {wanted} is expected of element {first} only since the outputs hold NaN or infinity"
            return Agreement(Status.WRONG_VALUES, message, error=float("inf"), bound=0.0)
    return None


def require_other_values(operation: Operation, case: Case, inputs: Inputs, others: Inputs) -> None:
    """ValueError if the inputs of two seeds are equal, so that a result could be kept from launch to launch."""
    pairs = [(value, others.get(name)) for name, value in inputs.items() if name not in operation.parameters]
    tensors = [(one, other) for one, other in pairs if isinstance(one, Tensor) and one.numel()]
    if tensors and not any(
        not isinstance(other, Tensor) or _layout(one) != _layout(other) or bool(differs(one, other))
        for one, other in tensors
    ):
        raise ValueError(
            f"make_inputs of {operation.name} gives case {case.label!r} the same tensors for every seed, so "
            "that results could be kept from launch to launch: derive them from case.seed"
        )


def _require_flat(inputs: Inputs) -> None:
    for name, value in inputs.items():
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        if any(isinstance(part, Tensor) for part in parts):
            raise TypeError(f"input {name!r} is a {type(value).__name__} of tensors: each needs a name to be guarded")


def same_place(one: Tensor, other: Tensor) -> bool:
    return (one.data_ptr(), one.stride()) == (other.data_ptr(), other.stride())


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.stride()


def require_form(result: object, outputs: Mapping[str, Tensor]) -> None:
    """Raise `Rejected` unless the result of a launch has the names and the forms of the outputs.

    No code of the implementation runs here: whatever could compute when it is read is refused unread.
    """
    if type(result) is not dict:
        raise Rejected(Status.ERROR, f"the launch returned {type(result).__name__}, not a dict of tensors by name")
    if any(type(name) is not str for name in result):
        raise Rejected(Status.ERROR, "the launch returned a dict with a name that is not a plain string")
    if result.keys() != outputs.keys():
        names, wanted = sorted(result), sorted(outputs)
        raise Rejected(Status.ERROR, f"the launch returned outputs named {names}, not {wanted}")
    for name, wanted_like in outputs.items():
        tensor = result[name]
        # A subclass could postpone its work until it is read, after the clock has stopped.
        if type(tensor) is not Tensor or tensor.layout is not torch.strided:
            raise Rejected(Status.ERROR, f"output {name!r} is not a dense tensor but {type(tensor).__name__}")
        if tensor.__dict__:
            own = ", ".join(map(repr, tensor.__dict__))
            raise Rejected(Status.ERROR, f"output {name!r} is a tensor with attributes of its own: {own}")
        keys = torch._C._dispatch_keys(tensor)
        if lazy := [key.name for key in _LAZY if keys.has(key)]:
            raise Rejected(Status.ERROR, f"output {name!r} is computed when it is read ({', '.join(lazy)})")
        if tensor.shape != wanted_like.shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted_like.shape)}"
            raise Rejected(Status.WRONG_SHAPE, f"output {name!r} has shape {shapes}")
        if tensor.dtype != wanted_like.dtype:
            dtypes = f"{tensor.dtype}, not {wanted_like.dtype}"
            raise Rejected(Status.WRONG_DTYPE, f"output {name!r} has dtype {dtypes}")
        if tensor.device != wanted_like.device:
            devices = f"{tensor.device}, not {wanted_like.device}"
            raise Rejected(Status.ERROR, f"output {name!r} lies on {devices}")


_LAZY = [
    getattr(torch._C.DispatchKey, name)
    for name in (
        "Negative",
        "Conjugate",
        "ZeroTensor",
        "Functionalize",
        "Python",
        "FuncTorchBatched",
        "FuncTorchGradWrapper",
    )
    if hasattr(torch._C.DispatchKey, name)
]
"""The kinds of a tensor whose elements are not simply in its memory."""


_WHOLE = 2.0**53
"""Up to this, float64 holds every integer."""


def difference(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Where two tensors hold the same number, infinity or NaN, and how far apart their elements are, in float64.

    Integers that float64 does not hold are not rounded first: differences up to 2^53 are exact.
    """
    (number, rest), (other_number, other_rest) = _in_float64(one), _in_float64(other)
    same = (number == other_number) | (number.isnan() & other_number.isnan())
    distance = number - other_number
    if rest is not None or other_rest is not None:
        between = (0.0 if rest is None else rest) - (0.0 if other_rest is None else other_rest)
        same, distance = same & (between == 0.0), distance + between
    return same, distance.abs()


def _in_float64(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """The numbers rounded to float64, and what the rounding took off; None if nothing."""
    number = tensor.to(torch.float64)
    if tensor.dtype not in (torch.int64, torch.uint64) or not (number.abs() >= _WHOLE).any():
        return number, None
    words = tensor.view(torch.int64)
    high = (words >> 32) & (-1 if tensor.dtype is torch.int64 else 0xFFFFFFFF)
    # The rounding error of a sum whose first term is the larger one is exact (Dekker 1971).
    return number, (words & 0xFFFFFFFF).to(torch.float64) - (number - high.to(torch.float64) * 2.0**32)


def _computable(tensor: Tensor) -> Tensor:
    """The same numbers, in a dtype that torch computes with: it has few functions for floats of 8 bits."""
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def compare(name: str, output: Tensor, expected: Expected) -> tuple[Agreement, Tensor]:
    """The verdict on one output, and the mask of its elements with an error beyond their bound.

    Where the expected value is infinite or NaN, the output must be the same whatever the bound.
    """
    # After a stray write a bool's byte may be neither 0 nor 1: compare it as a number.
    got = output.detach().view(torch.uint8) if output.dtype is torch.bool else output.detach()
    value = expected.value.detach().to(got.device)
    if value.shape != got.shape:
        raise ValueError(f"expected {name!r} has shape {tuple(value.shape)}, output {tuple(got.shape)}")
    bound = torch.as_tensor(expected.bound, dtype=torch.float64, device=got.device).detach().expand(got.shape)
    bound = torch.where(_computable(value).isfinite(), bound, 0.0)
    if not (bound.isfinite() & (bound >= 0)).all():
        raise ValueError(f"the bound of {name!r} is negative, infinite or NaN where its value is finite")
    if not got.numel():
        return Agreement(Status.PASSED, error=0.0, bound=0.0), torch.zeros_like(got, dtype=torch.bool)

    same, distance = difference(got, value)
    error = torch.where(same, 0.0, distance).nan_to_num(nan=torch.inf, posinf=torch.inf)
    off = error > bound
    worst = int(torch.where(same, 0.0, error / bound).argmax())
    verdict = Agreement(Status.PASSED, error=float(error.flatten()[worst]), bound=float(bound.flatten()[worst]))
    if not off.any():
        return verdict, off

    def describe(flat: int) -> str:
        found, wanted, limit, miss = (t.flatten()[flat].item() for t in (got, value, bound, error))
        numbers = [str(int(each)) if isinstance(each, int) else f"{each:.9g}" for each in (found, wanted)]
        where = element_at(flat, got.shape)
        return f"{where} got {numbers[0]}, expected {numbers[1]}, error {miss:.3g} beyond bound {limit:.3g}"

    first = first_true(off)
    message = f"{name}: {int(off.sum())} of {off.numel()} elements are off; first {describe(first)}"
    if worst != first:
        message += f"; worst {describe(worst)}"
    return replace(verdict, status=Status.WRONG_VALUES, message=message), off


def check_case(
    operation: Operation,
    implementation: Implementation,
    case: Case,
    device: torch.device,
    seeds: Sequence[int],
    allocate: Allocate = private_memory,
) -> Agreement:
    """The verdict on ``implementation`` in ``case``, with data drawn from each of ``seeds`` in turn.

    Stops at the first seed that fails; otherwise reports the worst element of all seeds and launches. Exceptions of
    the operation itself (its inputs, outputs or reference) propagate, with a note that says so.
    """
    if not seeds:
        raise ValueError("seeds is empty: check_case needs at least one seed")
    verdicts = []
    for seed in seeds:
        verdict = _check_seed(operation, implementation, replace(case, seed=seed), device, allocate)
        if not verdict.passed:
            return verdict
        verdicts.append(verdict)
    return all_of(verdicts)


def _check_seed(
    operation: Operation, implementation: Implementation, case: Case, device: torch.device, allocate: Allocate
) -> Agreement:
    """Two launches of one preparation.

    The first runs on the values that ``prepare`` saw. The second runs on the values of another seed in the same
    memory, where results computed in ``prepare`` or cached for these pointers are wrong. In the reverse order a kernel
    that is simply wrong would look like one that caches. Numbers stay as ``prepare`` received them, except those that
    move on from launch to launch, such as a sampler's step. So the second inputs belong to no seed; a reference must
    handle any inputs.

    Inputs and outputs hold different poisons, exchanged between the launches. Poison that a kernel reads outside an
    input and copies to an output therefore differs from the poison of an unwritten element.
    """
    moment = "prepare"
    try:
        with _note_origin(f"make_inputs of {operation.name}, case {case.label!r}, seed {case.seed}"):
            inputs = operation.make_inputs(case, device)
        call = GuardedCall(operation, implementation, inputs, device, allocate)
        moment = "first launch"
        first = call.judge(call.run(HUGE_POISON))
        if not first.passed:
            return _locate(first, case, moment)
        other = replace(case, seed=case.seed + 1)
        with _note_origin(f"make_inputs of {operation.name}, case {other.label!r}, seed {other.seed}"):
            others = operation.make_inputs(other, device)
            if case.purpose != "check":
                require_other_values(operation, case, inputs, others)
        replaced = call.replace_values(others, HUGE_POISON)
        moment = "second launch, " + ("new values in the same inputs" if replaced else "same inputs")
        second = call.judge(call.run(NAN_POISON))
        return all_of([first, second]) if second.passed else _locate(second, case, moment)
    except Rejected as rejected:
        return _locate(rejected.agreement, case, moment)


def _locate(verdict: Agreement, case: Case, moment: str) -> Agreement:
    """Add seed and launch to the message."""
    if verdict.status is Status.UNAVAILABLE:  # independent of seeds and launches
        return verdict
    return replace(verdict, message=f"{verdict.message} (seed {case.seed}, {moment})")


def check_law(
    implementation: Implementation,
    operation: Operation,
    law: Law,
    device: torch.device,
    seed: int,
    allocate: Allocate = private_memory,
) -> Agreement:
    """The verdict of ``law`` on ``implementation``. Exceptions of the law's own code propagate, with a note."""
    if law.shared_stream and implementation.own_stream:
        return Agreement(Status.UNAVAILABLE, "the law holds only for the suite's random stream, and this is another")

    def advance(inputs: Inputs) -> Tensors:
        call = GuardedCall(operation, implementation, inputs, device, allocate)
        return {name: tensor.clone() for name, tensor in call.run().items()}

    try:
        with _note_origin(f"the law {law.name!r} of {operation.name}"):
            return law.test(advance, device, seed)
    except Rejected as rejected:
        return rejected.agreement
