"""Kernels that are not the suite's: a cubin, PTX, a CUDA C file or a Triton function, as variants to inspect.

Each function compiles what must be compiled at once, for the architecture that the input names or the caller wants, and
raises `KernelInputError` with a sentence for what cannot be read, compiled or found.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .sass import Function
from .tools import Usage, disassemble, tools

_CUDA_MACHINE = 190
"""The machine of an ELF file for NVIDIA GPUs."""


class KernelInputError(Exception):
    """A kernel from a file or a module cannot be inspected. The message says why."""


@dataclass(frozen=True, kw_only=True)
class GivenKernel:
    """A kernel with what its caller says of it; 0 where nothing is said. It satisfies `Variant`."""

    name: str
    arch: str
    elf: bytes
    symbol: str
    threads: int = 0
    items: int = 0
    bytes_per_item: float = 0.0
    dynamic_shared_bytes: int = 0
    unit: str = "items"
    access_bytes: int = 0
    archs: Sequence[str] = ()

    def compile(self, arch: str) -> "GivenKernel":
        return self


@dataclass(frozen=True)
class Said:
    """What the caller says of a kernel: see `GivenKernel`."""

    kernel: str = ""
    threads: int = 0
    items: int = 0
    bytes_per_item: float = 0.0
    shared_bytes: int = 0


def from_cubin(path: Path, said: Said, arch: str = "") -> GivenKernel:
    """A kernel of a cubin. ``arch``, if given, must be the one that it was compiled for."""
    elf = _bytes_of(path, "--cubin")
    if elf[:4] != b"\x7fELF" or len(elf) < 52 or int.from_bytes(elf[18:20], "little") != _CUDA_MACHINE:
        raise KernelInputError(
            f"--cubin {path}: this is no cubin; `cuobjdump -xelf all {path.name}` extracts those of a program"
        )
    flags = int.from_bytes(elf[48:52], "little")
    there = f"sm_{flags >> 8 & 0xFF if elf[8] >= 8 else flags & 0xFF}"
    if arch and _base(arch) != there:
        raise KernelInputError(f"--cubin {path}: it was compiled for {there}, not for {arch}")
    return _given(elf, there, f"--cubin {path}", said)


def from_ptx(path: Path, said: Said, arch: str = "") -> GivenKernel:
    """A kernel of a PTX file, compiled by ptxas for ``arch`` or else for the file's own target."""
    text = _bytes_of(path, "--ptx").decode(errors="replace")
    target = re.search(r"^\s*\.target\s+(sm_\w+)", text, re.M)
    if not target:
        raise KernelInputError(f"--ptx {path}: this is no PTX: it has no line .target")
    own = target[1]
    arch = own if _base(own) == _base(arch or own) else arch  # the suffix of sm_90a belongs to the file
    blocks = re.findall(r"\.(?:reqntid|maxntid)\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?", text)
    threads = 0
    if len(blocks) == 1:
        threads = int(blocks[0][0]) * int(blocks[0][1] or 1) * int(blocks[0][2] or 1)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        refusals = []
        for program in tools("ptxas"):  # an older one may not know the version of the PTX
            command = [str(program), f"-arch={arch}", str(path), "-o", str(cubin)]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if not run.returncode:
                break
            refusals.append(next(iter((run.stderr or run.stdout).strip().splitlines()), "no message"))
        else:
            raise KernelInputError(f"--ptx {path}: ptxas refuses it for {arch}: {refusals[-1]}")
        elf = cubin.read_bytes()
    said = said if said.threads else replace(said, threads=threads)
    return _given(elf, _base(arch), f"--ptx {path}", said)


def from_cuda(path: Path, said: Said, arch: str) -> GivenKernel:
    """A kernel of a CUDA C++ file, compiled by NVRTC; ``said.kernel`` is a name expression such as "add<float>"."""
    source = _bytes_of(path, "--cuda").decode(errors="replace")
    if not said.kernel:
        raise KernelInputError(f"--cuda {path}: name the kernel: --kernel add, or --kernel 'add<float>' for a template")
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        raise KernelInputError(f"--cuda {path}: CUDA C needs CuPy with NVRTC: {error}") from error
    options = ["-std=c++17", f"-arch={arch}", f"-I{path.resolve().parent}"]
    options += [
        f"-I{Path(os.environ[home]) / 'include'}" for home in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(home)
    ]
    program = nvrtc.createProgram(source, str(path), (), ())
    try:
        nvrtc.addNameExpression(program, said.kernel)
        nvrtc.compileProgram(program, tuple(options))
        symbol = nvrtc.getLoweredName(program, said.kernel)
        elf = nvrtc.getCUBIN(program) + b"\0"  # CuPy drops the last byte, as if a cubin were text
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip().splitlines()
        words = next((line for line in log if "error" in line), str(error))
        raise KernelInputError(f"--cuda {path}: NVRTC refuses {said.kernel!r} for {arch}: {words}") from error
    finally:
        nvrtc.destroyProgram(program)
    return replace(_given(elf, _base(arch), f"--cuda {path}", replace(said, kernel=symbol)), name=said.kernel)


