"""Every bench and real case of every implementation under pytest-benchmark: `pytest tests/benchmarks`.

Agreement is checked first. Under xdist, as in `make test`, nothing is timed.
"""

from dataclasses import replace

import pytest
import torch
from boltzbench.harness import Expected, pytest_plugin
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.execution.process import prepare_to_run_kernels
from boltzbench.harness.results.environment import resolve_device
from support.remembered import remembered

DEVICE = resolve_device("auto")
prepare_to_run_kernels(DEVICE)
REGISTRY = load_registry()
STEPS = plan(REGISTRY.select(), ("bench", "real"), "quick" if DEVICE.type == "cuda" else "smoke")


SEQUENTIAL = 200
"""More updates of spins, one after another, take Triton's interpreter up to minutes: its check cases have fewer."""


@pytest.fixture(scope="module", autouse=True)
def references_that_remember(request):
    """On a CPU most of the time would go to the same expected values for one implementation after the other."""
    operations = {
        name: replace(each, reference=remembered(each.reference)) for name, each in REGISTRY.operations.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":
            patch.setitem(request.config.stash, pytest_plugin._KEY, (DEVICE, replace(REGISTRY, operations=operations)))
        yield


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.operation.name}-{s.implementation.name}-{s.label}")
def test_throughput(time_case, step):
    sizes = step.subject.sizes
    interpreted = step.implementation.backend == "triton" and step.implementation.is_interpreted_on(DEVICE)
    if interpreted and step.operation.name == "spin_glass" and sizes["spins"] * sizes["sweeps"] > SEQUENTIAL:
        pytest.skip(f"{sizes['spins']} spins, one after another in Triton's interpreter: checked with fewer")
    time_case(step.operation.name, step.implementation.name, step.label)


def test_a_reference_remembers_equal_inputs_and_nothing_that_depends_on_outputs():
    calls = []

    def reference(inputs, outputs):
        calls.append(inputs)
        return {"y": Expected(inputs["x"] + (outputs["y"] if inputs["drawn"] else 0.0))}

    kept = remembered(reference)
    x, y = torch.tensor([0.0, torch.nan]), torch.ones(2)
    for inputs, computed in (
        ({"x": x, "drawn": False}, 1), ({"x": x.clone(), "drawn": False}, 1), ({"x": -x, "drawn": False}, 2),
        ({"x": x, "drawn": True}, 3), ({"x": x, "drawn": True}, 4), ({"x": x, "drawn": False}, 4),
        ({"x": x.double(), "drawn": False}, 5), ({"x": x, "drawn": False}, 6),
    ):  # fmt: skip
        assert torch.equal(kept(inputs, {"y": y})["y"].value.isnan(), x.isnan())
        assert len(calls) == computed
    x[0] = 1.0
    assert kept({"x": x, "drawn": False}, {"y": y})["y"].value[0] == 1.0
