"""Loads a CUDA C file and launches its kernels: by NVRTC and CuPy on CUDA tensors, by the emulator on CPU tensors.

    module = CudaModule(Path(__file__).with_name("add.cu"), ["add<float>", "add<float16>"])
    module.launch("add<float>", (blocks,), (256,), [x, y, x.numel()], device=x.device)

For CUDA, this module compiles the file by CuPy's NVRTC binding, and CuPy's RawModule loads the cubin. CuPy's own
compiler would flush subnormal floats to zero, lacks arch-specific targets such as sm_90a, and caches without seeing
edits of included headers. `cubin` therefore returns for inspection what also runs.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import emulator
from .builds import cache
from .builds.compiler import CompilerNotFoundError, compiler
from .emulator import CudaCompileError, EmulatorError
from .philox import Stream

__all__ = [
    "Argument",
    "CompilerNotFoundError",
    "Cubin",
    "CudaCompileError",
    "CudaModule",
    "EmulatorError",
    "arch_of",
    "unavailable",
]

Argument = torch.Tensor | None | int | float | np.generic | ctypes.Structure

_KERNELS = Path(__file__).resolve().parent
_INCLUDES = (_KERNELS / "common", _KERNELS)  # "philox.cuh" and "rows/rows.cuh" name headers of the suite
STREAMS = tuple(f"-DSTREAM_{stream.name}={stream.value}u" for stream in Stream)
"""Definitions for the compilers of CUDA C and C++: the numbers of the random streams."""
_MAX_GRID = (2**31 - 1, 65535, 65535)
_MAX_BLOCK = (1024, 1024, 64)
_MAX_THREADS = 1024
_MAX_SHARED_BYTES = 227 * 1024


@dataclass(frozen=True)
class Cubin:
    """Machine code for one architecture. `names` maps name expressions to symbols in `data`, an ELF file."""

    arch: str
    data: bytes
    names: dict[str, str]
    path: Path


def unavailable(device: torch.device) -> str | None:
    """Why CUDA C kernels cannot run on tensors of `device`, or None if they can."""
    if device.type == "cpu":
        try:
            compiler()
        except CompilerNotFoundError as error:
            return str(error)
        return None
    if device.type != "cuda":
        return f"CUDA C kernels run on CUDA tensors, or emulated on CPU tensors, not on {device.type} tensors"
    try:
        _nvrtc().getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        return f"CUDA C kernels on CUDA tensors need CuPy with NVRTC: {error}"
    return None


class CudaModule:
    """The kernels of one .cu file, compiled on the first launch on a kind of device.

    Any thread may launch. On CUDA, a launch is asynchronous, on torch's current stream of the device; it can be
    captured in a CUDA graph once the same kernel has run outside of one. On the CPU, a launch has finished on return.
    """

    def __init__(self, source: Path, kernels: Sequence[str]) -> None:
        """`kernels`: C++ name expressions, such as "row_kernel<float, 4>" or a plain name."""
        self.source = source.resolve()
        self.kernels = tuple(kernels)
        self._lock = threading.Lock()
        self._emulated: emulator.EmulatedModule | None = None
        self._loaded: dict[tuple[int, str], tuple[Any, int]] = {}  # by device and kernel

    @functools.cached_property
    def source_hash(self) -> str:
        """SHA-256 of the file and of the files that it includes, for caches and results."""
        digest = hashlib.sha256()
        for path in with_includes(self.source, self._folders()):
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)} ".encode() + content)
        return digest.hexdigest()

    def launch(
        self,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Argument],
        *,
        shared_bytes: int = 0,
        device: torch.device,
    ) -> None:
        """Runs `kernel` on a grid of blocks (one to three dimensions each).

        Passes a tensor as the address of its first element (the caller checks contiguity), None as a null pointer, a
        Python int as long long, a Python float as double, a NumPy scalar as its own type, and a ctypes.Structure by
        value. `shared_bytes` is dynamic shared memory per block.

        Raises ValueError (a tensor on another device, a grid, block or `shared_bytes` beyond the limits of CUDA or of
        the device, an int beyond 64 bits), TypeError (a bool, or a type not listed above), CudaCompileError, and on the
        CPU EmulatorError.
        """
        if kernel not in self.kernels:
            raise ValueError(f"{self.source.name} was loaded with the kernels {list(self.kernels)}, not {kernel!r}")
        device = _as_tensors_name_it(device)
        grid, block = _dimensions("grid", grid, _MAX_GRID), _dimensions("block", block, _MAX_BLOCK)
        if math.prod(block) > _MAX_THREADS:
            raise ValueError(f"block {block} has {math.prod(block)} threads, more than {_MAX_THREADS}")
        if not 0 <= shared_bytes <= _MAX_SHARED_BYTES:
            raise ValueError(f"shared_bytes is {shared_bytes}, beyond 0 to {_MAX_SHARED_BYTES}")
        packed = [_pack(i, argument, kernel, device) for i, argument in enumerate(args)]
        if device.type == "cuda":
            self._launch_cuda(kernel, grid, block, [value for _, value in packed], shared_bytes, device)
        elif device.type == "cpu":
            kinds = "".join(kind for kind, _ in packed)
            self._emulate().launch(kernel, grid, block, [value for _, value in packed], kinds, shared_bytes)
        else:
            raise ValueError(unavailable(device))

    def cubin(self, arch: str, kernels: Sequence[str] | None = None) -> Cubin:
        """Compiles `kernels` (default: all) for an arch such as "sm_90", without a GPU. Raises CudaCompileError."""
        names = tuple(self.kernels if kernels is None else kernels)
        nvrtc = _nvrtc()
        keyed = ("-std=c++17", f"-arch={arch}", *self._keyed_options())
        options = (*keyed, *(f"-I{folder}" for folder in self._folders()))
        identity = json.dumps([self.source_hash, names, keyed, nvrtc.getVersion()])
        stem = f"{self.source.stem}-{arch}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"
        path, symbols = (cache.find("cubin", stem, suffix) for suffix in (".cubin", ".json"))
        if path and symbols:
            return Cubin(arch, path.read_bytes(), json.loads(symbols.read_text()), path)
        program = nvrtc.createProgram(self.source.read_text(), str(self.source), (), ())
        try:
            for name in names:
                nvrtc.addNameExpression(program, name)
            nvrtc.compileProgram(program, options)
            lowered = {name: nvrtc.getLoweredName(program, name) for name in names}
            data = nvrtc.getCUBIN(program) + b"\0"  # CuPy drops the last byte, as if a cubin were text
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise CudaCompileError(self.source, arch, f"{error}\n{log}") from error
        finally:
            nvrtc.destroyProgram(program)
        cache.store("cubin", stem, ".json", json.dumps(lowered).encode())
        path = cache.store("cubin", stem, ".cubin", data)
        return Cubin(arch, data, lowered, path)

    def _emulate(self) -> emulator.EmulatedModule:
        with self._lock:
            if self._emulated is None:
                self._emulated = emulator.EmulatedModule(
                    self.source, self.kernels, self._keyed_options(), self._folders(), self.source_hash
                )
            return self._emulated

    def _folders(self) -> tuple[Path, ...]:
        """The include folders, the same for NVRTC and for the host's compiler. `source_hash` covers their files."""
        return (*_INCLUDES, self.source.parent)

    def _keyed_options(self) -> tuple[str, ...]:
        """The other options, which the keys of the caches hold."""
        return STREAMS

    def _launch_cuda(
        self,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[bytes],
        shared_bytes: int,
        device: torch.device,
    ) -> None:
        values = [np.frombuffer(value, dtype=f"V{len(value)}") for value in args]  # CuPy passes these by value
        with torch.cuda.device(device):
            function, most_shared = self._load_cuda(kernel, device)
            if shared_bytes > most_shared:
                raise ValueError(
                    f"shared_bytes is {shared_bytes}, beyond the {most_shared} bytes that {device} leaves to {kernel} "
                    "after its static shared memory"
                )
            with cupy_stream(device):
                function(grid, block, values, shared_mem=shared_bytes)

    def _load_cuda(self, kernel: str, device: torch.device) -> tuple[Any, int]:
        """CuPy's RawKernel on the current device, and the most dynamic shared memory that a block of it may have.

        Static and dynamic memory together are limited to 48 KiB unless a kernel asks for more. Each kernel asks for the
        most, once, which reserves nothing.
        """
        import cupy

        with self._lock:
            key = (device.index, kernel)
            if key not in self._loaded:
                cubin = self.cubin(arch_of(torch.cuda.get_device_capability(device)))
                function = cupy.RawModule(path=str(cubin.path)).get_function(cubin.names[kernel])
                properties: Any = torch.cuda.get_device_properties(device)
                most_shared = int(properties.shared_memory_per_block_optin) - int(function.shared_size_bytes)
                function.max_dynamic_shared_size_bytes = most_shared
                self._loaded[key] = function, most_shared
            return self._loaded[key]


