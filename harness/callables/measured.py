"""The result of `measure`: the verdict on a callable and, if there is one, its time. Prints as one line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from ..api.operations import Agreement
from ..api.records import Measurement
from ..report.rows import percent
from ..report.tables import disturbance, status_words
from .drawing import cells, histogram, html_lines, line_of_times

NOISY = 0.01
"""A median that is known less precisely is flagged."""


class NotMeasured(ValueError):
    """A time was asked for, and there is none: the message says why."""


@dataclass(frozen=True, repr=False)
class Measured:
    """A callable with certain arguments: the verdict on it, and its time if there is one.

    - ``name`` is that of the callable, ``operation`` that of what is compared, ``case`` describes the arguments.
    - ``agreement`` is the verdict. ``checked`` says that a reference decided on it; otherwise the launches were only
      compared with other calls of the same callable.
    - ``measurement`` has all samples, percentiles, rates and suspicions, as for registered kernels. It is None if the
      callable did not agree, took too long, or is not timed here (``untimed`` says why).
    - ``notes`` are for the reader of the figure.
    """

    name: str
    operation: str
    case: str
    agreement: Agreement
    device: str
    checked: bool = False
    measurement: Measurement | None = None
    untimed: str = ""
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    dtype: str = ""
    fn: Callable[..., Any] | None = field(default=None, compare=False)

    @property
    def passed(self) -> bool:
        """Whether a reference was compared and agrees."""
        return self.checked and self.agreement.passed

    @property
    def verdict(self) -> str:
        """``passed``, ``unchecked``, or what is wrong, such as ``wrong values``."""
        return "unchecked" if self.agreement.passed and not self.checked else status_words(self.agreement.status)

    @property
    def style(self) -> str:
        """The colour of the verdict."""
        return "green" if self.passed else "yellow" if self.agreement.passed else "bold red"

    @property
    def timing(self) -> Measurement:
        """The measurement. Raises NotMeasured if there is none."""
        if self.measurement is None:
            words = ": ".join(filter(None, [self.verdict, self.agreement.message, self.untimed]))
            raise NotMeasured(f"{self.name} was not timed: {words}")
        return self.measurement

    @property
    def median(self) -> float:
        """Seconds of a call. Raises NotMeasured if there is no time."""
        return self.timing.median

    @property
    def samples(self) -> tuple[float, ...]:
        """Seconds of each sample. Raises NotMeasured if there is no time."""
        return self.timing.samples

    @property
    def share(self) -> float | None:
        """The share of the limit that binds; None if none is known. ``timing.limit`` names it."""
        return self.measurement.roofline_share if self.measurement else None

    @property
    def flags(self) -> list[str]:
        """Reasons to doubt the figure, and notes on it."""
        found = []
        if self.measurement is not None:
            found += [f"suspect: {words}" for words in self.measurement.suspicions]
            if self.measurement.noise > NOISY:
                found.append(f"noisy: the median is known to ±{percent(self.measurement.noise)} only")
            found += filter(None, [disturbance(self.measurement)])
        return [*found, *self.notes]

    @property
    def cells(self) -> list[str]:
        """Median, range, rate and share, for a table."""
        return cells(self.measurement)

    def explained(self) -> list[str]:
        """Why it failed or was not timed, and `flags`, a line each, with the name."""
        failure = [] if self.agreement.passed else [f"{self.verdict}: {self.agreement.message}"]
        untimed = [f"not timed: {self.untimed}"] if self.untimed else []
        return [f"{self.name}: {words}" for words in (*failure, *untimed, *self.flags)]

    def __rich__(self) -> Text:
        line = Text.assemble((self.name, "bold"), ": ", (self.verdict, self.style))
        if self.measurement is not None:
            line.append(f", {line_of_times(self.measurement, self.device)}")
        elif self.untimed:
            line.append(f", not timed: {self.untimed}")
        else:
            line.append(f": {self.agreement.message}")
        for words in self.flags:
            line.append(f"\n  {words}", style="yellow")
        return line

    def __str__(self) -> str:
        return self.__rich__().plain

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_lines(str(self).split("\n")) + (histogram(self.measurement) if self.measurement else "")
