"""States of units: a byte for each, or 64 of them to a word; and what the kernels ask of rows in memory.

Packed states are int64, (chains, ceil(units / 64)): unit ``j`` is bit ``j % 64`` of word ``j // 64``, and the bits
beyond the last unit are 0. 64 units are what the tensor-core kernels multiply in one step, and a word is the piece that
they copy, so every matrix of packed states is aligned as they want it.
"""

import torch
from torch import Tensor

WORD = 64
"""Units in a word."""
ROW_BYTES = 16


def words_of(units: int) -> int:
    """How many words hold a chain's states."""
    return -(-units // WORD)


def pack_states(states: Tensor) -> Tensor:
    """The packed form of uint8 ``states`` 0 or 1, (chains, units)."""
    chains, units = states.shape
    if units == 0:
        return states.new_zeros((chains, 0), dtype=torch.int64)
    # Eight bytes b_0 ... b_7 of 0 or 1 in a word, times the sum of 2**(56 - 7 i), are the bits 56 to 63: none carries.
    padded = states.new_zeros((chains, words_of(units) * WORD))
    padded[:, :units] = states
    bits = ((padded.view(torch.int64) * 0x0102040810204080) >> 56) & 0xFF
    return bits.to(torch.uint8).view(torch.int64)


def unpack_states(words: Tensor, units: int) -> Tensor:
    """uint8 states 0 or 1, (chains, units), of what `pack_states` packed."""
    if words.shape[1] != words_of(units):
        raise ValueError(
            f"words must have shape (chains, {words_of(units)}) for {units} units, got {tuple(words.shape)}"
        )
    if units == 0:
        return words.new_zeros((len(words), 0), dtype=torch.uint8)
    # A byte in each byte of a word, of byte i the bit i alone: what is not 0 carries into the highest bit.
    alone = (words.contiguous().view(torch.uint8).to(torch.int64) * 0x0101010101010101) & -0x7FBFDFEFF7FBFDFF
    ones = ((alone + 0x7F7F7F7F7F7F7F7F) >> 7) & 0x0101010101010101
    return ones.view(torch.uint8)[:, :units].contiguous()


def padding_is_zero(words: Tensor, units: int) -> Tensor:
    """Whether all bits beyond the last unit are 0: a bool of no dimensions."""
    if units % WORD == 0:
        return torch.ones((), dtype=torch.bool, device=words.device)
    return ~(words[:, -1] >> units % WORD).any()


def in_own_rows(states: Tensor) -> Tensor:
    """The same memory of contiguous ``states`` in rows of their length: of a batch of one, PyTorch keeps any stride."""
    return states.view(-1).view(states.shape)


def has_aligned_rows(states: Tensor) -> bool:
    """Whether kernels may read and write the rows of uint8 ``states`` 16 bytes at a time."""
    return states.is_contiguous() and states.shape[1] % ROW_BYTES == 0 and states.data_ptr() % ROW_BYTES == 0


def aligned_rows(like: Tensor) -> Tensor:
    """Zeros of ``like``'s shape, dtype and device, in rows that begin at multiples of 16 bytes."""
    chains, units = like.shape
    return like.new_zeros((chains, -(-units // ROW_BYTES) * ROW_BYTES))[:, :units]