def from_triton(where: str, signature: str, said: Said, arch: str) -> GivenKernel:
    """A ``triton.jit`` function ``package.module:function`` or ``file.py:function``, as launched with ``signature``.

    ``signature`` is ``x=*fp32:16,n=i32,BLOCK=1024``: for each parameter a type, with ":16" if the address or number is
    divisible by 16, or the value of a constant.
    """
    place = f"--triton {where}"
    function = _triton_function(where, place)
    given = dict(part.split("=", 1) for part in signature.replace(" ", "").split(",") if "=" in part)
    lacks, extra = set(function.arg_names) - set(given), set(given) - set(function.arg_names)
    if lacks or extra:
        words = [f"lacks {', '.join(sorted(lacks))}"] * bool(lacks) + [
            f"has unknown {', '.join(sorted(extra))}"
        ] * bool(extra)
        raise KernelInputError(
            f"{place}: --signature {' and '.join(words)}; write it as x=*fp32:16,n=i32,BLOCK=1024 for "
            f"({', '.join(function.arg_names)})"
        )
    from triton import compile as compile_
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types, constants, attributes = {}, {}, {}
    for parameter in function.params:
        kind, _, divisible = given[parameter.name].partition(":")
        if re.fullmatch(r"\*?(?:[iu]\d+|fp\d+\w*|bf16)", kind) and not parameter.is_constexpr:
            types[parameter.name] = kind
            if divisible not in ("", "16"):
                raise KernelInputError(f"{place}: --signature: {parameter.name} cannot be {given[parameter.name]!r}")
            if divisible:
                attributes[(parameter.num,)] = [["tt.divisibility", 16]]
        else:
            types[parameter.name], constants[parameter.name] = "constexpr", _constant(given[parameter.name])
    target = GPUTarget("cuda", int(_base(arch).removeprefix("sm_")), 32)
    try:
        options = {"num_warps": (said.threads or 128) // 32}
        compiled = compile_(ASTSource(function, types, constants, attributes), target, options)
    except Exception as error:
        words = str(error).strip().splitlines()
        raise KernelInputError(f"{place}: Triton refuses it: {words[-1] if words else type(error).__name__}") from error
    said = replace(
        said, kernel=compiled.metadata.name, threads=options["num_warps"] * 32, shared_bytes=compiled.metadata.shared
    )
    return _given(compiled.asm["cubin"], _base(arch), place, said)


def _triton_function(where: str, place: str) -> Any:
    module_name, colon, name = where.rpartition(":")
    if not colon:
        raise KernelInputError(f"{place}: write package.module:function or file.py:function")
    os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported, which cannot compile interpreted kernels
    try:
        if module_name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(module_name)
    except Exception as error:
        raise KernelInputError(f"{place}: cannot import {module_name}: {type(error).__name__}: {error}") from error
    function: Any = getattr(module, name, None)
    while hasattr(getattr(function, "fn", None), "fn"):  # what an autotuner wraps
        function = function.fn
    if not hasattr(function, "params") or not hasattr(function, "arg_names"):
        raise KernelInputError(f"{place}: {module_name} has no triton.jit function {name}")
    return function


def _given(elf: bytes, arch: str, place: str, said: Said) -> GivenKernel:
    try:
        functions, usages = disassemble(elf)
    except RuntimeError as error:
        words = str(error).splitlines()[-1]
        raise KernelInputError(f"{place}: the machine code cannot be read: {words}") from error
    symbol = _chosen(said.kernel, functions, usages, place)
    return GivenKernel(
        name=symbol,
        arch=arch,
        elf=elf,
        symbol=symbol,
        threads=said.threads,
        items=said.items,
        bytes_per_item=said.bytes_per_item,
        dynamic_shared_bytes=said.shared_bytes,
        unit="items" if said.items else "passes",
    )


def _chosen(wanted: str, functions: Mapping[str, Function], usages: Mapping[str, Usage], place: str) -> str:
    """The symbol that is ``wanted`` or contains it; without ``wanted`` the only one."""
    symbols = [symbol for symbol in functions if symbol in usages]
    if not symbols:
        raise KernelInputError(f"{place}: it contains no kernel")
    found = [wanted] if wanted in symbols else [symbol for symbol in symbols if wanted in symbol]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(sorted(found or symbols)[:8])
    problem = f"no kernel is named {wanted}" if wanted and not found else "choose one of its kernels with --kernel"
    raise KernelInputError(f"{place}: {problem}; it has {listed}")


def _bytes_of(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KernelInputError(f"{option} {path}: {error.strerror}") from error


def _base(arch: str) -> str:
    return re.sub(r"(?<=\d)[af]$", "", arch)


def _constant(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"True": True, "False": False, "None": None}.get(text, text)
