"""Which weights of a policy are trained: all, or the gains of its norms alone. Reads and writes nothing.

The gains are a thousandth of a small model's weights, and enough to change how it uses what it knows (Frankle et al. 2020,
https://arxiv.org/abs/2003.00152, for convolutional networks; Zhao et al. 2023, https://arxiv.org/abs/2312.11420, for attention). A reward is a bit
of information for a whole completion, so the gradient of a few thousand completions is mostly noise, and Adam moves every weight at the same
rate, the noisy ones too. With all weights trained, worked sums of `tiny` fell from 80% to 58%; with the gains alone they stay, sampled replies are
right more often at a quarter of the KL, and refusals of strangers follow their share among the prompts (tests/benchmarks/README.md has the figures).

A gain is near 1, a weight of a matrix near 0.05, so gains take a higher learning rate, a multiple of that of all weights.
"""

from torch import nn

from model.config import OptimConfig


def train_gains_alone(model: nn.Module) -> None:
    """Freeze all but the gains of the norms."""
    for parameter in model.parameters():
        # The only vectors: the network has no biases.
        parameter.requires_grad_(parameter.dim() == 1)


def with_gain_rate(optim: OptimConfig, factor: float) -> OptimConfig:
    """The optimizer's settings with the learning rate of the gains; unchanged for a factor of 0, which trains all weights."""
    return optim.model_copy(update={"learning_rate": optim.learning_rate * factor}) if factor else optim
