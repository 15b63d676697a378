"""The committed summaries of machine code in `golden/`: a file for each implementation and architecture, a line for
each variant. A change of code generation shows there in review. To renew them, after looking at what changed:

    python tests/golden.py

On `FULL` every variant is read. On the others, of those of a Triton kernel that differ neither in kernel nor in the
types of its pointers, the first is. Tests read again only what was made from other source or by another compiler than
its summary says: each has to be compiled and disassembled by itself, and the suite has minutes.
"""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from boltzbench.harness.results.source_hash import source_hash

from support import TESTS

FOLDER = TESTS / "golden"
ARCHITECTURES = ("sm_90", "sm_80", "sm_100")  # the longest first, for workers that share them
FULL = "sm_90"
OPERATIONS = (
    "annealed_langevin",
    "boltzmann_gibbs",
    "enumeration",
    "generalised_cross_entropy",
    "ising",
    "logsumexp",
    "parallel_tempering",
    "rbm_free_energy",
    "rbm_gibbs",
    "rbm_gradient",
    "sgld",
    "spin_glass",
    "thermodynamics",
)
COMPILERS = {"triton": ("triton",), "cupy": ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")}
"""The distributions that an implementation's compiler may come from."""
MODULES = {"triton": "triton_kernels", "cupy": "cuda_kernels"}


def names(arch: str) -> list[str]:
    return [f"{operation}-{backend}-{arch}.txt" for operation in OPERATIONS for backend in COMPILERS]


def changed(arch: str) -> list[str]:
    """The files of ``arch`` that were made from other source, or by other compilers, than are here."""
    return [name for name in names(arch) if (FOLDER / name).read_text().splitlines()[:2] != header(name)]


def inspected(files: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The findings for each of ``files``, from a process that compiles Triton kernels."""
    if not files:
        return {}
    run = subprocess.run([sys.executable, __file__, *files], capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr[-4000:])
    found: dict[str, list[dict[str, Any]]] = json.loads(run.stdout)
    return found


def _inspect(files: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    from boltzbench.harness.inspection.architectures import architecture
    from boltzbench.harness.inspection.inspect import inspect_variants
    from boltzbench.kernels.common.variants import variants_of

    found = {}
    for name in files:
        operation, backend, arch = name.removesuffix(".txt").split("-")
        chosen = _chosen(variants_of(backend, f"boltzbench.kernels.{operation}"), arch)
        found[name] = [asdict(each) for each in inspect_variants(chosen, architecture(arch))]
    return found


def _chosen(variants: Sequence[Any], arch: str) -> list[Any]:
    chosen = {}
    for number, each in enumerate(variants):
        if each.archs and arch not in each.archs:
            continue
        key: Any = number
        if arch != FULL and hasattr(each, "signature"):
            types = (str(value).partition(":")[0] for value in each.signature.values())
            key = (each.kernel.__name__, *(name for name in types if name.startswith("*")))
        chosen.setdefault(key, each)
    return list(chosen.values())


def compiler(name: str) -> str:
    """The first line of a file: what its kernels were compiled by here."""
    for distribution in COMPILERS[name.split("-")[1]]:
        try:
            return f"# {distribution} {importlib.metadata.version(distribution)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "# nothing"


def header(name: str) -> list[str]:
    """The first lines of a file: the compiler, and a hash of the source that its kernels were made from."""
    operation, backend, _ = name.split("-")
    kernels = importlib.import_module(f"boltzbench.kernels.{operation}.{MODULES[backend]}")
    return [compiler(name), f"# source {source_hash(kernels.variants)}"]


def summary(name: str, findings: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join([*header(name), *map(_line, findings)]) + "\n"


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


def renew() -> None:
    written = set()
    for arch in ARCHITECTURES:
        for name, findings in inspected(names(arch)).items():
            (FOLDER / name).write_text(summary(name, findings))
            written.add(FOLDER / name)
    for file in set(FOLDER.glob("*.txt")) - written:
        file.unlink()


if __name__ == "__main__":
    if sys.argv[1:]:
        os.environ["TRITON_INTERPRET"] = "0"
        print(json.dumps(_inspect(sys.argv[1:])))
    else:
        renew()
