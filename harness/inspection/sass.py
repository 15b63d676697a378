"""Parse machine code as printed by `nvdisasm -c`: functions, basic blocks, loops, and the hot path through a loop.

    code = parse(listing)["kernel_symbol"]
    hot = code.hot_path()

A function is a section ``.text.SYMBOL`` of the listing: a kernel with its subroutines. Branches are resolved by their
labels, so encodings and addresses do not matter.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

_SECTION = re.compile(r"\s*\.section\s+([^,\s]+)")
_LABEL = re.compile(r"([.$\w]+):\s*$")
_INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*)")
_TARGET = re.compile(r"`\(([^)]+)\)")

GLOBAL_LOADS = frozenset({"LDG", "LD", "LDGSTS"})
GLOBAL_STORES = frozenset({"STG", "ST"})
ATOMICS = frozenset({"ATOM", "ATOMG", "RED", "REDG"})
LOCAL = frozenset({"LDL", "STL"})
SHARED = frozenset({"LDS", "STS", "LDSM", "STSM", "ATOMS", "MOVM"})

VECTOR_BYTES = 8
"""Smallest width of an access that counts as a vector."""
SHORT = 16
"""A loop is short if its path has less than 1/16 of the instructions of the path through the kernel."""

_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
_FINAL = frozenset({"EXIT", "RET", "BRX", "JMX", "BRXU", "KILL"})


@dataclass(frozen=True)
class Instruction:
    """``@!P0 LDG.E.128 R4, desc[UR14][R20.64] ;``: predicate ``!P0``, opcode ``LDG``, modifiers ``E`` and ``128``."""

    opcode: str
    modifiers: tuple[str, ...] = ()
    predicate: str = ""
    operands: str = ""

    @property
    def target(self) -> str | None:
        """The label in the operands, if any."""
        match = _TARGET.search(self.operands)
        return match[1] if match else None

    @property
    def access_bytes(self) -> int:
        """Bytes that a load, store or atomic moves for one thread: 4 unless a modifier gives another width."""
        return next((_WIDTHS[word] for word in reversed(self.modifiers) if word in _WIDTHS), 4)

    @property
    def moves_global(self) -> bool:
        return self.opcode in GLOBAL_LOADS or self.opcode in GLOBAL_STORES

    @property
    def moves_data(self) -> bool:
        """Whether it reads or writes global or shared memory."""
        return self.moves_global or self.opcode in ATOMICS or self.opcode in SHARED

    @property
    def is_matrix_product(self) -> bool:
        """HMMA, IMMA, ... of one warp; HGMMA, IGMMA of four warps (Hopper); UTCHMMA, ... (Blackwell)."""
        return self.opcode.endswith("MMA")

    @property
    def name(self) -> str:
        """``LDG.E.128``"""
        return ".".join((self.opcode, *self.modifiers))


@dataclass(frozen=True)
class Block:
    """A basic block: its instructions, and the indices of the blocks that may follow."""

    instructions: tuple[Instruction, ...]
    successors: tuple[int, ...]


@dataclass(frozen=True)
class Path:
    """A path through the code without repetition. ``in_loop``: it is one pass of a loop. ``nested``: it passes through
    other loops, once each; ``inner`` are its instructions in these."""

    instructions: tuple[Instruction, ...]
    in_loop: bool
    nested: bool
    inner: tuple[Instruction, ...] = ()

    @property
    def accesses(self) -> list[Instruction]:
        """Loads from and stores to global memory."""
        return [each for each in self.instructions if each.moves_global]


@dataclass(frozen=True)
class Function:
    """The code of one kernel. Block 0 is the entry."""

    symbol: str
    blocks: tuple[Block, ...]

    @property
    def instructions(self) -> list[Instruction]:
        return [each for block in self.blocks for each in block.instructions]

    @property
    def local_accesses(self) -> int:
        """Loads from and stores to a thread's local memory: spilled registers and arrays indexed at run time."""
        return sum(each.opcode in LOCAL for each in self.instructions)

    @cached_property
    def _dominators(self) -> dict[int, set[int]]:
        """For each reachable block, the blocks on every path to it."""
        order = self._order
        before: dict[int, list[int]] = {number: [] for number in order}
        for number in order:
            for successor in self.blocks[number].successors:
                before[successor].append(number)
        found = {number: set(order) for number in order}
        found[0] = {0}
        changed = True
        while changed:
            changed = False
            for number in order[1:]:
                new = set.intersection(*(found[other] for other in before[number])) | {number}
                changed |= new != found[number]
                found[number] = new
        return found

    @cached_property
    def _order(self) -> list[int]:
        """The reachable blocks in reverse postorder: each before its successors, except along back edges."""
        seen, order = {0}, []
        pending = [(0, iter(self.blocks[0].successors))]
        while pending:
            number, left = pending[-1]
            for successor in left:
                if successor not in seen:
                    seen.add(successor)
                    pending.append((successor, iter(self.blocks[successor].successors)))
                    break
            else:
                order.append(number)
                pending.pop()
        return order[::-1]

    @cached_property
    def loops(self) -> dict[int, frozenset[int]]:
        """The natural loops: the body of each header, a block with a back edge from a block that it dominates."""
        found: dict[int, set[int]] = {}
        before: dict[int, list[int]] = {}
        for number in self._dominators:
            for successor in self.blocks[number].successors:
                before.setdefault(successor, []).append(number)
        for number, dominators in self._dominators.items():
            for header in set(self.blocks[number].successors) & dominators:
                body = found.setdefault(header, {header})
                pending = [number]
                while pending:
                    each = pending.pop()
                    if each not in body:
                        body.add(each)
                        pending += before.get(each, ())
        return {header: frozenset(body) for header, body in found.items()}

    def hot_path(self) -> Path:
        """One pass of the inner loop. If no loop moves global or shared data or multiplies matrices, the whole kernel.

        Choice of the inner loop. Loops that multiply matrices come first. Among equals the loop with the widest vectors
        (8 bytes or more) from or to global memory wins, then the one that moves the most bytes in them, then the one
        with the most instructions. Accesses in nested loops do not count. So a loop over vectors precedes the loop
        over the tail and the loop over rows around both. The loop of a matrix product precedes a nested loop that
        copies a tile by single elements. A loop is ignored if its path is shorter than 1/16 of the path through the
        kernel and it moves fewer bytes than the code outside loops: an example is the argument reduction of a sine.
        Loops that multiply matrices are never ignored.

        The path through the loop moves the most bytes in the widest accesses, and is the longest of such paths. So it
        excludes a branch for unaligned data and includes rare corrections. Nested loops count with one pass.
        """
        whole = self._longest(0, frozenset(self._order), _widest(self.instructions))
        outside = self._of(set(whole).difference(*self.loops.values()))
        best: tuple[tuple[int, int, int, int], tuple[int, ...]] | None = None
        for header, body in self.loops.items():
            within = [other for start, other in self.loops.items() if start != header and other < body]
            own = body.difference(*within)
            if not any(each.moves_data or each.is_matrix_product for each in self._of(own)):
                continue
            width = _widest(self._of(own))
            way = self._longest(header, body, width)
            is_short = len(self._of(way)) * SHORT < len(self._of(whole))
            multiplies = any(each.is_matrix_product for each in self._of(own))
            if is_short and not multiplies and _bytes(self._of(way)) < _bytes(outside):
                continue
            here = self._of(number for number in way if number in own)
            vectors = (width, _moved(here, width)) if width >= VECTOR_BYTES else (0, 0)
            rank = (int(multiplies), *vectors, len(here))
            best = max(best or (rank, way), (rank, way))
        return self._path(best[1], in_loop=True) if best else self._path(whole, in_loop=False)

    def whole_path(self) -> Path:
        """The path through the kernel that moves the most bytes in the widest accesses, with each loop once."""
        return self._path(self._longest(0, frozenset(self._order), _widest(self.instructions)), in_loop=False)

    def _path(self, way: Sequence[int], in_loop: bool) -> Path:
        started = self.loops.keys() & set(way[in_loop:])
        inner = set[int]().union(*(self.loops[header] for header in started))
        within = tuple(self._of(number for number in way if number in inner))
        return Path(tuple(self._of(way)), in_loop, nested=bool(started), inner=within)

    def _of(self, blocks: Iterable[int]) -> list[Instruction]:
        return [each for number in blocks for each in self.blocks[number].instructions]

    def _longest(self, start: int, body: frozenset[int], width: int) -> tuple[int, ...]:
        """The path from ``start`` within ``body``, without back edges, that moves the most bytes in accesses of
        ``width``; of several the one with the most instructions."""
        best: dict[int, tuple[tuple[int, int], tuple[int, ...]]] = {}
        for number in reversed([each for each in self._order if each in body]):
            own = self.blocks[number].instructions
            # In this order the target of a back edge has no entry in `best` yet.
            after = [best[each] for each in self.blocks[number].successors if each in best]
            (bytes_after, length_after), way = max(after, default=((0, 0), ()))
            best[number] = (bytes_after + _moved(own, width), length_after + len(own)), (number, *way)
        return best[start][1]


