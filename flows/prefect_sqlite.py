"""Prefect's server on SQLite without "database is locked". Prefect's server imports this, by its entry point for collections; a
temporary one, which loads no collections, by flows/temporary_server.py.

Prefect 3.8.8 opens most transactions as DEFERRED: they read first and ask for the write lock when they write. SQLite refuses
that at once, without the 60 s of patience that Prefect sets, if another transaction has written in between (SQLITE_BUSY_SNAPSHOT,
https://www.sqlite.org/isolation.html). In an hour of use a few events and heartbeats fail so, and the server's log shows each.
A transaction that is IMMEDIATE waits for its turn instead. Prefect itself opens those that it found to fail as IMMEDIATE.

Where Prefect is another than the one this was tried with, and has no such transactions, nothing is changed and a log line says so.
Postgres has no such lock; neither its code nor its transactions are touched.
"""

import contextlib
import inspect
import sys
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

from tasks.execution.reporter import logger

MODULE = "prefect.server.database.configurations"  # a process that has not loaded it is no server
TRIED_WITH = "3.8.8"
IS_CHANGED = "crawl2chat_original"  # an attribute of our function: Prefect's own


def begin_transactions_immediately(configurations: ModuleType) -> bool:
    """Change Prefect's SQLite transactions in this process. Returns False, with a log line, where they are not what is expected."""
    # getattr throughout: another version of Prefect may lack any of it, and must then start as it is.
    sqlite = getattr(configurations, "AioSqliteConfiguration", None)
    begin = getattr(sqlite, "begin_transaction", None)
    if sqlite is None or begin is None or "with_for_update" not in inspect.signature(begin).parameters:
        logger.warning(
            "Prefect's SQLite transactions are not those of %s: they are left alone, and its log may show 'database is locked'",
            TRIED_WITH,
        )
        return False

    # The entry point and an import of ours may both come here; changed twice, each transaction would pass through two
    # wrappers.
    if hasattr(begin, IS_CHANGED):
        return True

    @contextlib.asynccontextmanager
    async def begin_transaction(self: Any, session: Any, with_for_update: bool = True) -> AsyncGenerator[Any, None]:
        # Prefect's word for IMMEDIATE, as it has one parameter for SQLite and for Postgres, which locks rows.
        async with begin(self, session, with_for_update=True) as transaction:
            yield transaction

    setattr(begin_transaction, IS_CHANGED, begin)
    sqlite.begin_transaction = begin_transaction
    return True


# Clients load the entry point as well: they must not import the server, which takes seconds.
if MODULE in sys.modules:
    begin_transactions_immediately(sys.modules[MODULE])
