"""Two network namespaces as two machines: torchrun meets across them, and each gives up when the link is cut."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ADDRESSES = ("10.77.0.1", "10.77.0.2")
LIMIT = 2.0
"""Seconds that a rank waits for another."""
ENDS = LIMIT + 2 * 3.0 + 5.0
"""Seconds within which both end: two tries to ask the rendezvous follow the limit; the rest is a busy machine's."""
PATIENCE = 60.0
"""Seconds after which all is ended: nothing hangs."""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """The names of two namespaces, each with one end of a cable; the ends have the same names."""
    names = tuple(f"boltz{os.getpid()}{side}" for side in "ab")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        words = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"no network namespaces here: {words.strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def start(machine: str, number: int, folder: Path) -> subprocess.Popen[str]:
    """torchrun with one rank on a machine."""
    place = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1", "--master-addr", ADDRESSES[0]]
    return subprocess.Popen(
        [
            *("ip", "netns", "exec", machine, sys.executable, "-m", "torch.distributed.run", *place),
            *(str(Path(__file__).with_name("one_rank.py")), str(LIMIT), str(folder)),
        ],
        env={**os.environ, "GLOO_SOCKET_IFNAME": machine, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip


def test_two_machines_give_the_bits_of_one_and_hear_that_the_other_is_gone(machines, tmp_path):
    runs = [start(name, number, tmp_path) for number, name in enumerate(machines)]

    def end() -> None:
        for run in runs:
            os.killpg(run.pid, signal.SIGKILL)

    patience = threading.Timer(PATIENCE, end)
    patience.start()
    try:
        assert [run.stdout.readline() for run in runs] == [f"rank {k} of 2: same bits\n" for k in (0, 1)]
        ip("-n", machines[1], "link", "set", machines[1], "down")
        begin = time.monotonic()
        assert [run.stdout.readline() for run in runs] == [
            "lost: rank 1 of 2 does not answer; start the run again\n",
            "lost: rank 0 of 2, which keeps the rendezvous, does not answer; start the run again\n",
        ]
        assert LIMIT < time.monotonic() - begin < ENDS
    finally:
        patience.cancel()
        end()
        for run in runs:
            run.wait()
