"""`submit` with stand-ins for `bench`: what is finished is kept and not repeated, the rest is named."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from boltzbench.harness import cluster
from boltzbench.harness.api.messages import UsageError
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import BenchOptions, Record, Shard
from boltzbench.harness.cli import app, run_trials
from boltzbench.harness.cluster import executors, job, submission
from boltzbench.harness.cluster.executors import Submitit
from boltzbench.harness.cluster.job import ShardFailed, ShardJob, state_of
from boltzbench.harness.cluster.submission import submit
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.harness.results.file import ResultsError, ResultsFile, read_run, record_key

COMMAND = ["bench", "-o", "logsumexp", "--device", "cpu"]


def record(number):
    return Record("logsumexp", "torch", "torch", "p", f"n={number}", "bench", Status.PASSED, source_hash="5")


class Bench:
    """Stands in for the processes of `bench`: shard i of n has the cases i, i + n, ... of 6."""

    def __init__(self):
        self.ran, self.calls = [], []
        self.dies_after = {}
        self.device = {}

    def __call__(self, own, arguments, lock):
        self.calls.append((own.number, arguments))
        (Path(own.folder) / "log.txt").write_text("logsumexp: 6 checks\nboltzbench: something is wrong\n")
        (Path(own.folder) / "alive").write_text("here")
        environment = {"device": "cpu", "cpu": self.device.get(own.number, "EPYC"), "torch": "2"}
        cases = [*range(own.number, 7, own.of)]
        if "--resume" in arguments:
            path = Path(arguments[arguments.index("--resume") + 1])
            try:
                file = ResultsFile.resume(path, environment, {("logsumexp", "torch"): "5"})
            except ResultsError:
                return 2
        else:
            file = ResultsFile(Path(own.folder), environment)
            file.update(
                shard=Shard(own.number, own.of, "abc", len(cases)), command=BenchOptions((), (), "full", "cold", 1)
            )
        for number in cases:
            if record_key(record(number)) in file.kept:
                continue
            if self.dies_after.get(own.number) == len(file.run.records):
                file.close()
                return -signal.SIGKILL
            self.ran.append(number)
            file.add(record(number))
        file.finish()
        return 0


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    bench = Bench()
    monkeypatch.setattr(ShardJob, "_bench", lambda *arguments: bench(*arguments))
    return bench


@pytest.fixture
def clock(monkeypatch):
    """The clock of a submission, which only its own sleep advances."""
    clock = SimpleNamespace(seconds=1000.0)

    def sleep(seconds):
        clock.seconds += seconds
        assert clock.seconds < 1010, "it waits for ever"

    monkeypatch.setattr(submission, "monotonic", lambda: clock.seconds)
    monkeypatch.setattr(submission, "sleep", sleep)
    return clock


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as pool:
        yield pool


def test_all_shards_run_and_are_merged(bench, pool):
    shown = []
    found = submit(COMMAND, 3, pool, show=shown.append)
    assert found.complete
    assert (found.reasons, found.merged.gaps, found.merged.notes) == ({}, (), ())
    assert sorted(bench.ran) == [1, 2, 3, 4, 5, 6]
    run = read_run(found.path)
    assert (run.status, len(run.records), found.path.parent) == ("complete", 6, Path("runs").resolve())
    assert all(each[1][:4] == COMMAND[1:] and each[1][-1] == "--new-only" for each in bench.calls)
    assert str(shown[-1]) == "3 of 3 shards are complete, 0 at work; 6 of 6 checks"


def test_processes_of_this_machine(tmp_path, monkeypatch):
    """As the guide has it; the job crosses to them, and `bench` is a process of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench.py").write_text(textwrap.dedent(WRITING))
    monkeypatch.setattr(job, "BENCH", (sys.executable, str(tmp_path / "bench.py")))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        found = cluster.submit(["bench", "--preset", "smoke"], 2, pool)
    assert found.complete
    assert [part.shard.number for part in read_run(found.path).parts] == [1, 2]


