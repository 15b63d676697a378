"""The launch code of every implementation, run on stand-in GPUs of three architectures: see `support/rehearsal.py`.

No kernel runs. By default check cases run on sm_90, and on the others where launch code asks which GPU it is; Triton
kernels are compiled for sm_90, with the types of pointers that no variant has. With BOLTZBENCH_COMPILE_ALL=1 all check
cases run, and all specialisations are compiled, for every architecture: some 1000 compilations.
"""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from boltzbench.kernels import cuda_module, emulator
from boltzbench.kernels.common.variants import CudaVariant
from boltzbench.kernels.cuda_module import CudaModule
from support import TESTS, golden, operations, rehearsal
from support.standin_gpu import DEVICES, GPUS, ValuesNeeded, standin_gpus

pytest.importorskip("triton")

SM_80, SM_90, _ = DEVICES.values()


def require_nvrtc() -> None:
    pytest.importorskip("cupy")
    if reason := cuda_module.unavailable(SM_90):
        pytest.skip(reason)
    try:
        emulator.compiler()
    except emulator.CompilerNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_every_launch_suits_a_gpu(backend, subtests):
    if backend == "cupy":
        require_nvrtc()
    options = ["--compile-all"] if os.environ.get("BOLTZBENCH_COMPILE_ALL") == "1" else []
    found = rehearsal.findings_of(backend, *options)
    assert list(found.faults) == []
    own = {f"{each.operation} {each.name}" for each in operations.inspectable() if each.backend == backend}
    assert {name for name, count in found.launches.items() if count} == own
    assert sum(found.huge.values()) > len(own)
    for where, reason in found.skipped.items():
        with subtests.test(where):
            pytest.skip(reason)


def test_a_case_runs_on_other_gpus_if_launch_code_asks_which_one_it_is(monkeypatch):
    launched = []

    def launch_case(implementation, case, device):
        if device == SM_90 and launched and launched[-1] == ["sm_90"]:  # the second case
            torch.cuda.get_device_properties(device)
        if device == SM_90:
            launched.append([])
        launched[-1].append(GPUS[device.index].arch)

    def launches(all_archs):
        launched.clear()
        psgld, found = operations.implementation("psgld", "triton"), rehearsal.Findings()
        rehearsal.rehearse(psgld, "check", golden.ARCHITECTURES, float("inf"), found, all_archs)
        assert found.faults == {}
        return launched[:3]

    monkeypatch.setattr(rehearsal, "launch_case", launch_case)
    assert launches(False) == [["sm_90"], ["sm_90", "sm_80", "sm_100"], ["sm_90"]]
    assert launches(True) == [["sm_90", "sm_80", "sm_100"]] * 3


def test_a_case_grows_in_proportion():
    """Twice the spins of a glass are four times the couplings, so its walkers grow."""
    glasses = operations.registry().operations["spin_glass"].cases
    case = next(case for case in glasses if case.sizes == {"spins": 64, "walkers": 1 << 22, "sweeps": 20})
    with standin_gpus(rehearsal.MOST_VALUES):
        grown = rehearsal.grown(operations.implementation("spin_glass", "triton"), case)
    assert grown.sizes == {"spins": 64, "walkers": 1 << 30, "sweeps": 20}


def test_few_specialisations_have_all_new_types():
    def of(*types, warps="4"):
        return rehearsal.Specialisation("kernel", GPUS[1], types, (), (), (("num_warps", warps),))

    known = of("*fp32", "*fp16", "i32").traits
    one, both, seen, warps = of("*fp64", "*fp16"), of("*fp64", "*fp64"), of("*fp32", "*fp16", "i64"), of(warps="8")
    assert rehearsal.sample([one, both, seen, warps], known) == [both, warps]


def test_faults_of_triton_launches_are_named():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "operations/faults_of_triton_launches.py"],
        capture_output=True, text=True, check=False, cwd=TESTS, env=os.environ | {"TRITON_INTERPRET": "0"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:]


# ---- faults of CUDA C launches

SOURCE = """
#include "device.cuh"
template <int N> __global__ void scaled(const float* x, float* y, i64 n, float factor) {}
__global__ void CLUSTER_OF(4) clustered(float* y) {}
"""
BLOCK = (256,)


@pytest.fixture(scope="module")
def cuda(tmp_path_factory):
    require_nvrtc()
    source = tmp_path_factory.mktemp("rehearsal") / "scaled.cu"
    source.write_text(SOURCE)
    return CudaModule(source, ["scaled<1>", "clustered"])


def cuda_faults(module, launch, device=SM_80, archs=()):
    variants = [
        CudaVariant(name=kernel, threads=256, items=1, bytes_per_item=0, module=module, kernel=kernel, archs=archs)
        for kernel in module.kernels
    ]
    used = {("scaled<1>", gpu.arch): (100, 1024) for gpu in GPUS}
    recorder = rehearsal.CudaRecorder(variants, used)
    module._loaded.clear()
    with standin_gpus(), recorder.recording():
        x, y = (torch.zeros(1024, device=device) for _ in range(2))
        launch(module, x, y)
    assert recorder.launches == 1
    return recorder.faults


def test_a_right_cuda_launch_has_no_fault(cuda):
    def launch(module, x, y):
        module.launch("scaled<1>", (4,), BLOCK, [x, y, 1024, np.float32(2)], shared_bytes=150 * 1024, device=x.device)

    assert cuda_faults(cuda, launch) == []
    assert cuda_faults(cuda, lambda m, x, y: m.launch("clustered", (8,), BLOCK, [y], device=y.device), SM_90) == []


