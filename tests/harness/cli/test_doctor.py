"""What `doctor` says of machines that these tests imitate: programs on PATH, variables, folders."""

import json
import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from boltzbench.harness.cli import app as cli
from boltzbench.harness.cli.doctor import examine
from boltzbench.harness.cli.doctor.examine import Finding
from boltzbench.kernels.builds import cache, compiler

SMI = """#!/bin/sh
case "$1" in
  -L) echo "GPU 0: NVIDIA H200 (UUID: GPU-1234-abcd)";;
  --version) echo "CUDA Version        : {cuda}";;
  --query-gpu=*) echo "0, NVIDIA H200, 580.65.06, 345 MHz, 1980 MHz, {clocks}, Default";;
  --query-compute-apps=*) echo "{apps}";;
esac
exit {status}
"""


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Puts a program into the only folder on PATH, beside those of the system."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "echo"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    for name in ("CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES", "CXX"):
        monkeypatch.delenv(name, raising=False)

    def write(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return write


def smi(cuda="13.0", clocks="1980 MHz", apps="", status=0):
    return SMI.format(cuda=cuda, clocks=clocks, apps=apps, status=status)


def found(part):
    return {each.name: each for each in part()}


def test_without_a_driver_nothing_is_broken(on_path):
    (driver,) = examine.gpu()
    assert (driver.name, driver.status) == ("driver", "absent")
    assert "checked in an interpreter and an emulator" in driver.text


@pytest.fixture
def usable(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_a_gpu_with_set_clocks_and_nothing_else_on_it_is_well(on_path, usable):
    on_path("nvidia-smi", smi())
    gpu = found(examine.gpu)
    assert {name: each.status for name, each in gpu.items()} == {"driver": "ok", "gpu 0": "ok", "gpu 0 clocks": "ok"}
    assert gpu["gpu 0"].text == "NVIDIA H200, compute mode Default"


def test_what_disturbs_times_on_a_gpu_is_noted(on_path, usable):
    on_path("nvidia-smi", smi(clocks="[N/A]", apps="4711, python, 512 MiB"))
    gpu = found(examine.gpu)
    assert (gpu["gpu 0 clocks"].status, gpu["gpu 0 use"].status) == ("note", "note")
    assert "--lock-gpu-clocks=1980" in gpu["gpu 0 clocks"].mend
    assert "4711, python, 512 MiB" in gpu["gpu 0 use"].text


def test_a_driver_that_is_too_old_is_broken_with_the_command_that_mends_it(on_path, monkeypatch):
    on_path("nvidia-smi", smi(cuda="12.8"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    driver = found(examine.gpu)["driver"]
    assert driver.status == "broken"
    assert "the driver supports CUDA 12.8, but torch 2.13.0+cu130 needs CUDA 13.0" in driver.text
    assert driver.mend.startswith(f"{sys.executable} -m pip install --force-reinstall torch==2.13.0 --index-url ")


def test_a_driver_that_fails_and_a_gpu_that_is_hidden(on_path, usable, monkeypatch):
    on_path("nvidia-smi", "#!/bin/sh\nexit 9\n")
    assert [(each.name, each.status, each.text) for each in examine.gpu()] == [("driver", "broken", "nvidia-smi fails")]
    on_path("nvidia-smi", smi())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found(examine.gpu)["driver"].mend == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("wanted", "status", "words"),
    [
        ("/bin/false", "broken", "/bin/false cannot compile a small C++17 program with OpenMP"),
        ("no-such-compiler", "broken", "CXX=no-such-compiler is no program"),
        (None, "absent", "native kernels and the emulator of CUDA C cannot run"),
    ],
)
def test_a_compiler_that_does_not_work(on_path, monkeypatch, wanted, status, words):
    if wanted:
        monkeypatch.setenv("CXX", wanted)
    cxx = found(examine.compilers)["c++"]
    assert (cxx.status, words in cxx.text, "apt-get install g++" in cxx.mend) == (status, True, True)


def test_the_compiler_is_the_one_that_kernels_use(monkeypatch):
    asked = []
    monkeypatch.setattr(examine, "output_of", lambda *command: asked.append(command[0]))
    found(examine.compilers)
    assert asked[0] == compiler.compiler()


def test_a_compiler_that_works():
    cxx = found(examine.compilers)["c++"]
    assert (cxx.status, cxx.mend) == ("ok", "")


def test_missing_headers_of_python(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    headers = found(examine.compilers)["python headers"]
    assert (headers.status, "python3-devel" in headers.mend) == ("absent", True)


def test_two_distributions_of_cupy_break_each_other(monkeypatch):
    monkeypatch.setattr(examine, "_has", lambda name: name in ("cupy-cuda12x", "cupy-cuda13x"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "14.2.0")
    cupy = found(examine.python)["cupy"]
    assert (cupy.status, "pip uninstall cupy-cuda13x cupy-cuda12x" in cupy.mend) == ("broken", True)


def test_the_toolkit(on_path):
    on_path("nvcc", "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.48'\n")
    on_path("ncu", "#!/bin/sh\n")
    tools = found(examine.toolkit)
    assert (tools["nvcc"].status, tools["nvcc"].text[:4]) == ("ok", "13.0")
    assert (tools["ncu"].status, tools["nsys"].status) == ("ok", "absent")
    on_path("nvcc", "#!/bin/sh\nexit 1\n")
    assert found(examine.toolkit)["nvcc"].status == "broken"


@pytest.mark.parametrize(
    ("installed", "error", "status", "words"),
    [
        (True, None, "ok", "13.0.88 /lib/libnvrtc.so.13"),
        (False, None, "ok", "/lib/libnvrtc.so.13"),
        (
            True,
            RuntimeError("no such\nfile"),
            "broken",
            "nvidia-cuda-nvrtc is installed, but does not load: no such file",
        ),
        (False, RuntimeError("no such file"), "absent", "CUDA C kernels cannot be compiled for a GPU, nor inspected"),
    ],
)
def test_nvrtc_is_loaded(monkeypatch, installed, error, status, words):
    def load(name):
        if error:
            raise error
        return SimpleNamespace(abs_path="/lib/libnvrtc.so.13")

    monkeypatch.setattr(examine, "_has", lambda name: installed and name == "nvidia-cuda-nvrtc")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "13.0.88")
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", SimpleNamespace(load_nvidia_dynamic_lib=load))
    nvrtc = examine._nvrtc()
    assert (nvrtc.status, nvrtc.text) == (status, words)


def test_the_cache_of_kernels(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    kinds = [*cache._folders("native", [])]
    assert [each.parent for each in kinds] == [Path(os.path.realpath(each)) for each in examine.cache_folders()]
    assert examine._cache_of_kernels().status in ("ok", "note")
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    second = examine._cache_of_kernels()
    assert (second.status, "is no folder" in second.text) == ("note", True)
    monkeypatch.setattr(examine, "cache_folders", lambda: (tmp_path / "a file", tmp_path / "a file" / "b"))
    assert examine._cache_of_kernels().status == "broken"


def test_load(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0, 0))
    assert found(examine.host)["load"].status == "ok"
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0, 0))
    assert found(examine.host)["load"].status == "note"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("note", 0), ("absent", 0), ("broken", 1)])
