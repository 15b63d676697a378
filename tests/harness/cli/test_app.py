import functools
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from boltzbench.harness.cli import app as cli
from boltzbench.harness.cli import progress, run_trials
from boltzbench.harness.cli.progress import Display
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE, Registry
from boltzbench.harness.execution import process, serving, session, trial, worker
from boltzbench.harness.execution.catalogue import read_catalogue
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.execution.trial import Block
from boltzbench.harness.results.file import SCHEMA, read_run
from boltzbench.harness.timing import quiet
from boltzbench.harness.timing.quiet import taking_turns
from rich.console import Console
from support import ROOT, TESTS
from support.fakes import Here, Stopwatch, case, implementation, install, operation

SOUND = """
    @hookimpl
    def register_operations(register):
        register(fakes.operation("double", laws=(fakes.law(),), automatic=lambda device: "quill: no wand"))
        register(fakes.operation("lonely", automatic=lambda device: 1 / 0))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("torch"))
        register(fakes.implementation("triton", backend="triton"))
        register(fakes.implementation("gone", unavailable=lambda device: "needs a wand"))
    """

WRONG = """
    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("wrong", factor=2.1))
    """

INTERRUPTING = """
    @hookimpl
    def register_implementations(register):
        register(fakes.interrupting())
    """

HANGING = """
    import ctypes

    def prepare(inputs, outputs):
        return lambda: ctypes.CDLL(None).sleep(1000)

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("hanging", prepare=prepare))
    """

NOISY = """
    import os, sys, ctypes
    print("imported")

    def prepare(inputs, outputs):
        print("python")
        os.write(1, b"descriptor")
        os.system("echo child")
        ctypes.CDLL(None).puts(b"C library")
        def launch():
            outputs["y"].copy_(2 * inputs["x"])
            return outputs
        return launch

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("noisy", prepare=prepare))
    """


