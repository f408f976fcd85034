"""Structured logs: one JSON object a line on stderr, with the run, the stage and the shard that a line is about.

Off unless CRAWL2CHAT_LOG is `json`. Reads that variable; `write_json_logs` is called where a run begins. The run is what its caller
names it; stage and shard come with the line: `logger.info(text, extra={"stage": ..., "shard": ...})`. Secrets in URLs are removed.
"""

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime

from model.errors import UserError
from tasks.execution.reporter import logger
from tasks.redaction import redact_text

LOG = "CRAWL2CHAT_LOG"
FIELDS = ("stage", "shard")


class JsonFormatter(logging.Formatter):
    """A log line as a JSON object."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "run": self.run,
            **{name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)},
            "message": redact_text(record.getMessage()),
        }
        if record.exc_info and record.exc_info[1]:
            line["error"] = redact_text("".join(traceback.format_exception(record.exc_info[1])))
        return json.dumps(line, ensure_ascii=False)


def write_json_logs(run: str) -> None:
    """Write the lines of crawl2chat's logger to stderr, if CRAWL2CHAT_LOG asks for it. Raises UserError where it asks for something else."""
    chosen = os.environ.get(LOG, "")
    if chosen not in ("", "json"):
        raise UserError(f"{LOG}={chosen[:80]!r} is not known: set it to json, or unset it")
    formatter = JsonFormatter(run)
    # A process may run several stages, each under its run; a second handler would write each line twice.
    if own := _handler():
        own.setFormatter(formatter)
    elif chosen:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def log_error(stage: str, error: BaseException) -> None:
    """Write the error that ended a stage, with its traceback; without structured logs nothing, since whoever runs the stage shows it."""
    if _handler():
        logger.error("%s ended with an error", stage, exc_info=error, extra={"stage": stage})


def _handler() -> logging.Handler | None:
    return next((handler for handler in logger.handlers if isinstance(handler.formatter, JsonFormatter)), None)
