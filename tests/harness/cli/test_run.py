"""The command `run`, with trials in this process."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Claim
from boltzbench.harness.cli import app as cli
from boltzbench.harness.cli import run as module
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE
from boltzbench.harness.execution import trial, worker
from boltzbench.harness.execution.budget import run_within
from boltzbench.harness.execution.child import Died, start_server
from boltzbench.harness.execution.parallel import judges
from boltzbench.harness.results.file import read_run
from boltzbench.harness.timing import quiet
from boltzbench.harness.validation.standing import make_standing
from support.fakes import Here, Stopwatch, install

KERNELS = """
    @hookimpl
    def register_operations(register):
        register(fakes.operation("double", laws=(fakes.law(),)))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("torch"))
        register(fakes.implementation("triton", backend="triton"))
    """
WRONG = """
    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("wrong", factor=2.1, backend="cupy"))
    """
INTERRUPTING = """
    from dataclasses import replace

    @hookimpl
    def register_implementations(register):
        register(replace(fakes.interrupting(), backend="cupy"))
    """
HANGING = """
    import time

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("hanging", backend="cupy", prepare=lambda inputs, outputs: time.sleep(60)))
    """
GONE = """
    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("gone", backend="cupy", unavailable=lambda device: "needs a wand"))
    """
SAMPLERS = """
    from boltzbench.harness import Sampler, Target

    @hookimpl
    def register_targets(register):
        for name in ("well", "wells"):
            register(Target(name, "", "", "", "continuous", (1,), "float32", {}, abs, lambda *given: None, (0.5,)))

    @hookimpl
    def register_samplers(register):
        for name in ("walk", "leap"):
            register(Sampler(name, "", "", "torch", dict, dict))
        register(Sampler("picky", "", "", "torch", dict, dict, refuses=lambda target: "made for lattices"))
    """


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    plugins = {
        "kernels": KERNELS, "wrong": WRONG, "interrupting": INTERRUPTING, "hanging": HANGING, "gone": GONE,
        "judged": SAMPLERS,
    }  # fmt: skip
    install(tmp_path, plugins)
    monkeypatch.setattr(quiet, "cache_folder", lambda: tmp_path)  # no test waits for another
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # so that pytest undoes what the command does to it
    monkeypatch.setattr(trial, "Stopwatch", Stopwatch)
    monkeypatch.setattr(worker, "Workers", Here)
    monkeypatch.setattr(module, "seconds_since_start", lambda: 0.0)  # not the age of pytest
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("fake_samplers_")]:
        del sys.modules[name]


@pytest.fixture
def run(capfd, monkeypatch):
    def run(*arguments, plugins="kernels", device=("--device", "cpu")):
        """Status, output and errors of the command."""
        monkeypatch.setenv(PLUGINS_VARIABLE, plugins)
        with pytest.raises(SystemExit) as caught:
            cli.main(["run", *device, *arguments])
        return caught.value.code, *capfd.readouterr()

    return run


def files():
    return sorted(Path("runs").rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)


def kinds(found):
    return [(each.purpose, each.implementation, each.case) for each in found.records]


def test_a_run(run):
    status, out, err = run("--budget", "1m", "--first", "double n=64")
    assert (status, err) == (0, "")
    (path,) = files()
    assert path.parent.parent == Path("runs/cpu")
    found = read_run(path)
    assert found.status == "complete"
    assert found.environment["device"] == "cpu"
    assert found.ceilings == {"copy": 1e10}
    assert kinds(found) == [
        ("check", "triton", "n=3 float32"),
        ("bench", "triton", "n=64 float32"),
        ("bench", "torch", "n=64 float32"),
        ("law", "triton", "law: doubles one"),
        ("check", "triton", "outliers n=7 float32"),
        ("real", "triton", "digits n=32 float32"),
        ("real", "torch", "digits n=32 float32"),
    ], "torch has the last record of a case, since its times are taken when all are checked"
    assert {each.implementation for each in found.records if each.measurements} == {"torch"}
    assert [(each.implementation, each.case) for each in found.controls] == [("torch", "n=64 float32")], "one of each"
    assert {(each.kind, each.reason) for each in found.left_out} == {
        ("memcheck", "impossible"),
        ("racecheck", "impossible"),
    }
    lines = out.splitlines()
    phases = ["check (1)", "limits of the device", "bench (1)"]
    assert lines[:3] == [f"0:00:00 round 1: {phase}" for phase in phases]
    page = path.with_suffix(".html")
    assert "<h2>" in page.read_text()
    for words in (
        "not timed: triton",
        "memcheck and racecheck (2 steps): a sanitizer needs a GPU",
        "All agree: 6 checks",
    ):
        assert words in out
    assert lines[-2:] == [f"Page: {page}", f"Results file: {path}"]
    assert max(map(len, lines[:-2])) <= 80


def test_what_an_earlier_run_timed_is_named_and_not_timed_again(run):
    run("--budget", "1m")
    status, out, _ = run("--budget", "1m", "--new-only")
    first, second = files()
    assert status == 0
    assert {each.purpose for each in read_run(second).records} == {"check", "law"}
    unchanged = [each for each in read_run(second).left_out if each.reason == "unchanged"]
    assert {(each.kind, each.case, each.message) for each in unchanged} == {
        ("bench", "n=64 float32", str(first)),
        ("bench", "digits n=32 float32", str(first)),
    }
    assert "Not timed again" in out
    assert "double: n=64 float32, digits n=32 float32" in " ".join(out.split())

    content = json.loads(first.read_text())
    (changed,) = (each for each in content["records"] if each["implementation"] == "triton" and each["case"][0] == "d")
    changed["source_hash"] = "another"
    first.write_text(json.dumps(content))
    second.unlink()
    run("--budget", "1m", "--new-only")
    timed = [each for each in kinds(read_run(files()[-1])) if each[0] in ("bench", "real")]
    assert sorted(timed) == [("real", name, "digits n=32 float32") for name in ("torch", "triton")], (
        "in turn with torch"
    )


def test_a_wrong_kernel_is_seen_at_once_and_fails_the_run(run):
    status, out, _ = run("--budget", "1m", plugins="kernels,wrong")
    assert status == 1
    assert out.index("wrong_values: double wrong, n=3 float32") < out.index("limits of the device")
    assert "Look closer: boltzbench check -o double -i wrong" in out


def test_a_hanging_kernel_is_stopped_when_the_budget_is_spent(run, monkeypatch):
    monkeypatch.setattr(module, "SHORTEST_BUDGET", 1.0)
    start_server("boltzbench.harness.execution.worker")  # which imports torch
    for budget in (3, 9, 27):  # on a busy machine plugins load until the first is spent
        begin = time.monotonic()
        status, out, _ = run("--budget", f"{budget}s", plugins="kernels,hanging")
        assert time.monotonic() - begin < budget + 7
        found = read_run(files()[-1])
        assert found.status == "complete"
        late = {(one.kind, one.implementation, one.case): one.message for one in found.left_out if one.reason == "time"}
        if "has not begun" not in late["check", "hanging", "n=3 float32"]:
            break
    assert "was stopped after" in late["check", "hanging", "n=3 float32"]
    assert ("bench", "torch", "n=64 float32") in late
    assert ("limits", "", "") in late
    assert "Left out for lack of time" in out
    assert max(map(len, out.splitlines()[:-2])) <= 80
    assert status in (0, 1), "1 if nothing was checked before"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_time_of_imports_counts(run, monkeypatch):
    monkeypatch.setattr(module, "seconds_since_start", lambda: 60.0)
    status, out, _ = run("--budget", "1m")
    assert status == 1
    assert "Nothing was checked. The time was too short: give a longer --budget\n" in out
    assert len(read_run(*files()).records) == 0


def test_ctrl_c_leaves_a_valid_file(run):
    status, out, _ = run("--budget", "1m", plugins="kernels,interrupting")
    assert status == 130
    found = read_run(*files())
    assert found.status == "incomplete"
    assert kinds(found) == [("check", "triton", "n=3 float32")]
    assert "Interrupted after 1 of" in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a usable GPU")
def test_a_gpu_that_is_named_must_be_there(run):
    status, out, err = run(device=("--device", "cuda"))
    assert (status, out, files()) == (2, "", [])
    assert "cannot be used: " in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--budget", "soon"), "--budget takes a time of at least 10s, such as 12m: got 'soon'"),
        (("--budget", "9s"), "at least 10s"),
        (("--budget", "-5m"), "at least 10s"),
        (("--first", "duble"), "unknown operation 'duble': did you mean double?"),
        (("--first", "double m=3"), "unknown case of double 'm=3'"),
    ],
)
def test_usage_errors(run, arguments, words):
    status, out, err = run(*arguments)
    assert (status, out, files()) == (2, "", [])
    assert words in " ".join(err.replace("│", " ").split())


def sanitizing(folder, monkeypatch, text, status):
    """A compute-sanitizer that notes its calls, prints ``text`` and exits with ``status``, and can run on the CPU."""
    script = folder / "compute-sanitizer"
    script.write_text(f'#!/bin/sh\necho "$*" >> {folder}/calls\ncat <<END\n{text}\nEND\nexit {status}\n')
    script.chmod(0o755)
    monkeypatch.setattr(module, "_sanitizer", lambda device: (script, ""))


def test_each_kernel_has_a_case_under_both_sanitizers(run, folder, monkeypatch):
    text = "boltzbench: launched\n========= ERROR SUMMARY: 0 errors\n"
    text += "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    sanitizing(folder, monkeypatch, text, 0)
    status, _, _ = run("--budget", "1m", plugins="kernels,gone")
    assert status == 0
    found = read_run(*files())
    assert [each for each in kinds(found) if "check" in each[0] and each[0] != "check"] == [
        ("memcheck", "triton", "memcheck: outliers n=7 float32"),
        ("racecheck", "triton", "racecheck: outliers n=7 float32"),
    ]
    assert {(each.implementation, each.message) for each in found.left_out} == {("gone", "needs a wand")}
    assert len((folder / "calls").read_text().splitlines()) == 2


def test_a_finding_of_a_sanitizer_fails_the_run(run, folder, monkeypatch):
    sanitizing(folder, monkeypatch, "========= Invalid __global__ write\n========= ERROR SUMMARY: 1 error", 1)
    status, out, _ = run("--budget", "1m")
    assert status == 1
    assert "out_of_bounds: double triton, memcheck: outliers n=7 float32" in out


def test_a_sanitizer_that_does_not_work_is_a_problem_and_is_tried_once(run, folder, monkeypatch):
    sanitizing(folder, monkeypatch, "Internal Sanitizer Error", 1)
    status, out, _ = run("--budget", "1m")
    assert status == 1
    found = read_run(*files())
    assert len((folder / "calls").read_text().splitlines()) == 1
    assert [each.kind for each in found.left_out if each.reason == "impossible"] == ["memcheck", "racecheck"]
    assert "Internal Sanitizer Error" in found.problems[0]
    assert "problem: compute-sanitizer --tool memcheck ended with status 1" in " ".join(out.split())


def test_a_run_times_again_unless_told_otherwise(run):
    for _ in range(2):
        run("--budget", "1m")
    first, second = (kinds(read_run(file)) for file in files())
    assert first == second


def judging(monkeypatch, status, slow=""):
    """Judges that give this status to the claims about each sampler, and never answer about a ``slow`` target."""

    class Workers:
        killed = False

        def __init__(self, *given, **named):
            pass

        def kill(self):
            self.killed = True

        def close(self):
            pass

    def standings(self, sampler, target, seed):
        while target.name == slow:
            time.sleep(0.01)
            if self.workers.killed:
                raise Died(Status.ERROR, "killed")
        claim = Claim(sampler.name, target.name, 0.5, "long run", status, "" if status is Status.PASSED else "too hot")
        return [make_standing(sampler, target, 0.5, (claim,))]

    monkeypatch.setattr(judges, "Workers", Workers)
    monkeypatch.setattr(judges.Judge, "standings", standings)


@pytest.mark.parametrize(("status", "code"), [(Status.PASSED, 0), (Status.WRONG_LAW, 1)])
def test_samplers_are_judged_too(run, monkeypatch, status, code):
    judging(monkeypatch, status)
    ended, out, _ = run("--budget", "1m", plugins="kernels,judged")
    assert ended == code
    found = read_run(*files())
    assert {(each.sampler, each.target) for each in found.standings[:2]} == {("walk", "well"), ("leap", "well")}
    assert {(each.sampler, each.target) for each in found.standings[2:]} == {("walk", "wells"), ("leap", "wells")}
    assert ("All 4 claims hold" in out, "wrong_law: walk on well, T = 0.5: long run: too hot" in out) == (
        not code, bool(code)
    )  # fmt: skip
    assert "walk" in files()[0].with_suffix(".html").read_text()


def test_a_sampler_that_takes_too_long_is_left_out(run, monkeypatch):
    took = []
    judging(monkeypatch, Status.PASSED, slow="wells")
    for budget in (4.0, 12.0, 36.0):  # on a busy machine the checks take the first

        def within_a_few_seconds(units, seconds, *rest, budget=budget):
            """From here on, since loading plugins takes a while on a busy machine."""
            begin = time.monotonic()
            run_within(units, budget, *rest)
            took.append(time.monotonic() - begin)

        monkeypatch.setattr(module, "run_within", within_a_few_seconds)
        status, out, _ = run("--budget", "5m", plugins="kernels,judged")
        assert took[-1] < 2 * budget
        found = read_run(files()[-1])
        if found.standings:
            break
    assert (status, len(found.standings)) == (0, 2)
    late = [each for each in found.left_out if each.kind == "validate"]
    assert {(each.operation, each.case, each.reason) for each in late} == {
        ("walk", "wells", "time"), ("leap", "wells", "time")
    }  # fmt: skip
    assert "validate: walk 1, leap 1; the first (walk) was stopped after" in " ".join(out.split())
