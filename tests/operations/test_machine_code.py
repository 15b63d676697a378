"""Every kernel of the suite compiles for Ampere, Hopper and Blackwell without a GPU, spills nothing and moves its data
in accesses as wide as its variant promises; what else its machine code is like stands in `golden/`."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import torch
from boltzbench.harness.inspection.tools import ToolMissing, tool
from boltzbench.kernels.annealed_langevin import cuda_kernels as annealed_langevin
from boltzbench.kernels.boltzmann_gibbs import cuda_kernels as boltzmann_gibbs
from boltzbench.kernels.enumeration import cuda_kernels as enumeration
from boltzbench.kernels.generalised_cross_entropy import cuda_kernels as generalised_cross_entropy
from boltzbench.kernels.ising import cuda_kernels as ising
from boltzbench.kernels.logsumexp import cuda_kernels as logsumexp
from boltzbench.kernels.parallel_tempering import cuda_kernels as parallel_tempering
from boltzbench.kernels.rbm_free_energy import cuda_kernels as rbm_free_energy
from boltzbench.kernels.rbm_gibbs import cuda_kernels as rbm_gibbs
from boltzbench.kernels.rbm_gibbs.tensor_cores import clusters, half_sweeps, resident
from boltzbench.kernels.rbm_gradient import cuda_kernels as rbm_gradient
from boltzbench.kernels.sgld import cuda_kernels as sgld
from boltzbench.kernels.spin_glass import cuda_kernels as spin_glass
from boltzbench.kernels.thermodynamics import cuda_kernels as thermodynamics
from support import ROOT, golden

FORMS = """
import json, os, sys
os.environ["TRITON_INTERPRET"] = "0"
from dataclasses import replace
from boltzbench.harness.inspection.architectures import architecture
from boltzbench.harness.inspection.inspect import inspect_variants
from boltzbench.kernels.common.variants import variants_of

INTEGERS = ("i32", "i32:16", "i64", "i64:16")
forms = []
for operation in sys.argv[1:]:
    kernels = set()
    for variant in variants_of("triton", f"boltzbench.kernels.{operation}"):
        if variant.kernel.__name__ in kernels:
            continue
        kernels.add(variant.kernel.__name__)
        fixed = {p.name for p in variant.kernel.params if p.do_not_specialize or p.is_constexpr}
        for form in ("i64", 1, "unaligned"):
            signature = {}
            for name, value in variant.signature.items():
                if form == "unaligned":
                    value = value.removesuffix(":16") if isinstance(value, str) and name not in fixed else value
                elif value in INTEGERS and name not in fixed:
                    value = form
                signature[name] = value
            forms.append(replace(variant, name=f"{operation} {variant.kernel.__name__} {form}", signature=signature))
found = inspect_variants(forms, architecture("sm_90"))
print(json.dumps({form.name: [each.status, each.message, form.access_bytes] for form, each in zip(forms, found)}))
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
    found = golden.inspected(golden.changed(arch))
    with subtests.test("kernels spill nothing and are as wide as they promise"):
        faults = {name: [each["message"] for each in of if each["status"] != "passed"] for name, of in found.items()}
        assert {name: messages for name, messages in faults.items() if messages} == {}
    for name, findings in found.items():
        with subtests.test(name):
            kept = (golden.FOLDER / name).read_text()
            here, there = golden.compiler(name)[2:], kept.splitlines()[0][2:]
            if here != there:
                pytest.skip(f"{name} was made with {there}, here is {here}")
            # What the source was may differ where the code does not.
            found_now, found_then = (text.splitlines()[2:] for text in (golden.summary(name, findings), kept))
            assert found_now == found_then, "look at what changed; python tests/golden.py renews it"


