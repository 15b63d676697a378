"""The referee: a process that decides whether an implementation agrees, and holds no code of it.

It imports the plugin that defines the operation, and makes inputs, outputs and expected values. The implementation runs
in a worker, on memory that both share, so that guard bands and inputs are checked here too. The parent passes on what
the referee asks of the worker: see `worker.Workers.verdict`.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from ..agreement.agreement import Rejected, judge_results
from ..api.messages import describe_error
from ..api.operations import Agreement, Case, Implementation, Inputs, Launch, Operation, Status, Tensors
from ..discovery.axes import with_other_sizes
from ..discovery.registry import OtherSizes, Registry, load_registry
from .catalogue import described_operation
from .child import answer_all
from .plan import Step, find_subject
from .process import prepare_to_load_plugins
from .shared_memory import Shared, SharedMemory, attach
from .trial import Trial


@dataclass(frozen=True)
class Judged:
    """What a referee must know of a step: the names, and what the implementation says of itself."""

    operation: str
    implementation: str
    backend: str
    own_stream: bool
    label: str
    is_law: bool
    seed: int

    @classmethod
    def of(cls, step: Step) -> "Judged":
        one = step.implementation
        names = step.operation.name, one.name, one.backend, one.own_stream
        return cls(*names, step.label, step.purpose == "law", step.seed)


def serve(connection: Connection, given: tuple[int, OtherSizes | None]) -> None:
    """Answer the parent's questions, in a process that has imported nothing but the plugin of an operation.

    ``given``: the number of torch's threads, 0 for all, and the cases that take the place of the operation's own.
    """
    threads, other_sizes = given
    device = torch.device("cpu")
    prepare_to_load_plugins(device)
    if threads:
        torch.set_num_threads(threads)
    referee = _Referee(connection, with_other_sizes(load_registry(), other_sizes), device)
    answer_all(connection, lambda question, *arguments: getattr(referee, question)(*arguments))


class _Referee:
    def __init__(self, connection: Connection, registry: Registry, device: torch.device) -> None:
        self._connection, self._registry, self._device = connection, registry, device
        self._memory = SharedMemory()
        self._timed: tuple[Judged, Inputs] | None = None

    def operation(self, name: str) -> Operation:
        """What a catalogue would say of an operation: its cases, laws and costs."""
        return described_operation(self._registry, name, self._device)

    def verdict(self, what: Judged, draws: int) -> Agreement:
        """The verdict on an implementation, which a worker runs."""
        operation, subject = self._find(what)
        implementation = Implementation(
            what.operation,
            what.implementation,
            what.backend,
            self._prepare,
            lambda device: self._please("unavailable"),
            what.own_stream,
        )
        step = Step(operation, implementation, subject, what.seed)
        return Trial(step, self._device, self._announce, self._memory.allocate).verdict(draws)

    def results(self, what: Judged, seed: int, names: Sequence[str], results: Mapping[str, Shared]) -> Agreement:
        """The verdict on results of a timed launch. The inputs are those of the case's seed; those of these ``names``
        have another ``seed``."""
        operation, case = self._find(what)
        assert isinstance(case, Case), "a law is not timed"
        try:
            found = {name: attach(shared).clone() for name, shared in results.items()}
            if self._timed is None or self._timed[0] != what:
                self._timed = what, operation.make_inputs(replace(case, seed=what.seed), self._device)
            inputs = self._timed[1]
            if seed != what.seed:
                others = operation.make_inputs(replace(case, seed=seed), self._device)
                inputs = {**inputs, **{name: others[name] for name in names}}
            return judge_results(operation, what.own_stream, inputs, found)
        except Rejected as rejected:
            return rejected.agreement
        except (Exception, SystemExit) as error:
            words = f"the check of operation {operation.name} itself raised {describe_error(error)}"
            return Agreement(Status.ERROR, words)

    def _find(self, what: Judged) -> tuple[Operation, Any]:
        operation = self._registry.operations[what.operation]
        return operation, find_subject(operation, what.label, what.is_law)

    def _announce(self, phase: str) -> None:
        self._connection.send(("phase", phase))

    def _please(self, question: str, *arguments: Any) -> Any:
        """What the worker answers. Raises `Rejected` if its work failed."""
        self._connection.send(("please", question, *arguments))
        kind, content = self._connection.recv()
        if kind == "failed":
            if content.passed:  # a worker may say why something failed, and not that it passed
                raise Rejected(Status.ERROR, "its process said that it passed")
            raise Rejected(content.status, content.message)
        return content

    def _prepare(self, inputs: Inputs, outputs: Tensors) -> Launch:
        """Have the worker prepare the implementation on this memory."""
        tensors = {name: self._memory.describe(value) for name, value in inputs.items() if isinstance(value, Tensor)}
        others = _others(inputs)
        try:
            sent = _pickled(others)
            self._please(
                "prepare", tensors, sent, {name: self._memory.describe(each) for name, each in outputs.items()}
            )
        finally:
            self._memory.close()

        def launch() -> Tensors:
            nonlocal sent
            now = _pickled(_others(inputs))
            changed, sent = None if now == sent else now, now
            reply = self._please("launch", changed)
            return {name: outputs[name] if shared is None else attach(shared) for name, shared in reply.items()}

        return launch


def _others(inputs: Inputs) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if not isinstance(value, Tensor)}


def _pickled(values: Mapping[str, Any]) -> bytes:
    """For the worker alone: the parent does not read it."""
    for name, value in values.items():
        try:
            pickle.dumps(value)
        except Exception as error:
            raise TypeError(f"input {name!r} cannot be sent to another process: {describe_error(error)}") from error
    return pickle.dumps(dict(values))
