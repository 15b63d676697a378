"""What plugins register is read in a child process: the command's own process imports none of them."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from boltzbench.harness.api.messages import UsageError
from boltzbench.harness.discovery import registry
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE, load_registry
from boltzbench.harness.execution import child
from boltzbench.harness.execution.catalogue import read_catalogue
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.execution.trial import sources_of
from support import TESTS
from support.fakes import CPU, install

GOOD = """
    @hookimpl
    def register_operations(register):
        register(fakes.operation("double", laws=(fakes.law(),), automatic=lambda device: f"torch on {device.type}"))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("torch"))
        register(fakes.implementation("gone", unavailable=lambda device: "needs a wand"))
    """

BAD = {
    "leaves": "import os\nos._exit(0)",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "hangs": """
        import time
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
        """,
    "leaves_later": """
        import os

        @hookimpl
        def register_implementations(register):
            os._exit(0)
        """,
    "compiles": """
        import os, types

        @hookimpl
        def register_implementations(register):
            compiling = types.SimpleNamespace(name="small", archs=(), compile=lambda arch: os._exit(0))
            register(fakes.implementation("ending", variants=lambda: os._exit(0)))
            register(fakes.implementation("ending_later", variants=lambda: [compiling]))
        """,
    "costs": """
        import os

        @hookimpl
        def register_operations(register):
            register(fakes.operation("dear", cost=lambda case: os._exit(0)))
        """,
    "strange": """
        class Name(str):
            def __reduce__(self):
                import os
                return os.system, ("touch executed",)

        @hookimpl
        def register_implementations(register):
            register(fakes.implementation("mine", note=Name("a note")))
        """,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    forget_plugins()
    install(tmp_path, {"good": GOOD, **BAD})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forget_plugins()


def forget_plugins():
    for name in [name for name in sys.modules if name.startswith("fake_samplers_")]:
        del sys.modules[name]


def use(monkeypatch, *plugins):
    monkeypatch.setenv(PLUGINS_VARIABLE, ",".join(plugins))


def test_it_says_what_the_registry_says_and_imports_no_plugin(monkeypatch):
    use(monkeypatch, "good")
    found = read_catalogue("cpu", where=True)
    assert not [name for name in sys.modules if name.startswith("fake_samplers_")]
    loaded = load_registry()
    assert found.plugins == loaded.plugins
    steps, real = (plan(each.select(), ("check", "bench", "real", "law")) for each in (found, loaded))
    assert [(s.label, s.purpose, s.seed, s.implementation.name) for s in steps] == [
        (s.label, s.purpose, s.seed, s.implementation.name) for s in real
    ]
    assert [sources_of(each) for each in steps] == [sources_of(each) for each in real]
    (operation, own) = found.operations["double"], loaded.operations["double"]
    assert [operation.cost(case) for case in operation.cases] == [own.cost(case) for case in own.cases]
    assert operation.automatic(CPU) == "torch on cpu"
    assert [each.unavailable(CPU) for each in found.implementations] == ["needs a wand", None]
    with pytest.raises(RuntimeError, match="prepare of double gone exists only in the processes that load its plugin"):
        found.implementations[0].prepare({}, {})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("leaves", "cannot be imported from fake_samplers_1_2_leaves: its process exited with status 0"),
        ("crashes", "cannot be imported from fake_samplers_1_2_crashes: its process crashed: SIGSEGV, Segmentation f"),
        ("hangs", "cannot be imported from fake_samplers_1_2_hangs: no answer within 3 s: stopped"),
        ("leaves_later", "register_implementations failed: its process exited with status 0"),
        ("costs", "cost of dear failed: its process exited with status 0"),
        ("strange", "implementation 'mine' has fields that are no plain values: UnpicklingError: posix.system"),
    ],
)
def test_a_plugin_that_ends_its_process_is_a_problem_and_the_others_are_read(monkeypatch, folder, name, words):
    use(monkeypatch, "good", name)
    if name == "hangs":
        monkeypatch.setattr(registry, "LOADING_SECONDS", 3.0)
        monkeypatch.setattr(child, "GRACE_SECONDS", 0.0)
    found = read_catalogue("cpu")
    assert list(found.operations) == ["double"]
    (problem,) = found.problems
    assert problem.startswith(f"{name} (fake-samplers 1.2): {words}")
    assert ("good" in found.loaded, name in found.loaded) == (True, name == "strange")
    assert not (folder / "executed").exists()


def test_an_unknown_plugin_is_named(monkeypatch):
    use(monkeypatch, "god")
    with pytest.raises(UsageError, match="did you mean good"):
        read_catalogue("cpu")


@pytest.mark.parametrize("command", ["list", "check", "validate", "inspect"])
def test_no_command_ends_well_without_a_verdict(folder, command):
    code = textwrap.dedent("""
        import sys
        from boltzbench.harness.cli.app import main
        if __name__ == "__main__":
            main()
        """)
    (folder / "command.py").write_text(code)
    paths = os.pathsep.join([str(folder), str(TESTS)])
    plugins = "good,leaves,compiles" if command == "inspect" else "good,leaves"
    environment = {**os.environ, "PYTHONPATH": paths, PLUGINS_VARIABLE: plugins}
    arguments = ["-i", "torch"] if command == "check" else []
    done = subprocess.run(
        [sys.executable, "command.py", command, *arguments, "--json", "out.json"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "its process exited with status 0" in " ".join(done.stdout.split())
    written = json.loads((folder / "out.json").read_text())
    (problem,) = written["problems"]
    assert problem.startswith("leaves (fake-samplers 1.2): cannot be imported")
    if command == "inspect":
        assert [(each["implementation"], each["case"], each["message"]) for each in written["records"]] == [
            ("ending", "variants()", "its process exited with status 0"),
            ("ending_later", "small", "its process exited with status 0"),
        ]
