"""The cache of compiled kernels and of chosen plans: files that are checked before use, and a folder to build in.

The digest of a file's content is part of its name. `find` compares the two, so a file that is damaged or cut is built
again. A file gets its name when it is complete and on the disk. Folders are for their owner alone (mode 0700), and
nothing of another owner is used.

The cache is ``$XDG_CACHE_HOME/boltzbench`` or ``~/.cache/boltzbench``, and where that cannot be written
``boltzbench-<user id>`` in the folder for temporary files.
"""

from __future__ import annotations

import fcntl
import functools
import glob
import hashlib
import json
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .compiler import run_compiler

SCRATCH = "scratch-"
LARGEST_BUILD = 8 << 20
"""Bytes of the largest shared object that is expected: so much must be free where one is built."""


def compiled(
    kind: str,
    stem: str,
    identity: Sequence[str],
    command: Sequence[str],
    unit: Path | str,
    failed: Callable[[str], Exception],
    suffix: str = ".so",
    beside: Callable[[], Mapping[str, Path]] = dict,
) -> Path:
    """What ``command`` compiles ``unit`` (a C++ file, or its text) to: from the cache, or built now.

    ``suffix`` is that of the result, ".o" if the command does not link. ``identity`` is all that the result depends on,
    ``failed`` makes the error from the compiler's messages. ``beside``, called before a build, gives the files that a
    text finds beside it, by name. Several processes may build at once. Raises that error, and OSError if no folder can
    be written.
    """
    name = f"{stem}-{hashlib.sha256(json.dumps(list(identity)).encode()).hexdigest()[:24]}"
    found = find(kind, name, suffix)
    if found is not None:
        return found
    problems: list[OSError] = []
    for folder in _folders(kind, problems):
        try:
            with _scratch(folder) as scratch:
                _require_space(scratch)
                source = unit if isinstance(unit, Path) else scratch / "unit.cpp"
                if isinstance(unit, str):
                    source.write_text(unit)
                for link, file in beside().items():
                    (scratch / link).symlink_to(file)
                built = scratch / f"unit{suffix}"
                try:
                    run = run_compiler([*command, str(source), "-o", str(built)], scratch)
                except OSError as error:
                    raise failed(f"the compiler cannot be started: {error}") from error
                if run.returncode != 0:
                    raise failed(run.stdout + run.stderr)
                return _keep(folder, name, suffix, built.read_bytes())
        except OSError as error:
            problems.append(error)
    raise _unwritable(problems)


def find(kind: str, name: str, suffix: str) -> Path | None:
    """The file that `store` wrote last under this name, or None. Files whose content has changed are removed."""
    for folder in _folders(kind, [], create=False):
        _tidy(folder)
        pattern = f"{glob.escape(str(folder / name))}.*{suffix}"
        with suppress(OSError):  # another process may remove a file meanwhile
            for path in sorted(map(Path, glob.iglob(pattern)), key=os.path.getmtime, reverse=True):
                if _is_sound(path):
                    return path
                path.unlink(missing_ok=True)
    return None


def store(kind: str, name: str, suffix: str, data: bytes, *, replacing: bool = False) -> Path:
    """Write a file that `find` finds complete or not at all, even if several processes write it at once.

    If ``replacing``, files of this name with other content are removed. Raises OSError if no folder can be written.
    """
    problems: list[OSError] = []
    for folder in _folders(kind, problems):
        try:
            path = _keep(folder, name, suffix, data)
        except OSError as error:
            problems.append(error)
            continue
        if replacing:
            for other in glob.iglob(f"{glob.escape(str(folder / name))}.*{suffix}"):
                if other != str(path):
                    Path(other).unlink(missing_ok=True)
        return path
    raise _unwritable(problems)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _is_sound(path: Path) -> bool:
    """Whether the file is ours, and its content the one that its name states."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            return False
        return path.name.split(".")[-2] == _digest(file.read())


def _keep(folder: Path, name: str, suffix: str, data: bytes) -> Path:
    path = folder / f"{name}.{_digest(data)}{suffix}"
    with _scratch(folder) as scratch:
        whole = scratch / "whole"
        with whole.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(whole, path)
    return path


def _require_space(scratch: Path) -> None:
    """Raise OSError if the disk is full, which would seem to be an error of the compiler."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        os.posix_fallocate(file.fileno(), 0, LARGEST_BUILD)


def _unwritable(problems: Sequence[OSError]) -> OSError:
    return OSError(f"no folder for compiled kernels can be written: {'; '.join(map(str, problems))}")


def _folders(kind: str, problems: list[OSError], *, create: bool = True) -> Iterator[Path]:
    """The folders for files of this kind, the best first. Adds to ``problems`` why one is unusable."""
    for root in (_cache_root(), Path(tempfile.gettempdir(), f"boltzbench-{os.geteuid()}")):
        if root is None:
            continue
        try:
            if create:
                root.parent.mkdir(parents=True, exist_ok=True)
            for folder in (root, root / kind):
                if create:
                    with suppress(FileExistsError):
                        folder.mkdir(mode=0o700)
                _make_private(folder)
        except OSError as error:
            problems.append(error)
        else:
            yield root / kind


def _cache_root() -> Path | None:
    """The user's cache. A relative path would depend on the working directory, so it is ignored."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        try:
            home = os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            return None
        if not os.path.isabs(home):
            return None
        cache = os.path.join(home, ".cache")
    return Path(os.path.realpath(os.path.join(cache, "boltzbench")))  # it may be a link to a larger disk


def _make_private(folder: Path) -> None:
    """Raise OSError unless the folder is ours, and keep others out of it."""
    about = os.lstat(folder)
    if not stat.S_ISDIR(about.st_mode):
        raise NotADirectoryError(f"{folder} is no folder")
    if about.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user (id {about.st_uid})")
    if stat.S_IMODE(about.st_mode) != 0o700:
        folder.chmod(0o700)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A new folder inside ``folder``, which is removed at the end, or by `_tidy` if this process is killed."""
    with locked(folder):  # so that no process tidies between the next two lines
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=SCRATCH))
        descriptor = _lock(scratch)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(descriptor)


@functools.cache
def _tidy(folder: Path) -> None:
    """Remove what killed processes left in ``folder``: scratch folders without a lock. Once in a process."""
    left = list(folder.glob(f"{SCRATCH}*"))
    if not left:
        return
    with locked(folder):
        for scratch in left:
            with suppress(OSError):  # locked, so in use; or gone
                descriptor = os.open(scratch, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(scratch, ignore_errors=True)
                finally:
                    os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from what they do under the same lock, where the file system has locks."""
    descriptor = _lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """A descriptor of the folder that holds its lock, where the file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor
