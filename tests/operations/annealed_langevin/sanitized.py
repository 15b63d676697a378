"""The CUDA C kernels of `annealed_langevin` on odd shapes, for `test_sanitized.py`."""

from typing import Any

from boltzbench.kernels import schedules
from boltzbench.kernels.annealed_langevin import annealed_langevin
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    for walkers in (1, 2, 3, 4, 5, 1023, 1025):
        x = random(walkers).clamp(-3, 3)
        for first_walker in (0, 1, 3, 2**40 - 2):
            for threshold in (None, 0.5):
                numbers: dict[str, Any] = {
                    "first_walker": first_walker,
                    "threshold": threshold,
                    "seed": 2**64 - 1,
                    "first_step": 2**30,
                }
                walked = annealed_langevin(x, schedules.geometric(3, 1.0, 0.1), 0.05, **numbers, backend="cupy")
                found += [each for each in walked if each is not None]
    return found
