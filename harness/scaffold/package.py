"""Writes the package of a sampler, an operation or an implementation: sources, a test, pyproject.toml and a README."""

import importlib.util
import keyword
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from ..discovery.signature import Signature
from .backends import BACKENDS

NAMED = 3
"""Scenarios of cases that a docstring names for an input."""

SAMPLER_BACKENDS = ("torch", "triton", "cupy")
"""The backends that a new sampler's proposals may have."""


class NewPackageError(ValueError):
    """A package that cannot be written. The message says why."""


def write_sampler(name: str, folder: Path, backend: str = "torch") -> list[Path]:
    """Write the package of a sampler called ``name`` to ``folder / name`` and return its files.

    The module is ``name`` with underscores for hyphens. Torch makes its proposals, or a kernel in Triton or in CUDA C
    (``cupy``, with a source file of its own). Raises NewPackageError if the name is invalid, the backend is unknown, or
    the folder exists or cannot be written.
    """
    module = _module(name)
    _require(backend, SAMPLER_BACKENDS)
    imports, propose = _template(f"propose_{backend}.py").rstrip().split("\n\n\n", 1)
    source = f"`src/{module}/__init__.py`"
    if backend == "cupy":
        source += f" and its kernel in `src/{module}/propose.cu`"
    words = {
        "backend": backend,
        "sources": source,
        "imports": imports,
        "propose": propose.strip(),
        "unavailable": "" if backend == "torch" else f'\n            unavailable=partial(unavailable, "{backend}"),',
    }
    files = {"__init__.py": "sampler.py"} | ({"propose.cu": "propose.cu"} if backend == "cupy" else {})
    return _write(name, folder, "sampler", files, words)


def write_operation(name: str, folder: Path) -> list[Path]:
    """Write the package of an operation called ``name``, with cases, a reference with bounds, and an implementation in
    torch. Raises NewPackageError as `write_sampler` does."""
    return _write(name, folder, "operation", {"__init__.py": "operation.py"}, {"title": _module(name).title()})


def write_implementation(
    name: str, folder: Path, backend: str, operation: str, signature: Signature, untried: str = ""
) -> list[Path]:
    """Write the package of an implementation called ``name`` of an operation with this signature.

    In its launch the operation's torch implementation computes and a kernel of ``backend`` copies the results, so that
    it agrees from the start. ``untried`` says why the kernel cannot be tried here. Raises NewPackageError as
    `write_sampler` does.
    """
    module = _module(name)
    _require(backend, BACKENDS)
    chosen = BACKENDS[backend]
    standard = dispatch = unavailable = reason = ""
    if backend in ("triton", "cupy"):
        standard = "from functools import partial\n\n"
        dispatch = "from boltzbench.kernels.common.dispatch import unavailable\n"
        reason = f', partial(unavailable, "{backend}")'
    elif chosen.module:
        standard, reason = "import importlib.util\n\n", ", unavailable"
        kind = "unavailable.py" if chosen.needs_gpu else "unavailable_anywhere.py"
        facts = {"module": chosen.module, "distribution": chosen.distribution, "title": chosen.title}
        unavailable = "\n\n\n" + Template(_template(kind).rstrip()).substitute(facts)
    words = {
        "operation": operation,
        "backend": backend,
        "title": chosen.title,
        "arguments": _arguments(signature),
        "standard": standard,
        "dispatch": dispatch,
        "unavailable": unavailable,
        "reason": reason,
        "tested": chosen.tested,
        "untried": f" On the machine that wrote this package it could not be tried: {untried}." if untried else "",
        "install": f"pip install {chosen.distribution}\n" if chosen.distribution else "",
        "kernel": f"`src/{module}/kernel.py`" + (f" and `src/{module}/kernel.cu`" if backend == "cupy" else ""),
    }
    files = {"__init__.py": "implementation.py", "kernel.py": f"kernel_{backend}.py"}
    return _write(name, folder, "implementation", files | {file: file for file in chosen.files}, words)


def _arguments(signature: Signature) -> str:
    """A line for each form of each input and output, for the docstring."""
    rows = []
    for kind, arguments in (("input", signature.inputs), ("output", signature.outputs)):
        for each in arguments:
            name = f"{each.name}, ..." if each.several else each.name
            words = [" or ".join(form.words for form in each.forms), *([each.role] if each.role else [])]
            scenarios = {scenario: None for form in each.forms for scenario in form.scenarios}
            if "" not in scenarios:
                more = ", ..." if len(scenarios) > NAMED else ""
                words.append(f"in the cases {', '.join([*scenarios][:NAMED])}{more}")
            rows.append((kind, name, "; ".join(words)))
    width = max((len(name) for _, name, _ in rows), default=0)
    return "\n".join(f"    {kind:6}  {name:{width}}  {words}" for kind, name, words in rows) or "    (unknown)"


def _require(backend: str, known: Sequence[str] | Mapping[str, object]) -> None:
    if backend not in known:
        raise NewPackageError(f"--backend must be one of {', '.join(known)}: got {backend!r}")


def _module(name: str) -> str:
    """The module of the package. Raises NewPackageError for a name that cannot be one."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise NewPackageError(
            f"NAME must consist of lower-case letters, digits, - and _, and begin with a letter: got {name!r}"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(name) or importlib.util.find_spec(module):
        raise NewPackageError(f"NAME must be neither a Python keyword nor an importable module: got {name!r}")
    return module


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / f"{name}.tmpl").read_text(encoding="utf-8")


def _write(name: str, folder: Path, kind: str, sources: Mapping[str, str], words: Mapping[str, str]) -> list[Path]:
    """Write the files of the package: its ``sources`` by their templates, and what every package has."""
    module = _module(name)
    cuda = any(file.endswith(".cu") for file in sources)
    data = f'\n[tool.setuptools.package-data]\n{module} = ["*.cu"]\n' if cuda else ""
    distribution = name.replace("_", "-")
    words = {"name": module, "module": module, "distribution": distribution, "kind": kind, "data": data, **words}
    files = {
        "pyproject.toml": "pyproject.toml",
        **{f"src/{module}/{file}": template for file, template in sources.items()},
        f"tests/test_{module}.py": f"test_{kind}.py",
        "README.md": f"README_{kind}.md",
    }
    package = folder / name
    try:
        package.mkdir(parents=True)
        for file, template in files.items():
            (package / file).parent.mkdir(parents=True, exist_ok=True)
            (package / file).write_text(Template(_template(template)).substitute(words), encoding="utf-8")
    except FileExistsError as error:
        raise NewPackageError(
            f"{package} exists already: choose another NAME, or another folder with --into"
        ) from error
    except OSError as error:
        shutil.rmtree(package, ignore_errors=True)  # else the next try would find it
        raise NewPackageError(f"cannot write the package {package}: {error.strerror}") from error
    return [package / file for file in files]
