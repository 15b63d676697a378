"""The measured limits of a device, cached between runs, and the roofline share of a measurement."""

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..agreement.device_memory import free_caches
from ..api.ceilings import RESOURCES, Ceiling
from ..api.messages import describe_error
from ..api.operations import INTERPRETED_ON_CPU, Cost
from ..api.records import MOST_DISTURBED, QUIET, DeviceState, Measurement
from ..results.environment import cache_folder, identity
from ..results.file import ResultsError, write_text
from ..results.source_hash import source_hash
from .clocks import Clock, clock_for
from .cpu_clock import last_level_cache
from .quiet import SHORTEST_INTERVAL, HostLoad
from .work import Work

WARM_UP_LAUNCHES = 3
FEWEST_SAMPLES = 10
SHORTEST_SECONDS = 0.3
"""A ceiling is measured with at least this many samples and for at least this many seconds."""

IMPOSSIBLE = 1.02
"""A share of a limit above this is suspicious: it exceeds the noise of both figures."""


class WorkNotDone(Exception):
    """A ceiling did not do the work that it claims."""


def ceilings_of(
    ceilings: Sequence[Ceiling],
    device: torch.device,
    environment: Mapping[str, Any],
    announce: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """``(rates, problems)`` of `measure_ceilings`, which takes a while and is announced, or from the cache.

    ``environment`` is the result of `describe` for the device. The cache, in ``$XDG_CACHE_HOME`` or ``~/.cache``, has
    one file for each combination of device, driver, software, source of the ceilings and set of available ones. A file
    that is unreadable, changed or of another owner is ignored, and so is a failure to write one. Rates with problems
    are not cached. Rates that other processes disturbed are, and are measured again once the device is quiet: then the
    larger ones stay.
    """
    key = _key(ceilings, device, environment)
    path = _cache_file(key)
    cached, disturbed = _read_cache(path, key) if path else ({}, False)
    if cached and not (disturbed and _is_quiet(device)):
        return cached, ()
    announce()
    states: list[DeviceState] = []
    rates, problems = measure_ceilings(ceilings, device, states.append)
    rates = {resource: max(rate, cached.get(resource, 0.0)) for resource, rate in rates.items()}
    if path and rates and not problems:
        busy = sum((state.others or 0.0) > QUIET for state in states) > MOST_DISTURBED * len(states)
        content = {"key": key, "rates": rates, "disturbed": busy, "sha256": _digest(rates)}
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.parent.stat().st_uid == os.geteuid():
                write_text(path, json.dumps(content, indent=1) + "\n")
        except (OSError, ResultsError):  # the cache only saves time
            pass
    return rates, problems


def measure_ceilings(
    ceilings: Sequence[Ceiling],
    device: torch.device,
    notice: Callable[[DeviceState], object] = lambda state: None,
    *,
    clock: Clock | None = None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The best rate for each resource, in the units of `RESOURCES`, and the problems in words.

    Skips a ceiling that is unavailable or interpreted on the device. A ceiling that raises or fails its check is a
    problem and has no rate. ``notice`` gets what the device says about itself meanwhile.
    """
    clock = clock or clock_for(device)
    rates: dict[str, float] = {}
    problems: list[str] = []
    for ceiling in ceilings:
        try:
            if _unavailable_reason(ceiling, device) is None:
                rate = _rate(ceiling, device, clock, notice)
                rates[ceiling.resource] = max(rate, rates.get(ceiling.resource, 0.0))
                if device.type == "cuda":
                    free_caches()  # the next ceiling or process needs the memory
        except (Exception, SystemExit) as error:
            problems.append(f"ceiling {ceiling.name!r} of {ceiling.resource} by {ceiling.plugin}: {_describe(error)}")
    return {resource: rates[resource] for resource in RESOURCES if resource in rates}, tuple(problems)


def binding(cost: Cost, rates: Mapping[str, float]) -> tuple[str, float] | None:
    """The resource that takes longest at its limit, and its seconds; None if no limit is known.

    All other work may overlap with it, so no implementation can be faster. Bytes both read and written move at the
    rate of ``copy``, the rest at that of ``read`` or ``write``; a related rate replaces one that is unknown.
    """
    read, written = cost.bytes_read, cost.bytes_written
    both = ("copy", "read", "write"), 2 * min(read, written)
    rest = ("read", "copy", "write") if read >= written else ("write", "copy", "read"), abs(read - written)
    transfers: dict[str, float] = {}
    for resources, amount in (both, rest):
        known = next((resource for resource in resources if resource in rates), None)
        if known is not None:
            transfers[known] = transfers.get(known, 0.0) + amount / rates[known]

    seconds = {max(transfers, key=transfers.__getitem__): sum(transfers.values())} if transfers else {}
    for resource, amount in (
        ("fma", cost.flops - cost.matrix_flops),
        (f"{cost.matrix_dtype} matrix", cost.matrix_flops),
        ("exp2", cost.special_calls),
        ("philox", cost.random_words),
    ):
        if resource in rates:
            seconds[resource] = amount / rates[resource]
    return max(seconds.items(), key=lambda item: item[1]) if any(seconds.values()) else None


def cache_bytes(environment: Mapping[str, Any]) -> int:
    """Bytes of the last-level cache of the device that ``environment`` describes."""
    gpu = environment.get("gpu")
    return int(gpu["l2_bytes"]) if gpu else last_level_cache()


def with_share(measurement: Measurement, cost: Cost, rates: Mapping[str, float], cache_bytes: int) -> Measurement:
    """``measurement`` with its binding limit and its share of it: the minimal seconds over the median.

    A share above 1 may be correct. The bandwidth limits are those of memory, and a cache of ``cache_bytes`` may serve
    reads (unless ``cold``) and hold writes beyond the end of the launch. A figure above a limit despite this allowance
    gets a suspicion.
    """
    bound = binding(cost, rates)
    if bound is None or measurement.median <= 0:
        return measurement
    resource, seconds = bound
    share = seconds / measurement.median
    suspicions = measurement.suspicions
    cached_reads = 0 if measurement.mode == "cold" else cache_bytes
    inevitable = replace(
        cost,
        bytes_read=max(0, cost.bytes_read - cached_reads),
        bytes_written=max(0, cost.bytes_written - cache_bytes),
    )
    beyond = binding(inevitable, rates)
    if beyond is not None and beyond[1] / measurement.median > IMPOSSIBLE:
        percent = 100 * beyond[1] / measurement.median
        suspicions += (f"{percent:.0f} % of the {beyond[0]} limit: above the roofline",)
    return replace(measurement, limit=resource, roofline_share=share, suspicions=suspicions)


def _rate(ceiling: Ceiling, device: torch.device, clock: Clock, notice: Callable[[DeviceState], object]) -> float:
    launch, check = ceiling.prepare(device)
    launch()
    _require_done(check)  # before sampling, where another launch could do the work for it
    seconds = median_seconds(launch, clock, notice)
    _require_done(check)
    if seconds <= 0:
        raise WorkNotDone("the clock saw no time pass")
    return ceiling.amount / seconds


def median_seconds(
    launch: Callable[[], object], clock: Clock, notice: Callable[[DeviceState], object] = lambda state: None
) -> float:
    """The median of many cold launches: a measurement is a median too, so a share compares like with like."""

    def watch() -> None:
        if (state := clock.state(0)) is not None:
            notice(state)

    work = Work(launch, watch=watch)
    clock.sample(work, WARM_UP_LAUNCHES)
    begin = clock.now()
    samples: list[float] = []
    while len(samples) < FEWEST_SAMPLES or clock.now() - begin < SHORTEST_SECONDS:
        samples += clock.sample(work, FEWEST_SAMPLES)
    return float(np.median(samples))


def _require_done(check: Callable[[], str | None]) -> None:
    wrong = check()
    if wrong is not None:
        raise WorkNotDone(str(wrong))


def _unavailable_reason(ceiling: Ceiling, device: torch.device) -> str | None:
    if device.type == "cpu" and ceiling.backend in INTERPRETED_ON_CPU:
        return "interpreted on the CPU"
    return ceiling.unavailable(device)


def _describe(error: BaseException) -> str:
    return str(error) if isinstance(error, WorkNotDone) else describe_error(error)


def _key(ceilings: Sequence[Ceiling], device: torch.device, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the rates depend on, as plain values."""
    digest = hashlib.sha256()
    for ceiling in ceilings:
        try:
            available = _unavailable_reason(ceiling, device) is None
        except (Exception, SystemExit):  # it becomes a problem when the ceiling is measured
            available = True
        what = (ceiling.resource, ceiling.name, ceiling.amount, ceiling.plugin, available)
        digest.update(repr((*what, source_hash(ceiling.prepare))).encode())
    return {**identity(environment), "ceilings": digest.hexdigest()[:16]}


def _digest(rates: object) -> str:
    return hashlib.sha256(json.dumps(rates).encode()).hexdigest()


def _cache_file(key: Mapping[str, Any]) -> Path | None:
    if (folder := cache_folder()) is None:
        return None
    device, driver = (key.get(name) for name in ("gpu uuid", "gpu driver"))
    readable = f"{device}-{driver}" if device else key.get("cpu") or "cpu"
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"ceilings-{re.sub(r'[^A-Za-z0-9.]+', '-', str(readable))}-{digest}.json"


def _is_quiet(device: torch.device) -> bool:
    """Whether other processes leave the device alone now."""
    if device.type != "cpu":
        state = clock_for(device).state(0)
        return state is None or (state.others or 0.0) <= QUIET
    load = HostLoad()
    load.begin()
    time.sleep(2 * SHORTEST_INTERVAL)
    load.end()
    return (load.others() or 0.0) <= QUIET


def _read_cache(path: Path, key: Mapping[str, Any]) -> tuple[dict[str, float], bool]:
    """The rates in a cache file, none if there is no valid one; and whether they were disturbed."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read()) if os.fstat(file.fileno()).st_uid == os.geteuid() else None
    except (OSError, ValueError):
        return {}, False
    if not isinstance(content, dict) or content.get("key") != key:
        return {}, False
    rates = content.get("rates")
    if not isinstance(rates, dict) or not rates or content.get("sha256") != _digest(rates):
        return {}, False
    sound = all(
        resource in RESOURCES and isinstance(rate, float) and math.isfinite(rate) and rate > 0
        for resource, rate in rates.items()
    )
    return (rates, bool(content.get("disturbed"))) if sound else ({}, False)