def test_summaries_tell_of_no_fault():
    lines = {
        f"{file.name}: {line}": int(line.partition("warps ")[2].partition(",")[0])
        for file in golden.FOLDER.iterdir()
        for line in file.read_text().splitlines()[2:]
    }
    assert len(lines) > 500
    assert [line for line in lines if re.search(r": error|, (spills \d+|narrow),", line)] == []
    # Two blocks of 256 threads of CUDA C and more live on a multiprocessor; sums of tensor cores fill the registers.
    cuda = {line: warps for line, warps in lines.items() if "-cupy-" in line}
    on_tensor_cores = {line for line in cuda if ": tensor-core" in line.partition(".txt")[2]}
    assert on_tensor_cores
    assert min(cuda[line] for line in cuda.keys() - on_tensor_cores) >= 16
    assert min(cuda[line] for line in on_tensor_cores) >= 8


def test_summaries_are_made_with_the_pinned_compilers():
    pins = set(re.findall(r"^[\w.-]+==\S+$", ROOT.joinpath("constraints.txt").read_text(), re.M))
    names = {
        f"{operation}-{backend}-{arch}.txt"
        for operation in golden.OPERATIONS
        for backend in golden.COMPILERS
        for arch in golden.ARCHITECTURES
    }
    assert {file.name for file in golden.FOLDER.iterdir()} == names
    for file in golden.FOLDER.iterdir():
        assert file.read_text().splitlines()[0].removeprefix("# ").replace(" ", "==") in pins, file


def test_other_forms_of_the_triton_kernels():
    """64-bit integers; integers that are 1, of which Triton makes constants; addresses that are not aligned.

    Those compile too, and where a variant promises 128-bit accesses the unaligned one is seen not to have them; but the
    kernel of `sgld` finds the addresses in a table, and looks at them when it runs. None of them spills.
    """
    require_compilers()
    run = subprocess.run([sys.executable, "-c", FORMS, *golden.OPERATIONS], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    found = json.loads(run.stdout)
    assert len(found) >= 3 * len(golden.OPERATIONS)
    assert {name: words for name, (status, words, _) in found.items() if status in ("error", "spills")} == {}
    unaligned = {
        name: status
        for name, (status, _, promised) in found.items()
        if promised and "unaligned" in name and "sgld" not in name
    }
    assert set(unaligned.values()) == {"narrow"}, unaligned


@pytest.mark.parametrize(
    ("module", "modules"),
    [
        (annealed_langevin, [annealed_langevin.module()]),
        (boltzmann_gibbs, [boltzmann_gibbs.module()]),
        (enumeration, [enumeration.module()]),
        (
            generalised_cross_entropy,
            [generalised_cross_entropy.module(dtype) for dtype in generalised_cross_entropy.TYPES],
        ),
        (ising, [ising.module()]),
        (logsumexp, [logsumexp.module(dtype) for dtype in logsumexp.TYPES]),
        (parallel_tempering, [parallel_tempering.module()]),
        (rbm_free_energy, [rbm_free_energy.module(dtype) for dtype in rbm_free_energy.TYPES]),
        (
            rbm_gibbs,
            [
                *map(rbm_gibbs.module, rbm_gibbs.TYPES),
                rbm_gibbs.gaussian_module(),
                *(half_sweeps.module(name, packed) for name in half_sweeps.TILES for packed in (False, True)),
                *(clusters.module(name, packed) for name in clusters.TILES for packed in (False, True)),
                *map(resident.module, resident.KERNELS),
            ],
        ),
        (
            rbm_gradient,
            [rbm_gradient.infer_module(dtype) for dtype in rbm_gradient.TYPES]
            + [
                rbm_gradient.gradient_module(a, b) for a in rbm_gradient.HIDDEN_TYPES for b in rbm_gradient.HIDDEN_TYPES
            ],
        ),
        (sgld, [sgld.module(kind) for kind in sgld.KINDS]),
        (spin_glass, [spin_glass.module()]),
        (thermodynamics, [thermodynamics.module(dtype) for dtype in thermodynamics.TYPES]),
    ],
    ids=golden.OPERATIONS,
)
def test_the_variants_name_every_cuda_kernel(module, modules):
    named = {(each.module, each.kernel) for each in module.variants()}
    assert named == {(each, kernel) for each in modules for kernel in each.kernels}


def test_the_modules_cover_every_dtype():
    assert set(logsumexp.TYPES) == {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    assert set(rbm_gibbs.TYPES) == {torch.float32, torch.float16, torch.bfloat16}
