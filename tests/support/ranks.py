"""Processes for tests of algorithms over ranks: forked from one process that has imported torch, and kept.

`Pool` keeps 8 processes with groups of the first 1, 2, 4, ... of them. `alone` runs processes that nothing else uses,
for tests that kill some.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import secrets
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SIZES = (1, 2, 3, 4, 8)
PRELOADED = ["torch", "torch._dynamo", "pytest", "support.ranks", "boltzbench.kernels.distributed"]
LIMIT = 60.0
"""Seconds for a function on all ranks."""


def server() -> Any:
    """The multiprocessing context: a server that imports torch once, and forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Failed(Exception):
    """What a rank raised: ``kind``, the name of its class, and its traceback as text."""

    def __init__(self, kind: str, message: str, trace: str) -> None:
        super().__init__(kind, message, trace)
        self.kind, self.message, self.trace = kind, message, trace

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}\n{self.trace}"


class Pool:
    """8 processes, each a rank."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.processes, self.ends = _start(max(SIZES), Path(self.folder.name) / "rendezvous", SIZES, LIMIT)

    def run(self, size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function(group, *arguments)`` returns on each of the first ``size`` ranks.

        ``function`` is at the top level of its file. Raises `Failed` of the first rank that raised.
        """
        found = self.outcomes(size, function, *arguments)
        for each in found:
            if isinstance(each, Failed):
                raise each
        return found

    def outcomes(self, size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """As `run`, with `Failed` in place of what a rank that raised would have returned."""
        for end in self.ends[:size]:
            end.send_bytes(pickle.dumps((size, _place(function), arguments)))
        return [_receive(end) for end in self.ends[:size]]

    def close(self) -> None:
        for end in self.ends:
            end.close()
        for process in self.processes:
            process.join(10)
            process.kill()
        self.folder.cleanup()


def alone(size: int, function: Callable[..., Any], *arguments: Any, timeout: float | None = LIMIT) -> list[Any]:
    """What ``function(None, *arguments)`` returns on each of ``size`` new ranks; None of those that end.

    ``timeout``: that of their group, in seconds. With None they have no group, but the variables that torchrun sets.
    """
    with tempfile.TemporaryDirectory() as folder:
        processes, ends = _start(size, Path(folder) / "rendezvous", (), timeout)
        for end in ends:
            end.send_bytes(pickle.dumps((None, _place(function), arguments)))
        found = [_receive(end) for end in ends]
        for process, end in zip(processes, ends, strict=True):
            end.close()
            process.kill()
            process.join()
    return found


def variables(rank: int, size: int, port: int) -> dict[str, str]:
    """The variables that torchrun sets."""
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def free_port() -> int:
    """A port that nothing uses, at random below those that the system gives to others until a rank binds it."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def _start(size: int, file: Path, sizes: Iterable[int], timeout: float | None) -> tuple[list[Any], list[Connection]]:
    processes, ends, context, port = [], [], server(), free_port()
    for rank in range(size):
        mine, theirs = context.Pipe()
        place = variables(rank, size, port) if timeout is None else {}
        process = context.Process(target=_serve, args=(theirs, rank, size, file, sizes, timeout, place), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        ends.append(mine)
    return processes, ends


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__code__.co_filename, function.__name__


def _receive(end: Connection) -> Any:
    if not wait([end], LIMIT):
        return Failed("TimeoutError", f"no answer in {LIMIT:g} s", "")
    try:
        return pickle.loads(end.recv_bytes())
    except EOFError:
        return None


def _serve(
    end: Connection,
    rank: int,
    size: int,
    file: Path,
    sizes: Iterable[int],
    timeout: float | None,
    place: dict[str, str],
) -> None:
    """What a process does: one function after the other."""
    torch.set_num_threads(1)
    os.environ.update(place)
    groups: dict[int | None, Any] = {None: None}
    if timeout is not None:
        limit = timedelta(seconds=timeout)
        dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size, timeout=limit)
        groups |= {each: dist.new_group(list(range(each)), timeout=limit) for each in sizes}
    while True:
        try:
            wanted, name, arguments = pickle.loads(end.recv_bytes())
        except EOFError:
            os._exit(0)
        try:
            answer = _function(*name)(groups[wanted], *arguments)
        except Exception as error:
            answer = Failed(type(error).__name__, str(error), traceback.format_exc())
        end.send_bytes(pickle.dumps(answer))


def _function(file: str, name: str) -> Callable[..., Any]:
    """A function of a test file, which pytest imports under a name of its own."""
    module = sys.modules.get(file)
    if module is None:
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[file] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found: Callable[..., Any] = getattr(module, name)
    return found
