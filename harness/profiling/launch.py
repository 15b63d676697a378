"""The program that runs under a profiler: it prepares one case, warms up, and marks the launches that are profiled.

The marks are an NVTX range and the calls that start and stop the profiler; Proton and torch.profiler run in here.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ..api.operations import Case, Unsupported
from ..discovery.axes import with_other_sizes
from ..discovery.registry import OtherSizes, load_registry
from ..execution.plan import find_subject
from ..execution.process import prepare_to_run_kernels
from ..execution.sanitizer import UNSUPPORTED, launch_of

WARM_UPS = 3
LAUNCHES = {"ncu": 1, "nsys": 10, "proton": 10, "torch": 10}
"""Profiled launches: ncu itself repeats a launch for each group of counters."""


def main(text: str) -> int:
    """Launch the case that the JSON ``text`` describes: see `tools.request`."""
    wanted: dict[str, Any] = json.loads(text)
    device = torch.device(wanted["device"])
    prepare_to_run_kernels(device)
    other_sizes = OtherSizes(**wanted["other_sizes"]) if wanted["other_sizes"] else None
    registry = with_other_sizes(load_registry(), other_sizes)
    operation = registry.operations[wanted["operation"]]
    (kernel,) = (each for each in registry.implementations_of(operation.name) if each.name == wanted["implementation"])
    case = find_subject(operation, wanted["label"], False)
    assert isinstance(case, Case)
    try:
        launch = launch_of(operation, kernel, replace(case, seed=wanted["seed"]), device)
    except Unsupported as refusal:
        print(" ".join(str(refusal).split()))
        return UNSUPPORTED
    for _ in range(WARM_UPS):
        launch()
    _wait(device)
    with _marked(wanted["profiler"], f"{operation.name} {kernel.name} {case.label}", wanted["report"]):
        for _ in range(LAUNCHES[wanted["profiler"]]):
            launch()
        _wait(device)
    return 0


@contextmanager
def _marked(profiler: str, name: str, report: str) -> Iterator[None]:
    if profiler == "proton":
        import triton.profiler as proton

        proton.start(report, context="shadow")
        with proton.scope(name):
            yield
        proton.finalize()
        return
    if profiler == "torch":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
            yield
        trace.export_chrome_trace(report)
        return
    cuda: Any = torch.cuda  # its profiler has no types
    cuda.profiler.start()
    cuda.nvtx.range_push(name)
    yield
    cuda.nvtx.range_pop()
    cuda.profiler.stop()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
