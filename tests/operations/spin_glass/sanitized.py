"""The CUDA C kernels of `spin_glass` on odd shapes, for `test_sanitized.py`."""

from typing import Any
from unittest import mock

import torch
from boltzbench.kernels import schedules
from boltzbench.kernels.spin_glass import RULES, anneal_spins, cuda_kernels, lattice_glass, random_walkers
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    generator = torch.Generator().manual_seed(0)
    graphs = [lattice_glass(height, width, generator) for height, width in ((1, 1), (2, 2), (5, 6), (9, 10))]
    for n, strength in ((6, 1), (9, 2), (11, 2)):
        upper = torch.randint(-strength, strength + 1, (n, n), generator=generator).triu(1)
        graphs.append(upper + upper.t())
    for couplings in graphs:  # glasses of bonds, with spins in shared memory and in device memory
        for walkers in (32, 96, 4128 if len(couplings) < 10 else 160):
            spins = random_walkers(len(couplings), walkers, generator, torch.device("cpu"))
            for first_walker, most in ((0, 1 << 20), (2**40, 0)):
                numbers: dict[str, Any] = {"first_walker": first_walker, "seed": 2**64 - 1, "first_sweep": 2**32 - 2}
                for rule in RULES:
                    with mock.patch.object(cuda_kernels, "most_shared_bytes", lambda device, most=most: most):
                        annealed = anneal_spins(
                            spins, couplings, schedules.geometric(2, 3.0, 0.3), rule=rule, **numbers, backend="cupy"
                        )
                    found += [annealed.spins, annealed.energies]
    for n in (1, 5, 8, 50):  # glasses of links, with spins in shared memory and in device memory
        upper = torch.randn(n, n, generator=generator).triu(1)
        couplings, fields = upper + upper.t(), torch.randn(n, generator=generator)
        for walkers in (32, 96, 320):
            spins = random_walkers(n, walkers, generator, torch.device("cpu"))
            for room in (cuda_kernels.BLOCK_BYTES, 0):
                with mock.patch.object(cuda_kernels, "BLOCK_BYTES", room):
                    for rule in RULES:
                        annealed = anneal_spins(
                            spins, couplings, schedules.geometric(2, 3.0, 0.3), fields=fields, rule=rule, seed=room,
                            backend="cupy",
                        )  # fmt: skip
                        found += [annealed.spins, annealed.energies]
    return found
