"""`--shard` and `--new-only` on the command line, with a plugin of three operations and a clock without noise."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from boltzbench.harness.cli import app as cli
from boltzbench.harness.cli.run_trials import plan_steps
from boltzbench.harness.cluster.merge import merge
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE
from boltzbench.harness.execution import trial, worker
from boltzbench.harness.results.file import read_run
from boltzbench.harness.timing import quiet
from support.fakes import Here, Stopwatch, install

CPU = torch.device("cpu")
PLUGIN = """
    @hookimpl
    def register_operations(register):
        for name in ("double", "twice", "more"):
            register(fakes.operation(name, laws=(fakes.law(),)))

    @hookimpl
    def register_implementations(register):
        for name in ("double", "twice", "more"):
            register(fakes.implementation("torch", of=name))
            register(fakes.implementation("other", of=name))
    """


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a command in an empty folder: its exit status, standard output and standard error."""
    install(tmp_path, {"three": PLUGIN})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quiet, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(trial, "Stopwatch", Stopwatch)
    monkeypatch.setattr(worker, "Workers", Here)
    for name, value in ((PLUGINS_VARIABLE, "three"), ("COLUMNS", "80"), ("TRITON_INTERPRET", "1")):
        monkeypatch.setenv(name, value)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments, *(("--device", "cpu") if "merge" not in arguments else ())])
        return caught.value.code, *capfd.readouterr()

    yield run
    for name in [name for name in sys.modules if name.startswith("fake_samplers_")]:
        del sys.modules[name]


def files(folder):
    return sorted(Path(folder).glob("*.json"))


def cases(path):
    return [(each.operation, each.implementation, each.case) for each in read_run(path).records]


def test_the_shards_of_bench_are_the_whole_plan(run):
    assert run("bench", "--out", "whole")[0] == 0
    for number in (1, 2):
        assert run("bench", "--shard", f"{number}/2", "--out", "shards")[0] == 0
    one, two = files("shards")
    assert sorted(cases(one) + cases(two)) == sorted(cases(files("whole")[0]))
    assert not {each[::2] for each in cases(one)} & {each[::2] for each in cases(two)}, "no comparison is torn"
    shards = [read_run(path).shard for path in (one, two)]
    assert sorted((each.number, each.of) for each in shards) == [(1, 2), (2, 2)]
    assert sum(each.steps for each in shards) == len(cases(one)) + len(cases(two))
    for path in (one, two):
        found = read_run(path)
        assert {each.operation for each in found.controls} == {each[0] for each in cases(path)}, "each has its own"
    assert not merge([one, two], Path("m.json")).gaps
    assert sorted(cases(Path("m.json"))) == sorted(cases(files("whole")[0]))


def test_the_shards_of_check_are_the_whole_plan(run):
    assert run("check", "--json", "whole.json")[0] == 0
    parts = [Path(f"{number}.json") for number in (1, 2, 3)]
    for number, path in enumerate(parts, 1):
        assert run("check", "--shard", f"{number}/3", "--json", str(path))[0] == 0
    assert not merge(parts, Path("m.json")).gaps
    assert sorted(cases(Path("m.json"))) == sorted(cases(Path("whole.json")))


def test_a_shard_without_cases_is_complete(run):
    status, out, _ = run("bench", "--shard", "7/7", "--out", "empty", "-o", "more")
    assert (status, "This shard has no cases" in out) == (0, True)
    found = read_run(files("empty")[0])
    assert (found.status, found.records, found.shard.steps) == ("complete", (), 0)
    assert run("check", "--shard", "9/9", "-o", "more", "--json", "empty.json")[0] == 0
    assert json.loads(Path("empty.json").read_text())["status"] == "complete"


