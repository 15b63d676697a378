"""The tensors of one update as a kernel sees them: a table of addresses, and which block works on which tensor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
STOCHASTIC = "stochastic bfloat16"
"""In place of a dtype: bfloat16 that is rounded stochastically."""
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
    """A kernel by its formula and the dtype of its list, a key of `CODES`, or None for a mixed one."""
    of = "mixed dtypes" if dtype is None else str(dtype).removeprefix("torch.")
    return f"{kind} {of}, {'with' if noisy else 'without'} noise"


def bytes_per_parameter(kind: str, dtype: torch.dtype | str | None) -> int:
    """Read and written: parameter twice, gradient once, state twice. A mixed list is counted as one of float32."""
    size = 2 if dtype == STOCHASTIC else dtype.itemsize if isinstance(dtype, torch.dtype) else 4
    return 3 * size + (0 if kind == "langevin" else 2 * max(size, 4))


def access_bytes(dtype: torch.dtype | str | None) -> int:
    """What the accesses to tensors of one dtype promise; a mixed list, of which each dtype has its own, nothing."""
    return 0 if dtype is None else 16


KINDS = ("langevin", "preconditioned", "hamiltonian")


@dataclass(frozen=True)
class Numbers:
    """What the formulas multiply by, and which formula it is; the noise is ``noise * xi``.

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
    """Where in the random stream an update is: ``device_step``, an int64 of one element, replaces ``step``."""

    seed: int
    step: int
    device_step: Tensor | None = None


@dataclass(frozen=True)
class LaunchRequest:
    """Parameters and gradients that are not empty, contiguous, with the number of each tensor in the stream.

    ``states`` is V or p of each, or empty. ``strided`` pairs each tensor that is written and is not contiguous with
    the contiguous copy that is updated in its place. ``stochastic``: bfloat16 is rounded stochastically.
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
        """What `CODES` has for each parameter."""
        rounded = self.stochastic
        return tuple(CODES[STOCHASTIC if rounded and x.dtype is torch.bfloat16 else x.dtype] for x in self.parameters)

    def write_back(self) -> None:
        """Copy what was updated in a contiguous copy to where it belongs."""
        for x, copy in self.strided:
            x.copy_(copy)

    def table(self, block_elements: int) -> tuple[Tensor, Tensor]:
        """``(tensors, blocks)`` on the parameters' device, both int64.

        A row of ``tensors``: address of the parameter, of the gradient and of the state (0: none), elements, code of
        the dtype, number in the stream. A row of ``blocks``: the tensor that the block works on, and its first element
        there. While a CUDA graph is captured the tables outlive everything, since the graph holds their addresses.
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
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            _captured.extend(tables)
        return tables


TABLES_KEPT = 256
_captured: list[Tensor] = []
_kept: dict[tuple[object, ...], Tensor] = {}
"""Tables by what they hold, device and stream: copying one to a GPU waits for the GPU, so that a later update of the
same tensors only launches. They hold addresses and sizes alone, so they are right for whatever lies there."""


def _tensors(rows: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    return _on_device(("tensors", rows), lambda: torch.tensor(rows, dtype=torch.int64), device)


def _blocks(sizes: tuple[int, ...], block_elements: int, device: torch.device) -> Tensor:
    def table() -> Tensor:
        blocks = []
        for index, elements in enumerate(sizes):
            first = torch.arange(0, elements, block_elements)
            blocks.append(torch.stack((torch.full_like(first, index), first), dim=1))
        return torch.cat(blocks)

    return _on_device(("blocks", sizes, block_elements), table, device)


def _on_device(key: tuple[object, ...], make: Callable[[], Tensor], device: torch.device) -> Tensor:
    """The table, kept from before or made; of no other stream, whose allocator could hand it on while it is read."""
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    key = (*key, device, stream)
    if key in _kept:
        return _kept[key]
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        # The graph copies it at each replay. It is not kept: until the first of them it holds nothing.
        pinned = make().pin_memory()
        _captured.append(pinned)
        return pinned.to(device, non_blocking=True)
    if len(_kept) >= TABLES_KEPT:
        del _kept[next(iter(_kept))]
    _kept[key] = make().to(device)
    return _kept[key]
