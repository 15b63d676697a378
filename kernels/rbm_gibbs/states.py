"""States of units: a byte for each unit, or a word for 64 units; and the alignment of rows for the kernels.

Packed states are int64, (chains, ceil(units / 64)): unit ``j`` is bit ``j % 64`` of word ``j // 64``, and the bits
beyond the last unit are 0. The tensor-core kernels multiply 64 given units in one step and copy packed states word by
word, so every matrix of packed states has the alignment that they need.
"""

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..numbers import can_check, integer

WORD = 64
"""Units in a word."""
ROW_BYTES = 16


def words_of(units: int) -> int:
    """The number of words for the states of a chain."""
    return -(-units // WORD)


def pack_states(states: Tensor) -> Tensor:
    """The packed form of uint8 ``states`` 0 or 1, (chains, units). The values are checked on a CPU only."""
    require_tensor("states", states, (torch.uint8, torch.bool), None)
    if states.ndim != 2:
        raise ValueError(f"states must have shape (chains, units), got {tuple(states.shape)}")
    if can_check(states) and bool((states > 1).any()):
        raise ValueError("states must hold only 0 and 1")
    chains, units = states.shape
    if units == 0:
        return states.new_zeros((chains, 0), dtype=torch.int64)
    # Eight bytes b_0 ... b_7 of 0 or 1 in a word, times the sum of 2**(56 - 7 i), give bits 56 to 63 without a carry.
    padded = states.new_zeros((chains, words_of(units) * WORD))
    padded[:, :units] = states
    bits = ((padded.view(torch.int64) * 0x0102040810204080) >> 56) & 0xFF
    return bits.to(torch.uint8).view(torch.int64)


def unpack_states(words: Tensor, units: int) -> Tensor:
    """The uint8 states 0 or 1, (chains, units), from the packed form of `pack_states`."""
    require_tensor("words", words, (torch.int64,), None)
    units = integer("units", units)
    if words.ndim != 2 or words.shape[1] != words_of(units):
        raise ValueError(
            f"words must have shape (chains, {words_of(units)}) for {units} units, got {tuple(words.shape)}"
        )
    if units == 0:
        return words.new_zeros((len(words), 0), dtype=torch.uint8)
    # Copy a byte to all bytes of a word and keep bit i of byte i; then any byte that is not 0 carries into its top bit.
    alone = (words.contiguous().view(torch.uint8).to(torch.int64) * 0x0101010101010101) & -0x7FBFDFEFF7FBFDFF
    ones = ((alone + 0x7F7F7F7F7F7F7F7F) >> 7) & 0x0101010101010101
    return ones.view(torch.uint8)[:, :units].contiguous()


def padding_is_zero(words: Tensor, units: int) -> Tensor:
    """Whether all bits beyond the last unit are 0: a bool tensor without dimensions."""
    if units % WORD == 0:
        return torch.ones((), dtype=torch.bool, device=words.device)
    return ~(words[:, -1] >> units % WORD).any()


def in_own_rows(states: Tensor) -> Tensor:
    """Contiguous ``states`` with the usual row stride: PyTorch may report any stride for a batch of one."""
    return states.view(-1).view(states.shape)


def has_aligned_rows(states: Tensor) -> bool:
    """Whether kernels may read and write the rows of uint8 ``states`` 16 bytes at a time."""
    return states.is_contiguous() and states.shape[1] % ROW_BYTES == 0 and states.data_ptr() % ROW_BYTES == 0


def aligned_rows(like: Tensor) -> Tensor:
    """Zeros of ``like``'s shape, dtype and device, in rows that begin at multiples of 16 bytes."""
    chains, units = like.shape
    return like.new_zeros((chains, -(-units // ROW_BYTES) * ROW_BYTES))[:, :units]
