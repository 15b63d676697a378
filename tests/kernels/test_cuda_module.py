"""CudaModule: arguments, limits, source hashes, and compilation for real targets without a GPU."""

import contextlib
import ctypes
import shutil
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from boltzbench.kernels import cuda_module, emulator
from boltzbench.kernels.cuda_module import CudaCompileError, CudaModule, EmulatorError, unavailable
from support import TESTS

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
CUDA_FILES = TESTS / "kernels" / "cuda"

KERNELS = {
    "basics": (
        "add<float>",
        "coordinates",
        "row_sum<float, 256>",
        "reverse_rows",
        "affine",
        "scalars",
        "histogram",
        "shuffles",
        "votes",
        "early_exit",
        "uninitialised<float>",
        "widen_all<float16>",
        "widen_all<bfloat16>",
        "narrow_all<float16>",
        "narrow_all<bfloat16>",
    ),
    "intrinsics": ("integers", "floats", "scale4"),
    "faults": ("hand_over<true>", "deadlock", "trap", "misaligned"),
}

needs_compiler = pytest.mark.skipif(unavailable(CPU) is not None, reason=str(unavailable(CPU)))
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# NVRTC compiles without a device: these tests skip only if NVRTC is missing.
needs_nvrtc = pytest.mark.skipif(unavailable(CUDA) is not None, reason=str(unavailable(CUDA)))


@pytest.fixture(scope="module")
def basics() -> CudaModule:
    return CudaModule(CUDA_FILES / "basics.cu", [*KERNELS["basics"]])


class Affine(ctypes.Structure):
    _fields_ = (
        ("scale", ctypes.c_float),
        ("n", ctypes.c_longlong),
        ("offset", ctypes.c_double * 2),
    )


def scalar_arguments(out: torch.Tensor) -> list[cuda_module.Argument]:
    return [
        out,
        -(2**40) - 1,
        0.1,
        np.float32(0.1),
        np.uint32(2**32 - 1),
        np.uint64(2**63),
        np.bool_(True),
        np.int16(-7),
        None,
    ]


SCALARS_SEEN = [-(2.0**40) - 1, 0.1, float(np.float32(0.1)), 2.0**32 - 1, 2.0**62, 1.0, -7.0, 1.0]


# ---- arguments and limits, through the emulator


@needs_compiler
def test_every_kind_of_scalar_is_passed_by_value(basics):
    out = torch.zeros(8, dtype=torch.float64)
    basics.launch("scalars", (1,), (1,), scalar_arguments(out), device=CPU)
    assert out.tolist() == SCALARS_SEEN


@needs_compiler
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((None, None, None), "takes 4 arguments, given 3"),
        ((None, None, None, 0, 0), "takes 4 arguments, given 5"),
        ((None, None, None, np.int32(0)), r"argument 3: the parameter is long long \(i, 8 bytes\)"),
        ((None, None, None, 0.0), r"argument 3: .*the argument is \(f, 8 bytes\)"),
        ((None, 0, None, 0), r"argument 1: the parameter is float const\* \(p, 8 bytes\)"),
        ((None, None, None, Affine()), r"argument 3: .*the argument is \(s, 32 bytes\)"),
    ],
)
def test_the_emulator_checks_arguments_against_parameters(basics, args, message):
    with pytest.raises(EmulatorError, match=message):
        basics.launch("add<float>", (1,), (1,), args, device=CPU)


def test_a_tensor_on_another_device_is_refused_by_name(basics):
    x = torch.zeros(4)
    with pytest.raises(ValueError, match=r"argument 1 of add<float> is on meta, the launch is on cpu"):
        basics.launch("add<float>", (1,), (4,), [x, x.to("meta"), x, 4], device=CPU)
    with pytest.raises(ValueError, match="not on meta"):
        basics.launch("add<float>", (1,), (4,), [None, None, None, 4], device=torch.device("meta"))


@pytest.mark.parametrize("wrong", [True, "4", np.complex64(1), np.longdouble(1), [4], 1j])
def test_a_type_without_a_counterpart_is_refused(basics, wrong):
    x = torch.zeros(4)
    with pytest.raises(TypeError, match=f"argument 3 of add<float> is a {type(wrong).__name__}"):
        basics.launch("add<float>", (1,), (4,), [x, x, x, wrong], device=CPU)


