"""What `crawl2chat run` does around the flow: sources while the server starts, one line for each artifact."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.run import make_first_sources
from flows.cli.terminal import Terminal
from flows.pipeline import dag
from flows.recipes import make_recipe
from tasks.artifacts.store import Store
from tasks.execution.reporter import reporting
from tests.support.tiny_models import finish

SMALL = ["ingest.sample.num_articles=20", "ingest.sample.num_files=1"]


@pytest.mark.parametrize(
    ("first", "is_finished", "force", "is_made"),
    [
        ("ingest", False, [], True),
        ("ingest", True, [], False),
        ("ingest", True, ["ingest"], True),
        ("tokenizer", False, [], False),  # it has none
    ],
)
def test_sources_of_the_first_stage_are_made_where_it_is_to_run(
    tmp_path: Path, first: str, is_finished: bool, force: list[str], is_made: bool
) -> None:
    store, steps = Store(str(tmp_path)), dag(make_recipe("tiny", settings=SMALL)).by_stage()
    crawl = steps["ingest"].inputs["crawl"]
    if is_finished:
        finish(store, steps["ingest"].kind, steps["ingest"].id)
    make_first_sources(steps, [first], force, "tiny", store)
    assert (store.find(crawl.id) is not None) == is_made


def test_source_that_several_stages_read_has_one_line(tmp_path: Path) -> None:
    store, steps = Store(str(tmp_path)), dag(make_recipe("tiny", settings=SMALL)).by_stage()
    console = Console(file=io.StringIO(), width=200)
    with reporting(Terminal(console)):
        for _ in range(3):
            make_first_sources(steps, ["ingest"], [], "tiny", store)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("✓ crawl") == 1
