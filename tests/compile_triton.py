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
from boltzbench.kernels.thermodynamics import triton_kernels as thermodynamics
from boltzbench.kernels.variants import TritonVariant
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

INTEGERS = "type of the integer arguments"


def variants():
    """``(name, kernel, types of arguments, constant arguments, warps)``; types default to 64-bit integers."""
    for operation, module in (("logsumexp", logsumexp), ("thermodynamics", thermodynamics)):
        for variant in module.variants():
            yield f"{operation} {variant.name}", variant, {}, {}, 8
    for dtype in ("fp32", "fp16", "bf16"):
        for draw, clamped in ((True, False), (True, True), (False, False)):
            pointers = {"given": "*u8", "weights": f"*{dtype}", "bias": f"*{dtype}", "out": "*u8" if draw else "*fp32"}
            pointers |= {"clamped": "*i1", "previous": "*u8", "weight_stride_unit": 1}
            constants = {"STREAM": 1, "DRAW": draw, "CLAMPED": clamped}
            constants |= {name: getattr(rbm_gibbs, name) for name in ("BLOCK_CHAINS", "BLOCK_UNITS", "BLOCK_GIVEN")}
            name = f"rbm_gibbs half sweep {dtype} draw={draw} clamped={clamped}"
            yield name, rbm_gibbs.half_sweep_kernel, pointers, constants, 4
    # Triton types small integers as 32-bit ones, and makes a constant of an integer argument that is 1.
    ones = dict.fromkeys(("chains", "given_units", "units"), 1)
    for integers, known in (("i32", {}), ("ones", ones)):
        pointers = {"given": "*u8", "weights": "*fp32", "bias": "*fp32", "out": "*u8", "clamped": "*i1"} | known
        constants = {"STREAM": 1, "DRAW": True, "CLAMPED": True, INTEGERS: "i32"}
        constants |= {name: getattr(rbm_gibbs, name) for name in ("BLOCK_CHAINS", "BLOCK_UNITS", "BLOCK_GIVEN")}
        name = f"rbm_gibbs half sweep {integers}"
        yield name, rbm_gibbs.half_sweep_kernel, pointers | {"previous": "*u8"}, constants, 4
    for noisy in (False, True):
        pointers = {"tensors": "*i64", "blocks": "*i64"}
        yield f"sgld noisy={noisy}", sgld.update_kernel, pointers, {"NOISY": noisy, "BLOCK": sgld.BLOCK}, 8


def main() -> None:
    arch = int(sys.argv[1])
    for name, kernel, types, constants, warps in variants():
        if isinstance(kernel, TritonVariant):
            print(f"{name}: {len(kernel.compile(f'sm_{arch}').elf)} bytes", flush=True)
            continue
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