def _pack(index: int, argument: object, kernel: str, device: torch.device) -> tuple[str, bytes]:
    """Kind and bytes of a parameter: p pointer, i integer, f floating point, s struct."""
    if argument is None:
        return "p", bytes(ctypes.c_void_p(None))
    if isinstance(argument, torch.Tensor):
        if argument.device != device:
            raise ValueError(f"argument {index} of {kernel} is on {argument.device}, the launch is on {device}")
        return "p", bytes(ctypes.c_void_p(argument.data_ptr()))
    if isinstance(argument, np.generic):
        if argument.dtype.kind in "iubf" and argument.dtype.itemsize <= 8:
            # A half is a struct in CUDA C (float16 of device.cuh).
            kind = {"f": "f" if argument.dtype.itemsize > 2 else "s"}.get(argument.dtype.kind, "i")
            return kind, argument.tobytes()
    elif isinstance(argument, ctypes.Structure):
        return "s", bytes(argument)
    elif isinstance(argument, int) and not isinstance(argument, bool):
        if not -(2**63) <= argument < 2**63:
            raise ValueError(f"argument {index} of {kernel} is {argument}, beyond long long; np.uint64 is exact")
        return "i", bytes(ctypes.c_longlong(argument))
    elif isinstance(argument, float):
        return "f", bytes(ctypes.c_double(argument))
    raise TypeError(
        f"argument {index} of {kernel} is a {type(argument).__name__}; a tensor, None, int, float, "
        "NumPy scalar or ctypes.Structure can be passed (np.bool_ for a C++ bool)"
    )


