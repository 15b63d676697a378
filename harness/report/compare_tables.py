"""Terminal output of a comparison of two runs: the regressions first, and one closing line."""

from collections import Counter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..results.compare import REGRESSIONS, Comparison, Pair, Timing, Verdict
from .tables import counted, indented, si

STYLES = {
    Verdict.FAILED: "bold red",
    Verdict.SLOWER: "bold red",
    Verdict.FASTER: "bold green",
    Verdict.PASSES: "bold green",
    Verdict.UNCLEAR: "bold yellow",
}


def comparison_tables(comparison: Comparison) -> RenderableType:
    """The pairs by verdict, worst first; then other differences of the runs, and the result."""
    parts: list[RenderableType] = []
    for verdict in Verdict:
        pairs = comparison.having(verdict)
        if not pairs:
            continue
        if verdict in (Verdict.ONLY_NEW, Verdict.ONLY_BASE):
            parts.append(Text(f"{verdict}: {_counts(pairs)}", style="yellow"))
            continue
        parts.append(Text(_heading(verdict, comparison), style=STYLES.get(verdict, "bold")))
        timed = [pair for pair in pairs if pair.ratio is not None]
        if timed:
            parts.append(indented(_rows(timed, comparison.alpha)))
        parts += [indented(_untimed(pair)) for pair in pairs if pair.ratio is None]
    parts += [Text(note, style="yellow") for note in comparison.notes]
    failed = comparison.having(*REGRESSIONS)
    return Group(*parts, Text(_closing(comparison), style="bold red" if failed else "green"))


def _heading(verdict: Verdict, comparison: Comparison) -> str:
    if verdict in (Verdict.SLOWER, Verdict.FASTER):
        return f"{verdict}, beyond noise and {_percent(comparison.bound)}"
    if verdict is Verdict.SAME:
        return f"{verdict} beyond noise and {_percent(comparison.bound)}"
    return str(verdict)


def _rows(pairs: list[Pair], alpha: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("change", width=8, justify="right")
    table.add_column(f"{_percent(1 - alpha)} interval", width=17, justify="right", overflow="fold")
    table.add_column("base", width=8, justify="right")
    table.add_column("new", width=8, justify="right")
    table.add_column("case", overflow="fold")
    for pair in pairs:
        table.add_row(
            Text(f"{_change(pair.ratio)} %"),
            Text(f"{_change(pair.low)}..{_change(pair.high)} %"),
            Text(_median(pair.base)),
            Text(_median(pair.new)),
            Text.assemble(f"{pair.operation} {pair.implementation} {pair.mode}\n{pair.case}", *_notes(pair)),
        )
    return table


def _untimed(pair: Pair) -> Text:
    name = " ".join([pair.operation, pair.implementation, *([pair.mode] if pair.mode else [])])
    return Text.assemble(f"{name}, {pair.case}", *_notes(pair))


def _notes(pair: Pair) -> list[tuple[str, str]]:
    return [(f"\n{note}", "yellow") for note in pair.notes]


def _median(timing: Timing | None) -> str:
    return si(timing.median, "s") if timing else ""


def _change(ratio: float | None) -> str:
    if ratio is None:
        return ""
    change = 100 * (ratio - 1)
    return f"{change:+.1f}" if abs(change) < 1000 else f"{change:+.0e}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _counts(pairs: list[Pair]) -> str:
    counts = Counter(f"{pair.operation} {pair.implementation}" for pair in pairs)
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _closing(comparison: Comparison) -> str:
    counts = Counter(pair.verdict for pair in comparison.pairs)
    compared = sum(pair.ratio is not None for pair in comparison.pairs)
    parts = []
    if compared:
        words = [f"{counts[Verdict.SLOWER]} slower", f"{counts[Verdict.FASTER]} faster"]
        parts.append(
            f"{counted(compared, 'timing')} compared: {', '.join(words)}, {counts[Verdict.SAME]} without a difference"
        )
    if counts[Verdict.FAILED] or counts[Verdict.PASSES] or not compared:
        words = [f"newly failing: {counts[Verdict.FAILED]}", f"newly passing: {counts[Verdict.PASSES]}"]
        parts.append(f"{', '.join(words)}, untimed and passing in both runs: {comparison.agreeing}")
    ended = "Regression" if comparison.having(*REGRESSIONS) else "No regression"
    rest = "; ".join(parts)
    return f"{ended} beyond noise and {_percent(comparison.bound)}. {rest[0].upper()}{rest[1:]}."
