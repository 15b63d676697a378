"""A fixture for the tests of every operation."""

import pytest
import torch
from boltzbench.kernels.common import dispatch


@pytest.fixture(params=dispatch.BACKENDS)
def backend(request):
    """The name of each backend of the kernels. Tests of a backend that cannot run here are skipped."""
    reason = dispatch.unavailable(request.param, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if reason is not None:
        pytest.skip(reason)
    return request.param