def test_the_same_call_finishes_what_a_killed_job_left(bench, pool):
    bench.dies_after = {2: 1}
    found = submit(COMMAND, 2, pool)
    assert not found.complete
    (reason,) = found.reasons.items()
    assert reason[0] == 2
    assert reason[1].startswith("bench was killed by SIGKILL on ")
    assert reason[1].endswith(": boltzbench: something is wrong")
    assert (found.states[2].records, found.states[2].steps) == (1, 3)
    assert "shard 2/2 is incomplete (1 of 3 checks)" in found.merged.gaps[0]
    assert len(read_run(found.path).records) == 4, "what is finished is kept"
    bench.dies_after, bench.calls, jobs = {}, [], []
    again = submit(COMMAND, 2, SimpleNamespace(submit=lambda own: jobs.append(own.number) or pool.submit(own)))
    assert again.complete
    assert jobs == [2], "a finished shard gets no job"
    assert again.folder == found.folder
    ((number, arguments),) = bench.calls
    assert (number, arguments) == (2, ["--resume", str(found.states[2].files[0]), "--device", "cpu"])
    assert sorted(bench.ran) == [1, 2, 3, 4, 5, 6], "nothing ran twice"
    assert read_run(again.path).status == "complete"
    assert submit(COMMAND, 2, pool).folder != found.folder, "after a complete one, another begins"


def test_on_another_device_a_further_run_has_the_rest(bench, pool):
    """`bench --new-only` leaves out what is timed; this stand-in repeats it, so the last has to win."""
    bench.dies_after = {1: 2}
    submit(COMMAND, 1, pool)
    bench.dies_after, bench.device = {}, {1: "Xeon"}
    found = submit(COMMAND, 1, pool)
    assert found.complete
    assert [arguments[0] for _, arguments in bench.calls[1:]] == ["--resume", "-o"]
    assert len(found.states[1].files) == 2


def test_a_job_that_an_executor_lost_is_named(bench):
    class Broken:
        def submit(self, function):
            future = Future()
            future.set_exception(RuntimeError("the node is gone"))
            return future

    found = submit(COMMAND, 2, Broken())
    assert found.reasons == dict.fromkeys((1, 2), "its job ended without a result: RuntimeError: the node is gone")
    assert found.merged is None


class Hanging:
    """Jobs that show that they are at work, and then do nothing; those in ``waiting`` do not begin for a while."""

    def __init__(self, waiting=()):
        self.futures, self._waiting = [], waiting

    def submit(self, function):
        future = Future()
        if function.number in self._waiting:
            begin = submission.monotonic()
            future.done = lambda: submission.monotonic() - begin > 0.6 and function() == 0
        else:
            Path(function.folder).mkdir(exist_ok=True)
            (Path(function.folder) / "alive").write_text("a node")
        self.futures.append(future)
        return future


@pytest.mark.usefixtures("bench", "clock")
def test_a_machine_that_vanishes_ends_the_wait():
    """The limit is for jobs at work; one in the queue may wait."""
    hanging = Hanging(waiting=(2,))
    found = submit(COMMAND, 2, hanging, silence=0.2)
    assert found.reasons == {1: "its job gave no sign of life for 0.2 s and was cancelled"}
    assert hanging.futures[0].cancelled()
    assert found.states[2].complete


class Beating:
    """A job of 0.8 s that gives a sign of life every 0.1 s of ``clock``."""

    def __init__(self, clock):
        self._clock, self._begin = clock, clock.seconds

    def submit(self, function):
        alive = Path(function.folder) / "alive"
        alive.parent.mkdir()

        def done():
            passed = self._clock.seconds - self._begin
            alive.touch()
            os.utime(alive, ns=(0, 1 + int(10 * passed)))
            return passed > 0.8 and function() == 0

        return SimpleNamespace(done=done, cancel=lambda: None)


