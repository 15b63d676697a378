"""`compare`: several callables on the same arguments, timed in turns, and the ratios of their times."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from ..api.messages import unknown
from ..report.rows import number
from ..report.tables import indented
from ..report.terminal import text_of
from .arguments import UNNAMED
from .bounds import Bound
from .call import names_for
from .drawing import html_lines, html_table, table
from .measure import Attempt, run
from .measured import Measured
from .request import Mode, Request

SAMPLES_PER_ROUND = 4
"""About so many samples of each callable follow one another: many short rounds make the interval of a ratio narrow."""

FEWEST_ROUNDS = 5
"""With fewer rounds there is no interval."""

RESAMPLES = 999
CONFIDENCE = 0.95

COLUMNS = (("", 12), ("verdict", 12), ("median", -8), ("p10..p90", -14), ("of limit", 9))
"""The columns of the table and their widths, negative if aligned to the right; the ratio follows."""


@dataclass(frozen=True)
class Ratio:
    """The time of a callable divided by that of the baseline, with its 95 % confidence interval; None with few rounds.

    ``value`` is the median over rounds of the ratio of the medians in a round, in which drift cancels. The interval is
    the percentile interval of its bootstrap over rounds.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" {number(self.low)}..{number(self.high)}"
        return f"{number(self.value)}{interval}"


def ratio_of(rounds: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> Ratio:
    """The ratio of two callables that took turns."""
    pairs = list(zip(rounds, base, strict=False))
    logs = np.log([np.median(own) / np.median(other) for own, other in pairs])
    value = float(np.exp(np.median(logs)))
    if len(logs) < FEWEST_ROUNDS:
        return Ratio(value)
    if np.ptp(logs) == 0:
        return Ratio(value, value, value)
    from scipy.stats import bootstrap  # takes half a second

    found = bootstrap(
        (logs,), np.median, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", random_state=0
    ).confidence_interval
    return Ratio(value, float(np.exp(found.low)), float(np.exp(found.high)))


@dataclass(frozen=True, repr=False)
class Compared:
    """The callables by name, and the ratios of their times to that of the ``baseline``, of those that were timed."""

    results: Mapping[str, Measured]
    baseline: str
    ratios: Mapping[str, Ratio] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        return next(iter(self.results.values())).operation

    def __getitem__(self, name: str) -> Measured:
        return self.results[name]

    @property
    def columns(self) -> list[tuple[str, int]]:
        """The heads of the table and their widths."""
        return [*COLUMNS, (f"time/{self.baseline}", 18)]

    def rows(self) -> list[list[Text | str]]:
        """The cells of the table."""
        found: list[list[Text | str]] = []
        for name, each in self.results.items():
            median, spread, _, share = each.cells
            ratio = "1" if name == self.baseline and name in self.ratios else str(self.ratios.get(name, ""))
            found.append([name, Text(each.verdict, style=each.style), median, spread, share, ratio])
        return found

    @property
    def title(self) -> str:
        modes = {each.measurement.mode: None for each in self.results.values() if each.measurement}
        cases, devices = ({getattr(each, name): None for each in self.results.values()} for name in ("case", "device"))
        # A function of C does not name its arguments: another one may.
        cases = {each: None for each in cases if UNNAMED not in each} or cases
        return ", ".join(filter(None, [*cases, *modes, *devices]))

    def explained(self) -> list[str]:
        """What failed and why, flags and notes, a line each."""
        found = [words for each in self.results.values() for words in each.explained()]
        if self.baseline not in self.ratios:
            found.append(f"no ratios: the baseline {self.baseline} has no time")
        elif any(each.low is None for name, each in self.ratios.items() if name != self.baseline):
            found.append(f"no interval of a ratio: fewer than {FEWEST_ROUNDS} rounds; more seconds= give more")
        return found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, style="bold")
        yield indented(table(self.columns, self.rows()))
        yield Group(*(Text(words, style="yellow") for words in self.explained()))

    def __str__(self) -> str:
        return text_of(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_lines([self.title]) + html_table(self.columns, self.rows()) + html_lines(self.explained())


def compare(
    callables: Mapping[str, Callable[..., Any]],
    /,
    *args: Any,
    reference: Callable[..., Any] | None = None,
    baseline: str | None = None,
    bound: Bound | float | None = None,
    bytes: float | None = None,
    flops: float | None = None,
    backward: bool = False,
    mode: Mode = "cold",
    keep: Sequence[str] = (),
    seconds: float | None = None,
    time_limit: float = 300.0,
    isolated: bool = False,
    **kwargs: Any,
) -> Compared:
    """Check and time each callable by its name on the same arguments, in turns, so that drift hits all alike.

    Ratios are times divided by that of ``baseline``, the first one by default. The other options are those of
    `measure`; ``time_limit`` holds for all together. A callable that fails has its reason in the table; the others go
    on. With ``isolated`` they do so in one other process; after a crash a new one begins without the callable that
    crashed. Raises TypeError or ValueError as `measure` does, and if ``callables`` is no mapping with something in it.
    """
    request = Request(reference, bound, bytes, flops, backward, mode, keep, seconds, time_limit)
    return function_for(isolated)(callables, args, kwargs, request, baseline)


def function_for(isolated: bool) -> Callable[..., Compared]:
    """`compared`, or what does the same in another process."""
    if not isolated:
        return compared
    from .isolated import compared_in_a_process

    return compared_in_a_process


def require_callables(callables: Mapping[str, Callable[..., Any]], baseline: str | None) -> str:
    """The name of the baseline. Raises TypeError or ValueError for what cannot be compared."""
    if not isinstance(callables, Mapping) or not callables or not all(map(callable, callables.values())):
        raise TypeError(f"expected a dict of callables by name, such as {{'mine': fn}}: got {reprlib.repr(callables)}")
    if baseline is not None and baseline not in callables:
        raise unknown("baseline", baseline, callables)
    return baseline or next(iter(callables))


def compared(
    callables: Mapping[str, Callable[..., Any]],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    request: Request,
    baseline: str | None,
    announce: Callable[[str], object] = lambda name: None,
) -> Compared:
    """What `compare` returns, from this process. ``announce`` gets the name of each callable before it runs."""
    first = require_callables(callables, baseline)
    operation, _ = names_for(callables[first], request)
    per_block = SAMPLES_PER_ROUND if len(callables) > 1 else None
    attempts = {
        name: Attempt(fn, args, kwargs, request, (operation, name), per_block) for name, fn in callables.items()
    }
    run(list(attempts.values()), request, announce)
    results = {name: each.result() for name, each in attempts.items()}
    timed = [name for name, each in results.items() if each.measurement]
    rounds = {name: attempts[name].rounds for name in timed} if first in timed else {}
    return Compared(results, first, {name: ratio_of(own, rounds[first]) for name, own in rounds.items()})
