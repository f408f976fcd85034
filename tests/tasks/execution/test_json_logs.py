"""Structured logs: one JSON object a line, with run, stage and shard, and no secret."""

import json
import logging
from collections.abc import Iterator

import pytest

from model.errors import UserError
from tasks.execution.json_logs import log_error, write_json_logs
from tasks.execution.reporter import logger


@pytest.fixture(autouse=True)
def own_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logger, "handlers", [])
    level = logger.level
    yield
    logger.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_line_names_run_stage_and_shard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CRAWL2CHAT_LOG", "json")
    write_json_logs("first")
    logger.info("read %s", "https://user:hunter2@host/a?sig=hunter2", extra={"stage": "ingest", "shard": "a.warc"})
    write_json_logs("second")
    log_error("sft", ValueError("two\nlines"))
    first, second = lines(capsys)
    assert (first["run"], first["stage"], first["shard"], first["level"]) == ("first", "ingest", "a.warc", "info")
    assert "hunter2" not in first["message"]
    assert (second["run"], second["stage"], second["level"]) == ("second", "sft", "error")
    assert "ValueError: two\nlines" in second["error"]
    assert "shard" not in second


def test_nothing_is_written_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CRAWL2CHAT_LOG", raising=False)
    logger.addHandler(logging.NullHandler())
    write_json_logs("run")
    logger.info("line")
    log_error("sft", ValueError("x"))
    assert lines(capsys) == []


def test_unknown_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_LOG", "xml")
    with pytest.raises(UserError, match="set it to json"):
        write_json_logs("run")
