"""A plugin of another distribution is listed, checked and timed once it is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from boltzbench.harness.discovery.registry import load_registry
from support import TESTS
from support.fakes import install

OPERATION = "ising_chain_energy"
LABEL = "ising_chain (boltzbench-ising-chain 0.3.1)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the plugin installed by pip. Installs from a copy, because setuptools writes into the source."""
    folder = tmp_path_factory.mktemp("third_party")
    source = shutil.copytree(TESTS / "third_party", folder / "source")
    site = folder / "site"
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", site, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site


def test_the_tests_of_boltzbench_load_no_plugin_of_another_distribution(tmp_path, monkeypatch):
    """Neither a sound one, which may refuse cases or be slow, nor a broken one. `tests/conftest.py` sees to it."""
    install(tmp_path, {"foreign": "", "broken": "1 / 0"})
    monkeypatch.syspath_prepend(tmp_path)
    registry = load_registry()
    assert {plugin.distribution for plugin in registry.plugins} == {"boltzbench"}
    assert registry.problems == ()
    monkeypatch.setenv("BOLTZBENCH_PLUGINS", "broken")
    assert "ZeroDivisionError" in " ".join(load_registry().problems)


def boltzbench(site, folder, *arguments):
    """The JSON of a command run in ``folder`` with the plugin importable. Asserts the exit status 0."""
    script = Path(sys.executable).with_name("boltzbench")
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "BOLTZBENCH_PLUGINS": "operations.rows.logsumexp,ising_chain"}
    command = [script, *arguments, "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_listed_with_its_distribution_and_version(site, tmp_path):
    listing = boltzbench(site, tmp_path, "list")
    assert {each["name"]: each["plugin"] for each in listing["operations"]}[OPERATION] == LABEL
    found = {
        (each["operation"], each["implementation"], each["status"])
        for each in listing["records"]
        if each["plugin"] == LABEL
    }
    assert found == {
        (OPERATION, "rolled", "available"),
        (OPERATION, "domain-walls", "available"),
        ("logsumexp", "two-pass", "available"),
    }
    (plugin,) = (each for each in listing["plugins"] if each["name"] == "ising_chain")
    assert (plugin["distribution"], plugin["version"]) == ("boltzbench-ising-chain", "0.3.1")
    assert listing["problems"] == []


def test_it_is_checked(site, tmp_path):
    run = boltzbench(site, tmp_path, "check", "-o", OPERATION, "--device", "cpu")
    assert len(run["records"]) == 4  # two implementations, two check cases
    for record in run["records"]:
        assert (record["plugin"], record["status"], record["error"]) == (LABEL, "passed", 0.0)


def test_its_implementation_of_a_built_in_operation_is_checked_on_every_case(site, tmp_path):
    run = boltzbench(site, tmp_path, "check", "-o", "logsumexp", "-i", "two-pass", "--device", "cpu")
    assert len(run["records"]) > 20
    assert {(record["plugin"], record["status"]) for record in run["records"]} == {(LABEL, "passed")}


def test_it_is_timed(site, tmp_path):
    run = boltzbench(site, tmp_path, "bench", "-o", OPERATION, "--device", "cpu", "--preset", "smoke")
    assert [record["status"] for record in run["records"]] == ["passed", "passed"]
    for record in run["records"]:
        assert record["plugin"] == LABEL
        assert record["measurements"][0]["unit"] == "chains"
        assert record["measurements"][0]["median"] > 0
    (file,) = (tmp_path / "runs").glob("*.json")
    assert json.loads(file.read_text()) == run
