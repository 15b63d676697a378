import dataclasses
import re

import pytest
import torch
from boltzbench.harness.api.messages import describe_error
from boltzbench.harness.api.operations import PRESETS, Agreement, Case, Status, always_available
from boltzbench.harness.api.records import Measurement, Record
from support.fakes import CPU, case, implementation

MEASUREMENT = Measurement("cpu", "hot", (1.0,), 1.0, 1.0, 1.0, 5.0, "rows", 8.0, 9.0)


def test_a_label_contains_scenario_sizes_and_dtype():
    assert Case("logsumexp", {"rows": 3, "columns": 5}, "float32").label == "rows=3 columns=5 float32"
    assert Case("logsumexp", {"rows": 3}, "bfloat16", scenario="outliers").label == "outliers rows=3 bfloat16"


def test_a_case_knows_its_torch_dtype():
    assert case(dtype="bfloat16").torch_dtype is torch.bfloat16


@pytest.mark.parametrize("thing", [case(), implementation(), MEASUREMENT, Agreement(Status.PASSED)])
def test_the_types_cannot_be_changed(thing):
    field = dataclasses.fields(thing)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, field, None)


@pytest.mark.parametrize("status", Status)
def test_only_one_status_means_agreement(status):
    assert Agreement(status).passed is (status.value == "passed")


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PASSED])
def test_no_measurement_without_agreement(status):
    with pytest.raises(ValueError, match=f"a measurement of sum exists although its status is {status}"):
        Record("double", "sum", "torch", "p", "n=3", "bench", status, measurements=(MEASUREMENT,))


def test_a_measurement_with_agreement():
    record = Record("double", "sum", "torch", "p", "n=3", "bench", Status.PASSED, measurements=(MEASUREMENT,))
    assert record.measurements == (MEASUREMENT,)


@pytest.mark.parametrize(
    ("backend", "device", "interpreted"),
    [
        ("triton", "cpu", True),
        ("cupy", "cpu", True),
        ("torch", "cpu", False),
        ("mine", "cpu", False),
        ("triton", "cuda", False),
        ("cupy", "cuda", False),
    ],
)
def test_gpu_kernels_are_interpreted_on_the_cpu(backend, device, interpreted):
    assert implementation(backend=backend).is_interpreted_on(torch.device(device)) is interpreted


def test_an_error_is_described_with_the_way_from_the_plugins_code():
    def inner(depth):
        return inner(depth - 1) if depth else torch.zeros(3).view(2)

    def words(depth):
        with pytest.raises(RuntimeError) as caught:
            inner(depth)
        return describe_error(caught.value)

    assert re.fullmatch(r"RuntimeError: shape .* \(test_api.py:\d+ > test_api.py:\d+ > test_api.py:\d+\)", words(0 + 1))
    assert words(20).count("test_api.py") == 4
    assert " > ... > " in words(20)


def test_an_implementation_is_available_by_default():
    assert implementation().unavailable is always_available
    assert always_available(CPU) is None


def test_presets_are_in_order_of_size():
    assert PRESETS == ("smoke", "quick", "full")
