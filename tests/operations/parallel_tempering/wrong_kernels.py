"""Wrong kernels of `parallel_tempering`: see `support/wrong_kernels.py`."""

from boltzbench.harness import Status
from support.wrong_kernels import mutants, spoiled

OPERATION = "parallel_tempering"

LADDERS = "ladders=300 rungs=12 float64"
ODD_ROUND = "odd round ladders=301 rungs=7 float64"


WRONG_KERNELS = (
    *spoiled(
        OPERATION,
        ("takes_the_energies_of_rungs", LADDERS, Status.WRONG_VALUES,
         lambda inputs: {"energies": inputs["energies"].gather(1, inputs["replica_at"].long())}),
        ("has_the_sign_of_energy_wrong", "product law", Status.WRONG_LAW,
         lambda inputs: {"energies": -inputs["energies"]}),
        ("exchanges_too_often", "product law", Status.WRONG_LAW, lambda inputs: {"betas": 0.8 * inputs["betas"]}),
        ("asks_the_same_pairs_always", ODD_ROUND, Status.WRONG_VALUES, lambda inputs: {"round_number": 0}),
        ("asks_even_pairs_only", "ergodicity", Status.WRONG_LAW,
         lambda inputs: {"round_number": 2 * inputs["round_number"]}),
        ("shares_numbers_between_ladders", "composition", Status.WRONG_LAW, lambda inputs: {"first_ladder": 0}),
    ),
    *mutants(
        OPERATION,
        ("parallel_tempering.cu", "(rung ^ step) & 1", "rung & 1", ODD_ROUND),
        ("parallel_tempering.cu", "log_ratio > 0.0 ? 0.0 : log_ratio", "-fabs(log_ratio)", LADDERS),
        ("triton_kernels.py", "number >> 2, seed", "number, seed", LADDERS),
        ("triton_kernels.py", "is_lower, second, first", "is_lower, first, second", LADDERS),
        ("parallel_tempering.cpp", "store(u + i * LANES<u32>", "store(u", ODD_ROUND),
        ("parallel_tempering.cpp", "(rung ^ step) % 2", "rung % 2", ODD_ROUND),
        ("parallel_tempering.cpp", "energies + (place - rung)", "energies", LADDERS),
        ("parallel_tempering.cpp", "|| !is_lower(rung - 1)", "", "odd round ladders=5 rungs=2 float64"),
    ),
)  # fmt: skip
