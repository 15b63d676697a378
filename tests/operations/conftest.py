"""A fixture for the tests of every operation."""

import pytest
from boltzbench.kernels.common import dispatch
from support.devices import DEVICE


@pytest.fixture(params=(*dispatch.BACKENDS, "native"))
def backend(request):
    """The name of each backend of the kernels. Tests of a backend that cannot run here are skipped."""
    reason = dispatch.unavailable(request.param, DEVICE)
    if reason is not None:
        pytest.skip(reason)
    return request.param
