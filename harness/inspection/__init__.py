"""Reads the machine code of kernels and predicts their speed, without a GPU."""
