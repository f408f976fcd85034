"""Whether tokens are right, and how short they make a text: exact ids, exact merges, bytes per token by language.

    python -m tests.benchmarks.tokenizer_quality

Reads OpenAI's vocabularies and the cases that give their ids, the merges of a reference trainer, novels and an encyclopedia to learn
a vocabulary from, and text of many languages to measure it on.
"""

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from model.tokenizer import vocabularies
from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
from tasks.records.documents import Document
from tasks.tokenizer.train import TokenizerConfig, compare, train
from tests.benchmarks import harness
from tests.support import plain_bpe

BYTE_OF = vocabularies.byte_of_character()
VOCAB_SIZE = 32_768
LEARNED_BYTES = 20_000_000
DOCUMENT_CHARACTERS = 4_000
HELD_OUT_EVERY = 50
LANGUAGES = ("novels", "en", "de", "es", "fr", "ru", "ar", "hi", "ja", "ko", "zh")


def as_bytes(name: str) -> bytes:
    return bytes(BYTE_OF[character] for character in name)


def read_lines(path: Path) -> Iterator[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def tell_ids(folder: Path) -> dict[str, ChatTokenizer]:
    """Load every vocabulary and compare its ids with the expected ones; the encoders."""
    encoders, rows = {}, []
    for name in vocabularies.RANK_FILES:
        start = time.process_time()
        encoders[name] = ChatTokenizer(vocabularies.load([folder / "tiktoken" / f"{name}.tiktoken.gz"]))
        rows.append([name, f"{encoders[name].vocab_size:,}", f"{time.process_time() - start:.1f}"])
    start = time.process_time()
    encoders["gpt2"] = ChatTokenizer(
        vocabularies.load([folder / "gpt2" / "encoder.json", folder / "gpt2" / "vocab.bpe"])
    )
    rows.append(["gpt2", f"{encoders['gpt2'].vocab_size:,}", f"{time.process_time() - start:.1f}"])
    cases, right = Counter[str](), Counter[str]()
    for case in read_lines(folder / "tiktoken-testplans.jsonl.gz"):
        names = {"p50k_edit": ["p50k_base"], "r50k_base": ["r50k_base", "gpt2"]}
        for name in names.get(str(case["encoding"]), [str(case["encoding"])]):
            cases[name] += 1
            right[name] += encoders[name].encode(str(case["text"])) == case["tokens"]
    harness.print_table(
        "Ids of OpenAI's vocabularies",
        ["vocabulary", "V with the conversation's tokens", "CPU seconds to load", "cases with the expected ids"],
        [[*row, f"{right[row[0]]} of {cases[row[0]]}"] for row in rows],
        "p50k_base counts the cases of p50k_edit too, which has its ranks; gpt2 is r50k_base in the form of encoder.json and vocab.bpe.",
    )
    return encoders


def tell_merges(folder: Path) -> None:
    """Compare the trainer with the reference, and both with plain BPE under either rule for ties."""
    text = (folder / "corpus.en").read_text(encoding="utf-8")
    lines = (folder / "train-bpe-reference-merges.txt").read_text(encoding="utf-8").splitlines()
    reference = [tuple(map(as_bytes, line.split(" "))) for line in lines]
    config = TokenizerConfig(vocab_size=len(SPECIAL_TOKENS) + 256 + len(reference), pattern="gpt2")
    encoder = train(iter([text]), config)
    ours = [tuple(map(as_bytes, merge)) for merge in json.loads(encoder.to_str())["model"]["merges"]]
    words = Counter(as_bytes(word) for word, _ in encoder.pre_tokenizer.pre_tokenize_str(text))
    ids = {as_bytes(name): token for name, token in encoder.get_vocab().items() if name not in SPECIAL_TOKENS}
    greatest = plain_bpe.learn(words, len(reference), max)
    lowest = plain_bpe.learn(
        words, len(reference), lambda pairs: min(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    )
    num = len(reference)
    harness.print_table(
        f"Merges learned of the reference corpus ({num} merges, GPT-2's words)",
        ["", "same merge at the same place", "same merges at any place"],
        [
            [name, f"{sum(a == b for a, b in zip(left, right, strict=True))} of {num}", len(set(left) & set(right))]
            for name, left, right in (
                (
                    "reference, plain BPE taking the greatest of equally frequent pairs",
                    reference,
                    [p for p, _ in greatest],
                ),
                ("ours, plain BPE taking the one of lowest ids", ours, [p for p, _ in lowest]),
                ("ours, reference", ours, reference),
            )
        ],
        "Plain BPE is tests/plain_bpe.py: it counts all pairs and takes the most frequent. The two trainers differ in ties alone.",
    )


def novels(data: Path) -> Iterator[str]:
    """LEARNED_BYTES and what is held out of them: an encyclopedia, then novels, in documents of some kilobytes."""
    with gzip.open(data / "pretrain" / "wikitext2-train-excerpt.txt.gz", "rt", encoding="utf-8") as stream:
        texts = [stream.read()]
    texts += [str(line["text"]) for line in read_lines(data / "pretrain" / "english-novels.jsonl.gz")]
    whole = "\n".join(texts)[:LEARNED_BYTES]
    return (whole[start : start + DOCUMENT_CHARACTERS] for start in range(0, len(whole), DOCUMENT_CHARACTERS))


def document(text: str, language: str) -> Document:
    return Document(id="", url="", date="", file="", offset=0, text=text, language=language)


def tell_compression(data: Path, encoders: dict[str, ChatTokenizer]) -> None:
    texts = list(novels(data))
    spared = texts[::HELD_OUT_EVERY]
    harness.say(f"learning {VOCAB_SIZE:,} tokens of {LEARNED_BYTES / 1e6:.0f} MB")
    start = time.process_time()
    learned = train(
        (text for number, text in enumerate(texts) if number % HELD_OUT_EVERY), TokenizerConfig(vocab_size=VOCAB_SIZE)
    )
    seconds = time.process_time() - start
    documents = [document(text, "novels") for text in spared]
    documents += [
        document(str(line["text"]), str(line["lang"]))
        for line in read_lines(data / "langid" / "lingua-sentences.jsonl.gz")
    ]
    rows = {row["language"]: row for row in compare({"": ChatTokenizer(learned)} | encoders, documents)}
    headings = [name for name in rows["all"] if name.endswith(("bytes_per_token", "tokens_per_word"))]
    harness.print_table(
        f"Bytes a token and tokens a word of text that was not learned from (ours: V {VOCAB_SIZE:,}, of {LEARNED_BYTES / 1e6:.0f} MB "
        "of English novels and encyclopedia)",
        ["text", "bytes", *(heading.replace("_", " ") for heading in headings)],
        [
            [language, f"{rows[language]['bytes']:,}", *(f"{rows[language][heading]:.2f}" for heading in headings)]
            for language in LANGUAGES
        ],
        f"Sentences of lingua's test set by language, and the held-out fiftieth of the novels. Learned in {seconds:.0f} CPU seconds. "
        f"{harness.machine()}.",
    )


def main() -> None:
    data = harness.shared_data()
    encoders = tell_ids(data / "tokenizer")
    tell_merges(data / "tokenizer" / "bpe-train-reference")
    tell_compression(data, {name: encoders[name] for name in ("gpt2", "cl100k_base")})


if __name__ == "__main__":
    main()
