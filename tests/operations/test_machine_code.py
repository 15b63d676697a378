"""Every kernel compiles for Ampere, Hopper and Blackwell, spills nothing and accesses memory as widely as it promises.

No GPU is needed. The goldens hold what else the machine code is like.
"""

import contextlib
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from boltzbench.harness import Unsupported
from boltzbench.harness.inspection.tools import ToolMissing, tool
from boltzbench.kernels import cuda_module
from boltzbench.kernels.cuda_module import CudaModule
from support import ROOT, TESTS, golden, operations

CPU = torch.device("cpu")
FORMS = """
import json
from dataclasses import replace
from boltzbench.harness.inspection.architectures import architecture
from boltzbench.harness.inspection.inspect import inspect_variants
from support import operations

INTEGERS = ("i32", "i32:16", "i64", "i64:16")
forms = {}
packages = {operations.kernels_of(each) for each in operations.inspectable() if each.backend == "triton"}
for package, module in sorted({each.package: each.module for each in packages}.items()):
    for variant in module.variants():
        name = f"{package} {variant.kernel.__name__}"
        if any(form.startswith(f"{name} ") for form in forms):
            continue
        fixed = {p.name for p in variant.kernel.params if p.do_not_specialize or p.is_constexpr}
        for form in ("i64", 1, "unaligned"):
            signature = {}
            for key, value in variant.signature.items():
                if form == "unaligned":
                    value = value.removesuffix(":16") if isinstance(value, str) and key not in fixed else value
                elif value in INTEGERS and key not in fixed:
                    value = form
                signature[key] = value
            forms[f"{name} {form}"] = replace(variant, name=f"{name} {form}", signature=signature)
found = inspect_variants(list(forms.values()), architecture("sm_90"))
print(json.dumps({name: [each.status, each.message, forms[name].access_bytes] for name, each in zip(forms, found)}))
"""


def require_compilers():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
        tool("nvdisasm")
        tool("cuobjdump")
    except (ImportError, OSError, RuntimeError, ToolMissing) as error:
        pytest.skip(f"kernels cannot be compiled and read here: {error}")


@pytest.mark.parametrize("arch", golden.ARCHITECTURES)
def test_the_machine_code_of_every_kernel(arch, subtests):
    """One test for an architecture, so that workers which share the tests compile nothing twice."""
    require_compilers()
    changed = golden.changed(arch)
    found = dict(zip(changed, golden.inspected(changed), strict=True))
    with subtests.test("kernels spill nothing and are as wide as they promise"):
        faults = {g.name: [each["message"] for each in of if each["status"] != "passed"] for g, of in found.items()}
        assert {name: messages for name, messages in faults.items() if messages} == {}
    for each, findings in found.items():
        with subtests.test(each.name):
            kept = each.lines()
            assert kept, f"{each.path} is missing: {each.renew}"
            here, there = each.compiler()[2:], kept[0][2:]
            if here != there:
                pytest.skip(f"{each.name} was made with {there}, here is {here}")
            # Other source may compile to the same code, so the second line of the header may differ.
            assert each.summary(findings)[2:] == kept[2:], each.renew


@pytest.mark.parametrize("operation", operations.names())
def test_every_implementation_has_its_goldens(operation):
    assert golden.missing(operation) == []


def test_no_golden_is_left_of_an_implementation_that_is_gone():
    assert golden.needless() == []


def test_a_missing_and_a_needless_golden_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "TESTS", tmp_path)
    monkeypatch.setattr(operations, "TESTS", tmp_path)
    monkeypatch.setattr(operations, "ROOT", tmp_path)
    needless = tmp_path / "operations" / "gone" / "golden" / "triton-sm_90.txt"
    needless.parent.mkdir(parents=True)
    needless.write_text("")
    found = golden.missing("psgld")
    assert "operations/psgld/golden/cupy-sm_80.txt is missing: run `make goldens OPERATIONS=psgld`" in found
    assert len(found) == len(golden.goldens(chosen=["psgld"]))
    assert golden.needless() == [
        "operations/gone/golden/triton-sm_90.txt belongs to no implementation: run `make goldens`"
    ]


def test_no_golden_is_written_where_nvrtc_cannot_be_loaded(tmp_path, monkeypatch):
    def unloadable():
        raise ImportError("libnvrtc.so.13: cannot open shared object file")

    monkeypatch.setattr(golden, "TESTS", tmp_path)
    monkeypatch.setattr(operations, "TESTS", tmp_path)
    one = golden.Golden(operations.implementation("psgld", "cupy"), "sm_90")
    monkeypatch.setattr(golden, "goldens", lambda **chosen: [one])
    monkeypatch.setattr(golden, "inspected", lambda chosen: golden._inspect([each.name for each in chosen]))
    monkeypatch.setattr(cuda_module, "_nvrtc", unloadable)
    one.path.parent.mkdir(parents=True)
    one.path.write_text("as it was")
    with pytest.raises(RuntimeError, match=r"no golden was written.*psgld/cupy/sm_90.*libnvrtc\.so\.13: cannot open"):
        golden.renew(["psgld"])
    assert one.path.read_text() == "as it was"


