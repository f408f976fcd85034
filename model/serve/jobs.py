"""A completion that the engine works on: its prompt, how it is sampled, and its tokens so far.

Reads and writes nothing. The engine's thread appends; the threads that wait for the result read `tokens` up to a length that they have seen, and
`finish_reason`, which is set last.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

FinishReason = Literal["stop", "length"]


class Alternative(NamedTuple):
    """A token that could have followed, and its log-probability in nats."""

    token: int
    logprob: float


class ScoredToken(NamedTuple):
    """A token, its log-probability under the model at temperature 1 (None where it was not asked for), the likeliest ones at its place."""

    token: int
    logprob: float | None = None
    top: tuple[Alternative, ...] = ()


class TokenMask(Protocol):
    """What a completion may contain, token by token."""

    def allowed(self) -> Tensor:
        """Which tokens may come next: bool [V]."""

    def accept(self, token: int) -> None:
        """Take the next token."""


@dataclass(frozen=True)
class Sampling:
    """How a completion is sampled. Fields as in model.config.GenerateConfig; penalties as in OpenAI's API."""

    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop_tokens: frozenset[int] = frozenset()

    @property
    def changes_logits(self) -> bool:
        """Whether a row's logits differ from the model's before the temperature."""
        return bool(self.logit_bias or self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)

    def stopping_at(self, *tokens: int) -> "Sampling":
        """The same with more stop tokens."""
        return replace(self, stop_tokens=self.stop_tokens.union(tokens))

    @property
    def filters(self) -> tuple[int, float, float]:
        """What `restrict` reads: rows with equal filters are filtered together."""
        return self.top_k, self.top_p, self.min_p


@dataclass(eq=False)
class Job:
    """One completion of a prompt. `draws`: the random numbers of this completion alone, so that no other request changes it.

    num_top: how many alternatives are wanted per token; None: no log-probabilities either.
    is_ended: says whether the text so far ends the completion, for stop strings. notify: called by the engine when something is new.
    """

    prompt: list[int]
    sampling: Sampling
    draws: random.Random
    num_top: int | None = None
    scores_prompt: bool = False
    mask: TokenMask | None = None
    is_ended: Callable[[list[int]], bool] | None = None
    notify: Callable[[], None] = lambda: None

    prompt_scores: list[ScoredToken] = field(default_factory=list)
    tokens: list[ScoredToken] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)  # of `tokens`
    num_cached: int = 0  # tokens of the prompt that were not computed
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    is_cancelled: bool = False

    # The engine's: the row that the job has, and how many of its tokens the row holds.
    row: int = -1
    num_read: int = 0

    @property
    def is_reading(self) -> bool:
        """Whether a part of the prompt is still to be read."""
        return self.num_read < len(self.prompt)

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.finish_reason is not None or self.error is not None or self.is_cancelled
