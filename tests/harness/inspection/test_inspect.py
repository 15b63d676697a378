"""`inspect`: kernels that break a promise, limits of architectures, and the command."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from boltzbench.harness.api.messages import UnknownName
from boltzbench.harness.api.records import Run
from boltzbench.harness.cli import app as cli
from boltzbench.harness.cli import inspect as cli_inspect
from boltzbench.harness.inspection import tools as sass_tools
from boltzbench.harness.inspection.architectures import ARCHITECTURES, architecture, measured, warps_resident
from boltzbench.harness.inspection.inspect import inspect_variants
from boltzbench.harness.inspection.tools import ToolMissing, tool
from boltzbench.harness.results.file import SCHEMA, run_to_json
from boltzbench.kernels.common.variants import CudaVariant, KernelVariant, TritonVariant
from boltzbench.kernels.cuda_module import CudaModule
from support import TESTS
from support.fakes import implementation

KERNELS = ("honest", "scalar", "twice", "rows", "spills", "indexed")
MODULE = CudaModule(TESTS / "kernels" / "cuda" / "inspected.cu", KERNELS)


def variant(kernel: str, **fields) -> CudaVariant:
    common = {"name": kernel, "threads": 256, "items": 4, "bytes_per_item": 4, "access_bytes": 16}
    return CudaVariant(module=MODULE, kernel=kernel, **{**common, **fields})


def found(*variants: KernelVariant, arch: str = "sm_90", **limits):
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
        tool("nvdisasm")
    except (ImportError, OSError, RuntimeError, ToolMissing) as error:
        pytest.skip(f"kernels cannot be compiled and read here: {error}")
    return inspect_variants(variants, replace(architecture(arch), **limits))


# ---- kernels, right and wrong


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_honest_kernel_passes(arch):
    honest, rows = found(variant("honest"), variant("rows"), arch=arch)
    assert (honest.status, honest.message) == ("passed", "")
    assert honest.in_loop
    assert (honest.loads, honest.stores) == ({16: 1}, {})
    assert honest.mix["mufu"] == 4
    assert (honest.stack_bytes, honest.local_accesses, honest.occupancy) == (0, 0, 1.0)
    assert honest.limit == "memory"
    assert honest.memory_share == 1.0
    assert (rows.status, rows.loads, rows.mix["mufu"]) == ("passed", {16: 1}, 4)


def test_scalar_loads_break_the_promise_of_wide_ones():
    (scalar,) = found(variant("scalar"))
    assert scalar.status == "narrow"
    assert scalar.loads == {4: 4}
    assert scalar.message == (
        "only 0 of the 16 bytes of a pass move in accesses of the promised 16 bytes (narrower: 4 LDG.E)"
    )


def test_without_a_promise_scalar_loads_pass():
    (scalar,) = found(variant("scalar", access_bytes=0))
    assert scalar.status == "passed"


def test_wide_loads_for_half_of_the_traffic_break_the_promise():
    (half,) = found(variant("honest", bytes_per_item=8))
    assert half.status == "narrow"
    assert "only 16 of the 32 bytes of a pass" in half.message


def test_an_extra_exponential_is_detected():
    """It shows in the mix, and in the limit of the kernel if memory were twice as fast."""
    honest, twice = found(variant("honest"), variant("twice"), bandwidth=9.6e12)
    assert twice.mix["mufu"] == 2 * honest.mix["mufu"]
    assert (honest.limit, twice.limit) == ("memory", "mufu")
    assert twice.memory_share < 0.9 < honest.memory_share


@pytest.mark.parametrize("kernel", ["spills", "indexed"])
def test_local_memory_is_detected(kernel):
    (one,) = found(variant(kernel, access_bytes=0, threads=1024 if kernel == "spills" else 256))
    assert one.status == "spills"
    assert one.stack_bytes >= 64
    assert f"{one.stack_bytes} bytes of local memory" in one.message


def test_a_loop_that_the_compiler_unrolled_has_more_items():
    (twice,) = found(variant("honest", items=2))
    assert (twice.passes, twice.items) == (2, 4)


def test_a_compile_error_is_reported():
    broken = replace(variant("honest"), module=CudaModule(TESTS / "kernels" / "cuda" / "basics.cu", ["no_such"]))
    first, second = found(broken, variant("honest"))
    assert first.status == "error"
    assert "no_such" in first.message
    assert second.status == "passed"


def test_a_block_that_does_not_fit_is_reported():
    (large,) = found(variant("honest", shared_bytes=300 * 1024))
    assert (large.status, large.warps) == ("error", 0)


def test_a_triton_kernel_is_not_compiled_where_kernels_are_interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    one = TritonVariant(name="any", threads=128, items=1, bytes_per_item=4, kernel=None, signature={})
    (finding,) = found(one)
    assert finding.status == "error"
    assert "TRITON_INTERPRET=0" in finding.message


SIGNATURES = """
import os
os.environ["TRITON_INTERPRET"] = "0"
import triton
import triton.language as tl
from boltzbench.kernels.common.variants import TritonVariant