SUITE = os.environ[PLUGINS_VARIABLE]
"""The plugins of boltzbench, as `tests/conftest.py` names them."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory with plugins installed; the environment selects those in use."""
    install(
        tmp_path,
        {
            "sound": SOUND,
            "wrong": WRONG,
            "interrupting": INTERRUPTING,
            "broken": "import no_such_module",
            "hanging": HANGING,
            "noisy": NOISY,
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quiet, "cache_folder", lambda: tmp_path)  # no test waits for another
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # so that pytest undoes what main does to it
    use(monkeypatch, "sound")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("fake_samplers_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(trial, "Stopwatch", Stopwatch)
    monkeypatch.setattr(worker, "Workers", Here)


def use(monkeypatch, *plugins):
    monkeypatch.setenv(PLUGINS_VARIABLE, ",".join(plugins))


@pytest.fixture
def run(capfd):
    def run(*arguments):
        """The exit status of the command, and what it wrote to standard output and standard error."""
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        return caught.value.code, *capfd.readouterr()

    return run


def in_a_process(folder, *arguments, code="from boltzbench.harness.cli.app import main; main()", **environment):
    paths = os.pathsep.join([str(folder), str(TESTS)])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("arguments", [("--help",), ("validate", "--help")])
def test_a_flag_has_no_type_in_its_help(run, arguments):
    status, out, _ = run(*arguments)
    assert (status, "--help" in out, "bool" in out.lower()) == (0, True, False)


def test_help_folds_where_the_terminal_ends(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    help_of_history = run("history", "--help")[1]
    assert "if a case fails that passed before, or if a results file could not be used." in help_of_history
    assert "where the steps are. Exit" not in help_of_history, "paragraphs stay apart"


def test_version(run):
    assert run("--version") == (0, "boltzbench 0.1.0\n", "")


@pytest.mark.parametrize("command", ["list", "check", "bench"])
def test_help(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert "--json" in out


def test_list(run):
    status, out, _ = run("list")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["double", "2/3", "Twice", "the", "input."] in lines
    assert ["lonely", "0/0", "Twice", "the", "input."] in lines
    assert "1 plugin of fake-samplers 1.2: sound" in out
    if not torch.cuda.is_available():
        assert "Nothing runs on cuda here: " in out
        assert max(map(len, out.splitlines())) <= 80
    assert len(lines) < 12


def test_list_says_all_about_an_operation(run):
    status, out, _ = run("list", "-o", "double", "-o", "lonely")
    assert status == 0
    for words in (
        "y = 2 x",
        "plugin: sound (fake-samplers 1.2)",
        "not on cpu: gone: needs a wand",
        "no implementation is installed",
        ": quill: no wand",
        "automatic() raised ZeroDivisionError: division by zero",
    ):
        assert words in out
    lines = [line.split() for line in out.splitlines()]
    assert lines.count(["x", "float32", "(n)"]) == lines.count(["y", "float32", "(n)"]) == 2
    assert ["doubles", "one", "Twice", "one", "is", "two."] in lines
    assert ["n", "3,", "7,", "32,", "64,", "128"] in lines
    assert ["outliers", "1", "float32"] in lines
    if not torch.cuda.is_available():
        assert "not on cuda: gone, torch, triton: " in out.replace("\n", " ")


def test_list_of_some_things_says_nothing_of_others(run, monkeypatch, folder):
    install(folder, {"dice": EXPERIMENT}, "fake-dice")
    use(monkeypatch, "sound", "dice", "broken")
    status, out, _ = run("list", "-e", "dice")
    assert status == 0
    assert "Do dice show three and a half?" in out
    assert "run it: boltzbench validate -e dice" in out
    assert "double" not in out
    assert "broken" not in out
    _, out, _ = run("list", "-e", "dice", "--json", "-")
    found = json.loads(out)
    assert (found["operations"], [each["name"] for each in found["experiments"]]) == ([], ["dice"])


def test_list_as_json(run):
    status, out, err = run("list", "--json", "-")
    content = json.loads(out)
    assert status == 0
    assert "Twice the input." in err
    assert [each["name"] for each in content["operations"]] == ["double", "lonely"]
    assert content["operations"][0]["automatic"] == "quill: no wand"
    assert content["operations"][0]["plugin"] == "sound (fake-samplers 1.2)"
    assert content["operations"][0]["laws"] == [{"name": "doubles one", "statement": "Twice one is two."}]
    assert "signature" not in content["operations"][0]
    (operation,) = json.loads(run("list", "-o", "double", "--json", "-")[1])["operations"]
    (form,) = operation["signature"]["inputs"][0]["forms"]
    assert (form["dtypes"], form["shape"], form["scenarios"]) == (["float32"], ["n"], ["", "outliers"])
    gone, torch_, triton = content["records"]
    assert gone["unavailable"]["cpu"] == "needs a wand"
    assert torch_["unavailable"]["cpu"] is None
    assert (triton["operation"], triton["implementation"], triton["backend"]) == ("double", "triton", "triton")
    assert content["plugins"][0]["distribution"] == "fake-samplers"
    assert content["problems"] == []
    assert content["schema"] == SCHEMA
    assert content["environment"]["boltzbench"] == "0.1.0"


def test_new_says_what_could_not_be_tried_and_what_to_do_next(run):
    status, out, _ = run("new", "my-kernel", "--implementation", "double", "--backend", "cute", "--into", "here")
    assert status == 0
    assert "Written: here/my-kernel/src/my_kernel/kernel.py\n" in out
    assert "\nNot tried here: " in out
    assert out.endswith("Next: pip install -e here/my-kernel && boltzbench check -o double -i my_kernel\n")
    assert "    output  y  float32 (n)\n" in Path("here/my-kernel/src/my_kernel/__init__.py").read_text()
    out = run("new", "levels", "--operation")[1]
    assert "Not tried" not in out
    assert out.endswith("Next: pip install -e levels && boltzbench check -o levels\n")


def test_check_of_correct_implementations(run):
    status, out, err = run("check", "--device", "cpu")
    assert status == 0
    assert err == ""
    assert out.endswith("All agree: 8 checks passed (4 skipped: unavailable here).\n")
    assert "unavailable: gone (4 checks): needs a wand" in out
    assert "\x1b" not in out, "plain text, as this is no terminal"


def test_check_of_a_wrong_implementation(run, monkeypatch):
    use(monkeypatch, "sound", "wrong")
    status, out, _ = run("check", "--device", "cpu")
    assert status == 1
    assert "wrong_values: double wrong, outliers n=7 float32" in out
    assert out.endswith("Look closer: boltzbench check -o double -i wrong\n")
    status, out, _ = run("check", "--device", "cpu", "-o", "double", "-i", "torch", "-i", "triton")
    assert status == 0
    assert "wrong" not in out


def test_check_as_json(run, monkeypatch):
    use(monkeypatch, "sound", "wrong")
    status, out, err = run("check", "--device", "cpu", "--seed", "3", "--json", "-")
    content = json.loads(out)
    assert status == 1
    assert "Look closer" in err
    assert list(content)[:3] == ["schema", "status", "environment"]
    assert list(content)[-1] == "records"
    assert (content["schema"], content["status"], content["problems"]) == (SCHEMA, "complete", [])
    verdicts = {(record["implementation"], record["case"]): record for record in content["records"]}
    assert len(verdicts) == len(content["records"]) == 16
    right, wrong = verdicts["triton", "n=3 float32"], verdicts["wrong", "n=3 float32"]
    assert (right["status"], right["error"], right["bound"], right["seed"]) == ("passed", 0.0, 1e-6, 3)
    assert (wrong["status"], wrong["plugin"]) == ("wrong_values", "wrong (fake-samplers 1.2)")
    assert wrong["error"] > wrong["bound"]
    assert verdicts["gone", "n=3 float32"]["message"] == "needs a wand"
    assert verdicts["torch", "law: doubles one"]["p_value"] == 0.1


def test_json_to_a_file(run, folder):
    status, out, _ = run("check", "--device", "cpu", "--json", "out.json")
    assert status == 0
    assert "All agree" in out
    assert len(read_run(folder / "out.json").records) == 12


def test_standard_output_contains_only_the_json(folder):
    done = in_a_process(
        folder, "check", "--device", "cpu", "-i", "noisy", "--json", "-", BOLTZBENCH_PLUGINS="sound,noisy"
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["records"]) == 4
    for words in ("imported", "python", "descriptor", "child", "C library", "All agree"):
        assert words in done.stderr


def test_check_stops_machine_code_that_hangs_on_a_cpu(folder):
    chosen = ("-o", "double", "-i", "hanging", "-i", "torch", "--device", "cpu", "--time-limit", "3")
    done = in_a_process(folder, "check", *chosen, BOLTZBENCH_PLUGINS="sound,hanging")
    assert done.returncode == 1, done.stderr
    assert "timeout: double hanging, 3 times" in done.stdout  # the law did not answer either, at another place
    assert done.stdout.count("timeout: double hanging") == 2
    assert "no answer within 3 s: stopped" in done.stdout
    assert "4 of 8 checks failed" in done.stdout


def test_a_broken_plugin_is_named_and_everything_else_runs(run, monkeypatch):
    use(monkeypatch, "sound", "broken")
    for command in ("list", "check", "bench"):
        status, out, _ = run(command)
        assert status == 1
        problem = "problem: broken (fake-samplers 1.2): cannot be imported from fake_samplers_1_2_broken"
        assert problem in " ".join(out.split())
        assert "double" in out
    assert "1 problem, see above. All agree" in out
    (path,) = Path("runs").iterdir()
    assert "no_such_module" in read_run(path).problems[0]


@pytest.mark.parametrize("selection", [("-i", "gone"), ("-o", "lonely")])
def test_a_run_without_checks_fails(run, selection):
    status, out, _ = run("check", "--device", "cpu", *selection)
    assert status == 1
    assert "Nothing was checked" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "-o", "duble"), "unknown operation 'duble': did you mean double?"),
        (("list", "-o", "duble"), "unknown operation 'duble': did you mean double?"),
        (("list", "-t", "well"), "unknown target 'well': there is none to choose from"),
        (("new", "x", "--operation", "--implementation", "double"), "--operation and --implementation exclude each ot"),
        (("new", "x", "--operation", "--backend", "cute"), "--operation writes torch alone: got --backend cute; add a"),
        (("new", "x", "--implementation", "duble"), "unknown operation 'duble': did you mean double?"),
        (
            ("new", "x", "--implementation", "double", "--backend", "jax"),
            "--backend must be one of torch, triton, cupy",
        ),
        (("new", "gone", "--implementation", "double"), "double has an implementation named 'gone' already"),
        (("check", "-i", "trito"), "unknown implementation 'trito': did you mean triton?"),
        (("bench", "-o", "lonely", "-i", "torch"), "unknown implementation of lonely 'torch'"),
        (("check", "--device", "cud"), "unknown device 'cud': did you mean cuda"),
        (("bench", "--device", "cpu", "--preset", "smoked"), "unknown preset 'smoked': did you mean smoke?"),
        (("check", "--json", "no/such/folder/out.json"), "cannot write no/such/folder/out.json: No such file"),
        (("list", "--json", "."), "cannot write .: it is a folder"),
        (("bench", "--device", "cpu", "--mode", "hto"), "unknown mode 'hto': did you mean hot?"),
        (("bench", "--out", "a_file/inside"), "cannot write results to the folder a_file/inside: Not a directory"),
        (("bench", "--out", "a_file"), "cannot write results to the folder a_file: it is a file"),
        (("check", "--seed", "-1"), "--seed"),
        (("bench", "--frobnicate"), "--frobnicate"),
        (("chekc",), "chekc"),
    ],
)
def test_usage_errors_run_nothing(run, monkeypatch, folder, arguments, words):
    def never(*arguments, **named):
        raise AssertionError("it ran")

    (folder / "a_file").touch()
    monkeypatch.setattr(session, "carry_out", never)
    before = sorted(folder.iterdir())
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert words in err
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == [
        path for path in before if path.name != "__pycache__"
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a usable GPU")
def test_cuda_without_a_gpu_gives_the_drivers_reason(run):
    status, out, err = run("bench", "--device", "cuda")
    assert (status, out) == (2, "")
    assert err.startswith("boltzbench: device 'cuda' cannot be used: ")


def test_an_unknown_plugin_in_the_environment(run, monkeypatch):
    use(monkeypatch, "sond")
    assert run("list") == (2, "", "boltzbench: unknown plugin in BOLTZBENCH_PLUGINS 'sond': did you mean sound?\n")


def test_bench(run):
    status, out, _ = run("bench", "--device", "cpu", "--out", "new/folder")
    assert status == 0
    assert "12.3 µs  11.0..14.0 µs" in out
    assert "measurement overhead: timer 40.0 ns" in out
    assert "limits of this device: copy 10.0 GB/s" in out
    assert "not timed: triton (1 check): interpreted on the CPU: correctness only" in out  # the real case
    assert "unavailable: triton (1 check): interpreted on the CPU: correctness only" in out
    (path,) = Path("new/folder").iterdir()
    assert out.endswith(f"Results file: {path}\n")
    found = read_run(path)
    assert found.status == "complete"
    assert {record.case for record in found.records} == {"n=64 float32", "digits n=32 float32"}, "smoke, on a CPU"
    timed = {record.implementation for record in found.records if record.measurements}
    assert timed == {"torch"}
    (control,) = found.controls
    assert (control.operation, control.implementation, control.case) == ("double", "torch", "n=64 float32")
    assert "noise floor: 0 % (the same code timed twice in 1 case differed by less in 19 of" in out


def test_bench_waits_for_another_run_on_the_device(run, monkeypatch):
    with ExitStack() as other:
        other.enter_context(taking_turns("cpu", pytest.fail))
        waits = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: other.close())
        monkeypatch.setattr(quiet, "time", waits)
        status, _, err = run("bench", "--device", "cpu", "--json", "-")
    assert status == 0
    assert f"another run (process {os.getpid()}) is using cpu: waiting until it ends" in err


