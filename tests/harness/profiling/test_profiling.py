"""`bench --profile` with stand-ins for the profilers: command lines, reports, the join with inspect's prediction."""

import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from boltzbench.harness import Status, Unsupported
from boltzbench.harness.api.messages import UsageError
from boltzbench.harness.api.operations import Agreement
from boltzbench.harness.cli import app as cli
from boltzbench.harness.discovery.registry import OtherSizes, Registry
from boltzbench.harness.execution.plan import Step
from boltzbench.harness.execution.sanitizer import UNSUPPORTED
from boltzbench.harness.execution.trial import record_of
from boltzbench.harness.profiling import launch, tools
from boltzbench.harness.profiling.counters import (
    METRICS,
    Kernel,
    Unreadable,
    of_nsight_compute,
    of_nsight_systems,
    of_proton,
    of_torch,
)
from boltzbench.harness.profiling.prediction import expectation, prediction
from boltzbench.harness.profiling.table import Profiled, as_json, table
from boltzbench.harness.report.terminal import plain_console
from support.fakes import case, implementation, operation

HEAD = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device",'
    '"CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)


def line(number, kernel, metric, unit, value):
    return (
        f'"{number}","4711","python3.11","127.0.0.1","{kernel}","1","7","(256, 1, 1)","(5, 20, 1)","0","9.0",'
        f'"Command line profiler metrics","{metric}","{unit}","{value}"'
    )


NCU = "\n".join(
    [
        "==PROF== Connected to process 4711 (/usr/bin/python3.11)",
        '==PROF== Profiling "rows" - 0: 0%....50%....100% - 8 passes',
        HEAD,
        line(0, "rows", "dram__bytes_read.sum", "byte", "53,261,312"),
        line(0, "rows", "dram__bytes_write.sum", "byte", "3,377,920"),
        line(0, "rows", "dram__throughput.avg.pct_of_peak_sustained_elapsed", "%", "82.50"),
        line(0, "rows", "gpu__time_duration.sum", "ns", "10,196"),
        line(0, "rows", "launch__registers_per_thread", "register/thread", "40"),
        line(0, "rows", "sm__throughput.avg.pct_of_peak_sustained_elapsed", "%", "n/a"),
        line(0, "rows", "sm__warps_active.avg.pct_of_peak_sustained_active", "%", "71.3"),
        line(1, "rows", "gpu__time_duration.sum", "usecond", "12.196"),
        line(2, "combine", "gpu__time_duration.sum", "nsecond", "2,000"),
        line(2, "combine", "dram__bytes_read.sum", "Kbyte", "1.5"),
        "==PROF== Disconnected from process 4711",
    ]
)


def test_nsight_computes_csv_is_read_in_seconds_bytes_and_shares():
    rows, combine = of_nsight_compute(NCU)
    assert (rows.name, rows.launches) == ("rows", 2)
    assert rows.seconds == pytest.approx((10.196e-6 + 12.196e-6) / 2)
    assert (rows.bytes_read, rows.bytes_written) == (53_261_312, 3_377_920)
    assert (rows.memory_share, rows.occupancy) == (pytest.approx(0.825), pytest.approx(0.713))
    assert (rows.compute_share, rows.registers) == (None, 40)
    assert combine == Kernel("combine", 1, seconds=pytest.approx(2e-6), bytes_read=pytest.approx(1500))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("==PROF== nothing\n", "ncu reported no kernel: the launch has none, or the process failed"),
        (
            "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access GPU counters.",
            "no kernel: ERR_NVGPUCTRPERM - The user does not have permission to access GPU counters.; run as root",
        ),
        ('"ID","Kernel Name"\n"0","rows"\n', "ncu's report has no column 'Metric Name'"),
        (f"{HEAD}\n{line(0, 'rows', 'gpu__time_duration.sum', 'fortnight', '1')}", "a unit that is not known here"),
    ],
)
def test_a_report_of_ncu_without_kernels_says_why(text, words):
    with pytest.raises(Unreadable) as caught:
        of_nsight_compute(text)
    assert words in str(caught.value)


def test_nsight_systems_csv_is_read():
    text = (
        "Generating SQLite file /tmp/a.sqlite\nProcessing [/tmp/a.sqlite] with [cuda_gpu_kern_sum.py]...\n\n"
        "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n"
        '90.0,100000,10,10000.0,9900.0,9800,12000,300.1,"rows, of many"\n10.0,11000,10,1100.0,1,1,2,0.0,combine\n'
    )
    assert of_nsight_systems(text) == [
        Kernel("rows, of many", 10, pytest.approx(1e-5)), Kernel("combine", 10, pytest.approx(1.1e-6))
    ]  # fmt: skip
    with pytest.raises(Unreadable, match="nsys reported no kernel"):
        of_nsight_systems("SKIPPED: a.sqlite does not contain CUDA kernel data.")


