"""The operations of boltzbench's own plugins, as the registry has them, and the folder of tests that each must have."""

import functools
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import torch
from boltzbench.harness import Case, Implementation, Inputs, Launch, Operation
from boltzbench.harness.discovery.registry import ENTRY_POINT_GROUP, Registry, load_registry
from boltzbench.kernels.common.variants import PackageVariants

from support import ROOT, TESTS


@functools.cache
def registry() -> Registry:
    """What boltzbench registers itself; plugins of other distributions are left out."""
    entry_points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    return load_registry(each for each in entry_points if each.dist is not None and each.dist.name == "boltzbench")


def operations() -> list[Operation]:
    return list(registry().operations.values())


def names() -> list[str]:
    """The names of all operations, for ``pytest.mark.parametrize``."""
    return [operation.name for operation in operations()]


def implementation(operation: str, name: str) -> Implementation:
    """One implementation, such as ``implementation("sgld", "triton")``."""
    for each in registry().implementations:
        if (each.operation, each.name) == (operation, name):
            return each
    raise LookupError(f"no plugin registers an implementation {name!r} of {operation!r}; see `boltzbench list`")


def hand_written() -> list[Implementation]:
    """The implementations of the suite that are kernels, not torch."""
    own = [each for each in registry().implementations if isinstance(each.variants, PackageVariants)]
    return [each for each in own if each.backend != "torch"]


def inspectable() -> list[Implementation]:
    """The implementations whose machine code `boltzbench inspect` reads."""
    return [each for each in hand_written() if each.backend in ("triton", "cupy")]


def kernels_of(chosen: Implementation) -> PackageVariants:
    """The package of kernels that an implementation is made from."""
    if not isinstance(chosen.variants, PackageVariants):
        raise TypeError(
            f"{chosen.operation} {chosen.name} names no package of kernels: "
            f"register it with operation_hooks of boltzbench.plugins.support.operations"
        )
    return chosen.variants


def prepared(chosen: Implementation, case: Case) -> tuple[Inputs, Launch]:
    """Inputs on the CPU and a launch for them; outputs that are state start at the inputs of the same names."""
    operation = registry().operations[chosen.operation]
    inputs = operation.make_inputs(case, torch.device("cpu"))
    outputs = operation.make_outputs(inputs)
    for name in outputs.keys() & inputs.keys():
        outputs[name].copy_(inputs[name])
    return inputs, chosen.prepare(inputs, outputs)


def folder(operation: str) -> Path:
    """Where the tests of an operation are, with its wrong kernels and its goldens."""
    return TESTS / "operations" / operation


def load(operation: str, file: str) -> ModuleType:
    """The Python file of that name in an operation's folder of tests. Raises FileNotFoundError."""
    path = folder(operation) / file
    if not path.is_file():
        raise FileNotFoundError(f"{below_root(path)} is missing; tests/README.md says what it holds")
    return _load(f"operations.{operation}.{path.stem}", path)


@functools.cache
def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def below_root(path: Path) -> Path:
    return path.relative_to(ROOT)
