"""Guarded memory keeps the layout, surrounds it with poison, and locates every stray byte."""

import pytest
import torch
from boltzbench.harness.agreement.guarded_memory import ALIGNMENT, GUARD_BYTES, HUGE_POISON, NAN_POISON, Guarded
from support.small_operations import element
from torch import Tensor


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


LAYOUTS = {
    "contiguous": drawn(5, 7),
    "sliced": drawn(5, 17)[:, 3::2],
    "transposed": drawn(7, 5).T,
    "expanded": drawn(5, 1).expand(5, 7),
    "expanded from one number": torch.tensor(2.5).expand(4, 3),
    "windows": drawn(11).unfold(0, 5, 1),
    "unaligned": drawn(36)[1:],
    "scalar": torch.tensor(1.5),
    "no rows": drawn(0, 7),
    "no columns, expanded": drawn(1, 0).expand(3, 0),
    "channels last": drawn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "integers": torch.arange(12).view(3, 4),
    "bytes": torch.arange(9, dtype=torch.uint8)[1:],
    "truths": torch.tensor([True, False, True])[::2],
}


def filled(values: Tensor) -> Guarded:
    guarded = Guarded(values)
    guarded.fill(values, NAN_POISON)
    return guarded


@pytest.mark.parametrize("source", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout_and_values_survive(source: Tensor) -> None:
    tensor = filled(source).tensor

    assert torch.equal(tensor, source)
    assert (tensor.shape, tensor.stride(), tensor.dtype) == (source.shape, source.stride(), source.dtype)
    assert tensor.data_ptr() % ALIGNMENT == source.data_ptr() % ALIGNMENT
    assert not tensor._is_view()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_floats_are_poisoned_with_nan_or_a_huge_number(dtype: torch.dtype) -> None:
    guarded = Guarded(torch.empty(4, dtype=dtype))
    guarded.fill(None, NAN_POISON)
    assert guarded.tensor.isnan().all()
    assert guarded.unwritten().all()

    guarded.fill(None, HUGE_POISON)
    assert guarded.tensor.isfinite().all()
    assert (guarded.tensor > 60_000).all()
    assert guarded.unwritten().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int32, torch.int64])
def test_other_dtypes_are_poisoned_with_junk(dtype: torch.dtype) -> None:
    guarded = Guarded(torch.empty(4, dtype=dtype))
    guarded.fill(None, NAN_POISON)
    assert (guarded.tensor.view(torch.uint8) == 0xA5).all()
    guarded.tensor[2] = 1
    assert guarded.unwritten().tolist() == [True, True, False, True]


def test_poison_lies_around_and_between_the_elements() -> None:
    sliced = filled(LAYOUTS["sliced"]).tensor
    assert element(sliced, 1).isnan()  # a gap
    assert element(sliced, -1).isnan()
    assert element(sliced, -GUARD_BYTES // 4).isnan()
    last = 4 * 17 + 6 * 2
    assert not element(sliced, last).isnan()
    assert element(sliced, last + 1).isnan()
    assert element(sliced, last + GUARD_BYTES // 4).isnan()


@pytest.mark.parametrize("source", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_untouched_memory_has_no_change_and_no_spill(source: Tensor) -> None:
    guarded = filled(source)
    guarded.seal()
    assert guarded.change() is None
    assert guarded.spill() is None


@pytest.mark.parametrize(
    ("layout", "places", "where"),
    [
        ("contiguous", 35, "1 element(s) past its end"),
        ("contiguous", 40, "6 element(s) past its end"),
        ("contiguous", -1, "1 element(s) before its start"),
        ("contiguous", -9, "9 element(s) before its start"),
        ("sliced", 3, "the gap between its elements, 3 element(s) from its start"),
        ("no rows", 0, "1 element(s) past its end"),
        ("expanded", 5, "1 element(s) past its end"),
        ("bytes", -1, "1 element(s) before its start"),
    ],
)
def test_a_write_outside_the_elements_is_found_and_placed(layout: str, places: int, where: str) -> None:
    guarded = filled(LAYOUTS[layout])
    guarded.seal()
    element(guarded.tensor, places).fill_(1)
    assert guarded.spill() == where
    assert guarded.change() == where


def test_a_write_to_an_element_is_a_change_and_no_spill() -> None:
    guarded = filled(LAYOUTS["transposed"])
    guarded.seal()
    guarded.tensor[3, 2] = 99.0
    assert guarded.spill() is None
    assert guarded.change() == "element (3, 2)"


def test_a_change_is_seen_by_bytes_so_that_nan_equals_itself_and_zero_differs_from_minus_zero() -> None:
    guarded = filled(torch.tensor([torch.nan, 0.0]))
    guarded.seal()
    guarded.tensor[0] = guarded.tensor[0].clone()
    assert guarded.change() is None
    guarded.tensor[1] = -0.0
    assert guarded.change() == "element (1,)"


def test_nan_written_into_a_guard_of_nan_is_seen_under_the_other_poison() -> None:
    guarded = filled(torch.zeros(4))
    element(guarded.tensor, 4).view(torch.int32).fill_(-1)
    assert guarded.spill() is None
    guarded.fill(torch.zeros(4), HUGE_POISON)
    element(guarded.tensor, 4).view(torch.int32).fill_(-1)
    assert guarded.spill() == "1 element(s) past its end"


def test_change_needs_a_seal() -> None:
    with pytest.raises(RuntimeError, match="call seal"):
        filled(torch.zeros(1)).change()


@pytest.mark.parametrize("tensor", [torch.zeros(2).to_sparse(), torch.zeros(2, dtype=torch.complex64)])
def test_sparse_and_complex_tensors_are_refused(tensor: Tensor) -> None:
    with pytest.raises(TypeError, match="dense real tensor"):
        Guarded(tensor)
