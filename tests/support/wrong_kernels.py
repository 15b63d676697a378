"""Kernels that are wrong on purpose, each with the case or law that must reject it and the status it must get.

``tests/operations/<operation>/wrong_kernels.py`` holds those of an operation in ``WRONG_KERNELS``, of two kinds: an
honest implementation in torch with one thing spoiled, and a *mutant*, the shipped kernels with one line changed.
"""

import contextlib
import functools
import importlib
import os
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import boltzbench.kernels
from boltzbench.harness import Implementation, Inputs, Launch, Status, Tensors
from boltzbench.kernels import cuda_module, emulator, native
from boltzbench.kernels.builds.compiler import compiler, run_compiler

from support.operations import implementation, kernels_of

KERNELS = Path(boltzbench.kernels.__file__ or "").parent
Prepare = Callable[[Inputs, Tensors], Launch]


@dataclass(frozen=True)
class Mutation:
    """``new`` in place of ``old`` in a source file of ``kernels/``, seen by one backend of an operation.

    ``file`` is a path below the operation's package (``tensor_cores/tile.cuh``), or below ``kernels/`` for what
    several operations share (``rows/rows.cuh``, ``common/philox.cuh``, ``native/random.hpp``).
    """

    operation: str
    backend: str
    file: str
    old: str
    new: str

    @property
    def package(self) -> str:
        """Such as ``boltzbench.kernels.sgld``."""
        return kernels_of(implementation(self.operation, self.backend)).package

    @property
    def path(self) -> Path:
        """The path of the file below ``kernels/``. Raises FileNotFoundError."""
        own = Path(*self.package.split(".")[2:])
        for path in (own / self.file, Path(self.file)):
            if (KERNELS / path).is_file():
                return path
        raise FileNotFoundError(
            f"a mutant of {self.operation} changes {self.file}, but neither kernels/{own}/{self.file} "
            f"nor kernels/{self.file} exists: name the file that holds {self.old!r} now"
        )

    @property
    def text(self) -> str:
        """The mutated file. Raises LookupError if there is nothing to change."""
        text = (KERNELS / self.path).read_text()
        if self.old not in text:
            raise LookupError(
                f"a mutant of {self.operation} changes {self.old!r}, which kernels/{self.path} no longer holds: "
                f"adapt tests/operations/{self.operation}/wrong_kernels.py"
            )
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class WrongKernel:
    """``caught_by`` is the label of a case, or the name of a law; ``mutation`` is None for a kernel in torch."""

    name: str
    operation: str
    caught_by: str
    status: Status
    prepare: Prepare
    mutation: Mutation | None = None

    @property
    def implementation(self) -> Implementation:
        return Implementation(self.operation, self.name, "torch", self.prepare)


def shipped(operation: str, backend: str = "torch") -> Prepare:
    """``prepare`` of the shipped implementation."""
    return implementation(operation, backend).prepare


def spoiled(
    operation: str, *faults: tuple[str, str, Status, Callable[[Inputs], dict[str, object]]]
) -> tuple[WrongKernel, ...]:
    """For each ``(name, caught_by, status, spoil)`` the shipped torch implementation, given spoiled inputs.

    ``spoil(inputs)`` returns the inputs that differ.
    """

    def with_inputs(spoil: Callable[[Inputs], dict[str, object]]) -> Prepare:
        def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
            return lambda: shipped(operation)({**inputs, **spoil(inputs)}, outputs)()

        return prepare

    return tuple(
        WrongKernel(name, operation, caught_by, status, with_inputs(spoil)) for name, caught_by, status, spoil in faults
    )


def mutants(operation: str, *changes: tuple[str, str, str, str]) -> tuple[WrongKernel, ...]:
    """A mutant for each ``(file, old, new, caught_by)``: see `Mutation`.

    Files of Python are those of the Triton kernels, of C++ (``.cpp``, ``.hpp``) those of the native kernels, others
    those of the CUDA C kernels.
    """
    backends = {".py": "triton", ".cpp": "native", ".hpp": "native"}
    return tuple(
        mutant(Mutation(operation, backends.get(Path(file).suffix, "cupy"), file, old, new), caught_by)
        for file, old, new, caught_by in changes
    )


def mutant(mutation: Mutation, caught_by: str) -> WrongKernel:
    name = f"{mutation.file}: {mutation.old} -> {mutation.new}"
    prepare = functools.partial(_prepare_mutant, mutation)
    return WrongKernel(name, mutation.operation, caught_by, Status.WRONG_VALUES, prepare, mutation)