@pytest.mark.parametrize("wrong", [2**63, -(2**63) - 1])
def test_an_int_beyond_long_long_is_refused(basics, wrong):
    x = torch.zeros(4)
    with pytest.raises(ValueError, match=r"argument 3 .* beyond long long"):
        basics.launch("add<float>", (1,), (4,), [x, x, x, wrong], device=CPU)


def test_an_unknown_kernel_is_refused(basics):
    with pytest.raises(ValueError, match="add<short>"):
        basics.launch("add<short>", (1,), (1,), [], device=CPU)


@pytest.mark.parametrize(
    ("grid", "block", "shared_bytes", "message"),
    [
        ((0,), (32,), 0, "grid"),
        ((), (32,), 0, "grid"),
        ((1, 1, 1, 1), (32,), 0, "grid"),
        ((2**31,), (32,), 0, "grid"),
        ((1, 65536), (32,), 0, "grid"),
        ((1, 1, 65536), (32,), 0, "grid"),
        ((1,), (1025,), 0, "block"),
        ((1,), (1, 1, 65), 0, "block"),
        ((1,), (32, 33), 0, "1056 threads"),
        ((1,), (-1,), 0, "block"),
        ((1,), (32,), 227 * 1024 + 1, "shared_bytes"),
        ((1,), (32,), -1, "shared_bytes"),
    ],
)
def test_launches_beyond_cudas_limits_are_refused(basics, grid, block, shared_bytes, message):
    with pytest.raises(ValueError, match=message):
        basics.launch("coordinates", grid, block, [None], shared_bytes=shared_bytes, device=CPU)


@needs_compiler
def test_a_device_may_be_written_with_its_index(basics):
    out = torch.full((1,), -1, dtype=torch.int32)
    basics.launch("coordinates", (1,), (1,), [out], device=torch.device("cpu", 0))
    assert out.item() == 0


@needs_compiler
def test_the_largest_block_and_dynamic_shared_memory(basics):
    x, out = torch.randn(2, 1024), torch.zeros(2, 1024)
    basics.launch("reverse_rows", (2,), (1024,), [x, out], shared_bytes=227 * 1024, device=CPU)
    assert torch.equal(out, x.flip(1))


# ---- hashes


def test_the_source_hash_covers_included_files(tmp_path):
    (tmp_path / "inner.cuh").write_text("#pragma once\n// one\n")
    (tmp_path / "outer.cuh").write_text('#include "inner.cuh"\n')
    source = tmp_path / "kernel.cu"
    source.write_text('#include "device.cuh"\n  #  include "outer.cuh"\n__global__ void kernel() {}\n')
    before = CudaModule(source, ["kernel"]).source_hash
    assert before == CudaModule(source, ["kernel"]).source_hash
    assert len(before) == 64
    (tmp_path / "inner.cuh").write_text("#pragma once\n// two\n")
    after = CudaModule(source, ["kernel"]).source_hash
    assert after != before
    device_header = (Path(cuda_module.__file__).parent / "common" / "device.cuh").resolve()
    assert device_header in cuda_module.with_includes(source, cuda_module._INCLUDES)


@needs_compiler
def test_an_edited_header_is_recompiled(tmp_path):
    source, header = tmp_path / "kernel.cu", tmp_path / "value.cuh"
    source.write_text(
        '#include "device.cuh"\n#include "value.cuh"\n__global__ void store(int* out) { *out = value; }\n'
    )
    seen = []
    for value in (1, 2):
        header.write_text(f"constexpr int value = {value};\n")
        out = torch.zeros(1, dtype=torch.int32)
        CudaModule(source, ["store"]).launch("store", (1,), (1,), [out], device=CPU)
        seen.append(out.item())
    assert seen == [1, 2]


