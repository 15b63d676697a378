"""Output that cannot be written, and a second Ctrl-C: a sentence at most, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Measurement, Record, Run
from boltzbench.harness.results.file import SCHEMA, run_to_json

FULL = Path("/dev/full")
BOLTZBENCH = (sys.executable, "-m", "boltzbench.harness")
BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}
UNBUFFERED = {**os.environ, "PYTHONUNBUFFERED": "1"}
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run.json"
    measurement = Measurement("CPU", "cold", (1.0, 1.1, 0.9), 1.0, 0.9, 1.1, 1.0, "rows", 1.0, 1.0)
    record = Record("double", "torch", "torch", "p", "n=3", "bench", Status.PASSED, measurements=(measurement,))
    path.write_text(run_to_json(Run(SCHEMA, "complete", {"device": "cpu", "cpu": "EPYC"}, (record,))))
    return path


@needs_full
@pytest.mark.parametrize(
    ("command", "environment"),
    [
        *(("--version", each) for each in (BUFFERED, UNBUFFERED)),
        *((each, BUFFERED) for each in ("--help", "compare RUN RUN", "report RUN --markdown -", "report RUN --csv -")),
    ],
    ids=["--version", "--version, unbuffered", "--help", "compare", "markdown", "csv"],
)
def test_a_full_disk_is_a_sentence(run_file, command, environment):
    arguments = command.replace("RUN", str(run_file)).split()
    with FULL.open("w") as full:
        ended = subprocess.run(
            [*BOLTZBENCH, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert ended.returncode == 2
    assert ended.stderr == "boltzbench: cannot write the output: No space left on device\n"


@needs_full
def test_json_on_a_full_disk_is_a_sentence():
    program = (
        "from boltzbench.harness.report.terminal import outputs\n"
        "from boltzbench.harness.results.file import ResultsError\n"
        "try:\n"
        "    with outputs('-') as (_, write_json):\n"
        "        write_json('{}')\n"
        "except ResultsError as error:\n"
        "    raise SystemExit(str(error))\n"
    )
    with FULL.open("w") as full:
        ended = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == "cannot write standard output: No space left on device\n"


@needs_full
def test_a_message_that_cannot_be_written_keeps_the_status():
    with FULL.open("w") as full:
        ended = subprocess.run(
            [*BOLTZBENCH, "report", "missing.json"], stdout=subprocess.PIPE, stderr=full, env=BUFFERED
        )
    assert (ended.returncode, ended.stdout) == (2, b"")


def test_closed_descriptors_are_no_error(run_file):
    command = f"exec {sys.executable} -m boltzbench.harness compare {run_file} {run_file} >&- 2>&-"
    assert subprocess.run(["sh", "-c", command]).returncode == 0


def test_a_second_ctrl_c_does_not_interrupt_the_end():
    program = (
        "import atexit, os, signal, sys\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "sys.argv = ['boltzbench', '--version']\n"
        "from boltzbench.harness.__main__ import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
