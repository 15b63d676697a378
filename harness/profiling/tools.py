"""The profilers: whether one can run here, its command line, and what it reports of a step."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..api.messages import UsageError
from ..api.operations import Status
from ..discovery.registry import PLUGINS_VARIABLE, Registry
from ..execution.plan import Step
from ..execution.sanitizer import UNSUPPORTED, run_whole
from ..execution.session import Display
from ..execution.worker import Workers
from ..results.environment import toolkit_path
from .counters import METRICS, Kernel, Unreadable, of_nsight_compute, of_nsight_systems, of_proton, of_torch
from .table import Profiled

PROFILERS = ("ncu", "nsys", "proton", "torch")
SHOWN = 6
"""Lines of a failed program's output that a message shows."""


def require_profiler(profiler: str, device: torch.device) -> None:
    """Raise UsageError unless the profiler is here, and the device is a GPU."""
    if device.type != "cuda":
        raise UsageError(f"--profile {profiler} needs a GPU, and the device is {device}")
    if profiler == "proton":
        if not importlib.util.find_spec("triton.profiler"):
            raise UsageError("--profile proton needs Triton 3.2 or newer: pip install triton")
    elif profiler != "torch" and not shutil.which(profiler, path=toolkit_path()):
        what = {"ncu": "Nsight Compute", "nsys": "Nsight Systems"}[profiler]
        raise UsageError(f"{profiler} was not found: install {what} or the CUDA toolkit, or put it on PATH")


def profile(profiler: str, step: Step, device: torch.device, registry: Registry, time_limit: float) -> list[Kernel]:
    """The kernels of one step. Raises Unreadable with the reason if the profiler has none."""
    plugins = ",".join(registry.needed_by(step.implementation))
    environment = {**os.environ, PLUGINS_VARIABLE: plugins, "LC_ALL": "C"}  # numbers with a decimal point
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        program = [sys.executable, "-m", f"{__package__}.launch", request(profiler, step, device, registry, report)]
        output = _output_of(command(profiler, report, program), environment, time_limit)
        if profiler == "nsys":
            statistics = ["--report", "cuda_gpu_kern_sum:mangled", "--format", "csv", "--force-export=true"]
            stats = [_tool("nsys"), "stats", "--quiet", *statistics, f"{report}.nsys-rep"]
            return of_nsight_systems(_output_of(stats, environment, time_limit))
        written = Path(f"{report}.hatchet") if profiler == "proton" else report
        try:
            text = written.read_text(errors="replace")
        except OSError:
            raise Unreadable(f"{profiler} wrote no report: {_tail(output)}") from None
        return {"ncu": of_nsight_compute, "proton": of_proton, "torch": of_torch}[profiler](text)


def profile_all(
    profiler: str,
    steps: Sequence[Step],
    device: torch.device,
    registry: Registry,
    workers: Workers,
    display: Display,
    time_limit: float,
) -> tuple[list[Profiled], bool]:
    """Check each step, and run it under the profiler if it agrees. After Ctrl-C: what is done, and False."""
    found: list[Profiled] = []
    try:
        for step in steps:
            display.step(step)
            record = replace(workers.trial(step).judge(1), device=str(device))
            kernels: list[Kernel] = []
            message = ""
            if record.status is Status.PASSED:
                workers.close()  # a device in exclusive mode takes one process
                try:
                    kernels = profile(profiler, step, device, registry, time_limit)
                except Unreadable as reason:
                    message = str(reason)
            found.append(Profiled(record, tuple(kernels), message))
            display.done()
    except KeyboardInterrupt:
        return found, False
    return found, True


def request(profiler: str, step: Step, device: torch.device, registry: Registry, report: Path) -> str:
    """What `launch.main` needs to know, as JSON."""
    other = registry.other_sizes
    return json.dumps(
        {
            "profiler": profiler,
            "operation": step.operation.name,
            "implementation": step.implementation.name,
            "label": step.label,
            "seed": step.seed,
            "device": str(device),
            "other_sizes": asdict(other) if other else None,
            "report": str(report),
        }
    )


def command(profiler: str, report: Path, program: Sequence[str]) -> list[str]:
    """The command line that runs the program under the profiler, from the first mark to the last."""
    if profiler == "ncu":
        return [
            *(_tool("ncu"), "--csv", "--log-file", str(report), "--print-units", "base"),
            *("--print-kernel-base", "mangled", "--profile-from-start", "off", "--metrics", ",".join(METRICS)),
            *program,
        ]
    if profiler == "nsys":
        return [
            *(_tool("nsys"), "profile", "--capture-range=cudaProfilerApi", "--capture-range-end=stop"),
            *("--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--force-overwrite=true", f"--output={report}"),
            *program,
        ]
    return [*program]


def _tool(name: str) -> str:
    return shutil.which(name, path=toolkit_path()) or name


def _output_of(command: Sequence[str], environment: Mapping[str, str], time_limit: float) -> str:
    name = Path(command[0]).name
    try:
        done = run_whole(command, environment, time_limit)
    except OSError as error:
        raise Unreadable(f"{name} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise Unreadable(f"{name} took longer than {time_limit:g} s") from None
    output = done.stdout + done.stderr
    if done.returncode == UNSUPPORTED:
        raise Unreadable(f"the implementation refuses the case: {_tail(output)}")
    if done.returncode:
        raise Unreadable(f"{name} ended with status {done.returncode}: {_tail(output)}")
    return done.stdout


def _tail(output: str) -> str:
    return "; ".join(line.strip() for line in output.strip().splitlines()[-SHOWN:]) or "it printed nothing"
