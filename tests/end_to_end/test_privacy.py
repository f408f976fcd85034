"""No personal data of the sample web's pages in anything that is printed, logged, sent to Prefect, or written as JSON or Markdown."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.commands import crawl2chat_here
from tests.support.small_run import copy_finished_run, environment_in

READING = (
    ["show", "ingest"],
    ["show", "filter"],
    *(["show", "filter", "--reason", family, "--num", "200"] for family in ("url", "language", "quality", "pii")),
    ["show", "dedup", "--reason", "duplicate", "--num", "200"],
    ["report", "tiny"],
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    # COLUMNS: no value is broken over two lines.
    return environment_in(tmp_path_factory.mktemp("privacy")) | {"COLUMNS": "1200"}


@pytest.fixture(scope="module")
def printed(environment: dict[str, str]) -> dict[str, str]:
    """What a whole run and the commands that read it print, by command."""
    run = copy_finished_run(Path(environment["CRAWL2CHAT_STORE"]).parent)
    return {"run": run} | {" ".join(command): crawl2chat_here(environment, *command) for command in READING}


@pytest.fixture(scope="module")
def personal(printed: dict[str, str], environment: dict[str, str]) -> list[str]:
    """Every string of the sample web that is to be redacted, by its truth."""
    [truth] = Path(environment["CRAWL2CHAT_STORE"]).glob("crawl/*/truth.jsonl")
    lines = truth.read_text(encoding="utf-8").splitlines()
    found = sorted({value for line in lines for value in json.loads(line)["redact"]})
    assert len(found) > 100
    return found


def leaked(personal: Sequence[str], content: str) -> list[str]:
    escaped = content.replace("\\u00a0", " ").replace("\u00a0", " ")
    return [value for value in personal if value in escaped]


def written_files(environment: dict[str, str]) -> Iterator[Path]:
    """All files of the store and of Prefect's home but the web archives, the Parquet shards, and the truth itself."""
    for folder in (environment["CRAWL2CHAT_STORE"], environment["PREFECT_HOME"]):
        for path in Path(folder).rglob("*"):
            if path.is_file() and path.suffix not in (".gz", ".parquet") and path.name != "truth.jsonl":
                yield path


def test_commands_print_no_personal_data(printed: dict[str, str], personal: list[str]) -> None:
    assert {command: found for command, text in printed.items() if (found := leaked(personal, text))} == {}
    assert "[EMAIL]" in printed["show filter --reason pii --num 200"]


def test_files_and_prefects_database_hold_no_personal_data(
    printed: dict[str, str], personal: list[str], environment: dict[str, str]
) -> None:
    paths = list(written_files(environment))
    assert {"dropped.jsonl", "manifest.json", "histograms.json", "prefect.db"} <= {path.name for path in paths}
    texts = {str(path): path.read_bytes().decode(errors="replace") for path in paths}
    assert {name: found for name, text in texts.items() if (found := leaked(personal, text))} == {}
    with_samples = {Path(name).name.partition("-")[0] for name, text in texts.items() if "[EMAIL]" in text}
    assert {"dropped.jsonl", "prefect.db"} <= with_samples
