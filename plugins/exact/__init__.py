"""Exact answers, in float64: laws, enumerated states, partition functions, transfer operators and matrices."""
