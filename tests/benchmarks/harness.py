"""What benchmarks share: the real data, the machine's name, the peers in environments of their own, tables.

A benchmark is a module with a `main()`, run by `python -m tests.benchmarks.NAME`. It prints one or more Markdown tables and nothing
else on standard output; progress goes to standard error. Speeds are compared within one run, as ratios: machines differ, and are
shared. Times are CPU seconds of one process unless a heading says wall.
"""

import hashlib
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shared_data() -> Path:
    """The folder of real data: CRAWL2CHAT_TEST_DATA, or ../shared/data next to the checkout. Exits where there is none."""
    folder = Path(os.environ.get("CRAWL2CHAT_TEST_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        sys.exit(f"no real data in {folder}: name its folder with CRAWL2CHAT_TEST_DATA")
    return folder


def machine() -> str:
    """Processor, cores, memory, Python and the day, as one line."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "CPU")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    today = datetime.now(UTC).date()
    return f"{name}, {os.cpu_count()} cores, {gib:.0f} GiB, Python {platform.python_version()}, {today}"


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> None:
    """Print a heading, a Markdown table with numbers to the right, and what must be said of it."""
    print(f"#### {title}\n")
    print(f"| {' | '.join(headings)} |\n| :--- |{' ---: |' * (len(headings) - 1)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(f"\n{note}\n" if note else "")


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def peer(*requirements: str) -> Path:
    """The python of a scratch environment with `requirements`, made once: peers' packages do not agree with ours."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "crawl2chat" / "peers"
    folder = cache / hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:12]
    if not (folder / "installed").exists():
        say(f"installing {', '.join(requirements)} into {folder}")
        venv.create(folder, with_pip=True, clear=True)
        command = [folder / "bin/python", "-m", "pip", "install", "--quiet", *requirements]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (folder / "installed").touch()
    return folder / "bin/python"


DATATROVE = ("datatrove[processing,io]==0.10.1", "lxml_html_clean", "spacy", "fasttext-numpy2", "orjson")
