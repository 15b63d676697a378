"""The environment of a run: its device, software and source."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import pwd
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.messages import UnknownName, UsageError, printable, unknown
from .source_hash import files_hash

if TYPE_CHECKING:
    import torch

CUPY_DISTRIBUTIONS = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")
"""The distributions of CuPy. A machine should have at most one."""

IDENTITY = (
    *("device", "gpu uuid", "gpu driver", "gpu cuda", "cpu", "cores", "threads"),
    *("python", "torch", "triton", "cupy", "nvrtc", "harness"),
)
"""The fields that must agree in one run; "gpu uuid" is ``uuid`` inside ``gpu``. The commit and local changes are
excluded, because each record has the hash of its own source."""


TORCH_FOR_DRIVER = {12: "cu126", 13: "cu130"}
"""The folder of download.pytorch.org with the torch that every driver for this major version of CUDA runs."""


class UnknownDevice(UnknownName):
    """A device that this machine lacks. The message gives similar names or the driver's reason."""


def resolve_device(text: str | None) -> torch.device:
    """The device named ``text``: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` or None is the first usable GPU, else the CPU.

    A GPU has its index. If ``auto`` is the CPU although this machine has a GPU, a line on stderr says why, once in each
    process. Raises UnknownDevice.
    """
    import torch

    if text in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        _report_unused_gpu()
        return torch.device("cpu")
    if text == "cpu":
        return torch.device("cpu")
    if text == "all" or "," in (text or ""):
        raise UnknownDevice(f"--device {text}: this takes one device; check, bench and validate take several")
    match = re.fullmatch(r"cuda(?::(\d+))?", text or "")
    if match is None:
        raise UnknownDevice(str(unknown("device", text or "", ["auto", "cpu", "cuda", *_gpu_names()])))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hint = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    if not torch.cuda.is_available():
        raise UnknownDevice(f"device {text!r} cannot be used: {_why_unused() or cuda_unusable()}{hint}")
    index = int(match[1] or 0)
    if index >= torch.cuda.device_count():
        raise UnknownDevice(f"unknown device {text!r}: this machine has {', '.join(_gpu_names())}{hint}")
    return torch.device("cuda", index)


def resolve_devices(text: str) -> list[torch.device]:
    """The devices named ``text``: one as in `resolve_device`, several between commas, or ``all`` GPUs of this machine.

    If no GPU can be used, ``all`` is the CPU, and a line on stderr says so. Several devices are of one kind. Raises
    UnknownDevice, and UsageError for devices of several kinds or one that is named twice.
    """
    import torch

    if text == "all" and not torch.cuda.is_available():
        words = unused_gpu() or "no GPU can be used here: everything runs on the CPU"
        print(printable(f"--device all: {words}"), file=sys.stderr)
        return [torch.device("cpu")]
    names = _gpu_names() if text == "all" else [name.strip() for name in text.split(",")]
    if len(names) == 1:
        return [resolve_device(names[0])]
    devices = [resolve_device(name) for name in names]
    if "auto" in names or "cpu" in names:
        raise UsageError(f"--device {text}: several devices are GPUs, such as cuda:0,cuda:1, or all")
    for device in devices:
        if devices.count(device) > 1:
            raise UsageError(f"--device {text}: {device} is named twice")
    kinds: dict[str, list[str]] = {}
    for device in devices:
        kinds.setdefault(torch.cuda.get_device_properties(device).name, []).append(str(device))
    if len(kinds) > 1:
        choices = " or ".join(f"{','.join(own)} ({kind})" for kind, own in kinds.items())
        raise UsageError(
            f"--device {text}: times of {len(kinds)} kinds of GPU cannot stand in one run: choose --device {choices}"
        )
    return devices


def cuda_unusable() -> str | None:
    """The driver's reason why torch cannot use a CUDA device; None if it can."""
    import torch

    if torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (AssertionError, RuntimeError) as error:  # torch built without CUDA; no driver, no device, a version clash
        return " ".join(str(error).split())
    return "torch.cuda.is_available() is False, and the driver gives no reason"


