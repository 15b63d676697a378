"""The table of `bench --profile`: what was counted for each kernel, beside what its machine code predicts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ..api.records import Record
from .counters import Kernel
from .prediction import Report, expectation, prediction

HEAD = (
    f"{'':2}{'launches':>8}{'time':>10}{'read':>10}{'written':>10}{'DRAM':>6}{'SM':>5}{'occ.':>6}{'regs':>5}  predicted"
)


@dataclass(frozen=True)
class Profiled:
    """A step: its verdict, and the kernels that ran, or in ``message`` why there are none."""

    record: Record
    kernels: tuple[Kernel, ...] = ()
    message: str = ""


def table(found: Sequence[Profiled], reports: Mapping[tuple[str, str], Sequence[Report]]) -> RenderableType:
    """Two lines for each kernel, within 80 columns: its name, then the figures."""
    lines: list[RenderableType] = [Text(HEAD, style="dim")]
    for each in found:
        record = each.record
        lines.append(Text(f"{record.operation} {record.implementation}, {record.case}"))
        for kernel in each.kernels:
            own = reports.get((record.operation, record.implementation), ())
            lines += [Text(f"  {kernel.name}", style="dim"), Text(_figures(kernel) + f"  {prediction(kernel, own)}")]
        if each.message:
            lines.append(Text(f"  {each.message}", style="yellow"))
    note = "Times under a profiler are no figures of bench. 'DRAM' and 'SM' are shares of the peak; 'predicted' is"
    lines.append(Text(f"{note} inspect's limit and its largest possible share of DRAM.", style="dim"))
    return Group(*lines)


def _figures(kernel: Kernel) -> str:
    shares = kernel.memory_share, kernel.compute_share, kernel.occupancy
    dram, sm, occupancy = ("-" if each is None else f"{each:.0%}" for each in shares)
    registers = "-" if kernel.registers is None else f"{kernel.registers:.0f}"
    amounts = f"{_scaled(kernel.seconds, 's')}{_scaled(kernel.bytes_read, 'B')}{_scaled(kernel.bytes_written, 'B')}"
    return f"{kernel.launches:>10}{amounts}{dram:>6}{sm:>5}{occupancy:>6}{registers:>5}"


def _scaled(value: float | None, unit: str) -> str:
    """Ten columns: three digits, and the unit with its prefix."""
    if value is None:
        return f"{'-':>10}"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")):
        if value >= factor:
            return f"{f'{value / factor:.3g} {prefix}{unit}':>10}"
    return f"{f'{value * 1e9:.3g} n{unit}' if value else f'0 {unit}':>10}"


def as_json(found: Sequence[Profiled], reports: Mapping[tuple[str, str], Sequence[Report]]) -> list[dict[str, Any]]:
    """A record for each step, with its kernels in seconds, bytes and shares, and the rates expected of them."""
    records = []
    for each in found:
        record = each.record
        own = reports.get((record.operation, record.implementation), ())
        kernels = [
            {**asdict(kernel), "predicted": prediction(kernel, own), "expected": expectation(kernel, own)}
            for kernel in each.kernels
        ]
        names = {name: getattr(record, name) for name in ("operation", "implementation", "case", "source_hash")}
        message = each.message or record.message
        records.append({**names, "status": str(record.status), "message": message, "kernels": kernels})
    return records
