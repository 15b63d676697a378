"""Code that the operations on rows share: log-sum-exp, thermodynamics, generalised cross-entropy."""

from .checks import accumulation_dtype

__all__ = ["accumulation_dtype"]
