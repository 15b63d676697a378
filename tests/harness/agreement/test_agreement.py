"""The check accepts correct implementations and rejects every kind of wrong one with the right message."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from boltzbench.harness.agreement.agreement import check_case, check_law, difference
from boltzbench.harness.api.operations import (
    Advance,
    Agreement,
    Case,
    Expected,
    Implementation,
    Inputs,
    Law,
    Status,
    Tensors,
    Unsupported,
)
from support.small_operations import (
    CPU,
    KICK,
    Body,
    case,
    constant,
    element,
    gappy,
    giving,
    implementation,
    kick_rightly,
    prepared_by,
    scale_rightly,
    scale_with,
)
from torch import Tensor

SCALE = scale_with()
SEEDS = (3, 8)


def check(body: Body, scenario: str = "", dtype: str = "float32", **sizes: int) -> Agreement:
    return check_case(SCALE, implementation(body), case("scale", scenario, dtype, **sizes), CPU, SEEDS)


def check_constant(
    got: Tensor, wanted: Tensor, bound: float | Tensor = 0.0, dtype: torch.dtype = torch.float32
) -> Agreement:
    return check_case(constant(wanted, bound, dtype), giving(got), case(), CPU, (0,))


# What is right passes ---------------------------------------------------------------------------------------

SCENARIOS = ["", "sliced", "transposed", "expanded rows", "one number", "unaligned", "windows"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_right_for_every_layout(scenario: str) -> None:
    agreement = check_case(
        scale_with(torch.zeros_like), implementation(scale_rightly), case(scenario=scenario), CPU, SEEDS
    )
    assert agreement.status is Status.PASSED, agreement.message
    assert agreement.error is not None
    assert 0 < agreement.error < 1e-6 == agreement.bound
    assert agreement.message == ""


@pytest.mark.parametrize("sizes", [(0, 7), (5, 0), (0, 0), (1, 1)])
def test_right_for_zero_size_and_for_one_element(sizes: tuple[int, int]) -> None:
    agreement = check(scale_rightly, rows=sizes[0], columns=sizes[1])
    assert agreement.status is Status.PASSED, agreement.message
    if 0 in sizes:
        assert (agreement.error, agreement.bound) == (0.0, 0.0)


def test_right_with_gaps_between_the_outputs_elements() -> None:
    assert check_case(scale_with(gappy), implementation(scale_rightly), case(), CPU, SEEDS).passed


def test_right_in_tensors_of_its_own() -> None:
    assert check(lambda inputs, outputs: {"y": inputs["x"] * inputs["factor"]}).passed


def test_right_in_tensors_of_its_own_that_it_uses_again() -> None:
    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        y = torch.empty_like(outputs["y"])

        def launch() -> Tensors:
            scale_rightly(inputs, {"y": y})
            return {"y": y}

        return launch

    assert check_case(SCALE, prepared_by(prepare), case(), CPU, SEEDS).passed


def test_right_on_state_in_place() -> None:
    agreement = check_case(KICK, implementation(kick_rightly), case("kick", atoms=6), CPU, SEEDS)
    assert agreement.status is Status.PASSED, agreement.message


def test_right_though_prepare_already_launches() -> None:
    """An autotuner moves the state: it must be reset before the first launch."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        def launch() -> Tensors:
            kick_rightly(inputs, outputs)
            return outputs

        launch()
        return launch

    assert check_case(KICK, prepared_by(prepare), case("kick", atoms=6), CPU, SEEDS).passed


def test_a_pass_reports_the_element_nearest_to_its_bound() -> None:
    wanted = torch.zeros(3)
    agreement = check_constant(torch.tensor([0.5, 0.25, 0.0]), wanted, torch.tensor([1.0, 0.3, 0.0]))
    assert (agreement.status, agreement.error) == (Status.PASSED, 0.25)
    assert agreement.bound == pytest.approx(0.3)


def test_data_is_drawn_from_each_seed_and_for_the_second_launch_from_the_next() -> None:
    seen = []

    def make_inputs(case: Case, device: torch.device) -> Inputs:
        seen.append(case.seed)
        return {"x": torch.full((2,), float(case.seed)), "factor": 3.0}

    assert check_case(scale_with(make_inputs=make_inputs), implementation(scale_rightly), case(), CPU, (10, 20)).passed
    assert seen == [10, 11, 20, 21]


