"""Tokenizer: a byte-level BPE vocabulary, trained on documents or imported.

Reads Documents, and vocabularies to use or to compare with if the config names any. Writes tokenizer.json (loads in `tokenizers` and
in `transformers`) and, to read, vocabulary.txt: one token per line in order of id, with the two tokens it was merged from.

BPE as in Sennrich et al. 2016, on bytes as in GPT-2, with SmolLM's pattern to split text into words. Departures: the number of digits
in a word is a setting, since a small vocabulary has no room for a thousand numbers; and of equally frequent pairs the one with the
lower ids is merged first, where other trainers take the one that is greater as bytes, so those merges change places.

Training keeps every distinct word in memory, so it reads at most `max_bytes`, sampled by document from all shards, and at most a
hundredth of that from one document. One document in fifty is held out: on these the vocabulary is verified (every text decodes to
itself and is shorter than its bytes) and measured per language. With fewer than MIN_DOCUMENTS nothing is held out, and the training
text is measured.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from model.config import Config, runtime
from model.errors import UserError
from model.files import replacing
from model.tokenizer import vocabularies
from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
from model.tokenizer.vocabularies import PatternName
from tasks.artifacts.manifest import Documents, Resource, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.execution.reporter import Row
from tasks.records.documents import Document, read_documents
from tasks.resources import resource

VERSION = 5  # 5: gpt2_digits keeps the spaces before a number together, as llama.cpp's smollm does
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
# Below this a fiftieth is fewer than 20 documents, on which bytes per token of a language say little.
MIN_DOCUMENTS = 1_000
MEASURED_BYTES = 5_000_000
SAMPLED_DOCUMENTS = 100
# Base64, minified code and DNA have such stretches. So has Chinese, written without spaces, where a cut costs one word
# in 2,000 characters.
UNBROKEN = re.compile(r"\S{2000}|\s{2000}")  # too long to be a word
ALL = "all"  # the row of all languages together


class TokenizerConfig(Config):
    """Size and training text of the vocabulary, or the existing vocabulary to use."""

    vocabulary: str = runtime(
        "",
        description="Use an existing vocabulary instead of training one: a tokenizer.json, a folder with GPT-2's encoder.json "
        "and vocab.bpe, or a rank file of tiktoken, as a path or fsspec URL.",
    )
    compared_with: list[str] = runtime([], description="Vocabularies to compare with, in bytes per token.")
    vocab_size: int = Field(
        3072,
        ge=MIN_VOCAB_SIZE,
        le=2**20,
        description="V: entries of the vocabulary, including the 256 bytes and the special tokens. A small text yields fewer.",
    )
    # GPT-4's makes one word of a mark and the letters after it, and of marks and the line breaks after them. The turns of a conversation have
    # neither, so that a small model which answers "Q: Who ...?" on a page has to learn the same words again in SFT.
    pattern: PatternName = Field(
        "gpt2_digits",
        description="Whose pattern splits text into words; gpt2_digits: SmolLM's, which is GPT-2's with numbers cut into digits.",
    )
    # One by one, as Llama and Qwen: sums can then be worked digit by digit. With 3, digits alone can take 1,110 entries (10 + 100 + 1,000).
    max_digits: int = Field(
        1, ge=1, le=3, description="Longest run of digits that may become one token; 1: digits one by one; GPT-4: 3."
    )
    max_bytes: int = Field(
        100_000_000,
        ge=1_000,
        le=1_000_000_000,  # the trainer's counts of pairs have 31 bits
        description="Bytes of training text; from more text, documents are sampled. Costs about 3 bytes of memory per byte, and 125 if no "
        "word repeats.",
    )
    seed: int = Field(0, ge=0, description="Random seed of the sample.")


@dataclass(frozen=True)
class TokenizerInputs:
    """What a vocabulary is made of, and what it is compared with."""

    documents: Documents
    vocabulary: Resource | None = None
    compared: tuple[Resource, ...] = ()


def existing_vocabulary(path: str) -> Step[Resource] | None:
    """The vocabulary to use instead of training one: a path or an fsspec URL; None where the path is empty."""
    return _vocabulary(path) if path else None


def compared_vocabularies(paths: Sequence[str]) -> list[Step[Resource]]:
    """The vocabularies whose bytes per token are reported next to ours."""
    return [_vocabulary(path) for path in paths]


def _vocabulary(path: str) -> Step[Resource]:
    return resource("vocabulary", path, vocabularies.FILES, check_files=vocabularies.load)


def tokenizer(
    documents: Step[Documents],
    vocabulary: Step[Resource] | None,
    compared: Sequence[Step[Resource]],
    config: TokenizerConfig,
) -> Step[Tokenizer]:
    """Train a byte-level BPE tokenizer, or take an existing vocabulary."""
    inputs = roles(documents=documents, vocabulary=vocabulary, compared=compared)
    return Step("tokenizer", VERSION, Tokenizer, config, inputs, run=train_tokenizer, takes=TokenizerInputs)


def train_tokenizer(ctx: StageContext, config: TokenizerConfig, inputs: TokenizerInputs) -> Outcome:
    """Train or load the vocabulary, check it and measure it by language. Raises UserError where there is no text."""
    documents, vocabulary = inputs.documents, inputs.vocabulary
    if not documents.manifest.counts["text_bytes"]:
        raise UserError(
            f"{documents.manifest.id} holds no text to train a vocabulary on: loosen the filters or add input files"
        )
    encoder = vocabularies.load(vocabulary.files("*")) if vocabulary else learn(ctx, config, documents)
    measured = list(held_out(documents, config.seed))
    ours = ChatTokenizer(encoder)
    # Before anything is written: every later stage trusts the vocabulary.
    verify(ours, [document["text"] for document in measured])
    with replacing(ctx.folder / "tokenizer.json") as temporary:
        encoder.save(str(temporary))
    (ctx.folder / "vocabulary.txt").write_text(listing(encoder), encoding="utf-8")
    others = {
        vocabularies.short_name(path): ChatTokenizer(vocabularies.load(compared.files("*")))
        for path, compared in zip(config.compared_with, inputs.compared, strict=True)
    }
    rows = compare({"": ours} | others, measured)
    ctx.table("bytes-per-token", rows, "Bytes per token and tokens per word, by language")
    return Outcome({"vocab_size": ours.vocab_size}, metrics(rows))


def learn(ctx: StageContext, config: TokenizerConfig, documents: Documents) -> tokenizers.Tokenizer:
    """Train a vocabulary on the sampled documents."""
    total = min(documents.manifest.counts["text_bytes"], config.max_bytes)
    encoder = train(_reported(ctx, sample_texts(documents, config.max_bytes, config.seed), total), config)
    # Every pair that is left comes once. The model takes V from the artifact, so a smaller one works.
    if encoder.get_vocab_size() < config.vocab_size:
        ctx.log(f"the text yields a vocabulary of {encoder.get_vocab_size()} tokens instead of {config.vocab_size}")
    return encoder


def _reported(ctx: StageContext, texts: Iterator[str], total_bytes: int) -> Iterator[str]:
    done = 0
    for number, text in enumerate(texts):
        yield text
        done += len(text.encode())
        if number % 100 == 0:
            ctx.progress(done / 1e6, total_bytes / 1e6, "MB")


def sample_texts(documents: Documents, max_bytes: int, seed: int) -> Iterator[str]:
    """Texts of about `max_bytes`, chosen by a hash of the document, so the choice does not depend on sharding. All if all fit."""
    # Places below `share` train and places from 1 - fraction on are held out: no document can be both, in any sharding.
    share = min(_share(documents, max_bytes), 1 - _held_out_fraction(documents))
    for place, document in _places(documents, seed):
        if place < share:
            # Characters where max_bytes counts bytes: a bound on one document need not be exact.
            yield document["text"][: max_bytes // SAMPLED_DOCUMENTS]


def held_out(documents: Documents, seed: int) -> Iterator[Document]:
    """Documents of about MEASURED_BYTES that `sample_texts` never takes; with too few documents, some of all."""
    begin = 1 - (_held_out_fraction(documents) or _share(documents, MEASURED_BYTES))
    for place, document in _places(documents, seed):
        if place >= begin:
            yield {**document, "text": document["text"][: MEASURED_BYTES // SAMPLED_DOCUMENTS]}


def _share(documents: Documents, num_bytes: int) -> float:
    """The fraction of documents with about `num_bytes` of text, at least SAMPLED_DOCUMENTS documents."""
    counts = documents.manifest.counts
    return max(num_bytes / counts["text_bytes"], SAMPLED_DOCUMENTS / counts["documents"])


def _held_out_fraction(documents: Documents) -> float:
    is_enough = documents.manifest.counts["documents"] >= MIN_DOCUMENTS
    return min(0.02, _share(documents, MEASURED_BYTES)) if is_enough else 0.0


def _places(documents: Documents, seed: int) -> Iterator[tuple[float, Document]]:
    """Every document with a pseudorandom place in 0..1, derived from its id and the seed."""
    for path in documents.files("documents/*.parquet"):
        for document in read_documents(path):
            # By the id, so that adding documents changes the choice among the others only by their share.
            digest = hashlib.blake2b(f"{seed}/{document['id']}".encode(), digest_size=8).digest()
            yield int.from_bytes(digest, "big") / 2**64, document


def train(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Train BPE. Ids: special tokens first, then the bytes, then the merges."""
    encoder = tokenizers.Tokenizer(models.BPE(ignore_merges=True))  # a word that is a token is that token
    encoder.pre_tokenizer = vocabularies.words(config.pattern, config.max_digits)
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,  # a pair that comes once saves one token of the whole text
        special_tokens=list(SPECIAL_TOKENS),
        # All 256 bytes, also those that the text lacks: any text can be encoded, and no token for the unknown is
        # needed.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator(itertools.chain.from_iterable(map(cut_unbroken, texts)), trainer)
    return encoder


