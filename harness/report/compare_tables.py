"""A comparison of two runs for the terminal and as Markdown: the regressions first, and one closing line."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from ..api.messages import printable
from ..results.compare import REGRESSIONS, Bounds, Comparison, Pair, Timing, Verdict
from ..results.precision import floor_words
from .markdown import md_table, md_text
from .tables import NARROW, counted, indented, si

STYLES = {
    Verdict.FAILED: "bold red",
    Verdict.SLOWER: "bold red",
    Verdict.FASTER: "bold green",
    Verdict.PASSES: "bold green",
    Verdict.SLIGHTLY_SLOWER: "yellow",
    Verdict.SLIGHTLY_FASTER: "green",
    Verdict.UNCLEAR: "bold yellow",
}


def comparison_tables(comparison: Comparison) -> RenderableType:
    """The pairs by verdict, worst first; then other differences of the runs, the noise floors, and the result."""
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
            parts.append(_Rows(timed, comparison.alpha))
        parts += [indented(_untimed(pair)) for pair in pairs if pair.ratio is None]
    parts += [Text(note, style="yellow") for note in comparison.notes]
    if trust := _trust(comparison):
        parts.append(Text(trust, style="dim"))
    failed = comparison.having(*REGRESSIONS)
    return Group(*parts, Text(_closing(comparison), style="bold red" if failed else "green"))


FOLDED = (Verdict.SAME, Verdict.ONLY_NEW, Verdict.ONLY_BASE)
"""What the Markdown folds away."""

MOST_ROWS = 80
"""Of a table in Markdown: a comment on GitHub has at most 65,536 characters."""


def comparison_markdown(comparison: Comparison) -> str:
    """The comparison for a pull request: the verdict in one line, a table of what changed, and the rest folded."""
    sign = "❌" if comparison.having(*REGRESSIONS) else "✅"
    parts = [f"### {sign} boltzbench: {md_text(_closing(comparison))}"]
    changed = [pair for pair in comparison.pairs if pair.verdict not in FOLDED]
    if changed:
        parts.append(_changes(comparison, changed))
    for verdict in FOLDED:
        if pairs := comparison.having(verdict):
            parts.append(_folded_away(f"{verdict}: {len(pairs)}", _changes(comparison, pairs)))
    base, new = comparison.commits
    facts = [f"base: {base}; new: {new}", *comparison.notes, _trust(comparison)]
    parts.append(_folded_away("The two runs", "\n".join(f"- {md_text(fact)}" for fact in facts if fact)))
    return "\n\n".join(parts) + "\n"


def _folded_away(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _changes(comparison: Comparison, pairs: Sequence[Pair]) -> str:
    header = ("verdict", "change", f"{_percent(1 - comparison.alpha)} interval", "base", "new", "case", "notes")
    rows = []
    for pair in pairs[:MOST_ROWS]:
        figures = ["", ""]
        if pair.ratio is not None:
            figures = [f"{_change(pair.ratio)} %", f"{_change(pair.low)} to {_change(pair.high)} %"]
        medians = [_median(pair.base), _median(pair.new)]
        rows.append([str(pair.verdict), *figures, *medians, pair.name, "; ".join(pair.notes)])
    more = len(pairs) - len(rows)
    return md_table(header, rows) + (f"\n\nand {more} more; `boltzbench compare` shows all" if more else "")


def _heading(verdict: Verdict, comparison: Comparison) -> str:
    if verdict in (Verdict.SLOWER, Verdict.FASTER):
        return f"{verdict}, beyond noise and {_allowed(comparison.bounds)}"
    if verdict is Verdict.SAME:
        return f"{verdict} beyond noise"
    return str(verdict)


def _allowed(bounds: Bounds) -> str:
    return f"{_percent(bounds.usual)}{', or the bound of the case' if bounds.special else ''}"


def _trust(comparison: Comparison) -> str:
    """The noise floors, and the probability of a false alarm; empty if no timings are compared."""
    if all(pair.ratio is None for pair in comparison.pairs):
        return ""
    floors = [
        f"{name} {'unknown (no A/A control)' if floor is None else floor_words(floor)}"
        for name, floor in zip(("base", "new"), comparison.floors, strict=True)
    ]
    return (
        f"Noise floor: {', '.join(floors)}. If the code is the same, at most "
        f"{_percent(comparison.alpha)} of comparisons call a case slower."
    )


class _Rows:
    """For each pair its figures with the names of its case beside them, or below on a narrow console.

    The lines are written directly: rich would lay out a table of all cases of a large run for many seconds.
    """

    def __init__(self, pairs: Sequence[Pair], alpha: float) -> None:
        self._pairs, self._alpha = pairs, alpha

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrow = console.width < NARROW
        beside = _figures("change", f"{_percent(1 - self._alpha)} interval", "base", "new")
        space = "    " if narrow else " " * len(beside)
        width = max(options.max_width - len(space), 1)
        dim, yellow = console.get_style("dim"), console.get_style("yellow")
        if not narrow:
            yield from (Segment(f"{beside}case", dim), Segment.line())
        for pair in self._pairs:
            change, interval = f"{_change(pair.ratio)} %", f"{_change(pair.low)}..{_change(pair.high)} %"
            base, new = _median(pair.base), _median(pair.new)
            start = f"  {change}, {base} to {new}" if narrow else _figures(change, interval, base, new)
            yield Segment(f"{start}\n{space}" if narrow else start)
            names = [f"{pair.operation} {pair.implementation} {pair.mode}", pair.case]
            shown = [*([f"interval {interval}"] if narrow else []), *names]
            lines: list[tuple[str, Style | None]] = [(line, None) for line in _folded(console, shown, width)]
            lines += [(line, yellow) for line in _folded(console, pair.notes, width)]
            for place, (line, style) in enumerate(lines):
                yield from (Segment(space if place else ""), Segment(line, style), Segment.line())


def _figures(change: str, interval: str, base: str, new: str) -> str:
    return f"  {change:>8} {interval:>17} {base:>8} {new:>8} "


def _folded(console: Console, texts: Iterable[str], width: int) -> Iterator[str]:
    """The lines of texts, none wider than ``width``."""
    for line in (line for text in texts for line in printable(text).split("\n")):
        if len(line) <= width and line.isascii():
            yield line
        else:
            yield from (part.plain for part in Text(line).wrap(console, width, overflow="fold"))


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
        if within := counts[Verdict.SLIGHTLY_SLOWER] + counts[Verdict.SLIGHTLY_FASTER]:
            words.append(f"{within} changed within the bound")
        parts.append(
            f"{counted(compared, 'timing')} compared: {', '.join(words)}, {counts[Verdict.SAME]} without a difference"
        )
    if counts[Verdict.FAILED] or counts[Verdict.PASSES] or not compared:
        words = [f"newly failing: {counts[Verdict.FAILED]}", f"newly passing: {counts[Verdict.PASSES]}"]
        parts.append(f"{', '.join(words)}, untimed and passing in both runs: {comparison.agreeing}")
    ended = "Regression" if comparison.having(*REGRESSIONS) else "No regression"
    rest = "; ".join(parts)
    return f"{ended} beyond noise and {_allowed(comparison.bounds)}. {rest[0].upper()}{rest[1:]}."
