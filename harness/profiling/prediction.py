"""Joins what a profiler counted with what `inspect` predicts from the machine code of the same kernel."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..api.operations import Implementation
from .counters import Kernel

Report = Mapping[str, Any]
"""A record of `inspect --json`."""


def predictions(implementations: Iterable[Implementation], arch: str) -> dict[tuple[str, str], list[Report]]:
    """What `inspect` says of the kernels of each (operation, implementation); nothing where it can say nothing.

    It runs in a process of its own, since it imports the plugins.
    """
    chosen = list(implementations)
    names: list[str] = []
    for option, values in (("-o", {each.operation for each in chosen}), ("-i", {each.name for each in chosen})):
        names += [word for value in sorted(values) for word in (option, value)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "inspected.json")
        command = [sys.executable, "-m", "boltzbench.harness", "inspect", *names, "--arch", arch, "--json", str(file)]
        subprocess.run(command, env=os.environ, capture_output=True, check=False)
        if not file.exists():
            return {}
        records: list[Report] = json.loads(file.read_text())["records"]
    found: dict[tuple[str, str], list[Report]] = {}
    for record in records:
        found.setdefault((record["operation"], record["implementation"]), []).append(record)
    return found


def matching_reports(kernel: Kernel, reports: Sequence[Report]) -> list[Report]:
    """The reports on the kernel of this name, of which one variant ran: those with its number of registers, if any."""
    named = [each for each in reports if each.get("symbol") and each["symbol"] == kernel.name]
    exact = [each for each in named if kernel.registers is not None and each["registers"] == kernel.registers]
    return exact or named


def prediction(kernel: Kernel, reports: Sequence[Report]) -> str:
    """The limit and the largest possible share of the memory bandwidth, as `inspect` predicts them; or "-"."""
    found = matching_reports(kernel, reports)
    if not found:
        return "-"
    limits = list(dict.fromkeys(str(each["limit"]) for each in found))
    shares = sorted(each["memory_share"] for each in found if each["memory_share"] is not None)
    if not shares:
        return "/".join(limits)
    low, high = f"{shares[0]:.0%}", f"{shares[-1]:.0%}"
    return f"{'/'.join(limits)}, {low if low == high else f'{low[:-1]}..{high}'}"