def cut_unbroken(text: str) -> Iterator[str]:
    """Cut the text so that no word is endless: the trainer's time grows with the square of a word's length."""
    start = 0
    # A stretch stays whole and the cut is behind it, so 2,000 characters are the longest piece of it that the trainer
    # sees as one word.
    for stretch in UNBROKEN.finditer(text):
        yield text[start : stretch.end()]
        start = stretch.end()
    yield text[start:]


def verify(encoder: ChatTokenizer, texts: Sequence[str]) -> None:
    """Raises RuntimeError if a text does not decode to itself, or if the merges do not shorten the text.

    A vocabulary may compose characters (NFC, as Qwen's does): that counts as the same text.
    """
    encoded = encoder.encode_batch(texts)
    composed = normalizers.NFC().normalize_str
    changed = sum(
        encoder.decode(tokens) not in (text, composed(text)) for tokens, text in zip(encoded, texts, strict=True)
    )
    if changed:
        raise RuntimeError(
            f"{changed} of {len(texts)} documents do not decode to themselves: the tokenizer.json has a normalizer, or the "
            "tokenizers library has a bug; use another vocabulary or version"
        )
    num_tokens, num_bytes = sum(map(len, encoded)), sum(len(text.encode()) for text in texts)
    # A vocabulary without merges has a token for each byte, and cannot be shorter.
    if encoder.vocab_size > MIN_VOCAB_SIZE and num_tokens >= num_bytes > 0:
        raise RuntimeError(
            f"{num_bytes} bytes of text become {num_tokens} tokens of a vocabulary of {encoder.vocab_size}: it was trained on text of "
            "another kind; raise max_bytes, change the seed, or use another vocabulary"
        )


