"""Tokenizer: byte-level BPE, learned from documents or taken from elsewhere.

Reads Documents, and vocabularies to use or to compare with where the config names any. Writes tokenizer.json (loads in
`tokenizers` and in `transformers`) and, for the eye, vocabulary.txt: a token a line in order of id, with the two it is made of.

BPE is that of Sennrich et al. 2016 on bytes (GPT-2), words are cut with GPT-4's pattern. Departs from it in that how many digits
make a word is a setting: a small vocabulary has no room for a thousand numbers. Of pairs that are equally frequent the one of
lower ids is merged first, where other trainers take the one that is greater as bytes: those merges change places.

Training keeps every different word in memory, so it reads no more than `max_bytes`, drawn by document from all shards, and of a
single document no more than a hundredth of that. A fiftieth of the documents is never learned from: on these the vocabulary is
checked (every text comes back, and is shorter than its bytes) and measured by language. Of fewer than MIN_DOCUMENTS none is spared;
what was learned from is measured then.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from model.config import Config, runtime
from model.tokenizer import vocabularies
from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
from model.tokenizer.vocabularies import PatternName
from tasks.artifacts.manifest import Artifact, Documents, Resource, Tokenizer
from tasks.artifacts.step import Outcome, Step
from tasks.execution.context import StageContext
from tasks.execution.reporter import Row
from tasks.records.documents import Document, read_documents
from tasks.resources import resource

VERSION = 2
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
MIN_DOCUMENTS = 1_000
MEASURED_BYTES = 5_000_000
DRAWN_DOCUMENTS = 100
UNBROKEN = re.compile(r"\S{2000}|\s{2000}")  # too long for a word
ALL = "all"  # languages


class TokenizerConfig(Config):
    """How large the vocabulary is, and how much text it is learned from; or which existing one is used."""

    vocabulary: str = runtime(
        "",
        description="An existing vocabulary to use; nothing is trained then. A tokenizer.json, a folder with GPT-2's encoder.json "
        "and vocab.bpe, or a rank file of tiktoken, as a path or any fsspec URL.",
    )
    compared_with: list[str] = runtime([], description="Vocabularies whose bytes per token are told beside ours.")
    vocab_size: int = Field(
        4096,
        ge=MIN_VOCAB_SIZE,
        le=2**20,
        description="V, with the 256 bytes and the special tokens; less where the text gives less.",
    )
    pattern: PatternName = Field("gpt4", description="Whose way to cut a text into words.")
    max_digits: int = Field(3, ge=1, le=3, description="Digits of a number that may become one token; GPT-4 has 3.")
    max_bytes: int = Field(
        100_000_000,
        ge=1_000,
        le=1_000_000_000,  # the trainer's counts of pairs have 31 bits
        description="Text to learn from; more documents than that are drawn from. A byte costs about 3 of memory, and 125 where no word comes twice.",
    )
    seed: int = Field(0, ge=0, description="Of that draw.")


def tokenizer(documents: Step[Documents], config: TokenizerConfig) -> Step[Tokenizer]:
    """The step that makes a vocabulary for `documents`. Raises ValueError where a named vocabulary is not there."""
    inputs: dict[str, Step[Artifact]] = {"documents": documents}
    if config.vocabulary:
        inputs["vocabulary"] = resource("vocabulary", config.vocabulary, vocabularies.FILES)
    for number, path in enumerate(config.compared_with):
        inputs[f"compared_{number}"] = resource("vocabulary", path, vocabularies.FILES)
    return Step("tokenizer", VERSION, Tokenizer, config, inputs, run=train_tokenizer)


def train_tokenizer(
    ctx: StageContext,
    config: TokenizerConfig,
    documents: Documents,
    vocabulary: Resource | None = None,
    **compared: Resource,
) -> Outcome:
    if not documents.manifest.counts["text_bytes"]:
        raise ValueError(
            f"{documents.manifest.id} holds no text to learn a vocabulary from: loosen the filters or give more input"
        )
    encoder = vocabularies.load(vocabulary.files("*")) if vocabulary else learn(ctx, config, documents)
    measured = list(held_out(documents, config.seed))
    ours = ChatTokenizer(encoder)
    verify(ours, [document["text"] for document in measured])
    encoder.save(str(ctx.folder / "tokenizer.json"))
    (ctx.folder / "vocabulary.txt").write_text(listing(encoder), encoding="utf-8")
    others = {
        vocabularies.short_name(path): ChatTokenizer(vocabularies.load(compared[f"compared_{number}"].files("*")))
        for number, path in enumerate(config.compared_with)
    }
    rows = compare({"": ours} | others, measured)
    ctx.table("bytes-per-token", rows, "What a token stands for, and tokens a word, by language")
    return Outcome({"vocab_size": ours.vocab_size}, metrics(rows))


def learn(ctx: StageContext, config: TokenizerConfig, documents: Documents) -> tokenizers.Tokenizer:
    """Train on the documents that are drawn."""
    total = min(documents.manifest.counts["text_bytes"], config.max_bytes)
    encoder = train(_reported(ctx, draw(documents, config.max_bytes, config.seed), total), config)
    if encoder.get_vocab_size() < config.vocab_size:
        ctx.log(f"the text gives {encoder.get_vocab_size()} tokens, fewer than the {config.vocab_size} asked for")
    return encoder


def _reported(ctx: StageContext, texts: Iterator[str], total_bytes: int) -> Iterator[str]:
    done = 0
    for number, text in enumerate(texts):
        yield text
        done += len(text.encode())
        if number % 100 == 0:
            ctx.progress(done / 1e6, total_bytes / 1e6, "MB")


def draw(documents: Documents, max_bytes: int, seed: int) -> Iterator[str]:
    """Texts of about `max_bytes`, drawn by a hash of the document: the same ones however they are sharded. All where all fit."""
    share = min(_share(documents, max_bytes), 1 - _held_out_fraction(documents))
    for place, document in _places(documents, seed):
        if place < share:
            yield document["text"][: max_bytes // DRAWN_DOCUMENTS]


def held_out(documents: Documents, seed: int) -> Iterator[Document]:
    """Documents of about MEASURED_BYTES that `draw` never takes; of all where it spares none."""
    begin = 1 - (_held_out_fraction(documents) or _share(documents, MEASURED_BYTES))
    for place, document in _places(documents, seed):
        if place >= begin:
            yield {**document, "text": document["text"][: MEASURED_BYTES // DRAWN_DOCUMENTS]}


def _share(documents: Documents, num_bytes: int) -> float:
    """The documents that come to about `num_bytes`, no fewer than DRAWN_DOCUMENTS, none of which gives more than its part."""
    counts = documents.manifest.counts
    return max(num_bytes / counts["text_bytes"], DRAWN_DOCUMENTS / counts["documents"])


def _held_out_fraction(documents: Documents) -> float:
    is_enough = documents.manifest.counts["documents"] >= MIN_DOCUMENTS
    return min(0.02, _share(documents, MEASURED_BYTES)) if is_enough else 0.0


def _places(documents: Documents, seed: int) -> Iterator[tuple[float, Document]]:
    """Every document with its place in 0..1, which its id and the seed decide."""
    for path in documents.files("documents/*.parquet"):
        for document in read_documents(path):
            digest = hashlib.blake2b(f"{seed}/{document['id']}".encode(), digest_size=8).digest()
            yield int.from_bytes(digest, "big") / 2**64, document


def train(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Learn the vocabulary. Special tokens come first, then the bytes, then the merges."""
    encoder = tokenizers.Tokenizer(models.BPE(ignore_merges=True))  # a word that is a token is that token
    encoder.pre_tokenizer = vocabularies.words(config.pattern, config.max_digits)
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator(itertools.chain.from_iterable(map(cut_unbroken, texts)), trainer)
    return encoder


