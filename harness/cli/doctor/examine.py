"""What `doctor` examines: each function yields findings on one part of this machine."""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...execution.sanitizer import compute_sanitizer
from ...inspection.tools import ToolMissing, tool
from ...results.environment import CUPY_DISTRIBUTIONS, cache_folder, output_of, toolkit_path, unused_gpu

BUSY = 0.5
"""A load of the host above this share of its cores disturbs times."""
ROOM = 1 << 30
"""Bytes that should be free where kernels are cached."""
PROGRAM = "#include <cmath>\n#include <vector>\nint main() { return std::vector<double>(3, std::sqrt(0.0)).empty(); }\n"


@dataclass(frozen=True)
class Finding:
    """``broken`` is there and does not work, ``absent`` is not there and some things do without it, ``note`` disturbs
    times. ``mend`` is the command or step that helps."""

    name: str
    status: Literal["ok", "note", "absent", "broken"]
    text: str
    mend: str = ""


def python() -> Iterator[Finding]:
    import torch

    cuda = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    yield Finding("python", "ok", f"{platform.python_version()} in {sys.prefix}, torch {torch.__version__} {cuda}")
    if importlib.util.find_spec("triton"):
        yield Finding("triton", "ok", importlib.metadata.version("triton"))
    else:
        yield Finding("triton", "absent", "Triton kernels cannot run", f"{sys.executable} -m pip install triton")
    cupy = [f"{name} {importlib.metadata.version(name)}" for name in CUPY_DISTRIBUTIONS if _has(name)]
    if len(cupy) == 1:
        yield Finding("cupy", "ok", cupy[0])
    elif cupy:
        names = " ".join(each.split()[0] for each in cupy)
        mend = f"{sys.executable} -m pip uninstall {names}, then install one"
        yield Finding("cupy", "broken", f"{' and '.join(cupy)} overwrite each other's files", mend)
    else:
        mend = f"{sys.executable} -m pip install 'boltzbench[cuda13]' (cuda12 for a driver for CUDA 12)"
        yield Finding("cupy", "absent", "CUDA C kernels run in the emulator only", mend)


def gpu() -> Iterator[Finding]:
    """The driver, and for each card its clocks and what else runs on it."""
    if not shutil.which("nvidia-smi"):
        if Path("/proc/driver/nvidia/version").exists():
            mend = "install nvidia-utils of the driver's version, or mount it into the container"
            yield Finding("driver", "broken", "the NVIDIA driver is loaded, but nvidia-smi is not on PATH", mend)
        else:
            words = "no NVIDIA driver: kernels for a GPU are checked in an interpreter and an emulator"
            yield Finding("driver", "absent", words, "on a machine with a GPU install the driver of NVIDIA")
        return
    fields = "index,name,driver_version,clocks.sm,clocks.max.sm,clocks.applications.graphics,compute_mode"
    cards = [line.split(", ") for line in (_smi(f"--query-gpu={fields}") or "").splitlines()]
    cards = [each for each in cards if len(each) == fields.count(",") + 1]
    if not cards:
        words = "nvidia-smi finds no GPU" if output_of("nvidia-smi", "-L") is not None else "nvidia-smi fails"
        mend = "run nvidia-smi: it says why; after an update of the driver restart the machine"
        yield Finding("driver", "absent" if "finds" in words else "broken", words, mend)
        return
    reason = unused_gpu()
    if reason:
        words, _, mend = reason.partition(" What helps: ")
        yield Finding("driver", "broken", words, mend or "run nvidia-smi and compare its CUDA version with torch's")
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield Finding("driver", "note", "CUDA_VISIBLE_DEVICES hides every GPU", "unset CUDA_VISIBLE_DEVICES")
    else:
        yield Finding("driver", "ok", f"{cards[0][2]}, and torch can use the GPU")
    for index, name, _, clock, most, locked, mode in cards:
        card = f"gpu {index}"
        yield Finding(card, "ok", f"{name}, compute mode {mode}")
        if locked == most:
            yield Finding(f"{card} clocks", "ok", f"application clocks are set to {locked} MHz")
        else:
            words = f"SM at {clock} of at most {most} MHz; application clocks: {locked}"
            mend = f"sudo nvidia-smi -i {index} --lock-gpu-clocks={_digits(most)} (undo: --reset-gpu-clocks)"
            yield Finding(f"{card} clocks", "note", f"{words}; a driver may change them during a run", mend)
        others = (_smi("--query-compute-apps=pid,process_name,used_memory", f"--id={index}") or "").strip().splitlines()
        if others:
            words = f"{len(others)} other process(es) on it: {'; '.join(others[:3])}"
            yield Finding(f"{card} use", "note", words, "wait for them, or choose another card with --device cuda:N")


