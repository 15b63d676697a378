"""What README.md and kernels/README.md show works as written, and their tables are those of the registry."""

import builtins
import importlib.util
import io
import json
import re
from typing import Any

import boltzbench.harness.callables.measure
import pytest
import torch
from boltzbench.harness import Status
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.harness.report.tables import bench_tables
from boltzbench.harness.results import read_run
from boltzbench.harness.timing import stopwatch
from boltzbench.kernels.common import dispatch
from rich.console import Console
from support import ROOT, golden, peers, readme
from support.attacks import QUICK, QuietClock

README = (ROOT / "README.md").read_text()
KERNELS = (ROOT / "kernels" / "README.md").read_text()
PREDICTED = ROOT / "results" / "predictions"
CPU = torch.device("cpu")


def example(text: str, word: str) -> str:
    (found,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in block)
    return str(found)


def test_the_kernels_can_be_used_as_shown() -> None:
    names: dict[str, object] = {}
    exec(example(KERNELS, "SGLD"), names)
    energies, x = names["energies"], names["x"]
    assert energies.grad.sum(1).allclose(-0.5 * energies.new_ones(4))  # type: ignore[attr-defined]
    assert bool(x.abs().gt(0).all())  # type: ignore[attr-defined]


@pytest.mark.skipif(dispatch.unavailable("triton", CPU) is not None, reason="Triton does not interpret here")
def test_the_kernel_in_twenty_lines_passes_and_fails_where_readme_says(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(example(README, "triton.jit"))  # Triton reads the source of a kernel from its file
    spec = importlib.util.spec_from_file_location("mine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (mine,) = registered(module)
    operation = load_registry().operations["logsumexp"]
    verdicts = {
        case.label: check_case(operation, mine, case, CPU, [0]).status
        for case in operation.cases
        if case.purpose == "check" and ("float32" in case.label or case.label.startswith("rows=37 "))
    }
    for plain in (
        "rows=37 columns=1031 float32",
        "shifted rows=5 columns=512 float32",
        "nan rows=5 columns=512 float32",
        "rows=37 columns=1031 float16",
    ):
        assert verdicts[plain] is Status.PASSED
    for wrong in ("infinities rows=5 columns=512", "transposed rows=67 columns=300", "sliced rows=67 columns=300"):
        assert verdicts[f"{wrong} float32"] is Status.WRONG_VALUES
    for dtype in ("bfloat16", "float64"):
        assert verdicts[f"rows=37 columns=1031 {dtype}"] is Status.WRONG_VALUES
    for lacking in ("rows=4 columns=0", "backward rows=37 columns=1031"):
        assert verdicts[f"{lacking} float32"] is Status.ERROR


def quick_and_loud(monkeypatch) -> list[object]:
    """What an example prints. Its measurements are short, flush no caches and know no limits."""
    printed: list[object] = []
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: QuietClock())
    monkeypatch.setattr(boltzbench.harness.callables.measure, "limits_of", lambda device: {})
    monkeypatch.setattr(stopwatch, "ON_CPU", QUICK)
    monkeypatch.setattr(builtins, "print", lambda *what, **how: printed.extend(what))
    return printed


def test_a_function_of_ones_own_is_timed_as_shown(monkeypatch) -> None:
    printed = quick_and_loud(monkeypatch)
    exec(example(README, "bb.measure"), {})
    assert [type(each).__name__ for each in printed] == ["Measured", "Compared", "Sweep"]
    first, compared, sweep = printed
    results = (first, *compared.results.values(), *sweep.results)  # type: ignore[attr-defined]
    assert [str(each) for each in results if not each.passed] == []
    assert set(compared.ratios) == {"torch", "mine"}  # type: ignore[attr-defined]


def test_the_guide_to_callables_shows_what_works(monkeypatch, tmp_path) -> None:
    printed = quick_and_loud(monkeypatch)
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "harness" / "callables" / "README.md").read_text()
    names: dict[str, object] = {"measure": boltzbench.harness.measure}
    for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL):
        exec(block, names)
    names["test_softmax"](boltzbench.harness.measure)  # type: ignore[operator]
    assert {each.verdict for each in (printed[0], printed[3], *printed[2].results)} == {"passed"}  # type: ignore[attr-defined]
    assert len(read_run(tmp_path / "mine.json").records) == 4


