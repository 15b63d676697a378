"""Find NVIDIA's `ptxas`, and find and run `nvdisasm` and `cuobjdump`, which read a cubin and need no GPU."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .sass import Function, parse


class ToolMissing(Exception):
    """A tool of the CUDA toolkit is not installed. The message says how to install it."""


@dataclass(frozen=True)
class Usage:
    """Declared resources of a kernel: registers per thread, bytes of stack and local memory per thread, and bytes of
    static shared memory per block."""

    registers: int
    stack: int
    local: int
    shared: int


def tool(name: str) -> Path:
    """The path of ``nvdisasm``, ``cuobjdump`` or ``ptxas``, from Triton's wheel or else the toolkit.

    Raises ToolMissing.
    """
    return tools(name)[0]


def tools(name: str) -> list[Path]:
    """All that are installed, that of Triton's wheel first: they differ in version. Raises ToolMissing."""
    triton = importlib.util.find_spec("triton")
    packages = (triton.submodule_search_locations or ()) if triton else ()
    folders = [Path(package) / "backends" / "nvidia" / "bin" for package in packages]
    folders += [Path(os.environ[home]) / "bin" for home in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(home)]
    found = [folder / name for folder in folders if os.access(folder / name, os.X_OK)]
    if on_path := shutil.which(name):
        found.append(Path(on_path))
    if found:
        return found
    raise ToolMissing(
        f"{name} was not found: it comes with Triton (pip install triton) and with the CUDA toolkit "
        "(set CUDA_HOME, or put its bin folder on PATH)"
    )


@lru_cache(maxsize=4)
def disassemble(elf: bytes) -> tuple[Mapping[str, Function], Mapping[str, Usage]]:
    """The code and the resource usage of each kernel of a cubin, by symbol.

    Raises ToolMissing, and RuntimeError with the tool's message if it cannot read the cubin.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(elf)
        usage = _usage(_output_of("cuobjdump", "-res-usage", cubin))
        # Without data-flow analysis of indirect branches, which takes half of the time and fails in some versions.
        return parse(_output_of("nvdisasm", "-c", "-ndf", cubin)), usage


def _output_of(name: str, *arguments: str | Path) -> str:
    run = subprocess.run([tool(name), *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{name} failed: {(run.stderr or run.stdout).strip()[-1000:]}")
    return run.stdout


def _usage(text: str) -> dict[str, Usage]:
    found = {}
    for symbol, line in re.findall(r"Function (\S+):\s+(REG:.*)", text):
        value = {key: int(number) for key, number in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", line)}
        found[symbol] = Usage(value["REG"], value["STACK"], value["LOCAL"], value["SHARED"])
    return found
