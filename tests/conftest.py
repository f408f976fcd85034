"""What tests share: the folder of real data, where there is one, and a store of their own."""

import gc
import os
import shutil
import signal
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import hypothesis
import pytest

from tasks.artifacts.store import Store
from tests.support.prefect_home import SHARED

# Before torch is imported: with a thread for each core in each worker, the threads of small matrices spin while they wait for each
# other, and take the cores from other tests. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What 190 test files import stays: Python's collector would visit it again and again, a seventh of the time of collecting tests.
gc.set_threshold(50_000, 10, 10)

# A shell starts its background jobs with SIGINT ignored, and so would be every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests start hundreds of processes. Where the environment forbids compiled files, each of them compiles this project again: a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Of a server that a test's flow starts in passing: Prefect's 20 s are short on a machine with much else to do.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "600")

ROOT = Path(__file__).parent.parent
SLOW = (  # files that start servers, training processes or whole runs; `make quick` leaves them out
    "end_to_end/",
    "flows/test_background_sender.py",
    "flows/test_deployments.py",
    "flows/test_prefect_server.py",
    "flows/test_prefect_sqlite.py",
    "flows/test_server_outage.py",
    "flows/test_training_slot.py",
    "model/rl/test_dpo.py",
    "model/rl/test_grpo.py",
    "model/rl/test_ppo.py",
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
    "test_lint.py",
)
# A busy machine takes its time for an example.
hypothesis.settings.register_profile("unhurried", parent=hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("unhurried")
LONGEST = (  # files of minutes, which begin first: else one worker waits at the end for the other, which has begun one of these
    "end_to_end/test_pipeline.py",
    "end_to_end/test_browser.py",
    "test_lint.py",  # its types take a minute where no cache is; flows/test_pipeline.py then finds one
    "flows/test_training_slot.py",
    "flows/test_deployments.py",
    "model/training/test_loop.py",
    "tasks/execution/test_shared_store.py",
    "flows/test_server_outage.py",
    "tasks/execution/test_several_nodes.py",
    "end_to_end/test_kill.py",  # not earlier: it would wait for the run that test_pipeline.py has begun
    "flows/test_prefect_server.py",
    "tasks/execution/test_ray_cluster.py",
    "model/rl/test_dpo.py",
    "model/rl/test_grpo.py",
    "model/rl/test_ppo.py",
    "flows/test_reconcile.py",
    "end_to_end/test_privacy.py",
    "end_to_end/test_feedback_page.py",
    "tasks/scaling/test_stage.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of files below, and make the folder that all processes of the session share."""
    # pytest-xdist would begin with the files of most tests, and end with those of a few that take minutes.
    config.option.loadscopereorder = False
    if SHARED not in os.environ:  # the workers of pytest-xdist inherit it
        folder = os.environ[SHARED] = tempfile.mkdtemp(prefix="crawl2chat-tests-")
        config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files, and put the longest files first."""
    files = {item: str(item.path.relative_to(ROOT / "tests")) for item in items}
    for item, file in files.items():
        if file.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    # Python's sort keeps the order of what is equal.
    items.sort(key=lambda item: (*LONGEST, files[item]).index(files[item]))
    # What is imported and collected stays to the end. Libraries that call gc.collect() would visit it each time: DeepSpeed does so six
    # times for an engine in bfloat16, each time a second.
    gc.freeze()


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
