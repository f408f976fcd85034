"""What models reply, how likely they find a text, and what a reward model prefers.

Reads models and records in the shapes of JSON Lines questions and preference pairs, writes nothing. Whether a reply is right is decided in
model/inference/answers.py. A base model is asked twice: by ranking the candidates for the end of a statement by their likelihood, as
LAMA does (Petroni et al. 2019, https://arxiv.org/abs/1909.01066), and by completing the statement.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.config import GenerateConfig
from model.inference.cpu_kernels import make_decoder
from model.inference.generate import draw, generate
from model.losses import token_logprobs
from model.network.transformer import RewardModel, Transformer
from model.tokenizer.chat import ChatTokenizer, Messages

Record = Mapping[str, Any]
V = TypeVar("V")

# English phrases only: a refusal in other words or languages is not recognised. The typographic apostrophe is that of word processors.
_REFUSAL = re.compile(r"(\bnot|n['’]t) (know|sure|aware|have|find)\b|\bno (idea|information)\b|\bnever heard\b", re.I)


@dataclass(frozen=True)
class Answer:
    """A model's reply. `is_finished`: it ended with the end-of-turn token, not at the token limit. `logprob`: of all its tokens, in nats."""

    text: str
    num_tokens: int
    is_finished: bool
    logprob: float = 0.0

    @property
    def is_refusal(self) -> bool:
        """Whether the reply says that the model does not know."""
        return _REFUSAL.search(self.text) is not None


