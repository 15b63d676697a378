"""Faulty plugins, each installed beside a sound one: the harness reports them and loses only what they bring."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from boltzbench.harness.results.file import read_run

SAMPLER = """
import torch
from boltzbench.harness import Sampler, hookimpl

BOLTZBENCH_API = 1

def init(target, start, seed, first_chain):
    return {"x": start.clone(), "target": target, "seed": seed, "first": first_chain, "step": 0}

def advance(state, steps, temperature):
    BODY

@hookimpl
def register_samplers(register):
    register(Sampler("NAME", "", "", "torch", init, advance, refuses=lambda target: (
        None if target.name == "double_well" else "made for double_well")))
"""

HOOK = """
from boltzbench.harness import Sampler, hookimpl
BOLTZBENCH_API = 1
@hookimpl
"""

OF = "(bad-samplers 1.2): "

NOT_LOADED = {
    "import_error": ("import no_such_module", "cannot be imported from import_error: ModuleNotFoundError: No module"),
    "syntax_error": ("def broken(:", "cannot be imported from syntax_error: SyntaxError"),
    "system_exit": ("raise SystemExit('needs a licence')", "SystemExit: needs a licence"),
    "hang_at_import": (
        "while True:\n    try:\n        import time; time.sleep(1)\n    except Exception: pass",
        "cannot be imported from hang_at_import: TookTooLong: stopped after 3 s",
    ),
    "raises_in_hook": (
        HOOK + "def register_samplers(register): raise RuntimeError('no luck')",
        "register_samplers failed: RuntimeError: no luck",
    ),
    "wrong_type": (
        HOOK + "def register_samplers(register): register('metropolis')",
        "register_samplers failed: TypeError: register takes a Sampler, got 'metropolis' (str)",
    ),
    "returns": (
        HOOK + "def register_samplers(register): return [1]",
        "must call register and return None: it returned",
    ),
    "coroutine": (HOOK + "async def register_samplers(register): pass", "it is a coroutine function (async def)"),
    "generator": (HOOK + "def register_samplers(register): yield 1", "it is a generator function (it has a yield)"),
    "bad_signature": (HOOK + "def register_samplers(add): pass", "not loaded: PluginValidationError"),
    "misspelt_hook": (
        HOOK + "def register_sampler(register): pass",
        "hook never called: unknown hook 'register_sampler': did you mean register_samplers",
    ),
    "duplicate_name": (
        SAMPLER.replace("NAME", "mala").replace("BODY", "return state"),
        "sampler 'mala': that name is taken; sampler names are unique over all plugins",
    ),
    "from_the_future": (
        "BOLTZBENCH_API = 2",
        "is written for BOLTZBENCH_API = 2, while this boltzbench has 1",
    ),
}

FAILS = {  # the body of ``advance``, and how the failure is reported
    "hangs": ("while True: pass", "timeout: hangs on double_well, T = 0.25: form: no answer within 8 s: stopped"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "error: crashes on double_well, T = 0.25: form: its process cra"),
    "exits": ("import os; os._exit(7)", "exits on double_well, T = 0.25: form: its process exited with status 7"),
    "memory": ("torch.empty(1 << 60)", "error: memory on double_well, T = 0.25: form: step 1: advance raised "),
    "nan": ('return {**state, "x": state["x"] * float("nan")}', "wrong_values: nan on double_well, T = 0.25: form: "
            "step 1, chain 0: nan, which is not finite"),
    "shape": ('return {**state, "x": state["x"][:, 0]}', "wrong_shape: shape on double_well, T = 0.25: form: step 1: "),
    "dtype": ('return {**state, "x": state["x"].double()}', "wrong_dtype: dtype on double_well, T = 0.25: form: step"),
    "device": ('return {**state, "x": state["x"].to("meta")}', "the state lies on meta, not cpu"),
}  # fmt: skip


def python_path(site: Path) -> str:
    return os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])


COMMAND = """
import boltzbench.harness.discovery.registry as r; r.LOADING_SECONDS = 3.0
from boltzbench.harness.cli.app import main
"""
ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main(arguments)
        except SystemExit as end:
            print(json.dumps([end.code, said.getvalue()]))
"""