def leaf(name, nanoseconds, count):
    return {
        "frame": {"name": name, "type": "function"},
        "metrics": {"time (ns)": nanoseconds, "count": count},
        "children": [],
    }


def test_protons_tree_is_read():
    scope = {"frame": {"name": "logsumexp"}, "metrics": {}, "children": [leaf("rows", 5000, 10), leaf("rows", 1000, 2)]}
    tree = [
        {"frame": {"name": "ROOT"}, "metrics": {"time (ns)": 0}, "children": [scope]},
        {"CUDA": {"0": {"arch": "90"}}},
    ]
    assert of_proton(json.dumps(tree)) == [Kernel("rows", 12, pytest.approx(5e-7))]
    for text, words in (("[]", "no kernel"), ("{", "cannot be read"), ("[1]", "cannot be read")):
        with pytest.raises(Unreadable, match=words):
            of_proton(text)


def test_the_trace_of_torch_is_read():
    def event(name, microseconds, registers, cat="kernel"):
        return {"ph": "X", "cat": cat, "name": name, "dur": microseconds, "args": {"registers per thread": registers}}

    events = [event("rows", 5, 40), event("rows", 7, 40), event("rows", 9, 64), event("memcpy", 1, None, "gpu_memcpy")]
    assert of_torch(json.dumps({"traceEvents": [*events, {"ph": "M"}]})) == [
        Kernel("rows", 2, pytest.approx(6e-6), registers=40), Kernel("rows", 1, pytest.approx(9e-6), registers=64)
    ]  # fmt: skip
    for text, words in (('{"traceEvents": []}', "no kernel"), ("{", "cannot be read"), ("[]", "cannot be read")):
        with pytest.raises(Unreadable, match=words):
            of_torch(text)


REPORTS = [
    {"symbol": "rows", "registers": 40, "limit": "memory", "memory_share": 1.0},
    {"symbol": "rows", "registers": 64, "limit": "fp64", "memory_share": 0.31},
    {"symbol": "tiles", "registers": 40, "limit": "matrix", "memory_share": None},
]


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (Kernel("rows", 1, registers=40), "memory, 100%"),
        (Kernel("rows", 1, registers=64), "fp64, 31%"),
        (Kernel("rows", 1), "memory/fp64, 31..100%"),
        (Kernel("rows", 1, registers=41), "memory/fp64, 31..100%"),
        (Kernel("tiles", 1), "matrix"),
        (Kernel("of torch", 1, registers=40), "-"),
    ],
)
def test_counters_stand_beside_the_prediction_for_the_kernel_that_ran(kernel, words):
    assert prediction(kernel, REPORTS) == words


def guess(case, rate, registers=40, symbol="_Z4rowsIfEvi", unit="rows"):
    rates = {"rate": rate, "low": 0.8 * rate, "high": 1.25 * rate, "decides": "memory"}
    return {"symbol": symbol, "registers": registers, "case": case, "unit": unit, "device": "L4", "prediction": rates}


def test_the_expected_rate_covers_every_variant_that_may_have_run():
    reports = [guess("a", 1e9), guess("b", 4e9), guess("c", 9e9, registers=64)]
    known = {"device": "L4", "unit": "rows", "decides": "memory"}
    for name in ("_Z4rowsIfEvi", "void rows<float>(int)"):  # as ncu names it, and as torch.profiler does
        found = expectation(Kernel(name, 1, registers=64), reports)
        assert found == {"kernel": "c", "rate": 9e9, "low": 0.8 * 9e9, "high": 1.25 * 9e9, **known}
    either = expectation(Kernel("_Z4rowsIfEvi", 1, registers=40), reports)
    assert either == {"kernel": "a or b", "rate": pytest.approx(2e9), "low": 0.8e9, "high": 5e9, **known}
    assert expectation(Kernel("_Z4rowsIdEvi", 1, registers=40), reports) is None
    assert expectation(Kernel("_Z4rowsIfEvi", 1), [guess("a", 1e9), guess("b", 1e9, unit="links")]) is None
    assert expectation(Kernel("rows", 1), [{"symbol": "rows", "registers": 1, "prediction": None}]) is None


