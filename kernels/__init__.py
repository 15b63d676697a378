"""The kernels: functions of tensors, usable without the harness."""

from .common import triton_runtime as triton_runtime  # first: it decides how Triton runs before anything imports Triton
