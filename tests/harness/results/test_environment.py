import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from boltzbench.harness.api.messages import UnknownName, UsageError
from boltzbench.harness.results import environment
from boltzbench.harness.results.environment import (
    UnknownDevice,
    cuda_unusable,
    describe,
    harness_hash,
    identity,
    resolve_device,
    resolve_devices,
)

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch):
    def init():
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)


@pytest.fixture
def two_gpus(monkeypatch):
    properties = SimpleNamespace(
        name="NVIDIA H200",
        uuid="1234-abcd",
        multi_processor_count=132,
        total_memory=150_000_000_000,
        L2_cache_size=52_428_800,
        major=9,
        minor=0,
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "12.9")


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = "--id=GPU-1234-abcd" ] && echo "580.65.06, $MODE, 1980, 3201, [N/A]"\n'
        '[ "$1" = "--version" ] && echo "NVIDIA-SMI version  : 580.65.06" && echo "CUDA Version        : 13.0"\n'
        "exit 0\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("MODE", "Default")
    environment.is_exclusive.cache_clear()
    yield
    environment.is_exclusive.cache_clear()


def test_auto_is_a_usable_gpu(two_gpus):
    assert resolve_device(None) == resolve_device("auto") == torch.device("cuda:0")


def test_auto_is_the_cpu_without_a_gpu(no_gpu):
    assert resolve_device(None) == resolve_device("auto") == CPU


@pytest.mark.parametrize(("text", "device"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_device_by_name(two_gpus, text, device):
    assert str(resolve_device(text)) == device


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cuda:2", "unknown device 'cuda:2': this machine has cuda:0, cuda:1"),
        ("cud", "unknown device 'cud': did you mean cuda"),
        ("cuda:", "unknown device 'cuda:': did you mean cuda"),
        ("cuda:-1", "unknown device 'cuda:-1': did you mean cuda:1"),
        ("gpu", "unknown device 'gpu': did you mean cpu?"),
        ("", "unknown device '': choose from auto, cpu, cuda, cuda:0, cuda:1"),
        ("meta", "unknown device 'meta'"),
    ],
)
def test_an_unknown_device(two_gpus, text, words):
    with pytest.raises(UnknownDevice) as caught:
        resolve_device(text)
    assert words in str(caught.value)
    assert isinstance(caught.value, UnknownName)


