"""Example calls of the public functions of `boltzbench.kernels` that take numbers, and what each number argument is.

`tests/kernels/test_numbers.py` gives each of these arguments numbers of other types and out of range. The calls of an
operation are in ``tests/operations/<operation>/number_calls.py``, all others in ``tests/kernels/number_calls.py``.
"""

import copy
import enum
import functools
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path

import torch
from boltzbench import kernels

from support import TESTS

FILE = "number_calls.py"
OTHERS = {
    "ceilings": "takes sizes of devices from the harness only",
    "common": "holds helpers of the kernels",
    "cuda_module": "launches kernels by their signatures",
    "emulator": "launches kernels by their signatures",
    "machines": "holds helpers of the kernels; what operations export is among theirs",
    "numbers": "holds the checks",
    "rows": "holds helpers of the kernels",
}
"""Modules without calls, each with the reason. Neither do modules named ``reference`` need any: their formulas get
numbers that a public function has checked."""


@dataclass(frozen=True)
class NumberCall:
    """A call with valid arguments.

    ``then``: what to compare, made from the result of the call. ``infinite``: real arguments that may be infinite.
    ``signed``: integers that may be negative. ``unchecked``: integers whose value is not checked in a tensor.
    ``differentiable``: real arguments with respect to which there is a gradient.
    """

    function: Callable[..., object]
    arguments: Mapping[str, object]
    then: Callable[[typing.Any], object] = lambda result: result
    infinite: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    differentiable: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.function.__module__.removeprefix('boltzbench.kernels.')}.{self.function.__qualname__}"

    def run(self, backend: str | None, **changes: object) -> object:
        """The result, and the arguments that the call may have written to."""
        given = {name: value if is_dataclass(value) else copy.deepcopy(value) for name, value in self.arguments.items()}
        given |= changes
        if backend is not None:
            given["backend"] = backend
        result = self.then(self.function(**given))
        return result, {name: value for name, value in given.items() if name not in changes}

    @functools.cached_property
    def has_backend(self) -> bool:
        return "backend" in inspect.signature(self.function).parameters

    def value(self, argument: str) -> object:
        """The valid value of an argument."""
        if argument in self.arguments:
            return self.arguments[argument]
        return inspect.signature(self.function).parameters[argument].default


def number_arguments(function: Callable[..., object]) -> dict[str, str]:
    """The arguments that take numbers: ``integer``, ``real``, ``integers`` or ``reals``."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target)
    kinds = {name: _kind(hint) for name, hint in hints.items() if name != "return"}
    return {name: kind for name, kind in kinds.items() if kind}


def _kind(hint: object) -> str:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for part in parts:
        if part in (int, float):
            return "integer" if part is int else "real"
        if typing.get_origin(part) is Sequence and typing.get_args(part)[0] in (int, float):
            return "integers" if typing.get_args(part)[0] is int else "reals"
    return ""


def public_functions() -> dict[str, Callable[..., object]]:
    """Public functions and classes that take numbers, by module and name."""
    found = {}
    for info in pkgutil.iter_modules(kernels.__path__):
        if info.name in OTHERS:
            continue
        module = importlib.import_module(f"{kernels.__name__}.{info.name}")
        local = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", [name for name in local if not name.startswith("_")]):
            value = getattr(module, name)
            if _is_function(value) and number_arguments(value):
                found[f"{value.__module__.removeprefix('boltzbench.kernels.')}.{value.__qualname__}"] = value
    return found


def _is_function(value: object) -> bool:
    if inspect.isfunction(value):
        return not value.__module__.endswith(".reference")
    if not inspect.isclass(value) or is_dataclass(value) or issubclass(value, enum.Enum | tuple):
        return False
    return not getattr(value, "_is_protocol", False)


@functools.cache
def calls() -> dict[str, NumberCall]:
    """All example calls, by module and name."""
    return {call.name: call for path in sorted(_files()) for call in _module(path).CALLS}


def _files() -> Iterator[Path]:
    yield TESTS / "kernels" / FILE
    yield from (TESTS / "operations").glob(f"*/{FILE}")


def _module(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"number_calls_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def units(*shape: int) -> torch.Tensor:
    """Units 0 and 1, uint8."""
    return (torch.arange(torch.Size(shape).numel()) % 3 == 0).to(torch.uint8).view(shape)


def weights(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Small real numbers."""
    return torch.sin(torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 1).to(dtype).view(shape)