def toolkit() -> Iterator[Finding]:
    """The CUDA toolkit and its tools."""
    path = toolkit_path()
    toolkit = "install the CUDA toolkit, or set CUDA_HOME or PATH to it"
    nvcc = shutil.which("nvcc", path=path)
    release = re.search(r"release ([\d.]+)", output_of(nvcc, "--version") or "") if nvcc else None
    if nvcc and not release:
        yield Finding("nvcc", "broken", f"{nvcc} does not state its version", toolkit)
    else:
        words = "no kernel of the suite needs it" if not release else f"{release[1]} ({nvcc})"
        yield Finding("nvcc", "ok" if release else "absent", words, "" if release else toolkit)
    yield _nvrtc()
    for name in ("nvdisasm", "cuobjdump"):
        try:
            yield Finding(name, "ok", str(tool(name)))
        except ToolMissing as error:
            yield Finding(name, "absent", str(error).partition(":")[0], f"{sys.executable} -m pip install triton")
    sanitizer = compute_sanitizer()
    yield _optional("compute-sanitizer", str(sanitizer) if sanitizer else None, "`run` launches no kernel under it")
    for profiler in ("ncu", "nsys"):
        yield _optional(profiler, shutil.which(profiler, path=path), f"`bench --profile {profiler}` cannot run")


