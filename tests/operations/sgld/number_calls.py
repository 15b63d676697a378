"""Example calls of the Langevin updates and of the optimizer."""

import torch
from boltzbench.kernels.sgld import SGLD, psgld_update, sghmc_update, sgld_update
from support.number_calls import NumberCall, weights

TENSORS = {"parameters": [weights(5), weights(3)], "gradients": [weights(5), weights(3)]}
NUMBERS = {"step_size": 0.5, "temperature": 0.25, "seed": 7, "step": 3, "tensor_numbers": [4, 2]}


def stepped(optimizer):
    (x,) = optimizer.param_groups[0]["params"]
    x.grad = torch.ones_like(x)
    optimizer.step()
    return x.detach()


CALLS = (
    NumberCall(sgld_update, {**TENSORS, **NUMBERS}),
    NumberCall(
        psgld_update,
        {**TENSORS, **NUMBERS, "squares": [weights(5).abs(), weights(3).abs()], "decay": 0.5, "damping": 0.25},
    ),
    NumberCall(sghmc_update, {**TENSORS, **NUMBERS, "momenta": [weights(5), weights(3)], "friction": 0.5}),
    NumberCall(
        SGLD,
        {
            "params": [torch.nn.Parameter(weights(5))], "lr": 0.5, "temperature": 0.25, "seed": 7, "method": "psgld",
            "decay": 0.5, "damping": 0.25, "friction": 0.5,
        },
        stepped,
    ),
)  # fmt: skip
