"""The execution unit (pipe) that each instruction uses, and for how long.

Sources of `RATES`, in results per clock and multiprocessor for compute capabilities 8.0, 9.0, 10.0 and 8.9:

- "Throughput of Native Arithmetic Instructions" (CUDA C++ Best Practices Guide 13, section 12.1.1; formerly CUDA C++
  Programming Guide, "Arithmetic Instructions");
- the pipelines in Nsight Compute's Kernel Profiling Guide: integer multiply-adds run in the FMA pipe (from 8.6 on only
  in its "heavy" half), conversions in the pipe of the transcendental functions;
- four schedulers that each issue one warp instruction per clock; shared memory with 32 banks of 4 bytes.

The register file has two banks in each of four partitions, and each reads one register for 32 threads per clock: Huerta
et al. (arXiv 2503.20481, section 5.3) measured 1024 bits per bank on Ampere, and how ``.reuse`` keeps an operand. That
the banks are those of even and odd registers is an assumption. Where the FMA pipe takes a warp instruction per clock
(8.9, 9.0, 10.0), a multiply-add of three registers needs 1.5 clocks or more: the published roofline of an H200 ends at
0.64 of the datasheet, and is slower where the compiler put two operands in one bank.

These tables do not list wide products (IMAD.WIDE, IMAD.HI). Each counts as two narrow ones unless a run has measured
the ceiling "wide multiply".
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from .sass import ATOMICS, GLOBAL_LOADS, GLOBAL_STORES, LOCAL, SHARED, Instruction

CATEGORIES = ("memory", "fma", "mufu", "multiply", "logic", "convert", "fp64", "matrix", "other")
"""The classes of the instruction mix. "logic" contains integer additions, shifts, comparisons and selections; "other"
contains branches, barriers, parameter loads and thread and block indices."""

RATES: Mapping[str, tuple[float, float, float, float]] = {
    "issue": (128, 128, 128, 128),
    "fma": (64, 128, 128, 128),
    "multiply": (64, 64, 64, 64),
    "alu": (64, 64, 64, 64),
    "mufu": (16, 16, 16, 16),
    "fp64": (32, 64, 64, 2),
    "shared": (32, 32, 32, 32),
}
"""By pipe. "fma" includes integer products, "mufu" includes conversions, "shared" counts words of 4 bytes."""

WIDE_PRODUCT = 2.0
"""Cost of a wide product in narrow ones."""

READS = 128.0
"""Registers that each bank of a multiprocessor's register files reads per clock, for one thread each."""

_MEMORY = GLOBAL_LOADS | GLOBAL_STORES | ATOMICS | LOCAL | SHARED | {"SHFL", "UBLKCP"}
_FMA = frozenset({"FADD", "FMUL", "FFMA", "FADD32I", "FMUL32I", "FFMA32I", "HADD2", "HMUL2", "HFMA2", "FSWZADD"})
_PACKED = frozenset({"FADD2", "FMUL2", "FFMA2"})  # two float32 results
_CONVERT = frozenset({"F2F", "F2I", "I2F", "F2FP", "FRND", "I2I", "I2IP", "POPC", "FLO", "BREV"})
_FP64 = frozenset({"DADD", "DMUL", "DFMA", "DSETP"})
_OTHER = frozenset(
    {
        *("BRA", "BRX", "JMP", "EXIT", "RET", "CALL", "BSSY", "BSYNC", "BREAK", "BAR", "NOP", "WARPSYNC", "DEPBAR"),
        *("MEMBAR", "FENCE", "ERRBAR", "CCTL", "YIELD", "NANOSLEEP", "LDGDEPBAR", "ARRIVES", "SYNCS", "WARPGROUP"),
        *("LDC", "ULDC", "LDCU", "S2R", "S2UR", "CS2R", "R2UR", "REDUX"),
        *("UCGABAR_ARV", "UCGABAR_WAIT", "KILL", "BPT", "ACQBULK", "PREEXIT", "ELECT", "ENDCOLLECTIVE"),
    }
)
_OF_FOUR_WARPS = frozenset({"HGMMA", "IGMMA", "QGMMA", "BGMMA"})
_KINDS = {
    "HMMA": "fp16",
    "HGMMA": "fp16",
    "IMMA": "int8",
    "IGMMA": "int8",
    "QMMA": "fp8",
    "QGMMA": "fp8",
    "DMMA": "fp64",
}
_SHAPES = {
    "884": [8, 8, 4],
    "1684": [16, 8, 4],
    "1688": [16, 8, 8],
    "16816": [16, 8, 16],
    "16832": [16, 8, 32],
    "16864": [16, 8, 64],
    "8816": [8, 8, 16],
    "8832": [8, 8, 32],
}
_MOVED_BY_MULTIPLIER = frozenset({"MOV", "SHL", "IADD", "X", "U32"})
"""First modifiers of an IMAD that only moves, shifts or adds, such as ``IMAD.U32``."""


