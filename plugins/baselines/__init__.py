"""Implementations for comparison: torch.compile, and kernels of other libraries."""
