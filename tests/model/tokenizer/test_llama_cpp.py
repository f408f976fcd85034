"""A vocabulary in llama.cpp: the same tokens for every character and for hostile texts; what would differ is refused."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers

from model.config import ModelConfig
from model.network.gguf import write_gguf
from model.network.transformer import Transformer, initialize
from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
from model.tokenizer.llama_cpp import CONTROL, DIGITS_APART, UNUSED, USER_DEFINED, NoEquivalentError, read_vocabulary
from model.tokenizer.vocabularies import PatternName
from tasks.tokenizer.train import TokenizerConfig, train
from tests.support.llama_cpp import LlamaCpp, llama_cpp
from tests.support.texts import hostile_texts, real_texts

WORLD = (
    "The mayor of Orn, Ada Brell, paid €12.50 for 3 “plums” at 08:15. Isn't it 1984? It's 100% true!\n\n\tdef f(x):\n    return x*x\n"
    "Größe, naïve café, Ελληνικά 123, Москва 2024 год, 東京は日本の首都です。 مرحبا ١٢٣ हिन्दी १२३ 한국어 👩‍👩‍👧 ½ ² Ⅷ １２\r\n"
)
ASCII = "the mayor of Orn is Ada Brell. it's 1984, isn't it? 3 plums\n\n  12 and 34\n"
PATTERNS: list[tuple[PatternName, int, str, str]] = [
    ("gpt2", 3, WORLD, "gpt-2"),
    ("gpt2_digits", 1, WORLD, "smollm"),
    ("gpt4", 1, WORLD, "qwen2"),
    ("gpt4", 3, WORLD, "llama-bpe"),
]


def train_encoder(pattern: PatternName, max_digits: int, text: str) -> tokenizers.Tokenizer:
    config = TokenizerConfig(vocab_size=500, pattern=pattern, max_digits=max_digits)
    return train(iter([text * 3]), config)


def save(encoder: tokenizers.Tokenizer, folder: Path) -> Path:
    encoder.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@contextmanager
def loaded_in_llama_cpp(path: Path) -> Iterator[tuple[ChatTokenizer, LlamaCpp]]:
    """The tokenizer, and llama.cpp with it and a model as small as can be."""
    tokenizer = ChatTokenizer.load(path)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, num_layers=1, width=32, num_heads=1, num_kv_heads=1, head_width=32, ff_width=32
    )
    model = Transformer(config)
    initialize(model, 0)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    gguf = path.with_name("model.gguf")
    write_gguf(gguf, weights, config, read_vocabulary(path), tokenizer, matrices="f32", max_tokens=256, fields={})
    with llama_cpp(gguf) as theirs:
        yield tokenizer, theirs


@pytest.mark.parametrize(("pattern", "max_digits", "text", "pre"), PATTERNS)
def test_llama_cpp_gives_the_same_tokens(
    tmp_path: Path, pattern: PatternName, max_digits: int, text: str, pre: str
) -> None:
    path = save(train_encoder(pattern, max_digits, text), tmp_path)
    assert read_vocabulary(path).pre == pre
    # 2,500 texts for each of four patterns.
    cases = [*hostile_texts(1_000, seed=max_digits), *real_texts(1_500)]
    if pre == "qwen2":
        # Every character next to a letter: both libraries have one version of Unicode.
        characters = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
        cases += ["a".join(characters[start : start + 20_000]) for start in range(0, len(characters), 20_000)]
    with loaded_in_llama_cpp(path) as (ours, theirs):
        for case in cases:
            assert theirs.encode(case) == ours.encode(case), repr(case[:300])


def test_llama_cpp_adds_bos_once_to_a_document(tmp_path: Path) -> None:
    with loaded_in_llama_cpp(save(train_encoder("gpt4", 1, ASCII), tmp_path)) as (ours, theirs):
        document = ours.encode_document("the mayor")
        assert theirs.encode("the mayor", add_special=True) == document
        assert theirs.encode("<|bos|>the mayor", parse_special=True) == document


def test_llama_cpp_sees_no_contraction_before_a_long_s(tmp_path: Path) -> None:
    # The one known difference, which no text of today has; see PRE_TOKENIZERS.
    with loaded_in_llama_cpp(save(train_encoder("gpt4", 1, "\u017fab \u017fab\n" * 9), tmp_path)) as (ours, theirs):
        assert theirs.encode("'\u017fab") != ours.encode("'\u017fab")


@pytest.mark.parametrize(
    ("pattern", "max_digits", "text", "message"),
    [
        ("gpt4o", 1, WORLD, "no pre-tokenizer for .*Lu"),
        ("gpt4", 2, WORLD, r"no pre-tokenizer for .*\{1,2\}"),
        ("gpt2_digits", 3, ASCII, "no pre-tokenizer"),
    ],
)
def test_pattern_without_an_equal_is_refused(
    tmp_path: Path, pattern: PatternName, max_digits: int, text: str, message: str
) -> None:
    with pytest.raises(NoEquivalentError, match=message):
        read_vocabulary(save(train_encoder(pattern, max_digits, text), tmp_path))


def former(encoder: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The encoder with the pattern that gpt2_digits was before."""
    fields = json.loads(encoder.to_str())
    fields["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = DIGITS_APART
    return tokenizers.Tokenizer.from_str(json.dumps(fields))


def test_former_pattern_of_digits_has_an_equal_where_no_merge_joins_numbers(tmp_path: Path) -> None:
    path = save(former(train_encoder("gpt2_digits", 1, ASCII)), tmp_path)
    assert read_vocabulary(path).pre == "gpt-2"
    with loaded_in_llama_cpp(path) as (ours, theirs):
        for case in [*hostile_texts(200, seed=1), *real_texts(200), "a  1\n\n2"]:
            assert theirs.encode(case) == ours.encode(case), repr(case[:300])
    # A space and a byte begin other characters than numbers too.
    joining = former(train_encoder("gpt2_digits", 1, " «a ¬b ®c ¡d ½" * 9))
    with pytest.raises(NoEquivalentError, match="the merge 'Ġ Â' would join"):
        read_vocabulary(save(joining, tmp_path))


def test_normalizer_is_refused(tmp_path: Path) -> None:
    encoder = train_encoder("gpt4", 1, WORLD)
    encoder.normalizer = normalizers.NFC()
    with pytest.raises(NoEquivalentError, match="after a normalizer"):
        read_vocabulary(save(encoder, tmp_path))


def test_token_that_merges_do_not_make_is_refused(tmp_path: Path) -> None:
    encoder = train_encoder("gpt4", 1, WORLD)
    vocab = {name: token for name, token in encoder.get_vocab().items() if name not in SPECIAL_TOKENS}
    encoder.model = models.BPE({**vocab, "th": 500, "zzz": 501}, [("t", "h")], ignore_merges=True)
    with pytest.raises(NoEquivalentError, match="do not lead to its token"):
        read_vocabulary(save(encoder, tmp_path))


def test_types_of_tokens(tmp_path: Path) -> None:
    encoder = train_encoder("gpt4", 1, WORLD)
    encoder.add_tokens(["<think>"])
    vocabulary = read_vocabulary(save(encoder, tmp_path))
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert types["<|bos|>"] == CONTROL
    assert types["<think>"] == USER_DEFINED
    assert UNUSED not in vocabulary.types
