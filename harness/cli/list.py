"""The command `list`: everything the plugins provide, and where it can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import typer

from ..api.operations import Implementation
from ..api.samplers import Sampler
from ..discovery.registry import Registry
from ..execution.catalogue import read_catalogue
from ..report.tables import problem_lines
from ..report.terminal import outputs
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA
from .list_tables import SAMPLER, Reasons, list_tables
from .options import Json


def list_(json_file: Json = None) -> None:
    """List operations, implementations, targets, samplers and experiments, with their plugins and devices."""
    with outputs(json_file) as (console, write_json):
        with ThreadPoolExecutor(1) as pool:  # this process and the one that reads the plugins both import torch
            read = pool.submit(read_catalogue, "auto", where=True)
            device = resolve_device("auto")
            registry = read.result()
        reasons = _reasons_by_device(registry)
        automatic = {
            name: each.automatic(device) if each.automatic else "" for name, each in registry.operations.items()
        }
        console.print(list_tables(registry, reasons, automatic, device.type))
        console.print(problem_lines(registry.problems))
        write_json(json.dumps(_listing(registry, reasons, automatic), indent=1) + "\n")
    raise typer.Exit(1 if registry.problems else 0)


def _reasons_by_device(registry: Registry) -> dict[tuple[str, str], dict[str, str | None]]:
    """For each implementation and sampler: why it cannot run on the CPU and on the GPU of this machine, or None."""
    import torch

    things: list[tuple[tuple[str, str], Implementation | Sampler]] = [
        *[((each.operation, each.name), each) for each in registry.implementations],
        *[((SAMPLER, name), each) for name, each in registry.samplers.items()],
    ]
    devices = torch.device("cpu"), torch.device("cuda", 0)
    return {key: {device.type: each.unavailable(device) for device in devices} for key, each in things}


def _listing(registry: Registry, reasons: Reasons, automatic: Mapping[str, str]) -> dict[str, Any]:
    """The JSON of `list`."""
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
