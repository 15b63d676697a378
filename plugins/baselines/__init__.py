"""torch.compile and other libraries, timed beside the suite's kernels."""