def test_bench_modes(run):
    status, out, _ = run("bench", "--device", "cpu", "--mode", "both")
    assert status == 0
    (path,) = Path("runs").iterdir()
    modes = {tuple(each.mode for each in record.measurements) for record in read_run(path).records}
    assert modes == {(), ("cold", "hot")}
    assert "passed, hot" in out


def test_bench_presets(run):
    status, out, _ = run("bench", "--device", "cpu", "--preset", "full", "--json", "-")
    cases = [record["case"] for record in json.loads(out)["records"] if record["implementation"] == "torch"]
    assert status == 0
    assert cases == ["n=64 float32", "n=128 float32", "digits n=32 float32"]


def test_bench_as_json_is_what_the_results_file_holds(run):
    _, out, _ = run("bench", "--device", "cpu", "--json", "-")
    (path,) = Path("runs").iterdir()
    assert path.read_text() == out


def test_ctrl_c_keeps_the_results(run, monkeypatch):
    use(monkeypatch, "sound", "interrupting")
    status, out, err = run("bench", "--device", "cpu", "--json", "-")
    assert status == 130
    assert "Interrupted after 1 of 8 checks. The results above are kept." in err
    content = json.loads(out)
    assert content["status"] == "incomplete"
    assert [record["implementation"] for record in content["records"]] == ["gone"], "torch was not timed yet"
    (path,) = Path("runs").iterdir()
    assert read_run(path).status == "incomplete"
    assert len(read_run(path).records) == 1

    status, out, _ = run("check", "--device", "cpu", "--json", "checked.json")
    assert status == 130
    assert re.search(r"Interrupted after \d+ of 16 checks", out)
    assert read_run(Path("checked.json")).status == "incomplete"