def registered(module) -> list:
    found: list = []
    module.register_implementations(found.append)
    return found


def test_the_table_of_predictions_is_that_of_its_records() -> None:
    whole = json.loads((PREDICTED / "sm_90.json").read_text())
    assert (PREDICTED / "README.md").read_text() == peers.readme(whole), "run `python -m support.peers` in tests/"
    assert {each["kernel"] for each in whole["kernels"]} == {
        "cupy", "triton", "torch.compile", "quack", "liger", "flag_gems", "curand"
    }  # fmt: skip
    assert {each["status"] for each in whole["kernels"]} == {"passed", "spills"}


def test_the_table_of_times_is_that_of_the_committed_run() -> None:
    folder = re.search(r"\((results/.*)/report\.png\)", README)[1]
    (path,) = (ROOT / folder).glob("*.json")
    own = [each for each in read_run(path).records if each.operation == "logsumexp"]
    with (console := Console(width=80, file=io.StringIO())).capture() as printed:
        console.print(bench_tables(own))
    lines = [line.rstrip() for line in printed.get().splitlines()]
    ends = [number for number, line in enumerate(lines) if line and line[0] != " "]  # title, cases, remarks
    shown = "\n".join(f"    {line}" for line in lines[: ends[2]])
    assert f"\n\n{shown}\n\n" in README, shown


def test_the_table_of_operations_is_that_of_the_registry() -> None:
    _, rows, _ = readme.parts()
    assert rows == readme.rows(), "README.md's table of operations is out of date: run `make goldens`"


ROW, PARTS = "block per row", re.compile(r"(?:loop|kernel) of (\d+) .*, stores [^,]*, (.*)$")
PREDICTIONS = (
    ("float32 {:.1f}; {:.1f}, bfloat16 {:.1f}; {:.1f}, MUFU", "logsumexp",
     (f"forward float, {ROW}", f"forward fp32, {ROW}", f"forward bfloat16, {ROW}", f"forward bf16, {ROW}")),
    ("float32 {:.1f}; {:.1f}, bfloat16 {:.1f}; {:.1f}, float64 {:.0f}; {:.0f}", "generalised_cross_entropy",
     (f"forward float, {ROW}", f"forward fp32, {ROW}", f"forward bfloat16, {ROW}", f"forward bf16, {ROW}",
      f"forward double, {ROW}", f"forward fp64, {ROW}")),
    ("float32 {:.0f}; {:.0f}, bfloat16 {:.0f}; {:.0f} (62 and 31", "generalised_cross_entropy",
     (f"backward float, {ROW}", f"backward fp32, {ROW}", f"backward bfloat16, {ROW}", f"backward bf16, {ROW}")),
    ("float32 {:.1f}; {:.1f}, bfloat16 {:.1f}; {:.1f}: memory", "thermodynamics",
     (f"forward float, {ROW}", f"forward fp32, {ROW}", f"forward bfloat16, {ROW}", f"forward bf16, {ROW}")),
    ("{:.0f}; {:.0f}: issue, and the launch", "parallel_tempering", ("swap", "swap")),
    ("{:.1f}; {:.0f}, with passages {:.1f}; {:.0f}", "annealed_langevin",
     ("positions", "positions", "first passages", "first passages")),
    ("float32 {:.1f}; {:.1f}, bfloat16 {:.0f}; {:.0f}, rounded stochastically {:.0f}; {:.0f}", "sgld",
     [f"langevin {each}, with noise" for each in ("float32", "bfloat16", "stochastic bfloat16") for _ in range(2)]),
    ("float32 {:.0f}; {:.0f} and ", "psgld", ["preconditioned float32, with noise"] * 2),
    (" and {:.0f}; {:.0f}: memory", "sghmc", ["hamiltonian float32, with noise"] * 2),
)  # fmt: skip
"""Words of the table in kernels/README.md, with a place for the instructions per item of each golden line that follows:
of CUDA C and of Triton in turn."""
TOTALS = (
    ("{} mma among {} instructions for 8192", "enumeration", "cupy", "tensor-core machine"),
    ("bf16 {1} ({0} of", "rbm_gibbs", "cupy", "tensor-core sweeps bf16, weights resident, 192 x 192"),
    ("bf16x3 {1} ({0})", "rbm_gibbs", "cupy", "tensor-core sweeps bf16x3, weights resident, 128 x 128"),
    ("int8x3 {1} ({0})", "rbm_gibbs", "cupy", "tensor-core sweeps int8x3, weights resident, 128 x 128"),
    ("bfloat16: {} mma among {} instr", "rbm_free_energy", "cupy", "bfloat16"),
    ("{} wgmma among {} |", "rbm_free_energy", "triton", "bf16, 128 x 128"),
    ("probabilities: {} mma among {}:", "rbm_gradient", "cupy", "data probabilities, model probabilities"),
    ("{} wgmma among {} |", "rbm_gradient", "triton", "probabilities, 128 x 64"),
)
"""The same, with places for the products and for all instructions of a golden line."""
HALF_SWEEPS = [
    [f"tensor-core half sweep {each}, 128 chains{states}" for each in ("bf16", "bf16x3", "int8x3")]
    for states in ("", ", states packed")
]