def _dimensions(what: str, given: tuple[int, ...], limits: tuple[int, int, int]) -> tuple[int, ...]:
    if not 1 <= len(given) <= 3 or any(not 1 <= size <= limit for size, limit in zip(given, limits, strict=False)):
        raise ValueError(f"{what} is {given}; it has one to three sizes, from 1 to at most {limits}")
    return (*given, 1, 1)[:3]


def _as_tensors_name_it(device: torch.device) -> torch.device:
    """The device as `tensor.device` spells it: cuda with the index of the current device, cpu without one."""
    if device == torch.device("cuda"):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu") if device.type == "cpu" else device


def with_includes(source: Path, folders: Sequence[Path]) -> list[Path]:
    """The file and the files of `folders` that it includes, each once, in the order of first encounter.

    `#include "..."` is looked up beside the file that includes, then in `folders`; `#include <...>` in `folders`.
    """
    found: list[Path] = []
    pending = [source]
    while pending:
        path = pending.pop(0)
        if path in found:
            continue
        found.append(path)
        for mark, name in re.findall(r'^\s*#\s*include\s*(["<])([^">]+)[">]', path.read_text(), re.MULTILINE):
            candidates = [folder / name for folder in ((path.parent, *folders) if mark == '"' else folders)]
            pending += [candidate.resolve() for candidate in candidates if candidate.is_file()][:1]
    return found


def _nvrtc() -> Any:
    from cupy.cuda import nvrtc

    return nvrtc


def arch_of(capability: tuple[int, int]) -> str:
    """The compile target for a device, with arch-specific instructions from Hopper on (wgmma needs sm_90a).

    For a device newer than NVRTC, the newest target of its generation, whose code the device runs.
    """
    major, minor = capability
    number = 10 * major + minor
    supported = [arch for arch in _nvrtc().getSupportedArchs() if arch // 10 == major and arch <= number]
    if not supported:
        hint = "this version of NVRTC does not support the device; install a newer nvidia-cuda-nvrtc"
        raise CudaCompileError(Path(), f"sm_{number}", hint)
    if max(supported) < number:
        return f"sm_{max(supported)}"
    return f"sm_{number}a" if major >= 9 else f"sm_{number}"


def cupy_stream(device: torch.device) -> Any:
    """A context manager that makes torch's current stream CuPy's."""
    import cupy

    stream = torch.cuda.current_stream(device)
    if hasattr(cupy.cuda.Stream, "from_external"):  # CuPy 14
        return cupy.cuda.Stream.from_external(stream)
    return cupy.cuda.ExternalStream(stream.cuda_stream, device.index)
