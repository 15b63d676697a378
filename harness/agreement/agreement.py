"""Whether an implementation agrees with its operation's reference, and with the laws that its results must obey.

An implementation is prepared once and launched twice, in poisoned and guarded memory. Between the two launches the
values of its input tensors are replaced where they lie. Thus a kernel is rejected that leaves an element unwritten,
strays outside its tensors, changes an input, works only the first time, computes in ``prepare``, or answers from a
cache; and one that is merely wrong is told by how much and where.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from .guarded_memory import HUGE_POISON, NAN_POISON, Guarded, Poison, element_at, fingerprint, overwrite


class Rejected(Exception):
    """An implementation failed, in the way that ``agreement`` tells. The harness's own; none leaves it."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.agreement = Agreement(status, message)


@contextmanager
def blamed_on_implementation(*, may_refuse: bool = False) -> Iterator[None]:
    """Whatever is raised inside is the implementation's fault, SystemExit too; KeyboardInterrupt is the user's.

    Where it ``may_refuse``, `Unsupported` is no fault: the case is unavailable.
    """
    try:
        yield
    except Rejected:
        raise
    except (Exception, SystemExit) as error:
        if may_refuse and isinstance(error, Unsupported):
            raise Rejected(Status.UNAVAILABLE, str(error)) from error
        raise Rejected(Status.ERROR, describe_error(error)) from error


@contextmanager
def _blamed_on(what: str) -> Iterator[None]:
    """Adds to an exception raised inside whose code it comes from, since that is not the implementation's."""
    try:
        yield
    except Rejected:
        raise
    except Exception as error:
        error.add_note(f"raised by {what}, not by the implementation under test")
        raise