@functools.cache
def _report_unused_gpu() -> None:
    if (reason := unused_gpu()) is not None:
        print(printable(reason), file=sys.stderr)


def unused_gpu() -> str | None:
    """A sentence: why torch cannot use the GPU of this machine, with the command that helps. None if it can, if the
    driver finds no GPU, or if CUDA_VISIBLE_DEVICES hides every GPU."""
    reason = _why_unused()
    return reason and f"this machine has a GPU, but everything runs on the CPU: {reason}"


def _why_unused() -> str | None:
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or torch.cuda.is_available() or "GPU " not in (output_of("nvidia-smi", "-L") or ""):
        return None
    driver, built = _driver_cuda(), torch.version.cuda
    if driver is None or (built is not None and float(driver) >= int(float(built))):
        return cuda_unusable()
    needs = "is built without CUDA" if built is None else f"needs CUDA {built}"
    command = "install a newer driver"
    if folder := TORCH_FOR_DRIVER.get(int(float(driver))):
        version, index = torch.__version__.split("+")[0], f"https://download.pytorch.org/whl/{folder}"
        command = f"{sys.executable} -m pip install --force-reinstall torch=={version} --index-url {index}"
    return f"the driver supports CUDA {driver}, but torch {torch.__version__} {needs}. What helps: {command}"


def memory_bytes(device: torch.device) -> int:
    """The memory of a GPU; or that of this machine, or of the control group that this process is limited to."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # absent, or "max"
            whole = min(whole, int(Path(file).read_text()))
    return whole


def describe(device: torch.device) -> dict[str, Any]:
    """Everything about this machine that affects measured times, as plain values for the results file."""
    import torch

    commit, dirty = _source_state(Path(__file__).resolve().parents[2])
    cupy = [f"{name} {found}" for name in CUPY_DISTRIBUTIONS if (found := _version(name))]
    return {
        "boltzbench": _version("boltzbench") or "not installed",
        "commit": commit,
        "dirty": dirty,
        "device": str(device),
        "gpu": describe_gpu(device),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": _platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton") or "not installed",
        "cupy": ", ".join(cupy) or "not installed",
        "nvrtc": _version("nvidia-cuda-nvrtc") or _version("nvidia-cuda-nvrtc-cu12") or "not installed",
        "harness": harness_hash(),
    }


def describe_all(devices: Sequence[torch.device]) -> dict[str, Any]:
    """`describe` of the first device, but ``device`` names all of them, as ``--device`` takes them."""
    return {**describe(devices[0]), "device": ",".join(map(str, devices))}


JUDGING_AND_TIMING = ("api", "agreement", "timing", "execution")
"""The folders of the harness that decide how a kernel is checked and timed."""


def harness_hash() -> str:
    """16 hexadecimal digits for the source that checks and times kernels."""
    harness = Path(__file__).parents[1]
    files = [path for room in JUDGING_AND_TIMING for path in (harness / room).rglob("*.py")]
    return files_hash({path.relative_to(harness).as_posix(): path for path in files})


def identity(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `IDENTITY` in a run's environment; None for a missing one."""
    found = {}
    for field in IDENTITY:
        of_gpu = field.startswith("gpu ")
        holder = (environment.get("gpu") or {}) if of_gpu else environment
        found[field] = holder.get(field.removeprefix("gpu "))
    return found


def device_name(environment: Mapping[str, Any]) -> str:
    """The kind of device of a run's environment. Times of two runs are comparable if it is the same."""
    gpu = environment.get("gpu")
    if gpu:
        return str(gpu.get("name"))
    cpu, cores, threads = (environment.get(field) for field in ("cpu", "cores", "threads"))
    return f"the CPU {cpu} (cores: {cores}, threads: {threads})"


