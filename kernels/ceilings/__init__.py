"""The limits of a device: small kernels that each drive one of them as hard as it goes.

The functions of `cuda_kernels` and `torch_kernels` take a device and sizes, allocate what is needed and return
``(launch, check)``: the work, once, without waiting for the device; and, to be called after it, None if that work was
really done or else what is wrong, in words.
"""

from . import cuda_kernels, torch_kernels
from .prepared import Prepared

__all__ = ["Prepared", "cuda_kernels", "torch_kernels"]
