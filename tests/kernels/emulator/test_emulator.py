"""The emulator: CUDA C semantics on the host, and the mistakes that it must find."""

import concurrent.futures
import ctypes
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from boltzbench.kernels import emulator
from boltzbench.kernels.builds import cache
from boltzbench.kernels.cuda_module import CudaCompileError, CudaModule, EmulatorError, unavailable
from support import TESTS

CPU = torch.device("cpu")
CUDA_FILES = TESTS / "kernels" / "cuda"

pytestmark = pytest.mark.skipif(unavailable(CPU) is not None, reason=str(unavailable(CPU)))

BASICS = (
    "add<float>",
    "add<double>",
    "coordinates",
    "row_sum<float, 256>",
    "row_sum<double, 64>",
    "reverse_rows",
    "affine",
    "scalars",
    "histogram",
    "shuffles",
    "votes",
    "early_exit",
    "uninitialised<float>",
    "uninitialised<int>",
    "widen_all<float16>",
    "widen_all<bfloat16>",
    "narrow_all<float16>",
    "narrow_all<bfloat16>",
)
FAULTS = (
    "hand_over<true>",
    "hand_over<false>",
    "absent_lane",
    "leaving_lane",
    "not_in_mask",
    "different_masks",
    "different_functions",
    "source_outside_mask",
    "deadlock",
    "divergent_barrier",
    "trap",
    "write_past_end",
    "static_shared_past_end",
    "dynamic_shared_past_end",
    "index_overflow",
    "misaligned",
    "local_array<4>",
    "local_array<100>",
)
ORDERS = ("forward", "reverse")


@pytest.fixture(scope="module")
def basics() -> CudaModule:
    return CudaModule(CUDA_FILES / "basics.cu", BASICS)


@pytest.fixture(scope="module")
def intrinsics() -> CudaModule:
    return CudaModule(CUDA_FILES / "intrinsics.cu", ["integers", "floats", "scale4"])


@pytest.fixture(scope="module")
def faults() -> CudaModule:
    return CudaModule(CUDA_FILES / "faults.cu", FAULTS)


# ---- coordinates, shared memory, warps