def test_the_second_launch_changes_tensors_but_not_numbers() -> None:
    def make_inputs(case: Case, device: torch.device) -> Inputs:
        return {"x": torch.full((2,), float(case.seed)), "factor": float(case.seed)}

    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        factor = inputs["factor"]
        return lambda: {"y": inputs["x"] * factor}

    assert check_case(scale_with(make_inputs=make_inputs), prepared_by(prepare), case(), CPU, SEEDS).passed


def test_inputs_of_another_shape_with_another_seed_are_launched_twice_unchanged() -> None:
    def make_inputs(case: Case, device: torch.device) -> Inputs:
        return {"x": torch.ones(case.seed + 1), "factor": 3.0}

    operation = scale_with(make_inputs=make_inputs)
    assert check_case(operation, implementation(scale_rightly), case(), CPU, SEEDS).passed
    agreement = check_case(operation, prepared_by(only_once), case(), CPU, SEEDS)
    assert agreement.status is Status.WRONG_VALUES
    assert agreement.message.endswith("(seed 3, second launch, same inputs)")


def test_a_correct_value_may_equal_the_poison() -> None:
    """The bytes of the poison are an ordinary value if the implementation wrote them and they are expected."""
    wanted = torch.full((3,), 0xA5, dtype=torch.uint8)
    assert check_constant(wanted, wanted.double(), dtype=torch.uint8).passed


# What strays, or does not do its work -----------------------------------------------------------------------


def leave_the_last_unwritten(inputs: Inputs, outputs: Tensors) -> None:
    rows = slice(0, -1)
    torch.mul(inputs["x"][rows], inputs["factor"], out=outputs["y"][rows])


def do_nothing(inputs: Inputs, outputs: Tensors) -> None:
    pass


def write_past_the_end(inputs: Inputs, outputs: Tensors) -> None:
    scale_rightly(inputs, outputs)
    element(outputs["y"], outputs["y"].numel()).fill_(0)


def write_before_the_start(inputs: Inputs, outputs: Tensors) -> None:
    scale_rightly(inputs, outputs)
    element(outputs["y"], -2).fill_(0)


def modify_an_input(inputs: Inputs, outputs: Tensors) -> None:
    scale_rightly(inputs, outputs)
    inputs["x"][2, 3] += 1


def modify_an_inputs_guard(inputs: Inputs, outputs: Tensors) -> None:
    scale_rightly(inputs, outputs)
    element(inputs["x"], inputs["x"].numel()).fill_(0)


def read_past_the_end(inputs: Inputs, outputs: Tensors) -> None:
    x = inputs["x"]
    shifted = x.as_strided(x.shape, x.stride(), x.storage_offset() + 1)
    torch.mul(x + 0 * shifted, inputs["factor"], out=outputs["y"])


