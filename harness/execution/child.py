"""A child process that holds code of plugins, and the parent's connection to it.

The parent sends a question and the child an answer; before that the child sends the phases that it enters and its own
requests. The parent builds only plain values from what a child sends, so that no plugin runs code in it. A child that
is asked nothing is stopped (SIGSTOP): a thread that a plugin left there cannot disturb or use the turns of others.

Each child has a keeper: a process without any plugin that waits for it, then ends all that is left of it, also what
became a daemon or a session of its own, and then ends as the child did.
"""

import ctypes
import io
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, NoReturn

from ..api.messages import describe_error
from ..api.operations import Agreement, Status

STARTING_SECONDS = 120.0
"""Time limit for a child to import torch and the plugins on a busy machine."""

GRACE_SECONDS = 10.0
"""A child that asked for something has so much more time to tell what came of it."""

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

DESCRIPTORS = "/proc/self/fd/"

Announce = Callable[[Any], None]
Relay = Callable[[str, tuple[Any, ...], float], Any]
"""Answers a child's request; the last argument is the time, on the monotonic clock, at which it must have done so."""
Main = Callable[[Connection, Any], None]
"""What a child does: it answers questions from the connection until that is closed."""

_processes = multiprocessing.get_context("forkserver")
"""Children fork from a server that has imported torch, but no plugin, and has not used a GPU."""


_starting = threading.Lock()
"""Held while a process starts: multiprocessing keeps a list of all of them."""


class Died(Exception):
    """A child gave no answer. ``status`` is ``error`` or ``timeout``; the message says what happened to it."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class Failed(Exception):
    """The work of a child failed as ``agreement`` says."""

    def __init__(self, agreement: Agreement) -> None:
        super().__init__(agreement.message)
        self.agreement = agreement


def start_server(module: str, *, many: bool = False) -> None:
    """Start the server of all children, which imports this ``module`` first. The server ends with the calling thread.

    If ``many`` children will work at once, threads of OpenMP that have nothing to do sleep, where they would spin and
    take the cores from others. A variable of the environment decides that when the library is loaded.
    """
    _processes.set_forkserver_preload([__name__, module])
    policy = os.environ.get("OMP_WAIT_POLICY")
    if many and policy is None:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if _in_main_thread() else None
    try:  # after Ctrl-C the server would print its own traceback
        _ensure_running()
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        if many and policy is None:
            del os.environ["OMP_WAIT_POLICY"]


def _ensure_running() -> None:
    """Start the server unless it runs.

    A killed command would leave the server's socket in the folder for temporary files. So this process removes the
    socket's name at once and connects through a descriptor. Such a path is also short, as the address of a socket must
    be, whatever the name of that folder.
    """
    server: Any = forkserver._forkserver
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="boltzbench-") as folder:
        place = os.open(folder, os.O_PATH)
        config["tempdir"] = f"{DESCRIPTORS}{place}"
        try:
            forkserver.ensure_running()
            if server._forkserver_address.startswith(f"{DESCRIPTORS}{place}/"):  # it has just started
                server._forkserver_address = f"{DESCRIPTORS}{os.open(server._forkserver_address, os.O_PATH)}"
        finally:
            config["tempdir"] = None
            os.close(place)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Child:
    """One process and the connection to it. ``main(connection, argument)`` runs in the process.

    If ``whole``, what the process started and what left its group is stopped with it; that takes milliseconds.
    """

    def __init__(
        self, main: Main, argument: Any, environment: Mapping[str, str], announce: Announce, *, whole: bool = False
    ) -> None:
        self._announce, self._whole = announce, whole
        self._pid: int | None = None
        self.spoilt = ""
        """What the child says is not as it was: it should be asked nothing more."""
        announce("start")
        self._connection, theirs = _processes.Pipe()
        self._process = _processes.Process(target=_keep, args=(main, theirs, argument, dict(environment)), daemon=True)
        with _starting:
            self._process.start()
        theirs.close()
        try:
            self._answer(monotonic() + STARTING_SECONDS, STARTING_SECONDS)
        except BaseException:
            self.end()
            raise
        self._signal(signal.SIGSTOP)

    def ask(
        self,
        question: str,
        *arguments: Any,
        seconds: float,
        until: float | None = None,
        relay: Relay | None = None,
        renew: bool = False,
    ) -> Any:
        """The answer. Raises `Died` if there is none within ``seconds``, or ``until`` a time on the monotonic clock.

        ``relay`` answers requests that the child makes meanwhile. If ``renew``, each phase has so many seconds.
        """
        self._signal(signal.SIGCONT)
        try:
            with suppress(OSError):  # if the child has died, `_answer` says how
                self._connection.send((question, *arguments))
            return self._answer(until or monotonic() + seconds, seconds, relay, renew)
        finally:
            self._signal(signal.SIGSTOP)

    def _answer(self, until: float, seconds: float, relay: Relay | None = None, renew: bool = False) -> Any:
        patience = until
        while True:
            try:
                if not self._connection.poll(max(0.0, patience - monotonic())):
                    raise Died(Status.TIMEOUT, f"no answer within {seconds:g} s: stopped")
                kind, *content = read(self._connection)
            except (EOFError, OSError):
                self._pid = None
                raise Died(Status.ERROR, self._exit_reason()) from None
            except pickle.UnpicklingError as error:
                raise Died(Status.ERROR, f"its process sent what the harness does not read: {error}") from None
            if kind == "answer":
                return content[0]
            if kind == "failed":
                raise Failed(content[0])
            if kind == "broken":
                raise Died(Status.ERROR, str(content[0]))
            if kind == "process" and self._pid is None:
                self._pid = int(content[0])
            elif kind == "please" and relay:
                question, *arguments = content
                reply = relay(question, tuple(arguments), until)
                patience = max(until, monotonic() + GRACE_SECONDS)
                with suppress(OSError):
                    self._connection.send(reply)
            elif kind == "spoilt":
                self.spoilt = str(content[0])
            elif kind == "phase":
                self._announce(content[0])
                patience = monotonic() + seconds if renew else patience

    def _exit_reason(self) -> str:
        self._process.join(10)
        code = self._process.exitcode
        if code is None:
            return "its process closed the connection to the harness"
        if code >= 0:
            return f"its process exited with status {code}"
        number = signal.Signals(-code)
        hint = " (out of memory?)" if number is signal.SIGKILL else ""
        return f"its process crashed: {number.name}, {signal.strsignal(number)}{hint}"

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its group. The keeper reaps it only when all is over: no pid is reused."""
        if self._pid is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)
        for pid in descendants(self._process.pid or 0) if self._whole else ():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End the process and all that it started, without waiting; any thread may call this."""
        with suppress(ValueError):  # another thread has just ended it
            self._process.terminate()

    def end(self) -> None:
        """End the process and all that it started."""
        self._connection.close()
        if self._process.exitcode is None:
            self._process.terminate()  # the keeper ends the others first
            self._process.join(GRACE_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
        self._process.join()
        self._process.close()
        self._pid = None


class _Writer(pickle.Pickler):
    """Writes NumPy's numbers, which plugins put into results, as Python's."""

    def reducer_override(self, value: Any) -> Any:
        numpy = sys.modules.get("numpy")  # slow to import
        if numpy and isinstance(value, numpy.generic):
            number = value.item()
            return type(number), (number,)
        return NotImplemented


class _Reader(pickle.Unpickler):
    """Builds numbers and the harness's own plain types, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("builtins", "float"), ("builtins", "int"), ("builtins", "bool")):
            return super().find_class(module, name)
        if module.startswith(ALLOWED_MODULES) and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError(f"{module}.{name}")