@pytest.mark.parametrize(("kernel", "dtype"), [("add<float>", torch.float32), ("add<double>", torch.float64)])
@pytest.mark.parametrize("n", [1, 127, 128, 1000])
def test_templates_are_chosen_by_name_expression(basics, kernel, dtype, n):
    x, y = torch.randn(n, dtype=dtype), torch.randn(n, dtype=dtype)
    out = torch.full((n + 1,), 7.0, dtype=dtype)
    basics.launch(kernel, ((n + 127) // 128,), (128,), [x, y, out, n], device=CPU)
    assert torch.equal(out[:n], x + y)
    assert out[n] == 7.0


@pytest.mark.parametrize("grid", [(3,), (3, 2), (2, 3, 4)])
@pytest.mark.parametrize("block", [(5,), (4, 3), (3, 2, 7)])
@pytest.mark.parametrize("order", ORDERS)
def test_coordinates_in_three_dimensions(basics, grid, block, order):
    width, height, depth = (g * b for g, b in zip((*grid, 1, 1)[:3], (*block, 1, 1)[:3], strict=True))
    out = torch.full((depth, height, width), -1, dtype=torch.int32)
    with emulator.schedule(order):
        basics.launch("coordinates", grid, block, [out], device=CPU)
    z, y, x = np.indices((depth, height, width))
    np.testing.assert_array_equal(out.numpy(), x + 1000 * y + 1000000 * z)


@pytest.mark.parametrize("columns", [0, 1, 31, 256, 1000])
def test_block_reduction(basics, columns):
    x = torch.randn(5, columns, dtype=torch.float32)
    expected = x.numpy().astype(np.float64).sum(axis=1)
    bound = columns * 2.0**-24 * x.abs().sum(dim=1).numpy()
    results = []
    for order in ORDERS:
        out = torch.full((5,), torch.nan)
        with emulator.schedule(order):
            basics.launch("row_sum<float, 256>", (5,), (256,), [x, out, columns], device=CPU)
        assert np.all(np.abs(out.numpy() - expected) <= bound)
        results.append(out)
    assert torch.equal(*results)
    out64 = torch.full((5,), torch.nan, dtype=torch.float64)
    basics.launch("row_sum<double, 64>", (5,), (64,), [x.double(), out64, columns], device=CPU)
    np.testing.assert_allclose(out64.numpy(), expected, rtol=0, atol=1e-12)


def test_dynamic_shared_memory(basics):
    x = torch.arange(6 * 96, dtype=torch.float32).reshape(6, 96)
    out = torch.empty_like(x)
    basics.launch("reverse_rows", (6,), (96,), [x, out], shared_bytes=96 * 4, device=CPU)
    assert torch.equal(out, x.flip(1))


@pytest.mark.parametrize(
    ("kernel", "dtype"), [("uninitialised<float>", torch.float32), ("uninitialised<int>", torch.int32)]
)
def test_shared_memory_is_poisoned_in_every_block(basics, kernel, dtype):
    out = torch.zeros(3, 2, dtype=dtype)
    leave = np.float32(1.0) if dtype == torch.float32 else np.int32(1)
    basics.launch(kernel, (3,), (64,), [out, leave], shared_bytes=256, device=CPU)
    assert out.isnan().all() if dtype == torch.float32 else (out == -1).all()


@pytest.mark.parametrize("width", [1, 2, 8, 32])
def test_shuffles_follow_the_ptx_definition(basics, width):
    x = torch.randint(-1000, 1000, (64,), dtype=torch.int32)
    out = torch.empty(4, 64, dtype=torch.int32)
    basics.launch("shuffles", (1,), (64,), [x, out, width], device=CPU)
    sources = np.empty((4, 64), dtype=int)
    for thread in range(64):
        lane, warp = thread % 32, thread // 32 * 32
        first, last = lane // width * width, lane // width * width + width - 1
        sources[0, thread] = warp + (lane - 3 if lane - 3 >= first else lane)
        sources[1, thread] = warp + (lane + 3 if lane + 3 <= last else lane)
        sources[2, thread] = warp + (lane ^ 5 if lane ^ 5 <= last else lane)
        sources[3, thread] = warp + first + 2 % width
    np.testing.assert_array_equal(out.numpy(), x.numpy()[sources])


@pytest.mark.parametrize("order", ORDERS)
def test_votes_and_reductions_under_masks(basics, order):
    x = torch.randint(-10, 11, (96,), dtype=torch.int32)
    out = torch.zeros(96, 12, dtype=torch.int64).to(torch.uint32)
    with emulator.schedule(order):
        basics.launch("votes", (1,), (96,), [x, out], device=CPU)
    values = x.numpy().astype(np.int64)
    for thread in range(96):
        warp = values[thread // 32 * 32 :][:32]
        half = values[thread // 16 * 16 :][:16]
        shift = thread % 32 // 16 * 16
        low = shift == 0
        expected = [
            sum(1 << i for i in range(32) if warp[i] > 0),
            sum(1 << (i + shift) for i in range(16) if (half[i] > 0) == low),
            (half > 8).any(),
            (half > -9).all(),
            (values > 0).sum(),
            (values > 8).any(),
            (values > -9).all(),
            half.sum() % 2**32,
            half.min() % 2**32,
            half.max() % 2**32,
            np.bitwise_xor.reduce(half) % 2**32,
        ]
        assert out[thread, :11].tolist() == [int(value) for value in expected]
        assert out[thread, 11].item() >> (thread % 32) & 1


@pytest.mark.parametrize("order", ORDERS)
def test_the_barrier_counts_threads_that_have_not_exited(basics, order):
    out = torch.zeros(100, dtype=torch.int32)
    with emulator.schedule(order):
        basics.launch("early_exit", (1,), (100,), [out], device=CPU)
    assert out.tolist() == [0 if i % 3 == 0 else 66 for i in range(100)]


@pytest.mark.parametrize("order", ORDERS)
def test_atomics_across_blocks(basics, order):
    x = torch.randint(0, 10, (1000,), dtype=torch.int32)
    counts, total = torch.zeros(10, dtype=torch.int32), torch.zeros(1)
    largest, ticket = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    last_block = torch.full((1,), -1, dtype=torch.int32)
    with emulator.schedule(order):
        basics.launch("histogram", (8,), (128,), [x, 1000, counts, total, largest, ticket, last_block], device=CPU)
    assert torch.equal(counts, torch.bincount(x, minlength=10).int())
    assert total.item() == 1000.0
    assert largest.item() == x.max().item() << 40
    assert ticket.item() == 0
    assert last_block.item() == (7 if order == "forward" else 0)


def test_launches_from_several_python_threads():
    x = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0))
    modules = [CudaModule(CUDA_FILES / "basics.cu", BASICS) for _ in range(4)]  # all with one shared object

    def row_sums(i: int) -> torch.Tensor:
        out = torch.full((64,), torch.nan)
        modules[i % 4].launch("row_sum<float, 256>", (64,), (256,), [x, out, 1000], device=CPU)
        return out

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(row_sums, range(8))
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first, x.sum(dim=1))


# ---- arguments


class Affine(ctypes.Structure):
    _fields_ = (
        ("scale", ctypes.c_float),
        ("n", ctypes.c_longlong),
        ("offset", ctypes.c_double * 2),
    )


def test_a_structure_is_passed_by_value(basics):
    x, out = torch.randn(50), torch.zeros(64)
    basics.launch("affine", (2,), (32,), [x, out, Affine(3.0, 50, (0.25, 0.5))], device=CPU)
    assert torch.equal(out[:50], 3.0 * x + 0.75)
    assert torch.equal(out[50:], torch.zeros(14))


# ---- 16-bit floats


def round_trip(basics: CudaModule, kernel: str, values: torch.Tensor, out: torch.Tensor) -> None:
    n = values.numel()
    basics.launch(kernel, ((n + 255) // 256,), (256,), [values, out, n], device=CPU)


@pytest.mark.parametrize(("name", "dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_all_16_bit_values_widen_exactly(basics, name, dtype):
    narrow = torch.arange(65536).to(torch.uint16).view(dtype)
    wide = torch.empty(65536)
    round_trip(basics, f"widen_all<{name}>", narrow, wide)
    expected = narrow.float()
    number = ~expected.isnan()
    assert torch.equal(wide[number].view(torch.int32), expected[number].view(torch.int32))
    assert wide[~number].isnan().all()


@pytest.mark.parametrize(("name", "dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_floats_round_to_nearest_even(basics, name, dtype):
    exact = torch.arange(65536).to(torch.uint16).view(dtype).float()
    exact = exact[exact.isfinite()].sort().values
    middles = ((exact[1:].double() + exact[:-1].double()) / 2).float()
    up, down = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    random_bits = torch.from_numpy(np.random.default_rng(1).integers(0, 2**32, 2**20, dtype=np.uint32))
    edges = torch.tensor([0.0, -0.0, 65519.996, 65520.0, -65520.0, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 1e-45])
    values = torch.cat(
        [
            exact,
            middles,
            middles.nextafter(up),
            middles.nextafter(down),
            random_bits.view(torch.float32),
            edges,
        ]
    )
    values = torch.cat([values, torch.tensor([torch.inf, -torch.inf, torch.nan, 3.4e38, -3.4e38])])
    out = torch.empty(values.numel(), dtype=dtype)
    round_trip(basics, f"narrow_all<{name}>", values, out)
    expected = values.to(dtype)
    number = ~values.isnan()
    assert torch.equal(out[number].view(torch.int16), expected[number].view(torch.int16))
    assert (out[~number].view(torch.int16) == 0x7FFF).all()
    if dtype == torch.float16:
        with np.errstate(over="ignore"):
            by_numpy = values[number].numpy().astype(np.float16)
        np.testing.assert_array_equal(out[number].view(torch.int16).numpy(), by_numpy.view(np.int16))


# ---- functions


def bits_of(value: int, width: int = 32) -> str:
    return format(value, f"0{width}b")


def test_integer_functions(intrinsics):
    rng = np.random.default_rng(2)
    corners = np.array([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x4F000000, 31, 32], dtype=np.uint32)
    a = np.concatenate([np.repeat(corners, corners.size), rng.integers(0, 2**32, 300, dtype=np.uint32)])
    b = np.concatenate([np.tile(corners, corners.size), rng.integers(0, 2**32, 300, dtype=np.uint32)])
    out = torch.zeros(a.size, 16, dtype=torch.int64)
    arguments = [torch.from_numpy(a), torch.from_numpy(b), out, a.size]
    intrinsics.launch("integers", ((a.size + 63) // 64,), (64,), arguments, device=CPU)

    def signed(x: int) -> int:
        return x - 2**32 if x >= 2**31 else x

    def as_float(x: int) -> float:
        return float(np.uint32(x).view(np.float32))

    def saturated(x: float, low: int, high: int) -> int:
        return 0 if np.isnan(x) else int(min(max(x, low), high))

    for x, y, row in zip(a.tolist(), b.tolist(), out.tolist(), strict=True):
        wide, other, shift = x * y, y << 32 | x, y % 32
        x_float, y_float = as_float(x), as_float(y)
        selected = [(other >> 8 * byte) & 0xFF for byte in (0, 4, 1, 5)]
        expected = [
            wide,
            wide >> 32,
            wide * other >> 64,
            x.bit_count(),
            other.bit_count(),
            32 - x.bit_length(),
            (x & -x).bit_length(),
            int(bits_of(x)[::-1], 2),
            (other << shift >> 32) & 0xFFFFFFFF,
            (other >> shift) & 0xFFFFFFFF,
            y if y % 64 >= 32 else (other >> shift) & 0xFFFFFFFF,
            min(x, y),
            max(signed(x), signed(y)),
            sum(byte << 8 * i for i, byte in enumerate(selected)),
            saturated(np.rint(x_float), -(2**31), 2**31 - 1),
            saturated(np.trunc(y_float), 0, 2**32 - 1),
        ]
        assert [value % 2**64 for value in row] == [value % 2**64 for value in expected], (x, y)


def test_float_functions(intrinsics):
    special = [
        0.0,
        -0.0,
        0.25,
        0.5,
        1.0,
        -1.0,
        1.5,
        2.0,
        3.0,
        -7.5,
        1e-30,
        1e6 + 0.5,
        np.inf,
        -np.inf,
        np.nan,
    ]
    x = np.concatenate([np.float32(special), np.random.default_rng(3).normal(0, 5, 1000).astype(np.float32)])
    out = torch.zeros(x.size, 16)
    intrinsics.launch("floats", ((x.size + 63) // 64,), (64,), [torch.from_numpy(x), out, x.size], device=CPU)
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        turn = np.where(np.isfinite(wide), np.fmod(wide, 2.0), np.nan)
        expected = [
            np.exp2(wide),
            np.exp(wide),
            np.log1p(np.abs(wide)),
            1 / np.sqrt(np.abs(wide)),
            np.sin(np.pi * turn),
            np.cos(np.pi * turn),
            np.sin(np.pi * turn),
            np.cos(np.pi * turn),
            wide * wide - 1,
            np.tanh(wide),
            np.fmin(wide, 0.25),
            np.fmax(wide, 0.25),
            np.fmin(np.fmax(wide, 0), 1),
            np.sqrt(np.abs(wide)),
            wide,
            wide / 3,
        ]
        expected = np.stack(expected, axis=1).astype(np.float32)
    # A subtraction or a wrong overload would be off by far more; 2e-7 is about two units in the last place.
    expected[np.isnan(x), 14] = -np.inf  # fmaxf prefers the number
    np.testing.assert_allclose(out.numpy(), expected, rtol=2e-7, atol=1e-6)
    whole = np.isfinite(x) & (x == np.round(x))
    assert (out.numpy()[whole][:, [4, 6]] == 0).all()  # sin(pi n) is exactly zero


def test_vector_types(intrinsics):
    x = torch.randn(37, 4)
    out = torch.empty_like(x)
    intrinsics.launch("scale4", (2,), (32,), [x, out, np.float32(0.5), 37], device=CPU)
    assert torch.equal(out, 0.5 * x)


# ---- mistakes


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("absent_lane", "__shfl_down_sync at faults.cu:15: .*names lane 7, which has exited"),
        ("leaving_lane", "__syncwarp at faults.cu:20: .*names lane 31, which has exited"),
        ("not_in_mask", "lane (16|31) is not in its own mask 0x0000ffff"),
        ("different_masks", "__ballot_sync at faults.cu:29.*waits in __ballot_sync"),
        ("different_functions", "waits in __a(ny|ll)_sync at faults.cu:3[45] with mask 0xffffffff"),
        ("source_outside_mask", "reads from lane 4, which is not in the mask 0x0000000f"),
        ("divergent_barrier", "waits at another barrier, __syncthreads at faults.cu:(53|56)"),
        ("trap", "__trap at faults.cu:"),
    ],
)
def test_undefined_behaviour_is_an_error(faults, kernel, message, order):
    out = torch.full((64,), -1, dtype=torch.int32)
    with (
        emulator.schedule(order),
        pytest.raises(EmulatorError, match=rf"kernel {kernel}: block \(0, 0, 0\)") as error,
    ):
        faults.launch(kernel, (1,), (64,), [out], device=CPU)
    assert error.match(message)


@pytest.mark.parametrize("order", ORDERS)
def test_a_deadlock_names_the_waiting_threads_and_the_module_survives(faults, order):
    out = torch.zeros(64, dtype=torch.int32)
    with emulator.schedule(order), pytest.raises(EmulatorError) as error:
        faults.launch("deadlock", (2,), (64,), [out], device=CPU)
    text = str(error.value)
    assert f"kernel deadlock: block ({0 if order == 'forward' else 1}, 0, 0): deadlock" in text
    assert "threads 0-15 wait in __syncwarp at faults.cu:45 with mask 0xffffffff" in text
    assert "threads 16-63 wait in __syncthreads at faults.cu:46" in text
    x = torch.arange(64, dtype=torch.int32)
    faults.launch("hand_over<true>", (1,), (64,), [x, out], device=CPU)
    assert torch.equal(out, x % 32)


def test_a_mask_names_lanes_that_the_block_does_not_have(basics):
    x, out = torch.zeros(40, dtype=torch.int32), torch.zeros(160, dtype=torch.int32)
    with pytest.raises(EmulatorError, match="names lane 8, which this block does not have"):
        basics.launch("shuffles", (1,), (40,), [x, out, 32], device=CPU)


@pytest.mark.parametrize(("kernel", "agree"), [("hand_over<true>", True), ("hand_over<false>", False)])
def test_the_two_schedules_disagree_on_a_missing_barrier(faults, kernel, agree):
    x = torch.arange(64, dtype=torch.int32)
    results = []
    for order in ORDERS:
        out = torch.zeros(64, dtype=torch.int32)
        with emulator.schedule(order):
            faults.launch(kernel, (1,), (64,), [x, out], device=CPU)
        results.append(out)
    assert torch.equal(*results) == agree


def test_the_schedule_comes_from_the_environment_too(faults, monkeypatch):
    x, out = torch.arange(64, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    monkeypatch.setenv("BOLTZBENCH_EMULATOR_SCHEDULE", "reverse")
    faults.launch("hand_over<false>", (1,), (64,), [x, out], device=CPU)
    assert (out[32:] == -1).all()  # the readers were first, and saw poison
    with emulator.schedule("forward"):
        faults.launch("hand_over<false>", (1,), (64,), [x, out], device=CPU)
    assert torch.equal(out, x % 32)
    monkeypatch.setenv("BOLTZBENCH_EMULATOR_SCHEDULE", "sideways")
    with pytest.raises(ValueError, match="sideways"):
        faults.launch("hand_over<true>", (1,), (64,), [x, out], device=CPU)
    with pytest.raises(ValueError, match="upwards"), emulator.schedule("upwards"):
        pass


# ---- building


def test_fibers_switch_by_swapcontext_too(monkeypatch):
    monkeypatch.setattr(emulator, "_FLAGS", (*emulator._FLAGS, "-DBOLTZBENCH_EMULATOR_UCONTEXT"))
    module = CudaModule(CUDA_FILES / "basics.cu", ["row_sum<float, 256>"])
    x, out = torch.randn(3, 1000), torch.zeros(3)
    module.launch("row_sum<float, 256>", (3,), (256,), [x, out, 1000], device=CPU)
    torch.testing.assert_close(out, x.sum(dim=1))


def test_processes_may_build_the_same_module_at_once(tmp_path):
    program = (
        "import sys, torch; from pathlib import Path; from boltzbench.kernels.cuda_module import CudaModule;"
        "x = torch.ones(8); m = CudaModule(Path(sys.argv[1]), ['add<float>']);"
        "m.launch('add<float>', (1,), (8,), [x, x, x, 8], device=x.device); assert (x == 2).all()"
    )
    command = [sys.executable, "-c", program, str(CUDA_FILES / "basics.cu")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    started = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    kept = sorted(path.suffix for path in (tmp_path / "boltzbench" / "emulator").iterdir())
    assert kept in ([".gch", ".o", ".so"], [".o", ".so"])  # the headers, if g++ parses them, the runtime, the module


def test_gcc_takes_the_parsed_headers_and_reads_the_text_where_they_do_not_suit(tmp_path, monkeypatch):
    if "Free Software Foundation" not in emulator.compiler_version(emulator.compiler()):
        pytest.skip("the compiler is not g++")
    runs = []
    run = cache.run_compiler
    monkeypatch.setattr(cache, "run_compiler", lambda *given: runs.append(run(*given)) or runs[-1])
    source, found = tmp_path / "fill.cu", torch.zeros(1)
    source.write_text("__global__ void fill(float* x) { x[0] += 1; }")

    def fill(parsed: str) -> None:
        module = emulator.EmulatedModule(source, ["fill"], ["-H"], [], f"{tmp_path} {parsed}")
        module.launch("fill", (1, 1, 1), (1, 1, 1), [bytes(ctypes.c_void_p(found.data_ptr()))], "p", 0)
        assert f"{parsed} " in runs[-1].stderr, "g++ says ! of what it takes and x of what it does not"
        assert "emulator.hpp.gch" in runs[-1].stderr

    fill("!")
    (tmp_path / "wrong").write_bytes(b"no headers")
    monkeypatch.setattr(emulator, "_precompiled", lambda *given: {"emulator.hpp.gch": tmp_path / "wrong"})
    fill("x")
    assert found.item() == 2


def test_a_compile_error_shows_the_message_of_the_compiler(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text('#include "device.cuh"\n__global__ void broken(float* x) { x[0] = no_such_name; }\n')
    with pytest.raises(CudaCompileError, match="no_such_name") as error:
        CudaModule(source, ["broken"]).launch("broken", (1,), (1,), [None], device=CPU)
    assert (error.value.source, error.value.target) == (source, "emulator")
    assert "broken.cu:2" in error.value.log


def test_a_missing_compiler_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    assert "apt-get install g++" in str(unavailable(CPU))
    module = CudaModule(CUDA_FILES / "basics.cu", ["add<float>"])
    x = torch.zeros(1)
    with pytest.raises(emulator.CompilerNotFoundError, match="no-compiler is not an executable"):
        module.launch("add<float>", (1,), (1,), [x, x, x, 1], device=CPU)


# ---- sanitizers: one process imports torch and builds; each scenario runs in a fork, which a finding ends

SCENARIOS = """
import os, sys
from pathlib import Path
import numpy as np, torch
from boltzbench.kernels.cuda_module import CudaModule, EmulatorError

module = CudaModule(Path(sys.argv[1]), {kernels!r})
x, cpu = torch.zeros(32), torch.device("cpu")
numbers, out = torch.arange(64, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)

def launch(kernel, args, threads=32, blocks=1, shared_bytes=0):
    module.launch(kernel, (blocks,), (threads,), args, shared_bytes=shared_bytes, device=cpu)

def clean():
    for _ in range(3):
        launch("hand_over<true>", [numbers, out], threads=64, blocks=50)
        try:
            launch("deadlock", [out], threads=64)
        except EmulatorError:
            continue
        raise AssertionError("no deadlock")
    try:
        launch("local_array<4>", [out, np.bool_(True)])  # leaves stacks as they are
    except EmulatorError:
        launch("local_array<100>", [out, np.bool_(False)])
    launch("write_past_end", [x, 32])
    launch("static_shared_past_end", [x, 0])
    launch("dynamic_shared_past_end", [x, 0], shared_bytes=128)
    launch("index_overflow", [x, np.int32(65536), np.int32(32767)])

scenarios = dict(
    clean=clean,
    global_write=lambda: launch("write_past_end", [x, 32], threads=33),
    static_shared=lambda: launch("static_shared_past_end", [x, 1]),
    dynamic_shared=lambda: launch("dynamic_shared_past_end", [x, 1], shared_bytes=128),
    overflow=lambda: launch("index_overflow", [x, np.int32(65536), np.int32(65536)]),
    misaligned=lambda: launch("misaligned", [x], threads=1),
)
clean()
for name, scenario in scenarios.items():
    child = os.fork()
    if child == 0:
        report = os.open(os.path.join(sys.argv[2], name), os.O_CREAT | os.O_WRONLY)
        os.dup2(report, 2)
        scenario()
        os._exit(0)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def sanitizer_reports(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Exit status and report of each scenario."""
    folder = tmp_path_factory.mktemp("reports")
    program = SCENARIOS.format(kernels=list(FAULTS))
    run = subprocess.run(
        [sys.executable, "-c", program, str(CUDA_FILES / "faults.cu"), str(folder)],
        env=emulator.sanitizer_environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()]
    return {name: (int(status), (folder / name).read_text()) for name, status in lines}


def test_a_right_kernel_is_clean_under_the_sanitizers(sanitizer_reports):
    assert sanitizer_reports["clean"] == (0, "")


@pytest.mark.parametrize(
    ("scenario", "finding"),
    [
        ("global_write", "AddressSanitizer: heap-buffer-overflow .*faults.cu:.* in device::write_past_end"),
        ("static_shared", "AddressSanitizer: global-buffer-overflow .*faults.cu:.* in device::read_at"),
        ("dynamic_shared", "AddressSanitizer: heap-buffer-overflow .*faults.cu:.* in device::read_at"),
        ("overflow", "faults.cu:.* signed integer overflow: 65536 \\* 65536"),
        ("misaligned", "faults.cu:.* misaligned address"),
    ],
)
def test_the_sanitizers_find(sanitizer_reports, scenario, finding):
    status, report = sanitizer_reports[scenario]
    assert status == 99
    assert re.search(finding, report), report[:3000]
