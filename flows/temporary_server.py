"""Prefect's application for the temporary server of a command, which uvicorn starts (flows/prefect_server.py).

Reads and writes nothing. The imports, most of a start, are of this module and not of a function: uvicorn imports it before it takes over
SIGTERM, so a server that turns out not to be needed ends at once. From then on it would start to its end first.
"""

import sys

from prefect.server.api.server import create_app

from flows.prefect_sqlite import MODULE, begin_transactions_immediately

__all__ = ["create_app"]

# A temporary server registers no block types, and so does not load the entry point that does this.
begin_transactions_immediately(sys.modules[MODULE])
