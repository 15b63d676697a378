"""Joins what a profiler counted with what `inspect` predicts from the machine code of the same kernel."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..api.operations import Implementation
from ..inspection.architectures import device_of
from .counters import Kernel

Report = Mapping[str, Any]
"""A record of `inspect --json`, and the ``device`` that it predicts for."""


def predictions(
    implementations: Iterable[Implementation], gpu: Mapping[str, Any]
) -> dict[tuple[str, str], list[Report]]:
    """What `inspect` says of the kernels of each (operation, implementation); nothing where it can say nothing.

    It predicts for the device of this name, or for the reference device of its architecture. It runs in a process of
    its own, since it imports the plugins.
    """
    chosen = list(implementations)
    names: list[str] = []
    for option, values in (("-o", {each.operation for each in chosen}), ("-i", {each.name for each in chosen})):
        names += [word for value in sorted(values) for word in (option, value)]
    device = device_of(str(gpu.get("name", "")))
    capability = str(gpu.get("compute_capability", "")).replace(".", "")
    names += ["--device", device] if device else ["--arch", f"sm_{capability}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "inspected.json")
        command = [sys.executable, "-m", "boltzbench.harness", "inspect", *names, "--json", str(file)]
        subprocess.run(command, env=os.environ, capture_output=True, check=False)
        if not file.exists():
            return {}
        whole = json.loads(file.read_text())
    named = {each["name"]: each["device"] for each in whole["architectures"]}
    found: dict[tuple[str, str], list[Report]] = {}
    for record in whole["records"]:
        one = {**record, "device": named[record["arch"]]}
        found.setdefault((record["operation"], record["implementation"]), []).append(one)
    return found


def matching_reports(kernel: Kernel, reports: Sequence[Report]) -> list[Report]:
    """The reports on the kernel of this name, of which one variant ran: those with its number of registers, if any."""
    named = [each for each in reports if each.get("symbol") and kernel.name in _names(each["symbol"])]
    exact = [each for each in named if kernel.registers is not None and each["registers"] == kernel.registers]
    return exact or named


def _names(symbol: str) -> tuple[str, str]:
    """The symbol, and the C++ name that torch.profiler shows for it."""
    return symbol, torch._C._demangle(symbol)


def expectation(kernel: Kernel, reports: Sequence[Report]) -> dict[str, Any] | None:
    """The rate that `inspect` expects of the kernel, or None.

    Of several variants that may have run, the interval covers those of all, and the rate is in the middle of them.
    """
    found = [each for each in matching_reports(kernel, reports) if each.get("prediction")]
    if len({each["unit"] for each in found}) != 1:
        return None
    guesses = [each["prediction"] for each in found]
    rates = [each["rate"] for each in guesses]
    return {
        "kernel": " or ".join(dict.fromkeys(each["case"] for each in found)),
        "device": found[0]["device"],
        "unit": found[0]["unit"],
        "rate": (min(rates) * max(rates)) ** 0.5,
        "low": min(each["low"] for each in guesses),
        "high": max(each["high"] for each in guesses),
        "decides": " or ".join(dict.fromkeys(each["decides"] for each in guesses)),
    }


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
