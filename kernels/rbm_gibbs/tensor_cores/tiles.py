"""The tile of a block for the launchers, with the sizes of `Shape` in `tile.cuh`."""

from dataclasses import dataclass

from ...common.variants import CudaVariant
from ...cuda_module import CudaModule

STEP_GIVEN = 64
"""Given units in one step, `SLAB` of the .cuh."""


@dataclass(frozen=True)
class TensorCoreTile:
    """``chain_warps`` warps along the chains and two along the units."""

    weight: str
    products: int
    chain_warps: int

    def kernel(self, function: str, packed: bool) -> str:
        return f"{function}<{self.weight}, {self.products}, {self.chain_warps}, {str(packed).lower()}>"

    @property
    def chains(self) -> int:
        return 32 * self.chain_warps

    @property
    def units(self) -> int:
        return 128 if self.products == 1 else 64

    @property
    def threads(self) -> int:
        return 64 * self.chain_warps

    @property
    def weight_bytes(self) -> int:
        return 2 if self.weight == "bfloat16" else 1

    def shared_bytes(self, packed: bool) -> int:
        states = self.chains * STEP_GIVEN // (8 if packed else 1)
        stage = states + STEP_GIVEN * self.products * self.units * self.weight_bytes
        return stage * (2 if self.chain_warps < 4 or stage > 24 * 1024 else 3)

    def variant(self, name: str, packed: bool, module: CudaModule, function: str) -> CudaVariant:
        return CudaVariant(
            name=name,
            threads=self.threads,
            items=self.chains * self.units * STEP_GIVEN * self.products // self.threads,
            unit="multiply-adds",
            bytes_per_item=(0.125 if packed else 1) / (self.units * self.products) + self.weight_bytes / self.chains,
            access_bytes=0 if packed else 16,
            module=module,
            kernel=self.kernel(function, packed),
            shared_bytes=self.shared_bytes(packed),
        )


TILES = {
    "bf16": (TensorCoreTile("bfloat16", 1, 2), TensorCoreTile("bfloat16", 1, 4)),
    "bf16x3": (TensorCoreTile("bfloat16", 3, 4),),
    "int8x3": (TensorCoreTile("signed char", 3, 2), TensorCoreTile("signed char", 3, 4)),
}
"""By precision, the tile for few chains before the one for many. A smaller tile of bf16x3 would be alone on its
multiprocessor: three parts of 2 bytes fill the shared memory."""
