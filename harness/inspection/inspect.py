"""Analyse the machine code of a kernel: predict its speed, and check the memory accesses that its variant promises.

Nothing is run. The counts are exact. The share of the memory bandwidth is a prediction of the best case: all pipes
overlap perfectly and never wait. `prediction` says what to expect.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from ..api.messages import describe_error
from ..api.operations import Compiled, Variant
from .architectures import RESERVED_SHARED_BYTES, WARP, Architecture, warps_resident
from .pipes import clocks, matrix_products, mix, operand_clocks
from .prediction import Demand, Prediction, advise, predict
from .sass import GLOBAL_LOADS, GLOBAL_STORES, Function, Instruction, Path
from .tools import ToolMissing, Usage, disassemble
from .waits import rounds

COMPLETE = 0.99
"""Share of the promised bytes that must move in wide accesses: below 1, because bytes per item are rounded."""


@dataclass(frozen=True)
class KernelReport:
    """The machine code of one variant for one architecture.

    - ``status``: ``passed``, ``spills`` (uses local memory), ``narrow`` (accesses narrower than promised) or ``error``
      (does not compile); ``message`` gives details. ``symbol``: the kernel's name in the machine code.
    - ``stack_bytes``: local memory of a thread; ``local_accesses``: instructions that use it.
    - ``static_shared_bytes``, ``dynamic_shared_bytes``: shared memory of a block; ``warps``: resident on a
      multiprocessor; ``occupancy``: their share of the maximum.
    - ``loads``, ``stores``: number of accesses of each width in bytes on the inner loop's path (see
      `Function.hot_path`); ``mix``: number of instructions of each kind on it; ``in_loop``: false if the path is the
      whole kernel.
    - ``passes``: passes of the source's loop in one pass of the path, which is more than 1 if the compiler unrolled the
      loop. The path moves the bytes of this many passes. ``items``: items of a thread on the path, the variant's items
      times ``passes``.
    - ``bytes_in_flight``: loads of all resident threads from global memory in one pass.
    - ``clocks_per_item``: clocks of a multiprocessor by pipe; ``memory`` is the time of the memory traffic.
    - ``limit``: the pipe that takes longest; ``memory_share``: the predicted share of the memory bandwidth at best, or
      None with matrix products whose rate is not known.
    - ``rounds``: waits for loads from global memory in one pass, one after the other; ``inner_instructions``: those of
      the path that stand in loops inside it, which count once unless the variant gives its ``inner_passes``.
    - ``prediction``: rates in items per second of the device; None where ``memory_share`` is, or if no block fits.
    """

    variant: str
    arch: str
    status: str
    message: str = ""
    unit: str = "items"
    registers: int = 0
    stack_bytes: int = 0
    local_accesses: int = 0
    static_shared_bytes: int = 0
    dynamic_shared_bytes: int = 0
    warps: int = 0
    occupancy: float = 0.0
    in_loop: bool = False
    passes: int = 1
    items: int = 0
    loads: Mapping[int, int] = field(default_factory=dict)
    stores: Mapping[int, int] = field(default_factory=dict)
    bytes_in_flight: int = 0
    mix: Mapping[str, int] = field(default_factory=dict)
    clocks_per_item: Mapping[str, float] = field(default_factory=dict)
    limit: str = ""
    memory_share: float | None = None
    symbol: str = ""
    rounds: float = 0.0
    inner_instructions: int = 0
    prediction: Prediction | None = None


def inspect_variants(
    variants: Sequence[Variant], arch: Architecture, announce: Callable[[Variant], None] = lambda variant: None
) -> list[KernelReport]:
    """Compile the variants one by one and disassemble them in parallel; ``announce`` is called before each.

    Variants for other architectures are skipped. A compiler's error becomes a report with the status ``error``.
    Raises ToolMissing.
    """
    variants = [each for each in variants if not each.archs or arch.name in each.archs]
    with ThreadPoolExecutor() as pool:
        codes: dict[bytes, Future[tuple[Mapping[str, Function], Mapping[str, Usage]]]] = {}
        compiled: list[Compiled | Exception | SystemExit] = []
        for variant in variants:
            announce(variant)
            try:
                one = variant.compile(arch.name)
                if one.elf not in codes:  # the kernels of one file share a cubin
                    codes[one.elf] = pool.submit(disassemble, one.elf)
                compiled.append(one)
            except (Exception, SystemExit) as error:
                compiled.append(error)
        found = []
        for variant, result in zip(variants, compiled, strict=True):
            try:
                if isinstance(result, BaseException):
                    raise result
                functions, usages = codes[result.elf].result()
                found.append(_report_of(variant, arch, result, functions[result.symbol], usages[result.symbol]))
            except ToolMissing:
                raise
            except (Exception, SystemExit) as error:
                found.append(KernelReport(variant.name, arch.name, "error", describe_error(error), variant.unit))
        return found


def _report_of(
    variant: Variant, arch: Architecture, compiled: Compiled, function: Function, usage: Usage
) -> KernelReport:
    path = function.hot_path()
    passes = _passes(variant, path)
    items = variant.items * passes or 1  # where the caller gives no number, one item is a pass of the path
    moved = sum(each.access_bytes for each in path.accesses)
    bytes_per_item = variant.bytes_per_item if variant.items else moved
    shared = usage.shared
    if shared >= RESERVED_SHARED_BYTES and arch.reports_reserved_bytes:
        shared -= RESERVED_SHARED_BYTES
    block = (variant.threads, usage.registers, shared + compiled.dynamic_shared_bytes)
    warps = warps_resident(arch, *block) if variant.threads else 0
    inner_passes = _inner_passes(variant)
    rated, rated_items = path, items
    if inner_passes != 1 and not path.nested:  # the hot path is the loop that these passes belong to
        rated, rated_items = function.whole_path(), variant.items
    per_item, unknown = _clocks_per_item(rated, rated_items, bytes_per_item, inner_passes, arch)
    limit = max(per_item, key=per_item.__getitem__)
    demand = _demand(rated, inner_passes, rated_items, bytes_per_item, warps, per_item)
    prediction = None
    if warps and not unknown:
        prediction = replace(predict(demand, arch), helps=advise(demand, arch, *block))
    status, message = _verdict(variant, path, passes, function, usage, warps)
    return KernelReport(
        variant=variant.name,
        arch=arch.name,
        status=status,
        message=message,
        unit=variant.unit,
        registers=usage.registers,
        stack_bytes=usage.stack + usage.local,
        local_accesses=function.local_accesses,
        static_shared_bytes=shared,
        dynamic_shared_bytes=compiled.dynamic_shared_bytes,
        warps=warps,
        occupancy=warps * WARP / arch.threads,
        in_loop=path.in_loop,
        passes=passes,
        items=items,
        loads=_widths(path.accesses, GLOBAL_LOADS),
        stores=_widths(path.accesses, GLOBAL_STORES),
        bytes_in_flight=warps * WARP * sum(each.access_bytes for each in path.accesses if each.opcode in GLOBAL_LOADS),
        mix=mix(path.instructions),
        clocks_per_item=per_item,
        limit="matrix" if unknown else limit,
        memory_share=None if unknown else per_item["memory"] / per_item[limit],
        symbol=compiled.symbol,
        rounds=demand.rounds,
        inner_instructions=len(path.inner),
        prediction=prediction,
    )


def _inner_passes(variant: Variant) -> float:
    """Passes of loops inside the path for each of its own: a variant may say so, or else they count once."""
    return float(getattr(variant, "inner_passes", 1))


def _demand(
    path: Path, inner_passes: float, items: int, bytes_per_item: float, warps: int, per_item: Mapping[str, float]
) -> Demand:
    more = inner_passes - 1
    return Demand(
        clocks=per_item,
        instructions=len(path.instructions) + more * len(path.inner),
        items=items,
        rounds=rounds(path.instructions, path.in_loop) + (more * rounds(path.inner, True) if more else 0),
        loaded_bytes=sum(each.access_bytes for each in path.accesses if each.opcode in GLOBAL_LOADS),
        bytes_per_item=bytes_per_item,
        warps=warps,
        certain=not any(each.is_matrix_product for each in path.instructions),
    )


def _clocks_per_item(
    path: Path, items: int, bytes_per_item: float, inner_passes: float, arch: Architecture
) -> tuple[dict[str, float], bool]:
    """Clocks of a multiprocessor per item by pipe, and whether there are matrix products of unknown rate."""
    found = {"memory": bytes_per_item / arch.bytes_per_clock}
    unknown = False
    for instructions, weight in ((path.instructions, 1.0), (path.inner, inner_passes - 1)):
        if not weight:
            continue
        parts = clocks(instructions, arch.rates, arch.wide_products) | {"operands": operand_clocks(instructions)}
        for each in filter(lambda one: one.is_matrix_product, instructions):
            kind, products = matrix_products(each) or ("", 0.0)
            unknown |= kind not in arch.matrix
            parts["matrix"] = parts.get("matrix", 0.0) + products / arch.matrix.get(kind, 1.0)
        for pipe, each_ in parts.items():
            found[pipe] = found.get(pipe, 0.0) + weight * each_ / items
    if unknown:
        del found["matrix"]
    return found, unknown


def _passes(variant: Variant, path: Path) -> int:
    """The bytes of the path in accesses as wide as promised, divided by the bytes of one pass of the source's loop.

    It is 1 outside a loop, and in a loop around other loops, because their number of passes is unknown.
    """
    if not path.in_loop or path.nested:
        return 1
    moved = sum(each.access_bytes for each in path.accesses if each.access_bytes >= variant.access_bytes)
    expected = variant.items * variant.bytes_per_item
    return max(1, round(moved / expected)) if expected else 1


def _verdict(
    variant: Variant, path: Path, passes: int, function: Function, usage: Usage, warps: int
) -> tuple[str, str]:
    if usage.stack or usage.local or function.local_accesses:
        used = f"{usage.stack + usage.local} bytes of local memory per thread, {function.local_accesses} accesses"
        return "spills", used
    wide = sum(each.access_bytes for each in path.accesses if each.access_bytes >= variant.access_bytes)
    expected = variant.items * variant.bytes_per_item * passes
    if variant.access_bytes and wide < COMPLETE * expected:
        narrow = Counter(each.name for each in path.accesses if each.access_bytes < variant.access_bytes)
        listed = ", ".join(f"{count} {name}" for name, count in sorted(narrow.items())) or "none"
        return "narrow", (
            f"only {wide} of the {expected:g} bytes of a pass move in accesses of the promised {variant.access_bytes} "
            f"bytes (narrower: {listed})"
        )
    if variant.threads and warps == 0:
        return "error", "no block fits on a multiprocessor"
    return "passed", ""


def _widths(accesses: Sequence[Instruction], opcodes: frozenset[str]) -> dict[int, int]:
    """Number of accesses of each width, widest first."""
    counted = Counter(each.access_bytes for each in accesses if each.opcode in opcodes)
    return {width: counted[width] for width in sorted(counted, reverse=True)}