def cache_folder() -> Path | None:
    """The user's folder for caches of boltzbench. None without an absolute path: a relative one would depend on the
    working directory."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        try:
            home = os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            return None
        cache = os.path.join(home, ".cache")
    return Path(cache, "boltzbench") if os.path.isabs(cache) else None


def toolkit_path() -> str:
    """PATH, after the CUDA toolkit that CUDA_HOME or CUDA_PATH names and before the one in ``/usr/local/cuda``."""
    homes = [f"{os.environ[name]}/bin" for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    return os.pathsep.join([*homes, os.environ.get("PATH", os.defpath), "/usr/local/cuda/bin"])


def commit_of(environment: Mapping[str, Any]) -> str:
    """The commit of a run's environment, ten digits of it, and whether there were local changes; or the version."""
    commit = environment.get("commit")
    if not commit:
        return f"boltzbench {environment.get('boltzbench', 'of an unknown version')}"
    return f"{str(commit)[:10]}{' with local changes' if environment.get('dirty') else ''}"


def card_names(properties: Any) -> tuple[str, ...]:
    """The names by which NVML and nvidia-smi find the card of a CUDA device with these properties: its UUID, then its
    PCI address. A slice of a card (MIG) has a UUID of its own, which is not a card's, and the address of its card."""
    uuid = str(properties.uuid)
    names = [uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"]
    if hasattr(properties, "pci_bus_id"):  # absent from older versions of torch
        where = properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id
        names.append("{:08X}:{:02X}:{:02X}.0".format(*where))
    return tuple(names)


@functools.cache
def is_exclusive(device: torch.device) -> bool:
    """Whether only one process at a time can use the device: its compute mode is Exclusive_Process."""
    import torch

    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    says = _driver_says(card_names(torch.cuda.get_device_properties(device)))
    return bool(says["compute_mode"] == "Exclusive_Process")


def _gpu_names() -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)]


def describe_gpu(device: torch.device) -> dict[str, Any] | None:
    """The part ``gpu`` of `describe`: None for a CPU."""
    import torch

    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "uuid": str(properties.uuid),
        "cuda": torch.version.cuda,
        **_driver_says(card_names(properties)),
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "compute_capability": f"{properties.major}.{properties.minor}",
    }


def _driver_says(names: tuple[str, ...]) -> dict[str, Any]:
    """The driver's version, the newest CUDA that it supports, the compute mode and the limits of the card with the
    first of these names that nvidia-smi knows; None for an unknown value."""
    query = "--query-gpu=driver_version,compute_mode,clocks.max.sm,clocks.max.memory,power.limit"
    lines = (output_of("nvidia-smi", f"--id={name}", query, "--format=csv,noheader,nounits") or "" for name in names)
    known = next((line for line in lines if line.count(",") == 4), ",,,,")
    driver, mode, sm, memory, power = (part.strip() for part in known.split(","))
    return {
        "driver": driver or None,
        "driver_cuda": _driver_cuda(),
        "compute_mode": mode or None,
        "max_sm_clock_mhz": _number(sm),
        "max_memory_clock_mhz": _number(memory),
        "power_limit_w": _number(power),
    }


def _driver_cuda() -> str | None:
    """The newest CUDA that the driver supports."""
    found = re.search(r"CUDA Version\s*:\s*([\d.]+)", output_of("nvidia-smi", "--version") or "")
    return found[1] if found else None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None  # "[N/A]" if the card does not report it


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _platform() -> str:
    """Such as "Linux-x86_64-with-glibc2.36": without the kernel's version, which may name a private build."""
    libc = "".join(platform.libc_ver())
    return "-".join([platform.system(), platform.machine(), *(["with", libc] if libc else [])])


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


def _source_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the source tree at ``root`` and whether it has local changes; (None, None) if not a checkout."""
    if not (root / ".git").exists():
        return None, None
    commit = output_of("git", "-C", str(root), "rev-parse", "HEAD")
    # Without optional locks, which could disturb a git command of the user.
    status = output_of("git", "-C", str(root), "--no-optional-locks", "status", "--porcelain")
    return commit, None if commit is None or status is None else bool(status)


def output_of(*command: str) -> str | None:
    """The output of a command, or None if it is missing, fails, or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