@pytest.fixture
def two_devices(monkeypatch):
    """Stand-ins for two GPUs: the CPU under two names."""
    places = [torch.device("cpu", 0), torch.device("cpu", 1)]
    for module in ("bench", "check", "validate"):
        monkeypatch.setattr(f"boltzbench.harness.cli.{module}.resolve_devices", lambda text: places)
    return places


def test_bench_on_several_devices_writes_one_file(run, monkeypatch, two_devices):
    seconds = iter([1e-3, 1.2e-3])
    monkeypatch.setattr(Here, "reference", lambda self: {"copy": next(seconds)})
    status, out, err = run("bench", "--device", "all", "--preset", "full", "--json", "-")
    assert status == 0
    (path,) = Path("runs").iterdir()
    assert path.read_text() == out
    assert re.fullmatch(r"\d{8}T\d{6}Z-cpu0-cpu1-\w{8}\.json", path.name)
    found = read_run(path)
    assert found.environment["device"] == "cpu:0,cpu:1"
    assert {record.device for record in found.records} <= {"cpu:0", "cpu:1"}
    assert [record.case for record in found.records if record.implementation == "torch"] == [
        *("n=64 float32", "n=128 float32", "digits n=32 float32"),
    ], "in the order of the plan"
    assert [(each.device, len(each.reference), bool(each.ceilings)) for each in found.devices] == [
        ("cpu:0", 1, True),
        ("cpu:1", 1, True),
    ]
    (slow,) = (each.device for each in found.devices if each.slow)
    assert f"{slow} is 20% slower than the median of the others (copy)\n" in err
    assert f"{slow}: " in err
    assert "on cpu:" in err


