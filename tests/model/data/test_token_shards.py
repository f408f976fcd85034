"""Token shards: as many as a crawl has, and damaged ones: a damaged shard is one line with its name, and never a crash."""

import gc
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from model.data import token_stream
from model.data.token_shards import TokenShards, WholeDocuments
from model.data.token_stream import max_open_shards, shard_vocab_size, token_runs
from model.errors import UserError
from tests.model.data.test_dataloader import V, write_shard
from tests.support.tiny_models import write_tokenizer

NUM_MUTATIONS = 400
ROOT = Path(__file__).parents[3]


def maps_of(folder: Path) -> int:
    """Memory maps of this process of files in a folder, without those that wait for the garbage collector."""
    gc.collect()
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps is Linux's")
def test_token_stream_maps_at_most_max_open_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_stream, "max_open_shards", lambda: 8)
    shards = [write_shard(tmp_path / f"{n}.arrow", [[n, *range(9)]] * 5) for n in range(100)]
    dataset = TokenShards(shards, 10, V)
    assert maps_of(tmp_path) == 0, "after the check nothing stays mapped"
    tokens = dataset.fetch(np.arange(len(dataset))).tokens
    assert tokens[:, 0].tolist() == [n for n in range(100) for _ in range(5)][: len(dataset)]
    assert 0 < maps_of(tmp_path) <= 8
    assert dataset.files(np.array([0, 7])) == [shards[0], shards[1]]


def test_token_stream_reads_more_shards_than_max_map_count(tmp_path: Path) -> None:
    """One file, given more often than vm.max_map_count: each time is a shard."""
    path = write_shard(tmp_path / "0.arrow", [list(range(10))])
    dataset = TokenShards([path] * 66_000, 10_000, V)
    assert dataset.stream.num_tokens == 660_000
    assert dataset.fetch(np.array([len(dataset) - 1])).tokens[0, :12].tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize(("soft", "bound"), [(1024, 64), (100, 16), (1_000_000, 4096), (resource.RLIM_INFINITY, 4096)])
def test_max_open_shards_stays_below_open_file_limit(monkeypatch: pytest.MonkeyPatch, soft: int, bound: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert max_open_shards() == bound


@pytest.mark.parametrize("kind", [pa.uint16(), pa.uint32()])
@pytest.mark.parametrize("documents", [[[V]], [[1, 2], [3, 60_000]], [[1]] * 10 + [[V, 1]]])
def test_token_outside_vocabulary_raises_user_error(
    tmp_path: Path, documents: list[list[int]], kind: pa.DataType
) -> None:
    path = write_shard(tmp_path / "0.arrow", documents, kind=kind)
    largest = max(map(max, documents))
    with pytest.raises(UserError, match=f"^token shard {path} holds the token {largest}, and its vocabulary has {V}: "):
        TokenShards([path], 1, V)
    with pytest.raises(UserError, match=r"0\.arrow holds the token"):
        WholeDocuments([path], 2, write_tokenizer(tmp_path))


def crafted(path: Path, schema: pa.Schema, array: pa.Array) -> str:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([array], schema=schema))
    return str(path)


def with_offsets(path: Path, offsets: list[int]) -> str:
    """A shard of 10 tokens whose offsets were overwritten in the file: pyarrow itself does not write such."""
    honest = [*range(len(offsets) - 1), 10]
    values = pa.array(np.arange(100, 110, dtype=np.uint16))
    schema = pa.schema([("tokens", pa.list_(pa.uint16()))], metadata={b"vocab_size": str(V).encode()})
    crafted(path, schema, pa.ListArray.from_arrays(pa.array(honest, pa.int32()), values))
    data, written = path.read_bytes(), np.array(honest, np.int32).tobytes()
    assert data.count(written) == 1
    path.write_bytes(data.replace(written, np.array(offsets, np.int32).tobytes()))
    return str(path)


@pytest.mark.parametrize(
    "offsets",
    [[0, 5, 1_000_000_000], [0, 10, 5], [-5, 5, 10], [0, 5, 11], [0, 2**31 - 1, 0], [5, 2, 10], [0, -(2**31), 10]],
    ids=str,
)
def test_invalid_offsets_raise_user_error(tmp_path: Path, offsets: list[int]) -> None:
    path = with_offsets(tmp_path / "0.arrow", offsets)
    with pytest.raises(UserError, match=f"^{path} is not a readable token shard .*: tokenize the documents again$"):
        list(token_runs(path))


