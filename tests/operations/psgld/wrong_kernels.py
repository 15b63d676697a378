"""Wrong kernels of `psgld`: see `support/wrong_kernels.py`."""

from boltzbench.harness import Status
from support.wrong_kernels import mutants, spoiled

OPERATION = "psgld"

PSGLD = "tensors=1 elements=2051 float32"
CONSTANT = "constant preconditioner"


WRONG_KERNELS = (
    *spoiled(
        OPERATION,
        ("forgets_old_gradients", CONSTANT, Status.WRONG_LAW, lambda inputs: {"decay": 0.5}),
        ("is_hardly_damped", CONSTANT, Status.WRONG_LAW, lambda inputs: {"damping": 0.1}),
        ("reuses_its_noise", CONSTANT, Status.WRONG_LAW, lambda inputs: {"step": 0}),
    ),
    *mutants(
        OPERATION,
        ("sgld.cu", "element.scale * z", "z", PSGLD),
        ("sgld.cu", "n.take * g * g", "n.take * g", PSGLD),
        ("triton_kernels.py", "tl.sqrt(preconditioner) * z", "preconditioner * z", PSGLD),
        ("sgld.cpp", "square_root(preconditioner) * z", "preconditioner * z", PSGLD),
        ("sgld.cpp", "take * gradient * gradient", "take * gradient", PSGLD),
    ),
)  # fmt: skip
