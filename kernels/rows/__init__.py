"""Code shared by the operations on rows: log-sum-exp, thermodynamics, generalised cross-entropy."""

from . import softmax
from .checks import accumulation_dtype

__all__ = ["accumulation_dtype", "softmax"]