def give_the_wrong_shape(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": (inputs["x"] * inputs["factor"]).T}


def give_the_wrong_dtype(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": inputs["x"].double() * inputs["factor"]}


def give_the_wrong_device(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": outputs["y"].to("meta")}


def give_no_output(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {}


def give_one_output_too_many(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": inputs["x"] * inputs["factor"], "z": inputs["x"]}


def give_a_bare_tensor(inputs: Inputs, outputs: Tensors) -> Tensors:
    return inputs["x"] * inputs["factor"]  # type: ignore[no-any-return]


def give_a_list(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": (inputs["x"] * inputs["factor"]).tolist()}


def raise_an_exception(inputs: Inputs, outputs: Tensors) -> None:
    raise RuntimeError("no kernel image")


def exit_the_process(inputs: Inputs, outputs: Tensors) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (leave_the_last_unwritten, Status.WRONG_VALUES, "y: element (4, 0) was never written (7 such of 35)"),
        (do_nothing, Status.WRONG_VALUES, "y: element (0, 0) was never written (35 such of 35)"),
        (write_past_the_end, Status.OUT_OF_BOUNDS, "outside output 'y': 1 element(s) past its end"),
        (write_before_the_start, Status.OUT_OF_BOUNDS, "outside output 'y': 2 element(s) before its start"),
        (modify_an_input, Status.MODIFIED_INPUT, "input 'x' was modified: element (2, 3)"),
        (modify_an_inputs_guard, Status.MODIFIED_INPUT, "input 'x' was modified: 1 element(s) past its end"),
        (read_past_the_end, Status.WRONG_VALUES, "y: 1 of 35 elements are off; first (4, 6) got nan"),
        (give_the_wrong_shape, Status.WRONG_SHAPE, "output 'y' has shape (7, 5), not (5, 7)"),
        (give_the_wrong_dtype, Status.WRONG_DTYPE, "output 'y' has dtype torch.float64, not torch.float32"),
        (give_the_wrong_device, Status.ERROR, "output 'y' lies on meta, not cpu"),
        (give_no_output, Status.ERROR, "outputs named [], not ['y']"),
        (give_one_output_too_many, Status.ERROR, "outputs named ['y', 'z'], not ['y']"),
        (give_a_bare_tensor, Status.ERROR, "the launch returned Tensor, not a dict of tensors by name"),
        (give_a_list, Status.ERROR, "output 'y' is not a dense tensor but list"),
        (raise_an_exception, Status.ERROR, "RuntimeError: no kernel image (small_operations.py:"),
        (exit_the_process, Status.ERROR, "SystemExit: 3 (small_operations.py:"),
    ],
)
def test_wrong_launches_are_rejected(body: Body, status: Status, message: str) -> None:
    agreement = check(body)
    assert agreement.status is status
    assert message in agreement.message
    assert agreement.message.endswith("(seed 3, first launch)")
    if "small_operations.py" in message:  # the way from the plugin's `prepare` to the body
        assert re.search(r" > test_agreement\.py:\d+\)", agreement.message)


def test_a_write_into_a_gap_of_a_strided_output_is_rejected() -> None:
    def write_the_gap(inputs: Inputs, outputs: Tensors) -> None:
        scale_rightly(inputs, outputs)
        element(outputs["y"], 3).fill_(0)

    agreement = check_case(scale_with(gappy), implementation(write_the_gap), case(), CPU, SEEDS)
    assert agreement.status is Status.OUT_OF_BOUNDS
    assert "outside output 'y': the gap between its elements, 3 element(s) from its start" in agreement.message


@pytest.mark.parametrize(("poison", "moment"), [(0x7B, "second launch"), (0xFF, "first launch")])
def test_a_stray_write_of_poisons_own_bytes_is_seen_in_one_of_the_launches(poison: int, moment: str) -> None:
    def write_poison_past_the_end(inputs: Inputs, outputs: Tensors) -> None:
        scale_rightly(inputs, outputs)
        element(outputs["y"], outputs["y"].numel()).view(torch.uint8).fill_(poison)

    agreement = check(write_poison_past_the_end)
    assert agreement.status is Status.OUT_OF_BOUNDS
    assert moment in agreement.message


def test_reading_a_gap_of_a_strided_input_returns_poison() -> None:
    def ignore_strides(inputs: Inputs, outputs: Tensors) -> None:
        torch.mul(inputs["x"].as_strided((5, 7), (7, 1)), 3, out=outputs["y"])

    agreement = check(ignore_strides, scenario="sliced")
    assert agreement.status is Status.WRONG_VALUES
    assert "got nan" in agreement.message


def test_a_maximum_that_skips_nan_is_still_caught_reading_past_the_end() -> None:
    def reference(inputs: Inputs, outputs: Tensors) -> dict[str, Expected]:
        return {"y": Expected(inputs["x"].double().amax())}

    def fmax_beyond(inputs: Inputs, outputs: Tensors) -> Tensors:
        x = inputs["x"]
        return {"y": x.as_strided((36,), (1,), x.storage_offset()).nan_to_num(-torch.inf).max()}

    operation = scale_with(make_outputs=lambda inputs: {"y": torch.empty(())}, reference=reference)
    agreement = check_case(operation, implementation(fmax_beyond), case(), CPU, SEEDS)
    assert agreement.status is Status.WRONG_VALUES
    assert "second launch" in agreement.message


# What is right only the first time --------------------------------------------------------------------------


def compute_in_prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
    scale_rightly(inputs, outputs)
    return lambda: outputs


def compute_in_prepare_and_keep(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
    y = inputs["x"] * inputs["factor"]
    return lambda: {"y": y}


def cache_by_pointer(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
    known: dict[int, Tensor] = {}

    def launch() -> Tensors:
        pointer = inputs["x"].data_ptr()
        if pointer not in known:
            known[pointer] = inputs["x"] * inputs["factor"]
        outputs["y"].copy_(known[pointer])
        return outputs

    return launch


def only_once(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
    done = False

    def launch() -> Tensors:
        nonlocal done
        if not done:
            scale_rightly(inputs, outputs)
        done = True
        return outputs

    return launch


def stale_buffer(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
    """Returns the results of the previous launch, from one of two buffers."""
    buffers = [inputs["x"] * inputs["factor"], torch.empty_like(outputs["y"])]

    def launch() -> Tensors:
        buffers.reverse()
        scale_rightly(inputs, {"y": buffers[0]})
        return {"y": buffers[1]}

    return launch


@pytest.mark.parametrize(
    ("prepare", "moment", "words"),
    [
        (compute_in_prepare, "first launch", "was never written"),
        (compute_in_prepare_and_keep, "second launch, new values in the same inputs", "are off"),
        (cache_by_pointer, "second launch, new values in the same inputs", "are off"),
        (only_once, "second launch, new values in the same inputs", "was never written"),
        (stale_buffer, "second launch, new values in the same inputs", "are off"),
    ],
)
def test_right_only_the_first_time_is_rejected(prepare: object, moment: str, words: str) -> None:
    agreement = check_case(SCALE, prepared_by(prepare), case(), CPU, SEEDS)
    assert agreement.status is Status.WRONG_VALUES
    assert words in agreement.message
    assert agreement.message.endswith(f"(seed 3, {moment})")


def test_state_that_is_not_advanced_or_advanced_in_the_input_is_rejected() -> None:
    def advance_the_input(inputs: Inputs, outputs: Tensors) -> None:
        inputs["state"].add_(inputs["kick"])

    def check_kick(body: Body) -> Agreement:
        return check_case(KICK, implementation(body), case("kick", atoms=6), CPU, SEEDS)

    idle = check_kick(do_nothing)
    assert idle.status is Status.WRONG_VALUES
    assert "state: 6 of 6 elements are off" in idle.message
    moved = check_kick(advance_the_input)
    assert moved.status is Status.MODIFIED_INPUT
    assert "input 'state' was modified: element (0,)" in moved.message


def test_a_states_value_is_never_taken_for_poison() -> None:
    poisonous = torch.full((2,), 0x5A, dtype=torch.uint8)
    operation = scale_with(
        make_inputs=lambda case, device: {"bits": poisonous},
        make_outputs=lambda inputs: {"bits": torch.empty_like(inputs["bits"])},
        reference=lambda inputs, outputs: {"bits": Expected(inputs["bits"].double() + 1)},
    )
    agreement = check_case(operation, implementation(do_nothing), case(), CPU, SEEDS)
    assert "bits: 2 of 2 elements are off; first (0,) got 90, expected 91" in agreement.message


def test_a_later_seed_that_fails_is_named() -> None:
    def fail_on_seed_8(inputs: Inputs, outputs: Tensors) -> None:
        scale_rightly(inputs, outputs)
        if torch.equal(
            inputs["x"], SCALE.make_inputs(Case("scale", {"rows": 5, "columns": 7}, "float32", seed=8), CPU)["x"]
        ):
            outputs["y"][1, 1] += 1

    agreement = check(fail_on_seed_8)
    assert agreement.status is Status.WRONG_VALUES
    assert "y: 1 of 35 elements are off; first (1, 1)" in agreement.message
    assert agreement.message.endswith("(seed 8, first launch)")


# How values are compared ------------------------------------------------------------------------------------


@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf])
def test_special_values_match_only_themselves_whatever_the_bound(special: float) -> None:
    wanted = torch.tensor([special, 1.0])
    assert check_constant(wanted, wanted.double(), torch.tensor([torch.nan, 0.0])).passed
    for other in {torch.nan, torch.inf, -torch.inf, 0.0} - {special}:
        agreement = check_constant(torch.tensor([other, 1.0]), wanted.double(), 1e30)
        assert agreement.status is Status.WRONG_VALUES, other
        assert agreement.error == torch.inf


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_a_special_value_does_not_pass_for_a_number(wrong: float) -> None:
    agreement = check_constant(torch.tensor([1.0, wrong]), torch.ones(2), 1e30)
    assert agreement.status is Status.WRONG_VALUES
    assert f"1 of 2 elements are off; first (1,) got {wrong:.9g}, expected 1, error inf" in agreement.message


def test_an_unwritten_element_is_reported_where_nan_is_expected() -> None:
    agreement = check_case(
        constant(torch.full((2,), torch.nan)), implementation(do_nothing, operation="constant"), case(), CPU, (0,)
    )
    assert agreement.status is Status.WRONG_VALUES
    assert "was never written" in agreement.message


def test_the_bound_itself_passes_and_what_lies_just_beyond_does_not() -> None:
    bound = 2.0**-20
    wanted = torch.ones(3, dtype=torch.float64)
    assert check_constant(wanted + bound, wanted, bound, torch.float64).passed
    assert check_constant(wanted - bound, wanted, bound, torch.float64).passed
    agreement = check_constant(wanted + bound * (1 + 2.0**-30), wanted, bound, torch.float64)
    assert agreement.status is Status.WRONG_VALUES
    assert agreement.bound == bound


def test_bounds_are_not_rounded_to_float32() -> None:
    agreement = check_constant(torch.ones(1), torch.ones(1), 1e-7)
    assert agreement.bound == 1e-7


def test_the_first_and_the_worst_element_are_named() -> None:
    got = torch.zeros(4, 4)
    got[1, 2], got[3, 0] = 0.5, 2.0
    agreement = check_constant(got, torch.zeros(4, 4), 0.25)
    assert (agreement.error, agreement.bound) == (2.0, 0.25)
    assert agreement.message == (
        "y: 2 of 16 elements are off; first (1, 2) got 0.5, expected 0, error 0.5 beyond bound 0.25; "
        "worst (3, 0) got 2, expected 0, error 2 beyond bound 0.25 (seed 0, first launch)"
    )


def test_a_bound_of_zero_demands_equality() -> None:
    assert check_constant(torch.ones(2), torch.ones(2)).passed
    agreement = check_constant(torch.tensor([1.0, 1.0 + 2.0**-23]), torch.ones(2))
    assert (agreement.status, agreement.bound) == (Status.WRONG_VALUES, 0.0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64])
def test_integers_and_truths_are_compared_as_numbers(dtype: torch.dtype) -> None:
    wanted = torch.tensor([0.0, 1.0, 1.0])
    assert check_constant(wanted.to(dtype), wanted, dtype=dtype).passed
    assert check_constant(torch.tensor([1.0, 1.0, 1.0]).to(dtype), wanted, dtype=dtype).status is Status.WRONG_VALUES
    assert check_constant(torch.tensor([1.0, 1.0, 1.0]).to(dtype), wanted, 1.0, dtype=dtype).passed


@pytest.mark.parametrize("given", [torch.int64, torch.uint64, torch.float64])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_large_integers_are_compared_exactly(dtype: torch.dtype, given: torch.dtype) -> None:
    """Those of float64 that are beyond 2^53 stand 2 to 2048 apart."""
    for number in (2**53, 2**60, 2**62 + 2**31, *([2**63, 2**64 - 2**11] if torch.uint64 is dtype is given else [])):
        wanted = torch.tensor([number, 3], dtype=given)
        assert check_constant(torch.tensor([number, 3], dtype=dtype), wanted, dtype=dtype).passed
        for error in (-1, 1, 1000):
            got = torch.tensor([number + error, 3], dtype=dtype)
            agreement = check_constant(got, wanted, dtype=dtype)
            assert (agreement.status, agreement.error) == (Status.WRONG_VALUES, abs(error)), (number, error)
            assert f"(0,) got {number + error}, expected " in agreement.message
            assert check_constant(got, wanted, abs(error), dtype=dtype).passed


def test_the_difference_of_integers_is_zero_only_where_they_are_equal() -> None:
    near = [2**62 + 1, 2**63 - 1, 2**53 + 1, 7, 0, -1, -(2**53) - 1, -(2**63) + 1, -(2**63)]
    pairs = [(one, other) for one in near for other in near]
    ours, theirs = (torch.tensor(each, dtype=torch.int64) for each in zip(*pairs, strict=True))
    same, distance = difference(ours, theirs)
    assert same.tolist() == [one == other for one, other in pairs]
    for found, (one, other) in zip(distance.tolist(), pairs, strict=True):
        assert abs(found - abs(one - other)) <= (2**-52 * found if found >= 2**53 else 0), (one, other)
    unsigned = [number % 2**64 for number in near]
    same, distance = difference(torch.tensor(unsigned, dtype=torch.uint64), torch.tensor(near, dtype=torch.int64))
    assert distance.tolist() == [float(one - other) for one, other in zip(unsigned, near, strict=True)]
    assert same.tolist() == [number >= 0 for number in near]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_of_8_bits_are_compared_as_numbers(dtype: torch.dtype) -> None:
    wanted = torch.tensor([0.5, torch.nan, -3.0])
    for value in (wanted, wanted.to(dtype)):
        assert check_constant(wanted.to(dtype), value, dtype=dtype).passed
        agreement = check_constant(torch.tensor([0.5, torch.nan, 3.0]).to(dtype), value, dtype=dtype)
        assert "1 of 3 elements are off; first (2,) got 3, expected -3, error 6" in agreement.message


def test_a_bool_that_is_neither_0_nor_1_is_wrong() -> None:
    def write_255(inputs: Inputs, outputs: Tensors) -> None:
        outputs["y"].view(torch.uint8).fill_(255)

    operation = constant(torch.ones(2), dtype=torch.bool)
    agreement = check_case(operation, implementation(write_255, operation="constant"), case(), CPU, (0,))
    assert agreement.status is Status.WRONG_VALUES


# Whose fault it is ------------------------------------------------------------------------------------------


def test_errors_of_prepare_are_the_implementations() -> None:
    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        raise ValueError("no strides, please")

    agreement = check_case(SCALE, prepared_by(prepare), case(), CPU, SEEDS)
    assert agreement.status is Status.ERROR
    assert agreement.message.startswith("ValueError: no strides, please (test_agreement.py:")
    assert agreement.message.endswith("(seed 3, prepare)")

    agreement = check_case(SCALE, prepared_by(lambda inputs, outputs: None), case(), CPU, SEEDS)
    assert agreement.status is Status.ERROR
    assert "prepare returned None, which cannot be called" in agreement.message


def test_ctrl_c_passes() -> None:
    def interrupt(inputs: Inputs, outputs: Tensors) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(interrupt)


def fail(*_: object) -> dict[str, Tensor]:
    raise ZeroDivisionError("a slip")


@pytest.mark.parametrize("name", ["make_inputs", "make_outputs", "reference"])
def test_errors_of_the_operation_are_raised_with_a_note(name: str) -> None:
    replaced: dict[str, Any] = {name: fail}
    operation = scale_with(**replaced)
    with pytest.raises(ZeroDivisionError, match="a slip") as caught:
        check_case(operation, implementation(scale_rightly), case(), CPU, SEEDS)
    (note,) = caught.value.__notes__
    assert "of scale" in note
    assert "not by the implementation" in note


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"y": Expected(torch.zeros(5, 7), torch.nan)}, "the bound of 'y' is negative, infinite or NaN"),
        ({"y": Expected(torch.zeros(5, 7), -1.0)}, "the bound of 'y' is negative, infinite or NaN"),
        ({"y": Expected(torch.zeros(5, 7), torch.inf)}, "the bound of 'y' is negative, infinite or NaN"),
        ({"y": Expected(torch.zeros(7), 1.0)}, r"expected 'y' has shape \(7,\), output \(5, 7\)"),
        ({}, r"returns outputs \[\], not \['y'\]"),
    ],
)
def test_an_unusable_result_of_the_reference_is_an_error_of_the_operation(
    expected: dict[str, Expected], words: str
) -> None:
    operation = scale_with(reference=lambda inputs, outputs: expected)
    with pytest.raises(ValueError, match=words):
        check_case(operation, implementation(scale_rightly), case(), CPU, SEEDS)


def test_operations_that_cannot_be_guarded_are_refused() -> None:
    with pytest.raises(TypeError, match="input 'x' is a list of tensors"):
        check_case(
            scale_with(make_inputs=lambda case, device: {"x": [torch.ones(2)]}),
            implementation(scale_rightly),
            case(),
            CPU,
            SEEDS,
        )
    unlike = scale_with(make_outputs=lambda inputs: {"x": torch.empty(3)})
    with pytest.raises(ValueError, match="output 'x' is the state of the input of that name, but not of its shape"):
        check_case(unlike, implementation(scale_rightly), case(), CPU, SEEDS)
    with pytest.raises(ValueError, match="at least one seed"):
        check_case(SCALE, implementation(scale_rightly), case(), CPU, ())


# Laws -------------------------------------------------------------------------------------------------------


def law_of(test: Callable[[Advance, torch.device, int], Agreement]) -> Law:
    return Law(name="balance", statement="two kicks that cancel leave the state", test=test)


def kick_there_and_back(advance: Advance, device: torch.device, seed: int) -> Agreement:
    start = torch.arange(6.0)
    there = advance({"state": start, "kick": torch.full((6,), float(seed))})["state"]
    back = advance({"state": there, "kick": torch.full((6,), -float(seed))})["state"]
    assert not torch.equal(there, back)  # the first result is not overwritten by the second call
    return Agreement(Status.PASSED if torch.equal(back, start) else Status.WRONG_LAW)


def check_balance(candidate: Implementation, test: Callable[[Advance, torch.device, int], Agreement]) -> Agreement:
    return check_law(candidate, KICK, law_of(test), CPU, 5)


def test_a_law_is_tested_through_advance() -> None:
    def kick_too_far(inputs: Inputs, outputs: Tensors) -> None:
        outputs["state"].add_(inputs["kick"]).add_(1)

    assert check_balance(implementation(kick_rightly), kick_there_and_back).passed
    assert check_balance(implementation(kick_too_far), kick_there_and_back).status is Status.WRONG_LAW


def test_results_are_the_laws_own_though_the_implementation_uses_one_buffer() -> None:
    buffer = torch.empty(6)

    def same_buffer(inputs: Inputs, outputs: Tensors) -> Tensors:
        return {"state": torch.add(inputs["state"], inputs["kick"], out=buffer)}

    assert check_balance(implementation(same_buffer), kick_there_and_back).passed


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (raise_an_exception, Status.ERROR),
        (exit_the_process, Status.ERROR),
        (lambda inputs, outputs: {"state": torch.empty(7)}, Status.WRONG_SHAPE),
        (lambda inputs, outputs: {"state": torch.empty(6).double()}, Status.WRONG_DTYPE),
        (lambda inputs, outputs: {}, Status.ERROR),
    ],
)
def test_an_implementation_that_fails_under_a_law_is_rejected(body: Body, status: Status) -> None:
    assert check_balance(implementation(body), kick_there_and_back).status is status