def compare(encoders: Mapping[str, ChatTokenizer], documents: Sequence[Document]) -> list[Row]:
    """One row for all documents and one per language, largest first; two columns per encoder, ours without a name.

    Words are separated by spaces: tokens_per_word means nothing in a language written without them.
    """
    texts: dict[str, list[str]] = {ALL: [document["text"] for document in documents]}
    for document in documents:
        if "language" in document:
            texts.setdefault(document["language"], []).append(document["text"])
    # Documents without a language, of a crawl that was not filtered, count in the row of all only.
    largest_first = sorted(texts.items(), key=lambda entry: -sum(map(len, entry[1])))
    return [_row(language, group, encoders) for language, group in largest_first]


def _row(language: str, texts: list[str], encoders: Mapping[str, ChatTokenizer]) -> Row:
    num_bytes, num_words = sum(len(text.encode()) for text in texts), sum(len(text.split()) for text in texts)
    row: Row = {"language": language, "documents": len(texts), "bytes": num_bytes}
    for name, encoder in encoders.items():
        num_tokens = sum(map(len, encoder.encode_batch(texts)))
        # Bytes of UTF-8, not characters: the measure of bits per byte, and comparable between scripts.
        row[_metric(name, "bytes_per_token")] = num_bytes / max(num_tokens, 1)
        row[_metric(name, "tokens_per_word")] = num_tokens / max(num_words, 1)
    return row


def _metric(*path: str) -> str:
    return "/".join(part for part in path if part)


def metrics(rows: Sequence[Row]) -> dict[str, float]:
    """The rows of `compare` as metrics: bytes_per_token, cl100k_base/bytes_per_token, and the same under each language."""
    return {
        _metric("" if row["language"] == ALL else row["language"], name): value
        for row in rows
        for name, value in row.items()
        if isinstance(value, float)
    }


def listing(encoder: tokenizers.Tokenizer) -> str:
    """One line per token: id, text (bytes if it is not UTF-8 by itself), and the two tokens it was merged from."""
    # Byte-level BPE writes each byte as a printable character (GPT-2's table: a space is Ġ), which a reader should not
    # have to know.
    byte_of = vocabularies.byte_of_character()
    special = {token.content for token in encoder.get_added_tokens_decoder().values()}
    model = json.loads(encoder.to_str())["model"]
    # The model stores merges as pairs of names; the concatenation is the name of the token they make.
    parts = {left + right: (left, right) for left, right in model["merges"]}

    def shown(name: str) -> str:
        text = name.encode() if name in special else bytes(byte_of[character] for character in name)
        try:
            return repr(text.decode())
        except UnicodeDecodeError:
            return repr(text)

    lines = []
    for name, token in sorted(encoder.get_vocab().items(), key=lambda entry: entry[1]):
        merged_from = " + ".join(map(shown, parts.get(name, ())))
        lines.append(f"{token:>7} {shown(name):<24} {merged_from}".rstrip() + "\n")
    return "".join(lines)
