"""Builds and calls the kernels of the CPU: C++ files, compiled for this machine on their first call.

A file defines functions ``KERNEL void name(...)``. Their parameters are pointers, ``i64`` and ``double``, the last
one is ``int threads``. README.md says what the headers of this room offer.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import platform
import re
import threading
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..builds.cache import compiled
from ..builds.compiler import CompilerNotFoundError, compiler, compiler_version, include_options
from ..cuda_module import STREAMS, with_includes
from ..philox import round_keys

_HEADERS = Path(__file__).resolve().parent
_ARCHITECTURE = "-march=native"
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-fopenmp",
    "-ffp-contract=off",  # a * b + c rounds twice, as written; fma rounds once
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-strict-aliasing",
    "-fvisibility=hidden",
    "-fno-plt",
    "-w",
)

Argument = torch.Tensor | ctypes.Structure | int | float | None

_TYPES: dict[str, Any] = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_double}
_DECLARATION = re.compile(r"^KERNEL void (\w+)\(([^)]*)\)", re.MULTILINE)


class Keys(ctypes.Structure):
    """`Keys` in random.hpp."""

    _fields_ = (("low", ctypes.c_uint32 * 10), ("high", ctypes.c_uint32 * 10))

    @classmethod
    def of(cls, seed: int) -> Keys:
        low, high = zip(*round_keys(seed), strict=True)
        return cls(low, high)


class NativeCompileError(RuntimeError):
    """A C++ kernel file does not compile on this machine. Attributes: `source`, `log` (the compiler's output)."""

    def __init__(self, source: Path, log: str) -> None:
        super().__init__(f"{source} does not compile: {log}")
        self.source, self.log = source, log


def unavailable(device: torch.device) -> str | None:
    """Why C++ kernels cannot run on tensors of ``device``, or None if they can.

    The first call on a machine compiles a small file, to see that the compiler has OpenMP and can write to the cache.
    """
    if device.type != "cpu":
        return f"native kernels run on CPU tensors, not on {device.type} tensors"
    return _broken()


def compiler_name() -> str:
    """The compiler and its version, in a line."""
    version = compiler_version(compiler()).splitlines()
    return version[0] if version else compiler()


@functools.cache
def _broken() -> str | None:
    try:
        NativeModule(_HEADERS / "probe.cpp").library()
    except CompilerNotFoundError as error:
        return str(error).replace("CUDA C kernels on CPU tensors", "native kernels")
    except NativeCompileError as error:
        return f"the C++ compiler {compiler()} failed on a test file: {_first_line(error.log)}"
    except OSError as error:
        return f"native kernels cannot be built or loaded: {error}"
    return None


def _first_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no message")


def build_all(package: str) -> None:
    """Build the C++ files of ``package`` that are not in the cache. Several threads may build at once.

    Raises NativeCompileError, CompilerNotFoundError.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for source in sorted(Path(folder).glob("*.cpp")):
            _shared_object(source.resolve())


class NativeModule:
    """The functions of one C++ file. Any thread may call them; torch's number of threads limits theirs."""

    def __init__(self, source: Path) -> None:
        self.source = source.resolve()
        self._lock = threading.Lock()
        self._library: ctypes.CDLL | None = None
        self._entries: dict[str, Any] = {}

    def call(self, function: str, *arguments: Argument) -> None:
        """Call a function of the file, which has finished on return.

        Passes a tensor as the address of its first element (the caller checks dtype and contiguity), None as a null
        pointer, a ctypes.Structure by its address, an int as ``i64``, a float as ``double``.

        Raises TypeError if the arguments do not match the function's parameters, ValueError for a tensor that is not on
        the CPU, NativeCompileError, CompilerNotFoundError.
        """
        kinds = self.functions[function]
        if len(kinds) != len(arguments):
            raise TypeError(f"{function} of {self.source.name} takes {len(kinds)} arguments, got {len(arguments)}")
        values = [_value(function, i, kind, each) for i, (kind, each) in enumerate(zip(kinds, arguments, strict=True))]
        entry = self._entries.get(function) or self._entry(function)
        entry(*values, torch.get_num_threads())

    def _entry(self, function: str) -> Any:
        """The function in the shared object, which converts its arguments itself."""
        entry: Any = self.library()[function]
        entry.argtypes = [*(_TYPES[kind] for kind in self.functions[function]), ctypes.c_int]
        entry.restype = None
        self._entries[function] = entry
        return entry

    @functools.cached_property
    def functions(self) -> dict[str, str]:
        """The kinds of each function's parameters but the last: p pointer, i integer, f floating point."""
        declared = _DECLARATION.findall(self.source.read_text())
        return {name: _kinds(self.source, name, parameters) for name, parameters in declared}

    def library(self) -> ctypes.CDLL:
        """The shared object, built if no process has built it on this machine before."""
        with self._lock:
            if self._library is None:
                self._library = ctypes.CDLL(str(_shared_object(self.source)))
            return self._library


def _kinds(source: Path, name: str, parameters: str) -> str:
    *declared, last = [" ".join(each.split()) for each in parameters.split(",")]
    if last != "int threads":
        raise ValueError(f"{source.name}: the last parameter of {name} must be `int threads`, got `{last}`")
    found = ["p" if "*" in each else {"i64": "i", "double": "f"}.get(each.split(" ")[0]) for each in declared]
    if None in found:
        wrong = declared[found.index(None)]
        raise ValueError(f"{source.name}: a parameter of {name} must be a pointer, i64 or double, got `{wrong}`")
    return "".join(kind for kind in found if kind)


def _value(function: str, index: int, kind: str, argument: Argument) -> object:
    if kind == "p":
        if argument is None:
            return None
        if isinstance(argument, torch.Tensor):
            if not argument.is_cpu:
                raise ValueError(f"argument {index} of {function} is on {argument.device}, not on the CPU")
            return argument.data_ptr()
        if isinstance(argument, ctypes.Structure):
            return ctypes.byref(argument)
    elif kind == "i" and isinstance(argument, int) and not isinstance(argument, bool):
        if not -(2**63) <= argument < 2**63:
            raise ValueError(f"argument {index} of {function} is {argument}, beyond 64 bits")
        return argument
    elif kind == "f" and isinstance(argument, float):
        return argument
    wanted = {"p": "a tensor, None or a ctypes.Structure", "i": "an int", "f": "a float"}[kind]
    raise TypeError(f"argument {index} of {function} must be {wanted}, got {type(argument).__name__}")


def _shared_object(source: Path) -> Path:
    """The compiled file, from the cache, which is keyed by sources, compiler, flags and CPU."""
    folders = (source.parent, _HEADERS, _HEADERS.parent)
    command = [compiler(), *_FLAGS, _ARCHITECTURE, *STREAMS]
    contents = [path.read_text() for path in with_includes(source, folders)]
    identity = [*contents, *command, compiler_version(command[0]), *_cpu()]
    command += include_options(folders)
    return compiled("native", source.stem, identity, command, source, partial(NativeCompileError, source))


@functools.cache
def _cpu() -> tuple[str, ...]:
    """What ``-march=native`` depends on: the machine's type, and the model and flags of its CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    of_cpu = [line for line in lines if line.split("\t")[0] in ("model name", "flags", "Features", "CPU part")]
    return (platform.machine(), *sorted(set(of_cpu)))
