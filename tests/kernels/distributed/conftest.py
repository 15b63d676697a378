"""The processes that the tests of this folder share."""

from collections.abc import Iterator

import pytest
from support.ranks import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()
