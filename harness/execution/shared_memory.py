"""Tensors of the host that two processes see: one allocates and describes them, the other attaches them.

The memory is an anonymous file. The other process opens it through /proc, which its owner may; once both have mapped
it, the file is closed. It has no name that a crash could leave behind.
"""

import fcntl
import mmap
import os
from dataclasses import dataclass

import torch
from torch import Tensor

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Shared:
    """Where a tensor lies: a file of a process with so many bytes, and the tensor's place in it, in elements."""

    process: int
    file: int
    nbytes: int
    dtype: str
    place: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class SharedMemory:
    """Memory that this process allocates. Its files stay open until `close`; tensors keep their memory."""

    def __init__(self) -> None:
        self._files: dict[int, tuple[int, int]] = {}

    def allocate(self, nbytes: int, device: torch.device) -> Tensor:
        """New bytes, all 0."""
        if device.type != "cpu":
            raise ValueError(f"memory of {device} is not shared")
        size = max(1, nbytes)
        file = os.memfd_create("boltzbench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(file, size)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)  # who shrinks a mapped file kills the others that read it
        memory = torch.frombuffer(mmap.mmap(file, size), dtype=torch.uint8)
        self._files[memory.data_ptr()] = file, size
        return memory[:nbytes]

    def describe(self, tensor: Tensor) -> Shared:
        """Where a tensor in this memory lies."""
        file, size = self._files[tensor.untyped_storage().data_ptr()]
        dtype = str(tensor.dtype).removeprefix("torch.")
        return Shared(
            os.getpid(), file, size, dtype, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())
        )

    def copy(self, tensor: Tensor) -> Shared:
        """Copy a tensor into new memory, without gaps."""
        memory = self.allocate(tensor.numel() * tensor.itemsize, torch.device("cpu"))
        stride = torch.empty(tensor.shape, device="meta").stride()
        mine = torch.empty(0, dtype=tensor.dtype).set_(memory.untyped_storage(), 0, tensor.shape, stride)
        mine.copy_(tensor.detach())
        return self.describe(mine)

    def close(self) -> None:
        """Close the files. Who has attached them keeps the memory."""
        for file, _ in self._files.values():
            os.close(file)
        self._files.clear()


def attach(shared: Shared) -> Tensor:
    """The tensor that ``shared`` describes. Raises ValueError or OSError if its memory is not there or too small."""
    file = os.open(f"/proc/{int(shared.process)}/fd/{int(shared.file)}", os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if fcntl.fcntl(file, fcntl.F_GET_SEALS) & SEALS != SEALS:
            raise ValueError("the file can shrink")
        if size < max(1, shared.nbytes):
            raise ValueError(f"{size} bytes are shared, {shared.nbytes} were announced")
        memory = torch.frombuffer(mmap.mmap(file, size), dtype=torch.uint8)
    finally:
        os.close(file)
    dtype = getattr(torch, shared.dtype)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{shared.dtype} is no dtype")
    reach = sum((n - 1) * stride for n, stride in zip(shared.shape, shared.stride, strict=True))
    if min((shared.place, *shared.shape, *shared.stride)) < 0 or (
        0 not in shared.shape and (shared.place + reach + 1) * dtype.itemsize > size
    ):
        raise ValueError("the tensor lies outside its memory")
    # set_ instead of a view: the implementation receives an ordinary tensor.
    return torch.empty(0, dtype=dtype).set_(memory.untyped_storage(), shared.place, shared.shape, shared.stride)
