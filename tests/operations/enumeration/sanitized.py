"""The CUDA C kernels of `enumeration` on odd shapes, for `test_sanitized.py`."""

from boltzbench.kernels.enumeration import log_partition, rbm_log_partition
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    for visible, hidden in ((0, 3), (3, 0), (1, 1), (7, 9), (13, 17), (14, 40)):
        for scale in (0.1, 1.0, 4.0):
            weights, biases = scale * random(visible, hidden), random(max(visible, hidden))
            for beta in (0.0, 0.5):
                found.append(rbm_log_partition(weights, biases[:visible], biases[:hidden], beta, backend="cupy"))
    for units in (0, 1, 8, 16, 17, 21):
        above = 0.2 * random(units, units).triu(1)
        for beta in (0.0, 0.5, 1.0):
            found.append(log_partition(above + above.t(), random(units), beta, backend="cupy"))
    return found
