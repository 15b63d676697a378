"""The committed summaries of machine code in `golden/`: a file for each implementation and architecture, a line for
each variant. A change of code generation shows there in review. To renew them, after looking at what changed:

    python tests/golden.py

On `FULL` every variant is read. On the others, of those of a Triton kernel that differ neither in kernel nor in the
types of its pointers, the first is: each has to be compiled and disassembled by itself, and the suite has minutes.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("golden")
ARCHITECTURES = ("sm_90", "sm_80", "sm_100")  # the longest first, for workers that share them
FULL = "sm_90"
OPERATIONS = (
    "enumeration",
    "annealed_langevin",
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


def inspected(arch: str) -> dict[str, list[dict[str, Any]]]:
    """The findings for each file of ``arch``, from a process that compiles Triton kernels."""
    run = subprocess.run([sys.executable, __file__, arch], capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr[-4000:])
    found: dict[str, list[dict[str, Any]]] = json.loads(run.stdout)
    return found


def _inspect(arch: str) -> dict[str, list[dict[str, Any]]]:
    from boltzbench.harness.inspect_limits import architecture
    from boltzbench.harness.inspection import inspect_variants
    from boltzbench.kernels.variants import variants_of

    return {
        f"{operation}-{backend}-{arch}.txt": [
            asdict(each)
            for each in inspect_variants(
                _chosen(variants_of(backend, f"boltzbench.kernels.{operation}"), arch), architecture(arch)
            )
        ]
        for operation in OPERATIONS
        for backend in COMPILERS
    }


def _chosen(variants: Sequence[Any], arch: str) -> list[Any]:
    chosen = {}
    for number, each in enumerate(variants):
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


def summary(name: str, findings: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join([compiler(name), *map(_line, findings)]) + "\n"


def _line(found: Mapping[str, Any]) -> str:
    def counts(widths: Mapping[str, int]) -> str:
        return " ".join(f"{count}x{width}" for width, count in widths.items()) or "none"

    parts = [
        f"registers {found['registers']}",
        *([f"spills {found['stack_bytes']}"] if found["status"] == "spills" else []),
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
        for name, findings in inspected(arch).items():
            (FOLDER / name).write_text(summary(name, findings))
            written.add(FOLDER / name)
    for file in set(FOLDER.glob("*.txt")) - written:
        file.unlink()


if __name__ == "__main__":
    if sys.argv[1:]:
        os.environ["TRITON_INTERPRET"] = "0"
        print(json.dumps(_inspect(sys.argv[1])))
    else:
        renew()