class GuardedCall:
    """One implementation, prepared on guarded copies of ``inputs`` and on guarded outputs.

    ``prepare`` meets the outputs as a launch does, and they are restored after it: it may launch to tune itself.
    ``run`` is one launch with all that surrounds it. Who times a launch calls its parts: ``restore``, ``launch``,
    ``accept``. All raise `Rejected` when the implementation fails.
    """

    def __init__(
        self, operation: Operation, implementation: Implementation, inputs: Inputs, device: torch.device
    ) -> None:
        _require_flat(inputs)
        self._operation = operation
        self._own_stream = implementation.own_stream
        self._device = device
        self._returned: list[Tensor] = []
        self._guarded_inputs = {name: Guarded(value) for name, value in inputs.items() if isinstance(value, Tensor)}
        self.inputs: Inputs = {
            name: self._guarded_inputs[name].tensor if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }
        self._write_inputs(inputs, NAN_POISON)
        with _blamed_on(f"make_outputs of {operation.name}"):
            outputs = operation.make_outputs(self.inputs)
            self._outputs = {name: Guarded(output) for name, output in outputs.items()}
            self._require_states_like_inputs()
        self.restore()
        with blamed_on_implementation(may_refuse=True):
            self.launch = implementation.prepare(dict(self.inputs), self._output_tensors())
            if not callable(self.launch):
                raise TypeError(f"prepare returned {self.launch!r}, which cannot be called")

    def replace_values(self, others: Inputs, poison: Poison) -> bool:
        """Puts the values of other input tensors where the present ones lie. False if they would not fit.

        Numbers stay as they were given to ``prepare``.
        """
        fits = others.keys() == self.inputs.keys() and all(
            isinstance(others[name], Tensor) and _layout(others[name]) == _layout(self.inputs[name])
            for name in self._guarded_inputs
        )
        self._write_inputs(others if fits else {n: t.clone() for n, t in self._input_tensors().items()}, poison)
        return fits

    def restore(self, poison: Poison = HUGE_POISON) -> None:
        """What must precede each launch: state goes back to its start, every other output is poisoned.

        So are tensors of its own that the implementation returned and that `fingerprint` saw: to return them again
        it has to write them again.
        """
        for name, output in self._outputs.items():
            state = self._guarded_inputs.get(name)
            output.fill(state.tensor if state else None, poison)
        for tensor in self._returned:
            overwrite(tensor, poison)

    def fingerprint(self, result: Tensors) -> dict[str, Tensor]:
        """A number for each output of the launch just enqueued, itself only enqueued: nothing is waited for.

        Work that is not ordered before the end of the launch (on another stream, in a thread, in a tensor that
        computes itself when it is looked at) is thus not in it. The results must have the right form.
        """
        _require_form(result, self._output_tensors())
        mine = [*self._guarded_inputs.values(), *self._outputs.values()]
        self._returned = [result[n] for n in self._outputs if not any(memory.holds(result[n]) for memory in mine)]
        return {
            name: ours.fingerprint() if _same_place(result[name], ours.tensor) else fingerprint(result[name])
            for name, ours in self._outputs.items()
        }

    @property
    def nbytes(self) -> int:
        """Of the memory that a launch may touch: inputs and outputs with their guard bands."""
        return sum(memory.nbytes for memory in (*self._guarded_inputs.values(), *self._outputs.values()))

    def accept(self, result: Tensors) -> Tensors:
        """Waits for the device, then proves what needs no reference: no stray write, and results of the right form."""
        with blamed_on_implementation():
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        for name, given in self._guarded_inputs.items():
            if place := given.change():
                raise Rejected(Status.MODIFIED_INPUT, f"input {name!r} was modified: {place}")
        for name, output in self._outputs.items():
            if place := output.spill():
                raise Rejected(Status.OUT_OF_BOUNDS, f"wrote outside output {name!r}: {place}")
        _require_form(result, self._output_tensors())
        return result

    def run(self, poison: Poison = HUGE_POISON) -> Tensors:
        self.restore(poison)
        with blamed_on_implementation():
            result = self.launch()
        return self.accept(result)

    def judge(self, result: Tensors) -> Agreement:
        """The verdict on the values, against the operation's reference, or as draws if they are of another stream."""
        if self._own_stream:
            with _blamed_on(f"judge_draws of {self._operation.name}"):
                if self._operation.judge_draws is None:
                    raise ValueError(
                        "there is none, so no implementation with a random stream of its own can be judged"
                    )
                return self._operation.judge_draws(self.inputs, result)
        with _blamed_on(f"the reference of {self._operation.name}"):
            expected = self._operation.reference(self.inputs, result)
            if expected.keys() != self._outputs.keys():
                raise ValueError(f"it speaks of outputs {sorted(expected)}, not {sorted(self._outputs)}")
            if led := self._led_by_output(result, expected):
                return led
            return all_of([self._compare(name, result[name], expected[name]) for name in self._outputs])

    def _led_by_output(self, result: Tensors, expected: Mapping[str, Expected]) -> Agreement | None:
        """The verdict where NaN or infinity is expected only because the implementation itself gave such values.

        A reference that judges later draws given the earlier ones would let an output of NaN pass as its own reason.
        """
        if all(tensor.isfinite().all() for tensor in result.values()):
            return None
        tame = {name: tensor.nan_to_num(0.0, 0.0, 0.0) for name, tensor in result.items()}
        given_numbers = self._operation.reference(self.inputs, tame)
        for name, each in expected.items():
            special, numbers = ~each.value.isfinite(), given_numbers[name].value
            led = special & ~((each.value == numbers) | (each.value.isnan() & numbers.isnan()))
            if led.any():
                first = element_at(int(led.flatten().to(torch.uint8).argmax()), led.shape)
                wanted = each.value.flatten()[led.flatten()][0].item()
                message = f"{name}: {wanted} is expected of element {first} only since the outputs hold NaN or infinity"
                return Agreement(Status.WRONG_VALUES, message, error=float("inf"), bound=0.0)
        return None

    def _compare(self, name: str, output: Tensor, expected: Expected) -> Agreement:
        verdict, off = compare(name, output, expected)
        ours = self._outputs[name]
        if verdict.passed or not _same_place(output, ours.tensor) or name in self._guarded_inputs:
            return verdict
        unwritten = ours.unwritten() & off
        if not unwritten.any():
            return verdict
        first = element_at(int(unwritten.flatten().to(torch.uint8).argmax()), output.shape)
        return replace(
            verdict,
            message=f"{name}: element {first} was never written ({int(unwritten.sum())} such of {output.numel()}): "
            "it holds the poison put there before the launch",
        )

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
                raise ValueError(f"output {name!r} is the state of an input that it does not resemble")


