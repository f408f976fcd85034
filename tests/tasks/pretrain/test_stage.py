"""Pretraining as a stage: what it is made of, and what it refuses."""

import json
from pathlib import Path

import pytest

from model.config import TrainConfig
from tasks.artifacts.manifest import Tokenizer, Tokens
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.pretrain.stage import PretrainConfig
from tests.model.data.test_dataloader import write_shard
from tests.support.tiny_models import TEXT, finish, tiny_config, write_tokenizer
from tests.support.wiring import pretrain


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def make_tokenizer(store: Store, name: str, text: str = TEXT) -> Step[Tokenizer]:
    write_tokenizer(store.folder(f"tokenizer/{name}"), text)
    return finish(store, Tokenizer, f"tokenizer/{name}")


def make_tokens(store: Store, name: str, first: int, tokenizer: str) -> Step[Tokens]:
    for split in ("train", "validation"):
        folder = store.folder(f"tokenize/{name}") / split
        folder.mkdir(parents=True)
        write_shard(folder / "0.arrow", [[0, *range(first, first + 60)] for _ in range(20)])
    return finish(store, Tokens, f"tokenize/{name}", inputs={"tokenizer": f"tokenizer/{tokenizer}"})


def config(**mixture: float) -> PretrainConfig:
    train = TrainConfig(
        num_steps=4,
        batch_tokens=512,
        sequence_tokens=32,
        eval_sequences=4,
        checkpoint_every_steps=0,
        sample_every_steps=2,
    )
    return PretrainConfig(
        model=tiny_config(320).shape,
        train=train,
        mixture={f"tokenize/{name}": weight for name, weight in mixture.items()},
    )


def test_pretrain_mixes_in_tokens_of_the_same_vocabulary(store: Store) -> None:
    """The same vocabulary: of another artifact, which holds the same files."""
    tokenizer, _ = make_tokenizer(store, "a"), make_tokenizer(store, "b")
    tokens, _, _ = (
        make_tokens(store, "own", 20, "a"),
        make_tokens(store, "more", 120, "b"),
        make_tokens(store, "rest", 220, "a"),
    )
    step = pretrain(tokens, tokenizer, config(more=2.0, rest=1.0))
    manifest = execute(step, store)
    assert set(manifest.inputs) == {"tokens", "tokenizer", "mixture_0", "mixture_1"}
    summary = json.loads((store.folder(manifest.id) / "summary.json").read_text())
    assert summary["mixture/1/epochs"] == pytest.approx(2 * summary["epochs"], rel=0.01)
    assert summary["mixture/2/epochs"] == pytest.approx(summary["epochs"], rel=0.01)
    assert pretrain(tokens, tokenizer, config(more=1.0)).id != pretrain(tokens, tokenizer, config(more=2.0)).id
    run = json.loads((store.folder(manifest.id) / "run.json").read_text())
    assert (run["output"], run["tokenizer"]) == (manifest.id, "tokenizer/a/tokenizer.json")  # not where the store lies
    said = [json.loads(line)["step"] for line in (store.folder(manifest.id) / "samples.jsonl").open(encoding="utf-8")]
    assert said == [2, 2, 2, 4, 4, 4]


def test_tokens_of_another_vocabulary_are_refused(store: Store) -> None:
    tokenizer, _ = make_tokenizer(store, "a"), make_tokenizer(store, "b", text=TEXT[::-1])
    tokens, _ = make_tokens(store, "own", 20, "a"), make_tokens(store, "more", 120, "b")
    with pytest.raises(
        ValueError, match="tokenize/more was made with tokenizer/b, which is not the vocabulary of tokenizer/a"
    ):
        execute(pretrain(tokens, tokenizer, config(more=1.0)), store)


def test_missing_tokens_are_named(store: Store) -> None:
    tokenizer = make_tokenizer(store, "a")
    with pytest.raises(ValueError, match="tokenize/gone"):
        execute(pretrain(make_tokens(store, "own", 20, "a"), tokenizer, config(gone=1.0)), store)
