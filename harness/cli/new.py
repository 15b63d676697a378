"""The command `new`: write a plugin package as a starting point."""

import importlib.util
import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from ..report.terminal import plain_console

BACKENDS = ("torch", "triton", "cupy")


class NewPackageError(ValueError):
    """A package that cannot be written. The message says why."""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the package and its sampler.")],
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="Backend of its proposals: torch, triton or cupy.")
    ] = "torch",
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Folder that gets the package.")] = Path("."),
) -> None:
    """Write the package of a small working sampler to start from."""
    console = plain_console()
    files = write_package(name, into, backend)
    for file in files:
        console.print(f"Written: {file}", soft_wrap=True)
    module = name.replace("-", "_")
    console.print(f"Next: pip install -e {files[0].parent} && boltzbench validate -s {module}", soft_wrap=True)


def write_package(name: str, folder: Path, backend: str = "torch") -> list[Path]:
    """Write the package of a sampler called ``name`` to ``folder / name`` and return its files.

    The module is ``name`` with underscores for hyphens. Torch makes its proposals, or a kernel in Triton or in CUDA C
    (``cupy``, with a source file of its own). Raises NewPackageError if the name is invalid, the backend is unknown, or
    the folder exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise NewPackageError(
            f"NAME must consist of lower-case letters, digits, - and _, and begin with a letter: got {name!r}"
        )
    if keyword.iskeyword(name) or importlib.util.find_spec(name.replace("-", "_")):
        raise NewPackageError(f"NAME must be neither a Python keyword nor an importable module: got {name!r}")
    if backend not in BACKENDS:
        raise NewPackageError(f"--backend must be one of {', '.join(BACKENDS)}: got {backend!r}")
    module = name.replace("-", "_")
    source = f"{module}.py" if backend != "cupy" else f"{module}/__init__.py"
    files = {"pyproject.toml": "pyproject.toml", source: "sampler.py"}
    packaged = f'[tool.setuptools]\npy-modules = ["{module}"]'
    sources = f"`{source}`"
    if backend == "cupy":
        files[f"{module}/propose.cu"] = "propose.cu"
        packaged = f'[tool.setuptools]\npackages = ["{module}"]\n\n[tool.setuptools.package-data]\n{module} = ["*.cu"]'
        sources += f" and its kernel in `{module}/propose.cu`"
    files |= {f"test_{module}.py": "test_sampler.py", "README.md": "README.md"}

    templates = resources.files(__package__) / "templates" / "new"

    def read(template: str) -> str:
        return (templates / f"{template}.tmpl").read_text(encoding="utf-8")

    imports, propose = read(f"propose_{backend}.py").rstrip().split("\n\n\n", 1)
    words = {
        "name": module, "module": module, "distribution": name.replace("_", "-"), "backend": backend,
        "files": packaged, "sources": sources, "imports": imports, "propose": propose.strip(),
        "unavailable": "" if backend == "torch" else f'\n            unavailable=partial(unavailable, "{backend}"),',
    }  # fmt: skip
    package = folder / name
    try:
        package.mkdir(parents=True)
        for file, template in files.items():
            (package / file).parent.mkdir(exist_ok=True)
            (package / file).write_text(Template(read(template)).substitute(words), encoding="utf-8")
    except OSError as error:
        raise NewPackageError(f"cannot write the package {package}: {error.strerror}") from error
    return [package / file for file in files]
