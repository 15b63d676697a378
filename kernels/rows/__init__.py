"""Code shared by the operations on rows: log-sum-exp, thermodynamics, generalised cross-entropy."""

from .checks import accumulation_dtype

__all__ = ["accumulation_dtype"]