def test_goldens_show_no_fault():
    lines = {
        f"{each.name}: {line}": int(line.partition("warps ")[2].partition(",")[0])
        for each in golden.goldens()
        for line in each.lines()[2:]
    }
    assert len(lines) > 500
    assert [line for line in lines if re.search(r": error|, (spills \d+|narrow),", line)] == []
    # Two blocks of 256 threads of CUDA C and more live on a multiprocessor; sums of tensor cores fill the registers.
    cuda = {line: warps for line, warps in lines.items() if "/cupy/" in line}
    on_tensor_cores = {line for line in cuda if ": tensor-core" in line}
    assert on_tensor_cores
    assert min(cuda[line] for line in cuda.keys() - on_tensor_cores) >= 16
    assert min(cuda[line] for line in on_tensor_cores) >= 8


def test_goldens_are_made_with_the_pinned_compilers():
    pins = set(re.findall(r"^[\w.-]+==\S+$", ROOT.joinpath("constraints.txt").read_text(), re.M))
    for each in golden.goldens():
        assert each.lines()[0].removeprefix("# ").replace(" ", "==") in pins, each.path


def test_the_header_changes_with_the_kernels_and_not_with_the_plugin():
    headers = {each.name: each.header() for each in golden.goldens("sm_90")}
    assert headers["psgld/cupy/sm_90"] == headers["sghmc/cupy/sm_90"] == headers["sgld/cupy/sm_90"]  # three plugins
    assert headers["psgld/cupy/sm_90"][1] != headers["psgld/triton/sm_90"][1]
    packages = {operations.kernels_of(each).package for each in operations.inspectable()}
    assert len({header[1] for header in headers.values()}) == 2 * len(packages)


def test_other_forms_of_the_triton_kernels():
    """64-bit integers; integers that are 1, which Triton turns into constants; addresses that are not aligned.

    These compile too, and none spills. Where a variant promises 128-bit accesses, the unaligned form lacks them; but
    the kernel of `sgld` reads the addresses from a table and examines them at run time.
    """
    require_compilers()
    run = subprocess.run(
        [sys.executable, "-c", f'import os\nos.environ["TRITON_INTERPRET"] = "0"\n{FORMS}'],
        capture_output=True, text=True, check=False, cwd=TESTS,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    found = json.loads(run.stdout)
    packages = {operations.kernels_of(each).package for each in operations.inspectable() if each.backend == "triton"}
    assert {name.split()[0] for name in found} == packages
    assert {name: words for name, (status, words, _) in found.items() if status in ("error", "spills")} == {}
    unaligned = {
        name: status
        for name, (status, _, promised) in found.items()
        if promised and "unaligned" in name and "kernels.sgld " not in name
    }
    assert set(unaligned.values()) == {"narrow"}, unaligned


def cuda_variants():
    """The variants of all CUDA C kernels, by package of kernels: several operations may share one."""
    found = {}
    for each in operations.inspectable():
        if each.backend == "cupy":
            found.setdefault(operations.kernels_of(each).package, []).extend(each.variants())
    return found


def kernels_in(file):
    """The names of the ``__global__`` functions of a .cu file, which follow attributes and macros in capitals."""
    for signature in re.findall(r"^\s*__global__[^{;]*", file.read_text(), re.MULTILINE):
        names = re.findall(r"(\w+)\s*\(", signature)
        yield next(name for name in names if name != "__launch_bounds__" and not name.isupper())


@pytest.mark.parametrize("package", cuda_variants())
def test_the_variants_name_every_cuda_kernel(package):
    """Every kernel of every module that a variant names, and every ``__global__`` function of the folder."""
    variants = cuda_variants()[package]
    named = {(each.module, each.kernel) for each in variants}
    assert named == {(each.module, kernel) for each in variants for kernel in each.module.kernels}
    folder = Path(importlib.import_module(package).__file__).resolve().parent
    functions = {(file, name) for file in folder.rglob("*.cu") for name in kernels_in(file)}
    assert functions == {(module.source, kernel.partition("<")[0]) for module, kernel in named}


@pytest.mark.parametrize("operation", operations.names())
def test_the_variants_name_every_kernel_that_a_check_case_launches(operation):
    """No kernel runs here: its launch is recorded only."""
    implementation = operations.implementation(operation, "cupy")
    if implementation.unavailable(CPU) is not None:
        pytest.skip(implementation.unavailable(CPU))
    launched = set()

    def record(module, kernel, *arguments, **named):
        launched.add((module, kernel))

    with mock.patch.object(CudaModule, "launch", record):
        for case in operations.registry().operations[operation].cases:
            if case.purpose == "check":
                with contextlib.suppress(Unsupported):
                    _, launch = operations.prepared(implementation, case)
                    launch()
    named = {(each.module, each.kernel) for each in cuda_variants()[operations.kernels_of(implementation).package]}
    assert launched
    assert [f"{module.source.name}: {kernel}" for module, kernel in launched - named] == []
