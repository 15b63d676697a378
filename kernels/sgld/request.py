"""The launch request of the backends: a table of the tensors by address, and the tensor that each block works on."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common import prepared

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
STOCHASTIC = "stochastic bfloat16"
"""A key in place of a dtype: bfloat16 with stochastic rounding."""
CODES: dict[torch.dtype | str, int] = {
    torch.float32: 0,
    torch.float16: 1,
    torch.bfloat16: 2,
    STOCHASTIC: 3,
    torch.float64: 4,
}


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision in which a parameter of ``dtype`` is updated, and the dtype of its state."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def variant_name(kind: str, dtype: torch.dtype | str | None, noisy: bool) -> str:
    """The name of a kernel, by its formula and its dtype, a key of `CODES`, or None for a list of several dtypes."""
    of = "mixed dtypes" if dtype is None else str(dtype).removeprefix("torch.")
    return f"{kind} {of}, {'with' if noisy else 'without'} noise"


def bytes_per_parameter(kind: str, dtype: torch.dtype | str | None) -> int:
    """Bytes moved: the parameter twice, the gradient once, the state twice. Several dtypes count as float32."""
    size = 2 if dtype == STOCHASTIC else dtype.itemsize if isinstance(dtype, torch.dtype) else 4
    return 3 * size + (0 if kind == "langevin" else 2 * max(size, 4))


def access_bytes(dtype: torch.dtype | str | None) -> int:
    """Width of the accesses of a kernel for one dtype; 0, which promises nothing, for several dtypes."""
    return 0 if dtype is None else 16


KINDS = ("langevin", "preconditioned", "hamiltonian")


@dataclass(frozen=True)
class Numbers:
    """The formula of an update, and its factors; the noise is ``noise * xi``.

    - ``langevin``: ``x <- x - drift g + noise xi``.
    - ``preconditioned``: ``V <- keep V + take g^2``, ``G = 1 / (damping + sqrt(V))``,
      ``x <- x - drift G g + sqrt(G) noise xi``.
    - ``hamiltonian``: ``p <- keep p - drift g + noise xi``, ``x <- x + p``.
    """

    kind: str
    drift: float
    noise: float
    keep: float = 0.0
    take: float = 0.0
    damping: float = 0.0


@dataclass(frozen=True)
class Place:
    """The place of an update in the random stream; ``device_step``, int64 of one element, replaces ``step``."""

    seed: int
    step: int
    device_step: Tensor | None = None


@dataclass(frozen=True)
class LaunchRequest:
    """Contiguous parameters and gradients that are not empty, with the number of each tensor in the stream.

    ``states``: V or p of each parameter, or empty. ``strided``: pairs of a tensor that is not contiguous and the
    contiguous copy that is updated in its place. ``stochastic``: round bfloat16 stochastically.
    """

    parameters: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    numbers: tuple[int, ...]
    stochastic: bool
    strided: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(
        cls,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        states: Sequence[Tensor],
        numbers: Sequence[int],
        stochastic: bool,
    ) -> "LaunchRequest":
        kept = [i for i, x in enumerate(parameters) if x.numel()]
        dense = {i: parameters[i].detach().contiguous() for i in kept}
        dense_states = {i: states[i].detach().contiguous() for i in kept} if states else {}
        strided = [(parameters[i], copy) for i, copy in dense.items() if not parameters[i].is_contiguous()]
        strided += [(states[i], copy) for i, copy in dense_states.items() if not states[i].is_contiguous()]
        return cls(
            tuple(dense.values()),
            tuple(gradients[i].detach().contiguous() for i in kept),
            tuple(dense_states.values()),
            tuple(numbers[i] for i in kept),
            stochastic,
            tuple(strided),
        )

    @property
    def elements(self) -> int:
        return sum(x.numel() for x in self.parameters)

    @property
    def codes(self) -> tuple[int, ...]:
        """The code of each parameter: see `CODES`."""
        rounded = self.stochastic
        return tuple(CODES[STOCHASTIC if rounded and x.dtype is torch.bfloat16 else x.dtype] for x in self.parameters)

    def write_back(self) -> None:
        """Copy each updated contiguous copy back to its strided tensor."""
        for x, copy in self.strided:
            x.copy_(copy)

    def table(self, block_elements: int) -> tuple[Tensor, Tensor]:
        """``(tensors, blocks)`` on the parameters' device, both int64.

        A row of ``tensors``: addresses of the parameter, the gradient and the state (0: none), number of elements, code
        of the dtype, number in the stream. A row of ``blocks``: the tensor that the block works on, and the block's
        first element. Tables made while a CUDA graph is captured are never freed: the graph holds their addresses.
        """
        device = self.parameters[0].device
        states = [s.data_ptr() for s in self.states] or [0] * len(self.parameters)
        rows = tuple(
            (x.data_ptr(), g.data_ptr(), state, x.numel(), code, number)
            for x, g, state, code, number in zip(
                self.parameters, self.gradients, states, self.codes, self.numbers, strict=True
            )
        )
        tables = _tensors(rows, device), _blocks(tuple(x.numel() for x in self.parameters), block_elements, device)
        if prepared.is_capturing(device):
            _captured.extend(tables)
        return tables


TABLES_KEPT = 256
_captured: list[Tensor] = []
_kept: dict[tuple[object, ...], Tensor] = {}
"""A cache of tables by content and device. Copying a table to a GPU waits for the GPU; with the cache, later updates of
the same tensors only launch, also where a CUDA graph is captured on another stream. The tables hold only addresses and
sizes, so they are valid for any tensors there."""
_lock = threading.Lock()
"""Held to change the cache: several threads may update tensors at once."""


def _tensors(rows: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    return _on_device(("tensors", rows), lambda: torch.tensor(rows, dtype=torch.int64, device="cpu"), device)


def _blocks(sizes: tuple[int, ...], block_elements: int, device: torch.device) -> Tensor:
    def table() -> Tensor:
        blocks = []
        for index, elements in enumerate(sizes):
            first = torch.arange(0, elements, block_elements, device="cpu")
            blocks.append(torch.stack((torch.full_like(first, index), first), dim=1))
        return torch.cat(blocks)

    return _on_device(("blocks", sizes, block_elements), table, device)


def _on_device(key: tuple[object, ...], make: Callable[[], Tensor], device: torch.device) -> Tensor:
    """The table from the cache, or a new one. The copy has ended on return, so that any stream may read the table."""
    key = (*key, device)
    if (kept := _kept.get(key)) is not None:
        if device.type == "cuda":  # the allocator reuses a dropped table only after this stream has read it
            kept.record_stream(torch.cuda.current_stream(device))
        return kept
    if prepared.is_capturing(device):
        # The graph copies it at each replay. It is not cached: before the first replay it holds nothing.
        pinned = make().pin_memory()
        _captured.append(pinned)
        return pinned.to(device, non_blocking=True)
    table = make().to(device)
    with _lock:
        if len(_kept) >= TABLES_KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = table
    return table