def cut_unbroken(text: str) -> Iterator[str]:
    """The text in pieces that have no endless word: the trainer's time goes with the square of a word's length."""
    start = 0
    for stretch in UNBROKEN.finditer(text):
        yield text[start : stretch.end()]
        start = stretch.end()
    yield text[start:]


def verify(encoder: ChatTokenizer, texts: Sequence[str]) -> None:
    """Raises RuntimeError where a text does not come back from its tokens, or the merges make no text shorter.

    A vocabulary may compose characters (NFC, as Qwen's does): that is the same text in other bytes.
    """
    encoded = encoder.encode_batch(texts)
    composed = normalizers.NFC().normalize_str
    changed = sum(
        encoder.decode(tokens) not in (text, composed(text)) for tokens, text in zip(encoded, texts, strict=True)
    )
    if changed:
        raise RuntimeError(
            f"{changed} of {len(texts)} documents do not come back from their tokens: a tokenizer.json with a normalizer, or a "
            "fault of the tokenizers library; take another vocabulary or version"
        )
    num_tokens, num_bytes = sum(map(len, encoded)), sum(len(text.encode()) for text in texts)
    if encoder.vocab_size > MIN_VOCAB_SIZE and num_tokens >= num_bytes > 0:
        raise RuntimeError(
            f"{num_bytes} bytes of text are {num_tokens} tokens of a vocabulary of {encoder.vocab_size}: it was learned from text of "
            "another kind; raise max_bytes or change the seed, or name another vocabulary"
        )