@pytest.mark.parametrize(("silence", "complete"), [(0.15, True), (0.05, False)])
@pytest.mark.usefixtures("bench")
def test_a_living_job_is_not_silent(clock, silence, complete):
    assert submit(COMMAND, 1, Beating(clock), silence=silence).complete is complete


def test_two_submissions_at_once(bench, pool):
    def submit_again(progress):
        with pytest.raises(UsageError, match="another process has submitted the same command and follows its jobs"):
            submit(COMMAND, 2, pool)
        tried.append(progress)

    tried = []
    assert submit(COMMAND, 2, pool, show=submit_again).complete
    assert tried
    assert len(bench.calls) == 2


def test_jobs_at_work_are_followed_and_not_submitted_again(bench, pool):
    found = submit(COMMAND, 2, pool, detach=True)
    assert found.merged is None
    folder = found.folder / "shard-1"
    ended = SimpleNamespace(done=lambda: True)
    running = iter([False, False])

    def done():
        if next(running, True):
            if not state_of(folder).complete:
                ShardJob(tuple(COMMAND), 1, 2, str(folder), ".")()
            return True
        return False

    while not all(state_of(found.folder / f"shard-{n}").complete for n in (1, 2)):
        time.sleep(0.01)
    for path in folder.glob("*.json"):
        path.unlink()
    bench.calls.clear()
    again = submit(COMMAND, 2, Hanging(), at_work=lambda folder: {1: SimpleNamespace(done=done), 2: ended})
    assert again.complete
    assert [number for number, _ in bench.calls] == [1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check"], "submit runs bench on many machines, as in `submit --nodes 8 -- bench -o sgld`: got 'check'"),
        ([], "got nothing"),
        (["bench", "--shard=1/2"], "--shard=1/2 cannot be submitted: submit chooses the shards"),
        (["bench", "--out", "x"], "--out cannot be submitted"),
    ],
)
def test_what_cannot_be_submitted(bench, pool, arguments, words):
    with pytest.raises(UsageError) as refused:
        submit(arguments, 2, pool)
    assert words in str(refused.value)
    with pytest.raises(UsageError, match="at least one shard"):
        submit(COMMAND, 0, pool)


WRITING = """
    import sys
    from pathlib import Path
    from boltzbench.harness.api.records import Shard
    from boltzbench.harness.results.file import ResultsFile
    preset, smoke, _, shard, _, folder, _ = sys.argv[1:]
    file = ResultsFile(Path(folder), {"device": "cpu"})
    file.update(shard=Shard(*map(int, shard.split("/")), preset + smoke))
    file.finish()
    """
STAND_IN = """
    import signal, sys, time
    from pathlib import Path
    folder = Path(sys.argv[sys.argv.index("--out") + 1])
    def stop(*_):
        (folder / "stopped").touch()
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    (folder / "began").touch()
    time.sleep(60)
    """
"""A `bench` that works for a minute, and ends in peace after Ctrl-C."""


@pytest.fixture
def endless(tmp_path):
    """The source of a process that runs a job with such a `bench`, and the folder of its shard."""
    (tmp_path / "bench.py").write_text(textwrap.dedent(STAND_IN))
    folder = tmp_path / "shard-1"
    source = f"""
import sys
from boltzbench.harness.cluster import job
job.BENCH = sys.executable, {str(tmp_path / "bench.py")!r}
own = job.ShardJob(("bench",), 1, 1, {str(folder)!r}, ".")
"""
    return source, folder


def wait_for(*paths):
    end = time.monotonic() + 20
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, paths
        time.sleep(0.01)


def test_a_killed_job_takes_bench_with_it_and_the_shard_is_free_again(endless, monkeypatch):
    source, folder = endless
    with subprocess.Popen([sys.executable, "-c", f"{source}own()"]) as process:
        wait_for(folder / "began", folder / "alive")
        monkeypatch.setattr(job, "LOCK_SECONDS", 0.1)
        with pytest.raises(ShardFailed, match="another job is at work on this shard"):
            ShardJob(("bench",), 1, 1, str(folder), ".")()
        process.kill()
    wait_for(folder / "stopped")
    monkeypatch.setattr(job, "LOCK_SECONDS", 5)
    monkeypatch.setattr(ShardJob, "_bench", lambda *arguments: Bench()(*arguments))
    assert ShardJob(("bench",), 1, 1, str(folder), ".")() == 0


