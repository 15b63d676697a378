"""`sweep`: a callable, or several, at several sizes; a table, and a plot of time against size."""

import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text
from torch import Tensor

from ..agreement.device_memory import is_out_of_memory
from ..api.messages import describe_error
from ..api.operations import Agreement, Status
from ..report.plot_parts import Figure, escaped, log_axis, look, styles
from ..report.tables import grouped, indented
from ..report.terminal import text_of
from .bounds import Bound
from .call import name_of
from .compare import Compared, function_for
from .drawing import html_lines, html_table, plot, table
from .measured import Measured
from .request import Mode, Request

ALONE = (("sizes", 18), ("verdict", 12), ("median", -8), ("p10..p90", -14), ("rate", -12), ("of limit", 9))
SEVERAL = (("sizes", 14), ("", 10), ("verdict", 9), ("median", -8), ("p10..p90", -14))
"""The columns for one callable, and those for several, which the ratio follows."""


@dataclass(frozen=True, repr=False)
class Sweep:
    """A comparison at each of the sizes."""

    points: Sequence[tuple[Mapping[str, int], Compared]]

    @property
    def results(self) -> list[Measured]:
        """All results, in order."""
        return [each for _, point in self.points for each in point.results.values()]

    @property
    def several(self) -> bool:
        """Whether several callables are compared."""
        return any(len(point.results) > 1 for _, point in self.points)

    @property
    def columns(self) -> list[tuple[str, int]]:
        """The heads of the table and their widths."""
        return [*SEVERAL, (f"time/{self.points[0][1].baseline}", 18)] if self.several else [*ALONE]

    def rows(self) -> list[list[Text | str]]:
        """The cells of the table."""
        found: list[list[Text | str]] = []
        for sizes, point in self.points:
            for (name, each), row in zip(point.results.items(), point.rows(), strict=True):
                verdict, ratio = row[1], row[-1]
                cells = [name, verdict, *each.cells[:2], ratio] if self.several else [verdict, *each.cells]
                found.append([_words(sizes), *cells])
        return found

    def explained(self) -> list[str]:
        """What failed and why, flags and notes, a line each."""
        return [f"{_words(sizes)}: {words}" for sizes, point in self.points for words in point.explained()]

    def figure(self) -> Figure:
        """A plotly figure: medians against the size with the most values, with the 10th and 90th percentiles."""
        axis = max(self.points[0][0], key=lambda name: len({sizes[name] for sizes, _ in self.points}))
        timed = [(sizes, each) for sizes, point in self.points for each in point.results.values() if each.measurement]
        lines = grouped(timed, lambda one: (one[1].name, _words({n: v for n, v in one[0].items() if n != axis})))
        looks = styles(" ".join(filter(None, line)) for line in lines)
        data = []
        for own, (name, style) in zip(lines.values(), looks.items(), strict=True):
            points = sorted(own, key=lambda one: one[0][axis])
            times = [each.timing for _, each in points]
            data.append(
                {
                    "x": [sizes[axis] for sizes, _ in points],
                    "y": [each.median for each in times],
                    "error_y": {
                        "type": "data",
                        "array": [each.p90 - each.median for each in times],
                        "arrayminus": [each.median - each.p10 for each in times],
                    },
                    "hovertext": [_hover(sizes, each) for sizes, each in points],
                    "mode": "lines+markers",
                    **look(name, points[0][1].timing.mode, style),
                }
            )
        title = f"seconds, {self.points[0][1].title.rpartition(', ')[2]}"
        layout = {
            "xaxis": log_axis(escaped(axis)),
            "yaxis": log_axis(escaped(title)),
            "height": 420,
            "margin": {"t": 40},
        }
        return {"data": data, "layout": {**layout, "showlegend": len(data) > 1}}

    @property
    def title(self) -> str:
        """What was timed and how, as far as that is the same at all sizes."""
        timed = [each for each in self.results if each.measurement]
        modes, devices = {each.timing.mode: None for each in timed}, {each.device: None for each in timed}
        return ", ".join([*([] if self.several else [self.results[0].name]), *modes, *devices])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, style="bold")
        yield indented(table(self.columns, self.rows()))
        yield Group(*(Text(words, style="yellow") for words in self.explained()))

    def __str__(self) -> str:
        return text_of(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        drawn = plot(self.figure()) if any(each.measurement for each in self.results) else ""
        return html_lines([self.title]) + drawn + html_table(self.columns, self.rows()) + html_lines(self.explained())


def sweep(
    fn: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    make_args: Callable[..., Any],
    /,
    *,
    reference: Callable[..., Any] | None = None,
    baseline: str | None = None,
    bound: Bound | float | Callable[..., Bound | float] | None = None,
    bytes: float | Callable[..., float] | None = None,
    flops: float | Callable[..., float] | None = None,
    backward: bool = False,
    mode: Mode = "cold",
    keep: Sequence[str] = (),
    seconds: float | None = None,
    time_limit: float = 300.0,
    isolated: bool = False,
    **sizes: Iterable[int],
) -> Sweep:
    """Measure ``fn`` at all combinations of ``sizes``; if it is a dict of callables, compare them at each.

    ``make_args`` gets the sizes by name, as in ``make_args(n=1024)``, and returns the arguments: a tuple, a dict of
    keywords, or one tensor. ``bound``, ``bytes`` and ``flops`` may be functions of the sizes, too. The other options
    are those of `compare`; ``time_limit`` holds for each combination, and with ``isolated`` each has its own process.
    A combination that fails has its reason in the table. Raises TypeError or ValueError as `compare` does, and if
    ``sizes`` are not iterables of positive whole numbers. What is raised after the first combination, also by
    ``make_args``, is the reason of that combination.
    """
    callables = dict(fn) if isinstance(fn, Mapping) else {name_of(fn): fn}
    if not callable(make_args):
        raise TypeError(f"make_args must be callable, such as lambda n: torch.randn(n): got {reprlib.repr(make_args)}")
    axes = _axes(sizes)
    first = baseline or next(iter(callables), "")

    def at(size: dict[str, int]) -> Compared:
        args, kwargs = _arguments(make_args(**size))
        limit = bound(**size) if callable(bound) else bound
        moved = bytes(**size) if callable(bytes) else bytes
        done = flops(**size) if callable(flops) else flops
        request = Request(reference, limit, moved, done, backward, mode, keep, seconds, time_limit, sizes=size)
        return function_for(isolated)(callables, args, kwargs, request, baseline)

    points: list[tuple[Mapping[str, int], Compared]] = []
    for chosen in product(*axes.values()):
        size = dict(zip(axes, chosen, strict=True))
        try:
            point = at(size)
        except Exception as error:
            if not points:
                raise
            status = Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.ERROR
            failure = Agreement(status, describe_error(error))
            rows = {name: Measured(name, points[0][1].operation, _words(size), failure, "") for name in callables}
            point = Compared(rows, first)
        points.append((size, point))
    return Sweep(points)


def _arguments(made: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(made, dict):
        return (), made
    if isinstance(made, Tensor):
        return (made,), {}
    if isinstance(made, tuple):
        return made, {}
    raise TypeError(f"make_args must return a tuple, a dict or a tensor: got a {type(made).__name__}")


def _axes(sizes: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
    if not sizes:
        raise ValueError("sweep needs sizes, such as n=[1024, 2048]")
    axes = {}
    for name, values in sizes.items():
        try:
            axes[name] = [operator.index(each) for each in values]
        except TypeError:
            axes[name] = []
        if not axes[name] or min(axes[name]) < 1:
            words = f"{name} must be a list of positive whole numbers, such as {name}=[1024, 2048]"
            raise ValueError(f"{words}: got {reprlib.repr(values)}")
    return axes


def _words(sizes: Mapping[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in sizes.items())


def _hover(sizes: Mapping[str, int], each: Measured) -> str:
    return "<br>".join(map(escaped, (each.name, _words(sizes), ", ".join(filter(None, each.cells)))))