def compare(encoders: Mapping[str, ChatTokenizer], documents: Sequence[Document]) -> list[Row]:
    """A row for all documents and one a language, the largest first; a pair of columns for each encoder, ours without a name.

    A word is what spaces separate: tokens_per_word says nothing of a language that is written without them.
    """
    texts: dict[str, list[str]] = {ALL: [document["text"] for document in documents]}
    for document in documents:
        if "language" in document:
            texts.setdefault(document["language"], []).append(document["text"])
    largest_first = sorted(texts.items(), key=lambda entry: -sum(map(len, entry[1])))
    return [_row(language, group, encoders) for language, group in largest_first]


def _row(language: str, texts: list[str], encoders: Mapping[str, ChatTokenizer]) -> Row:
    num_bytes, num_words = sum(len(text.encode()) for text in texts), sum(len(text.split()) for text in texts)
    row: Row = {"language": language, "documents": len(texts), "bytes": num_bytes}
    for name, encoder in encoders.items():
        num_tokens = sum(map(len, encoder.encode_batch(texts)))
        row[_metric(name, "bytes_per_token")] = num_bytes / max(num_tokens, 1)
        row[_metric(name, "tokens_per_word")] = num_tokens / max(num_words, 1)
    return row


def _metric(*path: str) -> str:
    return "/".join(part for part in path if part)


def metrics(rows: Sequence[Row]) -> dict[str, float]:
    """The figures of `compare`'s rows: bytes_per_token, cl100k_base/bytes_per_token, and the same below each language."""
    return {
        _metric("" if row["language"] == ALL else row["language"], name): value
        for row in rows
        for name, value in row.items()
        if isinstance(value, float)
    }


def listing(encoder: tokenizers.Tokenizer) -> str:
    """Every token as a line "id text", in order, and the two that it was merged of; as bytes where it is no text by itself."""
    byte_of = vocabularies.byte_of_character()
    special = {token.content for token in encoder.get_added_tokens_decoder().values()}
    model = json.loads(encoder.to_str())["model"]
    parts = {left + right: (left, right) for left, right in model["merges"]}

    def shown(name: str) -> str:
        text = name.encode() if name in special else bytes(byte_of[character] for character in name)
        try:
            return repr(text.decode())
        except UnicodeDecodeError:
            return repr(text)

    lines = []
    for name, token in sorted(encoder.get_vocab().items(), key=lambda entry: entry[1]):
        made_of = " + ".join(map(shown, parts.get(name, ())))
        lines.append(f"{token:>7} {shown(name):<24} {made_of}".rstrip() + "\n")
    return "".join(lines)
