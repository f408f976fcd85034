"""Provenance: which code, libraries, command and machine made an artifact."""

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.redaction import redact_arguments

LIBRARIES = [
    "prefect",
    "pyarrow",
    "trafilatura",
    "lxml",
    "fasttext-community",
    "Resiliparse",
    "warcio",
    "xxhash",
    "tokenizers",
    "torch",
    "deepspeed",
    "numpy",
    "fsspec",
    "pydantic",
    "phonenumbers",
    "python-stdnum",
    "tldextract",
]


def provenance(started: datetime, wall_seconds: float) -> dict[str, Any]:
    """Which code, libraries, command and machine made an artifact. The command line is stored without its secrets."""
    return {
        # None of this is in the fingerprint: the same settings on other versions are the same artifact, and this says which one it is.
        **_commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
        # A command line may hold a signed URL (--input https://...?X-Amz-Signature=...).
        "argv": redact_arguments(sys.argv),
        # Measures of time are of this machine.
        "host": socket.gethostname(),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(wall_seconds, 3),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # An extra that is not installed, such as torch for the data half.
        return "absent"


def _commit() -> dict[str, str | bool]:
    """The commit of this code: of its git checkout, or CRAWL2CHAT_COMMIT where an image has none."""
    # The image is built from a commit and has no .git: docker/Dockerfile sets it.
    if given := os.environ.get("CRAWL2CHAT_COMMIT"):
        return {"commit": given, "is_dirty": False}
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # A dirty tree is a fact to keep: its commit alone cannot make the artifact again.
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        # Installed as a package, or git is missing: unknown counts as changed.
        return {"commit": "unknown", "is_dirty": True}
    return {"commit": commit, "is_dirty": bool(status)}
