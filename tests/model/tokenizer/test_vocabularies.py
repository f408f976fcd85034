"""Vocabularies of other projects have their ids; the error of a damaged file names the line."""

import base64
import gzip
import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
from model.tokenizer.vocabularies import RANK_FILES, from_ranks, load, merges_of, read_ranks
from tasks.artifacts.manifest import Tokenizer, Tokens
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.tokenizer.encode import TokenizeConfig, tokenize
from tasks.tokenizer.train import TokenizerConfig, train
from tests.support import plain_bpe
from tests.support.documents import documents_of
from tests.support.wiring import tokenizer
from tests.tasks.tokenizer.test_train import as_bytes, texts


@pytest.fixture(scope="module")
def learned() -> tokenizers.Tokenizer:
    return train(iter(texts(300)), TokenizerConfig(vocab_size=420))


@pytest.fixture(scope="module")
def ranks(learned: tokenizers.Tokenizer) -> dict[bytes, int]:
    """The learned vocabulary as tiktoken would have it: without special tokens, and without merges."""
    names = {token: name for name, token in learned.get_vocab().items() if name not in SPECIAL_TOKENS}
    return {as_bytes(names[token]): rank for rank, token in enumerate(sorted(names))}


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, ChatTokenizer]:
    folder = shared_data / "tokenizer"
    files = {name: [folder / "tiktoken" / f"{name}.tiktoken.gz"] for name in RANK_FILES}
    files["gpt2"] = [folder / "gpt2" / "encoder.json", folder / "gpt2" / "vocab.bpe"]
    return {name: ChatTokenizer(load(paths)) for name, paths in files.items()}


def test_openai_cases_have_their_ids(real: dict[str, ChatTokenizer], shared_data: Path) -> None:
    real = {**real, "p50k_edit": real["p50k_base"]}
    with gzip.open(shared_data / "tokenizer" / "tiktoken-testplans.jsonl.gz", "rt", encoding="utf-8") as stream:
        cases = [json.loads(line) for line in stream]
    assert len(cases) == 157
    for case in cases:
        assert real[case["encoding"]].encode(case["text"]) == case["tokens"]
        if case["encoding"] == "r50k_base":  # the same vocabulary in the other form
            assert real["gpt2"].encode(case["text"]) == case["tokens"]


@pytest.mark.parametrize(
    ("name", "first_special"),
    [("gpt2", 50_257), ("r50k_base", 50_256), ("p50k_base", 50_281), ("cl100k_base", 100_256), ("o200k_base", 199_998)],
)
def test_special_tokens_get_ids_after_the_vocabulary(
    real: dict[str, ChatTokenizer], name: str, first_special: int
) -> None:
    encoder = real[name]
    assert list(encoder.special.values()) == list(range(first_special, first_special + len(SPECIAL_TOKENS)))
    assert encoder.vocab_size == first_special + len(SPECIAL_TOKENS)
    assert encoder.token_bytes.shape == (encoder.vocab_size,)
    text = "naïve <|bos|><|endoftext|><|im_start|> 日本語\n\n  x = 1234567"
    tokens = encoder.encode(text)
    assert max(tokens) < first_special and encoder.decode(tokens) == text
    assert encoder.token_bytes[tokens].sum() == len(text.encode())


def test_unused_id_is_filled_by_a_special_token(real: dict[str, ChatTokenizer]) -> None:
    p50k = real["p50k_base"]
    vocab = p50k._encoder.get_vocab()
    assert sorted(vocab.values()) == list(range(p50k.vocab_size))
    assert vocab["<|unused_50256|>"] == 50_256
    assert 50_256 not in p50k.encode("<|unused_50256|>")


def test_ids_on_real_text_equal_tiktoken_rule(shared_data: Path, real: dict[str, ChatTokenizer]) -> None:
    ranks = read_ranks(shared_data / "tokenizer" / "tiktoken" / "cl100k_base.tiktoken.gz")
    encoder = real["cl100k_base"]
    with gzip.open(shared_data / "langid" / "udhr.jsonl.gz", "rt", encoding="utf-8") as stream:
        declarations = ["\n".join(json.loads(line)["paragraphs"])[:300] for line in stream]
    for text in declarations:
        cut = encoder._encoder.pre_tokenizer.pre_tokenize_str(text)
        expected = [token for word, _ in cut for token in plain_bpe.encode(as_bytes(word), ranks)]
        assert encoder.encode(text) == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("thelighouse of\n'é1"), max_size=60))
def test_ids_equal_tiktoken_rule(ranks: dict[bytes, int], text: str) -> None:
    encoder = from_ranks(ranks, "gpt4")
    cut = encoder.pre_tokenizer.pre_tokenize_str(text)
    expected = [token for word, _ in cut for token in plain_bpe.encode(as_bytes(word), ranks)]
    assert encoder.encode(text).ids == expected


