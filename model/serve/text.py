"""From tokens to text: what of a completion may be shown already, and where a stop string ends it.

Reads and writes nothing.
"""

from collections.abc import Callable, Sequence

from model.serve.jobs import Job, ScoredToken
from model.tokenizer.chat import ChatTokenizer

BROKEN = "\N{REPLACEMENT CHARACTER}"


def stop_check(tokenizer: ChatTokenizer, stops: Sequence[str]) -> Callable[[list[int]], bool] | None:
    """Whether tokens end in one of the strings; None without strings. The engine asks after each token."""
    if not stops:
        return None
    # Each token has a byte at least, and the last one may reach past the string.
    num_tokens = max(len(stop.encode("utf-8", "replace")) for stop in stops) + 1

    def is_ended(tokens: list[int]) -> bool:
        text = tokenizer.decode(tokens[-num_tokens:])
        return any(stop in text for stop in stops)

    return is_ended


class Written:
    """The text of a job as it comes. `hidden_from`: a token from which on no text is shown, that starts a tool call."""

    def __init__(
        self, tokenizer: ChatTokenizer, job: Job, stops: Sequence[str] = (), hidden_from: int | None = None
    ) -> None:
        self.tokenizer, self.job, self.stops, self.hidden_from = tokenizer, job, stops, hidden_from
        self.text = ""  # shown so far
        self.num_seen = 0
        self.is_finished = False

    def take(self) -> tuple[str, list[ScoredToken]] | None:
        """What is new: text that no later token can change, and the tokens since the last call. None where nothing is."""
        # In this order: the engine sets the reason last, so all tokens of a finished job are seen.
        is_finished, tokens = self.job.finish_reason is not None, self.job.tokens[self.num_seen :]
        if self.is_finished or not (tokens or is_finished):
            return None
        self.is_finished = is_finished
        self.num_seen += len(tokens)
        whole = self._shown(self.job.ids[: self.num_seen])
        # A tokenizer may change earlier text with a later token; then the piece waits.
        new = whole[len(self.text) :] if is_finished or whole.startswith(self.text) else ""
        self.text += new
        return new, tokens

    def _shown(self, ids: list[int]) -> str:
        if ids and ids[-1] in self.job.sampling.stop_tokens:
            ids = ids[:-1]
        if self.hidden_from in ids:
            ids = ids[: ids.index(self.hidden_from)]
        # Decoded from the start each time, since the bytes of one character may lie in several tokens: a millisecond for 4,000 tokens.
        text = self.tokenizer.decode(ids)
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            return text[: min(places)]
        if self.is_finished:
            return text
        # The last character may be incomplete, and the last ones the beginning of a stop string.
        text = text.rstrip(BROKEN)
        return text[: len(text) - max((_overlap(text, stop) for stop in self.stops), default=0)]

    @property
    def stop_reason(self) -> str | int | None:
        """The stop string or the stop token that ended the completion, if it was not the model's own end."""
        if self.job.finish_reason != "stop":
            return None
        if self.job.ids[-1] in self.job.sampling.stop_tokens:
            return self.job.ids[-1]
        text = self.tokenizer.decode(self.job.ids)
        found = [(place, stop) for stop in self.stops if (place := text.find(stop)) >= 0]
        return min(found)[1] if found else None


def _overlap(text: str, stop: str) -> int:
    """The number of last characters of a text that begin a stop string."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
