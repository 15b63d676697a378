"""Wrong kernels of `enumeration`: see `support/wrong_kernels.py`."""

import torch
from boltzbench.harness import Status
from support.wrong_kernels import mutants, spoiled

OPERATION = "enumeration"

RESTRICTED = "visible=13 hidden=30 float64"
FRUSTRATED = "frustrated visible=12 hidden=33 float32"
MACHINE = "machine units=18 float32"
TWO_BATCHES = "blocks machine units=21 bfloat16"


WRONG_KERNELS = (
    *spoiled(
        OPERATION,
        ("ignores_beta", "cold visible=12 hidden=33 float32", Status.WRONG_VALUES, lambda inputs: {"beta": 1.0}),
        ("forgets_the_biases_it_enumerates", RESTRICTED, Status.WRONG_VALUES,
         lambda inputs: {"visible_bias": torch.zeros_like(inputs["visible_bias"])}),
        ("drops_the_last_unit", "fixture", Status.WRONG_LAW,
         lambda inputs: {"weights": inputs["weights"][:, :-1], "hidden_bias": inputs["hidden_bias"][:-1]}),
        ("counts_bonds_twice", MACHINE, Status.WRONG_VALUES, lambda inputs: {"weights": 2 * inputs["weights"]}),
        ("counts_bonds_twice", "Kaufman", Status.WRONG_LAW, lambda inputs: {"weights": 2 * inputs["weights"]}),
        ("rounds_to_float16", RESTRICTED, Status.WRONG_VALUES,
         lambda inputs: {"weights": inputs["weights"].half().double()}),
    ),
    *mutants(
        OPERATION,
        ("enumeration.cu", "multiply<1>(p", "multiply<GROUP>(p", FRUSTRATED),
        ("enumeration.cu", "exponents += (more & 0x7f800000u) >> 7;", "", RESTRICTED),
        ("enumeration.cu", "total *= exp(peak - larger);", "", TWO_BATCHES),
        ("enumeration.cu", "k <= i; ++k)", "k < i; ++k)", MACHINE),
        ("triton_kernels.py", "p *= row_bias[:, None] * ", "p *= ", RESTRICTED),
        ("triton_kernels.py", "total *= tl.exp(peak - larger)", "", MACHINE),
        ("triton_kernels.py", "if each == 0:", "if each <= 1:", FRUSTRATED),
        ("enumeration.cpp", "total * power_of_two(peak - most)", "total", FRUSTRATED),
        ("enumeration.cpp", "bias_high[h * ROWS + i]", "bias_high[h * ROWS]", RESTRICTED),
        ("enumeration.cpp", "total *= std::exp(peak - level);", "", TWO_BATCHES),
        ("enumeration.cpp", "k <= i; ++k)", "k < i; ++k)", MACHINE),
        ("enumeration.cpp", "table[3][(middle + m) / 16]", "table[3][(middle + m) % 16]", MACHINE),
    ),
)  # fmt: skip
