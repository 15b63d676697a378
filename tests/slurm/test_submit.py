"""`boltzbench submit` as a user runs it: submitted, a job cancelled, continued by the same command, merged.

On a machine with Slurm (`start.sh` starts one) the jobs are Slurm's, elsewhere processes of submitit's local executor.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boltzbench.harness.cluster.executors import Submitit
from boltzbench.harness.cluster.job import state_of
from boltzbench.harness.results.file import read_run
from support import TESTS
from support.fakes import install

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'boltzbench[slurm]'")

PLUGIN = """
    import os, time
    from pathlib import Path

    @hookimpl
    def register_operations(register):
        for name in ("double", "twice", "more"):
            register(fakes.operation(name, cases=(fakes.case(64, purpose="bench"),)))

    def waits(inputs, outputs):
        while not Path(os.environ["MAY_RUN"]).exists():
            time.sleep(0.05)
        return fakes.implementation("torch").prepare(inputs, outputs)

    @hookimpl
    def register_implementations(register):
        for name in ("double", "twice"):
            register(fakes.implementation("torch", of=name))
        register(fakes.implementation("torch", of="more", prepare=waits))
    """
"""Shard 1 of 2 has `double` and then `more`, which waits for a file; shard 2 has `twice`."""


def slurm_runs():
    """Whether a Slurm is installed here and answers."""
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo"], capture_output=True, timeout=60).returncode == 0


def test_a_cancelled_job_is_continued_and_all_shards_are_merged(tmp_path):
    cluster = "slurm" if slurm_runs() else "local"
    install(tmp_path, {"three": PLUGIN})
    paths = os.pathsep.join([str(tmp_path), str(TESTS)])
    environment = {
        **os.environ,
        "BOLTZBENCH_PLUGINS": "three",
        "PYTHONPATH": paths,
        "XDG_CACHE_HOME": str(tmp_path),
        "COLUMNS": "80",
        "MAY_RUN": str(tmp_path / "may_run"),
        "OMP_NUM_THREADS": "1",
    }
    options = ["--nodes", "2", "--minutes", "20", "--cluster", cluster]
    command = ["submit", *options, "--", "bench", "--device", "cpu", "--time-limit", "300"]

    def start():
        words = [sys.executable, "-m", "boltzbench.harness", *command]
        return subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=ignore_interrupts
        )

    with start() as first:
        (shard,) = wait_for(lambda: [*tmp_path.glob("runs/submit-*/shard-1")])
        (record,) = wait_for(lambda: records(shard))
        other = start()
        assert other.wait(60) == 2, "two submissions at once"
        other.stdout.close()
        Submitit(cluster).at_work(shard.parent)[1].cancel()
        out = first.communicate(timeout=200)[0]
    assert first.returncode == 1, out
    assert "shard 1/2 is unfinished (1 of 2 checks)" in out
    assert f"What is finished is kept. Continue with: boltzbench {' '.join(command)}" in out
    wait_for(Submitit(cluster).at_work(shard.parent)[1].done)
    assert state_of(shard).records == 1
    (tmp_path / "may_run").touch()
    with start() as second:
        out = second.communicate(timeout=200)[0]
    assert second.returncode == 0, out
    run = read_run(shard.parent.with_suffix(".json"))
    assert run.status == "complete"
    assert sorted((each.operation, each.case) for each in run.records) == sorted(
        (name, "n=64 float32") for name in ("double", "twice", "more")
    ), "as in an unsharded plan"
    assert record in run.records, "what was finished is not repeated"
    assert len([*shard.glob("*.json")]) == 1, "resumed in the same file"
    assert {each.operation for each in run.controls} == {"double", "twice", "more"}


def ignore_interrupts():
    """As in the background of a script. Jobs can be cancelled all the same."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def records(shard: Path):
    return [record for path in state_of(shard).files for record in read_run(path).records]


def wait_for(find):
    end = time.monotonic() + 120
    while not (found := find()):
        assert time.monotonic() < end, "nothing happened for two minutes"
        time.sleep(0.05)
    return found
