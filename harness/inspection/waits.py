"""How often a warp waits for memory: the dependent rounds of loads in one pass of the hot path.

A warp issues its instructions in order. It waits at the first instruction that reads the result of a load, and by then
all loads issued before have been on their way together: they are one round. The next load begins another.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from .sass import ATOMICS, GLOBAL_LOADS, Instruction

_REGISTER = re.compile(r"\bR(\d+)(\.64|\.reuse|\b)")
_COPIES = frozenset({"LDGSTS", "UBLKCP", "UTMALDG"})
"""Loads to shared memory, whose arrival a later instruction awaits."""
_AWAITS = frozenset({"DEPBAR", "SYNCS"})
_STEPS = {"64": 2, "128": 4, "256": 8}
_NO_DESTINATION = frozenset({"ST", "STG", "STS", "STL", "RED", "REDG", "BRA", "EXIT", "BAR", "SYNCS", "DEPBAR"})


@lru_cache(maxsize=1 << 14)
def registers_of(operand: str) -> tuple[int, ...]:
    """The registers that an operand names: two for an address such as ``desc[UR4][R2.64]``."""
    found: list[int] = []
    for number, width in _REGISTER.findall(operand):
        found += [int(number), int(number) + 1] if width == ".64" else [int(number)]
    return tuple(found)


def split_operands(each: Instruction) -> tuple[list[str], list[str]]:
    """The destination (none or one) and the sources of an instruction."""
    operands = [part.strip() for part in each.operands.split(",")]
    if each.opcode in _NO_DESTINATION or not operands[0].startswith(("R", "P")):
        return [], operands
    first = 2 if len(operands) > 1 and re.match(r"!?U?P\d|PT$", operands[0]) else 1  # LOP3.LUT P0, R4, ...
    return operands[:first], operands[first:]


def rounds(instructions: Sequence[Instruction], in_loop: bool) -> float:
    """Waits for global memory in one pass of ``instructions``.

    In a loop a load may serve the next pass, so two passes are followed and the waits of the second count. A wait that
    leaves N younger groups of copies on their way (``DEPBAR.LE SB0, N``) is 1/(N + 1) of a round.
    """
    pending: set[int] = set()
    copying = False
    waits = 0.0
    for number in range(2 if in_loop else 1):
        waits = 0.0
        for each in instructions:
            targets, sources = split_operands(each)
            read = {register for operand in sources for register in registers_of(operand)}
            if read & pending:
                waits += 1
                pending.clear()
            if copying and each.opcode in _AWAITS and _awaits_copies(each):
                left = re.search(r"SB\d+, 0x([0-9a-f]+)", each.operands)
                waits += 1 / (1 + (int(left[1], 16) if left else 0))
                copying = number == 0 and in_loop and bool(left and int(left[1], 16))
            if each.opcode in _COPIES:
                copying = True
            elif each.opcode in GLOBAL_LOADS or (each.opcode in ATOMICS and each.opcode.startswith("ATOM")):
                pending |= _written(each, targets)
            elif targets:
                pending -= _written(each, targets)
    return waits


def _awaits_copies(each: Instruction) -> bool:
    return each.opcode == "DEPBAR" or "TRYWAIT" in each.modifiers or "TRYWAIT" in each.operands


def _written(each: Instruction, targets: Iterable[str]) -> set[int]:
    step = next((_STEPS[word] for word in reversed(each.modifiers) if word in _STEPS), 1)
    return {first + k for operand in targets for first in registers_of(operand)[:1] for k in range(step)}