def test_a_preempted_job_ends_bench_and_is_the_same_job_again(endless):
    pytest.importorskip("submitit")
    source, folder = endless
    preempted = """
import pathlib, pickle, signal
def handle(*_):
    again = own.checkpoint()
    assert (pathlib.Path(own.folder) / "stopped").exists()  # before the job is requeued
    assert pickle.loads(pickle.dumps(again)).function == own
    sys.exit(9)
signal.signal(signal.SIGUSR2, handle)
own()
"""
    with subprocess.Popen([sys.executable, "-c", source + preempted]) as process:
        wait_for(folder / "began")
        os.kill(process.pid, signal.SIGUSR2)
        assert process.wait(20) == 9
    assert (folder / "stopped").exists()
    assert not (folder / "alive").exists()


def test_a_job_waits_for_the_signal_of_a_preemption(bench, monkeypatch, tmp_path):
    """Slurm's SIGTERM has ended `bench`; submitit's signal follows, calls `checkpoint` and ends the process."""

    def signalled(seconds):
        raise SystemExit(seconds)

    monkeypatch.setattr(ShardJob, "_bench", lambda *arguments: -signal.SIGTERM)
    monkeypatch.setattr(job, "sleep", signalled)
    with pytest.raises(SystemExit) as ended:
        ShardJob(("bench",), 1, 1, str(tmp_path / "shard-1"), ".")()
    assert ended.value.code == job.PREEMPTION_SECONDS
    assert not (tmp_path / "shard-1" / "failure.txt").exists()


def test_options_that_go_with_resume():
    arguments = ["-o", "sgld", "--device", "cuda:1", "--mode=hot", "--time-limit=5"]
    assert job._options(arguments, job.WITH_RESUME) == ["--device", "cuda:1", "--time-limit=5"]


@pytest.fixture
def catalogue(monkeypatch):
    """The plugins are read in this process."""
    registry = load_registry()
    monkeypatch.setattr(run_trials, "read_catalogue", lambda *_, **__: registry)


