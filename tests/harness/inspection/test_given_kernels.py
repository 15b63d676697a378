"""`inspect` for kernels that are not the suite's: files of each kind, what is wrong with them, comparison and gate."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from boltzbench.harness.cli import app as cli
from boltzbench.harness.inspection import inputs
from boltzbench.harness.inspection.gate import differences, verdict
from boltzbench.harness.inspection.inputs import KernelInputError, Said
from boltzbench.harness.inspection.tools import ToolMissing, tools

PTX = """.version 7.8
.target sm_80
.address_size 64
.visible .entry scale(.param .u64 y, .param .f32 a)
{
    .reg .b32 %r<4>; .reg .b64 %d<4>; .reg .f32 %f<20>;
    ld.param.u64 %d0, [y]; ld.param.f32 %f0, [a];
    mov.u32 %r0, %tid.x; mul.wide.u32 %d1, %r0, 16; add.s64 %d2, %d0, %d1;
    ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%d2];
    mul.f32 %f1, %f1, %f0; mul.f32 %f2, %f2, %f0; mul.f32 %f3, %f3, %f0; mul.f32 %f4, %f4, %f0;
EXTRA
    st.global.v4.f32 [%d2], {%f1, %f2, %f3, %f4};
    ret;
}
"""
SLOWER = "    sin.approx.f32 %f1, %f1; sin.approx.f32 %f2, %f2; sin.approx.f32 %f3, %f3; sin.approx.f32 %f4, %f4;"
SCALE = ("--kernel", "scale", "--threads", "256", "--items", "4", "--bytes-per-item", "8")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `inspect` in a folder with scale.ptx; return exit status, standard output and standard error."""
    try:
        tools("ptxas"), tools("nvdisasm"), tools("cuobjdump")
    except ToolMissing as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # so that pytest restores it afterwards
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "scale.ptx").write_text(PTX.replace("EXTRA", ""))
    (tmp_path / "slower.ptx").write_text(PTX.replace("EXTRA", SLOWER))

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["inspect", *arguments])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


def cubin(name="scale", arch="sm_80"):
    subprocess.run([tools("ptxas")[0], f"-arch={arch}", f"{name}.ptx", "-o", f"{name}.cubin"], check=True)
    return f"{name}.cubin"


def test_ptx_and_its_cubin_say_the_same(command):
    status, by_ptx, _ = command("--ptx", "scale.ptx", *SCALE)
    assert status == 0
    assert max(map(len, by_ptx.splitlines())) <= 80
    assert "given scale, sm_80" in by_ptx
    assert "16/16" in by_ptx
    assert "items/s (" in by_ptx
    assert "limited by memory. Helps most:" in " ".join(by_ptx.split())
    assert command("--cubin", cubin(), *SCALE)[1] == by_ptx


def test_another_device_of_the_architecture(command):
    _, out, _ = command("--ptx", "scale.ptx", *SCALE, "--device", "A100 SXM 40", "--json", "a.json")
    assert "A100 SXM 40 GB" in " ".join(out.split())
    small = json.loads(Path("a.json").read_text())["records"][0]["prediction"]
    command("--ptx", "scale.ptx", *SCALE, "--json", "b.json")
    large = json.loads(Path("b.json").read_text())["records"][0]["prediction"]
    assert large["rate"] / small["rate"] == pytest.approx(2.039 / 1.555, rel=0.15)


def test_without_threads_and_items_it_says_what_it_can(command):
    status, out, _ = command("--ptx", "scale.ptx")
    assert status == 0
    assert "12 per pass: memory 2, fma 5" in out
    assert "limited by" not in out
    assert "not given: --threads, --items; without --threads there is no expected rate" in " ".join(out.split())


def test_a_slower_kernel_fails_the_gate(command):
    command("--ptx", "scale.ptx", *SCALE, "--json", "base.json")
    status, out, _ = command("--ptx", "scale.ptx", *SCALE, "--against", "base.json")
    assert (status, "1 kernel compared: nothing worse by more than 5%." in out) == (0, True)
    for base in ("base.json", "scale.ptx"):
        status, out, _ = command("--ptx", "slower.ptx", *SCALE, "--against", base)
        assert status == 1
        assert max(map(len, out.splitlines())) <= 80
        assert "worse: given scale, sm_80, scale: instructions per item" in out
        assert "mufu" in out
    assert command("--ptx", "slower.ptx", *SCALE, "--against", "base.json", "--fail-over", "300%")[0] == 0


def record(**fields):
    fields = {"rate": 100.0, **fields}
    prediction = {"rate": fields.pop("rate"), "decides": "issue"}
    common = {"status": "passed", "unit": "items", "items": 4, "registers": 32, "stack_bytes": 0, "local_accesses": 0}
    return {
        **common,
        "mix": {"fma": 8},
        "loads": {"16": 1},
        "stores": {},
        "warps": 64,
        "prediction": prediction,
        **fields,
    }


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"mix": {"fma": 9}}, "instructions per item"),
        ({"registers": 36}, "registers"),
        ({"stack_bytes": 8}, "spilled bytes"),
        ({"local_accesses": 1}, "spilled bytes"),
        ({"rate": 90.0}, "expected items/s"),
        ({"status": "error"}, "status"),
    ],
)
def test_what_makes_a_kernel_worse(fields, what):
    assert [each.what for each in differences(record(), record(**fields)) if each.fails(0.05)] == [what]
    assert not any(each.fails(0.0) for each in differences(record(**fields), record()))


def test_a_difference_within_the_error_is_said_to_be_so():
    assert verdict(record(), record(rate=101.0)) == "The model expects the same rate of both, within 2 %."
    assert verdict(record(), record(rate=110.0)).endswith("which is within its error of a single kernel.")
    assert verdict(record(), record(rate=200.0)) == "The model expects 2.00 times the rate of the base."


