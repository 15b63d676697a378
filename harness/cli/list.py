"""The command `list`: everything the plugins provide, a line each; and all about one thing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.console import Group

from ..api.messages import unknown_beside
from ..api.operations import Implementation
from ..api.samplers import Sampler
from ..discovery.registry import Registry
from ..discovery.signature import Signature
from ..execution.catalogue import read_described
from ..report.tables import problem_lines
from ..report.terminal import outputs
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA
from .listing.details import about_experiment, about_operation, about_sampler, about_target
from .listing.tables import SAMPLER, Reasons, list_tables
from .options import Json


def _names(short: str, kind: str) -> Any:
    return typer.Option(short, f"--{kind}", metavar="NAME", help=f"All about this {kind}; repeatable.")


def list_(
    operations: Annotated[list[str] | None, _names("-o", "operation")] = None,
    samplers: Annotated[list[str] | None, _names("-s", "sampler")] = None,
    targets: Annotated[list[str] | None, _names("-t", "target")] = None,
    experiments: Annotated[list[str] | None, _names("-e", "experiment")] = None,
    json_file: Json = None,
) -> None:
    """List operations, samplers, targets and experiments, a line each; with a name, all about it."""
    chosen = {"operation": operations, "sampler": samplers, "target": targets, "experiment": experiments}
    with outputs(json_file) as (console, write_json):
        with ThreadPoolExecutor(1) as pool:  # this process and the one that reads the plugins both import torch
            read = pool.submit(read_described, "auto", operations or (), pairs=bool(samplers or targets))
            device = resolve_device("auto")
            registry, signatures = read.result()
        _require_known(registry, chosen)
        some = any(chosen.values())
        if some:
            registry = _only(registry, chosen)
        reasons = _reasons_by_device(registry)
        automatic = {
            name: each.automatic(device) if each.automatic else "" for name, each in registry.operations.items()
        }
        if some:
            parts = [
                *(
                    about_operation(each, registry, signatures[name], reasons, automatic[name], device.type)
                    for name, each in registry.operations.items()
                    if name in (operations or ())
                ),
                *(about_sampler(registry.samplers[name], registry, reasons) for name in samplers or ()),
                *(about_target(registry.targets[name], registry) for name in targets or ()),
                *(about_experiment(registry.experiments[name]) for name in experiments or ()),
            ]
            console.print(Group(*parts))
        else:
            console.print(list_tables(registry, reasons, device.type))
        console.print(problem_lines(registry.problems))
        write_json(json.dumps(_listing(registry, reasons, automatic, signatures), indent=1) + "\n")
    raise typer.Exit(1 if registry.problems and not some else 0)


def _require_known(registry: Registry, chosen: Mapping[str, Sequence[str] | None]) -> None:
    """Raise UnknownName for a name that no plugin has registered, beside the problems of plugins."""
    for kind, names in chosen.items():
        known = getattr(registry, f"{kind}s")
        for name in names or ():
            if name not in known:
                raise unknown_beside(registry.problems, kind, name, known)


def _only(registry: Registry, chosen: Mapping[str, Sequence[str] | None]) -> Registry:
    """What is chosen, what belongs to it (implementations; all targets of a sampler, all samplers of a target), and the
    problems of those plugins alone that it comes from."""
    operations, samplers, targets, experiments = (set(chosen[kind] or ()) for kind in chosen)
    found = replace(
        registry,
        operations={name: each for name, each in registry.operations.items() if name in operations},
        implementations=tuple(each for each in registry.implementations if each.operation in operations),
        samplers={name: each for name, each in registry.samplers.items() if name in samplers or targets},
        targets={name: each for name, each in registry.targets.items() if name in targets or samplers},
        experiments={name: each for name, each in registry.experiments.items() if name in experiments},
    )
    labels = {
        *(each.plugin for each in found.implementations),
        *(each.plugin for each in found.samplers.values()),
        *(each.plugin for each in found.targets.values()),
        *(each.plugin for each in found.experiments.values()),
    }
    kept = tuple(each for each in registry.plugins if each.label in labels or operations & {*each.operations})
    return replace(found, plugins=kept)


def _reasons_by_device(registry: Registry) -> dict[tuple[str, str], dict[str, str | None]]:
    """For each implementation and sampler: why it cannot run on the CPU and on the GPU of this machine, or None."""
    import torch

    things: list[tuple[tuple[str, str], Implementation | Sampler]] = [
        *[((each.operation, each.name), each) for each in registry.implementations],
        *[((SAMPLER, name), each) for name, each in registry.samplers.items()],
    ]
    devices = torch.device("cpu"), torch.device("cuda", 0)
    return {key: {device.type: each.unavailable(device) for device in devices} for key, each in things}


def _listing(
    registry: Registry, reasons: Reasons, automatic: Mapping[str, str], signatures: Mapping[str, Signature]
) -> dict[str, Any]:
    """The JSON of `list`. Operations that were asked for have a ``signature``."""
    device = resolve_device("auto")
    definers = {name: plugin.label for plugin in registry.plugins for name in plugin.operations}
    operations = [
        {
            "name": each.name,
            "summary": each.summary,
            "formula": each.formula,
            "source": each.source,
            "kind": each.kind,
            "plugin": definers[each.name],
            "automatic": automatic[each.name],
            "cases": [{"label": case.label, "purpose": case.purpose} for case in each.cases],
            "laws": [{"name": law.name, "statement": law.statement} for law in each.laws],
        }
        | ({"signature": asdict(signatures[each.name])} if each.name in signatures else {})
        for each in registry.operations.values()
    ]
    records = []
    for each in registry.implementations:
        unavailable = reasons[each.operation, each.name]
        here = unavailable[device.type]
        records.append(
            {
                "operation": each.operation,
                "implementation": each.name,
                "backend": each.backend,
                "case": "",
                "plugin": each.plugin,
                "note": each.note,
                "status": "available" if here is None else "unavailable",
                "message": here or "",
                "unavailable": unavailable,
            }
        )
    return {
        "schema": SCHEMA,
        "status": "complete",
        "environment": describe(device),
        "operations": operations,
        "records": records,
        "targets": [
            {
                name: getattr(each, name)
                for name in ("name", "summary", "formula", "source", "kind", "shape", "dtype", "temperatures", "plugin")
            }
            for each in registry.targets.values()
        ],
        "samplers": [
            {name: getattr(each, name) for name in ("name", "summary", "source", "backend", "plugin")}
            | {"unavailable": reasons[SAMPLER, each.name]}
            for each in registry.samplers.values()
        ],
        "experiments": [
            {name: getattr(each, name) for name in ("name", "summary", "source", "plugin")}
            for each in registry.experiments.values()
        ],
        "plugins": [asdict(plugin) for plugin in registry.plugins],
        "problems": registry.problems,
    }
