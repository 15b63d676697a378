"""The CUDA C kernels of `rbm_gibbs` on odd shapes, for `test_sanitized.py`."""

import torch
from boltzbench.kernels.rbm_gibbs import gaussian_gibbs, gibbs, pack_states, prepare_weights
from support.sanitized import random
from torch import Tensor


def results() -> list[Tensor]:
    found: list[Tensor] = []
    for dtype in (torch.float32, torch.bfloat16):
        for chains, visible_units, hidden_units in ((1, 1, 1), (17, 100, 17), (65, 17, 66), (3, 0, 5), (3, 5, 0)):
            visible = (random(chains, visible_units) > 0).to(torch.uint8)
            weights = random(visible_units, hidden_units, dtype=dtype)
            for given in (weights, weights.t().contiguous().t()):
                clamped = random(chains, visible_units, seed=2) > 0.5
                for held in (None, clamped, clamped[0], clamped.t().contiguous().t()):
                    swept = gibbs(
                        visible, given, random(visible_units, dtype=dtype), random(hidden_units, dtype=dtype), 2,
                        seed=2**64 - 1, clamped=held, return_hidden_probability=True, backend="cupy",
                    )  # fmt: skip
                    found += [each for each in swept if each is not None]
    for precision, pack, plan in (
        ("int8x3", torch.clone, "half_sweeps"),
        ("bf16", pack_states, "half_sweeps"),
        ("bf16", torch.clone, "cluster"),
        ("bf16x3", torch.clone, "resident"),
        ("int8x3", pack_states, "resident"),
    ):
        for chains, visible_units, hidden_units in ((1, 1, 1), (65, 17, 70), (3, 0, 5), (3, 5, 0)):
            visible = (random(chains, visible_units) > 0).to(torch.uint8)
            for held in (None, random(chains, visible_units, seed=2) > 0.5):
                found += [
                    each
                    for each in gibbs(
                        pack(visible), prepare_weights(random(visible_units, hidden_units), precision),
                        random(visible_units), random(hidden_units), 2, random(chains).abs(), seed=2**64 - 1,
                        clamped=held, return_hidden_probability=plan == "half_sweeps", plan=plan, backend="cupy",
                    )
                    if each is not None
                ]  # fmt: skip
    for chains, visible_units, hidden_units in ((1, 1, 1), (65, 17, 70), (3, 0, 5), (3, 5, 0)):
        sampled = gaussian_gibbs(
            random(chains, visible_units), random(visible_units, hidden_units), random(visible_units),
            random(hidden_units), random(visible_units).abs() + 0.1, 2, seed=2**64 - 1,
            clamped=random(chains, visible_units, seed=2) > 0.5, return_hidden_probability=True, backend="cupy",
        )  # fmt: skip
        found += [each for each in sampled if each is not None]
    return found