def category(each: Instruction) -> str:
    """The category of an instruction; an unknown opcode is "logic"."""
    opcode = each.opcode
    if each.is_matrix_product:
        return "matrix"
    for name, opcodes in (("memory", _MEMORY), ("fma", _FMA | _PACKED), ("convert", _CONVERT), ("fp64", _FP64)):
        if opcode in opcodes:
            return name
    if opcode == "MUFU":
        return "mufu"
    if _is_product(each):
        return "multiply"
    if opcode in _OTHER or opcode.startswith(("UTMA", "USETMAXREG", "TCGEN", "UTC")):
        return "other"
    return "logic"


def mix(instructions: Iterable[Instruction]) -> dict[str, int]:
    """Number of instructions in each of `CATEGORIES` that occurs."""
    counted = Counter(map(category, instructions))
    return {name: counted[name] for name in CATEGORIES if counted[name]}


def clocks(
    instructions: Iterable[Instruction], rate: Mapping[str, float], wide_products: float | None = None
) -> dict[str, float]:
    """For each pipe, the clocks of a multiprocessor that one thread's instructions occupy.

    ``rate`` is a column of `RATES`, by pipe. ``wide_products`` is the measured rate of IMAD.WIDE. Matrix products and
    instructions of the uniform datapath count only as issued instructions.
    """
    wide = WIDE_PRODUCT if wide_products is None else rate["multiply"] / wide_products
    found = dict.fromkeys(RATES, 0.0)
    for each in instructions:
        found["issue"] += 1 / rate["issue"]
        if each.opcode.startswith("U") or each.opcode == "NOP":
            continue
        what = category(each)
        if each.opcode in ("IMAD", "IMUL", "IDP"):
            share = wide if {"WIDE", "HI"} & set(each.modifiers) else 1.0
            found["multiply"] += share / rate["multiply"]
            found["fma"] += share / rate["fma"]
        elif what == "fma":
            found["fma"] += (2 if each.opcode in _PACKED else 1) / rate["fma"]
        elif what in ("mufu", "convert"):
            found["mufu"] += 1 / rate["mufu"]
        elif what == "fp64":
            found["fp64"] += 1 / rate["fp64"]
        elif each.opcode == "SHFL":
            found["shared"] += 1 / rate["shared"]
        elif each.opcode in SHARED:
            found["shared"] += each.access_bytes / 4 / rate["shared"]
        elif what == "logic":
            found["alu"] += 1 / rate["alu"]
    return found


def operand_clocks(instructions: Iterable[Instruction]) -> float:
    """The clocks of a multiprocessor in which the FMA pipe's operands of one thread are read from the register file.

    Each bank reads for itself, so the fuller one counts. An operand marked ``.reuse`` is kept for the same place of the
    next instruction.
    """
    reads = [0, 0]
    kept: dict[int, str] = {}
    for each in instructions:
        operands = [part.strip(" -|~!") for part in each.operands.split(",")][1:]
        if category(each) == "fma":
            both = 2 if each.opcode in _PACKED else 1
            for place, operand in enumerate(operands):
                found = re.match(r"R(\d+)", operand)
                if found and kept.get(place) != found[0]:
                    for half in range(both):
                        reads[(int(found[1]) + half) % 2] += 1
        kept = {
            place: operand.partition(".")[0] for place, operand in enumerate(operands) if operand.endswith(".reuse")
        }
    return max(reads) / READS


def matrix_products(each: Instruction) -> tuple[str, float] | None:
    """The kind of a matrix product (a key of `Architecture.matrix`) and its multiply-adds per thread.

    None for another instruction, and for one whose shape is not in its name (tcgen05 on Blackwell).
    """
    if not each.is_matrix_product or each.opcode.startswith("U"):
        return None
    shape = next((word for word in each.modifiers if re.fullmatch(r"\d+x\d+x\d+|\d{3,5}", word)), "")
    sizes = [int(size) for size in shape.split("x")] if "x" in shape else _SHAPES.get(shape, [])
    if not sizes:
        return None
    warps = 4 if each.opcode in _OF_FOUR_WARPS else 1
    sparse = 2 if "SP" in each.modifiers else 1
    kind = _KINDS.get(each.opcode, "")
    if kind == "fp16" and "TF32" in each.modifiers:
        kind = "tf32"
    wide = "wgmma " if each.opcode in _OF_FOUR_WARPS else ""
    return (wide + kind, sizes[0] * sizes[1] * sizes[2] * sparse / (32 * warps)) if kind else None


def _is_product(each: Instruction) -> bool:
    if each.opcode in ("IMUL", "IDP", "UIMUL"):
        return True
    if each.opcode not in ("IMAD", "UIMAD") or not each.modifiers:
        return each.opcode in ("IMAD", "UIMAD")
    return each.modifiers[0] not in _MOVED_BY_MULTIPLIER
