"""Completions of prompts as tensors, and the log-probabilities of their tokens under a policy.

Reads and writes nothing. The head's matrix product with the vocabulary, and the softmax over it, are computed for the tokens of completions
alone: of a model of 1 M parameters with 4,096 tokens they are half of the work, and prompts are often longer than replies.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model import losses
from model.inference.scoring import pad
from model.network.transformer import Transformer


class Completions(NamedTuple):
    """N prompts with their completions; T tokens, padded on the right."""

    tokens: Tensor  # [N, T] int64
    mask: Tensor  # [N, T - 1] 1 where the next token belongs to the completion


def pad_completions(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Completions:
    """N prompts and their completions as tensors, on the CPU."""
    tokens, lengths = pad([[*prompt, *done] for prompt, done in zip(prompts, completions, strict=True)])
    starts = torch.tensor([len(prompt) for prompt in prompts])
    # Place t of the mask stands for token t + 1, as place t of the logits does.
    targets = torch.arange(1, tokens.shape[1])
    # The end-of-turn token is among them: the policy must learn when to stop.
    mask = (targets >= starts[:, None]) & (targets < lengths[:, None])
    return Completions(tokens, mask.float())


def num_places(mask: Tensor) -> int:
    """The columns of a mask [N, T - 1] up to the last that has a 1: the others are padding of every row."""
    return int(mask.amax(0).nonzero().max()) + 1


def score_completions(model: Transformer, tokens: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """tokens [N, T], mask [N, T - 1] -> log p of each next token [N, T - 1] in float32, 0 where mask is 0."""
    kept = mask.bool()
    logits, targets = completion_logits(model, tokens, kept, temperature)
    nats: Tensor = losses.TokenNats.apply(logits, targets)  # type: ignore[no-untyped-call]
    return scattered(-nats, kept)


def completion_logits(model: Transformer, tokens: Tensor, kept: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """tokens [N, T], kept [N, T - 1] -> logits [K, V] in float32 and next tokens [K] of the K places where kept is true.

    Padding on the right needs no attention mask: no real token attends to what follows it.
    """
    # The last position predicts a token that is not there.
    logits = model(tokens[:, :-1], kept=kept).float()
    # At temperature 1, the usual one, a division would be a pass over all logits, and another over their gradients.
    return logits if temperature == 1.0 else logits / temperature, tokens[:, 1:][kept]


def scattered(values: Tensor, kept: Tensor) -> Tensor:
    """values [K] at the places where kept [N, T] is true, 0 elsewhere: [N, T]. The gradient flows back to them."""
    return torch.zeros_like(kept, dtype=values.dtype).masked_scatter(kept, values)


class CompletionModel(nn.Module):
    """A language model that returns what is learned from, instead of logits [N, T, V]."""

    def __init__(self, model: Transformer, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [N, T], mask [N, T - 1] -> log p of each next token, and the entropy without a gradient, in nats: [N, T - 1] in float32.

        Both are 0 where mask is 0.
        """
        kept = mask.bool()
        logits, targets = completion_logits(self.model, tokens, kept, self.temperature)
        nats, entropies = losses.TokenNats.apply(logits, targets, True)  # type: ignore[no-untyped-call]
        return scattered(-nats, kept), scattered(entropies, kept)


@torch.no_grad()
def completion_logprobs(
    model: Transformer, completions: Completions, temperature: float = 1.0, num_rows: int = 16
) -> Tensor:
    """log p of each next token of a completion: [N, T - 1], 0 elsewhere. Computed for `num_rows` rows at a time."""
    return in_parts(completions, num_rows, lambda tokens, mask: score_completions(model, tokens, mask, temperature))


def in_parts(completions: Completions, num_rows: int, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What `function` makes of `num_rows` rows at a time: [N, T - 1], 0 in the padding that it is not given."""
    found = torch.zeros_like(completions.mask)
    # In the order of their lengths, so that a part holds little padding.
    ends = (completions.mask * torch.arange(1, found.shape[1] + 1, device=found.device)).amax(1)
    for rows in torch.split(ends.argsort(stable=True), num_rows):
        mask = completions.mask[rows]
        places = num_places(mask)
        found[rows, :places] = function(completions.tokens[rows, : places + 1], mask[:, :places])
    return found
