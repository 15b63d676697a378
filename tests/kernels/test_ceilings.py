"""The kernels behind the ceilings do the work that is counted for them: by their results, and by their machine code.

CUDA C runs in the emulator here, which shows nothing about speed.
"""

import contextlib
import importlib.util
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch
from boltzbench.harness import RESOURCES
from boltzbench.harness.timing.roofline import binding
from boltzbench.kernels import cuda_module, native
from boltzbench.kernels.ceilings import cuda_kernels, native_kernels, prepared, torch_kernels
from boltzbench.kernels.cuda_module import CudaModule
from boltzbench.kernels.native import NativeModule
from boltzbench.plugins import ceilings as plugin
from boltzbench.plugins.operations.langevin import sgld
from boltzbench.plugins.operations.machines import gaussian_rbm, rbm_gibbs
from boltzbench.plugins.operations.rows import logsumexp

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TILES = 6 * cuda_kernels.TILE_BYTES
THREADS = 2 * cuda_kernels.THREADS
"""Threads of the emulated grid. The last thread has one unit less than the first."""

SMALL = {
    "read": lambda: cuda_kernels.read(CPU, TILES),
    "read resident": lambda: cuda_kernels.read(CPU, TILES, blocks=4),
    "write": lambda: cuda_kernels.write(CPU, TILES),
    "write resident": lambda: cuda_kernels.write(CPU, TILES, blocks=4),
    "copy": lambda: cuda_kernels.copy(CPU, TILES),
    "copy resident": lambda: cuda_kernels.copy(CPU, TILES, blocks=4),
    **{
        name: lambda name=name, kind=kind: cuda_kernels.arithmetic(CPU, name, (3 * THREADS - 1) * kind.operations)
        for name, kind in cuda_kernels.ARITHMETIC.items()
    },
}
PIECES = 3 * native_kernels.PIECE_BYTES
NATIVE = {
    "read": lambda: native_kernels.read(CPU, PIECES),
    "write": lambda: native_kernels.write(CPU, PIECES),
    "copy": lambda: native_kernels.copy(CPU, PIECES),
    "product": lambda: native_kernels.binary_product(CPU, 129),
    **{name: lambda name=name: native_kernels.arithmetic(CPU, name, 3) for name in native_kernels.ARITHMETIC},
}
WITH_TORCH = {
    "read": lambda: torch_kernels.read(CPU, 1 << 18),
    "write": lambda: torch_kernels.write(CPU, 1 << 16),
    "copy": lambda: torch_kernels.copy(CPU, 1 << 16),
    **{
        f"{precision} matrix": lambda precision=precision: torch_kernels.matrix(CPU, precision, 256)
        for precision in torch_kernels.PRECISIONS
    },
}

needs_compiler = pytest.mark.skipif(cuda_module.unavailable(CPU) is not None, reason=str(cuda_module.unavailable(CPU)))
needs_native = pytest.mark.skipif(native.unavailable(CPU) is not None, reason=str(native.unavailable(CPU)))
needs_nvrtc = pytest.mark.skipif(cuda_module.unavailable(CUDA) is not None, reason=str(cuda_module.unavailable(CUDA)))
needs_tools = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


# ---- the checks


@needs_compiler
@pytest.mark.parametrize("name", SMALL)
def test_a_kernel_that_did_its_work_passes_and_one_that_never_ran_does_not(name):
    launch, check = SMALL[name]()
    assert check()
    for _ in range(2):  # the result of a launch does not depend on the one before
        launch()
        assert check() is None


@needs_compiler
def test_every_launch_of_an_empty_kernel_is_counted():
    launch, check = cuda_kernels.empty(CPU, 7)
    launch()
    assert check() is None
    assert check() is None


MUTANTS = [
    ("read", "read", "+ chunk[i].w", ""),
    ("read resident", "read", "tile += (i64)gridDim.x * TILE", "tile += 2 * (i64)gridDim.x * TILE"),
    ("write", "write", "word + 3 * factor", "word + 2 * factor"),
    ("copy", "copy", "y[tile +", "if (i) y[tile +"),
    ("Fma", "arithmetic<Fma>", "STEPS = 512", "STEPS = 511"),
    ("Fma", "arithmetic<Fma>", "unit += (i64)gridDim.x", "unit += 2 * (i64)gridDim.x"),
    ("Exp2", "arithmetic<Exp2>", "STEPS = 8", "STEPS = 7"),
    ("WideMultiply", "arithmetic<WideMultiply>", "(u32)(x[chain] >> 32)) +", "5u) +"),
    ("WideMultiply", "arithmetic<WideMultiply>", "sums[thread] = sum", "if (thread < 256) sums[thread] = sum"),
    ("Philox", "arithmetic<Philox>", "units; unit +=", "units - 1; unit +="),
    ("Philox", "arithmetic<Philox>", "round < 10", "round < 9"),
    ("empty", "empty", "if (count)", "if (count && *count < 3)"),
]  # fmt: skip


