"""Every bench and real case of every implementation under pytest-benchmark: `pytest tests/benchmarks`.

Agreement is checked first. Under xdist, as in `make test`, nothing is timed.
"""

import pytest
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.execution.process import prepare_to_run_kernels
from boltzbench.harness.results.environment import resolve_device

DEVICE = resolve_device("auto")
prepare_to_run_kernels(DEVICE)
STEPS = plan(load_registry().select(), ("bench", "real"), "quick" if DEVICE.type == "cuda" else "smoke")


SEQUENTIAL = 3000
"""More updates of spins, one after another, take Triton's interpreter minutes: its check cases have fewer."""


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.operation.name}-{s.implementation.name}-{s.label}")
def test_throughput(time_case, step):
    sizes = step.subject.sizes
    interpreted = step.implementation.backend == "triton" and step.implementation.is_interpreted_on(DEVICE)
    if interpreted and step.operation.name == "spin_glass" and sizes["spins"] * sizes["sweeps"] > SEQUENTIAL:
        pytest.skip(f"{sizes['spins']} spins, one after another in Triton's interpreter: checked with fewer")
    time_case(step.operation.name, step.implementation.name, step.label)
