"""Tokenizer: byte-level BPE, learned from documents.

Reads Documents. Writes tokenizer.json (loads in `tokenizers` and in `transformers`) and, for the eye, vocabulary.txt, a token a
line in the order in which they were learned.

BPE is that of Sennrich et al. 2016 on bytes (GPT-2), words are cut with GPT-4's pattern. Departs from it in that how many digits
make a word is a setting: a small vocabulary has no room for a thousand numbers.

Training keeps every different word in memory, so it reads no more than `max_bytes`, drawn by document from all shards.
"""

import hashlib
from collections.abc import Iterator

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, pre_tokenizers, trainers

from model.tokenizer import SPECIAL_TOKENS
from model.tokenizer import Tokenizer as Encoder
from tasks.artifacts import Config, Documents, Outcome, Step, Tokenizer
from tasks.shards import read_documents
from tasks.stage import Run

VERSION = 1
GPT4_PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
MEASURED_BYTES = 2_000_000


class TokenizerConfig(Config):
    """How large the vocabulary is, and how much text it is learned from."""

    vocab_size: int = Field(
        4096,
        ge=MIN_VOCAB_SIZE,
        le=2**20,
        description="V, with the 256 bytes and the special tokens; less where the text gives less.",
    )
    max_digits: int = Field(3, ge=1, le=3, description="Digits of a number that may become one token; GPT-4 has 3.")
    max_bytes: int = Field(
        100_000_000,
        ge=1_000,
        description="Text to learn from; more documents than that are drawn from. About 10 bytes of memory each.",
    )
    seed: int = Field(0, ge=0, description="Of that draw.")


def tokenizer(documents: Step[Documents], config: TokenizerConfig) -> Step[Tokenizer]:
    return Step("tokenizer", VERSION, Tokenizer, config, {"documents": documents}, run=run)


def run(run: Run, config: TokenizerConfig, documents: Documents) -> Outcome:
    total = documents.manifest.counts["text_bytes"]
    if not total:
        raise ValueError(
            f"{documents.manifest.id} holds no text to learn a vocabulary from: loosen the filters or give more input"
        )
    encoder = train(
        _reported(run, draw(documents, config.max_bytes, config.seed), min(total, config.max_bytes)), config
    )
    if encoder.get_vocab_size() < config.vocab_size:
        run.log(f"the text gives {encoder.get_vocab_size()} tokens, fewer than the {config.vocab_size} asked for")
    encoder.save(str(run.folder / "tokenizer.json"))
    (run.folder / "vocabulary.txt").write_text(vocabulary(encoder), encoding="utf-8")
    texts = list(draw(documents, min(total, MEASURED_BYTES), config.seed))
    return Outcome(
        {"vocab_size": encoder.get_vocab_size()}, {"bytes_per_token": bytes_per_token(Encoder(encoder), texts)}
    )


def _reported(run: Run, texts: Iterator[str], total_bytes: int) -> Iterator[str]:
    done = 0
    for number, text in enumerate(texts):
        yield text
        done += len(text.encode())
        if number % 100 == 0:
            run.progress(done / 1e6, total_bytes / 1e6, "MB")


def draw(documents: Documents, max_bytes: int, seed: int) -> Iterator[str]:
    """Texts of about `max_bytes`, drawn by a hash of the document: the same ones however they are sharded. All where all fit."""
    share = max_bytes / max(documents.manifest.counts["text_bytes"], 1)
    for path in documents.files("documents/*.parquet"):
        for document in read_documents(path):
            digest = hashlib.blake2b(f"{seed}/{document['id']}".encode(), digest_size=8).digest()
            if int.from_bytes(digest, "big") < share * 2**64:
                yield document["text"]


def train(texts: Iterator[str], config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Learn the vocabulary. Special tokens come first, then the bytes, then the merges."""
    pattern = tokenizers.Regex(GPT4_PATTERN.replace("DIGITS", str(config.max_digits)))
    encoder = tokenizers.Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator(texts, trainer)
    return encoder


def vocabulary(encoder: tokenizers.Tokenizer) -> str:
    """Every token as a line "id text", in order; as bytes where it is no text by itself."""
    byte_of = byte_of_character()
    lines = []
    for token in range(encoder.get_vocab_size()):
        name = str(encoder.id_to_token(token))
        text = name.encode() if name in SPECIAL_TOKENS else bytes(byte_of[character] for character in name)
        try:
            lines.append(f"{token:>7} {text.decode()!r}\n")
        except UnicodeDecodeError:
            lines.append(f"{token:>7} {text!r}\n")
    return "".join(lines)


def byte_of_character() -> dict[str, int]:
    """The byte that each character of the byte-level alphabet stands for: printable ones themselves, the others in order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_of = {character: ord(character) for character in alphabet if ord(character) < 256}
    others = sorted(set(range(256)) - set(byte_of.values()))
    return byte_of | dict(zip(alphabet[len(byte_of) :], others, strict=True))


def bytes_per_token(encoder: Encoder, texts: list[str]) -> float:
    """How much text a token stands for: higher is shorter."""
    return sum(len(text.encode()) for text in texts) / sum(len(tokens) for tokens in encoder.encode_batch(texts))
