"""Provenance: which code, libraries, command and machine made an artifact."""

import functools
import hashlib
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
TRAINING_LIBRARIES = {"prefect", "torch", "deepspeed"}


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


@functools.cache
def code_digest() -> str:
    """Hash of this code and of the versions of its libraries: the same on two machines that make the same bytes of the same input."""
    root, digest = Path(__file__).parents[2], hashlib.sha256(platform.python_version().encode())
    for path in sorted(path for package in ("tasks", "model") for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    # Without those of training, which nodes of the data half need not have.
    for name in LIBRARIES:
        if name not in TRAINING_LIBRARIES:
            digest.update(f"{name}={_version(name)}\0".encode())
    return digest.hexdigest()[:16]


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