@pytest.mark.parametrize(
    ("text", "devices"),
    [("all", "cuda:0 cuda:1"), ("cuda:1, cuda", "cuda:1 cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_several_devices(two_gpus, text, devices):
    assert " ".join(map(str, resolve_devices(text))) == devices


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cuda:0,cuda:2", "unknown device 'cuda:2': this machine has cuda:0, cuda:1"),
        ("cuda,cuda:0", "--device cuda,cuda:0: cuda:0 is named twice"),
        ("cpu,cuda:1", "--device cpu,cuda:1: several devices are GPUs, such as cuda:0,cuda:1, or all"),
        ("cuda:0,", "unknown device ''"),
        ("alle", "unknown device 'alle'"),
    ],
)
def test_devices_that_cannot_be_used_together(two_gpus, text, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        resolve_devices(text)


def test_gpus_of_two_kinds_do_not_share_a_run(two_gpus, monkeypatch):
    kinds = {"cuda:0": "H200", "cuda:1": "T400"}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(name=kinds[str(device)]))
    with pytest.raises(UsageError) as caught:
        resolve_devices("all")
    assert str(caught.value) == (
        "--device all: times of 2 kinds of GPU cannot stand in one run: choose --device cuda:0 (H200) or cuda:1 (T400)"
    )


def test_all_without_a_gpu_is_the_cpu_and_says_so(no_gpu, capsys):
    assert resolve_devices("all") == [CPU]
    assert capsys.readouterr().err == "--device all: no GPU can be used here: everything runs on the CPU\n"


@pytest.mark.parametrize("text", ["all", "cuda:0,cuda:1"])
def test_a_command_for_one_device_says_which_take_several(two_gpus, text):
    with pytest.raises(UnknownDevice, match=f"--device {text}: this takes one device; check, bench and validate take"):
        resolve_device(text)


@pytest.mark.parametrize("text", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_gpu_quotes_the_driver(no_gpu, text):
    words = f"device '{text}' cannot be used: Found no NVIDIA driver on your system. Please check."
    with pytest.raises(UnknownDevice) as caught:
        resolve_device(text)
    assert str(caught.value) == words


def test_a_gpu_that_torch_cannot_use_is_refused_with_the_command_that_helps(idle_gpu):
    idle_gpu("12.8")
    with pytest.raises(UnknownDevice) as caught:
        resolve_device("cuda")
    words = "device 'cuda' cannot be used: the driver supports CUDA 12.8, but torch 2.13.0+cu130 needs CUDA 13.0. "
    assert str(caught.value).startswith(f"{words}What helps: ")


def test_a_refusal_says_that_the_environment_hides_devices(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    with pytest.raises(UnknownDevice) as caught:
        resolve_device("cuda:4")
    assert str(caught.value) == (
        "unknown device 'cuda:4': this machine has cuda:0, cuda:1 (CUDA_VISIBLE_DEVICES is '3,4')"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnknownDevice) as caught:
        resolve_device("cuda")
    assert str(caught.value).endswith(" (CUDA_VISIBLE_DEVICES is '-1')")


def test_a_driver_that_gives_no_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert "the driver gives no reason" in cuda_unusable()


@pytest.fixture
def idle_gpu(no_gpu, tmp_path, monkeypatch):
    """A machine with one GPU that torch 2.13.0 for CUDA 13.0 cannot use. Returns a function that sets the driver."""

    def with_driver(cuda):
        program = tmp_path / "nvidia-smi"
        program.write_text(
            "#!/bin/sh\n"
            '[ "$1" = "-L" ] && echo "GPU 0: NVIDIA H200 (UUID: GPU-1234-abcd)"\n'
            f'[ "$1" = "--version" ] && echo "CUDA Version        : {cuda}"\n'
            "exit 0\n"
        )
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    environment._report_unused_gpu.cache_clear()
    yield with_driver
    environment._report_unused_gpu.cache_clear()


UNUSED = "this machine has a GPU, but everything runs on the CPU: "


def test_a_gpu_that_torch_cannot_use_is_reported_once(idle_gpu, capsys):
    idle_gpu("12.8")
    assert resolve_device("auto") == resolve_device(None) == CPU
    words = (
        "the driver supports CUDA 12.8, but torch 2.13.0+cu130 needs CUDA 13.0. What helps: "
        f"{sys.executable} -m pip install --force-reinstall torch==2.13.0 "
        "--index-url https://download.pytorch.org/whl/cu126"
    )
    assert capsys.readouterr().err == f"{UNUSED}{words}\n"


@pytest.mark.parametrize(
    ("driver", "built", "words"),
    [
        ("13.1", None, "torch 2.13.0+cu130 is built without CUDA. What helps: "),
        ("11.4", "13.0", "needs CUDA 13.0. What helps: install a newer driver"),
        ("13.0", "13.0", "Found no NVIDIA driver on your system. Please check."),
        ("", "13.0", "Found no NVIDIA driver on your system. Please check."),
    ],
)
def test_why_a_gpu_is_not_used(idle_gpu, monkeypatch, driver, built, words):
    monkeypatch.setattr(torch.version, "cuda", built)
    idle_gpu(driver)
    found = environment.unused_gpu()
    assert found.startswith(UNUSED)
    assert words in found


def test_a_gpu_that_is_hidden_or_used_is_not_reported(idle_gpu, monkeypatch):
    idle_gpu("12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment.unused_gpu() is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert environment.unused_gpu() is not None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert environment.unused_gpu() is None


def test_without_a_gpu_nothing_is_reported(no_gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment.unused_gpu() is None


def test_a_usable_gpu_has_no_reason_against_it(two_gpus):
    assert cuda_unusable() is None


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home_in_the_environment_the_cache_is_in_that_of_the_user(monkeypatch, home):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(environment.pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir="/home/me"))
    assert environment.cache_folder() == Path("/home/me/.cache/boltzbench")


def test_description_of_a_cpu():
    found = describe(CPU)
    assert found["device"] == "cpu"
    assert found["gpu"] is None
    assert found["torch"] == torch.__version__
    assert found["cores"] >= 1
    assert found["cpu"]
    assert json.loads(json.dumps(found)) == found, "plain values only"


@pytest.mark.parametrize(
    ("libc", "words"), [(("glibc", "2.36"), "Linux-x86_64-with-glibc2.36"), (("", ""), "Linux-x86_64")]
)
def test_the_platform_does_not_name_the_build_of_the_kernel(monkeypatch, libc, words):
    monkeypatch.setattr(platform, "uname", lambda: SimpleNamespace(system="Linux", machine="x86_64", release="6.1-own"))
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    assert describe(CPU)["platform"] == words


def test_description_of_a_gpu(two_gpus, nvidia_smi):
    assert describe(torch.device("cuda:1"))["gpu"] == {
        "name": "NVIDIA H200",
        "uuid": "1234-abcd",
        "cuda": "12.9",
        "driver": "580.65.06",
        "driver_cuda": "13.0",
        "compute_mode": "Default",
        "max_sm_clock_mhz": 1980.0,
        "max_memory_clock_mhz": 3201.0,
        "power_limit_w": None,
        "multiprocessors": 132,
        "memory_bytes": 150_000_000_000,
        "l2_bytes": 52_428_800,
        "compute_capability": "9.0",
    }


SLICE = {"uuid": "5678-of-a-slice", "pci_domain_id": 0, "pci_bus_id": 0x1A, "pci_device_id": 0}


def test_a_slice_of_a_gpu_has_the_driver_and_limits_of_its_card(two_gpus, nvidia_smi, tmp_path):
    """A MIG device: nvidia-smi knows neither its UUID nor its number, but the PCI address of its card."""
    program = tmp_path / "nvidia-smi"
    program.write_text(program.read_text().replace("GPU-1234-abcd", "00000000:1A:00.0"))
    vars(torch.cuda.get_device_properties(0)).update(SLICE)
    found = describe(torch.device("cuda:0"))["gpu"]
    assert (found["uuid"], found["driver"], found["max_sm_clock_mhz"]) == ("5678-of-a-slice", "580.65.06", 1980.0)


@pytest.mark.parametrize(("mode", "exclusive"), [("Default", False), ("Exclusive_Process", True), ("", False)])
def test_a_gpu_that_admits_one_process_at_a_time(two_gpus, nvidia_smi, monkeypatch, mode, exclusive):
    monkeypatch.setenv("MODE", mode)
    assert environment.is_exclusive(torch.device("cuda:0")) is exclusive
    assert environment.is_exclusive(CPU) is False
    assert describe(torch.device("cuda:0"))["gpu"]["compute_mode"] == (mode or None)


def test_a_gpu_without_nvidia_smi(two_gpus, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = describe(torch.device("cuda:0"))
    assert found["gpu"]["driver"] is found["gpu"]["driver_cuda"] is found["gpu"]["max_sm_clock_mhz"] is None
    assert found["commit"] is found["dirty"] is None, "nor git"


def test_versions_or_that_they_are_missing(monkeypatch):
    versions = {"triton": "3.7.1", "cupy-cuda12x": "13.6"}
    monkeypatch.setattr(environment, "_version", versions.get)
    found = describe(CPU)
    assert (found["triton"], found["cupy"], found["boltzbench"]) == ("3.7.1", "cupy-cuda12x 13.6", "not installed")
    versions.clear()
    found = describe(CPU)
    assert (found["triton"], found["cupy"]) == ("not installed", "not installed")


def test_a_distribution_that_is_not_installed():
    assert environment._version("no-such-distribution-of-ours") is None


GPU = {"name": "NVIDIA H200", "uuid": "1234", "driver": "580", "cuda": "12.9", "l2_bytes": 1}
RUN = {"device": "cuda:0", "gpu": GPU, "cpu": "EPYC", "cores": 8, "threads": 8, "python": "3.12", "torch": "2.11",
       "triton": "3.7", "cupy": "14", "nvrtc": "13", "harness": "abc", "commit": "c0ffee", "dirty": False}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        *({"gpu": {**GPU, field: "other"}} for field in ("uuid", "driver", "cuda")),
        *({field: "other"} for field in ("device", "cpu", "cores", "threads", "python", "torch", "triton", "cupy")),
        *({field: "other"} for field in ("nvrtc", "harness")),
        {"gpu": None},
    ],
    ids=str,
)
def test_the_identity_depends_on_everything_that_affects_times(change):
    assert identity({**RUN, **change}) != identity(RUN)


def test_the_identity_ignores_commit_and_local_changes():
    assert identity({**RUN, "commit": None, "dirty": True}) == identity(RUN)
    assert identity(dict(reversed(RUN.items()))) == identity(RUN)


def test_a_description_has_every_field_of_its_identity(two_gpus, nvidia_smi):
    assert None not in identity(describe(torch.device("cuda:0"))).values()
    assert describe(CPU)["harness"] == harness_hash()


def test_the_harness_hash_changes_with_its_source(tmp_path, monkeypatch):
    shutil.copytree(Path(environment.__file__).parents[1], tmp_path / "harness")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "harness" / "results" / "environment.py"))
    before = harness_hash()
    (tmp_path / "harness" / "report" / "page.py").write_text("a")
    assert harness_hash() == before, "how figures are shown does not change them"
    (tmp_path / "harness" / "timing" / "clocks.py").write_text("b")
    assert harness_hash() != before


def git(folder, *command):
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(
        ["git", "-C", str(folder), *name, *command], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_commit_and_local_changes_of_a_checkout(tmp_path):
    assert environment._source_state(tmp_path) == (None, None), "not a checkout"
    git(tmp_path, "init")
    assert environment._source_state(tmp_path)[0] is None, "no commit yet"
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert environment._source_state(tmp_path) == (commit, False)
    (tmp_path / "a").write_text("2")
    assert environment._source_state(tmp_path) == (commit, True)
