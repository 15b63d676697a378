"""Decides where Triton kernels run in this process: compiled on a GPU, or interpreted on the CPU.

Triton decides on import: under ``TRITON_INTERPRET=1`` it interprets every kernel with numpy, otherwise it compiles
every kernel. A process therefore does one or the other. Unless the variable is set, a process interprets on a machine
without a usable GPU and compiles on one with a GPU. The interpreter checks correctness; it hides races and int32
overflow.
"""

import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def _choose() -> bool:
    """Decide, before Triton is imported, whether this process interprets; True if it does."""
    chosen = os.environ.get("TRITON_INTERPRET")
    if chosen is None and not torch.cuda.is_available() and "triton" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = chosen = "1"
    return chosen not in (None, "", "0")


INTERPRETS = _choose()
"""True if the Triton kernels of this process are interpreted."""

if INTERPRETS:  # kernels compute exp(-inf) and log(0) on purpose
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"triton\.runtime\.interpreter")


def helper(function: Function) -> Function:
    """``triton.jit`` for functions that kernels call. Interpreted, it returns ``function`` unchanged: the interpreter
    would patch Triton's language at each call, which takes longer than most helpers."""
    if INTERPRETS:
        return function
    import triton

    return cast(Function, triton.jit(function))


@functools.cache
def launch_one_at_a_time() -> None:
    """Let the launches of threads wait for each other where kernels are interpreted.

    The interpreter keeps the number of the current program, and patches Triton's language, for the whole process.
    """
    if not INTERPRETS:
        return
    from triton.runtime.interpreter import GridExecutor

    launch, lock = GridExecutor.__call__, threading.RLock()

    @functools.wraps(launch)
    def alone(*args: object, **kwargs: object) -> object:
        with lock:
            return launch(*args, **kwargs)

    GridExecutor.__call__ = alone


_INSTALLED = importlib.util.find_spec("triton") is not None


def unavailable(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on tensors of ``device`` in this process, or None if they can."""
    if not _INSTALLED:
        return "triton is not installed"
    if device.type == "cuda":
        if INTERPRETS:
            return "this process interprets Triton kernels, because TRITON_INTERPRET is set"
        return missing_compiler("Triton", "C", "CC", ("clang", "gcc")) or missing_headers("Triton")
    if device.type == "cpu":
        return (
            None
            if INTERPRETS
            else "this process compiles Triton kernels for the GPU; start it with TRITON_INTERPRET=1 to interpret them"
        )
    return f"there are no Triton kernels for {device.type} tensors"


@functools.cache
def missing_compiler(user: str, language: str, variable: str, names: tuple[str, ...]) -> str | None:
    """Why ``user`` finds no compiler of ``language``, or None: it takes the one that the environment ``variable``
    names, or the first of ``names`` on the path."""
    chosen = os.environ.get(variable)
    if any(shutil.which(name) for name in ((chosen,) if chosen else names)):
        return None
    if chosen:
        return f"{user} needs a {language} compiler, and {variable} names {chosen!r}, which does not exist"
    return f"{user} needs a {language} compiler, and none is on the path: install {names[-1]}"


@functools.cache
def missing_headers(user: str) -> str | None:
    """Why ``user`` cannot build an extension module for Python, with the package to install, or None."""
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # Debian has no headers in the first
    header = Path(sysconfig.get_paths(scheme)["include"], "Python.h")
    if header.exists():
        return None
    return f"{user} needs Python's headers, and {header} does not exist: install python3-dev"
