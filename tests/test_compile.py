"""Every kernel of the three operations compiles to machine code for Ampere, Hopper and Blackwell, without a GPU."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from boltzbench.kernels.logsumexp import cuda_kernels as logsumexp
from boltzbench.kernels.rbm_gibbs import cuda_kernels as rbm_gibbs
from boltzbench.kernels.sgld import cuda_kernels as sgld
from boltzbench.kernels.thermodynamics import cuda_kernels as thermodynamics

ARCHITECTURES = [80, 90, 100]
MODULES = (
    {f"logsumexp {name}": logsumexp.module(dtype) for dtype, name in logsumexp.TYPES.items()}
    | {f"rbm_gibbs {name}": rbm_gibbs.module(dtype) for dtype, name in rbm_gibbs.TYPES.items()}
    | {f"thermodynamics {name}": thermodynamics.module(dtype) for dtype, name in thermodynamics.TYPES.items()}
    | {"sgld": sgld.MODULE}
)

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


# ---- Triton, in a process that does not interpret

COMPILE = """
import runpy, sys
script = runpy.run_path(sys.argv[2])
names = [name for name, *_ in script["variants"]()]
script["main"]()
print("variants:", *names, sep="\\n")
"""


@needs_triton
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_triton_kernel_compiles(arch):
    script = Path(__file__).with_name("compile_triton.py")
    run = subprocess.run([sys.executable, "-c", COMPILE, str(arch), str(script)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    compiled, _, variants = run.stdout.partition("variants:\n")
    sizes = {name: int(size) for name, size in re.findall(r"^(.+): (\d+) bytes$", compiled, re.MULTILINE)}
    assert list(sizes) == variants.splitlines()
    assert len(compiled.splitlines()) == len(sizes)
    assert min(sizes.values()) > 1000
    wanted = [f"logsumexp {kernel} {dtype}" for kernel in ("forward", "backward") for dtype in
              ("fp64", "fp32", "fp16", "bf16")]  # fmt: skip
    wanted += [f"rbm_gibbs half sweep {dtype} draw={draw}" for dtype in ("fp32", "fp16", "bf16") for draw in (0, 1)]
    wanted += ["sgld noisy=False", "sgld noisy=True"]
    for start in wanted:
        start = start.replace("draw=0", "draw=False").replace("draw=1", "draw=True")
        assert any(name.startswith(start) for name in sizes), start


# ---- CUDA C


def require_nvrtc():
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"NVRTC cannot be imported: {error}")


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", MODULES)
def test_every_cuda_kernel_compiles(name, arch):
    require_nvrtc()
    cubin = MODULES[name].cubin(f"sm_{arch}")
    assert cubin.data.startswith(b"\x7fELF")
    assert set(cubin.names) == set(MODULES[name].kernels)
    assert len(set(cubin.names.values())) == len(cubin.names)
    for symbol in cubin.names.values():
        assert f".text.{symbol}\0".encode() in cubin.data


def resource_usage(cubin):
    """For each name expression: registers, stack, shared and local bytes, as the machine code declares them."""
    triton = importlib.util.find_spec("triton")
    tool = Path(next(iter(triton.submodule_search_locations))) / "backends" / "nvidia" / "bin" / "cuobjdump"
    run = subprocess.run([tool, "-res-usage", cubin.path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = dict(re.findall(r"Function (\S+):\s+(REG:.*)", run.stdout))
    assert set(found) == set(cubin.names.values())
    return {
        name: {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", found[symbol])}
        for name, symbol in cubin.names.items()
    }


@needs_triton
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", MODULES)
def test_no_kernel_spills_registers(name, arch, record_property):
    require_nvrtc()
    usage = resource_usage(MODULES[name].cubin(f"sm_{arch}"))
    for kernel, resources in usage.items():
        record_property(kernel, str(resources))
        print(f"sm_{arch} {kernel}: {resources}")
        # Two blocks of 256 threads and more live on a multiprocessor of 65,536 registers and 100 KB shared memory.
        assert resources["REG"] <= 128, kernel
        assert resources["SHARED"] <= 48 * 1024, kernel
        assert resources["LOCAL"] == 0, kernel
        assert resources["STACK"] == 0, kernel


def test_the_modules_cover_every_dtype():
    assert set(logsumexp.TYPES) == {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    assert set(rbm_gibbs.TYPES) == {torch.float32, torch.float16, torch.bfloat16}
