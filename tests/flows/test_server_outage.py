"""A Prefect server that is away or slow while a stage runs: the stage finishes, its artifact is committed, its reports arrive."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import PostgreSQL, Redis, missing_databases, server_settings
from tests.support.prefect_servers import LocalPrefect, bare_server, running_server, wait_for
from tests.support.reporting_stages import ReportingStage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CLIENT_RETRIES = "1"  # after 2 s, at most a fifth longer, Prefect's own client gives up
AWAY_SECONDS = 5.0  # longer than that; tests/benchmarks/prefect_outage.py outlasts the 62 s of Prefect's default


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrefect]:
    """A server that each test leaves running."""
    with bare_server(tmp_path_factory.mktemp("prefect")) as local:
        yield local


def test_stage_continues_while_the_server_is_away_and_its_reports_arrive_later(
    prefect: LocalPrefect, tmp_path: Path
) -> None:
    stage = ReportingStage(prefect, tmp_path, PREFECT_CLIENT_MAX_RETRIES=CLIENT_RETRIES)
    prefect.kill_server()
    time.sleep(AWAY_SECONDS)  # the outage itself is what is tested
    assert stage.is_running(), stage.log()
    prefect.start_server()
    stage.let_end()
    stage.wait()
    assert stage.check_reports() > 0


def test_stage_that_ends_while_the_server_is_away_is_committed(prefect: LocalPrefect, tmp_path: Path) -> None:
    stage = ReportingStage(prefect, tmp_path)
    prefect.kill_server()
    stage.let_end()
    wait_for(stage.is_committed, "the artifact is committed")
    prefect.start_server()
    stage.wait()
    assert stage.run()["state"]["type"] == "COMPLETED"


def test_stage_continues_while_the_server_accepts_and_never_answers(prefect: LocalPrefect, tmp_path: Path) -> None:
    """A stopped server: the kernel takes the connections, and nobody answers."""
    stage = ReportingStage(prefect, tmp_path)
    assert prefect.server is not None
    os.killpg(prefect.server.pid, signal.SIGSTOP)
    try:
        stage.let_end()
        wait_for(stage.is_committed, "the artifact is committed")
    finally:
        os.killpg(prefect.server.pid, signal.SIGCONT)
    stage.wait()
    assert stage.run()["state"]["type"] == "COMPLETED"


@pytest.mark.skipif(bool(missing_databases()), reason=missing_databases())
def test_run_that_ends_while_postgresql_and_redis_are_away_is_completed(tmp_path: Path) -> None:
    """The server answers then, with status 500 since it cannot connect to its database."""
    with (
        PostgreSQL() as database,
        Redis() as redis,
        running_server(tmp_path, **server_settings(database, redis)) as prefect,
    ):
        stage = ReportingStage(prefect, tmp_path)
        database.kill()
        redis.kill()
        stage.let_end()
        wait_for(stage.is_committed, "the artifact is committed")
        time.sleep(AWAY_SECONDS)
        assert stage.is_running(), stage.log()
        redis.start()
        database.start()
        stage.wait()
        assert stage.run()["state"]["type"] == "COMPLETED"
