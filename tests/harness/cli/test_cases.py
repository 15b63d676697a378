"""The options that choose cases: --case, --dtype, --scenario, and --sizes for cases of other sizes."""

import json
import sys
from pathlib import Path

import pytest
from boltzbench.harness.cli import app as cli
from boltzbench.harness.cli import run_trials
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE
from boltzbench.harness.execution import trial, worker
from boltzbench.harness.profiling import prediction as module
from boltzbench.harness.profiling import tools
from boltzbench.harness.profiling.counters import Kernel, Unreadable
from boltzbench.harness.results.file import read_run
from support.fakes import Here, Stopwatch, install

SOUND = """
    @hookimpl
    def register_operations(register):
        register(fakes.operation("double", laws=(fakes.law(),)))
        register(fakes.operation("fixed", case=None))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("torch"))
        register(fakes.implementation("wrong", factor=2.1))
        register(fakes.implementation("tiles", backend="triton"))
    """


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    install(tmp_path, {"sound": SOUND})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv(PLUGINS_VARIABLE, "sound")
    monkeypatch.setattr(trial, "Stopwatch", Stopwatch)

    def run(*arguments, real=False):
        """Status, standard output and standard error; ``real`` with worker processes."""
        if not real:
            monkeypatch.setattr(worker, "Workers", Here)
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments, "--device", "cpu"])
        return caught.value.code, *capfd.readouterr()

    yield run
    for name in [name for name in sys.modules if name.startswith("fake_samplers_")]:
        del sys.modules[name]


def only_run():
    (path,) = Path("runs").iterdir()
    return read_run(path)


def test_bench_of_other_sizes_checks_before_it_times(run):
    status, out, _ = run("bench", "-o", "double", "--sizes", "n=2:8:x2", "--sizes", "n=3", "--dtype", "float32")
    assert status == 1
    found = only_run()
    labels = [f"n={n} float32" for n in (2, 4, 8, 3)]
    assert [each.case for each in found.records if each.implementation == "torch"] == labels
    assert {each.purpose for each in found.records} == {"bench"}
    assert {(each.implementation, each.status.value, bool(each.measurements)) for each in found.records} == {
        ("torch", "passed", True), ("wrong", "wrong_values", False), ("tiles", "unavailable", False)
    }  # fmt: skip
    assert (found.command.sizes, found.command.dtypes) == (("n=2:8:x2", "n=3"), ("float32",))
    assert max(map(len, out.splitlines()[:-2])) <= 80


def test_referees_and_workers_make_the_same_cases(run):
    status, _, _ = run("bench", "-o", "double", "-i", "torch", "--sizes", "n=9", "--scenario", "outliers", real=True)
    assert status == 0
    (found,) = only_run().records
    assert (found.case, len(found.measurements)) == ("outliers n=9 float32", 1)


def test_a_case_is_chosen_by_its_label_or_a_pattern(run):
    status, _, _ = run("bench", "-i", "torch", "--case", "n=128 float32", "--case", "dig*")
    assert status == 0
    assert [each.case for each in only_run().records] == ["n=128 float32", "digits n=32 float32"], "of any preset"
    status, out, _ = run("check", "-o", "double", "-i", "torch", "--case", "law: *")
    assert (status, "All agree: 1 check passed." in out) == (0, True)
    status, out, _ = run("check", "-o", "double", "-i", "torch", "--dtype", "float32", "--scenario", "outliers")
    assert (status, "All agree: 1 check passed." in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "--case", "n=4 float32"), "unknown case 'n=4 float32': did you mean n=3 float32"),
        (
            ("bench", "--case", "outliers n=7 float32"),
            "'outliers n=7 float32' of double is a case of `check` alone; "
            "`bench -o double --sizes n=7 --dtype float32 --scenario outliers` has its sizes\n",
        ),
        (("check", "-o", "fixed", "--case", "n=64 float32"), "'n=64 float32' of fixed is a case of `bench` alone\n"),
        (("check", "--dtype", "float23"), "unknown dtype 'float23': did you mean float32?"),
        (("check", "--case", "n=3*", "--scenario", "outliers"), "no case has all that --case, --dtype and --scenario"),
        (("check", "--sizes", "n=3"), "--sizes: operation fixed has cases of its own sizes only; choose"),
        (("check", "-o", "double", "--sizes", "m=3"), "--sizes: unknown axis of double 'm': choose from n"),
        (("bench", "-o", "double", "--sizes", "n=0,1"), "n=0 float32 has no elements, so nothing to time"),
        (("bench", "-o", "double", "--sizes", "n=2000"), "has 1.6e-05 GB of inputs and outputs, and cpu has 1e-05 GB"),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(run, monkeypatch, arguments, words):
    monkeypatch.setattr(run_trials, "memory_bytes", lambda device: 10_000)
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_profile_shows_what_agrees_beside_the_prediction_and_times_nothing(run, monkeypatch):
    def profile(profiler, step, device, registry, time_limit):
        if step.label.startswith("digits"):
            raise Unreadable("ncu reported no kernel")
        return [Kernel("rows", 1, 1.5e-5, registers=40)]

    report = {"symbol": "rows", "registers": 40, "limit": "memory", "memory_share": 0.5}
    monkeypatch.setattr(tools, "require_profiler", lambda profiler, device: None)
    monkeypatch.setattr(tools, "profile", profile)
    monkeypatch.setattr(module, "predictions", lambda chosen, gpu: {("double", "tiles"): [report]})
    status, out, err = run("bench", "-o", "double", "--profile", "ncu", "--json", "-")
    assert status == 1, "one is wrong, and of one there is no kernel"
    records = {(each["implementation"], each["case"]): each for each in json.loads(out)["records"]}
    assert records["wrong", "n=64 float32"]["kernels"] == []
    assert records["wrong", "n=64 float32"]["status"] == "wrong_values"
    (kernel,) = records["tiles", "n=64 float32"]["kernels"]
    assert (kernel["seconds"], kernel["predicted"], kernel["expected"]) == (1.5e-5, "memory, 50%", None)
    assert records["torch", "digits n=32 float32"]["message"] == "ncu reported no kernel"
    assert "15 µs" in err
    assert max(map(len, err.splitlines())) <= 80
    assert not Path("runs").exists()
