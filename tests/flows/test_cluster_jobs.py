"""Jobs of a cluster: the client is real, the API server is a small one that answers two requests."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from flows.cluster_jobs import LABEL, Job, Jobs, configured_jobs

RUN, REQUESTS = uuid4(), list[tuple[str, str, str]]()
CONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: here}}]
clusters: [{name: here, cluster: {server: "URL"}}]
users: [{name: here, user: {}}]
"""


class ApiServer(BaseHTTPRequestHandler):
    """Lists a running Job, a finished one, and one whose label is somebody else's."""

    def do_GET(self) -> None:
        labels = [(str(RUN), 1), (str(uuid4()), 0), ("other", 1)]
        items = [
            {"metadata": {"name": f"job-{number}", "labels": {LABEL: value}}, "status": {"active": active}}
            for number, (value, active) in enumerate(labels)
        ]
        self._answer({"kind": "JobList", "apiVersion": "batch/v1", "metadata": {}, "items": items})

    def do_DELETE(self) -> None:
        self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _answer(self, body: dict[str, object]) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        REQUESTS.append((self.command, self.path, text))
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("kubernetes_asyncio", reason="comes with prefect-kubernetes")
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = tmp_path / "config"
    config.write_text(CONFIG.replace("URL", f"http://127.0.0.1:{server.server_port}"))
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    REQUESTS.clear()
    yield
    server.shutdown()
    server.server_close()


def test_active_jobs_are_found_by_label_and_deleted_with_their_pods(cluster: None) -> None:
    jobs = configured_jobs()
    assert isinstance(jobs, Jobs)
    found = jobs.active()
    assert found == [Job("crawl2chat", "job-0", UUID(str(RUN)))]
    jobs.delete(found[0])
    (_, listed, _), (method, path, body) = REQUESTS
    assert "labelSelector=prefect.io" in listed
    assert (method, path.partition("?")[0]) == ("DELETE", "/apis/batch/v1/namespaces/crawl2chat/jobs/job-0")
    assert "Background" in path + body


def test_no_cluster_is_asked_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert configured_jobs() is None
