"""Prefect's transactions on SQLite: one that reads, then writes after another has written, waits instead of failing."""

import asyncio
import importlib
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flows.prefect_sqlite import IS_CHANGED, begin_transactions_immediately

NUM_TRANSACTIONS = 3


async def read_then_write_at_once(
    configurations: Any, path: Path, after_reading: Callable[[], Awaitable[object]]
) -> int:
    """Transactions that each read a number, await `after_reading`, and write it back, one higher. Returns the number."""
    database = configurations.AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{path}")
    engine = await database.engine()

    async def add_one() -> None:
        session = await database.session(engine)
        async with session, database.begin_transaction(session):
            value = (await session.execute(sa.text("SELECT value FROM numbers"))).scalar_one()
            await after_reading()
            await session.execute(sa.text("UPDATE numbers SET value = :value"), {"value": value + 1})

    session = await database.session(engine)
    async with session, database.begin_transaction(session):
        await session.execute(sa.text("CREATE TABLE numbers (value INTEGER)"))
        await session.execute(sa.text("INSERT INTO numbers VALUES (0)"))
    await asyncio.gather(*(add_one() for _ in range(NUM_TRANSACTIONS)))
    async with await database.session(engine) as session:
        return int((await session.execute(sa.text("SELECT value FROM numbers"))).scalar_one())


@pytest.fixture
def configurations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    The module with Prefect's own transactions: importing flows/temporary_server.py changes them, as it does in a server.

    It is imported here, with the rest of Prefect's server: two seconds, which workers that only collect this file are spared.
    """
    from prefect.server.database import configurations

    begin = configurations.AioSqliteConfiguration.begin_transaction
    monkeypatch.setattr(configurations.AioSqliteConfiguration, "begin_transaction", getattr(begin, IS_CHANGED, begin))
    return configurations


def test_transactions_of_prefect_fail_when_they_read_before_they_write(configurations: Any, tmp_path: Path) -> None:
    """The reason for the change. When this fails, Prefect has mended it, and the change can go."""
    everybody_has_read = asyncio.Barrier(NUM_TRANSACTIONS)
    with pytest.raises(sa.exc.OperationalError, match="database is locked"):
        asyncio.run(read_then_write_at_once(configurations, tmp_path / "prefect.db", everybody_has_read.wait))


def test_transactions_that_begin_immediately_wait_for_each_other(
    configurations: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = configurations.AioSqliteConfiguration.begin_transaction
    monkeypatch.setattr(configurations.AioSqliteConfiguration, "begin_transaction", original)  # put back after the test
    assert begin_transactions_immediately(configurations)
    number = asyncio.run(read_then_write_at_once(configurations, tmp_path / "prefect.db", lambda: asyncio.sleep(0.1)))
    assert number == NUM_TRANSACTIONS


def test_application_of_a_temporary_server_has_the_change(configurations: Any) -> None:
    from flows import temporary_server

    importlib.reload(temporary_server)  # other tests have taken the change back since it was imported
    assert callable(temporary_server.create_app)
    assert hasattr(configurations.AioSqliteConfiguration.begin_transaction, IS_CHANGED)


def begin_of_another_version(self: Any, session: Any) -> None: ...


@pytest.mark.parametrize(
    "members",
    [{}, {"AioSqliteConfiguration": type("Other", (), {"begin_transaction": begin_of_another_version})}],
    ids=["no class", "other arguments"],
)
def test_another_prefect_is_left_alone_with_a_log_line(
    members: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert not begin_transactions_immediately(types.SimpleNamespace(**members))  # type: ignore[arg-type]
    assert "left alone" in caplog.text