@needs_compiler
@pytest.mark.parametrize(("name", "kernel", "old", "new"), MUTANTS)
def test_a_kernel_that_leaves_work_out_is_rejected(name, kernel, old, new, tmp_path, monkeypatch):
    shipped = cuda_kernels.MODULE.source
    for path in (shipped, shipped.parents[1] / "common" / "philox.cuh"):
        text = path.read_text()
        (tmp_path / path.name).write_text(text.replace(old, new))
    assert (tmp_path / shipped.name).read_text() + (tmp_path / "philox.cuh").read_text() != shipped.read_text() + text
    monkeypatch.setattr(cuda_kernels, "MODULE", CudaModule(tmp_path / shipped.name, [kernel]))
    launch, check = cuda_kernels.empty(CPU, 7) if name == "empty" else SMALL[name]()
    launch()
    assert check()


@needs_native
@pytest.mark.parametrize("architecture", ["native", "x86-64-v3", "x86-64"])
def test_a_native_kernel_that_did_its_work_passes_and_one_that_never_ran_does_not(architecture, monkeypatch):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if architecture != "native" and ("sse2" if architecture == "x86-64" else "avx2") not in flags:
        pytest.skip(f"the CPU has no {architecture}")
    monkeypatch.setattr(native, "_ARCHITECTURE", f"-march={architecture}")
    monkeypatch.setattr(native_kernels, "MODULE", NativeModule(native_kernels.MODULE.source))
    for name, prepare in NATIVE.items():
        launch, check = prepare()
        assert check(), name
        for _ in range(2):  # the result of a launch does not depend on the one before
            launch()
            assert check() is None, name


NATIVE_MUTANTS = [
    ("read", "i < PIECE / STREAMS;", "i < PIECE / STREAMS - LANE;"),
    ("write", "i < end * PIECE; i += LANE, word", "i < end * PIECE - LANE; i += LANE, word"),
    ("copy", "k < IN_FLIGHT; ++k) store_past", "k < IN_FLIGHT - 1; ++k) store_past"),
    ("fma", "STEPS = 1024", "STEPS = 1023"),  # float64 fma too
    ("exp", "STEPS = 8", "STEPS = 7"),
    ("logic", "STEPS = 1000", "STEPS = 999"),
    ("philox", "group < (part + 1) * STREAM_GROUPS", "group < (part + 1) * STREAM_GROUPS - AT_ONCE * LANES<u64>"),
    ("normal numbers", "group < STREAM_GROUPS; group +=", "group < STREAM_GROUPS - LANES<u64>; group +="),
    ("product", "sum[k] += of(subset);", "sum[k] += of(subset & 7);"),
]


@needs_native
def test_a_native_kernel_that_leaves_work_out_is_rejected(tmp_path, monkeypatch):
    """Each with its own mutation; all mutations are in one file, for one build."""
    shipped = native_kernels.MODULE.source
    products = shipped.parents[1] / "machines" / "binary_products.hpp"
    text = shipped.read_text().replace("machines/binary_products.hpp", "wrong_products.hpp")
    wrong_products = products.read_text()
    for name, old, new in NATIVE_MUTANTS:
        assert old in (wrong_products if name == "product" else text), name
        text, wrong_products = text.replace(old, new), wrong_products.replace(old, new)
    (tmp_path / shipped.name).write_text(text)
    (tmp_path / "wrong_products.hpp").write_text(wrong_products)
    monkeypatch.setattr(native_kernels, "MODULE", NativeModule(tmp_path / shipped.name))
    for name, prepare in NATIVE.items():
        launch, check = prepare()
        launch()
        assert check(), name


