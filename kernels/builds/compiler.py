"""The C++ compiler: which one, its version, and how it is run."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


class CompilerNotFoundError(RuntimeError):
    """No C++ compiler on this machine."""


def compiler() -> str:
    """The path of the C++ compiler: $CXX if set, else g++, else clang++. Raises CompilerNotFoundError."""
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["g++", "clang++"]:
        path = shutil.which(name)
        if path is not None:
            return path
    tried = f"CXX={wanted} is not an executable" if wanted else "neither g++ nor clang++ is on PATH"
    raise CompilerNotFoundError(
        f"CUDA C kernels on CPU tensors need a C++17 compiler, but {tried}. "
        "Install one (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++) or set CXX."
    )


@functools.cache
def compiler_version(path: str) -> str:
    """What the compiler says of its version."""
    return run_compiler([path, "--version"]).stdout


def include_options(folders: Sequence[Path]) -> list[str]:
    """To include headers of ``folders``. ``__FILE__`` of a file in them is its path below its folder, so that what is
    compiled does not depend on where the folders lie.
    """
    return [option for folder in folders for option in (f"-I{folder}", f"-fmacro-prefix-map={folder}/=")]


def run_compiler(command: Sequence[str], temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the compiler, with its own temporary files in the folder ``temporary``.

    It runs without LD_PRELOAD, so that it does not itself run under the sanitizer.
    """
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    if temporary is not None:
        environment["TMPDIR"] = str(temporary)
    return subprocess.run(command, capture_output=True, text=True, env=environment)