def copies(folder: Path) -> dict[str, Path]:
    """Copies of a file that includes another one, which differs in ``other`` alone."""
    found = {}
    for place, value in {"first": 1, "second": 1, "other": 2}.items():
        (folder / place).mkdir()
        (folder / place / "value.cuh").write_text(f"constexpr int value = {value};\n")
        found[place] = folder / place / "kernel.cu"
        found[place].write_text("#include <value.cuh>\n__global__ void store(int* out) { *out = value; }\n")
    return found


@needs_compiler
def test_a_copy_is_compiled_again_for_the_emulator_only_if_something_differs(tmp_path):
    seen, paths = [], []
    for source in copies(tmp_path).values():
        module, out = CudaModule(source, ["store"]), torch.zeros(1, dtype=torch.int32)
        module.launch("store", (1,), (1,), [out], device=CPU)
        seen.append(out.item())
        paths.append(module._emulate()._library._name)
    assert seen == [1, 1, 2]
    assert paths[0] == paths[1] != paths[2]


@needs_compiler
def test_where_sanitizers_report_paths_each_copy_has_its_own(tmp_path, monkeypatch):
    keys = {}

    def compiled(kind, stem, identity, command, *given, **named):
        keys[stem] = [*keys.get(stem, []), tuple(identity)]
        if stem == "kernel":
            raise CudaCompileError(Path(), "emulator", "not compiled by this test")
        return tmp_path / "runtime.o"

    monkeypatch.setattr(emulator, "compiled", compiled)
    first, second, _ = copies(tmp_path).values()
    own = emulator._HEADERS
    headers = shutil.copytree(own, tmp_path / "headers", ignore=shutil.ignore_patterns("__pycache__"))
    for sanitizing in ("0", "1"):
        monkeypatch.setenv("BOLTZBENCH_EMULATOR_SANITIZE", sanitizing)
        for source, folder in ((first, own), (second, headers)):
            monkeypatch.setattr(emulator, "_HEADERS", folder)
            with pytest.raises(CudaCompileError, match="not compiled"):
                CudaModule(source, ["store"]).launch("store", (1,), (1,), [None], device=CPU)
    plain, same, sanitized, another = keys["kernel"]
    assert plain == same
    assert len({plain, sanitized, another}) == 3
    assert len({*keys["runtime"]}) == 2, "the emulator's own part is built once for all copies"


# ---- compilation for a GPU, without one


