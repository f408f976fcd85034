"""What a model learns, and how it is validated: an objective wraps a model and gives the summed loss of a microbatch.

Reads and writes nothing. An objective gives sums; the training loop divides them by what the whole batch has to learn.
"""

import torch
from torch import Tensor, nn

from model import losses
from model.config import TrainRun
from model.dataloader import Microbatch, Packed
from model.tokenizer import Tokenizer
from model.transformer import RewardModel, Transformer, initialize

Metrics = dict[str, float]


class LanguageObjective(nn.Module):
    """Next-token prediction where the mask says so. Validated in bits per byte of the learned tokens' text."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = model
        self.token_bytes = torch.from_numpy(tokenizer.token_bytes)  # [V]

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens [B, T + 1], mask [B, T] -> summed nats."""
        return losses.cross_entropy(self.model(tokens[:, :-1]), tokens[:, 1:], mask)[0]

    def measure(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Summed nats, and bytes of the learned tokens' text."""
        num_bytes = self.token_bytes.to(tokens.device)[tokens[:, 1:]] * mask
        return self.forward(tokens, mask), num_bytes.sum()

    @staticmethod
    def report(nats: float, num_bytes: float, num_learned: float) -> Metrics:
        return {
            "validation/loss_nats": nats / num_learned,
            "validation/bits_per_byte": losses.bits_per_byte(nats, num_bytes),
        }


class RewardObjective(nn.Module):
    """The chosen completion gets the higher reward. Validated in the fraction of pairs where it does."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """tokens [2 B, T], lengths [2 B], chosen and rejected in turn -> summed nats."""
        return self.measure(tokens, lengths)[0]

    def measure(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Summed nats, and pairs whose chosen completion has the higher reward."""
        rewards = self.model(tokens, lengths)
        chosen, rejected = rewards[0::2], rewards[1::2]
        return losses.pairwise_loss(chosen, rejected).sum(), (chosen > rejected).sum()

    @staticmethod
    def report(nats: float, num_right: float, num_learned: float) -> Metrics:
        return {"validation/loss_nats": nats / num_learned, "validation/accuracy": num_right / num_learned}


Objective = LanguageObjective | RewardObjective


def make_objective(run: TrainRun, tokenizer: Tokenizer) -> Objective:
    """The objective of a run around a model with fresh weights."""
    if run.objective == "reward":
        judge = RewardModel(run.model)
        initialize(judge, run.train.seed)
        return RewardObjective(judge)
    model = Transformer(run.model)
    initialize(model, run.train.seed)
    return LanguageObjective(model, tokenizer)


def num_learned(microbatch: Microbatch) -> float:
    """What the loss of a microbatch is a sum over: learned tokens, or pairs."""
    return float(microbatch.mask.sum()) if isinstance(microbatch, Packed) else len(microbatch.lengths) / 2