def parse(listing: str) -> dict[str, Function]:
    """The functions of a listing, by symbol."""
    lines: dict[str, list[str]] = {}
    symbol = None
    for line in listing.splitlines():
        if match := _SECTION.match(line):
            symbol = match[1].removeprefix(".text.") if match[1].startswith(".text.") else None
        elif symbol is not None:
            lines.setdefault(symbol, []).append(line)
    return {symbol: _function(symbol, text) for symbol, text in lines.items()}


def _function(symbol: str, text: Sequence[str]) -> Function:
    pieces: list[list[Instruction]] = [[]]
    starts: dict[str, int] = {}  # the piece at each label
    for line in text:
        if label := _LABEL.match(line):
            if pieces[-1]:
                pieces.append([])
            starts[label[1]] = len(pieces) - 1
        elif found := _INSTRUCTION.match(line):
            opcode, *modifiers = found[3].split(".")
            pieces[-1].append(Instruction(opcode, tuple(modifiers), found[2] or "", found[4].strip()))
            if opcode in _FINAL or opcode in ("BRA", "JMP", "CALL", "BSYNC", "BREAK", "SYNC"):
                pieces.append([])
    if len(pieces) > 1 and not pieces[-1]:
        pieces.pop()
    joins = _reconvergence(pieces)
    blocks = tuple(
        Block(tuple(piece), _successors(number, piece, starts, joins, len(pieces)))
        for number, piece in enumerate(pieces)
    )
    return Function(symbol, blocks)


