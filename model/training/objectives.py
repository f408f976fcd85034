"""Objectives: what a model learns, and how it is validated. An objective wraps a model and computes a microbatch's summed loss.

Reads and writes nothing. An objective returns sums; the trainer divides them by the number of terms of the whole batch. What is
minimised may have more terms than the loss that is reported: the z-loss (PaLM, Chowdhery et al. 2022, section 5) is one.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model import losses
from model.config import TrainRun
from model.data.dataset import Dataset, Microbatch, Packed
from model.data.packing import Indices
from model.network.induction import add_induction_heads
from model.network.transformer import RewardModel, Transformer, initialize
from model.tokenizer.chat import ChatTokenizer

Metrics = dict[str, float]


class LanguageObjective(nn.Module):
    """Next-token prediction of the tokens that the mask selects. Validated in bits per byte of their text.

    Conversations are always masked from each other: a user's conversation has no other one before it. Packed without a mask the
    model reads its neighbours, in training and in validation, and validation reported 0.198 nats a token where a conversation by
    itself costs 0.209.
    """

    num_sums = 3  # that `report` takes: what `measure` returns, and the number of terms

    def __init__(
        self, model: Transformer, tokenizer: ChatTokenizer, z_weight: float, mask_across_documents: bool
    ) -> None:
        super().__init__()
        self.model = model
        # Not a buffer, so that checkpoints do not hold it; `measure` alone needs it on the device.
        self.token_bytes = torch.from_numpy(tokenizer.token_bytes)  # [V]
        self.bos = tokenizer.bos
        self.z_weight = z_weight
        self.mask_across_documents = mask_across_documents

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """tokens [B, T + 1], mask [B, T] -> the sum to minimise, and the summed nats in it."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        # Every document and conversation begins with <|bos|>: counting these numbers the documents of a row.
        documents = (inputs == self.bos).cumsum(1) if self.mask_across_documents else None
        logits = self.model(inputs, documents=documents)
        # A sum: the trainer divides by the learned tokens of the whole batch.
        nats = losses.cross_entropy(logits, targets, mask)[0]
        return (nats + self.z_weight * losses.z_loss(logits, mask) if self.z_weight else nats), nats

    def measure(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Summed nats, and bytes of the learned tokens' text."""
        # Bytes of the targets, special tokens as 0: the same text in any tokenizer has the same number.
        num_bytes = self.token_bytes.to(tokens.device)[tokens[:, 1:]] * mask
        return self.forward(tokens, mask)[1], num_bytes.sum()

    @staticmethod
    def report(nats: float, num_bytes: float, num_learned: float) -> Metrics:
        """Metrics of sums over all validation records."""
        return {
            "validation/loss_nats": nats / num_learned,
            "validation/bits_per_byte": losses.bits_per_byte(nats, num_bytes),
        }


class RewardObjective(nn.Module):
    """The chosen completion of a pair gets the higher reward. Validated by the fraction of pairs in which it does.

    Pairs count by their weight. InstructGPT puts all pairs of a ranking into one batch element, whose mean they are; here they are
    drawn one by one, each with the weight that it has in that mean, so that batches keep one shape.
    """

    num_sums = 3

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor, starts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The fields of `Pairs` -> the sum to minimise, and the summed nats."""
        nats = self.measure(tokens, lengths, starts, weights)[0]
        return nats, nats

    def measure(self, tokens: Tensor, lengths: Tensor, starts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Summed nats, and the weight of the pairs whose chosen completion has the higher reward."""
        # Both sides are rows of one batch, see `Pairs`: chosen at even places, rejected at odd ones.
        rewards = self.model(tokens, lengths, starts)
        chosen, rejected = rewards[0::2], rewards[1::2]
        # Equal rewards count as wrong: a model whose head is still 0 has an accuracy of 0, not of 1.
        return (weights * losses.pairwise_loss(chosen, rejected)).sum(), (weights * (chosen > rejected)).sum()

    @staticmethod
    def report(nats: float, num_right: float, num_learned: float) -> Metrics:
        """Metrics of sums over all validation records."""
        return {"validation/loss_nats": nats / num_learned, "validation/accuracy": num_right / num_learned}


Objective = LanguageObjective | RewardObjective


def make_objective(run: TrainRun, tokenizer: ChatTokenizer) -> Objective:
    """The objective of a run around a model with fresh weights."""
    if run.objective == "reward":
        reward_model = RewardModel(run.model, run.likelihood_weight)
        # Also where weights are loaded afterwards: a language model's file has none for the reward head.
        initialize(reward_model, run.train.seed)
        reward_model.model.activation_checkpointing = run.train.activation_checkpointing
        return RewardObjective(reward_model)
    model = Transformer(run.model)
    initialize(model, run.train.seed)
    if run.copying.num_heads and run.initial_weights is None:
        add_induction_heads(model, run.copying, run.train.seed)
    model.model.activation_checkpointing = run.train.activation_checkpointing
    # See LanguageObjective for the measured difference.
    is_masked = run.objective == "sft" or run.train.mask_across_documents
    return LanguageObjective(model, tokenizer, run.optim.z_loss, is_masked)


@torch.no_grad()
def measures(
    objective: Objective, dataset: Dataset, records: Indices, size: int, device: str | torch.device
) -> Iterator[npt.NDArray[np.float64]]:
    """Summed nats, the objective's own measures and the number of terms, for every `size` of the records in turn."""
    for start in range(0, len(records), size):
        microbatch = dataset.fetch(records[start : start + size])
        # Not through __call__: of a compiled objective it would compile a second, gradient-free graph for a few forwards.
        measured = objective.measure(*(tensor.to(device, non_blocking=True) for tensor in microbatch))
        # float64 on the CPU: a validation sums over up to millions of
        # tokens. One wait for the GPU a microbatch, which is rare here.
        yield np.array([*map(float, measured), num_learned(microbatch)])


def num_learned(microbatch: Microbatch) -> float:
    """The number of terms in a microbatch's loss: learned tokens, or pairs by their weight."""
    return float((microbatch.mask if isinstance(microbatch, Packed) else microbatch.weights).sum())
