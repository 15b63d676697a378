"""A kernel variant: a kernel as compiled for one class of shapes, with what its launcher promises of it.

    CudaVariant(
        name="forward float32, block per row", threads=256, items=16, bytes_per_item=4, access_bytes=16,
        module=module(torch.float32), kernel="forward<float, 256, 4, false>",
    )
    TritonVariant(
        name="forward float32, 1 x 4096", threads=256, items=16, bytes_per_item=4, access_bytes=16,
        kernel=forward_kernel, signature={"x": "*fp32:16", "n": "i32:16", "stride": 1, "BLOCK_N": 4096, ...},
    )

`boltzbench inspect` compiles the variants of an implementation, without a GPU, and reads their machine code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..cuda_module import CudaModule, arch_of
from .dispatch import backend_module


@dataclass(frozen=True)
class MachineCode:
    """``elf`` is a cubin with the kernel ``symbol``; its launch adds ``dynamic_shared_bytes`` of shared memory."""

    elf: bytes
    symbol: str
    dynamic_shared_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class KernelVariant:
    """What every variant states, whichever compiler it is for.

    - ``threads``: threads of a block.
    - ``items``: items that one thread handles in one iteration of the inner loop, as written in the source (in the
      whole kernel if it has no loop); ``unit`` names them ("elements", "parameters", "multiply-adds").
    - ``bytes_per_item``: memory traffic, reads and writes.
    - ``access_bytes``: the narrowest bulk load or store promised in the inner loop; 0 promises nothing.
    - ``archs``: the architectures ("sm_90") that launch it; empty means all.
    - ``inner_passes``: mean passes of the loops inside the inner loop of the machine code, where the data decide them.
    """

    name: str
    threads: int
    items: int
    bytes_per_item: float
    access_bytes: int = 0
    unit: str = "items"
    archs: Sequence[str] = ()
    inner_passes: float = 1.0

    def compile(self, arch: str) -> MachineCode:
        """The kernel for an architecture such as "sm_90". Raises what the compiler raises."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class CudaVariant(KernelVariant):
    """``kernel``, a name expression of ``module``, launched with ``shared_bytes`` of dynamic shared memory.

    It is compiled as for a launch on such a device: for "sm_90" with the instructions of sm_90a.
    """

    module: CudaModule
    kernel: str
    shared_bytes: int = 0

    def compile(self, arch: str) -> MachineCode:
        capability = re.fullmatch(r"sm_(\d+)(\d)", arch)
        target = arch_of((int(capability[1]), int(capability[2]))) if capability else arch
        cubin = self.module.cubin(target)
        return MachineCode(cubin.data, cubin.names[self.kernel], self.shared_bytes)


@dataclass(frozen=True, kw_only=True)
class TritonVariant(KernelVariant):
    """``kernel``, a ``triton.jit`` function, as Triton's launcher specializes it for some arguments.

    ``signature`` has an entry for each parameter, in the notation of Triton's ``tools/compile.py``: a type
    (``"*fp32"``, ``"i64"``), with ``":16"`` where the address or the integer is divisible by 16, or the value of a
    constant. The launcher turns ``tl.constexpr`` parameters and integers equal to 1 into constants, passes integers as
    ``i32`` if they fit, else ``i64``, and does not specialize parameters in ``do_not_specialize``. A PyTorch allocation
    begins at a multiple of 16.

    The number of warps follows from ``threads``; ``options`` are Triton's own (``num_stages``, ``maxnreg``).
    """

    kernel: Any
    signature: Mapping[str, Any]
    options: Mapping[str, Any] | None = None

    def compile(self, arch: str) -> MachineCode:
        """Raises RuntimeError if this process interprets Triton kernels, ValueError for a wrong signature."""
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        if os.environ.get("TRITON_INTERPRET") not in (None, "", "0"):
            raise RuntimeError("this process interprets Triton kernels; to compile, start it with TRITON_INTERPRET=0")
        types, constants, divisible = self._specialisation()
        target = GPUTarget("cuda", int(arch.removeprefix("sm_").rstrip("af")), 32)
        options = {"num_warps": self.threads // 32, **(self.options or {})}
        compiled = triton.compile(ASTSource(self.kernel, types, constants, divisible), target, options)
        return MachineCode(compiled.asm["cubin"], compiled.metadata.name, compiled.metadata.shared)

    def _specialisation(self) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
        """Types, values of constants, and attributes by position, for `ASTSource`."""
        given, wanted = set(self.signature), set(self.kernel.arg_names)
        if given != wanted:
            raise ValueError(
                f"{self.name}: signature lacks {sorted(wanted - given)} and has unknown {sorted(given - wanted)}"
            )
        types: dict[str, str] = {}
        constants: dict[str, Any] = {}
        attributes: dict[tuple[int], list[list[Any]]] = {}
        for parameter in self.kernel.params:
            value = self.signature[parameter.name]
            if parameter.is_constexpr or not isinstance(value, str):
                types[parameter.name], constants[parameter.name] = "constexpr", value
                continue
            types[parameter.name], _, divisible = value.partition(":")
            if divisible not in ("", "16"):
                raise ValueError(f"{self.name}: {parameter.name} cannot be {value!r}")
            if divisible:
                if parameter.do_not_specialize or parameter.do_not_specialize_on_alignment:
                    raise ValueError(f"{self.name}: {parameter.name} is not specialized, so it cannot be {value!r}")
                attributes[(parameter.num,)] = [["tt.divisibility", 16]]
        return types, constants, attributes


@dataclass(frozen=True)
class PackageVariants:
    """Calls ``variants(*kinds)`` of the module of ``package`` with the kernels of ``backend``; the others have none."""

    backend: str
    package: str
    kinds: tuple[str, ...] = ()

    def __call__(self) -> Sequence[KernelVariant]:
        return self.module.variants(*self.kinds) if self.backend in ("triton", "cupy") else ()

    @property
    def module(self) -> ModuleType:
        return backend_module(self.backend, self.package)