def test_errors_of_the_law_are_raised_with_a_note() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        check_balance(implementation(kick_rightly), fail)  # type: ignore[arg-type]
    assert caught.value.__notes__ == ["raised by the law 'balance' of kick, not by the implementation under test"]


# Cases that are refused, and random streams of their own ----------------------------------------------------


def refuse(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
    raise Unsupported("no odd sizes")


def test_a_case_that_prepare_refuses_is_unavailable_with_its_reason() -> None:
    agreement = check_case(SCALE, prepared_by(refuse), case(), CPU, SEEDS)
    assert (agreement.status, agreement.message) == (Status.UNAVAILABLE, "no odd sizes")
    assert check_balance(prepared_by(refuse), kick_there_and_back).status is Status.UNAVAILABLE
    assert check(scale_rightly).passed  # others are judged as ever


def test_a_case_refused_at_its_second_seed_is_unavailable() -> None:
    prepared = []

    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        prepared.append(inputs)
        return refuse(inputs, outputs) if len(prepared) == 2 else lambda: {"y": inputs["x"] * inputs["factor"]}

    agreement = check_case(SCALE, prepared_by(prepare), case(), CPU, SEEDS)
    assert (agreement.status, agreement.message) == (Status.UNAVAILABLE, "no odd sizes")


def test_a_launch_must_not_refuse() -> None:
    def refuse_late(inputs: Inputs, outputs: Tensors) -> None:
        refuse(inputs, outputs)

    assert check(refuse_late).status is Status.ERROR


def noise_of_variance_one(inputs: Inputs, outputs: Tensors) -> Agreement:
    spread = float(outputs["y"].square().mean())
    good = abs(spread - 1) < 0.2
    return Agreement(Status.PASSED if good else Status.WRONG_LAW, f"variance {spread:.2g}", error=spread, bound=1.2)


NOISE = scale_with(
    name="noise",
    make_inputs=lambda case, device: {"x": torch.full((5000,), float(case.seed)), "factor": 1.0},
    reference=lambda inputs, outputs: {"y": Expected(torch.zeros(5000, dtype=torch.float64))},
    judge_draws=noise_of_variance_one,
)


def check_noise(body: Body, own_stream: bool = True) -> Agreement:
    return check_case(NOISE, replace(implementation(body), own_stream=own_stream), case(), CPU, SEEDS)


def draw_noise(inputs: Inputs, outputs: Tensors) -> None:
    outputs["y"].normal_(0, 1)


def test_draws_of_an_own_stream_are_judged_by_their_law_and_not_by_the_reference() -> None:
    assert check_noise(draw_noise).passed
    assert check_noise(draw_noise, own_stream=False).status is Status.WRONG_VALUES


def test_wrong_draws_of_an_own_stream_are_rejected_in_either_launch() -> None:
    def draw_too_wide(inputs: Inputs, outputs: Tensors) -> None:
        outputs["y"].normal_(0, 2)

    def draw_too_wide_for_other_values(inputs: Inputs, outputs: Tensors) -> None:
        outputs["y"].normal_(0, 1 if inputs["x"][0] == SEEDS[0] else 2)

    first, second = check_noise(draw_too_wide), check_noise(draw_too_wide_for_other_values)
    assert (first.status, second.status) == (Status.WRONG_LAW, Status.WRONG_LAW)
    assert first.message.endswith("(seed 3, first launch)")
    assert second.message.endswith("(seed 3, second launch, new values in the same inputs)")


def test_an_own_stream_excuses_no_stray_write_and_no_modified_input() -> None:
    def stray(inputs: Inputs, outputs: Tensors) -> None:
        draw_noise(inputs, outputs)
        element(outputs["y"], outputs["y"].numel()).fill_(0)

    def modify(inputs: Inputs, outputs: Tensors) -> None:
        draw_noise(inputs, outputs)
        inputs["x"][2] += 1

    assert check_noise(stray).status is Status.OUT_OF_BOUNDS
    assert check_noise(modify).status is Status.MODIFIED_INPUT
    assert check_noise(do_nothing).status is Status.WRONG_LAW


def test_a_law_of_the_shared_stream_does_not_test_an_own_stream() -> None:
    law = replace(law_of(kick_there_and_back), shared_stream=True)
    own = replace(implementation(kick_rightly), own_stream=True)
    assert check_law(own, KICK, law, CPU, 5).status is Status.UNAVAILABLE
    assert check_law(implementation(kick_rightly), KICK, law, CPU, 5).passed


def test_an_own_stream_without_judge_draws_is_an_error_of_the_operation() -> None:
    with pytest.raises(ValueError, match="none") as caught:
        check_case(SCALE, replace(implementation(scale_rightly), own_stream=True), case(), CPU, SEEDS)
    assert caught.value.__notes__ == ["raised by judge_draws of scale, not by the implementation under test"]
