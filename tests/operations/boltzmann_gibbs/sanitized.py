"""The CUDA C kernels of `boltzmann_gibbs` on odd shapes, for `test_sanitized.py`."""

from typing import Any

import torch
from boltzbench.kernels.boltzmann_gibbs import boltzmann_gibbs, prepare_spins, prepare_units
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    for chains, units, least in ((1, 1, -9.0), (33, 5, 9.0), (70, 37, 0.8), (32, 64, 1.3), (3, 41, -9.0)):
        couplings = (random(units, units) * (random(units, units, seed=3) > least)).triu(1)
        couplings, fields = couplings + couplings.t(), random(units)
        held = random(chains, units, seed=2) > 0.5
        for prepare, dtype, low in ((prepare_units, torch.uint8, 0), (prepare_spins, torch.int8, -1)):
            states = torch.where(random(chains, units, seed=1) > 0, 1, low).to(dtype)
            for clamped in (None, held, held[0], held.t().contiguous().t()):
                for beta in (0.7, torch.linspace(0.0, 2.0, chains)):
                    numbers: dict[str, Any] = {"seed": 2**64 - 1, "first_sweep": 2**32 - 2, "clamped": clamped}
                    machine = prepare(couplings, fields)
                    found.append(boltzmann_gibbs(states, machine, 2, beta, backend="cupy", **numbers))
    return found
