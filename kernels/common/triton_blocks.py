"""How many elements a Triton program handles: a constant where it is compiled, many where it is interpreted."""

import triton

from .triton_runtime import INTERPRETS

INTERPRETED = 1 << 16
"""The most elements of an interpreted program, which takes some milliseconds whatever their number."""


def block_for(total: int, compiled: int) -> int:
    """Elements of a program that shares ``total``: ``compiled``, or a power of two that suits the interpreter."""
    return min(INTERPRETED, int(triton.next_power_of_2(total))) if INTERPRETS else compiled
