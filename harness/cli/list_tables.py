"""The tables of `list`: operations, implementations, targets, samplers, experiments and plugins."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..api.operations import Implementation, Operation
from ..api.samplers import Sampler
from ..discovery.registry import Plugin, Registry
from ..report.tables import grouped, indented, new_table

SAMPLER = ""
"""Replaces the operation in the key of a sampler, which belongs to no operation."""

Reasons = Mapping[tuple[str, str], Mapping[str, str | None]]
"""For each (operation, implementation) and (`SAMPLER`, sampler), by kind of device: why it cannot run, or None."""


def list_tables(registry: Registry, reasons: Reasons, automatic: Mapping[str, str], kind: str) -> RenderableType:
    """Each operation with formula, cases and implementations; then targets, samplers, experiments and plugins.

    ``automatic`` says for each operation what ``auto`` is on this machine's device, of this ``kind``.
    """
    definers = {name: plugin.label for plugin in registry.plugins for name in plugin.operations}
    parts: list[RenderableType] = []
    for operation in registry.operations.values():
        implementations = registry.implementations_of(operation.name)
        of = {each.name: reasons[operation.name, each.name] for each in implementations}
        parts += [
            Text(operation.name, style="bold"),
            indented(_about(operation, definers[operation.name])),
            indented(_where_they_run("implementation", implementations, of)),
            *([indented(Text(f"auto on {kind}: {automatic[operation.name]}"))] if automatic[operation.name] else []),
            *[indented(line) for line in (*_note_lines(implementations), *_reason_lines(of))],
            Text(),
        ]
    if registry.targets:
        table = new_table("target", "kind", "shape", "temperatures", "plugin")
        for target in registry.targets.values():
            shape = " x ".join(map(str, target.shape))
            temperatures = ", ".join(f"{each:.4g}" for each in target.temperatures)
            table.add_row(*map(Text, (target.name, target.kind, shape, temperatures, target.plugin)))
        parts += [table, Text()]
    if registry.samplers:
        of = {name: reasons[SAMPLER, name] for name in registry.samplers}
        parts += [_where_they_run("sampler", list(registry.samplers.values()), of), *_reason_lines(of), Text()]
    if registry.experiments:
        table = new_table("experiment", "question", "plugin")
        for experiment in registry.experiments.values():
            table.add_row(*map(Text, (experiment.name, experiment.summary, experiment.plugin)))
        parts += [table, Text()]
    return Group(*parts, _plugins_table(registry.plugins))


def _about(operation: Operation, definer: str) -> Text:
    counts = [
        f"{count} {purpose}"
        for purpose in ("check", "bench", "real")
        if (count := sum(case.purpose == purpose for case in operation.cases))
    ]
    laws = f"; laws: {', '.join(law.name for law in operation.laws)}" if operation.laws else ""
    lines = [operation.summary, operation.formula, f"{operation.kind} defined by {definer}; source: {operation.source}"]
    return Text("\n".join([*lines, f"cases: {', '.join(counts)}{laws}"]))


def _where_they_run(
    kind: str, things: Sequence[Implementation | Sampler], reasons: Mapping[str, Mapping[str, str | None]]
) -> Table:
    if not things:
        table = new_table()
        table.add_row(Text("no implementation is installed", style="yellow"))
        return table
    table = new_table(kind, "backend", "plugin", "cpu", "cuda")
    for each in things:
        cells = [Text(word, style="green" if word == "yes" else "yellow") for word in _words(reasons[each.name])]
        table.add_row(Text(each.name), Text(each.backend), Text(each.plugin), *cells)
    return table


def _words(reasons: Mapping[str, str | None]) -> list[str]:
    return ["yes" if reasons[kind] is None else "no" for kind in ("cpu", "cuda")]


def _note_lines(implementations: Sequence[Implementation]) -> list[Text]:
    notes = grouped((each for each in implementations if each.note), lambda each: each.note)
    return [Text(f"{', '.join(each.name for each in own)}: {note}") for note, own in notes.items()]


def _reason_lines(reasons: Mapping[str, Mapping[str, str | None]]) -> list[Text]:
    cells = [(kind, of[kind], name) for kind in ("cpu", "cuda") for name, of in reasons.items() if of[kind] is not None]
    return [
        Text(f"not on {kind}: {', '.join(name for *_, name in own)}: {reason}", style="yellow")
        for (kind, reason), own in grouped(cells, lambda each: each[:2]).items()
    ]


def _plugins_table(plugins: Sequence[Plugin]) -> Table:
    table = new_table("plugin", "distribution", "version")
    table.columns[0].no_wrap = True  # a name to copy
    for plugin in plugins:
        style = "red" if plugin.problems else ""
        table.add_row(*[Text(t, style) for t in (plugin.name, plugin.distribution, plugin.version)])
    return table
