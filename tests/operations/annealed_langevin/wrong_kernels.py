"""Wrong kernels of `annealed_langevin`: see `support/wrong_kernels.py`."""

from boltzbench.harness import Status
from support.wrong_kernels import mutants, spoiled

OPERATION = "annealed_langevin"

WALK = "walkers=2003 steps=8 float32"
WALKED = "passages walkers=1027 steps=12 float32"


WRONG_KERNELS = (
    *spoiled(
        OPERATION,
        ("stays_at_the_first_temperature", WALK, Status.WRONG_VALUES,
         lambda inputs: {"temperatures": inputs["temperatures"][:1].expand(inputs["temperatures"].shape)}),
        ("takes_the_schedule_backwards", "schedule", Status.WRONG_LAW,
         lambda inputs: {"temperatures": inputs["temperatures"].flip(0)}),
        ("takes_half_a_step", "stationary", Status.WRONG_LAW,
         lambda inputs: {"step_size": 0.5 * inputs["step_size"]}),
        ("is_too_hot", "first passage", Status.WRONG_LAW,
         lambda inputs: {"temperatures": 1.2 * inputs["temperatures"]}),
        ("forgets_earlier_passages", "continued walkers=1027 steps=12 float32", Status.WRONG_VALUES,
         lambda inputs: {"passages": None}),
        ("reuses_its_noise", "composition", Status.WRONG_LAW, lambda inputs: {"first_step": 0}),
    ),
    *mutants(
        OPERATION,
        ("annealed_langevin.cu", "at[i], at[i], -1.0f", "at[i], at[i], 1.0f", WALK),
        ("annealed_langevin.cu", "scales[step]", "scales[0]", WALK),
        ("annealed_langevin.cu", "group * GROUP - settings.offset", "group * GROUP", WALK),
        ("annealed_langevin.cu", "(i32)number + 1", "(i32)number", WALKED),
        ("annealed_langevin.cu", "passed[i] < 0 && ", "", WALKED),
        ("triton_kernels.py", "_moved(x3, z3, factor)", "_moved(x3, z0, factor)", WALK),
        ("triton_kernels.py", "first_step + step, _WALKERS", "first_step, _WALKERS", WALK),
        ("triton_kernels.py", "(passed < 0) & ", "", WALKED),
        ("annealed_langevin.cpp", "scales[step]", "scales[0]", WALK),
        ("annealed_langevin.cpp", "group * GROUP - settings.offset", "group * GROUP", WALK),
        ("annealed_langevin.cpp", "(passed[i] < 0) & ", "", WALKED),
        ("native/random.hpp", "1.0, -4.93480215625", "1.0, -4.9", WALK),
    ),
)  # fmt: skip