def test_ctrl_c_on_several_devices_and_the_rest_later(run, monkeypatch, two_devices):
    path = interrupted_run(run, monkeypatch)
    before = read_run(path)
    assert {each.device for each in before.devices} == {"cpu:0", "cpu:1"}
    use(monkeypatch, "sound")
    status, out, _ = run("bench", "--resume", str(path))
    assert status == 0, out
    after = read_run(path)
    assert after.status == "complete"
    assert len({(each.implementation, each.case) for each in after.records}) == len(after.records) == 9


def test_check_on_several_devices(run, monkeypatch, two_devices):
    use(monkeypatch, "sound", "wrong")
    status, out, err = run("check", "--device", "all", "--json", "-")
    assert status == 1
    content = json.loads(out)
    assert content["environment"]["device"] == "cpu:0,cpu:1"
    on = {}
    for record in content["records"]:
        on.setdefault(record["implementation"], set()).add(record["device"])
    assert all(len(devices) == 1 for devices in on.values()), "an implementation stays on its device"
    assert len(content["records"]) == 16
    assert "wrong_values: double wrong, outliers n=7 float32" in err


def test_checks_that_a_lost_device_leaves_to_another_count_once(run, monkeypatch, two_devices):
    trial, counted = Here.trial, []

    def dying(self, step):
        self.deaths += self.device.index == 0
        return trial(self, step)

    monkeypatch.setattr(Here, "trial", dying)
    monkeypatch.setattr(Here, "answers", lambda self: self.device.index != 0)
    monkeypatch.setattr(Display, "done", lambda self: counted.append(self))
    _, out, _ = run("check", "--device", "all", "--json", "-")
    content = json.loads(out)
    assert content["problems"] == ["cpu:0 stopped working: the other devices did its checks"]
    assert {record["device"] for record in content["records"]} == {"cpu:1"}
    assert len(counted) == len(content["records"])


def interrupted_run(run, monkeypatch):
    """The results file of a run that Ctrl-C ended after two of four implementations of the first case."""
    use(monkeypatch, "sound", "interrupting")
    status, _, _ = run("bench", "--device", "cpu", "--preset", "full", "--mode", "hot", "--seed", "3")
    assert status == 130
    (path,) = Path("runs").iterdir()
    return path


def test_a_resumed_run_completes_with_its_own_options(run, monkeypatch):
    path = interrupted_run(run, monkeypatch)
    before = read_run(path)
    use(monkeypatch, "sound")
    status, out, _ = run("bench", "--device", "cpu", "--resume", str(path))
    assert status == 0, out
    assert f"Resumed {path}: {len(before.records)} of 9 checks are kept." in out
    after = read_run(path)
    assert after.status == "complete"
    assert after.records[: len(before.records)] == before.records
    asked = {(record.implementation, record.case) for record in after.records}
    assert len(asked) == len(after.records) == 9, "three implementations, three cases of the preset full"
    assert {record.seed for record in after.records} == {3}
    assert {each.mode for record in after.records for each in record.measurements} == {"hot"}
    assert after.command.preset == "full"
    assert after.seconds["harness"] > before.seconds["harness"]
    assert list(Path("runs").iterdir()) == [path]
    status, _, err = run("bench", "--device", "cpu", "--resume", str(path))
    assert (status, err) == (2, f"boltzbench: cannot resume {path}: the run is complete\n")


