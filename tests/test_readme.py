"""What README.md and kernels/README.md show works as written, and their tables are those of the registry."""

import importlib.util
import re

import pytest
import torch
from boltzbench.harness import Status
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.kernels.common import dispatch
from support import ROOT, readme

README = (ROOT / "README.md").read_text()
KERNELS = (ROOT / "kernels" / "README.md").read_text()
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
def test_the_kernel_in_fifteen_lines_passes_and_fails_where_readme_says(tmp_path) -> None:
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
        if case.purpose == "check" and "float32" in case.label
    }
    for plain in (
        "rows=37 columns=1031 float32",
        "shifted rows=5 columns=512 float32",
        "nan rows=5 columns=512 float32",
    ):
        assert verdicts[plain] is Status.PASSED
    for wrong in ("infinities rows=5 columns=512", "transposed rows=67 columns=300", "sliced rows=67 columns=300"):
        assert verdicts[f"{wrong} float32"] is Status.WRONG_VALUES
    for lacking in ("rows=4 columns=0", "backward rows=37 columns=1031"):
        assert verdicts[f"{lacking} float32"] is Status.ERROR


def registered(module) -> list:
    found: list = []
    module.register_implementations(found.append)
    return found


def test_the_table_of_operations_is_that_of_the_registry() -> None:
    _, rows, _ = readme.parts()
    assert rows == readme.rows(), "README.md's table of operations is out of date: run `make goldens`"


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