def answer(
    model: Transformer,
    tokenizer: ChatTokenizer,
    conversations: Sequence[Messages],
    config: GenerateConfig,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """The model's reply to each conversation, generated for `batch` at a time. `progress` is called with the number of replies so far."""
    # One decoder for all groups: on a CPU it copies and packs the weights once.
    decoder = make_decoder(model)
    answers: list[Answer] = []
    # Prompts are not cut to the model's length, see model/inference/chat.py for that: past its trained positions the answers are poor.
    for group in _groups(conversations, batch):
        prompts = [tokenizer.render_prompt(messages) for messages in group]
        for completion, logprobs, _ in draw(decoder, prompts, config, tokenizer.turn_end):
            is_finished = bool(completion) and completion[-1] == tokenizer.turn_end
            answers.append(Answer(tokenizer.decode(completion).strip(), len(completion), is_finished, sum(logprobs)))
        if progress:
            progress(len(answers))
    return answers


def complete(
    model: Transformer, tokenizer: ChatTokenizer, openings: Sequence[str], config: GenerateConfig, batch: int = 64
) -> list[str]:
    """The model's continuation of each opening of a document, without the opening."""
    decoder = make_decoder(model)
    texts = []
    for group in _groups(openings, batch):
        prompts = [tokenizer.encode_document(opening) for opening in group]
        # Documents follow each other after <|bos|> in pretraining: it ends a completion.
        texts += [tokenizer.decode(completion) for completion in generate(decoder, prompts, config, tokenizer.bos)]
    return texts


def rank(
    model: Transformer,
    tokenizer: ChatTokenizer,
    openings: Sequence[str],
    candidates: Sequence[Sequence[str]],
    batch: int = 64,
) -> list[str]:
    """The candidate that the model finds likeliest after each opening, followed by a full stop.

    The summed log-probability decides, without a correction for length: the full stop makes a candidate a whole statement.
    """
    openings_tokens = [tokenizer.encode_document(opening.rstrip()) for opening in openings]
    # Openings share candidates, so each is encoded once. The space belongs to its first token, as byte-level BPE has it.
    endings = {
        candidate: tokenizer.encode(f" {candidate}.")
        for candidate in dict.fromkeys(candidate for choices in candidates for candidate in choices)
    }
    # A row for each pair, so time and memory grow with openings x candidates: a relation with 2,000 answers makes 4 million rows.
    # The opening is read again for every candidate.
    rows = [
        (prefix, endings[candidate])
        for prefix, choices in zip(openings_tokens, candidates, strict=True)
        for candidate in choices
    ]
    logprobs = iter(continuation_logprobs(model, rows, batch).tolist())
    scored = [[(next(logprobs), candidate) for candidate in choices] for choices in candidates]
    # Equal log-probabilities: the candidate that is last in the alphabet, whatever the order given.
    return [max(choices)[1] for choices in scored]


def continuation_logprobs(
    model: Transformer, rows: Sequence[tuple[Sequence[int], Sequence[int]]], batch: int = 64
) -> Tensor:
    """log p(continuation | prefix) in nats: N pairs of tokens -> [N] in float32."""
    return continuation_scores(model, rows, batch)[0]


@torch.inference_mode()
def continuation_scores(
    model: Transformer, rows: Sequence[tuple[Sequence[int], Sequence[int]]], batch: int = 64
) -> tuple[Tensor, Tensor]:
    """log p(continuation | prefix) in nats, and whether each of its tokens is the likeliest: N pairs of tokens -> [N] in float32, [N] bool.

    Rows are sorted by length, so that batches hold little padding.
    """
    device = next(model.parameters()).device
    # Logits of all positions are computed: 64 rows of 30 tokens take 32 MB with a vocabulary of 4,096, and 1.2 GB with Qwen3's 151,936.
    logprobs, is_greedy = torch.empty(len(rows)), torch.empty(len(rows), dtype=torch.bool)
    order = sorted(range(len(rows)), key=lambda row: sum(map(len, rows[row])))
    for group in _groups(order, batch):
        tokens, lengths = pad([[*rows[row][0], *rows[row][1]] for row in group])
        starts = torch.tensor([len(rows[row][0]) for row in group])
        # Column t stands for token t + 1, which the logits at t predict.
        columns = torch.arange(1, tokens.shape[1])
        is_continuation = (columns >= starts[:, None]) & (columns < lengths[:, None])
        tokens = tokens.to(device)
        logits = model(tokens[:, :-1])
        nats = token_logprobs(logits, tokens[:, 1:]).cpu()
        is_likeliest = (logits.argmax(-1) == tokens[:, 1:]).cpu()
        # Written to the rows' own places: the result is in the order of the input, not of the lengths.
        logprobs[group] = (nats * is_continuation).sum(-1)
        is_greedy[group] = (is_likeliest | ~is_continuation).all(-1)
    return logprobs, is_greedy


def encode_pair(tokenizer: ChatTokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The tokens of a context, after <|bos|>, and of its continuation, cut as the lm-evaluation-harness does it.

    Spaces at the end of the context belong to the continuation. Both are encoded together, and the continuation is what follows the tokens
    of the context alone: where a token would span both, it is the continuation's.
    """
    stripped = context.rstrip()
    whole = tokenizer.encode(context + continuation)
    start = len(tokenizer.encode(stripped)) if stripped else 0
    return [tokenizer.bos, *whole[:start]], whole[start:]


@torch.inference_mode()
def rewards(model: RewardModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]], batch: int = 64) -> Tensor:
    """The reward model's score of each completion: N pairs of tokens, prompt and completion -> [N] in float32."""
    device = next(model.parameters()).device
    scores = torch.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda row: sum(map(len, rows[row])))
    for group in _groups(order, batch):
        tokens, lengths = pad([[*rows[row][0], *rows[row][1]] for row in group])
        starts = torch.tensor([len(rows[row][0]) for row in group])
        scores[group] = model(tokens.to(device), lengths.to(device), starts.to(device)).cpu()
    return scores


def reply_tokens(tokenizer: ChatTokenizer, messages: Messages, reply: str) -> tuple[list[int], list[int]]:
    """Tokens of a conversation and of its reply, up to the end-of-turn token: the input of the reward model."""
    tokens = tokenizer.render([*messages, {"role": "assistant", "content": reply}]).tokens
    start = len(tokenizer.render_prompt(messages))
    return tokens[:start], tokens[start:]


def pad(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of different lengths -> tokens [N, T] with zeros on the right, lengths [N]."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    # Any id will do: attention is causal, and masks leave padding out.
    tokens = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
    return tokens, lengths


# itertools.batched would do, but came with Python 3.12.
def _groups(values: Sequence[V], size: int) -> Iterator[Sequence[V]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
