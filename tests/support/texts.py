"""Texts on which tokenizers disagree: hostile mixtures of characters, and pieces of real pages where there are some."""

import gzip
import os
import random
from collections.abc import Iterator
from pathlib import Path

# Spaces of all kinds, contractions, digits of many scripts, marks, letters that change with case, emoji, halves of names of tokens.
PIECES = (
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u2003",
        "\u3000",
        "\x85",
        "\x1c",
        "\x0b",
        "\u2028",
        "\u200b",
        "\ufeff",
        "\0",
    ),
    *("'s", "'S", "'ll", "'LL", "'re", "'Ve", "'", "’s", "n't"),
    *("1", "12", "1234", "½", "²", "٣", "Ⅷ", "１", "१", "𝟘", "〇"),
    *("a", "A", "é", "e\u0301", "É", "ß", "ſt", "K", "ǅ", "ʰ", "中文", "한글", "مرحبا", "ক্ষ", "ไทย", "़", "\u0301", "𐏓"),
    *("!", "?!", "--", "_", "$", "€", "“", "”", "…", "/", "😀", "👩‍👩‍👧", "\ufffd", "\U000e0001", "\U0010ffff"),
    *("<|bos|>", "<|im_end|>", "<|", "|>"),
)


def hostile_texts(number: int, seed: int) -> Iterator[str]:
    """Texts of up to 24 pieces."""
    rng = random.Random(seed)
    for _ in range(number):
        yield "".join(rng.choices(PIECES, k=rng.randrange(1, 25)))


def real_texts(number: int) -> Iterator[str]:
    """Pieces of up to 300 characters of pages and books; none where CRAWL2CHAT_TEST_DATA and ../shared/data are missing."""
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("CRAWL2CHAT_TEST_DATA", root / "../shared/data")).resolve()
    files = sorted((folder / "pretrain").glob("*.gz"))
    # A megabyte of each: to read all takes longer than to compare.
    texts = []
    for path in files:
        with gzip.open(path) as file:
            texts.append(file.read(1_000_000).decode(errors="replace"))
    rng = random.Random(0)
    for _ in range(number if texts else 0):
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        yield text[start : start + rng.randrange(1, 300)]
