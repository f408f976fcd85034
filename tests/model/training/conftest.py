"""Ranks for the tests of training."""

from collections.abc import Iterator

import pytest

from tests.support.forker import Forker


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """What ranks are forked from."""
    made = Forker("model.training.loop", "torch._dynamo")  # Muon and ZeRO 3 import it
    yield made
    made.close()