def _require_flat(inputs: Inputs) -> None:
    for name, value in inputs.items():
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        if any(isinstance(part, Tensor) for part in parts):
            raise TypeError(f"input {name!r} is a {type(value).__name__} of tensors: each needs a name to be guarded")


def _same_place(one: Tensor, other: Tensor) -> bool:
    return (one.data_ptr(), one.stride()) == (other.data_ptr(), other.stride())


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.stride()


def _require_form(result: object, outputs: Mapping[str, Tensor]) -> None:
    if not isinstance(result, Mapping):
        raise Rejected(Status.ERROR, f"the launch returned {type(result).__name__}, not tensors by name")
    if result.keys() != outputs.keys():
        names, wanted = sorted(map(str, result)), sorted(outputs)
        raise Rejected(Status.ERROR, f"the launch returned outputs named {names}, not {wanted}")
    for name, wanted_like in outputs.items():
        tensor = result[name]
        # No subclass: it could put off its work until it is looked at, after the clock has stopped.
        if type(tensor) is not Tensor or tensor.layout is not torch.strided:
            raise Rejected(Status.ERROR, f"output {name!r} is not a dense tensor but {type(tensor).__name__}")
        if tensor.shape != wanted_like.shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted_like.shape)}"
            raise Rejected(Status.WRONG_SHAPE, f"output {name!r} has shape {shapes}")
        if tensor.dtype != wanted_like.dtype:
            dtypes = f"{tensor.dtype}, not {wanted_like.dtype}"
            raise Rejected(Status.WRONG_DTYPE, f"output {name!r} has dtype {dtypes}")
        if tensor.device != wanted_like.device:
            devices = f"{tensor.device}, not {wanted_like.device}"
            raise Rejected(Status.ERROR, f"output {name!r} lies on {devices}")


def compare(name: str, output: Tensor, expected: Expected) -> tuple[Agreement, Tensor]:
    """The verdict on one output, and the mask of its elements that are further off than their bound.

    All in float64. Where the expected value is infinite or NaN the output must be the same, whatever the bound.
    """
    # A bool's byte may hold anything but 0 and 1 after a stray write; as a number it is compared as it is.
    numbers = output.detach().view(torch.uint8) if output.dtype is torch.bool else output.detach()
    got = numbers.to(torch.float64)
    value = expected.value.detach().to(got)
    if value.shape != got.shape:
        raise ValueError(f"expected {name!r} has shape {tuple(value.shape)}, output {tuple(got.shape)}")
    bound = torch.as_tensor(expected.bound, dtype=torch.float64, device=got.device).detach().expand(got.shape)
    special = ~value.isfinite()
    bound = torch.where(special, 0.0, bound)
    if not (bound.isfinite() & (bound >= 0)).all():
        raise ValueError(f"the bound of {name!r} is negative, infinite or NaN where its value is finite")
    if not got.numel():
        return Agreement(Status.PASSED, error=0.0, bound=0.0), torch.zeros_like(got, dtype=torch.bool)

    same = (got == value) | (got.isnan() & value.isnan())
    error = torch.where(same, 0.0, (got - value).abs()).nan_to_num(nan=torch.inf, posinf=torch.inf)
    off = error > bound
    worst = int(torch.where(same, 0.0, error / bound).argmax())
    verdict = Agreement(Status.PASSED, error=float(error.flatten()[worst]), bound=float(bound.flatten()[worst]))
    if not off.any():
        return verdict, off

    def describe(flat: int) -> str:
        found, wanted, limit, miss = (t.flatten()[flat].item() for t in (got, value, bound, error))
        where = element_at(flat, got.shape)
        return f"{where} got {found:.9g}, expected {wanted:.9g}, error {miss:.3g} beyond bound {limit:.3g}"

    first = int(off.flatten().to(torch.uint8).argmax())
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
) -> Agreement:
    """The verdict on ``implementation`` in ``case``, its data drawn from each of ``seeds`` in turn.

    The first seed that fails ends it; otherwise the worst element of all seeds and launches is reported.
    Exceptions of the operation itself (its inputs, outputs or reference) are raised, with a note that says so.
    """
    if not seeds:
        raise ValueError("check_case needs at least one seed")
    verdicts = []
    for seed in seeds:
        verdict = _check_seed(operation, implementation, replace(case, seed=seed), device)
        if not verdict.passed:
            return verdict
        verdicts.append(verdict)
    return all_of(verdicts)


