"""A vocabulary as llama.cpp reads it from a GGUF file: tokens, their types, merges, and the name of a pre-tokenizer.

Reads a tokenizer.json. Writes nothing. A GGUF file holds no pattern, only the name of one that is compiled into llama.cpp
(src/llama-vocab.cpp, src/unicode.cpp). A vocabulary whose words are cut by another pattern would load and give other tokens
without an error, so here it is refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import models

from model.errors import UserError
from model.tokenizer.unicode import members
from model.tokenizer.vocabularies import ANY_CASE, FORMER_DIGITS, byte_of_character, pattern_of, pattern_text

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's types of tokens
DIGITS_APART = FORMER_DIGITS.replace("DIGITS", "1")
# GPT-4's pattern cuts as Qwen's and Llama's do: `\s*[\r\n]` and `\s*[\r\n]+` both end with the last line break of a stretch of spaces.
# One difference is left: before a long s (U+017F) only `tokenizers` sees a contraction in 'ſ; llama.cpp compares with s and S.
PRE_TOKENIZERS: Mapping[str, str] = {
    pattern_text("gpt2"): "gpt-2",
    pattern_text("gpt2_digits", 1): "smollm",
    DIGITS_APART: "gpt-2",  # where no merge joins a number with what stands before it, see `_joining`
    pattern_text("gpt4", 1): "qwen2",
    pattern_text("gpt4", 3): "llama-bpe",
    ANY_CASE.replace("{1,DIGITS}", ""): "qwen2",
    ANY_CASE.replace("DIGITS", "3"): "llama-bpe",
}
IGNORE_MERGES = {"llama-bpe"}  # with these, a word that is a token is that token, whatever the merges make of it


class NoEquivalentError(UserError):
    """A model or vocabulary that llama.cpp would compute differently, so that there can be no GGUF file of it."""


class Vocabulary(NamedTuple):
    """The fields `tokenizer.ggml.*` of a GGUF file."""

    pre: str
    tokens: list[str]  # [V], in the byte-level alphabet; added tokens as they are
    types: list[int]  # [V]
    merges: list[str]  # two tokens with a space between them


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json. Raises NoEquivalentError where llama.cpp would make other tokens of some text."""
    encoder = tokenizers.Tokenizer.from_file(str(path))
    # Of the encoder and not of the file: older files write merges in another way.
    fields = json.loads(encoder.to_str())
    pattern, merges = pattern_of(fields), fields["model"]["merges"]
    pre = PRE_TOKENIZERS.get(pattern)
    if pre is None or fields["normalizer"]:
        raise NoEquivalentError(
            f"llama.cpp has no pre-tokenizer for {pattern or 'this kind of tokenizer.json'}"
            f"{' after a normalizer' * bool(fields['normalizer'])}: take tokenizer.pattern gpt2, gpt2_digits with max_digits 1, or gpt4 with 1 or 3"
        )
    if not merges:
        raise NoEquivalentError("llama.cpp reads no vocabulary without merges: take a larger tokenizer.vocab_size")
    is_other = fields["model"]["ignore_merges"] != (pre in IGNORE_MERGES)
    if is_other and (unreached := next(_unreached(fields), None)):
        raise NoEquivalentError(
            f"llama.cpp goes by merges, and those of this vocabulary do not lead to its token {unreached!r}"
        )
    if pattern == DIGITS_APART and (joining := _joining(merges)):
        raise NoEquivalentError(
            f"llama.cpp's pre-tokenizer gpt-2 leaves numbers together, and the merge {' '.join(joining)!r} would join one with what "
            "stands before it: run the stage tokenizer again, whose pattern has an equal now"
        )
    return Vocabulary(pre, *_tokens(encoder), [" ".join(merge) for merge in merges])


def _tokens(encoder: tokenizers.Tokenizer) -> tuple[list[str], list[int]]:
    """Names and types of tokens, in order of their ids."""
    vocab, added = encoder.get_vocab(), encoder.get_added_tokens_decoder()
    names = {token: name for name, token in vocab.items()}
    # A vocabulary may have gaps; llama.cpp wants a name, and each only once.
    tokens = [names.get(token, f"[unused {token}]") for token in range(max(names) + 1)]
    types = [NORMAL if token in names else UNUSED for token in range(len(tokens))]
    for token, settings in added.items():
        types[token] = CONTROL if settings.special else USER_DEFINED
    return tokens, types


def _unreached(fields: Mapping[str, Any]) -> Iterator[str]:
    """The tokens that the merges do not make of the text that they stand for."""
    vocab, merges = fields["model"]["vocab"], fields["model"]["merges"]
    model = models.BPE(vocab, [(left, right) for left, right in merges], ignore_merges=False)
    added = {token["content"] for token in fields["added_tokens"]}
    for name in vocab.keys() - added:
        if [token.id for token in model.tokenize(name)] != [vocab[name]]:
            yield name


def _joining(merges: Sequence[Sequence[str]]) -> Sequence[str] | None:
    """The first merge that joins a space or a part of a number with a part of the next number.

    The former pattern of gpt2_digits makes a word of each number and of one space before it. llama.cpp's gpt-2 leaves them together,
    which gives the same tokens as long as no merge goes across.
    """
    numbers = [number.encode() for number in members(r"\p{N}")]
    ends = {b" "} | {number[place:] for number in numbers for place in range(len(number))}
    starts = {number[:place] for number in numbers for place in range(1, len(number) + 1)}
    byte_of = byte_of_character()
    for merge in merges:
        left, right = (bytes(byte_of[character] for character in part) for part in merge)
        # The first merge to go across a border has it between its two parts. A start begins with the first byte of a character.
        if left in ends and right in starts:
            return merge
    return None
