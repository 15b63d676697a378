"""Results, or parts of them, that are kept from one launch for the next."""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.harness.api.operations import Case, Expected, Inputs, Launch, Operation, Status, Tensors
from boltzbench.harness.timing.launch_audit import LaunchAudit
from boltzbench.plugins.support.operations import moved
from support import operations
from support.attacks import CHECKED, SCALE, FakeTime, audit_on_the_stack, honest_for, outcome, rejected_while_timed
from support.small_operations import CPU, Body, case, implementation, prepared_by, scale_rightly, scale_with
from torch import Tensor

WORK = 1e-3
"""Seconds of the whole work, on a clock that only the kernels here advance."""


def kept_by(key: Callable[[Tensor], Any], gain: float, host: FakeTime) -> Body:
    """Keeps results by a key of the input. With a result at hand it takes ``gain`` times less than the work."""
    answers: dict[Any, Tensor] = {}

    def body(inputs: Inputs, outputs: Tensors) -> None:
        found = answers.get(key(inputs["x"]))
        host.spend(WORK if found is None else WORK / gain)
        if found is None:
            found = answers[key(inputs["x"])] = inputs["x"] * inputs["factor"]
        outputs["y"].copy_(found)

    return body


@pytest.mark.parametrize("mode", ["cold", "hot"])
@pytest.mark.parametrize("gain", [1.5, 5, 800])
@pytest.mark.parametrize("key", ["content", "a few elements"])
def test_results_kept_by_content_however_small_the_gain(key: str, gain: float, mode: str) -> None:
    host = FakeTime()
    of = {"content": lambda x: x.numpy().tobytes(), "a few elements": lambda x: (float(x[0, 0]), float(x[2, 3]))}[key]
    found = outcome(implementation(kept_by(of, gain, host)), clock=host.clock(), mode=mode)
    assert found.agreement.passed
    (suspicion,) = found.suspicions
    assert "results may be cached by content" in suspicion


@pytest.mark.parametrize("mode", ["cold", "hot"])
def test_skipping_while_the_version_of_the_input_is_the_same_gains_nothing(mode: Any) -> None:
    """torch counts writes to a tensor: each launch follows one."""
    host = FakeTime()
    versions: list[int] = []

    def body(inputs: Inputs, outputs: Tensors) -> None:
        fresh = inputs["x"]._version not in versions[-1:]
        versions.append(inputs["x"]._version)
        host.spend(WORK if fresh else WORK / 800)
        scale_rightly(inputs, outputs)

    found = outcome(implementation(body), clock=host.clock(), mode=mode)
    assert (found.agreement.passed, found.suspicions) == (True, ())
    timed = versions[10:]
    assert len(set(timed)) == len(timed) > 20


def test_the_audits_copy_of_the_right_results_read_from_its_frame() -> None:
    """There is none on new values, and the launches that find one are quicker."""
    host = FakeTime()

    def body(inputs: Inputs, outputs: Tensors) -> None:
        audit = audit_on_the_stack()
        copy = audit._dealt[0].copy if audit else None
        host.spend(WORK if copy is None else WORK / 10)
        if copy is None:
            scale_rightly(inputs, outputs)
        else:
            outputs["y"].copy_(copy["y"][1].view(torch.int32)[:35].view(torch.float32).view(5, 7))

    def copied(inputs: Inputs, outputs: Tensors) -> None:
        words = audit_on_the_stack()
        assert words is None or words._dealt[0].copy is None or words._dealt[0].copy["y"][0]
        body(inputs, outputs)

    found = outcome(implementation(copied), scale_with(), case(rows=4, columns=8), clock=host.clock())
    assert not found.agreement.passed or any("cached by content" in each for each in found.suspicions)


def test_one_word_that_mends_an_order_blind_sum() -> None:
    """It reads from the stack which values come up, and writes one word so that the sum of all is right."""
    sums: dict[int, int] = {}

    def lazily(inputs: Inputs, outputs: Tensors) -> None:
        audit, words = audit_on_the_stack(), outputs["y"].view(torch.int64)
        seed = audit._dealt[0].seed if audit else -1
        if seed in sums:
            words[0, 0] += sums[seed] - int(words.sum())
        else:
            scale_rightly(inputs, outputs)
            sums[seed] = int(words.sum())

    even = case(rows=4, columns=8)
    message = rejected_while_timed(honest_for(CHECKED, lazily), where=even)
    assert "never written" in message or "are off" in message


def test_results_of_the_reference_left_in_memory() -> None:
    """A kernel that does nothing, on memory that may have held the right results before."""

    def hoping(inputs: Inputs, outputs: Tensors) -> Tensors:
        return {"y": torch.empty_like(outputs["y"])}

    assert outcome(implementation(hoping)).agreement.status is Status.WRONG_VALUES
    rejected_while_timed(honest_for(CHECKED, hoping))


def test_results_of_the_reference_found_among_all_objects() -> None:
    """Searches memory for a float64 tensor of the output's shape, and computes if there is none."""

    def searching(inputs: Inputs, outputs: Tensors) -> None:
        for each in gc.get_objects():
            if type(each) is Tensor and each.dtype is torch.float64 and each.shape == outputs["y"].shape:
                outputs["y"].copy_(each)
                return
        outputs["y"].zero_()

    assert outcome(implementation(searching)).agreement.status is Status.WRONG_VALUES


