"""What `list` says about one operation, sampler, target or experiment."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ...api.experiments import Experiment
from ...api.operations import Implementation, Operation
from ...api.samplers import Sampler, Target
from ...discovery.registry import Registry
from ...discovery.signature import Argument, Signature
from ...report.tables import grouped, indented, new_table
from .tables import SAMPLER, Reasons

NAMED = 4
"""Scenarios that a line names."""


def about_operation(
    operation: Operation, registry: Registry, found: Signature, reasons: Reasons, automatic: str, kind: str
) -> RenderableType:
    """Formula, inputs, outputs, sizes, variants, laws, implementations, and where these run.

    ``automatic`` is what ``auto`` is on this machine's device, of this ``kind``.
    """
    definer = next(plugin.label for plugin in registry.plugins if operation.name in plugin.operations)
    implementations = registry.implementations_of(operation.name)
    of = {each.name: reasons[operation.name, each.name] for each in implementations}
    plain = any(not case.scenario for case in operation.cases)
    parts: list[RenderableType] = [
        Text.assemble((operation.name, "bold"), f"  {operation.kind}"),
        indented(Text(f"{operation.summary}\n{operation.formula}\nsource: {operation.source}\nplugin: {definer}")),
        Text(),
    ]
    if found.problem:
        parts.append(indented(Text(found.problem, style="red")))
    for title, arguments in (("input", found.inputs), ("output", found.outputs)):
        if arguments:
            parts += [indented(_arguments(title, arguments, operation, plain)), Text()]
    parts += [indented(_sizes(operation)), Text(), indented(_variants(operation)), Text()]
    if operation.laws:
        parts += [indented(_rows(("law", "statement"), [(law.name, law.statement) for law in operation.laws])), Text()]
    parts.append(indented(_where("implementation", implementations, of)))
    if automatic:
        parts.append(indented(Text(f"auto on {kind}: {automatic}")))
    for line in (*_notes(implementations), *_reasons(of)):
        parts.append(indented(line))
    example = next((each.name for each in implementations if of[each.name][kind] is None), "NAME")
    parts += [
        Text(),
        indented(Text(f"check one: boltzbench check -o {operation.name} -i {example}")),
        indented(Text(f"write one: boltzbench new mine --implementation {operation.name}")),
        Text(),
    ]
    return Group(*parts)


def about_sampler(sampler: Sampler, registry: Registry, reasons: Reasons) -> RenderableType:
    """Source, where it runs, and the targets that it is tested on."""
    of = {sampler.name: reasons[SAMPLER, sampler.name]}
    rows = [(name, sampler.refuses(target) or "yes") for name, target in registry.targets.items()]
    return Group(
        Text.assemble((sampler.name, "bold"), "  sampler"),
        indented(Text(f"{sampler.summary}\nsource: {sampler.source}\nplugin: {sampler.plugin}")),
        Text(),
        indented(_where("sampler", [sampler], of)),
        *map(indented, _reasons(of)),
        Text(),
        indented(_rows(("target", "tested on it"), rows)),
        Text(),
        indented(Text(f"test it: boltzbench validate -s {sampler.name}")),
        Text(),
    )


def about_target(target: Target, registry: Registry) -> RenderableType:
    """Formula, positions, temperatures, and the samplers that are tested on it."""
    shape = ", ".join(map(str, target.shape))
    temperatures = ", ".join(f"{each:.4g}" for each in target.temperatures)
    facts = (
        f"{target.summary}\n{target.formula}\nsource: {target.source}\nplugin: {target.plugin}\n"
        f"kind: {target.kind}; positions: {target.dtype} ({shape}); temperatures: {temperatures}"
    )
    rows = [(name, sampler.refuses(target) or "yes") for name, sampler in registry.samplers.items()]
    return Group(
        Text.assemble((target.name, "bold"), "  target"),
        indented(Text(facts)),
        Text(),
        indented(_rows(("sampler", "tested on it"), rows)),
        Text(),
        indented(Text(f"test on it: boltzbench validate -t {target.name}")),
        Text(),
    )


def about_experiment(experiment: Experiment) -> RenderableType:
    return Group(
        Text.assemble((experiment.name, "bold"), "  experiment"),
        indented(Text(f"{experiment.summary}\nsource: {experiment.source}\nplugin: {experiment.plugin}")),
        Text(),
        indented(Text(f"run it: boltzbench validate -e {experiment.name}")),
        Text(),
    )


def _arguments(title: str, arguments: Sequence[Argument], operation: Operation, plain: bool) -> RenderableType:
    everywhere = {case.scenario for case in operation.cases if case.purpose == "check"}
    rows = []
    for each in arguments:
        name = f"{each.name}, ..." if each.several else each.name
        for place, form in enumerate(each.forms):
            remarks = [each.role] if place == 0 and each.role else []
            if len(form.scenarios) < len(everywhere) and (place or "" not in form.scenarios or not plain):
                remarks.append(f"in {_named(form.scenarios)}")
            rows.append((name if place == 0 else "  or", form.words, "; ".join(remarks)))
    return _rows((title, "type and shape", ""), rows)


def _named(scenarios: Sequence[str]) -> str:
    names = [name or "plain" for name in scenarios]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _sizes(operation: Operation) -> RenderableType:
    rows = []
    for name in dict.fromkeys(name for case in operation.cases for name in case.sizes):
        values = sorted({case.sizes[name] for case in operation.cases if name in case.sizes})
        shown = (
            ", ".join(map(str, values)) if len(values) <= 6 else f"{values[0]} to {values[-1]}, {len(values)} values"
        )
        rows.append((name, shown))
    return _rows(("size", "in its cases"), rows)


def _variants(operation: Operation) -> RenderableType:
    """A row for each scenario of the cases; "plain" has none."""
    rows = []
    for scenario, own in grouped(operation.cases, lambda case: case.scenario).items():
        counts = [str(sum(case.purpose == purpose for case in own) or "") for purpose in ("check", "bench", "real")]
        rows.append((scenario or "plain", *counts, ", ".join(dict.fromkeys(case.dtype for case in own))))
    return _rows(("variant", "check", "bench", "real", "dtypes"), rows)


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    table = new_table(*header)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _where(
    kind: str, things: Sequence[Implementation | Sampler], reasons: Mapping[str, Mapping[str, str | None]]
) -> RenderableType:
    if not things:
        return Text("no implementation is installed", style="yellow")
    table = new_table(kind, "backend", "cpu", "cuda", "plugin")
    for each in things:
        words = ["yes" if reasons[each.name][device] is None else "no" for device in ("cpu", "cuda")]
        cells = [Text(word, style="green" if word == "yes" else "yellow") for word in words]
        table.add_row(Text(each.name), Text(each.backend), *cells, Text(each.plugin))
    return table


def _notes(implementations: Sequence[Implementation]) -> list[Text]:
    notes = grouped((each for each in implementations if each.note), lambda each: each.note)
    return [Text(f"{', '.join(each.name for each in own)}: {note}") for note, own in notes.items()]


def _reasons(reasons: Mapping[str, Mapping[str, str | None]]) -> list[Text]:
    cells = [(kind, of[kind], name) for kind in ("cpu", "cuda") for name, of in reasons.items() if of[kind] is not None]
    return [
        Text(f"not on {kind}: {', '.join(name for *_, name in own)}: {reason}", style="yellow")
        for (kind, reason), own in grouped(cells, lambda each: each[:2]).items()
    ]
