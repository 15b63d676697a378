"""The command `new`: write a plugin package as a starting point."""

from pathlib import Path
from typing import Annotated

import typer

from ..report.terminal import plain_console
from ..scaffold.backends import BACKENDS
from ..scaffold.package import NewPackageError, write_implementation, write_operation, write_sampler


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the package and of what it brings.")],
    operation: Annotated[
        bool, typer.Option("--operation", help="Write an operation: cases, reference, bounds, and torch.")
    ] = False,
    implementation: Annotated[
        str | None, typer.Option("--implementation", metavar="OP", help="Write an implementation of operation OP.")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help=f"Of an implementation: {', '.join(BACKENDS)}; by default triton. Of a sampler: torch, triton or "
            "cupy; by default torch.",
        ),
    ] = None,
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Folder that gets the package.")] = Path("."),
) -> None:
    """Write the package of a small working sampler, or of an operation or implementation, to start from."""
    module, untried = name.replace("-", "_"), ""
    if operation and implementation:
        raise NewPackageError("--operation and --implementation exclude each other: write two packages")
    if operation:
        if backend not in (None, "torch"):
            raise NewPackageError(
                f"--operation writes torch alone: got --backend {backend}; add a kernel by "
                f"`boltzbench new OTHER-NAME --implementation {module} --backend {backend}`"
            )
        files, then = write_operation(name, into), f"check -o {module}"
    elif implementation:
        files, untried = _write_implementation(name, into, backend or "triton", implementation)
        then = f"check -o {implementation} -i {module}"
    else:
        files, then = write_sampler(name, into, backend or "torch"), f"validate -s {module}"
    console = plain_console()
    for file in files:
        console.print(f"Written: {file}", soft_wrap=True)
    if untried:
        console.print(f"Not tried here: {untried}", soft_wrap=True)
    console.print(f"Next: pip install -e {files[0].parent} && boltzbench {then}", soft_wrap=True)


def _write_implementation(name: str, into: Path, backend: str, operation: str) -> tuple[list[Path], str]:
    """The files of the package, and why its kernel cannot be tried here."""
    from ..api.messages import unknown_beside
    from ..execution.catalogue import read_described
    from ..results.environment import cuda_unusable

    if backend not in BACKENDS:
        raise NewPackageError(f"--backend must be one of {', '.join(BACKENDS)}: got {backend!r}")
    registry, signatures = read_described("auto", [operation])
    if operation not in registry.operations:
        raise unknown_beside(registry.problems, "operation", operation, registry.operations)
    module = name.replace("-", "_")
    if module in {each.name for each in registry.implementations_of(operation)}:
        raise NewPackageError(f"{operation} has an implementation named {module!r} already: choose another NAME")
    if signatures[operation].problem:
        raise NewPackageError(f"{operation}: {signatures[operation].problem}")
    untried = BACKENDS[backend].untried(cuda_unusable())
    return write_implementation(name, into, backend, operation, signatures[operation], untried), untried
