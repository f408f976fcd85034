"""Vocabularies of byte-level BPE: the patterns that split a text into words, and the readers of other projects' vocabularies.

Reads a tokenizer.json, the two files of GPT-2 (encoder.json: token to id; vocab.bpe: the merges in order), or a rank file of
tiktoken (a line a token: its bytes in base64, its rank). Writes nothing. Every token keeps its id; the special tokens of the
conversation format come after them.

A rank file holds no merges: tiktoken merges whichever neighbours make the token of the lowest rank. The two parts of a token
are the last two when its bytes are encoded so. No other two parts can make it: the merges inside a token are the same wherever it
stands, because a merge across its border would have prevented the token.
"""

import base64
import gzip
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from model.errors import UserError
from model.tokenizer.chat import SPECIAL_TOKENS

PatternName = Literal["gpt2", "gpt2_digits", "gpt4", "gpt4o"]
FILES = ("tokenizer.json", "encoder.json", "vocab.bpe")  # that are read in a folder
RANK_FILES: dict[str, PatternName] = {
    "r50k_base": "gpt2",
    "p50k_base": "gpt2",
    "cl100k_base": "gpt4",
    "o200k_base": "gpt4o",
}
NOT_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}  # GPT-NeoX's vocabulary has no token for these
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SUFFIX = r"(?:'(?i:[sdmt]|ll|ve|re))?"
PATTERNS: dict[PatternName, str] = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # As SmolLM has it: numbers are cut into digits first, and the text between them by GPT-2's pattern. So the spaces before a number are
    # one word, as those at the end of a text.
    "gpt2_digits": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+",
    "gpt4o": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}"
    r"|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

# Of gpt2_digits in version 4 of the stage tokenizer: of several spaces before a number, the last was a word by itself.
FORMER_DIGITS = PATTERNS["gpt2_digits"].replace(r"(?![^\s\p{N}])", r"(?!\S)")
# As Qwen 2 and Llama 3 write GPT-4's in their tokenizer.json: contractions in lower and upper case.
ANY_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def pattern_text(pattern: PatternName, max_digits: int = 3) -> str:
    """The pattern as a regular expression of Oniguruma."""
    return PATTERNS[pattern].replace("DIGITS", str(max_digits))


def pattern_of(fields: Mapping[str, Any]) -> str:
    """The pattern that the fields of a tokenizer.json cut words with; "" where they do it in another way than one pattern."""
    cutter = fields.get("pre_tokenizer") or {}
    steps = cutter["pretokenizers"] if cutter.get("type") == "Sequence" else [cutter]
    *splits, last = [dict(step) for step in steps]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or last.get("use_regex", True) == bool(splits):
        return ""
    if not splits:
        return PATTERNS["gpt2"]
    pattern = splits[0].pop("pattern", {})
    is_plain = splits == [{"type": "Split", "behavior": "Isolated", "invert": False}]
    return str(pattern.get("Regex", "")) if is_plain else ""


def words(pattern: PatternName, max_digits: int = 3) -> pre_tokenizers.PreTokenizer:
    """Splits a text into words and maps each byte to a character of the byte-level alphabet. GPT-2's pattern has no `max_digits`."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern_text(pattern, max_digits)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def byte_of_character() -> dict[str, int]:
    """The byte that each character of the byte-level alphabet stands for: printable ones themselves, the others in order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # GPT-2's bytes_to_unicode: printable Latin-1 characters stand for themselves, the rest for code points from 256 on.
    byte_of = {character: ord(character) for character in alphabet if ord(character) < 256}
    others = sorted(set(range(256)) - set(byte_of.values()))
    return byte_of | dict(zip(alphabet[len(byte_of) :], others, strict=True))


def token_texts(encoder: tokenizers.Tokenizer) -> list[bytes]:
    """The bytes of each token of a byte-level vocabulary by id; none of special tokens and of ids without a token."""
    byte_of, added = byte_of_character(), encoder.get_added_tokens_decoder()
    names = encoder.get_vocab()
    texts = [b""] * (max(names.values()) + 1)
    for name, token in names.items():
        if token not in added:
            texts[token] = bytes(byte_of[character] for character in name)
        elif not added[token].special:
            texts[token] = name.encode()  # an added token is written as text
    return texts