def boltzbench(
    site: Path, plugins: str, *arguments: object, program: str = "main()"
) -> subprocess.CompletedProcess[str]:
    """Run a command with the plugins in ``site`` installed and a time limit of three seconds to load each."""
    environment = os.environ | {"PYTHONPATH": python_path(site), "BOLTZBENCH_PLUGINS": plugins, "COLUMNS": "200"}
    environment["OMP_NUM_THREADS"] = "2"  # two judges at once
    command = [sys.executable, "-c", COMMAND + program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture
def site(tmp_path):
    return tmp_path / "site"


def install(site: Path, sources: dict[str, str]) -> None:
    info = site / "bad_samplers-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-samplers\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[boltzbench]\n" + "".join(f"{name} = {name}\n" for name in sources))
    for name, source in sources.items():
        (site / f"{name}.py").write_text(source)


def test_plugins_that_cannot_be_used_are_named_and_nothing_else_is_lost(site):
    """All at once: each is named with its distribution and version, and the sound sampler is still judged."""
    install(site, {name: source for name, (source, _) in NOT_LOADED.items()})
    file = site / "claims.json"
    plugins = ",".join(["targets", "samplers", *NOT_LOADED])
    done = boltzbench(site, plugins, "validate", "-s", "mala", "-t", "double_well", "--device", "cpu", "--json", file)
    assert done.returncode == 1, done.stderr
    run = read_run(file)
    for name, (_, words) in NOT_LOADED.items():
        assert any(f"{name} {OF}" in problem and words in problem for problem in run.problems), (name, run.problems)
    assert len(run.problems) == len(NOT_LOADED)
    assert [each.failed for each in run.standings] == [[], []]
    assert sum(len(each.tried) for each in run.standings) > 50
    assert {each.plugin for each in run.standings} == {"samplers.metropolis (boltzbench 0.1.0)"}


def test_samplers_that_break_while_they_run_are_named_and_the_next_is_judged(site):
    sources = {name: SAMPLER.replace("BODY", body).replace("NAME", name) for name, (body, _) in FAILS.items()}
    install(site, sources)
    file = site / "claims.json"
    plugins = ",".join(["targets", "samplers", *FAILS])
    chosen = [word for name in [*FAILS, "mala"] for word in ("-s", name)]
    done = boltzbench(
        site, plugins, "validate", *chosen, "-t", "double_well", "--device", "cpu", "--time-limit", "8", "--json", file
    )
    assert done.returncode == 1, done.stderr
    for name, (_, words) in FAILS.items():
        assert words in done.stdout, name
    run = read_run(file)
    for name in FAILS:
        assert {each.plugin for each in run.standings if each.sampler == name} == {f"{name} {OF.rstrip(': ')}"}
    assert any(each.sampler == "mala" for each in run.standings)


OF_A_FAILED_PLUGIN = [
    ["check", "-o", "broken"],
    ["check", "-i", "broken"],
    ["bench", "-o", "broken"],
    ["inspect", "-o", "broken"],
    ["validate", "-s", "broken"],
    ["validate", "-t", "broken"],
    ["validate", "-e", "broken"],
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit status and words of each command of `OF_A_FAILED_PLUGIN`: in one process, since each would import torch."""
    site = tmp_path_factory.mktemp("broken")
    install(site, {"broken": "import no_such_module"})
    done = boltzbench(site, "broken", json.dumps(OF_A_FAILED_PLUGIN), program=ONE_AFTER_THE_OTHER)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(OF_A_FAILED_PLUGIN)), ids=lambda n: " ".join(OF_A_FAILED_PLUGIN[n]))
def test_a_name_that_a_failed_plugin_may_have_defined_is_explained_by_its_problem(answers, number):
    status, said = answers[number]
    assert status == 2
    unknown, why, problem = said.splitlines()
    assert unknown.startswith("boltzbench: unknown ")
    assert "'broken'" in unknown
    assert why.startswith("A plugin that failed may be why this ")
    assert problem.startswith(
        "broken (bad-samplers 1.2): cannot be imported from broken: ModuleNotFoundError: No module"
    )


def test_a_crash_on_import_is_named_and_the_command_goes_on(site):
    install(site, {"crashes_on_import": "import ctypes\nctypes.string_at(0)"})
    environment = os.environ | {"PYTHONPATH": python_path(site), "BOLTZBENCH_PLUGINS": "targets,crashes_on_import"}
    command = [sys.executable, "-m", "boltzbench.harness", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    words = (
        "crashes_on_import (bad-samplers 1.2): cannot be imported from crashes_on_import: its process crashed: SIGSEGV"
    )
    assert words in " ".join(done.stdout.split())
    assert "double_well" in done.stdout


def test_the_environment_variable_keeps_the_bad_ones_out(site):
    install(site, {name: source for name, (source, _) in NOT_LOADED.items()})
    done = boltzbench(site, "samplers,targets", "list")
    assert done.returncode == 0, done.stdout
    assert "bad-samplers" not in done.stdout