def test_a_resumed_run_reports_the_cases_to_rerun(run, monkeypatch):
    path = interrupted_run(run, monkeypatch)
    content = json.loads(path.read_text())
    assert len(content["records"]) == 1
    content["records"][0]["source_hash"] = "another"
    path.write_text(json.dumps(content))
    use(monkeypatch, "sound")
    _, out, _ = run("bench", "--device", "cpu", "--resume", str(path))
    assert f"Resumed {path}: 0 of 9 checks are kept." in out
    assert "1 case will be rerun: the source has changed\n" in out


@pytest.mark.parametrize("option", [("--preset", "smoke"), ("-i", "torch"), ("--out", "there"), ("--seed", "1")])
def test_resume_refuses_other_options(run, monkeypatch, option):
    path = interrupted_run(run, monkeypatch)
    status, out, err = run("bench", "--device", "cpu", "--resume", str(path), *option)
    assert (status, out) == (2, "")
    assert "cannot be combined with --resume: the run keeps its own options" in err


def test_report_and_compare(run):
    for _ in range(2):
        assert run("bench", "--device", "cpu")[0] == 0
    base, new = map(str, sorted(Path("runs").iterdir()))
    Path("damaged.json").write_text(Path(base).read_text()[:-100])
    status, out, err = run("report", base, new, "--markdown", "r.md", "--csv", "r.csv", "--against", base)
    assert (status, out) == (0, "")
    assert "Written: r.md" in err
    assert "double" in Path("r.md").read_text()
    assert Path("r.csv").read_text().startswith("run,operation")
    assert not Path("report.html").exists()
    status, _, err = run("report", base, "damaged.json")
    assert status == 1
    assert "damaged.json is damaged" in err
    page = Path("report.html").read_text()
    assert "damaged.json is damaged" in page
    assert "plotly" in page
    status, _, err = run("report", "damaged.json", "missing.json")
    assert status == 2
    assert "cannot read missing.json" in err
    status, out, err = run("compare", base, new)
    assert (status, err) == (0, "")
    assert "torch" in out


def test_a_report_never_overwrites_what_it_reads(run):
    run("bench", "--device", "cpu")
    (path,) = map(str, Path("runs").iterdir())
    before = Path(path).read_text()
    status, _, err = run("report", path, "--html", path)
    assert (status, Path(path).read_text()) == (2, before)
    assert "is an input and would be overwritten" in err
    status, _, err = run("report", path, "--html", "a", "--markdown", "a")
    assert status == 2
    assert "two outputs have the same name" in err


def test_what_check_wrote_cannot_be_resumed(run):
    run("check", "--device", "cpu", "--json", "checked.json")
    status, _, err = run("bench", "--device", "cpu", "--resume", "checked.json")
    assert (status, err) == (2, "boltzbench: cannot resume checked.json: it was not written by bench\n")


def test_a_run_interrupted_before_the_first_step_can_resume(run, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Here, "limits", interrupted)
        status, out, _ = run("bench", "--device", "cpu")
    assert status == 130
    assert "Interrupted after 0 of 6 checks" in out
    (path,) = Path("runs").iterdir()
    assert f"Continue with: boltzbench bench --resume {path}" in out
    assert run("bench", "--device", "cpu", "--resume", str(path))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "a.json", "b.json"), "cannot read a.json"),
        (("compare", "a.json", "b.json", "--fail-over", "much"), "--fail-over takes a percentage"),
        (("report",), "RUN"),
        (("bench", "--resume", "a.json"), "cannot read a.json"),
    ],
)
def test_missing_files(run, arguments, words):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert words in err


EXPERIMENT = """
    @hookimpl
    def register_experiments(register):
        register(fakes.experiment())
    """


def test_list_shows_experiments(run, monkeypatch, folder):
    install(folder, {"dice": EXPERIMENT}, "fake-dice")
    use(monkeypatch, "sound", "dice")
    _, out, _ = run("list")
    assert ["dice", "Do", "dice", "show", "three", "and", "a", "half?"] in [line.split() for line in out.splitlines()]
    assert "1 plugin of fake-dice 1.2: dice" in out


@pytest.mark.parametrize(("form", "words"), [("--markdown", "# boltzbench"), ("--csv", "run,op"), ("--html", "<!DOC")])
def test_a_report_goes_to_standard_output(run, form, words):
    run("bench", "--device", "cpu")
    (path,) = map(str, Path("runs").iterdir())
    status, out, err = run("report", path, form, "-")
    assert (status, err) == (0, "")
    assert out.startswith(words)
    assert not Path("-").exists()
    status, out, err = run("report", path, form, "-", "--csv" if form != "--csv" else "--markdown", "-")
    assert (status, out) == (2, "")
    assert "two outputs have the same name" in err