def _prepare_mutant(mutation: Mutation, inputs: Inputs, outputs: Tensors) -> Launch:
    folder = tempfile.TemporaryDirectory(prefix="mutant-")
    tree = Path(folder.name) / "kernels"
    of_native = _quick() if mutation.backend == "native" else ()
    shutil.copytree(_copied_tree(), tree, copy_function=os.link)
    changed = tree / mutation.path
    changed.unlink()  # the link, so that the copy which other mutants are linked to stays as it is
    changed.write_text(mutation.text)
    modules = _loaded_from(tree, _affected(mutation))
    with _in_place(tree, modules, of_native):
        launch_shipped = shipped(mutation.operation, mutation.backend)(inputs, outputs)

    def launch() -> Tensors:
        assert folder  # the source must last as long as the launch: CUDA C and C++ are compiled when they first run
        with _in_place(tree, modules, of_native):
            return launch_shipped()

    return launch


@functools.cache
def _copied_tree() -> Path:
    """A copy of ``kernels/`` beside the mutants, which are made of hard links to it."""
    folder = tempfile.TemporaryDirectory(prefix="kernels-")
    _kept.append(folder)
    return shutil.copytree(KERNELS, Path(folder.name) / "kernels", ignore=shutil.ignore_patterns("__pycache__"))


_kept: list[tempfile.TemporaryDirectory[str]] = []
"""Deleted when the process ends."""


def _affected(mutation: Mutation) -> list[str]:
    """The modules that must load again: the mutated one, and those of the package that define kernels."""
    package = importlib.import_module(mutation.package)
    inside = [each.name for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    loaded = {name: importlib.import_module(name) for name in inside}  # now, so that none loads from the copy later
    signs = {"triton": "triton", "cupy": "CudaModule", "native": "NativeModule"}
    names = [name for name, module in loaded.items() if signs[mutation.backend] in vars(module)]
    if mutation.path.suffix == ".py":
        mutated = importlib.import_module(".".join(("boltzbench.kernels", *mutation.path.with_suffix("").parts)))
        names = [mutated.__name__, *(name for name in names if name != mutated.__name__)]
    return names


def _loaded_from(tree: Path, names: list[str]) -> dict[str, ModuleType]:
    """Modules of ``kernels/`` as they load from a copy of the tree. The process keeps the shipped ones."""
    parents = {name: importlib.import_module(name.rpartition(".")[0]) for name in names}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(sys.modules))
        for parent in set(parents.values()):
            path = tree.joinpath(*parent.__name__.split(".")[2:])
            stack.enter_context(mock.patch.dict(vars(parent), {"__path__": [str(path)]}))
        for name, parent in parents.items():
            del sys.modules[name]
            vars(parent).pop(name.rpartition(".")[2], None)
        return {name: importlib.import_module(name) for name in names}


@functools.cache
def _quick() -> tuple[str, ...]:
    """Options with which C++ takes half the time: not to optimize, and to take the system's headers as parsed once.

    They are parsed beside the headers of the copied tree: found by name, they leave the same options to each process.
    """
    headers = _copied_tree() / "native" / "system.hpp"
    names = ("algorithm", "cmath", "cstring", "limits", "utility", "vector", "omp.h", "immintrin.h")
    headers.write_text("".join(f"#if __has_include(<{name}>)\n#include <{name}>\n#endif\n" for name in names))
    command = [compiler(), *native._FLAGS, "-O0", native._ARCHITECTURE, "-x", "c++-header"]
    run_compiler([*command, str(headers), "-o", f"{headers}.gch"])  # without the result the text is parsed
    return "-O0", "-include", headers.name


@contextlib.contextmanager
def _in_place(tree: Path, modules: dict[str, ModuleType], of_native: tuple[str, ...]) -> Iterator[None]:
    """Every module of boltzbench uses ``modules`` for the shipped ones; CUDA C and C++ include headers of ``tree``.

    ``of_native`` are further options for C++. CUDA C is compiled for the emulator with -O0, in half the time: that
    changes no result.
    """
    replaced: dict[int, Any] = {}
    for name, new in modules.items():
        old = sys.modules[name]
        replaced[id(old)] = new
        for key, value in vars(old).items():
            if callable(value) and vars(new).get(key, value) is not value:
                replaced[id(value)] = vars(new)[key]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(cuda_module, "_INCLUDES", (tree / "common", tree)))
        stack.enter_context(mock.patch.object(native, "_HEADERS", tree / "native"))
        stack.enter_context(mock.patch.object(native, "_FLAGS", (*native._FLAGS, *of_native)))
        stack.enter_context(mock.patch.object(emulator, "_FLAGS", (*emulator._FLAGS, "-O0")))
        for name, module in list(sys.modules.items()):
            if name.startswith("boltzbench.") and name not in modules:
                for key, value in list(vars(module).items()):
                    if id(value) in replaced:
                        stack.enter_context(mock.patch.dict(vars(module), {key: replaced[id(value)]}))
        for name, new in modules.items():
            stack.callback(sys.modules.__setitem__, name, sys.modules[name])
            sys.modules[name] = new
        yield
