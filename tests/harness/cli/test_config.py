"""A project's own options: the table [tool.boltzbench.COMMAND] of pyproject.toml, or of the file of --config."""

import re
from pathlib import Path

import pytest
import typer
from boltzbench.harness.api.messages import UsageError
from boltzbench.harness.cli import app as cli
from boltzbench.harness.discovery.axes import parse_sizes
from support import ROOT, operations

BENCH = """
[tool.boltzbench.bench]
operations = ["logsumexp", "sgld"]
implementation = "torch"
sizes = "rows=1:16:x4,columns=64"
preset = "quick"
time-limit = 30
seed = 7
out = "measured"
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def options_of(command, *arguments, file="pyproject.toml", text=None):
    """What a command is given, with this text in a file of the working directory."""
    if text is not None:
        Path(file).write_text(text)
    seen = {}
    group = typer.main.get_command(cli.app)
    group.commands[command].callback = lambda **given: seen.update(given)
    group.main([*arguments], standalone_mode=False)
    return seen


def test_a_command_takes_the_options_of_its_table():
    found = options_of("bench", "bench", text=BENCH)
    assert (found["operations"], found["implementations"]) == (["logsumexp", "sgld"], ["torch"])
    assert (found["sizes"], found["preset"]) == (["rows=1:16:x4,columns=64"], "quick")
    assert (found["time_limit"], found["seed"], found["out"]) == (30.0, 7, Path("measured"))
    assert found["mode"] == "cold", "its own default"
    assert options_of("check", "check")["operations"] == (), "another command"


def test_the_example_of_the_guide_names_cases_that_exist():
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "harness" / "README.md").read_text(), re.DOTALL)
    found = options_of("bench", "bench", text=text)
    assert len(found["operations"]) == 2
    for name in found["operations"]:
        for sizes in parse_sizes(found["sizes"]):
            case = operations.registry().operations[name].case(**sizes, dtype=found["dtypes"][0])
            assert (case.sizes, case.dtype) == (sizes, "bfloat16")


def test_the_command_line_wins():
    found = options_of("bench", "bench", "-o", "ising", "--seed", "8", text=BENCH)
    assert (found["operations"], found["seed"], found["preset"]) == (["ising"], 8, "quick")


def test_another_file_takes_the_place_of_pyproject():
    Path("pyproject.toml").write_text(BENCH)
    found = options_of("bench", "--config", "ci.toml", "bench", file="ci.toml", text="[tool.boltzbench.bench]\nseed=1")
    assert (found["seed"], found["operations"]) == (1, ())


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'", "[tool.other]\nboltzbench = 1"])
def test_a_file_without_the_table_says_nothing(text):
    assert options_of("bench", "bench", text=text)["seed"] is None


@pytest.mark.parametrize("text", ["", "[bench]\nseed = 1", "[tool.bench]\nseed = 1"])
def test_a_file_that_is_named_has_the_table(text):
    with pytest.raises(UsageError, match=r"ci.toml has no table \[tool.boltzbench.COMMAND\], such as \[tool.boltzb"):
        options_of("bench", "--config", "ci.toml", "bench", file="ci.toml", text=text)


def test_config_may_stand_anywhere(capsys):
    for arguments in (
        ["--config", "no.toml", "bench"],
        ["bench", "--config=no.toml"],
        ["bench", "--config", "no.toml"],
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
        assert capsys.readouterr().err == "boltzbench: cannot read no.toml: No such file or directory\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool", "pyproject.toml is not a TOML file: "),
        ("[tool]\nboltzbench = 1", "pyproject.toml: tool.boltzbench should be a table, got 1"),
        ("[tool.boltzbench]\nbench = 1", "pyproject.toml: tool.boltzbench.bench should be a table, got 1"),
        ("[tool.boltzbench.bnech]", "pyproject.toml, [tool.boltzbench]: unknown command 'bnech': did you mean bench?"),
        (
            "[tool.boltzbench.bench]\npresets = 'a'",
            "[tool.boltzbench.bench]: unknown option 'presets': did you mean preset",
        ),
        ("[tool.boltzbench.bench]\noperatoin = 'a'", "unknown option 'operatoin': did you mean operation?"),
        ("[tool.boltzbench.bench]\nhelp = true", "unknown option 'help'"),
        ("[tool.boltzbench.bench]\nconfig = 'x'", "unknown option 'config'"),
        ("[tool.boltzbench.bench]\npreset = ['a']", "[tool.boltzbench.bench]: preset should be one value, got ['a']"),
        ("[tool.boltzbench.bench]\nsizes = {n = 1}", "sizes should be text or a number, got {'n': 1}"),
        ("[tool.boltzbench.bench]\nseed = -1", "[tool.boltzbench.bench]: seed: "),
        ("[tool.boltzbench.bench]\nseed = 'a'", "[tool.boltzbench.bench]: seed: "),
        ("[tool.boltzbench.bench]\noperation = 'a'\noperations = 'b'", "operations is named twice"),
    ],
)
def test_what_is_wrong_in_the_file_is_one_sentence(text, words):
    with pytest.raises(UsageError) as caught:
        options_of("bench", "bench", text=text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