def test_offsets_not_starting_at_zero_are_read(tmp_path: Path) -> None:
    [run] = token_runs(with_offsets(tmp_path / "0.arrow", [4, 6, 10]))
    assert run.tokens.tolist() == [104, 105, 106, 107, 108, 109]
    assert run.offsets.tolist() == [0, 2, 6]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1, None]], pa.list_(pa.uint16())),
        pa.array([[1], None], pa.list_(pa.uint16())),
        pa.array([[1]], pa.list_(pa.int64())),
        pa.array([[1]], pa.large_list(pa.uint16())),
        pa.array([1], pa.uint16()),
        pa.array([["a"]], pa.list_(pa.string())),
    ],
    ids=lambda array: str(array.type),
)
def test_column_of_wrong_type_raises_user_error(tmp_path: Path, array: pa.Array) -> None:
    path = crafted(tmp_path / "0.arrow", pa.schema([("tokens", array.type)]), array)
    with pytest.raises(UserError, match="is not a readable token shard"):
        list(token_runs(path))


def test_shard_without_columns_or_metadata_raises_user_error(tmp_path: Path) -> None:
    other = crafted(tmp_path / "0.arrow", pa.schema([("text", pa.string())]), pa.array(["a"]))
    with pytest.raises(UserError, match="its columns are"):
        shard_vocab_size(other)
    schema = pa.schema([("tokens", pa.list_(pa.uint16()))], metadata={b"vocab_size": b"many"})
    path = crafted(tmp_path / "1.arrow", schema, pa.array([[1]], pa.list_(pa.uint16())))
    with pytest.raises(UserError, match="is not a readable token shard"):
        shard_vocab_size(path)
    with pytest.raises(UserError, match=r"there is no token shard .*2\.arrow"):
        shard_vocab_size(str(tmp_path / "2.arrow"))


def mutate(data: bytes, generator: random.Random) -> bytes:
    """A copy with some bytes changed, set to extremes, moved, or cut off."""
    copy = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        at = generator.randrange(len(copy))
        match generator.randrange(6):
            case 0:
                copy[at] ^= 1 << generator.randrange(8)
            case 1:
                copy[at] = generator.randrange(256)
            case 2:  # a number of 4 or 8 bytes: sizes, offsets and lengths
                width = generator.choice((4, 8))
                at -= at % width
                number = generator.choice((0, 1, -1, 2**31 - 1, -(2**31), generator.randrange(len(data))))
                copy[at : at + width] = number.to_bytes(width, "little", signed=True)
            case 3:
                del copy[at:]
                copy = copy or bytearray(b"A")
            case 4:
                other = generator.randrange(len(copy))
                copy[at : at + 8] = copy[other : other + 8]
            case 5:
                del copy[at : at + generator.choice((1, 8, 64))]
                copy = copy or bytearray(b"A")
    return bytes(copy)


def read_mutations(folder: Path, first: int, last: int) -> None:
    """Read mutated shards as training does. Prints the number of each before it is read, and how many were refused at the end."""
    original, tokenizer = (folder / "0.arrow").read_bytes(), write_tokenizer(folder)
    num_refused = 0
    for number in range(first, last):
        print(number, flush=True)
        path = folder / f"mutated-{number}.arrow"
        path.write_bytes(mutate(original, random.Random(number)))
        try:
            shard_vocab_size(str(path))
            for dataset in (TokenShards([str(path)], 8, V), WholeDocuments([str(path)], 8, tokenizer)):
                tokens = dataset.fetch(np.arange(len(dataset))).tokens
                assert int(tokens.max()) < V
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            num_refused += 1
        except ValueError as error:  # it is a shard, with too little in it
            assert "take more documents" in str(error)
        path.unlink()
    print(f"{num_refused} refused")


def test_mutated_shards_never_crash(tmp_path: Path) -> None:
    """A separate process reads all mutations and ends with status 0: no invalid offset crashes it."""
    write_shard(tmp_path / "0.arrow", [[0, *range(12, 12 + n)] for n in range(1, 60)], per_batch=20)
    code = (
        f"from tests.model.data.test_token_shards import *; read_mutations(Path({str(tmp_path)!r}), 0, {NUM_MUTATIONS})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT, timeout=250
    )
    assert done.returncode == 0, f"after mutation {done.stdout.split()[-1:]}: {done.stderr[-2000:]}"
    assert int(done.stdout.splitlines()[-1].split()[0]) > NUM_MUTATIONS // 4