@pytest.mark.parametrize("command", ["list", "check", "bench"])
def test_80_columns(run, monkeypatch, command):
    use(monkeypatch, "sound", "wrong", "broken")
    _, out, _ = run(command)
    long = [line for line in out.splitlines() if len(line) > 80]
    assert [line for line in long if not ("Look closer" in line or "Results file" in line)] == []
    assert "…" not in out


def test_triton_is_interpreted_for_the_cpu_and_compiled_for_the_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    process.prepare_to_run_kernels(torch.device("cpu"))
    assert os.environ["TRITON_INTERPRET"] == "1"
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(process, "cuda_unusable", lambda: None)
    process.prepare_to_load_plugins(torch.device("cuda", 1))
    assert "TRITON_INTERPRET" not in os.environ
    assert chosen == []
    process.prepare_to_run_kernels(torch.device("cuda", 1))
    assert chosen == [torch.device("cuda", 1)]


def test_a_gpu_that_admits_no_more_processes_is_reported_with_a_hint(monkeypatch):
    def busy(device):
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "set_device", busy)
    monkeypatch.setattr(process, "cuda_unusable", lambda: None)
    with pytest.raises(RuntimeError) as caught:
        process.prepare_to_run_kernels(torch.device("cuda", 0))
    assert str(caught.value) == (
        "cuda:0 cannot be used: CUDA error: CUDA-capable device(s) is/are busy or unavailable: "
        "see the compute mode and the processes that nvidia-smi shows"
    )


@pytest.mark.parametrize("command", [("check",), ("bench",), ("validate", "-s", "none")])
def test_a_command_leaves_the_gpu_to_its_workers(run, monkeypatch, command):
    """In compute mode Exclusive_Process the GPU admits one process: a worker, if the command itself holds nothing."""

    def hold(*arguments, **named):
        raise AssertionError("the command holds the GPU")

    class OnCpu(Here):
        def __init__(self, device, announce, time_limit, registry, shared, threads):
            assert device == torch.device("cuda", 0)
            assert not shared
            super().__init__(torch.device("cpu"), announce, time_limit, registry)

    for name in ("set_device", "init", "synchronize", "current_stream", "Event", "mem_get_info", "current_device"):
        monkeypatch.setattr(torch.cuda, name, hold)
    properties = SimpleNamespace(
        name="A GPU", uuid="1", multi_processor_count=1, total_memory=1, L2_cache_size=1, major=9, minor=0
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(worker, "Workers", OnCpu)
    for module in (
        run_trials,
        sys.modules["boltzbench.harness.cli.validate"],
    ):  # the process that reads the plugins has no such GPU
        monkeypatch.setattr(module, "read_catalogue", lambda device, **named: read_catalogue("cpu", **named))
    status, out, err = run(*command)
    assert "the command holds the GPU" not in out + err
    if command[0] == "validate":
        assert (status, err) == (2, "boltzbench: unknown sampler 'none': there is none to choose from\n")
    else:
        assert status == 0, out + err
        assert "All agree" in out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_describing_a_real_gpu_does_not_hold_it(folder):
    code = """
import torch
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.harness.execution.process import prepare_to_load_plugins
from boltzbench.harness.results.environment import describe, resolve_device
device = resolve_device("cuda")
prepare_to_load_plugins(device)
load_registry()
print(describe(device)["gpu"]["name"], torch._C._cuda_hasPrimaryContext(0))
"""
    done = in_a_process(folder, code=code, BOLTZBENCH_PLUGINS=SUITE)
    assert done.stdout.endswith(" False\n"), done.stdout + done.stderr


RUN = str(next((ROOT / "results" / "cpu").glob("*/*.json")))


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        ("--help", []),
        ("--version", []),
        ("bench --help", []),
        ("new --help", []),
        (f"report {RUN} --markdown - --csv page.csv --html page.html", []),
        (f"compare {RUN} {RUN}", ["numpy", "scipy"]),
        (f"merge {RUN} --out merged.json", []),
        (f"history {Path(RUN).parent} --markdown - --html page.html", ["numpy", "scipy"]),
        ("list", ["torch", "numpy"]),
    ],
)
def test_quick_commands_import_no_slow_package(folder, arguments, heavy):
    code = """
import atexit, sys
slow = ("torch", "numpy", "scipy", "sklearn", "triton", "cupy")
atexit.register(lambda: print("HEAVY", [m for m in slow if m in sys.modules]))
from boltzbench.harness.cli.app import main
main()
"""
    installed = {PLUGINS_VARIABLE: f"{SUITE},broken"} if arguments == "list" else {}
    done = in_a_process(folder, *arguments.split(), code=code, **installed)
    assert done.returncode == len(installed), done.stderr
    assert done.stdout.endswith(f"HEAVY {heavy}\n")