def load(files: Sequence[Path]) -> tokenizers.Tokenizer:
    """The encoder of a vocabulary, with the conversation's special tokens.

    Raises UserError if the files are not of a kind in the module's docstring, or a byte of UTF-8 has no token.
    """
    by_name = {path.name: path for path in files}
    first = by_name.get("tokenizer.json", files[0])
    if first.name.removesuffix(".gz").endswith(".tiktoken"):
        encoder = from_ranks(read_ranks(first), _pattern_of(first))
    elif {"encoder.json", "vocab.bpe"} <= set(by_name):
        encoder = from_gpt2(by_name["encoder.json"], by_name["vocab.bpe"])
    elif first.suffix == ".json" and len(files) == 1:
        encoder = from_json(first)
    else:
        raise UserError(
            f"{', '.join(by_name)} is no vocabulary: give a tokenizer.json, a folder with GPT-2's encoder.json and vocab.bpe, "
            "or a rank file *.tiktoken"
        )
    encoder.add_special_tokens(list(SPECIAL_TOKENS))
    # A byte without a token would be dropped without an error when a text has it.
    needed = {character for character, byte in byte_of_character().items() if byte not in NOT_IN_UTF8}
    if missing := needed - set(encoder.get_vocab()):
        raise UserError(
            f"{first.name} is no byte-level vocabulary: {len(missing)} of the {len(needed)} bytes of UTF-8 have no token in it"
        )
    return encoder


def short_name(path: str) -> str:
    """A vocabulary's name in tables: the name of its file or folder, without path and suffix."""
    return path.rstrip("/").rsplit("/", 1)[-1].partition(".")[0]


def _pattern_of(path: Path) -> PatternName:
    # A rank file does not hold its pattern; OpenAI's names say which one it is.
    name = short_name(path.name)
    if name not in RANK_FILES:
        raise UserError(
            f"{path.name} does not say how its text is split into words: name the file after one of {', '.join(RANK_FILES)}"
        )
    return RANK_FILES[name]


def from_json(path: Path) -> tokenizers.Tokenizer:
    """A tokenizer.json, without its truncation and padding: documents are encoded whole."""
    try:
        encoder = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise UserError(f"{path.name} is no tokenizer.json: {error}") from error
    # Many tokenizer.json files cut at the context length of their model.
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def from_gpt2(encoder_json: Path, vocab_bpe: Path) -> tokenizers.Tokenizer:
    """GPT-2's files. A token that no merge makes is special: <|endoftext|>."""
    vocab: dict[str, int] = json.loads(encoder_json.read_text(encoding="utf-8"))
    lines = vocab_bpe.read_text(encoding="utf-8").splitlines()
    # The first line is the file's version.
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines[1:] if line)]
    made = {left + right for left, right in merges}
    return _encoder(vocab, merges, "gpt2", [name for name in vocab if len(name) > 1 and name not in made])


def from_ranks(ranks: Mapping[bytes, int], pattern: PatternName) -> tokenizers.Tokenizer:
    """A rank file. An unused id becomes a special token, because the ids of a vocabulary must be 0 to V - 1."""
    characters = {byte: character for character, byte in byte_of_character().items()}
    name = {token: "".join(map(characters.__getitem__, token)) for token in ranks}
    vocab = {name[token]: rank for token, rank in ranks.items()}
    unused = {f"<|unused_{rank}|>": rank for rank in set(range(max(ranks.values()))) - set(ranks.values())}
    merges = [(name[left], name[right]) for left, right in merges_of(ranks)]
    return _encoder(vocab | unused, merges, pattern, sorted(unused))


def _encoder(
    vocab: dict[str, int], merges: list[tuple[str, str]], pattern: PatternName, special: list[str]
) -> tokenizers.Tokenizer:
    encoder = tokenizers.Tokenizer(
        models.BPE(vocab, merges, ignore_merges=True)
    )  # a word that is a token is that token
    encoder.pre_tokenizer = words(pattern)
    encoder.decoder = decoders.ByteLevel()
    encoder.add_special_tokens(special)
    return encoder


def read_ranks(path: Path) -> dict[bytes, int]:
    """Tokens and their ranks, of a file that is gzip if its name ends in .gz. Raises UserError with the number of a bad line."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        token, _, rank = line.partition(b" ")
        try:
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise UserError(
                f"{path.name}, line {number}: {line[:80]!r} is not a token in base64 and its rank: download the file again"
            ) from None
    return ranks


def merges_of(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The two parts of every token of several bytes, in order of rank. Tokens that no merges lead to are left out."""
    never = max(ranks.values()) + 1
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = [token[place : place + 1] for place in range(len(token))]
        while len(parts) > 2:
            made = [ranks.get(left + right, never) for left, right in itertools.pairwise(parts)]
            lowest = min(made)
            if lowest == never:
                break
            # The leftmost of equal ranks, as in tiktoken.
            place = made.index(lowest)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        # Other tokens are reached by no merges, only as a whole word.
        if len(parts) == 2:
            yield parts[0], parts[1]
