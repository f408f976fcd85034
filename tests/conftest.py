"""What tests share: the folder of real data, where there is one, and a store of their own."""

import os
from pathlib import Path

import pytest

from tasks.artifacts.store import Store

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: CRAWL2CHAT_TEST_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("CRAWL2CHAT_TEST_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: name its folder with CRAWL2CHAT_TEST_DATA")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))
