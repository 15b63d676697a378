"""The files that each operation must have, as CONTRIBUTING.md lists them, and a sentence for each missing one."""

import re
from collections.abc import Mapping
from pathlib import Path

from support import ROOT

SECTION = "A new operation"
NOT_OPERATIONS = (
    "ais", "builds", "ceilings", "common", "distributed", "draws", "emulator", "machines", "native", "rbm_training",
    "rows",
)  # fmt: skip
"""Folders of kernels/ that hold no operation: shared code, compositions of operations, measured ceilings, compilers."""


def files_of_a_new_operation() -> list[str]:
    """The paths in the fenced block of CONTRIBUTING.md's section, with ``<operation>`` and ``<family>`` in them."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = re.search(rf"^## {SECTION}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    block = re.search(r"^```\w*\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE) if section else None
    if block is None:
        raise LookupError(f"CONTRIBUTING.md has no section {SECTION!r} with a fenced block of paths")
    return [line.split()[0] for line in block[1].splitlines() if "/" in line]


def path_of(template: str, operation: str, family: str = "*", package: str = "") -> str:
    """The file that a template stands for; kernels lie in ``package``, by default a folder named as the operation."""
    name = (package or operation) if template.startswith("kernels/") else operation
    return template.replace("<operation>", name).replace("<family>", family)


def missing(root: Path, packages: Mapping[str, str]) -> list[str]:
    """A sentence for each missing file.

    ``packages`` has each registered operation and the folder of ``kernels/`` that its kernels are in. Operations that
    share a package may share their ``test_*.py``.
    """
    found = []
    tested = {package for name, package in packages.items() if [*(root / "tests/operations" / name).glob("test_*.py")]}
    for operation, package in packages.items():
        for template in files_of_a_new_operation():
            path = path_of(template, operation, package=package)
            is_test = Path(path).name.startswith("test_")
            if not list(root.glob(path)) and not (is_test and package in tested):
                found.append(f"{operation}: {path} is missing; CONTRIBUTING.md, {SECTION!r}, says what it holds")
    kernels = {path.parent.name for path in (root / "kernels").glob("*/__init__.py")} - set(NOT_OPERATIONS)
    found += [
        f"kernels/{name}/ belongs to no registered operation: plugins/operations/<family>/{name}.py is missing, "
        f"or it does not pass 'boltzbench.kernels.{name}' to operation_hooks"
        for name in sorted(kernels - set(packages.values()))
    ]
    tests = {path.name for path in (root / "tests" / "operations").glob("[!_]*") if path.is_dir()}
    found += [
        f"tests/operations/{name}/ belongs to no registered operation: "
        f"plugins/operations/<family>/{name}.py is missing, or registers another name"
        for name in sorted(tests - packages.keys())
    ]
    return found