_HARNESS = __package__.rpartition(".")[0]
ALLOWED_MODULES = tuple(
    f"{_HARNESS}.{room}"
    for room in (
        *("api.", "discovery.registry", "discovery.signature", "execution.catalogue", "execution.shared_memory"),
        "inspection.inspect",
        "inspection.prediction",
        "validation.progress",
    )
)


def read(connection: Connection) -> Any:
    """The next message, of plain values and the harness's own types. Raises UnpicklingError for anything else."""
    return plain(connection.recv_bytes())


def plain(message: bytes) -> Any:
    """What was pickled, if it has no other types than the harness's own."""
    try:
        return _Reader(io.BytesIO(message)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        raise pickle.UnpicklingError(describe_error(error)) from error


def answer_all(connection: Connection, answer: Callable[..., Any], after: Callable[[], None] = lambda: None) -> None:
    """Answer questions until the parent closes the connection or dies. `Failed` becomes a failed answer."""
    connection.send(("answer", None))
    while True:
        try:
            question = connection.recv()
        except (EOFError, OSError):
            return
        try:
            reply = "answer", answer(*question)
        except Failed as failed:
            reply = "failed", failed.agreement
        after()
        message = io.BytesIO()
        _Writer(message).dump(reply)
        connection.send_bytes(message.getbuffer())


def _keep(main: Main, connection: Connection, argument: Any, environment: Mapping[str, str]) -> NoReturn:
    """Run ``main`` in a child of this process; when that ends, end what it left and end as it did."""
    os.setsid()  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: _end_all())
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what loses its parent becomes a child of this process
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a hanging kernel must not outlive the run
    # The server ends when all processes have closed this descriptor. Every child inherits it, so a child that hangs
    # would keep the server, and thus itself, alive after the parent's death.
    with suppress(AttributeError, OSError):
        os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)
        _run(main, connection, argument, environment)
    with suppress(OSError):
        os.setpgid(pid, pid)  # in both, since either may be first
        connection.send(("process", pid))
    connection.close()
    os.close(tell)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # not reaped yet: the parent may signal its group
    status = _end_descendants(pid)
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _run(main: Main, connection: Connection, argument: Any, environment: Mapping[str, str]) -> NoReturn:
    os.environ.clear()
    os.environ.update(environment)
    status = 0
    try:
        main(connection, argument)
    except Exception as error:  # an error of the harness, or an unusable device
        with suppress(OSError):
            connection.send(("broken", f"its process broke down: {describe_error(error)}"))
    except BaseException:
        status = 1
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _prctl(option: int, value: int) -> None:
    with suppress(AttributeError, OSError):  # not all systems have this call
        ctypes.CDLL(None).prctl(option, value)


def _quiet_without_command(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print no traceback of an error that says that the command was killed."""
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, traceback)


if getattr(sys.modules["__main__"], "main", None) is forkserver.main:  # this is the server
    sys.excepthook = _quiet_without_command  # also of children until they have started
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # also while it imports the rest


def _end_all() -> NoReturn:
    _end_descendants()
    os._exit(0)


def _end_descendants(pid: int = 0) -> int:
    """Kill every descendant of this process, at most `GRACE_SECONDS` long. Returns the wait status of child ``pid``."""
    status, until = 0, monotonic() + GRACE_SECONDS
    while monotonic() < until:
        for each in descendants(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                status = ended[1] if ended[0] == pid else status
        except ChildProcessError:
            break
        sleep(0.001)
    return status


def descendants(ancestor: int) -> list[int]:
    """The processes below this one, as /proc shows them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(ancestor, ()))
    for each in found:  # grows meanwhile
        found += children.get(each, ())
    return found