def elf_extent(data: bytes) -> int:
    """The end of the last header table of a 64-bit ELF file."""
    header = struct.unpack_from("<16sHHIQQQIHHHHHH", data)
    return max(header[5] + header[9] * header[10], header[6] + header[11] * header[12])


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_90a", "sm_100"])
@pytest.mark.parametrize("name", KERNELS)
def test_all_sources_compile_to_machine_code(name, arch, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = CudaModule(CUDA_FILES / f"{name}.cu", KERNELS[name])
    cubin = module.cubin(arch)
    assert cubin.data.startswith(b"\x7fELF")
    assert elf_extent(cubin.data) == len(cubin.data)
    assert set(cubin.names) == set(KERNELS[name])
    assert len(set(cubin.names.values())) == len(KERNELS[name])
    for symbol in cubin.names.values():
        assert f".text.{symbol}\0".encode() in cubin.data
    assert cubin.path.read_bytes() == cubin.data
    assert CudaModule(CUDA_FILES / f"{name}.cu", KERNELS[name]).cubin(arch) == cubin  # from the cache


class FakeNvrtc:
    """Compiles everything to the same code."""

    NVRTCError = RuntimeError

    def __init__(self):
        self.compiled = 0

    def __getattr__(self, name):
        return lambda *given: None

    def getVersion(self):
        return 13, 0

    def compileProgram(self, *given):
        self.compiled += 1

    def getLoweredName(self, program, name):
        return f"_Z{name}"

    def getCUBIN(self, program):
        return b"\x7fELF code"


@pytest.mark.parametrize("suffix", [".cubin", ".json"])
def test_machine_code_or_symbols_that_are_damaged_are_compiled_again(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    nvrtc = FakeNvrtc()
    monkeypatch.setattr(cuda_module, "_nvrtc", lambda: nvrtc)

    def cubin():
        return CudaModule(CUDA_FILES / "basics.cu", ["add<float>"]).cubin("sm_90")

    whole = cubin()
    assert (whole, nvrtc.compiled) == (cubin(), 1)
    (path,) = whole.path.parent.glob(f"*{suffix}")
    path.write_bytes(path.read_bytes()[:-1])
    assert (cubin(), nvrtc.compiled) == (whole, 2)
    assert whole.path.read_bytes() == whole.data == b"\x7fELF code\0"


def test_machine_code_of_a_copy_is_compiled_again_only_if_something_differs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    nvrtc = FakeNvrtc()
    monkeypatch.setattr(cuda_module, "_nvrtc", lambda: nvrtc)
    compiled = []
    for source in copies(tmp_path).values():
        CudaModule(source, ["store"]).cubin("sm_90")
        compiled.append(nvrtc.compiled)
    assert compiled == [1, 1, 2]


@needs_nvrtc
def test_a_part_of_the_kernels_can_be_compiled(basics):
    cubin = basics.cubin("sm_90", ["coordinates"])
    assert list(cubin.names) == ["coordinates"]
    assert b"row_sum" not in cubin.data


@needs_nvrtc
def test_a_compile_error_names_file_arch_and_line(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text('#include "device.cuh"\n__global__ void broken(float* x) { x[0] = no_such_name; }\n')
    with pytest.raises(CudaCompileError, match="no_such_name") as error:
        CudaModule(source, ["broken"]).cubin("sm_90")
    assert (error.value.source, error.value.target) == (source, "sm_90")
    assert "broken.cu(2)" in error.value.log


@needs_nvrtc
def test_too_much_static_shared_memory_does_not_compile(tmp_path):
    source = tmp_path / "large.cu"
    source.write_text(
        '#include "device.cuh"\n__global__ void large(float* x) {\n'
        "    __shared__ float tile[12289];\n    tile[threadIdx.x] = x[0];\n    __syncthreads();\n"
        "    x[threadIdx.x] = tile[x[1] > 0.0f ? 12288 : 0];\n}\n"
    )
    with pytest.raises(CudaCompileError, match="shared"):
        CudaModule(source, ["large"]).cubin("sm_90")


@needs_nvrtc
@pytest.mark.parametrize(
    ("capability", "arch"),
    [((8, 0), "sm_80"), ((8, 6), "sm_86"), ((9, 0), "sm_90a"), ((10, 0), "sm_100a"), ((9, 9), "sm_90")],
)
def test_the_target_of_a_device(capability, arch):
    assert cuda_module.arch_of(capability) == arch


@needs_nvrtc
def test_a_device_that_nvrtc_does_not_support():
    with pytest.raises(CudaCompileError, match="newer"):
        cuda_module.arch_of((99, 0))


# ---- the arguments passed to CuPy (launches on a device are tested below)


class RecordedKernel:
    """A stand-in for CuPy's RawKernel."""

    shared_size_bytes = 4096
    """Its static shared memory."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.asked: list[int] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "max_dynamic_shared_size_bytes":
            self.asked.append(value)
        else:
            super().__setattr__(name, value)

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int) -> None:
        self.calls.append((grid, block, args, shared_mem))


@pytest.fixture
def recorded(monkeypatch):
    """The kernel that CuPy loads from a file, for a device that lets a block have 227 KiB of shared memory."""
    kernel = RecordedKernel()
    cupy = SimpleNamespace(RawModule=lambda path: SimpleNamespace(get_function=lambda symbol: kernel))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda_module, "cupy_stream", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda_module, "arch_of", lambda capability: "sm_90a")
    cubin = cuda_module.Cubin("sm_90a", b"", {"scalars": "scalars"}, Path("scalars.cubin"))
    monkeypatch.setattr(CudaModule, "cubin", lambda module, arch: cubin)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    properties = SimpleNamespace(shared_memory_per_block_optin=227 * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return kernel


def launch_with_shared_memory(shared_bytes):
    """Returns the packed arguments."""
    module = CudaModule(CUDA_FILES / "basics.cu", ["scalars"])
    packed = [cuda_module._pack(i, a, "scalars", CPU)[1] for i, a in enumerate(scalar_arguments(torch.zeros(8)))]
    for bytes_of_launch in shared_bytes:
        module._launch_cuda("scalars", (1, 1, 1), (1, 1, 1), packed, bytes_of_launch, CUDA)
    return packed


def test_dynamic_shared_memory_leaves_room_for_static_and_is_asked_for_once(recorded):
    """With 4 KiB of static memory, 45 KiB of dynamic memory are beyond the 48 KiB that a kernel has unasked."""
    launch_with_shared_memory([0, 45 * 1024, 48 * 1024, 223 * 1024])
    assert recorded.asked == [223 * 1024]
    assert [shared_mem for *_, shared_mem in recorded.calls] == [0, 45 * 1024, 48 * 1024, 223 * 1024]


def test_more_shared_memory_than_static_memory_leaves_is_refused(recorded):
    with pytest.raises(
        ValueError, match=r"shared_bytes is 228353, beyond the 228352 bytes that cuda leaves to scalars"
    ):
        launch_with_shared_memory([223 * 1024 + 1])
    assert recorded.calls == []


def test_cupy_gets_each_argument_as_one_value_of_its_size(recorded):
    packed = launch_with_shared_memory([100 * 1024])
    _, _, values, shared_mem = recorded.calls[0]
    assert shared_mem == 100 * 1024
    # CuPy passes a NumPy array of size one by value, of whatever dtype.
    assert all(isinstance(value, np.ndarray) and value.size == 1 for value in values)
    assert [value.nbytes for value in values] == [8, 8, 8, 4, 4, 8, 1, 2, 8]
    assert [value.tobytes() for value in values] == packed


# ---- on a GPU


@needs_gpu
def test_scalars_and_structures_on_a_gpu(basics):
    out = torch.zeros(8, dtype=torch.float64, device=CUDA)
    basics.launch("scalars", (1,), (1,), scalar_arguments(out), device=CUDA)
    assert out.tolist() == SCALARS_SEEN
    x, y = torch.randn(50, device=CUDA), torch.zeros(64, device=CUDA)
    basics.launch("affine", (2,), (32,), [x, y, Affine(3.0, 50, (0.25, 0.5))], device=CUDA)
    torch.testing.assert_close(y[:50], 3.0 * x + 0.75)


@needs_gpu
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bit_floats_on_a_gpu_agree_with_the_emulator(basics, name):
    dtype = getattr(torch, name)
    narrow = torch.arange(65536).to(torch.uint16).view(dtype)
    random_bits = np.random.default_rng(1).integers(0, 2**32, 65536, dtype=np.uint32)
    values = torch.from_numpy(random_bits).view(torch.float32)
    wide, rounded = {}, {}
    for device in (CPU, CUDA):
        wide[device], rounded[device] = (
            torch.zeros(65536, device=device),
            torch.zeros_like(narrow, device=device),
        )
        arguments = [narrow.to(device), wide[device], 65536]
        basics.launch(f"widen_all<{name}>", (256,), (256,), arguments, device=device)
        arguments = [values.to(device), rounded[device], 65536]
        basics.launch(f"narrow_all<{name}>", (256,), (256,), arguments, device=device)
    torch.testing.assert_close(wide[CUDA].cpu(), wide[CPU], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(rounded[CUDA].cpu().view(torch.int16), rounded[CPU].view(torch.int16))


@needs_gpu
def test_large_dynamic_shared_memory_on_the_current_stream_of_a_gpu(basics):
    x = torch.randn(4, 1024, device=CUDA)
    out = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        basics.launch("reverse_rows", (4,), (1024,), [x, out], shared_bytes=96 * 1024, device=CUDA)
        assert not stream.query()  # behind the sleep, and not waited for
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(out, x.flip(1))


@needs_gpu
def test_a_launch_is_captured_in_a_graph(basics):
    x, y, out = (torch.randn(1000, device=CUDA) for _ in range(3))
    arguments = [x, y, out, 1000]
    basics.launch("add<float>", (8,), (128,), arguments, device=CUDA)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        basics.launch("add<float>", (8,), (128,), arguments, device=CUDA)
    x.fill_(1.0)
    graph.replay()
    assert torch.equal(out, x + y)