def instructions(operation: str, backend: str, variant: str) -> tuple[float, int, int]:
    """Of a line of a golden for sm_90: instructions per item, products of tensor cores, instructions."""
    (found,) = [each for each in golden.goldens("sm_90", [operation]) if each.implementation.name == backend]
    (line,) = [each for each in found.lines() if each.startswith(f"{variant}: registers")]
    items, mix = PARTS.search(line).groups()
    counts = {kind: int(count) for kind, count in (part.split() for part in mix.split(", "))}
    total = sum(counts.values())
    return total / int(items) + 1e-9, counts.get("matrix", 0), total  # so that halves are rounded up


def test_the_predictions_are_those_of_the_goldens() -> None:
    right = [
        words.format(*(instructions(name, ("cupy", "triton")[i % 2], each)[0] for i, each in enumerate(variants)))
        for words, name, variants in PREDICTIONS
    ]
    right += [words.format(*instructions(*place)[1:]) for words, *place in TOTALS]
    plain, packed = ([instructions("rbm_gibbs", "cupy", each) for each in variants] for variants in HALF_SWEEPS)
    besides = [", ".join(str(total - products) for _, products, total in each) for each in (plain, packed)]
    right.append(f"{besides[0]} beside {', '.join(str(products) for _, products, _ in plain)} products")
    right.append(f"{besides[1]} beside the same")
    assert [words for words in right if words not in KERNELS] == [], "kernels/README.md should have these words"