@needs_native
def test_parts_that_no_thread_took_are_rejected(monkeypatch):
    module = native_kernels.MODULE

    class LazyModule:
        def call(self, function, parts, *arguments):
            module.call(function, parts - 1, *arguments)

    monkeypatch.setattr(native_kernels, "MODULE", LazyModule())
    for name in native_kernels.ARITHMETIC:
        launch, check = native_kernels.arithmetic(CPU, name, 3)
        launch()
        assert check() == "part 2 was left out"


@pytest.mark.parametrize("name", WITH_TORCH)
def test_torch_s_own_kernels_pass_and_are_rejected_if_they_never_ran(name):
    launch, check = WITH_TORCH[name]()
    assert check()
    launch()
    assert check() is None


@pytest.mark.parametrize(
    ("name", "owner", "function", "wrong"),
    [
        ("read", torch.linalg, "vector_norm", lambda x, dim, out: out[:-1].copy_(x[:-1].square().sum(dim).sqrt())),
        ("write", torch.Tensor, "fill_", lambda x, value: x[1:].zero_().add_(value)),
        ("copy", torch.Tensor, "copy_", lambda y, x: y[1:].zero_().add_(x[1:])),
    ],
)
def test_a_part_left_out_by_torch_is_rejected(name, owner, function, wrong, monkeypatch):
    launch, check = WITH_TORCH[name]()
    with monkeypatch.context() as patched:
        patched.setattr(owner, function, wrong)
        launch()
    assert check()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_product_of_lower_precision_or_with_a_wrong_row_is_rejected(precision, monkeypatch):
    multiply = torch._int_mm if precision == "int8" else torch.matmul

    def shorter(a, b, out):  # with half of the digits
        if precision == "int8":
            return multiply(a & ~1, b, out=out)
        digits = torch.bfloat16 if precision == "float32" else torch.float8_e4m3fn
        return multiply(a.to(digits).to(a.dtype), b.to(digits).to(b.dtype), out=out)

    def without_a_row(a, b, out):
        multiply(a, b, out=out)[17] = 0

    for wrong in (shorter, without_a_row):
        monkeypatch.setattr(torch, "_int_mm" if precision == "int8" else "matmul", wrong)
        launch, check = torch_kernels.matrix(CPU, precision, 256)
        launch()
        assert "the product is off" in check()


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_precision_of_float32_is_set_while_launching_and_then_as_before(precision, fails, monkeypatch):
    backend, outside, seen = torch.backends.cuda.matmul, "tf32" if precision == "ieee" else "ieee", []

    def multiply(a, b, out):
        seen.append(backend.fp32_precision)
        if fails:
            raise RuntimeError("no product")

    monkeypatch.setattr(torch, "matmul", multiply)
    launch, _ = torch_kernels.matrix(CPU, "float32" if precision == "ieee" else "tf32", 8)
    before = backend.fp32_precision
    backend.fp32_precision = outside
    try:
        with pytest.raises(RuntimeError, match="no product") if fails else contextlib.nullcontext():
            launch()
        assert backend.fp32_precision == outside
    finally:
        backend.fp32_precision = before
    assert seen == [precision]


@pytest.mark.parametrize("size", [0, cuda_kernels.TILE_BYTES - 16, cuda_kernels.TILE_BYTES + 16])
def test_sizes_that_no_grid_covers_are_rejected(size):
    for prepare in (cuda_kernels.read, cuda_kernels.write, cuda_kernels.copy):
        with pytest.raises(ValueError, match=f"size must be a positive multiple of .* bytes, got {size}"):
            prepare(CPU, size)
    for prepare in (native_kernels.read, native_kernels.write, native_kernels.copy):
        with pytest.raises(ValueError, match=f"size must be a positive multiple of .* bytes, got {size}"):
            prepare(CPU, size)
    with pytest.raises(ValueError, match="operations must be a positive multiple of 4096 operations of Fma, got 4097"):
        cuda_kernels.arithmetic(CPU, "Fma", 4097)


def test_the_data_has_distinct_words_and_a_known_sum():
    words = prepared.words(0, 1 << 12, CPU)
    assert words.dtype is torch.int32
    assert len(words.unique()) == 1 << 12
    expected = [i * prepared.WEYL & 0xFFFFFFFF for i in range(1 << 12)]
    assert (words.long() & 0xFFFFFFFF).tolist() == expected
    far = prepared.words((1 << 30) - 1, 1 << 30, CPU)  # where a product passes 2^62
    assert int(far) & 0xFFFFFFFF == ((1 << 30) - 1) * prepared.WEYL & 0xFFFFFFFF


