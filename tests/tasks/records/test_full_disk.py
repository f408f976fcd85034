"""A full disk while a shard is written: the error is one clear line, and neither half a shard nor a temporary file stays.

The limit of a file's size stands for a full disk: both let a write fail in the middle. It holds for a whole process, so a child has it.
"""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, resource, sys
from pathlib import Path

import numpy as np
from model.files import replacing
from safetensors.numpy import save_file
from tasks.filter.attributes import AttributesConfig, write_rows
from tasks.records.documents import ShardWriter
from tasks.records.full_text import IndexedText, IndexWriter
from tasks.tokenizer.encode import TokenWriter


class Encoder:
    vocab_size, bos = 256, 0

    def encode_batch(self, texts):
        return [list(text.encode()) for text in texts]


def write_documents(path):
    with ShardWriter(path) as shard:
        for number in range(3_000):
            shard.write({"id": str(number), "url": "", "date": "", "file": "", "offset": 0, "text": os.urandom(200).hex()})


def write_tokens(path):
    with TokenWriter(path, Encoder(), "fingerprint") as shard:
        for _ in range(100):
            shard.write(["a" * 10_000])


def write_attributes(path):
    write_rows(path, ({"id": os.urandom(200).hex()} for _ in range(3_000)), AttributesConfig())


def write_weights(path):  # safetensors raises what is no OSError
    with replacing(path) as temporary:
        save_file({"weights": np.zeros(100_000)}, temporary)


def write_array(path):  # NumPy an OSError without a number
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.zeros(100_000))


def write_index(path):
    with IndexWriter(path, stems=False) as writer:
        for number in (one for one in range(30) if not writer.has(str(one))):
            writer.add(str(number), (IndexedText("kept", str(n), os.urandom(2_000).hex()) for n in range(10)))


resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    globals()["write_" + sys.argv[1]](Path(sys.argv[2]))
except OSError as error:
    print(error.errno, error)
else:
    print("written")
"""


KINDS = ["documents", "tokens", "attributes", "weights", "array"]


@pytest.mark.parametrize("num_bytes", [3, 100_000])  # while the file is opened, and in the middle
@pytest.mark.parametrize("kind", KINDS)
def test_full_disk_leaves_no_part_of_a_shard(kind: str, num_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "shards" / "shard"
    path.parent.mkdir()
    path.write_text("the earlier shard")
    child = [sys.executable, "-c", SCRIPT, kind, str(path), str(num_bytes)]
    ended = subprocess.run(child, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    [line] = ended.stdout.splitlines()
    assert line.startswith(f"{errno.EFBIG} ")
    assert "File too large" in line
    assert [file.name for file in path.parent.iterdir()] == ["shard"]
    assert path.read_text() == "the earlier shard"


@pytest.mark.parametrize("kind", KINDS)
def test_shard_replaces_the_earlier_one_when_it_is_whole(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "shard"
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(path), str(10**9)], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "written\n"
    assert path.stat().st_size > 100_000
    assert len(list(path.parent.iterdir())) == 1


def test_full_disk_is_named_where_an_index_is_written(tmp_path: Path) -> None:
    """SQLite undoes the shard and says "disk I/O error". With room again the writer resumes after the last whole shard."""
    path = tmp_path / "index.sqlite"
    printed = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, "index", str(path), limit], check=True, capture_output=True, text=True
        ).stdout
        for limit in ("400000", str(10**9))
    ]
    assert printed[0].startswith(f"{errno.EFBIG} ")
    assert "File too large" in printed[0]
    assert printed[1] == "written\n"