@pytest.mark.parametrize(
    ("arguments", "block", "words"),
    [
        (lambda x, y: [x, 1024, y, np.float32(2)], BLOCK, "argument 1: the parameter is float* (p, 8 bytes)"),
        (lambda x, y: [x, y, 1024, 2.0], BLOCK, "argument 3: the parameter is float (f, 4 bytes)"),
        (lambda x, y: [x, y, np.int32(1024), np.float32(2)], BLOCK, "argument 2: the parameter is long long (i, 8"),
        (lambda x, y: [x, y, 1024], BLOCK, "takes 4 arguments, given 3"),
        (lambda x, y: [x, y, 1024, np.float32(2)], (512,), "a block has 512 threads, the variant 256"),
        (lambda x, y: [x, y, 1024, np.float32(2)], (1024,), "1024 threads of 100 registers"),
    ],
)
def test_a_wrong_cuda_launch_is_rejected(cuda, arguments, block, words):
    found = cuda_faults(
        cuda, lambda module, x, y: module.launch("scaled<1>", (4,), block, arguments(x, y), device=x.device)
    )
    assert any(words in sentence for sentence in found), found


def test_a_launch_that_does_not_suit_every_gpu_counts_as_a_question(cuda):
    recorder = rehearsal.CudaRecorder([], {})
    cuda._loaded.clear()
    questions = []
    with standin_gpus() as asked, recorder.recording():
        x, y = (torch.zeros(1024, device=SM_90) for _ in range(2))
        for shared_bytes in (0, 0, 164 * 1024):
            asked.clear()
            arguments = [x, y, 1024, np.float32(2)]
            cuda.launch("scaled<1>", (4,), BLOCK, arguments, shared_bytes=shared_bytes, device=SM_90)
            questions.append(bool(asked))
    assert questions == [True, False, True]  # the kernel is loaded; no question; sm_80 has less shared memory


def test_a_launch_in_clusters_is_rejected_where_it_cannot_run(cuda):
    def launch(blocks):
        return lambda module, x, y: module.launch("clustered", (blocks,), BLOCK, [y], device=y.device)

    assert "a grid of (6, 1, 1) in clusters of 4" in cuda_faults(cuda, launch(6), SM_90)[0]
    assert "in clusters of 4" in cuda_faults(cuda, launch(8), SM_80)[0]
    assert "its variant is for ('sm_100',)" in cuda_faults(cuda, launch(8), SM_90, archs=("sm_100",))[0]


def test_shared_memory_that_was_not_asked_for_is_rejected(cuda):
    """`CudaModule` refuses what the device lacks, and asks for the rest: here it does neither."""

    def launch(module, x, y):
        module.launch("scaled<1>", (4,), BLOCK, [x, y, 1024, np.float32(2)], shared_bytes=60 * 1024, device=x.device)

    def careless(module, kernel, device):
        import cupy

        return cupy.RawModule(path=str(module.source)).get_function(kernel), 1 << 20

    with mock.patch.object(CudaModule, "_load_cuda", careless):
        (found,) = cuda_faults(cuda, launch)
    assert "1024 + 61440 bytes of shared memory, the kernel has asked for 48128 dynamic ones" in found


def test_a_grid_too_tall_and_shared_memory_beyond_the_device_are_refused(cuda):
    def launch(grid, shared_bytes):
        arguments = [np.float32(2)]
        return lambda module, x, y: module.launch(
            "scaled<1>", grid, BLOCK, [x, y, 1024, *arguments], shared_bytes=shared_bytes, device=x.device
        )

    with pytest.raises(ValueError, match="grid is"):
        cuda_faults(cuda, launch((1, 65536), 0))
    with pytest.raises(ValueError, match="shared_bytes is 166912"):
        cuda_faults(cuda, launch((1,), 163 * 1024))
    assert rehearsal.too_many_blocks((1, 65536, 1))
    assert not rehearsal.too_many_blocks((2**31 - 1, 65535, 65535))


def test_the_size_of_a_cluster_is_read_from_the_source():
    clusters = Path(operations.__file__).parents[2] / "kernels" / "rbm_gibbs" / "tensor_cores" / "clusters.cu"
    assert rehearsal.cluster_of(clusters, "cluster_sweeps<float>") == 8
    assert rehearsal.cluster_of(TESTS / "kernels" / "cuda" / "clusters.cu", "ring<true>") == 4
    assert rehearsal.cluster_of(TESTS / "kernels" / "cuda" / "basics.cu", "add<float>") == 1


# ---- the stand-in GPUs


def test_tensors_of_two_devices_do_not_mix():
    with standin_gpus():
        x = torch.ones(3, device="cuda")
        assert (x.device, x.is_cuda, x.get_device()) == (SM_80, True, x.get_device())
        assert (x + x.to("cuda:0")).sum().item() == 6
        x[0] = 5
        x.copy_(torch.arange(3.0))
        x.record_stream(torch.cuda.current_stream(SM_80))
        assert x.tolist() == [0, 1, 2]
        for other in (torch.ones(3), torch.ones(3, device=SM_90)):
            with pytest.raises(RuntimeError, match="several devices"):
                x + other


def test_a_large_tensor_has_an_address_and_no_values():
    with standin_gpus(1000):
        x, y = torch.zeros(1 << 40, device=SM_90), torch.zeros(1 << 40, device=SM_90)
        assert x[16:].data_ptr() == x.data_ptr() + 64
        assert abs(x.data_ptr() - y.data_ptr()) >= x.numel()
        assert not bool((x > 1).any())
        assert bool(x.isfinite().all())
        with pytest.raises(ValuesNeeded):
            x.sum().item()
        with pytest.raises(ValuesNeeded):
            x.cpu()
        assert torch.zeros(1000, device=SM_90).sum().item() == 0
