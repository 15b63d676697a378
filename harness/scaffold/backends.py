"""The backends that `new --implementation` writes kernels for, and what can be tried of each on a machine."""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """``title`` is its name in sentences. ``module`` must be importable, which ``distribution`` brings; empty if
    boltzbench itself brings it. ``needs_gpu`` says that nothing runs its kernels on a CPU. ``tested`` says in a
    sentence what of the written kernel has been run before. ``files`` are its sources besides ``kernel.py``."""

    title: str
    tested: str
    module: str = ""
    distribution: str = ""
    needs_gpu: bool = False
    files: tuple[str, ...] = ()

    def untried(self, gpu: str | None) -> str:
        """Why the kernel cannot be tried on this machine, where ``gpu`` says why there is none; empty if it can."""
        if self.module and not _importable(self.module):
            return f"{self.distribution} is not installed (pip install {self.distribution})"
        if self.needs_gpu and gpu is not None:
            return f"{self.title} needs a GPU, and here is none: {gpu}"
        return ""


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that should hold it is missing
        return False


NOT_RUN = "boltzbench's own tests have no machine for {}: the kernel follows its documentation and was only parsed."

BACKENDS = {
    "torch": Backend("torch", "boltzbench's own tests run it."),
    "triton": Backend("Triton", "boltzbench's own tests run the kernel in Triton's interpreter, on a CPU."),
    "cupy": Backend("CUDA C", "boltzbench's own tests run the kernel in its emulator, on a CPU.", files=("kernel.cu",)),
    "numba": Backend(
        "Numba",
        "boltzbench's own tests run the kernel for CPUs where Numba is installed; the one for GPUs follows Numba's "
        "documentation and was only parsed.",
        "numba",
        "numba",
    ),
    "cutile": Backend("cuTile", NOT_RUN.format("cuTile"), "cuda.tile", "cuda-tile", True),
    "helion": Backend("Helion", NOT_RUN.format("Helion"), "helion", "helion", True),
    "cute": Backend("CuTe DSL", NOT_RUN.format("CuTe DSL"), "cutlass.cute", "nvidia-cutlass-dsl", True),
}