def run_submit(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        app.main(["submit", *arguments])
    return ended.value.code, *capsys.readouterr()


def test_without_submitit_or_slurm(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "submitit", None)
    words = "boltzbench: submit needs submitit; install it with: pip install 'boltzbench[slurm]'\n"
    assert run_submit(capsys, "--nodes", "2", "--", "bench") == (2, "", words)
    monkeypatch.undo()
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "there is no Slurm on this machine (sbatch and srun)" in run_submit(capsys, "--nodes", "2", "--", "bench")[2]
    local = ("--nodes", "2", "--cluster", "local")
    assert "--partition and --slurm go with Slurm" in run_submit(capsys, *local, "--partition", "gpu", "--", "bench")[2]
    assert "--slurm takes an option of sbatch" in run_submit(capsys, *local, "--slurm", "x", "--", "bench")[2]
    assert "No such option: --devic" in run_submit(capsys, *local, "--", "bench", "--devic", "cpu")[2]
    assert not list(tmp_path.iterdir())


def test_a_name_that_does_not_exist_waits_in_no_queue(bench, capsys, catalogue):
    pytest.importorskip("submitit")
    for options, words in {
        "-o lgosumexp": "unknown operation 'lgosumexp': did you mean logsumexp?",
        "-o sgld -i tritn": "unknown implementation of sgld 'tritn': did you mean triton?",
        "-o sgld --dtype float33": "unknown dtype 'float33': did you mean float32 or float16 or bfloat16?",
        "--preset fast": "unknown preset 'fast': choose from full, quick, smoke",
        "--mode warm": "unknown mode 'warm': choose from both, cold, hot",
        "-o sgld --sizes tensors": "--sizes",
    }.items():
        command = ("--nodes", "2", "--cluster", "local", "--", "bench", *options.split())
        status, out, error = run_submit(capsys, *command)
        assert (status, out) == (2, "")
        assert words in error
    assert not [*Path.cwd().iterdir()]
    assert bench.calls == []


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for the commands of Slurm, which keep the submitted script; and the queue, a file of job numbers."""
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name, text in {
        "sbatch": f'cp "$1" {tmp_path}/script; echo 71_0 71_1 > {tmp_path}/queue; echo "Submitted batch job 71"',
        "squeue": f"cat {tmp_path}/queue",
        "srun": "exit 1",
        "scancel": f"rm {tmp_path}/queue; touch {tmp_path}/queue",
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(executors, "QUEUE_SECONDS", 0.0)
    return tmp_path


def interrupt(*_):
    raise KeyboardInterrupt


def test_slurm_gets_one_array_which_is_followed_and_continued(bench, slurm, capsys, monkeypatch, catalogue):
    wanted = ["--nodes", "2", "--partition", "gpu", "--gpus", "1", "--minutes", "30", "--slurm", "account=mine"]
    status, out, _ = run_submit(capsys, *wanted, "--detach", "--", *COMMAND)
    assert status == 0
    assert f"Follow, continue and merge with: boltzbench submit {' '.join(wanted)} -- {' '.join(COMMAND)}" in out
    script = (slurm / "script").read_text()
    for words in ("array=0-1%2", "partition=gpu", "gpus-per-node=1", "time=30", "account=mine", "signal=USR2@90"):
        assert f"#SBATCH --{words}" in script
    (folder,) = slurm.glob("runs/submit-*")
    assert json.loads((folder / "ids.txt").read_text()) == {"1": "71_0", "2": "71_1"}
    (slurm / "script").unlink()
    (folder / "shard-1").mkdir()
    ShardJob(tuple(COMMAND), 1, 2, str(folder / "shard-1"), ".")()
    (slurm / "queue").write_text("71_1\n")
    following = Submitit("slurm").at_work(folder)
    assert [following[1].done(), following[2].done()] == [True, False]
    following[2].cancel()
    assert following[2].done()
    text = f'#!/bin/sh\ncp "$1" {slurm}/script; echo "Submitted batch job 72"\n'
    (slurm / "bin" / "sbatch").write_text(text.replace("echo", f"echo 72 > {slurm}/queue; echo"))
    with monkeypatch.context() as patch:
        patch.setattr(submission, "_follow", interrupt)
        status, out, _ = run_submit(capsys, *wanted, "--", *COMMAND)
    assert status == 130
    assert out.startswith("Interrupted. The jobs go on; `scancel 71 72` ends them.\nContinue with: boltzbench submit")
    (slurm / "queue").write_text("")
    (slurm / "bin" / "sbatch").write_text(text)
    status, out, _ = run_submit(capsys, *wanted, "--", *COMMAND)
    assert status == 1, "the stand-in starts nothing, so the job of shard 2 has ended without a result"
    assert "shard 2/2 is unfinished (0 of ? checks): its job ended without a result" in out
    assert "--array=" not in (slurm / "script").read_text(), "one shard was left"
    assert f"What is finished is kept. Continue with: boltzbench submit {' '.join(wanted)} -- bench" in out
    assert len(bench.calls) == 1


def test_a_queue_that_does_not_answer_ends_no_job():
    answers = iter([(1, ""), (0, "71_0 71_1"), (1, ""), (0, "71_1")])

    def run(command, **_):
        status, text = next(answers)
        return SimpleNamespace(returncode=status, stdout=text)

    queue = executors._Queue(run)
    found = []
    for _ in range(4):
        found.append(queue.has("71_0"))
        queue._asked = float("-inf")
    assert found == [True, True, True, False]