QUOTED = (
    ("Expected {0.rate} T elements/s ({0.low} to {0.high}), bfloat16 {1.rate} T ({1.low} to {1.high})", "README.md",
     "logsumexp", ("forward float32, rows of 1024", "forward bfloat16, long rows")),
    ("forward {0.rate}e12 elements/s ({0.low}e12 to {0.high}e12) in float32, {1.rate}e12 ({1.low}e12 to {1.high}e12) "
     "in bfloat16; backward {2.rate}e12 and {3.rate}e12", "logsumexp/logsumexp.cu", "logsumexp",
     ("forward float32, rows of 1024", "forward bfloat16, long rows", "backward float32, rows of 1024",
      "backward bfloat16, long rows")),
    ("Expected {0.rate} T parameters/s ({0.low} to {0.high}), bfloat16 {1.rate} T ({1.low} to {1.high})", "README.md",
     "sgld", ("float32, with noise", "bfloat16, with noise")),
    ("{0.rate}e12 float32 parameters/s ({0.low}e12 to {0.high}e12), {1.rate}e12 of bfloat16 ({1.low}e12 to "
     "{1.high}e12)", "sgld/sgld.cu", "sgld", ("float32, with noise", "bfloat16, with noise")),
    ("Expected {0.rate} T walker-steps/s ({0.low} to {0.high}); at best {0.best} T", "README.md", "annealed_langevin",
     ("positions, a step",)),
    ("at best {0.best}e12 walker-steps/s, expected {0.rate}e12 ({0.low}e12 to {0.high}e12)",
     "annealed_langevin/annealed_langevin.cu", "annealed_langevin", ("positions, a step",)),
    ("Expected {0.rate} flips/ns ({0.low} to {0.high}), resident {1.rate} ({1.low} to {1.high}); at best {0.best}, "
     "{1.best}.", "README.md", "ising", ("heat bath", "heat bath, resident")),
    ("at best {0.best} flips/ns by the multiplier; expected {0.rate} ({0.low} to {0.high}), and {1.rate} ({1.low} to "
     "{1.high})", "ising/ising.cu", "ising", ("heat bath", "heat bath, resident")),
    ("; {0.best}, {0.rate} and {1.rate}.", "ising/ising.cu", "ising", ("Metropolis", "Metropolis, resident")),
    ("Expected {0.rate} flips/ns ({0.low} to {0.high}); at best {0.best}", "README.md", "spin_glass",
     ("heat bath, 4 bonds",)),
    ("at best {0.best} flips/ns by that pipe; expected {0.rate} ({0.low} to {0.high})", "spin_glass/spin_glass.cu",
     "spin_glass", ("heat bath, 4 bonds",)),
)  # fmt: skip
"""Words of files in kernels/, with places for the rates of CUDA C that results/predictions has for some works."""


class Rates:
    """The rates of a record as they are quoted: in 1e12 with two decimals, or in 1e9 with three digits."""

    def __init__(self, record: dict[str, Any]) -> None:
        for name in ("rate", "low", "high", "best"):
            rate = record["prediction"][name]
            in_ns = f"{float(f'{rate / 1e9:.3g}'):g}"
            setattr(self, name, in_ns if record["unit"] == "flips" else f"{rate / 1e12:.2f}")


def recorded() -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((PREDICTED / "sm_90.json").read_text())["kernels"]
    return records


@pytest.mark.parametrize(
    ("words", "file", "operation", "works"), QUOTED, ids=[f"{each[1]} {each[2]}" for each in QUOTED]
)
def test_the_quoted_rates_are_those_of_the_predictions(words, file, operation, works) -> None:
    cuda = {(each["operation"], each["work"]): each for each in recorded() if each["kernel"] == "cupy"}
    text = re.sub(r"\s*\n(// )?|\s+", " ", (ROOT / "kernels" / file).read_text())
    right = words.format(*(Rates(cuda[operation, work]) for work in works))
    assert right in text


def test_the_predictions_are_those_of_the_source() -> None:
    own = {(each["operation"], each["kernel"]): each["source"] for each in recorded() if "source" in each}
    assert len(own) >= 13
    outdated = {place for place, source in own.items() if peers.source(*place) != source}
    assert not outdated, "run `python -m support.peers` in tests/, with the libraries installed"


def test_every_operation_has_three_implementations() -> None:
    registry = load_registry()
    for name in registry.operations:
        backends = {each.backend for each in registry.implementations_of(name) if "boltzbench " in each.plugin}
        assert backends >= {"torch", "triton", "cupy"}, name


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize(
    "path", sorted(p.relative_to(ROOT) for p in ROOT.glob("**/*.md") if ".venv" not in p.parts), ids=str
)
def test_links_lead_somewhere(path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / path).read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", prose)
    assert [link for link in links if not ((ROOT / path).parent / link).exists()] == []
