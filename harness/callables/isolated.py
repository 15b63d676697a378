"""`measure` in a process of its own: ``python -m boltzbench.harness.callables.isolated FOLDER`` is that process."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..api.messages import describe_error
from ..api.operations import Agreement, Status
from .call import name_of
from .measured import Measured
from .request import Request

STARTING_SECONDS = 240.0
"""Time that the process has beyond the limit, to import torch and to measure the limits of the device."""

GIVEN, FOUND = "given", "found"
"""Files in the folder: what to measure, and the result or the exception."""


def measured_in_a_process(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], request: Request
) -> Measured:
    """What `measure` returns. A crash and a call that never returns become its verdict."""
    name = name_of(fn)
    if any(getattr(each, "__module__", "") == "__main__" for each in (fn, request.reference)):
        raise ValueError("isolated=True needs functions that another process can import: move them to a module")
    try:
        given = pickle.dumps((fn, tuple(args), dict(kwargs), request))
    except Exception as error:  # pickle raises whatever an object's own code does
        raise ValueError(
            f"isolated=True needs functions and arguments that another process can import: {describe_error(error)}"
        ) from error
    with TemporaryDirectory() as path:
        folder = Path(path)
        (folder / GIVEN).write_bytes(given)
        command = [sys.executable, "-m", __name__, path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
        try:
            status = subprocess.run(command, env=environment, timeout=request.time_limit + STARTING_SECONDS).returncode
        except subprocess.TimeoutExpired:
            words = f"its process did not end within the time limit of {request.time_limit:g} s"
            return Measured(name, name, "", Agreement(Status.TIMEOUT, words), "")
        if not (folder / FOUND).exists():
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
            return Measured(name, name, "", Agreement(Status.ERROR, f"its process {how}"), "")
        found = pickle.loads((folder / FOUND).read_bytes())
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, Measured)
    return found


def _main(folder: Path) -> None:
    from .measure import measured

    found: Measured | Exception
    try:
        found = measured(*pickle.loads((folder / GIVEN).read_bytes()))
    except (TypeError, ValueError) as error:
        found = error
    part = folder / f"{FOUND}.part"
    part.write_bytes(pickle.dumps(found))
    part.rename(folder / FOUND)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
