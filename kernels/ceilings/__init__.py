"""Ceilings of a device: small kernels that each drive one of its limits as hard as possible.

The functions of `cuda_kernels`, `native_kernels` and `torch_kernels` take a device and sizes, allocate their data and
return ``(launch, check)``. ``launch`` does the work once, without waiting for the device. ``check``, called afterwards,
returns None if the work was done, or a message that says what is wrong.
"""

from . import cuda_kernels, native_kernels, torch_kernels
from .prepared import Prepared

__all__ = ["Prepared", "cuda_kernels", "native_kernels", "torch_kernels"]
