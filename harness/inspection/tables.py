"""Tables of `inspect` for a terminal of 80 columns."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .architectures import Architecture
from .calibration import Calibration
from .gate import Difference, singular
from .inspect import KernelReport
from .prediction import Prediction

NAME = 34
"""Columns for the name of a variant."""


def kernel_table(title: str, found: Sequence[KernelReport]) -> RenderableType:
    """Lines for each kernel; a name longer than `NAME` columns gets a line of its own."""
    head = f"{'':{NAME}}{'regs':>5}{'spill':>6}{'shared':>7}{'occ.':>5}{'B':>6}{'limit':>9}{'memory':>7}"
    lines: list[RenderableType] = [Text(title), Text(head, style="dim")]
    for each in found:
        name = Text(each.variant, style="green" if each.status == "passed" else "bold red")
        if each.status == "error":
            lines.append(name)
            continue
        spill = Text(f"{each.stack_bytes or each.local_accesses:>6}", style="red" * (each.status == "spills"))
        width = Text(f"{_accesses(each):>6}", style="red" * (each.status == "narrow"))
        share = "-" if each.memory_share is None else f"{each.memory_share:.0%}"
        occupancy = f"{each.occupancy:.0%}" if each.warps else "-"
        shared = each.static_shared_bytes + each.dynamic_shared_bytes
        if len(name) > NAME:
            lines.append(name)
            name = Text()
        lines.append(
            Text.assemble(
                *(name, " " * (NAME - len(name)), f"{each.registers:>5}", spill, f"{shared:>7}"),
                *(f"{occupancy:>5}", width, f"{each.limit:>9}", f"{share:>7}"),
            )
        )
        lines.append(_indented(Text(_per_item(each), style="dim")))
        if each.prediction:
            lines.append(_indented(Text(expected(each.prediction, each.unit))))
    return Group(*lines, Text())


def expected(prediction: Prediction, unit: str) -> str:
    """``expected 892 G walker-steps/s (757 to 1051), 87% of the best case, limited by issue. Helps most: ...``"""
    scale, letter = next((each for each in _SCALES if prediction.rate >= each[0]), (1.0, ""))
    rates = [each / scale for each in (prediction.low, prediction.rate, prediction.high)]
    low, rate, high = (f"{each:.0f}" if each >= 100 else f"{each:.3g}" for each in rates)
    share = prediction.rate / prediction.best
    return (
        f"expected {rate}{letter} {unit}/s ({low} to {high}), {share:.0%} of the best case, limited by "
        f"{prediction.decides}. Helps most: {prediction.helps}"
    )


_SCALES = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


def side_by_side(name: str, found: Sequence[Difference], bound: float) -> RenderableType:
    """The base and the new kernel; what is worse beyond ``bound`` in red."""
    table = Table(box=None, pad_edge=False, title=name, title_justify="left", title_style="")
    table.add_column("", no_wrap=True)
    for head in ("base", "new", ""):
        table.add_column(head, justify="right")
    for each in found:
        change = "" if not each.worse else "worse" if each.worse == float("inf") else f"{each.worse:+.1%} worse"
        table.add_row(each.what, each.base, Text(each.new, style="bold red" * each.fails(bound)), change)
    return Group(table, Text())


def calibration_table(rows: Sequence[Calibration]) -> RenderableType:
    """The error of the best case and of the model, by group."""
    table = Table(box=None, pad_edge=False)
    table.add_column("published kernels", no_wrap=True)
    for head in ("points", "best case", "model", "group left out"):
        table.add_column(head, justify="right")
    for each in rows:
        errors = (f"{value:.3f}" for value in (each.best_case, each.model, each.left_out))
        table.add_row(each.group, str(each.points), *errors)
    note = (
        "Root mean square of the logarithm of expected over published time. 'group left out': the constants were "
        "fitted to the other groups. 'never fitted': other sizes and devices, which no fit has seen. No point has "
        "matrix products, and none is bound by shared memory, special functions or float64."
    )
    return Group(table, Text(), Text(note, style="dim"))


def note(target: Architecture, spread: float) -> str:
    """What the figures of a table mean."""
    return (
        f"{target.name}: nothing was run. 'limit' is the pipe that takes longest and 'memory' the largest possible "
        f"share of the memory bandwidth: a prediction from {target.source} ({target.device}, "
        f"{target.multiprocessors} multiprocessors at {target.clock / 1e9:.3g} GHz, "
        f"{target.bandwidth / 1e12:.3g} TB/s). The interval of the expected rate allows a standard deviation of "
        f"{spread:.0%}; it held nine of ten published rates (see --calibration)."
    )


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)


def _accesses(found: KernelReport) -> str:
    """``16/16``: the widest load and the widest store."""
    return "/".join(str(max(widths)) if widths else "-" for widths in (found.loads, found.stores))


def _per_item(found: KernelReport) -> str:
    total = sum(found.mix.values()) / found.items
    parts = [f"{kind} {count / found.items:.2g}" for kind, count in found.mix.items()]
    inner = f"; {found.inner_instructions / found.items:.2g} in inner loops" if found.inner_instructions else ""
    return f"{total:.3g} per {singular(found.unit)}: {', '.join(parts)}{inner}"
