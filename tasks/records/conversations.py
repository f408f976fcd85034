"""The records that conversation, preference, prompt and question files hold, one JSON object a line.

The message list is the one of the OpenAI and Hugging Face chat formats, so that files of theirs can be used as they are.
"""

from typing import Literal, NotRequired, TypedDict

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    role: Role
    content: str


class Conversation(TypedDict):
    """A conversation whose assistant turns are to be learned. `facts` names the facts of the world that it tells."""

    messages: list[Message]
    kind: NotRequired[str]
    facts: NotRequired[list[str]]


class Preference(TypedDict):
    """Two completions of one prompt, the better first."""

    messages: list[Message]
    chosen: str
    rejected: str
    kind: NotRequired[str]


class Prompt(TypedDict):
    """A conversation that ends in a user turn. `answer`, where known, makes the completion verifiable."""

    messages: list[Message]
    answer: NotRequired[str | None]
    kind: NotRequired[str]


Split = Literal["seen_wording", "heldout_wording", "heldout_fact", "unknown"]


class Question(TypedDict):
    """A question of the evaluation.

    `completion` is the same question as the start of a statement, for a base model; `aliases` are answers that count as right.
    """

    question: str
    completion: str
    answer: str
    aliases: list[str]
    fact: str
    num_mentions: int
    split: Split
