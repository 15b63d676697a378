"""The goldens: what the machine code of each kernel is like, so that a change of code generation shows in review.

``tests/operations/<operation>/golden/<implementation>-<architecture>.txt`` has a line for each variant, below the
version of the compiler and a hash of the kernels' source. The registry says which files there are. After a look at
what changed, this writes them again (all, or those of the named operations) and deletes what no implementation needs:

    make goldens [OPERATIONS="sgld psgld"]

On `FULL` every variant is read. On the other architectures, of the variants of a Triton kernel that share the types of
their pointers, the first is read. The tests read only the files whose source or compiler has changed, since each
variant must be compiled and disassembled.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boltzbench.harness import Implementation
from boltzbench.harness.results.source_hash import source_hash

from support import TESTS, operations

ARCHITECTURES = ("sm_90", "sm_80", "sm_100")  # the longest first, for workers that share them
FULL = "sm_90"
COMPILERS = {"triton": ("triton",), "cupy": ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")}
"""The distributions that the compiler of a backend may come from."""
RENEW = "look at what changed, then run `make goldens OPERATIONS={}`"


@dataclass(frozen=True)
class Golden:
    """One file."""

    implementation: Implementation
    arch: str

    @property
    def name(self) -> str:
        return f"{self.implementation.operation}/{self.implementation.name}/{self.arch}"

    @property
    def path(self) -> Path:
        file = f"{self.implementation.name}-{self.arch}.txt"
        return operations.folder(self.implementation.operation) / "golden" / file

    @property
    def renew(self) -> str:
        """What to do if the file does not fit."""
        return RENEW.format(self.implementation.operation)

    def lines(self) -> list[str]:
        """Header and variants as committed; nothing if there is no file."""
        return self.path.read_text().splitlines() if self.path.is_file() else []

    def compiler(self) -> str:
        """The first line: the compiler and its version, as installed here."""
        for distribution in COMPILERS[self.implementation.backend]:
            try:
                return f"# {distribution} {importlib.metadata.version(distribution)}"
            except importlib.metadata.PackageNotFoundError:
                continue
        return "# nothing"

    def header(self) -> list[str]:
        """The first two lines: the compiler, and a hash of the kernels' source without the plugin's."""
        module = operations.kernels_of(self.implementation).module
        return [self.compiler(), f"# source {source_hash(module.variants)}"]

    def summary(self, findings: Iterable[Mapping[str, Any]]) -> list[str]:
        """The whole file."""
        return [*self.header(), *map(_line, findings)]


def goldens(arch: str = "", chosen: Sequence[str] = ()) -> list[Golden]:
    """Those of one architecture, or of all; of the named operations, or of all."""
    return [
        Golden(implementation, each)
        for each in ARCHITECTURES
        if arch in ("", each)
        for implementation in operations.inspectable()
        if not chosen or implementation.operation in chosen
    ]


def changed(arch: str) -> list[Golden]:
    """Those of ``arch`` that were made from other source, or by other compilers, than are here."""
    return [golden for golden in goldens(arch) if golden.lines()[:2] != golden.header()]


def missing(operation: str) -> list[str]:
    """A sentence for each golden that an operation lacks."""
    return [
        f"{operations.below_root(golden.path)} is missing: run `make goldens OPERATIONS={operation}`"
        for golden in goldens(chosen=[operation])
        if not golden.path.is_file()
    ]


def needless() -> list[str]:
    """A sentence for each file that belongs to no implementation."""
    return [
        f"{operations.below_root(path)} belongs to no implementation: run `make goldens`" for path in _needless_files()
    ]


def _needless_files() -> list[Path]:
    wanted = {golden.path for golden in goldens()}
    return [path for path in sorted(TESTS.glob("operations/*/golden/*")) if path not in wanted]


def inspected(chosen: Sequence[Golden]) -> list[list[dict[str, Any]]]:
    """The findings for each of ``chosen``, from a process that compiles Triton kernels."""
    if not chosen:
        return []
    command = [sys.executable, "-m", "support.golden", *(golden.name for golden in chosen)]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=TESTS, env=os.environ | {"TRITON_INTERPRET": "0"}
    )
    if run.returncode:
        raise RuntimeError(run.stderr[-4000:])
    found: list[list[dict[str, Any]]] = json.loads(run.stdout)
    return found


def _inspect(names: Sequence[str]) -> list[list[dict[str, Any]]]:
    from boltzbench.harness.inspection.architectures import architecture
    from boltzbench.harness.inspection.inspect import inspect_variants

    found = []
    for operation, implementation, arch in (name.split("/") for name in names):
        variants = _chosen(operations.implementation(operation, implementation).variants(), arch)
        found.append([asdict(each) for each in inspect_variants(variants, architecture(arch))])
    return found


def _chosen(variants: Sequence[Any], arch: str) -> list[Any]:
    chosen: dict[Any, Any] = {}
    for number, each in enumerate(variants):
        if each.archs and arch not in each.archs:
            continue
        key: Any = number
        if arch != FULL and hasattr(each, "signature"):
            types = (str(value).partition(":")[0] for value in each.signature.values())
            key = (each.kernel.__name__, *(name for name in types if name.startswith("*")))
        chosen.setdefault(key, each)
    return list(chosen.values())


def _line(found: Mapping[str, Any]) -> str:
    def counts(widths: Mapping[str, int]) -> str:
        return " ".join(f"{count}x{width}" for width, count in widths.items()) or "none"

    parts = [
        f"registers {found['registers']}",
        *([f"spills {found['stack_bytes']}"] if found["status"] == "spills" else []),
        *(["narrow"] if found["status"] == "narrow" else []),
        f"shared {found['static_shared_bytes']}+{found['dynamic_shared_bytes']}",
        f"warps {found['warps']}",
        f"{'loop' if found['in_loop'] else 'kernel'} of {found['items']} {found['unit']}",
        f"loads {counts(found['loads'])}",
        f"stores {counts(found['stores'])}",
        *(f"{kind} {count}" for kind, count in found["mix"].items()),
    ]
    return f"{found['variant']}: {found['status'] if found['status'] == 'error' else ', '.join(parts)}"


def renew(chosen: Sequence[str] = ()) -> None:
    """Write the goldens of the named operations, or of all.

    Raises LookupError for an unknown operation. If a kernel does not compile, raises RuntimeError and writes nothing.
    """
    for name in chosen:
        if name not in operations.names():
            raise LookupError(f"no operation is named {name!r}; see `boltzbench list`")
    files = goldens(chosen=chosen)
    found = inspected(files)
    failed = [
        f"{golden.name}, {each['variant']}: {each['message']}"
        for golden, findings in zip(files, found, strict=True)
        for each in findings
        if each["status"] == "error"
    ]
    if failed:
        count = len(failed)
        raise RuntimeError(f"no golden was written: {count} of the kernels do not compile; the first is {failed[0]}")
    for golden, findings in zip(files, found, strict=True):
        golden.path.parent.mkdir(parents=True, exist_ok=True)
        golden.path.write_text("\n".join(golden.summary(findings)) + "\n")
    for path in _needless_files():
        path.unlink()


if __name__ == "__main__":
    if any("/" in argument for argument in sys.argv[1:]):
        print(json.dumps(_inspect(sys.argv[1:])))
    else:
        try:
            renew(sys.argv[1:])
        except (LookupError, RuntimeError) as error:
            sys.exit(str(error))
