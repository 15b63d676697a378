"""Wrong kernels of `sghmc`: see `support/wrong_kernels.py`."""

from boltzbench.harness import Status
from support.wrong_kernels import mutants, spoiled

OPERATION = "sghmc"

WELL = "quadratic well"
SGHMC = "tensors=1 elements=2051 float32"


WRONG_KERNELS = (
    *spoiled(
        OPERATION,
        ("has_no_friction", WELL, Status.WRONG_LAW, lambda inputs: {"friction": 0.0}),
        ("has_noise_of_variance_two", WELL, Status.WRONG_LAW,
         lambda inputs: {"temperature": 2 * inputs["temperature"]}),
        ("reuses_its_noise", WELL, Status.WRONG_LAW, lambda inputs: {"step": 0}),
    ),
    *mutants(
        OPERATION,
        ("sgld.cu", "n.keep * state - n.drift * g, 1", "state - n.drift * g, 1", SGHMC),
        ("sgld.cu", "element.x + element.state", "element.x", SGHMC),
        ("triton_kernels.py", "x += state", "x += keep * state", SGHMC),
        ("sgld.cpp", "keep * load<Vector>(state + at) - drift", "load<Vector>(state + at) - drift", SGHMC),
        ("sgld.cpp", "if (KIND != LANGEVIN) std::memcpy(state + i, last_state, left * sizeof(Real));", "", SGHMC),
    ),
)  # fmt: skip
