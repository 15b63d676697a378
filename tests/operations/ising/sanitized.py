"""The CUDA C kernels of `ising` on odd shapes, for `test_sanitized.py`."""

from typing import Any

import torch
from boltzbench.kernels.ising import ising_sweeps, pack_spins
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    sizes = ((1, 2, 2), (70, 4, 4), (3, 6, 70), (2, 4, 64), (2, 40, 130), (130, 2, 66))
    for lattices, height, width in sizes:
        spins = pack_spins(random(lattices, height, width))
        beta = torch.linspace(0, 1, lattices, dtype=torch.float64)
        for rule, field in (("metropolis", 0.0), ("heat_bath", 0.0), ("metropolis", 0.5)):
            for plan in ("half_sweeps", "resident"):
                for seed in (0, 2**64 - 1):
                    numbers: dict[str, Any] = {
                        "rule": rule,
                        "field": field,
                        "plan": plan,
                        "seed": seed,
                        "first_sweep": 2**32 - 2,
                    }
                    found.append(ising_sweeps(spins, width, 2, beta, backend="cupy", **numbers))
    return found
