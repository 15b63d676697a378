"""Example calls of `thermodynamics`."""

from boltzbench.kernels.thermodynamics import thermodynamics
from support.number_calls import NumberCall, weights

CALLS = (NumberCall(thermodynamics, {"x": weights(4, 3), "dim": 1, "beta": 0.5}, signed=("dim",)),)
