"""Launches one kernel under NVIDIA's compute-sanitizer, which sees accesses that guard bands do not: reads out of
bounds, and races in shared memory.

The kernel runs in a process of its own: this module is its main program. Each tensor has an allocation of its own
there, without guard bands and without torch's cache, so that the sanitizer knows where the tensor ends.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ..api.operations import Agreement, Case, Implementation, Launch, Operation, Status, Unsupported
from ..api.records import Record
from ..discovery.registry import load_registry
from ..results.environment import toolkit_path
from .plan import Step
from .process import prepare_to_run_kernels
from .trial import record_of

Tool = Literal["memcheck", "racecheck"]

LAUNCHED = "boltzbench: launched"
"""The line that the kernel's process prints last."""
UNSUPPORTED = 3
"""The exit status of the kernel's process if the kernel refuses the case."""
SHOWN = 12
"""Lines of the sanitizer's report that a message shows."""


class SanitizerFailed(Exception):
    """The sanitizer itself does not work on this machine."""


class TooSlow(Exception):
    """The kernel took too long under the sanitizer."""


def compute_sanitizer() -> Path | None:
    """The sanitizer's path: from ``CUDA_HOME``, ``PATH`` or ``/usr/local/cuda``; None if it is not installed."""
    found = shutil.which("compute-sanitizer", path=toolkit_path())
    return Path(found) if found else None


def sanitize(sanitizer: Path, tool: Tool, step: Step, device: torch.device, time_limit: float) -> Record:
    """The record of one launch of a case under ``tool``: its purpose is the tool, its case begins with it.

    Raises SanitizerFailed, and TooSlow after ``time_limit`` seconds.
    """
    program = [sys.executable, "-m", __name__, step.operation.name, step.implementation.name, step.label, str(device)]
    options = ["--tool", tool, "--report-api-errors", "no", "--error-exitcode", "86"]
    command = [str(sanitizer), *options, *program]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = run_whole(command, environment, time_limit, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        raise TooSlow(f"took longer than {time_limit:g} s") from None
    found = _verdict(tool, done.returncode, done.stdout)
    if not found.passed and found.status is not Status.UNAVAILABLE:
        again = shlex.join(["PYTORCH_NO_CUDA_MEMORY_CACHING=1", *command])
        found = Agreement(found.status, f"{found.message}\nAgain: {again}")
    record = record_of(step, found)
    return replace(record, case=f"{tool}: {record.case}", purpose=tool, device=str(device))


def _verdict(tool: Tool, status: int, output: str) -> Agreement:
    report = [line.removeprefix("=========").strip() for line in output.splitlines() if line.startswith("=========")]
    # racecheck also counts hazards that are only warnings.
    pattern = r"^=+ ERROR SUMMARY: (\d+)" if tool == "memcheck" else r"^=+ RACECHECK SUMMARY: .*\((\d+) error"
    summary = re.search(pattern, output, re.MULTILINE)
    if summary and int(summary[1]):
        kind = Status.OUT_OF_BOUNDS if any(line.startswith("Invalid __") for line in report) else Status.ERROR
        return Agreement(kind, "\n".join(line for line in report[:SHOWN] if line))
    lines = output.strip().splitlines()
    if status == UNSUPPORTED:
        return Agreement(Status.UNAVAILABLE, lines[-1] if lines else "")
    if LAUNCHED in lines and summary and status == 0:
        return Agreement(Status.PASSED)
    tail = "\n".join(lines[-SHOWN:])
    if "Traceback (most recent call last):" in lines:
        return Agreement(Status.ERROR, f"the launch under {tool} raised\n{tail}")
    raise SanitizerFailed(f"compute-sanitizer --tool {tool} ended with status {status} and no result: {tail}")


def run_whole(
    command: Sequence[str], environment: Mapping[str, str], time_limit: float, *, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """What a command prints. It and its children are killed when it ends, at the time limit, or if anything is raised.

    Raises subprocess.TimeoutExpired, and OSError if it cannot be started.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=time_limit)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def main(operation: str, implementation: str, label: str, device_name: str) -> int:
    """Launch the kernel once on the case of this label."""
    device = torch.device(device_name)
    prepare_to_run_kernels(device)
    registry = load_registry()
    chosen = registry.operations[operation]
    kernel = next(each for each in registry.implementations_of(operation) if each.name == implementation)
    case: Case = next(each for each in chosen.cases if each.label == label)
    try:
        launch = launch_of(chosen, kernel, case, device)
    except Unsupported as refusal:
        print(" ".join(str(refusal).split()))
        return UNSUPPORTED
    launch()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    print(LAUNCHED)
    return 0


def launch_of(operation: Operation, kernel: Implementation, case: Case, device: torch.device) -> Launch:
    """The prepared launch of a case. Raises Unsupported if the implementation refuses it."""
    inputs = operation.make_inputs(case, device)
    outputs = operation.make_outputs(inputs)
    for name in outputs.keys() & inputs.keys():
        outputs[name].copy_(inputs[name])
    return kernel.prepare(inputs, outputs)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