def watched(steps, *, terminal):
    """The output of a Display during a session over ``steps``, and the Display."""
    file = io.StringIO()
    with Display(Console(file=file, width=80, force_terminal=terminal, markup=False), steps) as watch:
        for step in steps:
            watch.step(step)
            watch.phase("compile")
            watch.phase("sampling")
            watch.block(Block(True, 40, 0.0123))
            watch.phase("harness")
            watch.done()
    return file.getvalue(), watch


def test_progress_on_a_terminal_shows_step_phase_samples_and_noise():
    steps = plan([(operation(cases=[case(3, scenario="[odd]")]), [implementation("mine")])], ("check",))
    shown, _ = watched(steps * 2, terminal=True)
    for words in ("double mine [odd] n=3", "compile", "sampling 40, noise 1.2%", "0/2", "1/2", "0:00:00 left"):
        assert words in shown


def test_progress_elsewhere_is_a_line_for_each_operation():
    steps = plan([(operation(), [implementation("a"), implementation("b")])], ("check",))
    assert watched(steps, terminal=None)[0] == "double: 4 checks\n"


def test_kernels_are_built_at_once_before_the_first_check(monkeypatch):
    together, built = threading.Barrier(2, timeout=20), []

    def build(name):
        together.wait()
        built.append(name)
        raise RuntimeError("the launch will say so")

    shared = functools.partial(build, "shared")
    implementations = [
        implementation("a", build=shared),
        implementation("b", build=shared),
        implementation("c", build=functools.partial(build, "c")),
        implementation("d"),
        implementation("e", build=functools.partial(build, "e"), unavailable=lambda device: "needs a wand"),
        implementation("f", build=functools.partial(build, "f"), unavailable=lambda device: 1 / 0),
    ]
    monkeypatch.setattr(serving.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(serving, "load_registry", lambda: Registry({}, tuple(implementations), ()))
    times = itertools.count(step=3)
    monkeypatch.setattr(progress, "perf_counter", lambda: next(times))
    file = io.StringIO()
    with Display(Console(file=file, width=80, force_terminal=True, highlight=False), []) as watch:
        connection = SimpleNamespace(send=lambda message: watch.phase(message[1]))
        with watch.building():
            serving._Worker(connection, torch.device("cpu")).build([("double", each.name) for each in implementations])
    assert sorted(built) == ["c", "shared"]
    assert "kernels of 2 implementations" in file.getvalue()
    assert "compile" in file.getvalue()
    assert "compiled kernels of 2 implementations: 6 s" in file.getvalue()
    assert watch.seconds["compile"] > 0


def test_the_seconds_of_each_phase_add_up(monkeypatch):
    times = itertools.count()
    monkeypatch.setattr(progress, "perf_counter", lambda: next(times))
    steps = plan([(operation(), [implementation("a")])], ("check",))
    _, watch = watched(steps, terminal=None)
    assert watch.seconds == {"harness": 3, "compile": 2, "sampling": 2}


def test_each_of_several_devices_has_a_line_and_their_seconds_add_up(monkeypatch):
    steps = plan([(operation(), [implementation("a"), implementation("b")])], ("check",))
    times = itertools.count()
    file = io.StringIO()
    with Display(Console(file=file, width=80, force_terminal=True, highlight=False), steps) as watch:
        monkeypatch.setattr(progress, "perf_counter", lambda: next(times))
        with watch.on(["cuda:0", "cuda:1"]) as displays:
            before = dict(watch.seconds)
            for display, step in zip(displays, steps, strict=False):
                display.step(step)
                display.phase("sampling")
                display.block(Block(True, 40, 0.0123))
            for display in displays:
                display.phase("check")
            displays[0].done()
        within = {phase: seconds - before.get(phase, 0.0) for phase, seconds in watch.seconds.items()}
    assert within["sampling"] == 2 + 2, "each from its own beginning to its own end"
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).splitlines()]
    frames = [lines[i : i + 3] for i, line in enumerate(lines) if line.startswith("2 devices") and "0/4" in line]
    (_, first, second) = frames[-1]
    assert first.startswith("cuda:0: double a n=3 float32")
    assert second.startswith("cuda:1: double b n=3 float32")
    assert not any("0/?" in line for line in lines)
