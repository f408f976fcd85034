"""Scores of a language model on the items of evaluation tasks: accuracies, and bits per byte of texts.

Reads a model, its tokenizer and items (eval_tasks.py); writes nothing. Accuracies are shares with Wilson's interval. Bits per byte are the sum
of all nats over the sum of all bytes; the interval is that of a ratio of sums over documents, since tokens of one document are no
independent samples. A text is read in windows of `window_tokens`, each after <|bos|>: that is how pretraining sees the beginning of a document.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from model.config import GenerateConfig
from tasks.evaluate.eval_tasks import Item, LoadedTask
from tasks.markdown import Figures
from tasks.shares import Z_95, share

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

STOP = "\n"  # ends a written answer
MAX_ANSWER_TOKENS = 64


def score_task(
    model: "Transformer", tokenizer: "ChatTokenizer", loaded: LoadedTask, window_tokens: int, batch: int
) -> Figures:
    """The score of one task: an accuracy as a share, or bits per byte with its interval."""
    if loaded.kind == "text":
        return bits_per_byte(model, tokenizer, [item.pairs[0][1] for item in loaded.items], window_tokens, batch)
    if loaded.kind == "exact":
        return share(write_answers(model, tokenizer, loaded.items, batch))
    return share(choose(model, tokenizer, loaded.items, window_tokens, batch, needs_greedy=loaded.kind == "greedy"))


def choose(
    model: "Transformer",
    tokenizer: "ChatTokenizer",
    items: Sequence[Item],
    window_tokens: int,
    batch: int,
    *,
    needs_greedy: bool = False,
) -> list[bool]:
    """Whether the right continuation is the likeliest; with `needs_greedy` whether each token of the only one is."""
    from model.inference.scoring import continuation_scores, encode_pair

    rows = [encode_pair(tokenizer, *pair) for item in items for pair in item.pairs]
    # The end of a long context decides, so that it loses its beginning.
    rows = [(context[-max(1, window_tokens - len(ending)) :], ending) for context, ending in rows]
    logprobs, is_greedy = continuation_scores(model, rows, batch)
    right, place = [], 0
    for item in items:
        found = logprobs[place : place + len(item.pairs)].tolist()
        # Equal ones: the first, as numpy's argmax has it, which the harness uses.
        right.append(bool(is_greedy[place]) if needs_greedy else found.index(max(found)) == item.gold)
        place += len(item.pairs)
    return right


def write_answers(model: "Transformer", tokenizer: "ChatTokenizer", items: Sequence[Item], batch: int) -> list[bool]:
    """Whether the line that the model writes is the answer."""
    from model.inference.scoring import complete

    greedy = GenerateConfig(
        max_new_tokens=MAX_ANSWER_TOKENS, temperature=0.0, stop_sequences=(tuple(tokenizer.encode(STOP)),)
    )
    texts = complete(model, tokenizer, [item.pairs[0][0] for item in items], greedy, batch)
    return [text.split(STOP)[0].strip() == item.pairs[0][1].strip() for text, item in zip(texts, items, strict=True)]


def bits_per_byte(
    model: "Transformer", tokenizer: "ChatTokenizer", texts: Sequence[str], window_tokens: int, batch: int
) -> Figures:
    """Bits per byte over all texts with the 95% interval over documents: value, num, low, high."""
    from model.inference.scoring import continuation_logprobs

    windows, owners = [], []
    for number, text in enumerate(texts):
        tokens = tokenizer.encode(text)
        for start in range(0, len(tokens), window_tokens):
            windows.append(([tokenizer.bos], tokens[start : start + window_tokens]))
            owners.append(number)
    nats = [0.0] * len(texts)
    for owner, logprob in zip(owners, continuation_logprobs(model, windows, batch).tolist(), strict=True):
        nats[owner] -= logprob
    return ratio([value / math.log(2) for value in nats], [len(text.encode()) for text in texts])


def ratio(bits: Sequence[float], num_bytes: Sequence[int]) -> Figures:
    """The ratio of two sums over documents, and its 95% interval (Cochran 1977, section 6.4)."""
    total, num = sum(num_bytes), len(bits)
    value = sum(bits) / max(1, total)
    residuals = sum((one - value * size) ** 2 for one, size in zip(bits, num_bytes, strict=True))
    half = Z_95 * math.sqrt(residuals * num / max(1, num - 1)) / max(1, total)
    return {"bits_per_byte": value, "num": num, "bytes": total, "low": value - half, "high": value + half}
