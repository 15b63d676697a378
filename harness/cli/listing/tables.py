"""The table of `list`: operations, samplers, targets, experiments and plugins, a line each."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from ...discovery.registry import Registry
from ...report.tables import counted, grouped, indented

SAMPLER = ""
"""Replaces the operation in the key of a sampler, which belongs to no operation."""

Reasons = Mapping[tuple[str, str], Mapping[str, str | None]]
"""For each (operation, implementation) and (`SAMPLER`, sampler), by kind of device: why it cannot run, or None."""


def list_tables(registry: Registry, reasons: Reasons, kind: str) -> RenderableType:
    """What there is, with the number of implementations that run on this ``kind`` of device, and the plugins."""
    operations = []
    for each in registry.operations.values():
        own = [reasons[each.name, one.name][kind] is None for one in registry.implementations_of(each.name)]
        operations.append((each.name, f"{sum(own)}/{len(own)}", each.summary))
    samplers = [
        (each.name, "yes" if reasons[SAMPLER, each.name][kind] is None else "no", each.summary)
        for each in registry.samplers.values()
    ]
    targets = [(each.name, each.kind, each.summary) for each in registry.targets.values()]
    experiments = [(each.name, "", each.summary) for each in registry.experiments.values()]
    parts: list[RenderableType] = []
    for option, noun, head, rows in (
        ("-o", "operations", f"run on {kind}", operations),
        ("-s", "samplers", f"run on {kind}", samplers),
        ("-t", "targets", "kind", targets),
        ("-e", "experiments", "", experiments),
    ):
        if rows:
            title = Text.assemble((noun, "bold"), (f"  all about one: boltzbench list {option} NAME", "dim"))
            parts += [title, indented(_Lines(head, rows)), Text()]
    return Group(*parts, *_absences(reasons), *_plugins(registry))


class _Lines:
    """A line each: a name, a word, and as much of a summary as fits."""

    def __init__(self, head: str, rows: Sequence[tuple[str, str, str]]) -> None:
        self._head, self._rows = head, rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = max(len(name) for name, _, _ in self._rows)
        words = max(len(self._head), *(len(word) for _, word, _ in self._rows))
        begin = f"{{:{names}}}  {{:{words}}}  ".format if words else f"{{:{names}}}  {{}}".format
        if self._head:
            yield Text(begin("", self._head).rstrip(), style="dim")
        for name, word, summary in self._rows:
            left = options.max_width - len(begin(name, word))
            style = "yellow" if word == "no" or word.startswith("0/") else ""
            yield Text(begin(name, word) + shorten(summary, max(left, 20), placeholder=" ..."), style)


def _absences(reasons: Reasons) -> Iterable[Text]:
    """What one kind of device lacks altogether: one line for each reason that nothing runs there."""
    for kind in ("cpu", "cuda"):
        found = grouped((of[kind] for of in reasons.values()), lambda reason: reason)
        if len(found) == 1 and (reason := next(iter(found))) is not None:
            yield Text(f"Nothing runs on {kind} here: {reason}", style="yellow")


def _plugins(registry: Registry) -> Iterable[Text]:
    for (distribution, version), own in grouped(
        registry.plugins, lambda each: (each.distribution, each.version)
    ).items():
        names = ", ".join(each.name for each in own) if distribution != "boltzbench" else ""
        words = f"{counted(len(own), 'plugin')} of {distribution} {version}" + (f": {names}" if names else "")
        yield Text(words, style="red" if any(each.problems for each in own) else "")
