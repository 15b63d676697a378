"""The limits of a device: small kernels that each drive one of them as hard as it goes.

The functions of `cuda_kernels` and `torch_kernels` take a device and sizes, allocate what is needed and return
``(launch, check)``: the work, once, without waiting for the device; and, to be called after it, None if that work was
really done or else what is wrong, in words.
"""

from collections.abc import Callable

Prepared = tuple[Callable[[], object], Callable[[], str | None]]

PIECE = 1 << 24
"""Elements that a check looks at together, so that it needs little memory beside the data."""
