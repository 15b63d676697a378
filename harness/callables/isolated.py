"""`measure`, `compare` and `sweep` in another process: ``python -m boltzbench.harness.callables.isolated FOLDER``."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..api.messages import describe_error
from ..api.operations import Agreement, Status
from .call import names_for
from .compare import Compared, Ratio, compared, require_callables
from .measured import Measured
from .request import Request

STARTING_SECONDS = 240.0
"""Time that the process has beyond the limit, to import torch and to measure the limits of the device."""

GIVEN, RUNNING, FOUND = "given", "running", "found"
"""Files in the folder: what to measure, the name of the callable that runs, and the result or the exception."""


def compared_in_a_process(
    callables: Mapping[str, Callable[..., Any]],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    request: Request,
    baseline: str | None = None,
) -> Compared:
    """What `compared` returns. A crash and a call that never returns are the verdict of the callable that ran then:
    another process takes the others, from the start."""
    first = require_callables(callables, baseline)
    operation, _ = names_for(callables[first], request)
    found: dict[str, Measured] = {}
    ratios: Mapping[str, Ratio] = {}
    left = dict(callables)
    while left:
        done = _run(left, args, kwargs, request, first if first in left else None)
        if isinstance(done, Compared):
            found |= {name: replace(each, operation=operation) for name, each in done.results.items()}
            ratios = done.ratios if done.baseline == first else {}
            break
        running, verdict = done
        for name in [running] if running in left else [*left]:
            found[name] = Measured(name, operation, "", verdict, "")
            del left[name]
    return Compared({name: found[name] for name in callables}, first, ratios)


def _run(
    callables: Mapping[str, Callable[..., Any]],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    request: Request,
    baseline: str | None,
) -> Compared | tuple[str, Agreement]:
    """What a process found; or the name of the callable that ran when it ended, and that callable's verdict."""
    if any(getattr(each, "__module__", "") == "__main__" for each in (*callables.values(), request.reference)):
        raise ValueError("isolated=True needs functions that another process can import: move them to a module")
    try:
        given = pickle.dumps((dict(callables), tuple(args), dict(kwargs), request, baseline))
    except Exception as error:  # pickle raises whatever an object's own code does
        raise ValueError(
            f"isolated=True needs functions and arguments that another process can import: {describe_error(error)}"
        ) from error
    with TemporaryDirectory() as path:
        folder = Path(path)
        (folder / GIVEN).write_bytes(given)
        (folder / RUNNING).write_text("")
        command = [sys.executable, "-m", __name__, path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
        try:
            status = subprocess.run(command, env=environment, timeout=request.time_limit + STARTING_SECONDS).returncode
        except subprocess.TimeoutExpired:
            verdict = Agreement(
                Status.TIMEOUT, f"its process did not end within the time limit of {request.time_limit:g} s"
            )
            return (folder / RUNNING).read_text(), verdict
        if not (folder / FOUND).exists():
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
            return (folder / RUNNING).read_text(), Agreement(Status.ERROR, f"its process {how}")
        found = pickle.loads((folder / FOUND).read_bytes())
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, Compared)
    return found


def _main(folder: Path) -> None:
    found: Compared | Exception
    running = folder / RUNNING
    try:
        callables, args, kwargs, request, baseline = pickle.loads((folder / GIVEN).read_bytes())
        found = compared(callables, args, kwargs, request, baseline, running.write_text)
    except Exception as error:  # of an argument or of the harness: those of the callables are their verdicts
        found = _picklable(error)
    part = folder / f"{FOUND}.part"
    part.write_bytes(pickle.dumps(found))
    part.rename(folder / FOUND)


def _picklable(error: Exception) -> Exception:
    """The error, or if pickle cannot restore it one with the same words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickle raises whatever the error's own code does
        return RuntimeError(describe_error(error))
    return error


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
