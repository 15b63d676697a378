"""The CUDA C kernels of `parallel_tempering` on odd shapes, for `test_sanitized.py`."""

from typing import Any

import torch
from boltzbench.kernels.parallel_tempering import swap_replicas
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    for ladders, rungs in ((1, 1), (1, 2), (7, 3), (100, 16), (3, 300), (257, 1)):
        replica_at = random(ladders, rungs).argsort(1).to(torch.int32)
        energies, betas = random(ladders, rungs, dtype=torch.float64), torch.linspace(0, 2, rungs).double()
        for round_number in (0, 1, 2**32 - 1):
            for seed in (0, 2**64 - 1):
                numbers: dict[str, Any] = {"seed": seed, "round_number": round_number, "first_ladder": 2**40}
                found += swap_replicas(replica_at, energies, betas, backend="cupy", **numbers)
    return found
