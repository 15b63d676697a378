"""The listings of `nvdisasm` that `inspect` keeps: used for the same cubin and version, and never trusted blindly."""

import gzip
import os

import pytest
from boltzbench.harness.inspection import tools

LISTING = ".text.kernel:\n        /*0000*/                   EXIT ;\n"
USAGE = "Function kernel:\n  REG:8 STACK:0 SHARED:0 LOCAL:0\n"


@pytest.fixture
def disassemble(tmp_path, monkeypatch):
    """`disassemble` with a stand-in for the tools that counts its calls, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program = tmp_path / "nvdisasm"
    program.write_text("version 1")
    calls = []

    def output_of(name, *arguments):
        calls.append(name)
        return LISTING if name == "nvdisasm" else USAGE

    def run(elf=b"cubin"):
        calls.clear()
        tools.disassemble.__wrapped__(elf)
        return calls.count("nvdisasm")

    monkeypatch.setattr(tools, "_output_of", output_of)
    monkeypatch.setattr(tools, "tool", lambda name: program)
    run.program, run.folder = program, tmp_path / "cache" / "boltzbench" / "sass"
    return run


def test_a_cubin_is_disassembled_once_by_each_version(disassemble):
    assert [disassemble(), disassemble(), disassemble(b"another"), disassemble()] == [1, 0, 1, 0]
    disassemble.program.write_text("version 2.0")
    assert [disassemble(), disassemble()] == [1, 0]
    assert len(list(disassemble.folder.iterdir())) == 3, "no temporary file is left"
    assert disassemble.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["cut", "changed", "other owner"])
def test_a_damaged_or_foreign_file_is_ignored(disassemble, monkeypatch, damage):
    disassemble()
    (file,) = disassemble.folder.iterdir()
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        file.write_bytes(content[:-8] + bytes(4) + content[-4:])  # another checksum
    else:
        monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    assert disassemble() == 1


def test_without_a_cache_nothing_is_lost(disassemble, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert [disassemble(), disassemble()] == [1, 1]
    monkeypatch.setattr(tools, "cache_folder", lambda: None)
    assert disassemble() == 1


def test_the_kept_listing_is_that_of_the_tool(disassemble):
    disassemble()
    (file,) = disassemble.folder.iterdir()
    assert gzip.decompress(file.read_bytes()).decode() == LISTING