def _nvrtc() -> Finding:
    """NVRTC, found as CuPy finds it."""
    pip = f"{sys.executable} -m pip install"
    installed = [name for name in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12") if _has(name)]
    try:
        path = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("nvrtc").abs_path
        if not installed:
            return Finding("nvrtc", "ok", path)
    except ImportError:
        path = ""
    except Exception as error:
        if installed:
            words = f"{installed[0]} is installed, but does not load: {' '.join(str(error).split())}"
            return Finding("nvrtc", "broken", words, f"{pip} --force-reinstall {installed[0]}")
    if installed:
        return Finding("nvrtc", "ok", " ".join([importlib.metadata.version(installed[0]), path]).strip())
    words = "CUDA C kernels cannot be compiled for a GPU, nor inspected"
    return Finding("nvrtc", "absent", words, f"{pip} nvidia-cuda-nvrtc")


def _optional(name: str, found: str | None, without: str) -> Finding:
    if found:
        return Finding(name, "ok", found)
    return Finding(name, "absent", without, "install it with the CUDA toolkit, or put it on PATH")


def compilers() -> Iterator[Finding]:
    """The C++ compiler, which compiles kernels for the CPU and the emulator's, and what Triton needs on a GPU."""
    wanted = os.environ.get("CXX")
    tried = [wanted] if wanted else ["g++", "clang++"]
    found = next((path for name in tried if (path := shutil.which(name))), None)
    install = "apt-get install g++ (Debian, Ubuntu) or dnf install gcc-c++ (Fedora)"
    if found is None:
        words = "native kernels and the emulator of CUDA C cannot run"
        if wanted:
            yield Finding("c++", "broken", f"CXX={wanted} is no program: {words}", f"unset CXX, or {install}")
        else:
            yield Finding("c++", "absent", words, install)
    else:
        with tempfile.TemporaryDirectory() as folder:
            source, program = Path(folder, "a.cpp"), Path(folder, "a.out")
            source.write_text(PROGRAM)
            done = output_of(found, "-std=c++17", "-O1", "-fopenmp", str(source), "-o", str(program))
            works = done is not None and program.exists() and output_of(str(program)) is not None
        lines = (output_of(found, "--version") or "").splitlines()
        if works:
            yield Finding("c++", "ok", f"{lines[0] if lines else found}: compiles with OpenMP")
        else:
            mend = f"unset CXX, or {install}" if wanted else install
            words = f"{found} cannot compile a small C++17 program with OpenMP"
            yield Finding("c++", "broken", words, mend)
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if headers.exists():
        yield Finding("python headers", "ok", str(headers))
    else:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        words = f"{headers} is missing: Triton cannot start kernels on a GPU"
        mend = f"apt-get install python{version}-dev (Debian, Ubuntu) or dnf install python3-devel (Fedora)"
        yield Finding("python headers", "absent", words, mend)


def host() -> Iterator[Finding]:
    """The load of the host, its clock, and the folders that kernels are cached in."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    status: Literal["ok", "note"] = "note" if load > BUSY * cores else "ok"
    mend = "end what else runs: see top" if status == "note" else ""
    yield Finding("load", status, f"{load:.1f} on {cores} cores in the last minute", mend)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    with suppress(OSError):
        name = governor.read_text().strip()
        mend = "" if name == "performance" else "sudo cpupower frequency-set -g performance"
        yield Finding("cpu clock", "note" if mend else "ok", f"the governor is {name}", mend)
    yield _cache_of_kernels()
    if importlib.util.find_spec("triton"):
        folder = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
        if why := _unwritable(folder):
            yield Finding("triton cache", "broken", f"{folder}: {why}", "set TRITON_CACHE_DIR to a folder of your own")
        else:
            yield Finding("triton cache", "ok", str(folder))


def cache_folders() -> list[Path]:
    """Where kernels for the CPU are cached, and where if that cannot be written."""
    fallback = Path(tempfile.gettempdir(), f"boltzbench-{os.geteuid()}")
    return [each for each in (cache_folder(), fallback) if each]


def _cache_of_kernels() -> Finding:
    reasons = []
    for folder in cache_folders():
        if why := _unwritable(folder):
            reasons.append(f"{folder}: {why}")
            continue
        free = shutil.disk_usage(_existing(folder)).free
        mend = "free some space" if free < ROOM else ""
        words = f"{folder}, {free / 1e9:.3g} GB free"
        if reasons:
            return Finding(
                "cache", "note", f"{words}, since {reasons[0]}", "set XDG_CACHE_HOME to a folder of your own"
            )
        return Finding("cache", "note" if mend else "ok", words, mend)
    return Finding("cache", "broken", "; ".join(reasons), "set XDG_CACHE_HOME to a folder of your own")


def _unwritable(folder: Path) -> str:
    """Why files cannot be written to a folder, which may not exist yet; empty if they can."""
    place = _existing(folder)
    if not place.is_dir():
        return f"{place} is no folder"
    if place == folder and place.stat().st_uid != os.geteuid():
        return "it belongs to another user"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"0" * 4096)
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def plugins() -> Iterator[Finding]:
    """What is wrong with plugins."""
    from ...execution.catalogue import read_catalogue

    registry = read_catalogue("cpu")
    for each in registry.plugins:
        for problem in each.problems:
            words = problem.removeprefix(f"{each.label}: ")
            mend = f"mend it, or {sys.executable} -m pip uninstall {each.distribution}"
            yield Finding(f"plugin {each.name}", "broken", f"{words} ({each.distribution} {each.version})", mend)
    counts = f"{len(registry.loaded)} loaded: {len(registry.operations)} operations, {len(registry.samplers)} samplers"
    yield Finding("plugins", "ok", counts)


def _smi(*arguments: str) -> str | None:
    return output_of("nvidia-smi", *arguments, "--format=csv,noheader")


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _has(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