def _reconvergence(pieces: Sequence[Sequence[Instruction]]) -> dict[int, str]:
    """For each piece that ends with ``BSYNC B0``, the label of the nearest ``BSSY B0, label`` before it."""
    waiting: dict[str, str] = {}
    found: dict[int, str] = {}
    for number, piece in enumerate(pieces):
        for each in piece:
            register = each.operands.split(",")[0].strip()
            if each.opcode == "BSSY" and each.target:
                waiting[register] = each.target
            elif each.opcode == "BSYNC" and register in waiting:
                found[number] = waiting[register]
    return found


def _successors(
    number: int, piece: Sequence[Instruction], starts: Mapping[str, int], joins: Mapping[int, str], count: int
) -> tuple[int, ...]:
    next_ = (number + 1,) if number + 1 < count else ()
    if not piece:
        return next_
    last = piece[-1]
    conditional = bool(last.predicate) or bool(re.match(r"!?U?P\d", last.operands))  # BRA P0, `(label)
    target = joins.get(number) if last.opcode == "BSYNC" else last.target
    jump = (starts[target],) if target is not None and target in starts else ()
    if last.opcode in ("BRA", "JMP"):
        both = (*jump, *next_) if conditional else jump
    elif last.opcode in _FINAL:
        both = next_ if conditional else ()
    elif last.opcode == "CALL":
        both = (*next_, *jump)
    elif last.opcode == "BSYNC":
        both = (*jump, *next_) if conditional or not jump else jump
    else:
        both = next_
    return tuple(dict.fromkeys(both))


def _widest(instructions: Iterable[Instruction]) -> int:
    return max((each.access_bytes for each in instructions if each.moves_global), default=0)


def _bytes(instructions: Iterable[Instruction]) -> int:
    return sum(each.access_bytes for each in instructions if each.moves_global)


def _moved(instructions: Iterable[Instruction], width: int) -> int:
    """Bytes moved from and to global memory in accesses of this width."""
    return sum(width for each in instructions if each.moves_global and each.access_bytes == width)
