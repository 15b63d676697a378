"""Guarded memory: tensors with poison around, between and in their elements, to detect stray reads and writes.

A `Guarded` tensor has the layout of another one (shape, strides, dtype, address modulo 256) and lies between two guard
bands in its own allocation. A read outside its elements returns poison, which spoils the result. A write outside them
shows up when the bytes are compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

GUARD_BYTES = 16 * 1024
"""On each side: enough that the overrun of a whole thread block stays inside."""

ALIGNMENT = 256
"""Guarded tensors keep the address modulo this, and with it the alignment that the operation chose."""

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Poison:
    """The byte that fills unused memory, for floating-point dtypes and for all others."""

    floating: int
    other: int

    def byte(self, dtype: torch.dtype) -> int:
        return self.floating if dtype.is_floating_point else self.other


NAN_POISON = Poison(floating=0xFF, other=0xA5)
"""NaN in float64, float32, float16 and bfloat16."""

HUGE_POISON = Poison(floating=0x7B, other=0x5A)
"""A huge finite number in the same four (1e36 in float32). It reveals what NaN hides: an unwritten element with the
expected value NaN, a maximum that skips NaN, a stray write of NaN into a guard band."""


def element_at(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The multi-index of the ``flat``-th element in row-major order."""
    return tuple(int(i) for i in np.unravel_index(flat, tuple(shape)))


def fingerprint(tensor: Tensor) -> Tensor:
    """The wrapping sum of a tensor's elements read as integers, enqueued without waiting for the device."""
    words = tensor.detach()
    if words.is_contiguous() and not (words.nbytes % 8 or words.data_ptr() % 8):
        return words.view(-1).view(torch.int64).sum()
    return words.view(_WORDS[words.itemsize]).sum(dtype=torch.int64)


def differs(tensor: Tensor, kept: Tensor) -> Tensor:
    """Whether any element of ``tensor`` has other bits than that of ``kept``, enqueued without waiting."""
    words = tensor.detach(), kept.detach()
    if all(each.is_contiguous() and not (each.nbytes % 8 or each.data_ptr() % 8) for each in words):
        one, other = (each.view(-1).view(torch.int64) for each in words)
    else:
        one, other = (each.view(_WORDS[each.itemsize]) for each in words)
    return torch.ne(one, other).any()


def overwrite(tensor: Tensor, poison: Poison) -> None:
    """Fill a dense tensor with poison."""
    word = _WORDS[tensor.itemsize]
    pattern = bytes([poison.byte(tensor.dtype)]) * tensor.itemsize
    _each_once(tensor.detach().view(word)).fill_(int.from_bytes(pattern, "little", signed=word.is_signed))


def _each_once(tensor: Tensor, strides: Sequence[int] | None = None) -> Tensor:
    """The distinct elements: along an expanded dimension only the first, since torch refuses to write it repeatedly."""
    strides = tensor.stride() if strides is None else strides
    return tensor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)]


def first_true(mask: Tensor) -> int:
    return int(mask.flatten().to(torch.uint8).argmax())


Allocate = Callable[[int, torch.device], Tensor]
"""Makes so many bytes of memory on a device."""


def private_memory(nbytes: int, device: torch.device) -> Tensor:
    """Memory of this process."""
    return torch.empty(nbytes, dtype=torch.uint8, device=device)


