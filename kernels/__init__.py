"""Tensors in, tensors out: the kernels themselves. This package knows nothing of the suite around it."""

from .common import triton_runtime as triton_runtime  # first: it settles how Triton runs before anything imports Triton
