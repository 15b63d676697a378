"""The command `distributed`, with ranks that are stand-ins, and with a rendezvous that is not there."""

import json
import time

import pytest
from boltzbench.harness.cli import app as cli
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE
from boltzbench.plugins.samplers import distributed as plugin
from support.fakes import install

PLUGIN = """
    import contextlib
    import torch
    from boltzbench.harness import DistributedAlgorithm, DistributedRun, hookimpl

    BOLTZBENCH_API = 1


    class Two:
        rank, size = 0, 2

        def gather(self, rows):
            return torch.cat([rows, 2 * rows])


    @contextlib.contextmanager
    def join(timeout):
        if timeout == 3:
            raise ValueError("MASTER_ADDR must name the rendezvous")
        yield Two(), torch.device("cpu")


    def start(share):
        def on(ranks, device):
            if share < 0:
                raise RuntimeError("rank 1 of 2 does not answer; start the run again")
            found = torch.zeros(3)

            def advance(steps):
                found.add_(steps if ranks is None else 2 * share * steps)

            return DistributedRun(advance, lambda: found, 24, lambda alone: alone / 2 / 0.75)

        return on


    @hookimpl
    def register_distributed(register):
        for name, share in (("halves", 0.5), ("thirds", 0.33), ("lost", -1)):
            register(DistributedAlgorithm(name, "Adds up.", "addition", 4, join, start(share)))
    """


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    install(tmp_path, {"ranks": PLUGIN})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv(PLUGINS_VARIABLE, "ranks,samplers.distributed")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(["distributed", *arguments])
        return caught.value.code, *capfd.readouterr()

    return run


def test_an_algorithm_with_the_same_bits(run):
    status, out, _ = run("-a", "halves", "--json", "found.json")
    assert status == 0
    header, row, *_ = out.splitlines()
    assert header.split()[-4:] == ["alone", "together", "efficiency", "expected"]
    assert row.split()[:3] == ["halves", "2", "yes"]
    assert row.split()[-1] == "75%"
    assert "A step is one addition (halves)." in out
    assert "one rank alone" not in out
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines())
    with open("found.json") as file:
        (found,) = json.load(file)["algorithms"]
    assert found["same_bits"] is True
    assert found["bytes_per_step"] == 48  # of the rank that sends most
    assert found["seconds"] > 0
    assert found["efficiency"] == pytest.approx(found["seconds_alone"] / (2 * found["seconds"]))


def test_other_bits_are_shown(run):
    status, out, _ = run("-a", "thirds", "-a", "halves", "--json", "-")
    assert status == 1
    assert [each["same_bits"] for each in json.loads(out)["algorithms"]] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-a", "halve"), "unknown distributed algorithm 'halve': did you mean halves?"),
        (("-a", "halves", "--time-limit", "3"), "boltzbench: MASTER_ADDR must name the rendezvous\n"),
        (("-a", "lost"), "boltzbench: rank 1 of 2 does not answer; start the run again\n"),
        (("-a", "halves", "--time-limit", "0"), "--time-limit"),
    ],
)
def test_what_cannot_run_is_a_sentence(run, arguments, words):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_one_rank_without_torchrun(run, monkeypatch):
    monkeypatch.setattr(plugin, "CHAINS", 64)
    status, out, _ = run("-a", "chains")
    assert status == 0
    assert out.splitlines()[1].split()[:4] == ["chains", "1", "yes", "nothing"]
    assert "This was one rank alone; four: torchrun --nproc-per-node 4 -m boltzbench.harness" in " ".join(out.split())


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "1"}, "WORLD_SIZE must be set"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT must name the rendezvous"),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"},
            "rank 1 of 2 found no rendezvous at 127.0.0.1:9 in 1 s",
        ),
    ],
)
def test_a_missing_rendezvous(run, monkeypatch, variables, words):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    begin = time.monotonic()
    status, out, err = run("-a", "enumeration", "--time-limit", "1")
    assert (status, out) == (2, "")
    assert words in err
    assert time.monotonic() - begin < 10
