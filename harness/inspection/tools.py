"""Find NVIDIA's `ptxas`, and find and run `nvdisasm` and `cuobjdump`, which read a cubin and need no GPU."""

import gzip
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..results.environment import cache_folder
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

    `nvdisasm` takes a third of a second for the smallest cubin, so its output is kept in the user's cache. A file there
    that is damaged or of another owner is ignored, and so is a failure to write one.

    Raises ToolMissing, and RuntimeError with the tool's message if it cannot read the cubin.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(elf)
        usage = _usage(_output_of("cuobjdump", "-res-usage", cubin))
        kept = _cache_file(elf)
        listing = _kept(kept) if kept else None
        if listing is None:
            # Without data-flow analysis of indirect branches, which takes half of the time and fails in some versions.
            listing = _output_of("nvdisasm", "-c", "-ndf", cubin)
            if kept:
                _keep(kept, listing)
        return parse(listing), usage


def _cache_file(elf: bytes) -> Path | None:
    """Where the listing of a cubin by this version of `nvdisasm` is kept."""
    program = tool("nvdisasm")
    state = program.stat()
    key = hashlib.sha256(f"{program} {state.st_size} {state.st_mtime_ns}\n".encode() + elf).hexdigest()
    folder = cache_folder()
    return folder / "sass" / f"{key}.gz" if folder else None


def _kept(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            return gzip.decompress(file.read()).decode()  # with a checksum
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None


def _keep(path: Path, listing: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid == os.geteuid():
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(gzip.compress(listing.encode(), 6, mtime=0))
            os.replace(file.name, path)
    except OSError:  # the cache only saves time
        pass


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
