"""What kernels that reduce or map rows share."""
