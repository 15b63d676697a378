"""Attacks that other suites of benchmarks report: what they got past elsewhere, and what becomes of them here."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from boltzbench.harness.agreement.agreement import GuardedCall
from boltzbench.harness.api.operations import Agreement, Inputs, Launch, Status, Tensors
from boltzbench.harness.timing.cpu_clock import CpuClock
from boltzbench.harness.timing.stopwatch import Stopwatch
from support.attacks import CHECKED, QUICK, SCALE, QuietClock, SteadyClock, honest_for, outcome
from support.small_operations import (
    CPU,
    KICK,
    Body,
    case,
    implementation,
    kick_rightly,
    measure,
    prepared_by,
    scale_rightly,
)
from torch import Tensor

# Wrong results that look right elsewhere --------------------------------------------------------------------------


def the_input_itself(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": inputs["x"]}


def into_the_input(inputs: Inputs, outputs: Tensors) -> Tensors:
    inputs["x"].mul_(inputs["factor"])
    return {"y": inputs["x"]}


def inputs_made_zero(inputs: Inputs, outputs: Tensors) -> None:
    inputs["x"].zero_()
    scale_rightly(inputs, outputs)


def in_half(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": (inputs["x"] * inputs["factor"]).half()}


def through_bfloat16(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": (inputs["x"].bfloat16() * inputs["factor"]).float()}


def with_one_element_less(inputs: Inputs, outputs: Tensors) -> None:
    torch.mul(inputs["x"][:, :-1], inputs["factor"], out=outputs["y"][:, :-1])


def of_the_first_row(inputs: Inputs, outputs: Tensors) -> None:
    outputs["y"].copy_((inputs["x"][:1] * inputs["factor"]).expand(5, 7))


def expanded(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": (inputs["x"][:1] * inputs["factor"]).expand(5, 7)}


def of_zeros(inputs: Inputs, outputs: Tensors) -> None:
    outputs["y"].zero_()


def of_nan(inputs: Inputs, outputs: Tensors) -> None:
    outputs["y"].fill_(torch.nan)


def nothing(inputs: Inputs, outputs: Tensors) -> None:
    pass


def another_shape(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": (inputs["x"] * inputs["factor"]).flatten()}


def on_the_meta_device(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": torch.empty(5, 7, device="meta")}


def as_a_parameter(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": torch.nn.Parameter(inputs["x"] * inputs["factor"])}


def without_a_name(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {}


def by_an_error(inputs: Inputs, outputs: Tensors) -> Tensors:
    raise SystemExit(0)


WRONG: dict[str, tuple[Body, Status]] = {
    "returns its input": (the_input_itself, Status.WRONG_VALUES),
    "writes to its input": (into_the_input, Status.MODIFIED_INPUT),
    "makes its inputs zero": (inputs_made_zero, Status.MODIFIED_INPUT),
    "returns half precision": (in_half, Status.WRONG_DTYPE),
    "computes in bfloat16": (through_bfloat16, Status.WRONG_VALUES),
    "leaves a column": (with_one_element_less, Status.WRONG_VALUES),
    "computes one row": (of_the_first_row, Status.WRONG_VALUES),
    "returns one row, expanded": (expanded, Status.WRONG_VALUES),
    "writes zeros": (of_zeros, Status.WRONG_VALUES),
    "writes NaN": (of_nan, Status.WRONG_VALUES),
    "does nothing": (nothing, Status.WRONG_VALUES),
    "returns another shape": (another_shape, Status.WRONG_SHAPE),
    "returns a tensor without memory": (on_the_meta_device, Status.ERROR),
    "returns a parameter": (as_a_parameter, Status.ERROR),
    "returns no tensor": (without_a_name, Status.ERROR),
    "exits with status 0": (by_an_error, Status.ERROR),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_results(name: str) -> None:
    """In `check`; and in `bench`, after it was right as long as `check` looked."""
    body, status = WRONG[name]
    assert outcome(implementation(body)).agreement.status is status
    late = outcome(implementation(honest_for(CHECKED, body)), timed_only=True).agreement
    # A modified input is written again before the next launch: what counts is whether that was seen, or was of no use.
    assert late.status in ({status, Status.WRONG_VALUES} if status is Status.MODIFIED_INPUT else {status}), late.message


def test_a_state_returned_as_it_was() -> None:
    still = implementation(lambda inputs, outputs: {"state": inputs["state"]}, operation="kick")
    assert outcome(still, KICK, case("kick", atoms=6)).agreement.status is Status.WRONG_VALUES
    late = implementation(honest_for(CHECKED, nothing, at_first=kick_rightly), operation="kick")
    assert outcome(late, KICK, case("kick", atoms=6), timed_only=True).agreement.status is Status.WRONG_VALUES


def test_right_only_where_the_check_calls() -> None:
    """It asks the stack who calls, and works for the check alone."""

    def where_checked(inputs: Inputs, outputs: Tensors) -> None:
        frame, names = sys._getframe(), set[str]()
        while frame.f_back:
            frame = frame.f_back
            names.add(frame.f_code.co_name)
        if "check_case" in names:
            scale_rightly(inputs, outputs)
        else:
            outputs["y"].zero_()

    assert outcome(implementation(where_checked), timed_only=True).agreement.status is Status.WRONG_VALUES


def test_another_implementation_once_it_is_timed() -> None:
    """`prepare` counts its calls: two for the seeds of the check, the third is that of the timing."""
    calls = iter([scale_rightly, scale_rightly, through_bfloat16])

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        body = next(calls)
        return lambda: body(inputs, outputs) or outputs

    assert outcome(prepared_by(prepare), timed_only=True).agreement.status is Status.WRONG_VALUES


# Functions replaced -----------------------------------------------------------------------------------------------

REPLACED: list[tuple[Any, str, Callable[..., Any]]] = [
    (torch, "allclose", lambda *given, **more: True),
    (torch, "equal", lambda *given: True),
    (torch, "isclose", lambda one, other, **more: torch.ones_like(one, dtype=torch.bool)),
    (torch.cuda, "synchronize", lambda device=None: None),
    (torch.cuda.Event, "elapsed_time", lambda self, end: 0.0),
    (np, "percentile", lambda samples, ranks: [1e-9] * len(ranks)),
    (np, "median", lambda samples: 1e-9),
    (Tensor, "data_ptr", lambda self: 0),
    (Stopwatch, "_sample", lambda self, number: [1e-9] * number),
    (GuardedCall, "judge", lambda self, result: Agreement(Status.PASSED)),
    (GuardedCall, "differs", lambda self, result, copy: torch.tensor(False)),
    (CpuClock, "_flush", lambda self: None),
]


@pytest.mark.parametrize(("owner", "name", "fake"), REPLACED, ids=[f"{o.__name__}.{n}" for o, n, _ in REPLACED])
def test_a_function_that_was_replaced_is_named(
    owner: Any, name: str, fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = QuietClock()

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        monkeypatch.setattr(owner, name, fake)

        def launch() -> Tensors:
            scale_rightly(inputs, outputs)
            return outputs

        return launch

    if name in ("_sample", "differs", "judge"):  # replaced at the end: what they leave undone is their own test's
        stopwatch = Stopwatch(SCALE, implementation(scale_rightly), case(), CPU, protocol=QUICK, clock=clock)
        stopwatch.warm_up()
        while stopwatch.take_block():
            pass
        monkeypatch.setattr(owner, name, fake)
        measurement = stopwatch.finish()
    else:
        measurement = measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=clock)
    (suspicion,) = (each for each in measurement.suspicions if "were replaced" in each)
    assert suspicion == f"functions that the harness relies on were replaced: {owner.__name__}.{name}".replace(
        "torch.cuda.Event", "Event"
    )


def test_a_source_of_inputs_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """All inputs would be zero, for every seed: that is refused."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        monkeypatch.setattr(torch, "randn", lambda *shape, **more: torch.zeros(*shape))
        return lambda: {"y": torch.mul(inputs["x"], inputs["factor"], out=outputs["y"])}

    measurement = measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=QuietClock())
    assert "functions that the harness relies on were replaced: torch.randn" in measurement.suspicions
    with pytest.raises(ValueError, match="the same tensors for every seed"):
        measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=QuietClock())


def test_an_operator_of_torch_that_was_replaced_is_named() -> None:
    library = torch.library.Library("aten", "IMPL")

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        library.impl("special_bessel_j0", lambda x: x, "CPU")
        return lambda: {"y": torch.mul(inputs["x"], inputs["factor"], out=outputs["y"])}

    try:
        measurement = measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=SteadyClock())
    finally:
        library._destroy()
    (suspicion,) = measurement.suspicions
    assert suspicion == "functions that the harness relies on were replaced: aten/special_bessel_j0/CPU"