ONE = operation()
STEP = Step(ONE, implementation("triton", backend="triton"), case(64, purpose="bench"), 3)
RECORD = record_of(STEP, Agreement(Status.PASSED))


def test_the_table_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows, _ = of_nsight_compute(NCU)
    found = [Profiled(RECORD, (rows, Kernel("of torch", 1, 0.0))), Profiled(RECORD, (), "ncu took longer than 5 s")]
    reports = {("double", "triton"): REPORTS}
    plain_console().print(table(found, reports))
    out = capsys.readouterr().out
    assert "         2   11.2 µs   53.3 MB   3.38 MB   82%    -   71%   40  memory, 100%" in out
    assert "ncu took longer than 5 s" in out
    assert max(map(len, out.splitlines())) <= 80
    first, second = as_json(found, reports)
    assert first["kernels"][0]["bytes_read"] == 53_261_312
    assert first["kernels"][0]["predicted"] == "memory, 100%"
    assert second["message"] == "ncu took longer than 5 s"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program on PATH that notes its arguments and variables, and writes ``text`` where ncu or nsys would."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_HOME", raising=False)

    def write(name, text, status=0):
        (tmp_path / "text").write_text(text)
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "$LC_ALL $BOLTZBENCH_PLUGINS $@" >> {tmp_path}/calls\n'
            'while [ $# -gt 0 ]; do [ "$1" = --log-file ] && log="$2"; shift; done\n'
            f'cat {tmp_path}/text > "${{log:-/dev/stdout}}"\nexit {status}\n'
        )
        (tmp_path / name).chmod(0o755)

    return write


REGISTRY = Registry({"double": ONE}, (STEP.implementation,), (), other_sizes=OtherSizes(({"n": 64},), purpose="bench"))


def test_ncu_is_called_with_the_launches_marked_and_its_report_is_read(stand_in, tmp_path):
    stand_in("ncu", NCU)
    kernels = tools.profile("ncu", STEP, torch.device("cuda", 0), REGISTRY, 10.0)
    assert [each.name for each in kernels] == ["rows", "combine"]
    numbers, *arguments = shlex.split((tmp_path / "calls").read_text().replace('"', '\\"'))
    assert numbers == "C", "a decimal point"
    assert arguments[:2] == ["--csv", "--log-file"]
    assert arguments[3:9] == [
        "--print-units", "base", "--print-kernel-base", "mangled", "--profile-from-start", "off"
    ]  # fmt: skip
    assert arguments[9:11] == ["--metrics", ",".join(METRICS)]
    assert arguments[11:14] == [sys.executable, "-m", "boltzbench.harness.profiling.launch"]
    wanted = json.loads(" ".join(arguments[14:]))
    assert wanted["other_sizes"]["sizes"] == [{"n": 64}]
    assert (wanted["operation"], wanted["implementation"], wanted["label"]) == ("double", "triton", "n=64 float32")
    assert (wanted["device"], wanted["seed"], wanted["report"]) == ("cuda:0", 3, arguments[2])


def test_nsys_captures_from_the_marks_on_and_its_statistics_are_read(stand_in, tmp_path):
    stand_in("nsys", "Time (%),Total Time (ns),Instances,Avg (ns),Name\n100.0,500,5,100.0,rows\n")
    kernels = tools.profile("nsys", STEP, torch.device("cuda", 0), REGISTRY, 10.0)
    assert kernels == [Kernel("rows", 5, pytest.approx(1e-7))]
    profiled, statistics = (tmp_path / "calls").read_text().splitlines()
    assert "profile --capture-range=cudaProfilerApi --capture-range-end=stop --trace=cuda,nvtx" in profiled
    assert "stats --quiet --report cuda_gpu_kern_sum:mangled --format csv --force-export=true" in statistics
    assert statistics.endswith(".nsys-rep")


@pytest.mark.parametrize(
    ("status", "words"),
    [(1, "ncu ended with status 1: it printed nothing"), (UNSUPPORTED, "the implementation refuses the case")],
)
def test_a_profiler_that_fails_says_so(stand_in, status, words):
    stand_in("ncu", NCU, status)
    with pytest.raises(Unreadable, match=words):
        tools.profile("ncu", STEP, torch.device("cuda", 0), REGISTRY, 10.0)


