"""Metrics for operators: what a run does now, in Prometheus' text format, at /metrics of the run's process.

Off unless CRAWL2CHAT_METRICS is set: PORT, which is bound to this machine alone, or HOST:PORT. Runs of one machine that work at the same
time take the next ports, NUM_PORTS in all; Prometheus is given all of them, and finds those that exist. infra/grafana/dashboard.json
shows these metrics. Nothing here is a secret, and there is no password: bind it to a network only where that is a closed one.

Every metric has the labels `run` and `stage`:

    crawl2chat_units_done, crawl2chat_units        of the stage's progress, by `unit`: documents, MB, steps ...
    crawl2chat_units_per_second                    by `unit`: documents, tokens ...
    crawl2chat_shards_done, crawl2chat_shards_failed
    crawl2chat_value                               other figures of the moment by `name`, such as a loss
    crawl2chat_count                               figures of the finished artifact by `name`
    crawl2chat_artifact_bytes                      the finished artifact
    crawl2chat_stages_total                        by `outcome`: made, up_to_date, failed
    crawl2chat_last_progress_timestamp_seconds     the lag is the time since then
    crawl2chat_start_delay_seconds                 how long the run waited for a worker
"""

import errno
import os
import time
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from model.errors import UserError
from tasks.artifacts.manifest import Manifest
from tasks.artifacts.step import Step
from tasks.execution.reporter import Reporter, logger

METRICS = "CRAWL2CHAT_METRICS"
NUM_PORTS = 10
RUN = ("run", "stage")
SHARDS = {"shards": "done", "shards failed": "failed"}  # names of values that a stage reports


class Metrics:
    """All metrics of this process."""

    def __init__(self) -> None:
        # A separate registry: the default one has the memory and the Python version of the process, and whatever a library adds.
        self.registry = CollectorRegistry()
        self.done = self._gauge("units_done", "Units of the stage's progress that are finished.", "unit")
        self.units = self._gauge("units", "Units of the stage's progress in all.", "unit")
        self.rate = self._gauge("units_per_second", "Units finished per second.", "unit")
        self.shards = {
            "done": self._gauge("shards_done", "Shards that are finished."),
            "failed": self._gauge("shards_failed", "Shards that failed and were set aside."),
        }
        self.value = self._gauge("value", "Figures of the moment.", "name")
        self.count = self._gauge("count", "Figures of the finished artifact.", "name")
        self.bytes = self._gauge("artifact_bytes", "Bytes of the finished artifact.")
        self.progress_time = self._gauge("last_progress_timestamp_seconds", "When the stage last reported progress.")
        self.start_delay = self._gauge("start_delay_seconds", "How long the run waited for a worker.")
        self.stages = Counter("crawl2chat_stages", "Stages that have ended.", [*RUN, "outcome"], registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"crawl2chat_{name}", text, [*RUN, *labels], registry=self.registry)


class MetricsReporter(Reporter):
    """Keeps the metrics of one run of a stage."""

    def __init__(self, metrics: Metrics, run: str, stage: str, start_delay: float = 0.0) -> None:
        self.metrics, self.run = metrics, run
        metrics.start_delay.labels(run, stage).set(start_delay)
        metrics.progress_time.labels(run, stage).set_to_current_time()

    def progress(self, stage: str, done: float, total: float, unit: str, values: dict[str, float]) -> None:
        """Set the gauges of a stage's progress."""
        own, metrics = (self.run, stage), self.metrics
        metrics.done.labels(*own, unit).set(done)
        metrics.units.labels(*own, unit).set(total)
        metrics.progress_time.labels(*own).set(time.time())
        for name, value in values.items():
            if kind := SHARDS.get(name):
                metrics.shards[kind].labels(*own).set(value)
            elif name.endswith("/s"):
                metrics.rate.labels(*own, name.removesuffix("/s")).set(value)
            else:
                metrics.value.labels(*own, name).set(value)

    def finished(self, step: Step[Any], manifest: Manifest, is_skipped: bool) -> None:
        """Count the artifact and set the gauges of what is in it."""
        own, metrics = (self.run, step.stage), self.metrics
        metrics.stages.labels(*own, "up_to_date" if is_skipped else "made").inc()
        metrics.bytes.labels(*own).set(sum(file.bytes for file in manifest.files))
        for name, value in (manifest.counts | manifest.metrics).items():
            metrics.count.labels(*own, name).set(value)

    def failed(self, stage: str) -> None:
        """Count a stage that ended with an error."""
        self.metrics.stages.labels(self.run, stage, "failed").inc()


@cache
def served_metrics() -> Metrics | None:
    """The metrics of this process, served from the first call on; None unless CRAWL2CHAT_METRICS is set. Raises UserError where it is wrong."""
    setting = os.environ.get(METRICS, "")
    if not setting:
        return None
    host, port = address_of(setting)
    metrics = Metrics()
    for number in range(port, port + NUM_PORTS):
        try:
            start_http_server(number, host, metrics.registry)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:  # by another run
                continue
            raise UserError(
                f"{METRICS}={setting[:80]!r} cannot be listened on ({error.strerror}): name another"
            ) from error
        logger.info("metrics at http://%s:%d/metrics", host, number)
        return metrics
    logger.warning("no metrics of this run: ports %d to %d of %s are taken", port, port + NUM_PORTS - 1, host)
    return None


def address_of(setting: str) -> tuple[str, int]:
    """Host and first port. Raises UserError."""
    host, _, port = setting.rpartition(":")
    if not port.isascii() or not port.isdecimal() or not 0 < int(port) <= 65536 - NUM_PORTS:
        raise UserError(f"{METRICS}={setting[:80]!r} is not an address: set it to a port, 9464, or to HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)
