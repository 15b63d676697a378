"""Wrong kernels of `fermi_dirac`: see `support/wrong_kernels.py`."""

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from support.wrong_kernels import WrongKernel, mutants, spoiled

OPERATION = "fermi_dirac"

LEVELS = "levels=5003 float32"
COLD = "cold levels=4099 float32"


def overflows(inputs: Inputs, outputs: Tensors) -> Launch:
    """``exp(x) / (1 + exp(x))`` is NaN where ``exp(x)`` overflows."""

    def launch() -> Tensors:
        weight = torch.exp(inputs["x"])
        outputs["y"].copy_(weight / (1 + weight))
        return outputs

    return launch


WRONG_KERNELS = (
    WrongKernel("overflows", OPERATION, COLD, Status.WRONG_VALUES, overflows),
    *spoiled(OPERATION, ("counts_holes", LEVELS, Status.WRONG_VALUES, lambda inputs: {"x": -inputs["x"]})),
    *mutants(
        OPERATION,
        ("triton_kernels.py", "1.0 + tl.exp", "tl.exp", LEVELS),
        ("triton_kernels.py", "level < n", "level < n - 1", LEVELS),
        ("fermi_dirac.cu", "expf(-x[level])", "expf(x[level])", LEVELS),
        ("fermi_dirac.cu", "level < n", "level + 1 < n", LEVELS),
    ),
)