def test_the_gpus_of_shards_are_compared_by_merge(run, monkeypatch):
    """A stand-in: trials on the CPU, under the name of a GPU."""
    real = Here.trial
    seconds = iter((1e-3, 1.2e-3, 1.0e-3))
    monkeypatch.setattr(Here, "reference", lambda self: {"copy": next(seconds)})
    monkeypatch.setattr(Here, "trial", lambda self, step: setattr(self, "device", CPU) or real(self, step))
    monkeypatch.setattr("boltzbench.harness.cli.bench.resolve_devices", lambda text: [torch.device("cuda", 0)])
    monkeypatch.setattr(
        "boltzbench.harness.cli.bench.plan_steps", lambda place, *of, many: plan_steps(CPU, *of, many=many)
    )
    monkeypatch.setattr("boltzbench.harness.execution.session.is_exclusive", lambda device: True)
    for number in (1, 2, 3):
        gpu = {"name": "H200", "uuid": f"GPU-{number}", "l2_bytes": 1}
        environment = {"device": "cuda:0", "gpu": gpu, "harness": "5ce"}
        monkeypatch.setattr("boltzbench.harness.cli.bench.describe_all", lambda devices, found=environment: found)
        monkeypatch.setattr("boltzbench.harness.cli.bench.describe_gpu", lambda device, found=gpu: found)
        status, out, _ = run("bench", "--shard", f"{number}/3", "--out", "shards")
        assert (status, "slower" in out) == (0, False)
    merged = merge(files("shards"), Path("m.json"))
    assert [each.slow for part in merged.run.parts for each in part.devices if each.gpu["uuid"] == "GPU-2"] == [
        "20% slower than the median of the others (copy)"
    ]
    assert sum("slower" in note for note in merged.notes) == 1


def interrupted_after(monkeypatch, count):
    """Ctrl-C before the trial after so many."""
    made = itertools.count()
    real = Here.trial

    def trial(self, step):
        if next(made) == count:
            raise KeyboardInterrupt
        return real(self, step)

    monkeypatch.setattr(Here, "trial", trial)


def test_a_shard_resumes_as_that_shard(run, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted_after(patch, 4)
        assert run("bench", "--shard", "1/2")[0] == 130
    (path,) = files("runs")
    done = cases(path)
    assert 0 < len(done) < read_run(path).shard.steps
    assert "cannot be combined with --resume" in run("bench", "--resume", str(path), "--shard", "2/2")[2]
    content = path.read_text()
    path.write_text(content.replace(read_run(path).shard.plan, "0" * 16))
    status, _, err = run("bench", "--resume", str(path))
    assert (status, f"{path}: it is shard 1/2 of plan 0000000000000000, and the plugins" in err) == (2, True)
    path.write_text(content)
    assert run("bench", "--resume", str(path))[0] == 0
    assert cases(path)[: len(done)] == done
    assert len(cases(path)) == read_run(path).shard.steps
    assert len(set(cases(path))) == len(cases(path))


def test_new_only_times_what_is_not_timed(run, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted_after(patch, 4)
        assert run("bench", "--shard", "1/1")[0] == 130
    (first,) = files("runs")
    assert run("bench", "--shard", "1/1", "--new-only")[0] == 0
    (second,) = {*files("runs")} - {first}
    found = read_run(second)
    whole = {each[::2] for each in cases(first)}
    complete = {case for case in whole if len([each for each in cases(first) if each[::2] == case]) == 2}
    assert complete
    assert not complete & {each[::2] for each in cases(second)}
    assert {(each.operation, each.case) for each in found.left_out} == complete
    merged = merge([first, second], Path("m.json"), last_wins=True)
    assert not merged.gaps
    assert merged.records == found.shard.steps
    status, out, _ = run("bench", "--shard", "1/1", "--new-only")
    assert (status, "Nothing is left to do: runs in runs have it" in out) == (0, True)


def test_new_only_times_a_comparison_as_a_whole(run):
    assert run("bench", "-o", "more")[0] == 0
    (first,) = files("runs")
    content = json.loads(first.read_text())
    lost = content["records"].pop()
    first.write_text(json.dumps(content))
    assert run("bench", "-o", "more", "--new-only")[0] == 0
    (second,) = {*files("runs")} - {first}
    assert cases(second) == [("more", name, lost["case"]) for name in ("other", "torch")]


@pytest.mark.parametrize("command", ["bench", "check", "validate"])
def test_what_is_no_shard(run, command):
    status, out, err = run(command, "--shard", "3/2")
    assert (status, out) == (2, "")
    assert err == "boltzbench: --shard takes the number of a shard and of all shards, such as 2/8: got '3/2'\n"
