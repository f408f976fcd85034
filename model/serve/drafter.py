"""A reward model that scores completions, so that a person who ranks them has a draft to begin with. Reads its folder; writes nothing."""

import threading
from collections.abc import Sequence
from pathlib import Path

from model.inference.scoring import reply_tokens, rewards
from model.network.huggingface import load_reward_model
from model.tokenizer.chat import ChatTokenizer, Messages


class RewardDrafter:
    """The reward model of an artifact."""

    def __init__(self, name: str, folder: Path, tokenizer: Path) -> None:
        """The weights are read when the first draft is asked for: most servers never draft."""
        self.name, self.folder = name, folder
        self.tokenizer = ChatTokenizer.load(tokenizer)
        self._lock = threading.Lock()  # requests come from several threads

    def score(self, messages: Messages, completions: Sequence[str]) -> list[float]:
        """The score of each completion."""
        with self._lock:
            if not hasattr(self, "_model"):
                self._model = load_reward_model(self.folder)
            rows = [reply_tokens(self.tokenizer, messages, completion) for completion in completions]
            scores: list[float] = rewards(self._model, rows).tolist()
        return scores
