"""What `list` shows: operations, implementations, targets, samplers and plugins."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..api.operations import Implementation, Operation
from ..api.samplers import Sampler
from ..discovery.registry import Plugin, Registry
from ..report.tables import indented, new_table

SAMPLER = ""
"""Stands for the operation in the reasons of a sampler, which belongs to none."""

Reasons = Mapping[tuple[str, str], Mapping[str, str | None]]
"""For each (operation, implementation) and (`SAMPLER`, sampler): the kinds of device, and why it cannot run there
(None: it can)."""


def operations_list(registry: Registry, reasons: Reasons) -> RenderableType:
    """Each operation with its formula, its cases, and its implementations; then targets, samplers and plugins.

    Of each it tells whose it is and where it runs.
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
            *[indented(line) for line in (*_grouped_notes(implementations), *_grouped_reasons(of))],
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
        lines = [*_grouped_reasons(of)]
        parts += [_where_they_run("sampler", list(registry.samplers.values()), of), *lines, Text()]
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


def _grouped_notes(implementations: Sequence[Implementation]) -> list[Text]:
    names: dict[str, list[str]] = {}
    for each in implementations:
        if each.note:
            names.setdefault(each.note, []).append(each.name)
    return [Text(f"{', '.join(of)}: {note}") for note, of in names.items()]


def _grouped_reasons(reasons: Mapping[str, Mapping[str, str | None]]) -> list[Text]:
    names: dict[tuple[str, str], list[str]] = {}
    for kind in ("cpu", "cuda"):
        for name, by_kind in reasons.items():
            if (reason := by_kind[kind]) is not None:
                names.setdefault((kind, reason), []).append(name)
    return [Text(f"not on {kind}: {', '.join(of)}: {reason}", style="yellow") for (kind, reason), of in names.items()]


def _plugins_table(plugins: Sequence[Plugin]) -> Table:
    table = new_table("plugin", "distribution", "version", "module")
    for plugin in plugins:
        style = "red" if plugin.problems else ""
        table.add_row(*[Text(t, style) for t in (plugin.name, plugin.distribution, plugin.version, plugin.module)])
    return table
