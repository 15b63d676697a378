"""Helpers of baselines by other libraries: where a library runs, its seed, and which rows it supports."""

import importlib.util

import torch
from boltzbench.harness import Inputs, Unsupported
from boltzbench.kernels.common.dispatch import unavailable as backend_unavailable
from torch import Tensor

LONGEST_QUACK_ROW = 1 << 18
QUACK_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LIGER_OPTIONS = (0.0, 0.0, "none")
"""z-loss, label smoothing and reduction of Liger's cross-entropy."""

MOST_EDGE_STATES = 1 << 26
"""thrml gathers a state for each chain and edge; more would not fit in memory."""
MOST_EDGES = 1 << 16
"""thrml builds its graph from one Python object for each edge."""


def unavailable(module: str, distribution: str, backend: str, runs_on: str | None, device: torch.device) -> str | None:
    """Why the library cannot run for tensors on ``device``, or None. ``runs_on`` is ``cuda``, ``cpu``, or None."""
    if not _is_installed(module):
        return f"{distribution} is not installed"
    if runs_on not in (None, device.type):
        return f"{distribution} needs a GPU" if runs_on == "cuda" else f"{distribution} runs on the CPU only"
    return backend_unavailable(backend, device)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package
        return False


def own_seed(inputs: Inputs, number: str) -> int:
    """A seed of 31 bits that depends on the suite's seed and on the input ``number``, such as ``step``."""
    return hash((inputs["seed"], inputs[number])) & 0x7FFFFFFF


def require_graph(chains: int, edges: int) -> None:
    """Raise Unsupported for more than thrml can hold."""
    if edges > MOST_EDGES or chains * edges > MOST_EDGE_STATES:
        raise Unsupported(f"it keeps a state for each chain and edge, and {chains} x {edges} are too many")


def supported_rows(x: Tensor, dtypes: tuple[torch.dtype, ...], *, strided: bool = False) -> Tensor:
    """``x`` (rows, columns); raises Unsupported for another dtype, no elements, or, unless ``strided``, gaps."""
    if x.dtype not in dtypes:
        dtype = str(x.dtype).removeprefix("torch.")
        raise Unsupported(f"it has no {dtype} result as precise as the operation requires")
    if not x.numel():
        raise Unsupported("it takes no empty input")
    if not (strided or x.is_contiguous()):
        raise Unsupported("it copies an input that is not contiguous")
    return x


def quack_rows(x: Tensor) -> Tensor:
    """``x``; raises Unsupported for rows that QuACK does not support."""
    if supported_rows(x, QUACK_DTYPES).shape[1] > LONGEST_QUACK_ROW:
        raise Unsupported(f"it keeps a row in the shared memory of a cluster: {LONGEST_QUACK_ROW} columns at most")
    return x
