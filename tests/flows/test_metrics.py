"""Metrics: what a scrape returns, which addresses are taken, and that nothing listens unless it is asked for."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows.metrics import NUM_PORTS, Metrics, MetricsReporter, address_of, served_metrics
from model.config import Config
from model.errors import UserError
from tasks.artifacts.manifest import Report
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.execution.reporter import reporting
from tasks.execution.runner import execute
from tests.support.prefect_servers import free_port


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    served_metrics.cache_clear()
    yield
    served_metrics.cache_clear()


def scraped(text: str) -> dict[tuple[str, ...], float]:
    """The samples by name and the labels' values, without run and stage."""
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name not in ("run", "stage"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_nothing_listens_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRAWL2CHAT_METRICS", raising=False)
    assert served_metrics() is None


def test_scrape_shows_progress_shards_rates_and_the_finished_artifact(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:  # the first port is another run's
        port = other.getsockname()[1]
        monkeypatch.setenv("CRAWL2CHAT_METRICS", str(port))
        metrics = served_metrics()
        assert metrics is not None
        assert served_metrics() is metrics

        def stage(ctx, config) -> Outcome:  # type: ignore[no-untyped-def]
            (ctx.folder / "report.md").write_text("done")
            ctx.progress(3, 4, "documents", **{"shards": 2, "shards failed": 1, "documents/s": 7.5, "loss": 0.5})
            return Outcome({"documents": 4})

        step = Step("stage", 1, Report, Config(), {}, stage)
        with reporting(MetricsReporter(metrics, "a run", "stage", 2.5)):
            execute(step, store)
            execute(step, store)
        urls = [f"http://127.0.0.1:{port + number}/metrics" for number in range(1, NUM_PORTS)]
        found = scraped(next(text for url in urls if (text := read(url))))
    assert found["crawl2chat_units_done", "documents"] == 3
    assert found["crawl2chat_units", "documents"] == 4
    assert found["crawl2chat_units_per_second", "documents"] == 7.5
    assert (found["crawl2chat_shards_done",], found["crawl2chat_shards_failed",]) == (2, 1)
    assert found["crawl2chat_value", "loss"] == 0.5
    assert found["crawl2chat_count", "documents"] == 4
    assert found["crawl2chat_artifact_bytes",] == 4
    assert found["crawl2chat_start_delay_seconds",] == 2.5
    assert found["crawl2chat_stages_total", "made"] == found["crawl2chat_stages_total", "up_to_date"] == 1
    assert found["crawl2chat_last_progress_timestamp_seconds",] > 1.7e9


def read(url: str) -> str:
    """The page; empty where another run, or nobody, has the port."""
    try:
        with urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_failed_stages_are_counted() -> None:
    metrics = Metrics()
    MetricsReporter(metrics, "a run", "sft").failed("sft")
    assert (
        metrics.registry.get_sample_value(
            "crawl2chat_stages_total", {"run": "a run", "stage": "sft", "outcome": "failed"}
        )
        == 1
    )


def test_address_is_local_unless_a_host_is_named() -> None:
    assert address_of("9464") == ("127.0.0.1", 9464)
    assert address_of("0.0.0.0:9464") == ("0.0.0.0", 9464)
    assert address_of("[::1]:9464") == ("::1", 9464)
    for wrong in ("on", "host:", "0", "65536", "http://x:y", "٣"):
        with pytest.raises(UserError, match="is not an address"):
            address_of(wrong)


def test_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((Path(__file__).parents[2] / "infra/grafana/dashboard.json").read_text())
    known = {sample.name for family in Metrics().registry.collect() for sample in family.samples} | {
        family.name for family in Metrics().registry.collect()
    }
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 8
    for name in re.findall(r"crawl2chat_\w+", " ".join(asked)):
        assert name in known | {f"{one}_total" for one in known}, name
