"""The cache of builds: what is damaged, foreign or half written is never used, and where the cache goes."""

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from boltzbench.kernels.builds import cache
from boltzbench.kernels.builds.compiler import CompilerNotFoundError, compiler

try:
    compiler()
except CompilerNotFoundError as error:
    pytest.skip(str(error), allow_module_level=True)

UNIT = 'extern "C" int answer() { return 42; }'


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A cache and a folder for temporary files of our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


@pytest.fixture
def builds(monkeypatch):
    """The commands of all builds."""
    commands = []
    run = cache.run_compiler
    monkeypatch.setattr(cache, "run_compiler", lambda *given: commands.append(given) or run(*given))
    return commands


def build():
    return cache.compiled("native", "unit", [UNIT], [compiler(), "-shared", "-fPIC"], UNIT, RuntimeError)


def files(folder):
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def damaged(path, how):
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a bit":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif how == "of another owner":
        os.chown(path, 12345, -1)
    else:
        path.unlink()
        if how == "a folder":
            path.mkdir()
        else:
            (path.parent / "elsewhere").write_bytes(data)
            path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("how", ["cut", "empty", "a bit", "a link", "of another owner"])
def test_a_file_that_is_damaged_or_foreign_is_built_again(places, builds, how):
    if how == "of another owner" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = build()
    whole = path.read_bytes()
    assert (build(), len(builds)) == (path, 1)
    damaged(path, how)
    assert (build(), len(builds)) == (path, 2)
    assert path.read_bytes() == whole
    assert not path.is_symlink()
    assert path.stat().st_uid == os.geteuid()
    assert (build(), len(builds)) == (path, 2)


def test_a_folder_in_the_place_of_a_file_is_no_error(places):
    damaged(cache.store("tuning", "plans", ".json", b"{}"), "a folder")
    assert cache.find("tuning", "plans", ".json") is None


def test_the_last_content_is_found_and_others_are_removed(places):
    first = cache.store("tuning", "plans", ".json", b"1")
    assert cache.store("tuning", "plans", ".json", b"2", replacing=True) == cache.find("tuning", "plans", ".json")
    assert not first.exists()
    assert cache.find("tuning", "plan", ".json") is None, "a name is not a part of a name"


def test_folders_are_private_also_those_of_before(places):
    (places / "cache" / "boltzbench" / "native").mkdir(mode=0o755, parents=True)
    path = build()
    for folder in (path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert files(places) == [path], "nothing is left of the build"


@pytest.mark.parametrize("what", ["a file", "of another owner", "in /proc", "a full disk", "relative"])
def test_where_the_cache_cannot_be_used_builds_go_to_the_folder_for_temporary_files(places, builds, monkeypatch, what):
    root = places / "cache" / "boltzbench"
    if what == "a file":
        (places / "cache").write_text("")
    elif what == "of another owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        root.mkdir(parents=True)
        os.chown(root, 12345, -1)
    elif what == "in /proc":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    elif what == "a full disk":
        reserve = os.posix_fallocate

        def full(descriptor, start, length):
            if "/cache/boltzbench/" in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(28, "No space left on device")
            reserve(descriptor, start, length)

        monkeypatch.setattr(os, "posix_fallocate", full)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "cache")
        monkeypatch.setenv("HOME", "also/relative")
        monkeypatch.chdir(places)
    path = build()
    assert path.is_relative_to(places / "temporary" / f"boltzbench-{os.geteuid()}" / "native")
    assert (build(), len(builds)) == (path, 1)
    assert [each for each in files(places) if each.suffix == ".so"] == [path]


def test_a_folder_for_temporary_files_that_is_a_link_or_foreign_is_refused(places):
    (places / "cache").write_text("")
    (places / "theirs").mkdir()
    (places / "temporary" / f"boltzbench-{os.geteuid()}").symlink_to(places / "theirs")
    with pytest.raises(OSError, match=r"no folder for compiled kernels can be written: .*cache.*; .* is no folder"):
        build()
    assert files(places / "theirs") == []


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home_in_the_environment_it_is_that_of_the_user(places, monkeypatch, home):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    user = type("User", (), {"pw_dir": str(places / "home")})
    monkeypatch.setattr(cache.pwd, "getpwuid", lambda uid: user)
    assert build().is_relative_to(places / "home" / ".cache" / "boltzbench" / "native")


def test_a_compiler_that_cannot_be_started_is_no_fault_of_the_folder(places, monkeypatch):
    def refuse(command, temporary):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(cache, "run_compiler", refuse)
    with pytest.raises(RuntimeError, match=r"the compiler cannot be started: .*Cannot allocate memory"):
        build()


def test_a_killed_build_leaves_nothing_once_the_next_process_looks(places):
    """The compiler is a script that waits; the process that runs it is killed meanwhile."""
    script = places / "compiler"
    script.write_text('#!/bin/sh\necho > "$TMPDIR/temporary.s"\nexec sleep 60\n')
    script.chmod(0o755)
    program = (
        "from boltzbench.kernels.builds import cache\n"
        f"cache.compiled('native', 'other', [], [{str(script)!r}], '', RuntimeError)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    folder = places / "cache" / "boltzbench" / "native"
    limit = time.monotonic() + 60
    try:
        while not list(folder.glob("*/temporary.s")) and time.monotonic() < limit:
            time.sleep(0.01)
        cache._tidy.cache_clear()
        cache.find("native", "other", ".so")
        assert len(list(folder.iterdir())) == 1, "in use"
        process.send_signal(signal.SIGKILL)
        process.wait()
        cache._tidy.cache_clear()
        cache.find("native", "other", ".so")
        assert list(folder.iterdir()) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the compiler too


def test_content_is_on_the_disk_before_it_has_its_name(places, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        act = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, act=act, name=name: order.append(name) or act(*given))
    path = cache.store("cubin", "x", ".cubin", b"code")
    assert order == ["fsync", "replace"]
    assert Path(path).read_bytes() == b"code"
