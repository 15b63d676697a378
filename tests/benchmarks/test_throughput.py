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


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.operation.name}-{s.implementation.name}-{s.label}")
def test_throughput(time_case, step):
    time_case(step.operation.name, step.implementation.name, step.label)