def test_the_command(monkeypatch, capfd, status, code):
    def part():
        yield Finding("thing", status, "a long sentence about it " * 5, "mend --it " * 12)

    for name in ("python", "gpu", "toolkit", "compilers", "host", "plugins"):
        monkeypatch.setattr(examine, name, part if name == "gpu" else lambda: iter(()))
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--json", "-"])
    out, err = capfd.readouterr()
    assert caught.value.code == code
    assert [each["status"] for each in json.loads(out)["findings"]] == [status]
    assert max(map(len, err.splitlines())) <= 80
    assert ("Nothing is broken." in err) == (code == 0)


def test_a_torch_that_cannot_be_imported_is_a_finding(monkeypatch, capfd):
    for name in ("gpu", "toolkit", "compilers", "host", "plugins"):
        monkeypatch.setattr(examine, name, lambda: iter(()))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--json", "-"])
    (finding,) = json.loads(capfd.readouterr().out)["findings"]
    assert (caught.value.code, finding["status"]) == (1, "broken")
    assert "import of torch" in finding["text"]


def test_a_part_that_raises_is_a_finding(monkeypatch, capfd):
    def host():
        yield Finding("load", "ok", "0.0")
        raise OSError("no such machine")

    for name in ("python", "gpu", "toolkit", "compilers", "plugins"):
        monkeypatch.setattr(examine, name, lambda: iter(()))
    monkeypatch.setattr(examine, "host", host)
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor"])
    out, _ = capfd.readouterr()
    assert caught.value.code == 1
    assert "OSError: no such machine" in out
    assert "Broken: host." in out


def test_broken_plugins_are_named(monkeypatch):
    plugin = SimpleNamespace(
        name="mine",
        label="mine (levels 1.2)",
        distribution="levels",
        version="1.2",
        problems=("mine (levels 1.2): no",),
    )
    registry = SimpleNamespace(plugins=[plugin], loaded=(), operations={}, samplers={})
    monkeypatch.setattr("boltzbench.harness.execution.catalogue.read_catalogue", lambda device: registry)
    mine = found(examine.plugins)["plugin mine"]
    assert (mine.status, mine.text) == ("broken", "no (levels 1.2)")
    assert mine.mend.endswith("-m pip uninstall levels")
