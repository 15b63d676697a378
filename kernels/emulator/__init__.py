"""Runs CUDA C kernels on the host: compiles a `.cu` file with a C++ compiler against `emulator.hpp`.

README.md says which mistakes the emulator finds. Authors of kernels use it through
`boltzbench.kernels.cuda_module.CudaModule`. This module holds the host's part: the shared objects, the
order in which threads run, and the environment for sanitizer builds.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from ..builds.cache import compiled, locked
from ..builds.compiler import CompilerNotFoundError, compiler, compiler_version, include_options, run_compiler

_HEADERS = Path(__file__).resolve().parent
_FLAGS = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-ffp-contract=off",  # a * b + c rounds twice, as written; fmaf rounds once
    "-fno-strict-aliasing",  # kernels read floats through float4 pointers
    "-fvisibility=hidden",  # two modules may hold a template of the same name
    "-w",
)
_SANITIZER_FLAGS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-g",
    "-O0",  # compiling takes most of the time, and optimizing half of that
)
_MESSAGE_BYTES = 64 * 1024

# One launch at a time: the emulator's state is global to a shared object, which several modules may share.
_running = threading.Lock()

_with_stacks: OrderedDict[int, ctypes.CDLL] = OrderedDict()
"""The shared objects that keep stacks for their threads, the last to launch at the end."""
_MOST_WITH_STACKS = 8
"""1024 stacks of two mappings each; a process may have some 65,000 mappings."""

_schedule: ContextVar[str | None] = ContextVar("boltzbench_emulator_schedule", default=None)


class EmulatorError(RuntimeError):
    """A kernel did something that CUDA leaves undefined, or deadlocked. The message names kernel, block and thread."""


class CudaCompileError(RuntimeError):
    """A kernel file does not compile.

    Attributes: `source` (the .cu file), `target` ("emulator", or the arch, such as "sm_90"), `log` (the compiler's).
    """

    def __init__(self, source: Path, target: str, log: str) -> None:
        super().__init__(f"{source} does not compile for {target}:\n{log}")
        self.source = source
        self.target = target
        self.log = log


@contextmanager
def schedule(order: str) -> Iterator[None]:
    """Runs threads in this order within the `with` block: "forward" (lowest warp and lane first) or "reverse".

    A correct kernel gives the same bits in both orders. Outside of the block the environment variable
    BOLTZBENCH_EMULATOR_SCHEDULE decides; the default is "forward". Raises ValueError for another word.
    """
    token = _schedule.set(_checked_order(order))
    try:
        yield
    finally:
        _schedule.reset(token)


def _checked_order(order: str) -> str:
    if order not in ("forward", "reverse"):
        raise ValueError(f"the emulator's schedule is 'forward' or 'reverse', not {order!r}")
    return order


def _is_reverse() -> bool:
    order = _schedule.get() or os.environ.get("BOLTZBENCH_EMULATOR_SCHEDULE", "forward")
    return _checked_order(order) == "reverse"


def is_sanitizing() -> bool:
    """Whether modules are built with AddressSanitizer and UBSan (BOLTZBENCH_EMULATOR_SANITIZE=1)."""
    return os.environ.get("BOLTZBENCH_EMULATOR_SANITIZE") == "1"


def sanitizer_environment() -> dict[str, str]:
    """The environment for a Python subprocess in which the emulator finds memory errors and undefined behaviour.

    A kernel that accesses memory outside a tensor or a shared array, or overflows a signed integer, ends that process
    with a report on standard error. The sanitizer's library must be loaded first, hence LD_PRELOAD and a separate
    process. Needs g++. Raises CompilerNotFoundError.
    """
    libraries = []
    for name in ("libasan.so", "libstdc++.so.6"):  # libstdc++: without it the sanitizer finds no __cxa_throw to wrap
        found = run_compiler([compiler(), f"-print-file-name={name}"]).stdout.strip()
        if not os.path.isabs(found):
            raise CompilerNotFoundError(f"{compiler()} has no {name}; the sanitizers need g++ with libasan")
        libraries.append(found)
    return {
        **os.environ,
        "BOLTZBENCH_EMULATOR_SANITIZE": "1",
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
    }


class EmulatedModule:
    """The kernels of one .cu file, compiled for the host."""

    def __init__(
        self, source: Path, kernels: Sequence[str], options: Sequence[str], folders: Sequence[Path], source_hash: str
    ) -> None:
        """Compiles with `options` and the include `folders`, or takes the shared object from the cache.

        `source_hash` is that of the file and of what it includes from `folders`. Raises CudaCompileError,
        CompilerNotFoundError.
        """
        self._index = {kernel: i for i, kernel in enumerate(kernels)}
        self._library = ctypes.CDLL(str(_shared_object(source, kernels, options, folders, source_hash)))

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[bytes],
        kinds: str,
        shared_bytes: int,
    ) -> None:
        """Runs the whole grid. `arguments` are the bytes of the parameters, `kinds` has a letter for each: p pointer,
        i integer, f floating point, s struct. Raises EmulatorError."""
        count = len(arguments)
        buffers = [ctypes.create_string_buffer(argument, len(argument)) for argument in arguments]
        pointers = (ctypes.c_void_p * count)(*(ctypes.addressof(buffer) for buffer in buffers))
        sizes = (ctypes.c_size_t * count)(*(len(argument) for argument in arguments))
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        with _running:
            self._keep_stacks()
            failed = self._library.boltzbench_launch(
                ctypes.c_size_t(self._index[kernel]),
                (ctypes.c_uint * 3)(*grid),
                (ctypes.c_uint * 3)(*block),
                ctypes.c_size_t(shared_bytes),
                pointers,
                sizes,
                kinds.encode(),
                ctypes.c_size_t(count),
                ctypes.c_int(_is_reverse()),
                message,
                ctypes.c_size_t(_MESSAGE_BYTES),
            )
        if failed:
            raise EmulatorError(f"kernel {kernel}: {message.value.decode()}")

    def _keep_stacks(self) -> None:
        """Note that this module has stacks; release those of the module whose last launch is furthest back."""
        _with_stacks[id(self._library)] = self._library
        _with_stacks.move_to_end(id(self._library))
        if len(_with_stacks) > _MOST_WITH_STACKS:
            _, oldest = _with_stacks.popitem(last=False)
            oldest.boltzbench_release()


def _shared_object(
    source: Path, kernels: Sequence[str], options: Sequence[str], folders: Sequence[Path], source_hash: str
) -> Path:
    """The compiled file, from the cache, whose keys hold what is compiled, but not where it lies: a copy is not built
    again. The sanitizers' reports name paths: of the emulator's headers below the emulator's folder, of other files the
    whole, which is then part of the key.
    """
    flags = (compiler(), *_FLAGS, *(_SANITIZER_FLAGS if is_sanitizing() else ()))
    runtime = _HEADERS / "emulator.cpp"
    own = (path.read_text() for path in (*sorted(_HEADERS.glob("*.hpp")), runtime))
    places = (str(source), *map(str, folders)) if is_sanitizing() else ()
    identity = (*flags, compiler_version(flags[0]), *own)
    command = (*flags, f"-I{_HEADERS}", f"-ffile-prefix-map={_HEADERS}/=emulator/")
    error = partial(CudaCompileError, source, "emulator")
    linked = compiled("emulator", "runtime", identity, [*command, "-c"], runtime, error, ".o")
    return compiled(
        "emulator",
        source.stem,
        [source_hash, *kernels, *options, *identity, *places],
        [*command, *options, *include_options(folders), "-shared", str(linked)],
        _translation_unit(source, kernels),
        error,
        beside=lambda: _precompiled(command, identity),
    )


@functools.cache
def _precompiled(command: tuple[str, ...], identity: tuple[str, ...]) -> dict[str, Path]:
    """`emulator.hpp` as g++ has parsed it, which takes most of the time that it needs for a small kernel.

    g++ itself reads the text where the parsed header is missing or does not suit. Other compilers do not look for it.
    """
    if "Free Software Foundation" in compiler_version(command[0]):
        header = _HEADERS / "emulator.hpp"
        with suppress(OSError, CudaCompileError), locked(_HEADERS):  # g++ parses to other bytes each time
            error = partial(CudaCompileError, header, "emulator")
            parse = [*command, "-x", "c++-header"]
            return {"emulator.hpp.gch": compiled("emulator", "headers", identity, parse, header, error, ".gch")}
    return {}


def _translation_unit(source: Path, kernels: Sequence[str]) -> str:
    table = "".join(f"    emulator::make_kernel({json.dumps(kernel)}, &{kernel}),\n" for kernel in kernels)
    return (
        '#include "emulator.hpp"\n'
        "namespace device {\n"
        f"#include {json.dumps(str(source))}\n"
        f"const std::vector<emulator::Kernel> kernels = {{\n{table}}};\n"
        "}\n"
    )