def test_a_profiler_that_takes_too_long_is_killed_with_its_children(stand_in, tmp_path):
    stand_in("ncu", NCU)
    (tmp_path / "ncu").write_text(f"#!/bin/sh\nsh -c 'echo $$ > {tmp_path}/child; exec sleep 60' &\nwait\n")
    with pytest.raises(Unreadable, match="ncu took longer than 1 s"):
        tools.profile("ncu", STEP, torch.device("cuda", 0), REGISTRY, 1.0)
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "cmdline")
    end = time.monotonic() + 20
    while child.exists() and child.read_bytes():  # an ended process has no command line until it is waited for
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.01)


def test_output_that_is_no_text_is_quoted_with_marks(stand_in, tmp_path):
    stand_in("ncu", NCU)
    (tmp_path / "ncu").write_text("#!/bin/sh\nprintf 'caf\\351'; exit 1\n")
    with pytest.raises(Unreadable, match="ncu ended with status 1: caf\ufffd"):
        tools.profile("ncu", STEP, torch.device("cuda", 0), REGISTRY, 20.0)


@pytest.mark.parametrize(
    ("profiler", "device", "words"),
    [
        ("ncu", "cpu", "--profile ncu needs a GPU, and the device is cpu"),
        ("ncu", "cuda:0", "ncu was not found: install Nsight Compute"),
        ("nsys", "cuda:0", "nsys was not found: install Nsight Systems"),
    ],
)
def test_a_missing_tool_or_gpu_is_one_sentence(monkeypatch, profiler, device, words):
    monkeypatch.setattr(tools, "toolkit_path", lambda: "/nowhere")
    with pytest.raises(UsageError) as caught:
        tools.require_profiler(profiler, torch.device(device))
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(("name", "words"), [("ncu", "needs a GPU"), ("nuc", "unknown profiler 'nuc': did you mean")])
def test_the_command_without_a_gpu(capfd, name, words):
    with pytest.raises(SystemExit) as caught:
        cli.main(["bench", "--device", "cpu", "--profile", name])
    out, err = capfd.readouterr()
    assert (caught.value.code, out, words in err, err.count("\n")) == (2, "", True, 1)


class Marks:
    """Stands for torch.cuda.profiler, torch.cuda.nvtx and Proton: notes what is called, and the launches between."""

    def __init__(self):
        self.seen = []

    def __getattr__(self, name):
        return lambda *arguments, **named: self.seen.append(name) or self

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        pass


@pytest.mark.parametrize(
    ("profiler", "seen"),
    [
        ("ncu", [*["launch"] * 3, "start", "range_push", "launch", "range_pop", "stop"]),
        ("nsys", [*["launch"] * 3, "start", "range_push", *["launch"] * 10, "range_pop", "stop"]),
        ("proton", [*["launch"] * 3, "start", "scope", *["launch"] * 10, "finalize"]),
        ("torch", [*["launch"] * 3, "profile", *["launch"] * 10, "export_chrome_trace"]),
    ],
)
def test_only_launches_after_the_warm_up_are_marked(monkeypatch, profiler, seen):
    marks = Marks()
    kernel = implementation("triton", prepare=lambda inputs, outputs: lambda: marks.seen.append("launch"))
    registry = Registry({"double": ONE}, (kernel,), ())
    monkeypatch.setattr(launch, "load_registry", lambda: registry)
    monkeypatch.setattr(launch, "prepare_to_run_kernels", lambda device: None)
    monkeypatch.setattr(torch.cuda, "profiler", marks)
    monkeypatch.setattr(torch.cuda, "nvtx", marks)
    monkeypatch.setattr(torch.profiler, "profile", marks.profile)
    monkeypatch.setitem(sys.modules, "triton.profiler", marks)
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(profiler=marks))
    step = replace(STEP, subject=case(11, purpose="bench"))
    other = replace(REGISTRY, other_sizes=OtherSizes(({"n": 11},), purpose="bench"))
    assert launch.main(tools.request(profiler, step, torch.device("cpu"), other, "report")) == 0
    assert marks.seen == seen


def test_a_case_that_an_implementation_refuses_is_told_from_a_failure(monkeypatch, capsys):
    def prepare(inputs, outputs):
        raise Unsupported("rows are too long")

    registry = Registry({"double": ONE}, (implementation("triton", prepare=prepare),), ())
    monkeypatch.setattr(launch, "load_registry", lambda: registry)
    monkeypatch.setattr(launch, "prepare_to_run_kernels", lambda device: None)
    plain = replace(REGISTRY, other_sizes=None)
    assert launch.main(tools.request("ncu", STEP, torch.device("cpu"), plain, "report")) == UNSUPPORTED
    assert capsys.readouterr().out == "rows are too long\n"