def _check_seed(operation: Operation, implementation: Implementation, case: Case, device: torch.device) -> Agreement:
    """Two launches of one preparation.

    The first runs on the values that ``prepare`` saw, as a user would. The second runs on the values of another seed
    in the same memory: an answer that was computed in ``prepare``, or is kept for these pointers, is now wrong. In the
    other order a kernel that is simply wrong would look like one that answers from a cache. Numbers stay, since
    ``prepare`` was given them; the second inputs are thus those of no seed, but a reference must judge any inputs.

    Inputs and outputs hold different poisons and exchange them between the launches. So a poison read outside an
    input and copied out is not taken for an element that nobody wrote, and what one poison hides the other shows.
    """
    moment = "prepare"
    try:
        with _blamed_on(f"make_inputs of {operation.name}, case {case.label!r}, seed {case.seed}"):
            inputs = operation.make_inputs(case, device)
        call = GuardedCall(operation, implementation, inputs, device)
        moment = "first launch"
        first = call.judge(call.run(HUGE_POISON))
        if not first.passed:
            return _told_when(first, case, moment)
        other = replace(case, seed=case.seed + 1)
        with _blamed_on(f"make_inputs of {operation.name}, case {other.label!r}, seed {other.seed}"):
            others = operation.make_inputs(other, device)
        replaced = call.replace_values(others, HUGE_POISON)
        moment = "second launch, " + ("new values in the same inputs" if replaced else "same inputs")
        second = call.judge(call.run(NAN_POISON))
        return all_of([first, second]) if second.passed else _told_when(second, case, moment)
    except Rejected as rejected:
        return _told_when(rejected.agreement, case, moment)


def _told_when(verdict: Agreement, case: Case, moment: str) -> Agreement:
    if verdict.status is Status.UNAVAILABLE:  # that is no matter of seeds and launches
        return verdict
    return replace(verdict, message=f"{verdict.message} (seed {case.seed}, {moment})")


def check_law(
    implementation: Implementation, operation: Operation, law: Law, device: torch.device, seed: int
) -> Agreement:
    """The verdict of ``law`` on ``implementation``. Exceptions of the law's own code are raised, with a note."""
    if law.shared_stream and implementation.own_stream:
        return Agreement(Status.UNAVAILABLE, "a law of the suite's random stream, and this draws from one of its own")

    def advance(inputs: Inputs) -> Tensors:
        call = GuardedCall(operation, implementation, inputs, device)
        return {name: tensor.clone() for name, tensor in call.run().items()}

    try:
        with _blamed_on(f"the law {law.name!r} of {operation.name}"):
            return law.test(advance, device, seed)
    except Rejected as rejected:
        return rejected.agreement
