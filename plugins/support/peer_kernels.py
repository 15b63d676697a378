"""The kernels of Liger, FlagGems and QuACK for cross-entropy, forward, as `inspect` reads them.

Each function returns no variants where its library cannot be imported. FlagGems asks for a GPU on import. QuACK's
compiler is configured by environment variables on import, so it runs in a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boltzbench.harness import Variant
from boltzbench.kernels.common.variants import MachineCode, TritonVariant

COLUMNS = (1024, 32768)
POINTERS = {"float32": "*fp32:16", "bfloat16": "*bf16:16"}
SIZES = {"float32": 4, "bfloat16": 2}
WARPS_OF_LIGER = 32
"""What Liger launches on Hopper and earlier."""


def _name(dtype: str, columns: int) -> str:
    return f"forward {dtype}, rows of {columns}"


def liger() -> Sequence[Variant]:
    """Cross-entropy without a gradient, as `LigerCrossEntropyFunction` launches it for reduction ``none``."""
    try:
        from liger_kernel.ops.cross_entropy import MAX_FUSED_SIZE, liger_cross_entropy_kernel
    except (ImportError, RuntimeError):
        return ()
    absent = ("weight_ptr", "z_loss_ptr", "token_accuracy_ptr", "predicted_tokens_ptr", "softcap")
    unwanted = ("RETURN_Z_LOSS", "RETURN_TOKEN_ACCURACY", "RETURN_PREDICTED_TOKENS", "HAS_WEIGHT", "HAS_SOFTCAPPING")
    return [
        TritonVariant(
            name=_name(dtype, columns),
            threads=32 * WARPS_OF_LIGER,
            items=min(MAX_FUSED_SIZE, columns) // (32 * WARPS_OF_LIGER),
            unit="elements",
            bytes_per_item=SIZES[dtype],
            kernel=liger_cross_entropy_kernel,
            signature={
                "X_ptr": pointer, "X_stride": "i32:16", "Y_ptr": "*i64:16", "Y_stride": 1, "loss_ptr": pointer,
                "loss_stride": 1, "token_accuracy_stride": "i32:16", "predicted_tokens_stride": "i32:16",
                "n_cols": "i32:16", "n_non_ignore": "i32:16", "sum_non_ignore_weight": "i32:16", "weight_sum": "fp32",
                "ignore_index": "i32", "lse_square_scale": 0.0, "label_smoothing": 0.0, "reduction": "none",
                "BLOCK_SIZE": min(MAX_FUSED_SIZE, columns), "HAS_GRADIENTS": False,
                **dict.fromkeys(absent), **dict.fromkeys(unwanted, False),
            },
        )
        for dtype, pointer in POINTERS.items()
        for columns in COLUMNS
    ]  # fmt: skip


def flag_gems() -> Sequence[Variant]:
    """Cross-entropy of labels without weights, in each tile that its tuner may choose for rows."""
    try:
        from flag_gems.fused.cross_entropy_loss import celoss_indices_kernel
    except (ImportError, RuntimeError, AssertionError):
        return ()
    tuner: Any = celoss_indices_kernel
    while not hasattr(tuner, "configs"):
        tuner = tuner.fn
    kernel = tuner.fn
    while hasattr(kernel, "fn") and not hasattr(kernel, "arg_names"):
        kernel = kernel.fn
    return [
        TritonVariant(
            name=f"forward {dtype}, {chosen.kwargs['BLOCK_C']} columns a pass",
            threads=32 * chosen.num_warps,
            items=chosen.kwargs["BLOCK_C"] // (32 * chosen.num_warps),
            unit="elements",
            bytes_per_item=SIZES[dtype],
            kernel=kernel,
            signature={
                "inp_ptr": pointer, "tgt_ptr": "*i64:16", "w_ptr": None, "out_ptr": "*fp32:16",
                "w_tgt_ptr": "*fp32:16", "ignore_index": "i32", "C": "i32:16", "D": 1, **chosen.kwargs,
            },
            options={"num_stages": chosen.num_stages},
        )
        for dtype, pointer in POINTERS.items()
        for chosen in tuner.configs
        if chosen.kwargs["BLOCK_D"] == 1
    ]  # fmt: skip


QUACK = """
import cutlass
from quack.cross_entropy import CrossEntropy
CrossEntropy.compile(cutlass.{dtype}, cutlass.Int64, None, {columns}, True, False, None, 1)
"""
"""Compiles the forward pass of cross-entropy that returns the log-sum-exp too."""


@dataclass(frozen=True)
class QuackVariant:
    """The forward pass for rows of 1024 elements, or of 32768 in a cluster of two blocks.

    A block holds its part of the rows in dynamic shared memory, besides a few bytes for each warp.
    """

    dtype: str
    columns: int
    unit: str = "elements"
    access_bytes: int = 0
    archs: Sequence[str] = ("sm_90", "sm_100")

    @property
    def name(self) -> str:
        return _name(self.dtype, self.columns)

    @property
    def threads(self) -> int:
        return 128 if self.columns == 1024 else 256

    @property
    def items(self) -> int:
        return self.columns // (32 if self.columns == 1024 else 2 * self.threads)

    @property
    def bytes_per_item(self) -> float:
        return SIZES[self.dtype]

    def compile(self, arch: str) -> MachineCode:
        """The kernel for ``arch``. Raises RuntimeError with the compiler's last line."""
        kind = {"float32": "Float32", "bfloat16": "BFloat16"}[self.dtype]
        with tempfile.TemporaryDirectory() as folder:
            settings = {"CUTE_DSL_ARCH": f"{arch}a", "CUTE_DSL_KEEP": "cubin", "CUTE_DSL_DUMP_DIR": folder}
            program = [sys.executable, "-c", QUACK.format(dtype=kind, columns=self.columns)]
            environment = {**os.environ, **settings, "QUACK_CACHE_ENABLED": "0"}
            done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
            cubins = sorted(Path(folder).glob("*.cubin"))
            if not cubins:
                lines = done.stderr.strip().splitlines() or ["it wrote no cubin"]
                raise RuntimeError(f"QuACK's compiler failed: {lines[-1]}")
            elf = cubins[0].read_bytes()
        return MachineCode(elf, symbol_of(elf), self.threads * self.items * SIZES[self.dtype])


def quack() -> Sequence[Variant]:
    """Cross-entropy, forward, with the log-sum-exp of each row."""
    if not all(importlib.util.find_spec(name) for name in ("quack", "cutlass")):
        return ()
    return [QuackVariant(dtype, columns) for dtype in SIZES for columns in COLUMNS]


def symbol_of(elf: bytes) -> str:
    """The kernel of a cubin with one kernel: its code is in a section ``.text.<symbol>``."""
    begin = elf.index(b".text.kernel") + len(b".text.")
    return elf[begin : elf.index(b"\0", begin)].decode()
