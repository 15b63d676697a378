"""The fixtures time_case and measure, in separate pytest runs, on a clock that only the kernels advance."""

import json
import os
import subprocess
import sys

import pytest
from boltzbench.harness.results.file import read_run
from support import TESTS as FOLDER
from support.fakes import install

PLUGIN = """
    import os
    from boltzbench.harness.timing import stopwatch
    from support.attacks import FakeTime

    host = FakeTime()
    stopwatch.clock_for = lambda device: host.clock()

    def lasting(seconds):
        def prepare(inputs, outputs):
            def launch():
                host.spend(seconds)
                outputs["y"].copy_(2 * inputs["x"])
                return outputs
            return launch
        return prepare

    @hookimpl
    def register_operations(register):
        register(fakes.operation("double", cases=[fakes.case(64, purpose="bench")]))

    @hookimpl
    def register_implementations(register):
        seconds = float(os.environ.get("LASTING", 0.01))
        register(fakes.implementation("torch", prepare=lasting(seconds)))
        register(fakes.implementation("wrong", factor=2.1))
        register(fakes.implementation("gone", unavailable=lambda device: "needs a wand"))
        register(fakes.implementation("triton", backend="triton"))
    """

SOURCE = """
    import pytest

    @pytest.mark.parametrize("name", ["torch", "wrong", "gone", "triton", "trito"])
    def test_double(time_case, name):
        with pytest.raises(ValueError, match="unknown mode 'warm'"):
            time_case("double", name, "n=64 float32", mode="warm")
        measurement = time_case("double", name, "n=64 float32", mode="hot")
        assert measurement is None or measurement.mode == "hot"
    """

OWN = """
    import pytest, torch
    from fake_samplers_1_2_lasting import host

    def triple(x):
        host.spend(1e-3)
        return 3 * x

    @pytest.mark.parametrize("factor", [3, 4])
    def test_own(measure, factor):
        found = measure(triple, torch.randn(64), reference=lambda x: factor * x, seconds=0.1)
        assert found.measurement is None or found.median == pytest.approx(1e-3)
    """


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lasting")
    install(folder, {"lasting": PLUGIN})
    for name, source in (("double", SOURCE), ("own", OWN)):
        (folder / f"test_{name}.py").write_text("\n".join(line[4:] for line in source.splitlines()))
    return folder


def run(folder, *command, **environment):
    paths = os.pathsep.join([str(folder), str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**inherited, "PYTHONPATH": paths, "BOLTZBENCH_PLUGINS": "lasting", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def pytest_run(folder, *arguments, **environment):
    return run(
        folder, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "--boltzbench-device=cpu", *arguments, **environment
    )


@pytest.fixture(scope="module")
def first(folder):
    """The output of a first pytest run and its JSON by group, which is also saved as the base of comparisons."""
    done = pytest_run(folder, "--benchmark-json=out.json", "--benchmark-save=base", "--benchmark-storage=saved")
    return done.stdout, {each["group"]: each for each in json.loads((folder / "out.json").read_text())["benchmarks"]}


def test_verdicts_times_and_rates_in_the_json(first):
    out, benchmarks = first
    assert "3 failed, 2 passed, 2 skipped" in out
    benchmark = benchmarks["double n=64 float32 hot"]
    assert "wrong_values: double wrong, n=64 float32: y: 64 of 64 elements are off" in out
    assert "gone: needs a wand" in out
    assert "triton: agrees; interpreted on the CPU: correctness only" in out
    assert "unknown implementation of double 'trito': did you mean triton" in out
    stats, info = benchmark["stats"], benchmark["extra_info"]
    assert stats["rounds"] >= 10
    assert stats["median"] == pytest.approx(0.01)
    assert (info["agreement"], info["mode"], info["unit"]) == ("passed", "hot", "elements")
    assert info["error"] <= info["bound"]
    assert info["items_per_second"] == pytest.approx(64 / stats["median"], rel=1e-6)
    assert info["bytes_per_second"] == pytest.approx(512 / stats["median"], rel=1e-6)


def test_any_callable_is_checked_and_timed(first):
    out, benchmarks = first
    assert "triple: wrong values: result: 64 of 64 elements are off" in out
    assert "fixture was not used" not in out, "a warning beside the failure"
    benchmark = benchmarks["triple x 64 float32 cold"]
    stats, info = benchmark["stats"], benchmark["extra_info"]
    assert stats["rounds"] >= 3
    assert (info["callable"], info["agreement"], info["notes"]) == ("triple", "passed", [])
    assert info["error"] <= info["bound"]
    assert info["bytes_per_second"] == pytest.approx(512 / stats["median"], rel=1e-6)


@pytest.mark.usefixtures("first")
def test_a_regression_fails_the_comparison(folder):
    compare = (
        *("-k", "torch", "--benchmark-storage=saved"),
        *("--benchmark-compare=0001", "--benchmark-compare-fail=median:10%"),
    )
    same = pytest_run(folder, *compare, LASTING="0.0105")
    assert same.returncode == 0, same.stdout
    slower = pytest_run(folder, *compare, LASTING="0.0115")
    assert slower.returncode != 0
    assert "Performance has regressed" in slower.stdout + slower.stderr


def test_it_agrees_with_bench(folder, first):
    command = ("bench", "--device", "cpu", "-i", "torch", "--mode", "hot", "--out", "runs")
    program = "from boltzbench.harness.cli.app import main; main()"
    done = run(folder, "-c", program, *command, XDG_CACHE_HOME=str(folder))  # it waits for no other run
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "runs").glob("*.json")
    (record,) = read_run(path).records
    assert record.measurements[0].median == pytest.approx(first[1]["double n=64 float32 hot"]["stats"]["median"])


def test_under_xdist_agreement_alone_is_checked(folder):
    done = pytest_run(folder, "-n1", "-k", "torch or wrong or own")
    assert "2 failed, 2 passed" in done.stdout, done.stdout
    assert "wrong_values: double wrong" in done.stdout
    assert "triple: wrong values" in done.stdout
