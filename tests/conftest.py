"""What tests share: the folder of real data, where there is one, and a store of their own."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tasks.artifacts.store import Store

# A shell starts its background jobs with SIGINT ignored, and so would be every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
SLOW = (  # files that start servers, training processes or whole runs; `make quick` leaves them out
    "end_to_end/",
    "flows/test_background_sender.py",
    "flows/test_deployments.py",
    "flows/test_infra.py",
    "flows/test_prefect_server.py",
    "flows/test_prefect_sqlite.py",
    "flows/test_server_outage.py",
    "flows/test_training_slot.py",
    "model/rl/test_grpo.py",
    "model/training/",
    "tasks/execution/",
    "tasks/filter/test_stage.py",
    "tasks/ingest/test_extraction_process.py",
    "tasks/ingest/test_hostile",
    "tasks/ingest/test_stage.py",
    "tasks/dedup/test_stage.py",
    "tasks/sample_web/",
    "tasks/scaling/",
    "tasks/evaluate/test_stage.py",
    "tasks/web/test_download.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files."""
    for item in items:
        if str(item.path.relative_to(ROOT / "tests")).startswith(SLOW):
            item.add_marker(pytest.mark.slow)


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
