"""Compiles every Triton kernel to machine code for one architecture, without a GPU, and prints one line for each.

Run as a program of its own: a process that interprets Triton kernels cannot compile them.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "0"

import triton
from boltzbench.kernels.logsumexp import triton_kernels as logsumexp
from boltzbench.kernels.rbm_gibbs import triton_kernels as rbm_gibbs
from boltzbench.kernels.sgld import triton_kernels as sgld
from triton import language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

DTYPES = {"fp64": tl.float64, "fp32": tl.float32, "fp16": tl.float16, "bf16": tl.bfloat16}

INTEGERS = "type of the integer arguments"


def variants():
    """``(name, kernel, types of arguments, constant arguments, warps)``; types default to 64-bit integers."""
    for dtype in DTYPES:
        acc = tl.float64 if dtype == "fp64" else tl.float32
        wide = "*fp64" if dtype == "fp64" else "*fp32"
        pointers = {"x": f"*{dtype}", "y": f"*{dtype}", "exact": wide, "peaks": wide, "totals": wide, "lse": wide}
        pointers |= {"grad": f"*{dtype}", "dx": f"*{dtype}"}
        has_exact = dtype in ("fp16", "bf16")
        for block_rows, block_n in ((1, 4096), (32, 128), (64, 64)):
            tile = {"BLOCK_ROWS": block_rows, "BLOCK_N": block_n, "ACC": acc}
            for split in (False, True):
                constants = tile | {"FLIP": split, "SPLIT": split, "HAS_EXACT": has_exact}
                yield (
                    f"logsumexp forward {dtype} {block_rows}x{block_n} split={split}",
                    logsumexp.forward_kernel,
                    (pointers | ({"stride": 1} if block_rows < 64 else {"stride2": 1})),
                    constants,
                    8,
                )
            yield (
                f"logsumexp backward {dtype} {block_rows}x{block_n}",
                logsumexp.backward_kernel,
                pointers
                | {
                    "x_stride": 1,
                    "dx_stride": 1,
                },
                tile,
                8,
            )
        constants = {"ACC": acc, "FLIP": False, "HAS_EXACT": has_exact, "BLOCK_ROWS": 128}
        yield f"logsumexp combine {dtype}", logsumexp.combine_kernel, pointers, constants, 4
    for dtype in ("fp32", "fp16", "bf16"):
        for draw, clamped in ((True, False), (True, True), (False, False)):
            pointers = {"given": "*u8", "weights": f"*{dtype}", "bias": f"*{dtype}", "out": "*u8" if draw else "*fp32"}
            pointers |= {"clamped": "*i1", "previous": "*u8", "weight_stride_unit": 1}
            constants = {"STREAM": 1, "DRAW": draw, "CLAMPED": clamped}
            constants |= {name: getattr(rbm_gibbs, name) for name in ("BLOCK_CHAINS", "BLOCK_UNITS", "BLOCK_GIVEN")}
            name = f"rbm_gibbs half sweep {dtype} draw={draw} clamped={clamped}"
            yield name, rbm_gibbs.half_sweep_kernel, pointers, constants, 4
    # Triton types small integers as 32-bit ones, and makes a constant of an integer argument that is 1.
    ones = dict.fromkeys(("rows", "n", "size1", "size2", "chains", "given_units", "units"), 1)
    for integers, known in (("i32", {}), ("ones", ones)):
        pointers = dict.fromkeys(("x", "y", "exact", "peaks", "totals", "lse", "grad", "dx"), "*fp32") | known
        tile = {"BLOCK_ROWS": 1, "BLOCK_N": 1, "ACC": tl.float32, INTEGERS: "i32"}
        constants = tile | {"FLIP": False, "SPLIT": False, "HAS_EXACT": False}
        yield f"logsumexp forward {integers}", logsumexp.forward_kernel, pointers, constants, 4
        yield f"logsumexp backward {integers}", logsumexp.backward_kernel, pointers, tile, 4
        pointers = {"given": "*u8", "weights": "*fp32", "bias": "*fp32", "out": "*u8", "clamped": "*i1"} | known
        constants = {"STREAM": 1, "DRAW": True, "CLAMPED": True, INTEGERS: "i32"}
        constants |= {name: getattr(rbm_gibbs, name) for name in ("BLOCK_CHAINS", "BLOCK_UNITS", "BLOCK_GIVEN")}
        name = f"rbm_gibbs half sweep {integers}"
        yield name, rbm_gibbs.half_sweep_kernel, pointers | {"previous": "*u8"}, constants, 4
    for kind in sgld.BLOCKS:
        for variant in sgld.variants(kind):
            if variant.name in ("float32, with noise", "stochastic bfloat16, with noise"):
                types = {name: of.partition(":")[0] for name, of in variant.signature.items() if isinstance(of, str)}
                kinds = {name: value for name, value in variant.signature.items() if not isinstance(value, str)}
                types.pop("KIND")
                yield (
                    f"sgld {kind} {variant.name}",
                    variant.kernel,
                    types,
                    kinds | {"KIND": kind},
                    variant.threads // 32,
                )


def main() -> None:
    arch = int(sys.argv[1])
    for name, kernel, types, constants, warps in variants():
        integer = constants.pop(INTEGERS, "i64")
        signature = {}
        for parameter in kernel.arg_names:
            known = "constexpr" if parameter in constants else types.get(parameter, integer)
            if known == 1:
                known, constants = "constexpr", constants | {parameter: 1}
            signature[parameter] = known
        source = ASTSource(kernel, signature, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps})
        print(f"{name}: {len(compiled.asm['cubin'])} bytes", flush=True)


if __name__ == "__main__":
    main()
