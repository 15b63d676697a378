"""The workflow for GitHub that the repository offers: its commands exist, and its steps fit together."""

import re
import shlex
import subprocess

import pytest
import typer
from boltzbench.harness.cli.app import app
from support import ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "benchmark.yml.example").read_text()


def parsed(command: str) -> dict[str, object]:
    """The arguments and options of a command line of boltzbench. Raises if it does not know one of them."""
    name, *arguments = shlex.split(command)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found: dict[str, object] = commands[name].make_context(name, arguments).params
    return found


COMMANDS = re.findall(r"\.venv/bin/boltzbench ([^|\n]*)", WORKFLOW)


def test_every_command_and_option_exists() -> None:
    bench, compare, history = map(parsed, COMMANDS)
    assert str(bench["out"]) == "new"
    assert (str(compare["base"]), str(compare["new"])) == ("$base", "new/*.json")
    assert (compare["fail_over"], str(compare["markdown"])) == (["5%"], "comment.md")
    assert (str(history["folder"]), str(history["html"])) == ("history", "history.html")
    with pytest.raises(Exception, match="No such option: --markup"):
        parsed("compare a b --markup c")


def test_what_a_step_reads_an_earlier_one_writes() -> None:
    """The YAML itself; PyYAML is no dependency, but comes with many systems."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    content = yaml.safe_load(WORKFLOW)
    assert content[True] == {"push": {"branches": ["main"]}, "pull_request": None}  # YAML 1.1 takes `on` for true
    assert content["permissions"]["pull-requests"] == "write"
    steps = content["jobs"]["bench"]["steps"]
    kept = {step["with"]["name"]: step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", "")}
    assert kept == {"boltzbench-history": "history", "boltzbench-history-page": "history.html"}


def test_the_scripts_are_sound_shell() -> None:
    for script in re.findall(r"run: \|\n((?: {10}.*\n)+)", WORKFLOW):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "--name boltzbench-history --dir history" in WORKFLOW