def test_merges_of_rank_file_equal_learned_merges(learned: tokenizers.Tokenizer, ranks: dict[bytes, int]) -> None:
    merges = json.loads(learned.to_str())["model"]["merges"]
    assert list(merges_of(ranks)) == [(as_bytes(left), as_bytes(right)) for left, right in merges]


def test_token_without_merges_is_encoded_as_a_word() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"abc": 256}
    assert list(merges_of(ranks)) == []
    encoder = from_ranks(ranks, "gpt4")
    assert encoder.encode("abc").ids == [256]
    assert encoder.encode("abcd").ids == [97, 98, 99, 100]


def test_from_json_disables_truncation(tmp_path: Path, learned: tokenizers.Tokenizer) -> None:
    foreign = tokenizers.Tokenizer.from_str(learned.to_str())
    foreign.enable_truncation(8)
    foreign.enable_padding(length=512)
    foreign.save(str(tmp_path / "any.json"))
    text = texts(1)[0]
    assert ChatTokenizer(load([tmp_path / "any.json"])).encode(text) == ChatTokenizer(learned).encode(text)


def test_load_accepts_vocabulary_without_invalid_utf8_bytes(tmp_path: Path, ranks: dict[bytes, int]) -> None:
    """As in the vocabulary of GPT-NeoX, which Pythia and OLMo have too."""
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000, 7)]))
    unused = {bytes([byte]) for byte in range(256)} - {bytes([byte]) for byte in text.encode()}
    assert len(unused) == 13
    kept = {token: n for token, n in ranks.items() if token not in unused}
    encoder = ChatTokenizer(load([write_ranks(tmp_path / "cl100k_base.tiktoken", kept)]))
    assert encoder.decode(encoder.encode(text)) == text


def test_load_of_invalid_vocabulary_raises_error_with_reason(tmp_path: Path, ranks: dict[bytes, int]) -> None:
    with pytest.raises(ValueError, match=r"own.tiktoken does not say .* name the file after one of r50k_base"):
        load([write_ranks(tmp_path / "own.tiktoken", ranks)])
    (tmp_path / "r50k_base.tiktoken").write_text("IQ== 0\n<html>\n")
    with pytest.raises(ValueError, match=r"line 2: b'<html>' is not a token in base64"):
        load([tmp_path / "r50k_base.tiktoken"])
    with pytest.raises(ValueError, match=r"is no byte-level vocabulary: 1 of the 243 bytes of UTF-8"):
        load([write_ranks(tmp_path / "r50k_base.tiktoken", {token: n for token, n in ranks.items() if token != b"q"})])
    (tmp_path / "some.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"some.json is no tokenizer.json"):
        load([tmp_path / "some.json"])
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(ValueError, match=r"encoder.json, read.me is no vocabulary: give a tokenizer.json"):
        load([tmp_path / "encoder.json", tmp_path / "read.me"])


def test_tokenizer_stage_uses_given_vocabulary(
    store: Store, tmp_path: Path, ranks: dict[bytes, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.tokenizer.train.train", None)
    path = write_ranks(tmp_path / "cl100k_base.tiktoken", ranks)
    documents = documents_of({"a": texts(50)})
    step = tokenizer(documents, TokenizerConfig(vocabulary=str(path)))
    execute(documents, store)
    assert execute(step, store).counts["vocab_size"] == len(ranks) + len(SPECIAL_TOKENS)
    encoder = ChatTokenizer.load(store.open(step.id, Tokenizer).folder / "tokenizer.json")
    assert encoder.encode(texts(1)[0]) == from_ranks(ranks, "gpt4").encode(texts(1)[0]).ids
    tokens = tokenize(documents, step, TokenizeConfig(num_workers=1))
    execute(tokens, store)
    assert store.open(tokens.id, Tokens).manifest.counts["documents"] == 50


def test_vocabulary_artifact_is_named_by_content(tmp_path: Path, ranks: dict[bytes, int]) -> None:
    documents = documents_of({"a": texts(5)})

    def named(folder: str, ranks: dict[bytes, int]) -> str:
        (tmp_path / folder).mkdir()
        path = write_ranks(tmp_path / folder / "cl100k_base.tiktoken", ranks)
        return tokenizer(documents, TokenizerConfig(vocabulary=str(path))).fingerprint

    here = named("here", ranks)
    assert named("moved", ranks) == here
    assert (
        len(
            {
                here,
                named("changed", dict(list(ranks.items())[:-1])),
                tokenizer(documents, TokenizerConfig()).fingerprint,
            }
        )
        == 3
    )
    with pytest.raises(ValueError, match="there is no vocabulary at"):
        assert tokenizer(documents, TokenizerConfig(vocabulary=str(tmp_path / "nowhere"))).id