def test_results_computed_from_known_seeds() -> None:
    """The data of the seeds that `check` takes by default, in `prepare`."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        known = [SCALE.make_inputs(replace(case(), seed=seed), CPU)["x"] for seed in range(8)]
        answers = {float(x[0, 0]): x * 3.0 for x in known}

        def launch() -> Tensors:
            outputs["y"].copy_(answers.get(float(inputs["x"][0, 0]), torch.zeros(5, 7)))
            return outputs

        return launch

    found = outcome(prepared_by(prepare), timed_only=True)  # `check` is given other seeds by `--seed`
    assert found.agreement.status is Status.WRONG_VALUES
    assert check_case(SCALE, prepared_by(prepare), case(), CPU, (31,)).status is Status.WRONG_VALUES


# Real data ------------------------------------------------------------------------------------------------------


def test_a_case_with_the_same_tensors_for_every_seed_is_refused() -> None:
    constant = scale_with(make_inputs=lambda case, device: {"x": torch.ones(5, 7), "factor": 3.0})
    with pytest.raises(ValueError, match="the same tensors for every seed"):
        check_case(constant, implementation(scale_rightly), replace(case(), purpose="real"), CPU, (0,))
    with pytest.raises(ValueError, match="the same tensors for every seed"):
        LaunchAudit(constant, implementation(scale_rightly), case(), CPU)


REAL = [
    pytest.param(operation, case, id=f"{operation.name} {case.label}")
    for operation in operations.registry().operations.values()
    for case in operation.cases
    if case.purpose == "real"
]


@pytest.mark.parametrize(("operation", "where"), REAL)
def test_constants_on_real_data(operation: Operation, where: Case) -> None:
    """The results of the first values, whatever the values."""
    honest = operations.implementation(operation.name, "torch").prepare

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        kept = {name: each.clone() for name, each in honest(inputs, outputs)().items()}
        return lambda: kept | {name: each.clone() for name, each in kept.items()}

    found = check_case(operation, prepared_by(prepare, operation=operation.name), where, CPU, (0,))
    assert (found.status, "second launch" in found.message) == (Status.WRONG_VALUES, True), found.message


# Random numbers -------------------------------------------------------------------------------------------------


def _steps(case: Case, device: torch.device) -> Inputs:
    generator = torch.Generator().manual_seed(case.seed)
    return {"x": torch.randn(5, 7, generator=generator), "factor": 1.0, "step": moved(5, case)}


def noise(step: int) -> Tensor:
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(step))


NOISY = scale_with(
    make_inputs=_steps, moving=("step",), kind="sampler", formula="y = x + xi(step)",
    reference=lambda inputs, outputs: {"y": Expected(inputs["x"].double() + noise(inputs["step"]).double(), 1e-6)},
)  # fmt: skip


def draw_rightly(inputs: Inputs, outputs: Tensors) -> None:
    torch.add(inputs["x"], noise(inputs["step"]), out=outputs["y"])


def test_random_numbers_drawn_in_prepare() -> None:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        xi = noise(inputs["step"])
        return lambda: {"y": torch.add(inputs["x"], xi, out=outputs["y"])}

    assert outcome(implementation(draw_rightly), NOISY).agreement.passed
    found = outcome(prepared_by(prepare), NOISY).agreement
    assert (found.status, "second launch" in found.message) == (Status.WRONG_VALUES, True)


def test_random_numbers_drawn_in_prepare_once_the_check_is_over() -> None:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        xi = noise(inputs["step"])
        body = honest_for(2, lambda i, o: {"y": torch.add(i["x"], xi, out=o["y"])}, at_first=draw_rightly)
        return lambda: body(inputs, outputs) or outputs

    found = outcome(prepared_by(prepare), NOISY, timed_only=True)
    assert found.agreement.status is Status.WRONG_VALUES


def test_random_numbers_kept_by_their_step() -> None:
    """A launch on a step that comes up for the first time is slower."""
    host = FakeTime()
    numbers: dict[int, Tensor] = {}

    def body(inputs: Inputs, outputs: Tensors) -> None:
        step = inputs["step"]
        host.spend(WORK / 1.5 if step in numbers else WORK)
        torch.add(inputs["x"], numbers.setdefault(step, noise(step)), out=outputs["y"])

    (suspicion,) = outcome(implementation(body), NOISY, clock=host.clock()).suspicions
    assert suspicion == "the first launch on new values takes 1.50 times as long: results may be cached by content"


SAMPLERS = [name for name, each in operations.registry().operations.items() if each.kind == "sampler"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_of_the_suite_moves_on(name: str) -> None:
    """An implementation that reads the step once, in `prepare`, is rejected."""
    operation = operations.registry().operations[name]
    shipped = operations.implementation(name, "torch")
    where = next(each for each in operation.cases if each.purpose == "check" and operation.cost(each).items > 64)

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        return shipped.prepare(dict(inputs), outputs)  # a copy, which stays at the first step

    assert operation.moving
    assert check_case(operation, shipped, where, CPU, (0,)).passed
    found = check_case(operation, prepared_by(prepare, operation=name), where, CPU, (0,))
    assert (found.status, "second launch" in found.message) == (Status.WRONG_VALUES, True), found.message