class Guarded:
    """A tensor with the layout of ``like`` in its own memory, uninitialised until `fill`."""

    def __init__(self, like: Tensor, allocate: Allocate = private_memory) -> None:
        if like.layout is not torch.strided or like.is_complex():
            raise TypeError(f"expected a dense real tensor, got layout {like.layout} and dtype {like.dtype}")
        self._itemsize = like.dtype.itemsize
        reach = sum((size - 1) * stride for size, stride in zip(like.shape, like.stride(), strict=True))
        length = (reach + 1) * self._itemsize if like.numel() else 0
        # A whole number of 64-bit words, because filling bytewise is slow on the host: it wakes all threads.
        whole = (2 * GUARD_BYTES + ALIGNMENT + length + 7) // 8 * 8
        self._memory = allocate(whole, like.device)
        slide = (like.data_ptr() - self._memory.data_ptr() - GUARD_BYTES) % ALIGNMENT
        self._begin = GUARD_BYTES + slide
        self._end = self._begin + length
        self._sealed: Tensor | None = None
        self._written: Tensor | None = None
        self.tensor = self._elements_of(self._memory, like)

    def fill(self, values: Tensor | None, poison: Poison) -> None:
        """Write ``values`` (poison if None) to the elements, and poison around and between them."""
        self._poison = poison.byte(self.tensor.dtype)
        self._memory.view(torch.int64).fill_(int.from_bytes(bytes([self._poison]) * 8, "little", signed=True))
        if values is not None:
            _each_once(self.tensor).copy_(_each_once(values.detach(), self.tensor.stride()))

    def seal(self) -> None:
        """Save every byte, including the guard bands, for `change`."""
        self._sealed, self._written = self._memory.clone(), None

    @property
    def elements(self) -> Tensor:
        """The distinct elements, to be written at once with those of other tensors. Call `wrote` after that."""
        return _each_once(self.tensor)

    def distinct(self, values: Tensor) -> Tensor:
        """Of ``values``, of the same layout, what belongs into `elements`."""
        return _each_once(values.detach(), self.tensor.stride())

    def wrote(self, values: Tensor) -> None:
        """Say that the elements were overwritten with ``values``, of the same layout, as `change` has to know."""
        self._written = values

    def change(self) -> str | None:
        """Where a byte changed since `seal`, in words; None if nowhere."""
        if self._sealed is None:
            raise RuntimeError("change() compares with the bytes that seal() saved: call seal() first")
        if self._written is not None:
            sealed = self._elements_of(self._sealed, self.tensor)
            _each_once(sealed).copy_(_each_once(self._written, self.tensor.stride()))
        if torch.equal(self._memory, self._sealed):
            return None
        changed = self._memory != self._sealed
        places = self._per_element(changed).any(dim=1)
        elements = places.as_strided(self.tensor.shape, self.tensor.stride())
        if elements.any():
            return f"element {element_at(first_true(elements), self.tensor.shape)}"
        return self._outside(changed)

    def fingerprint(self) -> Tensor:
        """The wrapping sum of all 64-bit words, including the guard bands, enqueued without waiting for the device."""
        return self._memory.view(torch.int64).sum()

    def copy(self) -> Tensor:
        """The words of the elements and of the gaps between them."""
        return self._words().clone()

    def differs(self, kept: Tensor) -> Tensor:
        """Whether any word differs from those of a `copy`, also of another `Guarded` of the same layout. Enqueues this
        without waiting for the device."""
        return torch.ne(self._words(), kept).any()

    def _words(self) -> Tensor:
        span = self._memory[self._begin : self._end]
        return span.view(torch.int64 if not (self._begin % 8 or len(span) % 8) else _WORDS[self._itemsize])

    @property
    def nbytes(self) -> int:
        return self._memory.numel()

    def holds(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` lies in this memory."""
        return tensor.untyped_storage().data_ptr() == self._memory.untyped_storage().data_ptr()

    def spill(self) -> str | None:
        """Where something was written around or between the elements, in words; None if nowhere."""
        bands = self._memory[: self._begin], self._memory[self._end :]
        if self.tensor.is_contiguous() and not any((band != self._poison).any() for band in bands):
            return None
        written = self._memory != self._poison
        self._per_element(written)[self._occupied()] = False
        return self._outside(written) if written.any() else None

    def unwritten(self) -> Tensor:
        """True for each element that still holds the poison of the last `fill`."""
        pattern = bytes([self._poison]) * self._itemsize
        word = _WORDS[self._itemsize]
        return self.tensor.view(word) == int.from_bytes(pattern, "little", signed=word.is_signed)

    def _elements_of(self, memory: Tensor, like: Tensor) -> Tensor:
        """The elements in ``memory``. By set_ and no view: an implementation receives an ordinary tensor."""
        return torch.empty(0, dtype=like.dtype, device=like.device).set_(
            memory.untyped_storage(), self._begin // self._itemsize, like.shape, like.stride()
        )

    def _per_element(self, mask: Tensor) -> Tensor:
        """The part of a byte mask between the guard bands, with a row for each element or gap."""
        return mask[self._begin : self._end].view(-1, self._itemsize)

    def _occupied(self) -> Tensor:
        """True for each place between the guard bands that is an element, False for a gap."""
        shape, strides = self.tensor.shape, self.tensor.stride()
        occupied = torch.zeros((self._end - self._begin) // self._itemsize, dtype=torch.bool, device=self.tensor.device)
        once = [1 if stride == 0 and size else size for size, stride in zip(shape, strides, strict=True)]
        occupied.as_strided(once, strides).fill_(True)
        return occupied

    def _outside(self, touched: Tensor) -> str:
        """Describe the touched byte outside the elements that is nearest to them."""
        after, before = touched[self._end :], touched[: self._begin].flip(0)
        if after.any():
            return f"{first_true(after) // self._itemsize + 1} element(s) past its end"
        if before.any():
            return f"{first_true(before) // self._itemsize + 1} element(s) before its start"
        gap = first_true(self._per_element(touched).any(dim=1))
        return f"the gap between its elements, {gap} element(s) from its start"
