"""Ranks for the tests of training."""

from collections.abc import Iterator

import pytest

from tests.support.ranks import Forker


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """What ranks are forked from."""
    made = Forker()
    yield made
    made.close()