@triton.jit(do_not_specialize=["seed"])
def kernel(x, n, seed, BLOCK: tl.constexpr):
    pass

def specialised(**signature):
    one = TritonVariant(name="one", threads=128, items=1, bytes_per_item=4, kernel=kernel, signature=signature)
    try:
        print(one._specialisation())
    except ValueError as error:
        print(error)

specialised(x="*fp32:16", n=1, seed="i64", BLOCK="a word")
specialised(x="*fp32", n="i32:16", BLOCK=4, wrong=1)
specialised(x="*fp32", n="i32:8", seed="i64", BLOCK=4)
specialised(x="*fp32", n="i32", seed="i64:16", BLOCK=4)
"""


def test_signatures_of_triton_kernels(tmp_path):
    pytest.importorskip("triton")
    script = tmp_path / "signatures.py"
    script.write_text(SIGNATURES)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == [
        "({'x': '*fp32', 'n': 'constexpr', 'seed': 'i64', 'BLOCK': 'constexpr'}, {'n': 1, 'BLOCK': 'a word'}, "
        "{(0,): [['tt.divisibility', 16]]})",
        "one: signature lacks ['seed'] and has unknown ['wrong']",
        "one: n cannot be 'i32:8'",
        "one: seed is not specialized, so it cannot be 'i64:16'",
    ], run.stderr


# ---- limits


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "warps"),
    [
        (256, 32, 0, 64),
        (256, 40, 0, 48),  # 12 warps for each of four parts
        (256, 128, 0, 16),
        (256, 255, 0, 8),
        (1024, 64, 0, 32),
        (1024, 65, 0, 0),  # 28 warps have registers, and a block is 32
        (32, 32, 0, 32),  # 32 blocks
        (256, 32, 100 * 1024, 16),
        (256, 32, 113 * 1024, 16),
        (256, 32, 114 * 1024, 8),  # each block takes 1 KB more of the 228 KB
        (256, 32, 228 * 1024, 0),
        (96, 32, 0, 63),
    ],
)
def test_warps_on_a_multiprocessor(threads, registers, shared, warps):
    assert warps_resident(architecture("sm_90"), threads, registers, shared) == warps


def test_an_architecture_with_its_own_instructions():
    assert architecture("sm_90a").device == architecture("sm_90").device
    assert architecture("sm_90a").name == "sm_90a"
    with pytest.raises(UnknownName, match="unknown arch 'sm_91': did you mean sm_90"):
        architecture("sm_91")


def test_measured_limits_replace_documented_ones():
    gpu = {"compute_capability": "9.0", "multiprocessors": 100, "name": "a card"}
    ceilings = {"copy": 4.0e12, "exp2": 15.0 * 100 * 1.98e9, "fma": 250.0 * 100 * 1.98e9, "wide multiply": 1.98e11 * 40}
    arch = measured(architecture("sm_90"), ceilings, gpu, "run.json")
    assert (arch.bandwidth, arch.device, arch.source) == (4.0e12, "a card", "rates measured in run.json")
    assert arch.rates["mufu"] == pytest.approx(15)
    assert arch.rates["fma"] == pytest.approx(125)
    assert arch.wide_products == pytest.approx(40)
    with pytest.raises(UnknownName, match="sm_90, not on sm_80"):
        measured(architecture("sm_80"), ceilings, gpu, "run.json")


# ---- the command


@pytest.fixture
def command(monkeypatch, capfd):
    """Run `inspect` on implementations of the kernels above; return exit status, output and JSON."""

    class Registry:
        problems = loaded = ()

        def __init__(self, implementations):
            self.implementations = implementations

        def select(self, operations, implementations):
            return [(None, self.implementations)]

    def run(*kernels, arguments=("--json", "-"), **fields):
        found(variant("honest"))
        given = [
            implementation("ours", backend="cupy", variants=lambda: [variant(each, **fields) for each in kernels]),
            implementation("torch"),
        ]
        monkeypatch.setattr(cli_inspect, "read_catalogue", lambda device: Registry(given))
        monkeypatch.setattr(cli_inspect._Compiler, "reports", lambda self, *of: cli_inspect.reports_on(*of))
        monkeypatch.setenv("TRITON_INTERPRET", "1")  # so that pytest restores it afterwards
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as exit_:
            cli.main(["inspect", *arguments])
        captured = capfd.readouterr()
        return exit_.value.code, captured.err, json.loads(captured.out) if "-" in arguments else captured.out

    return run


def test_the_command_reports_each_kernel(command):
    status, words, written = command("honest", arguments=("--arch", "sm_80", "--arch", "sm_90", "--json", "-"))
    assert status == 0
    assert "2 kernels compiled: no spills, and accesses as wide as promised." in words
    assert "a prediction from documented rates" in " ".join(words.split())
    assert "no kernels to inspect: double torch" in words
    assert max(map(len, words.splitlines())) <= 80
    assert written["status"] == "complete"
    assert [each["arch"] for each in written["records"]] == ["sm_80", "sm_90"]
    for record in written["records"]:
        assert record.keys() >= {"operation", "implementation", "backend", "case", "plugin", "status", "message"}
        assert (record["case"], record["status"]) == ("honest", "passed")


@pytest.mark.parametrize(
    ("kernel", "fault"),
    [("scalar", "narrow: double ours, sm_90, scalar: only 0 of"), ("spills", "spills: double ours")],
)
def test_the_command_fails_where_a_kernel_does(command, kernel, fault):
    status, words, written = command("honest", kernel)
    assert status == 1
    assert max(map(len, words.splitlines())) <= 80
    words = " ".join(words.split())
    assert fault in words
    assert "1 of 2 kernels" in words
    assert [each["status"] for each in written["records"]] == ["passed", fault.split(":")[0]]


def test_a_long_name_has_a_line_of_its_own(command):
    name = "a kernel with a name of more than thirty-four characters"
    _, words, _ = command("honest", name=name)
    lines = words.splitlines()
    assert name in lines
    assert "memory" in lines[lines.index(name) + 1]
    assert lines[lines.index(name) + 1].startswith(" " * 34)
    assert max(map(len, lines)) <= 80


def test_an_error_in_variants_is_reported(command):
    status, words, written = command("honest", nonsense=1)
    assert status == 1
    assert "TypeError" in words
    assert written["records"][0]["status"] == "error"


def test_a_wrong_type_of_variant_is_reported():
    one = implementation("ours", variants=lambda: ["a word"])
    (finding,) = cli_inspect.reports_on(one, architecture("sm_90"))
    assert finding.status == "error"
    assert "AttributeError" in finding.message


def test_an_unknown_architecture_names_the_argument(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["inspect", "--arch", "sm_12"])
    assert exit_.value.code == 2
    assert "unknown arch 'sm_12'" in capsys.readouterr().err


def test_missing_tools_are_reported_with_the_way_to_install_them(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sass_tools.importlib.util, "find_spec", lambda name: None)
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as exit_:
        cli.main(["inspect"])
    assert exit_.value.code == 2
    assert "nvdisasm was not found: it comes with Triton (pip install triton)" in capsys.readouterr().err


def test_tools_of_the_toolkit_are_found(monkeypatch, tmp_path):
    program = tmp_path / "bin" / "nvdisasm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sass_tools.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert tool("nvdisasm") == program


def test_limits_of_a_run_without_a_gpu_are_refused(capsys, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(run_to_json(Run(SCHEMA, "complete", {"gpu": None}, ())))
    with pytest.raises(SystemExit) as exit_:
        cli.main(["inspect", "--limits", str(path)])
    assert exit_.value.code == 2
    assert "limits" in capsys.readouterr().err