BAD = """.version 7.8
.target sm_80
.address_size 64
.visible .entry bad() { nonsense.f32 %f0; ret; }
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cubin", "missing.cubin"], "--cubin missing.cubin: No such file or directory"),
        (["--cubin", "scale.ptx"], "--cubin scale.ptx: this is no cubin"),
        (["--cubin", sys.executable], "this is no cubin"),
        (["--cubin", "cut.cubin"], "--cubin cut.cubin: the machine code cannot be read: "),
        (
            ["--cubin", "scale.cubin", "--arch", "sm_90"],
            "--cubin scale.cubin: it was compiled for sm_80, not for sm_90",
        ),
        (["--cubin", "scale.cubin", "--device", "H100"], "it was compiled for sm_80, not for sm_90"),
        (["--cubin", "scale.cubin", "--kernel", "nought"], "no kernel is named nought; it has scale"),
        (["--ptx", "bad.ptx"], "--ptx bad.ptx: ptxas refuses it for sm_80: "),
        (["--ptx", "scale.cubin"], "--ptx scale.cubin: this is no PTX"),
        (["--ptx", "scale.ptx", "--device", "H2000"], "unknown device 'H2000'"),
        (["--ptx", "scale.ptx", "--device", "H100", "--arch", "sm_90"], "--device says the architecture"),
        (["--ptx", "scale.ptx", "--cubin", "scale.cubin"], "--cubin and --ptx name one kernel each"),
        (["--ptx", "scale.ptx", "-o", "sgld"], "--ptx is inspected alone: leave out -o, -i and --case"),
        (["--ptx", "scale.ptx", "--bytes-per-item", "8"], "--bytes-per-item needs --items"),
        (["--threads", "256"], "give --cubin, --ptx, --cuda or --triton"),
        (["--ptx", "scale.ptx", "--signature", "x=i32"], "--signature belongs to --triton"),
        (["--ptx", "scale.ptx", "--against", "a.txt"], "--against a.txt: give a .json, .cubin, .ptx or .cu file"),
        (["--ptx", "scale.ptx", "--against", "none.json"], "--against none.json: No such file or directory"),
        (
            ["--ptx", "scale.ptx", "--against", "wrong.json"],
            "--against wrong.json: this is no JSON that `inspect` wrote",
        ),
        (["--ptx", "scale.ptx", "--against", "bad.ptx"], "--against: --ptx bad.ptx: ptxas refuses it for sm_80"),
        (["--ptx", "scale.ptx", "--fail-over", "much"], "--fail-over takes a percentage"),
        (["--cuda", "scale.cu"], "--cuda scale.cu: No such file or directory"),
        (["--triton", "nowhere:k"], "--triton nowhere:k: cannot import nowhere: ModuleNotFoundError"),
        (["--triton", "nowhere"], "--triton nowhere: write package.module:function or file.py:function"),
        (["--triton", "json:dumps"], "--triton json:dumps: json has no triton.jit function dumps"),
    ],
)
def test_bad_input_gets_a_sentence(command, tmp_path, arguments, words):
    whole = (tmp_path / cubin()).read_bytes()
    (tmp_path / "cut.cubin").write_bytes(whole[:900])
    (tmp_path / "bad.ptx").write_text(BAD)
    (tmp_path / "wrong.json").write_text('{"records": [{"status": "passed"}]}')
    status, _, complaint = command(*arguments)
    assert status == 2
    assert words in complaint
    assert len(complaint.splitlines()) == 1


def test_a_cuda_file_and_its_errors(command, tmp_path):
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"NVRTC cannot be loaded: {error}")
    (tmp_path / "add.cu").write_text("template <class T> __global__ void add(T* y) { y[threadIdx.x] += T(1); }\n")
    status, out, _ = command("--cuda", "add.cu", "--kernel", "add<float>", "--threads", "256", "--arch", "sm_89")
    assert status == 0
    assert "given add<float>, sm_89" in out
    assert "name the kernel: --kernel add" in command("--cuda", "add.cu")[2]
    status, _, words = command("--cuda", "add.cu", "--kernel", "sub<float>")
    assert (status, "--cuda add.cu: NVRTC refuses 'sub<float>' for sm_90: " in words) == (2, True)


TRITON = """
import triton
import triton.language as tl

@triton.jit
def twice(x, y, n, BLOCK: tl.constexpr):
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + k, 2 * tl.load(x + k, k < n), k < n)
"""


def test_a_triton_function(tmp_path):
    pytest.importorskip("triton")
    (tmp_path / "mine.py").write_text(TRITON)
    signature = "x=*fp32:16, y=*fp32:16, n=i32:16, BLOCK=512"
    where = ["--triton", f"{tmp_path / 'mine.py'}:twice", "--signature", signature, "--items", "4"]
    command = [sys.executable, "-m", "boltzbench.harness", "inspect", *where, "--bytes-per-item", "8"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "80"})
    assert run.returncode == 0, run.stderr
    assert "given twice, sm_90" in run.stdout
    assert "100% 16/16" in run.stdout
    assert "expected 4" in run.stdout


def test_a_wrong_signature_names_its_parameters(monkeypatch):
    function = SimpleNamespace(arg_names=["x", "y", "n", "BLOCK"])  # Triton stays out of this process
    monkeypatch.setattr(inputs, "_triton_function", lambda where, place: function)
    with pytest.raises(
        KernelInputError, match=r"--signature lacks BLOCK, n and has unknown z; write .* \(x, y, n, BLOCK"
    ):
        inputs.from_triton("mine.py:twice", "x=*fp32,y=*fp32,z=1", Said(), "sm_90")