# ---- the machine code


def cuobjdump(option, cubin):
    triton = importlib.util.find_spec("triton")
    tool = Path(next(iter(triton.submodule_search_locations))) / "backends" / "nvidia" / "bin" / "cuobjdump"
    run = subprocess.run([tool, option, cubin.path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def disassembly(arch):
    """For each kernel its instructions: (address, name without predicate, operands)."""
    cubin = cuda_kernels.MODULE.cubin(arch)
    parts = {part.split()[0]: part for part in cuobjdump("-sass", cubin).split("Function : ")[1:]}
    line = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);")
    return {
        name: [(int(address, 16), op, rest) for address, op, rest in line.findall(parts[symbol])]
        for name, symbol in cubin.names.items()
    }


def shortest_loop(instructions, prefix, least):
    """The instructions, by name, of the shortest loop with ``least`` or more of those that begin with ``prefix``."""
    loops = []
    for address, op, rest in instructions:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if op.startswith("BRA") and target and int(target[1], 16) < address:
            begin = int(target[1], 16)
            loops.append(Counter(name for at, name, _ in instructions if begin <= at <= address))
    return min((loop for loop in loops if count(loop, prefix) >= least), key=Counter.total, default=Counter())


def count(loop, prefix):
    return sum(times for name, times in loop.items() if name.startswith(prefix))


@needs_nvrtc
@needs_tools
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_the_machine_code_has_the_work_and_little_else(arch):
    code = disassembly(arch)
    for kernel, prefix, least, share in (
        ("arithmetic<Fma>", "FFMA", 8 * 64, 0.98),
        ("arithmetic<Exp2>", "MUFU.EX2", 16 * 8, 0.70),
        ("arithmetic<WideMultiply>", "IMAD.WIDE", 8 * 16, 0.95),
        # Of the 20 products of a group two are the same for neighbouring groups: of the step, of the index's high word.
        ("arithmetic<Philox>", "IMAD.WIDE", 4 * 18, 0.40),
        ("read", "LDG.E.128", 4, 0.0),
        ("copy", "LDG.E.128", 4, 0.0),
        ("copy", "STG.E.128", 4, 0.0),
        ("write", "STG.E.128", 4, 0.0),
    ):
        loop = shortest_loop(code[kernel], prefix, least)
        print(arch, kernel, dict(loop))
        assert loop, f"no loop of {kernel} has {least} {prefix}"
        assert count(loop, prefix) >= share * loop.total(), kernel
        assert count(loop, "I2F") == 0, "a conversion takes the place of an ex2"
    assert count(Counter(op for _, op, _ in code["arithmetic<Exp2>"]), "MUFU") == 16 * 8
    loads = [op for _, op, _ in code["read"] if op.startswith("LDG")]
    assert all(op.startswith("LDG.E.128") for op in loads)


@needs_nvrtc
@needs_tools
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_no_kernel_spills_and_all_threads_of_a_multiprocessor_fit(arch):
    cubin = cuda_kernels.MODULE.cubin(arch)
    found = dict(re.findall(r"Function (\S+):\s+(REG:.*)", cuobjdump("-res-usage", cubin)))
    assert set(found) == set(cubin.names.values())
    for name, symbol in cubin.names.items():
        usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", found[symbol])}
        assert usage["REG"] <= 32, name  # a multiprocessor has registers for 2048 threads of 32
        assert (usage["STACK"], usage["LOCAL"], usage["SHARED"]) == (0, 0, 0), name


# ---- the plugin, and the costs of the operations


@pytest.mark.parametrize("operation", [logsumexp.OPERATION, rbm_gibbs.OPERATION, sgld.OPERATION], ids=lambda o: o.name)
def test_every_case_states_its_cost_in_resources_that_have_a_ceiling(operation):
    for case in operation.cases:
        cost = operation.cost(case)
        amounts = [cost.bytes_read, cost.bytes_written, cost.flops, cost.special_calls, cost.random_words]
        assert all(type(amount) is int and amount >= 0 for amount in amounts)
        assert 0 <= cost.matrix_flops <= cost.flops
        assert f"{cost.matrix_dtype} matrix" in RESOURCES
        assert (cost.matrix_flops > 0) is (operation.name == "rbm_gibbs" and cost.flops > 0)
        assert cost.special_calls > 0 or cost.items == 0 or cost.random_words == 0


def test_a_half_sweep_is_a_product_of_matrices_in_the_dtype_of_the_weights():
    (case,) = (
        case for case in rbm_gibbs.CASES if case.label == "chains=8192 visible=1024 hidden=1024 sweeps=10 bfloat16"
    )
    cost = rbm_gibbs.cost(case)
    assert cost.matrix_flops == cost.flops == 2 * 8192 * 1024 * 1024 * 21
    assert binding(cost, {"fma": 1.0, "bfloat16 matrix": 100.0}) == ("bfloat16 matrix", cost.flops / 100)


def test_only_products_with_binary_states_count_as_products_of_matrices():
    case = next(case for case in gaussian_rbm.OPERATION.cases if case.sizes["sweeps"] > 1)
    chains, visible, hidden, sweeps = (case.sizes[name] for name in ("chains", "visible", "hidden", "sweeps"))
    cost, product = gaussian_rbm.cost(case), 2 * chains * visible * hidden
    assert (cost.flops, cost.matrix_flops) == ((2 * sweeps + 1) * product, sweeps * product)


def registered():
    given = []
    plugin.register_ceilings(given.append)
    return given


def test_every_resource_has_a_ceiling_on_a_gpu_and_some_on_a_cpu():
    given = registered()
    on_gpu = {each.resource for each in given if each.backend != "native" and each.unavailable(CPU) is not None}
    on_cpu = {each.resource for each in given if each.unavailable(CPU) is None}
    assert on_gpu == set(RESOURCES) - {"float64 fma", "logic"}
    bandwidths_and_products = {"read", "write", "copy", "float32 matrix", "bfloat16 matrix"}
    arithmetic = {"fma", "float64 fma", "exp2", "philox", "logic"} if native.unavailable(CPU) is None else set()
    assert on_cpu == bandwidths_and_products | arithmetic
    assert {each.unavailable(CPU) for each in given if each.backend != "native"} == {None, "its sizes are for a GPU"}
    assert {each.unavailable(CUDA) for each in given if each.backend == "native"} == {"its sizes are for a CPU"}


@needs_native
def test_without_a_compiler_the_bandwidths_and_products_are_those_of_torch(monkeypatch):
    monkeypatch.setattr(native, "_broken", lambda: "no compiler")
    given = registered()
    assert {each.unavailable(CPU) for each in given if each.backend == "native"} == {"no compiler"}
    assert {each.resource for each in given if each.unavailable(CPU) is None} == {
        "read", "write", "copy", "float32 matrix", "bfloat16 matrix",
    }  # fmt: skip


def test_nothing_emulated_is_available_on_a_cpu():
    assert [each.name for each in registered() if each.backend == "cupy" and each.unavailable(CPU) is None] == []


@pytest.mark.parametrize(("free", "reason"), [(80 << 30, None), (1 << 30, "needs 5120 MiB of memory, of which 1024")])
def test_a_gpu_without_free_memory_cannot_be_measured(free, reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    (copy,) = (each for each in registered() if (each.resource, each.name) == ("copy", "torch"))
    found = copy.unavailable(CUDA)
    assert found is None if reason is None else found.startswith(reason)
    (on_cpu,) = (each for each in registered() if (each.resource, each.name) == ("copy", "torch on a CPU"))
    assert on_cpu.unavailable(CUDA) == "its sizes are for a CPU"


def test_amounts_match_the_work_of_a_launch():
    for each in registered():
        sizes = getattr(each.prepare, "keywords", {})
        if "parts" in sizes:
            kind = native_kernels.ARITHMETIC[sizes["name"]]
            each_operation = 2 if each.resource.endswith("fma") else 1
            assert each.amount == sizes["parts"] * kind.operations * each_operation
        elif "n" in sizes:
            products = 3 if "three" in each.name else 1
            assert each.amount == 2 * sizes["n"] ** 3 // products
        elif "operations" in sizes:
            assert each.amount == sizes["operations"] * (2 if each.resource == "fma" else 1)
            assert sizes["operations"] % cuda_kernels.ARITHMETIC[sizes["name"]].operations == 0
        elif "size" in sizes:
            assert each.amount == sizes["size"] * (2 if each.resource == "copy" else 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_checks_pass_on_a_gpu():
    for each in registered():
        if each.unavailable(CUDA) is None:
            launch, check = each.prepare(CUDA)
            launch()
            assert check() is None, each
            del launch, check
            torch.cuda.empty_cache()
