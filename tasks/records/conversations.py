"""The records of chat data: conversations, preference pairs, prompts and questions, one JSON object a line.

This is the one definition of their shape. Users' files are parsed into these records (tasks/conversations/readers.py), the sample
web composes them, and the artifacts hold them in the form that `normal_form` gives, with every default written out. So whatever
passes the check of a file can be read by every later stage.

Fields that are not named here are ignored. A null in an optional field means that it is absent, since Hugging Face `datasets` writes
absent fields so.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    FailFast,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from tasks.records.messages import Message as Message  # noqa: PLC0414 - exported: a record consists of messages
from tasks.records.messages import Record, Text, check_turns
from tasks.records.mistakes import mistake

# Of the sample web: a fact asked in a wording that training saw, in one that it did not, a fact that no conversation of the training set
# asks for, and a fact asked in the direction in which the web does not state it.
Split = Literal["seen_wording", "heldout_wording", "heldout_fact", "reversal", "unknown", "other"]
# FailFast: only the first mistake is reported, so a line with a million of them costs no memory
Texts = Annotated[tuple[Text, ...], FailFast()]
Messages = Annotated[tuple[Message, ...], FailFast()]

NO_ANSWER = "I don't know."  # the right answer to a question of split "unknown"
# Facts that the training text states so often should be known without a conversation or a search: a model of the recipe tiny writes most of
# them, and a fifth of those with 10 mentions. To say "I don't know" of a rarer one is no false refusal.
FREQUENT_MENTIONS = 30


class Conversation(Record):
    """A conversation whose assistant turns are to be learned. `facts` names the facts of the sample world that it states."""

    messages: Messages
    kind: Text = ""
    facts: Texts = ()

    @field_validator("messages")
    @classmethod
    def _has_an_answer(cls, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        messages = check_turns(messages)
        if not any(message.role == "assistant" and message.weight for message in messages):
            raise mistake("", "holds no assistant turn to learn", "add the answer, or remove the record")
        return messages


class _Asked(Record):
    """A record whose messages end where the assistant has to speak.

    TRL's GRPO continues an assistant's turn at the end of a prompt, and refuses any other role there but the user's
    (`trl.data_utils.apply_chat_template`). A completion here always begins a turn, so an assistant's turn is refused too.
    """

    messages: Messages

    @field_validator("messages")
    @classmethod
    def _ends_with_the_user(cls, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        messages = check_turns(messages)
        if messages[-1].role != "user":
            problem = f"is a turn of the {messages[-1].role}, and a prompt ends with the user's"
            raise mistake(f"[{len(messages) - 1}]", problem, "remove that turn")
        return messages


class Preference(_Asked):
    """Two completions of one prompt, the better first. `kind` ends in the fault of the worse one, where that is known.

    `weight`: how much the pair counts in the reward model's loss; the pairs of one ranking share a weight of 1.
    """

    chosen: Text
    rejected: Text
    kind: Text = ""
    weight: float = Field(1.0, ge=1e-6, le=1e3, strict=True)  # bounds within which float32 keeps every term

    @field_validator("chosen")
    @classmethod
    def _is_a_reply(cls, chosen: str) -> str:
        """A rejected completion may be blank: silence is a fault that the reward model has to learn."""
        if not chosen.strip():
            raise mistake("", "is blank", "write the better completion, or remove the record")
        return chosen

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The default is left out: nearly all pairs are no part of a ranking.
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name != "weight" or value != 1}

    @property
    def is_tie(self) -> bool:
        """Whether both completions are the same but for blanks around them, so that nothing is preferred."""
        return self.chosen.strip() == self.rejected.strip()


class Prompt(_Asked):
    """A conversation that ends in a user turn. `answer`, where known, makes the completion verifiable."""

    answer: Text | None = None
    kind: Text = ""

    @field_validator("answer", mode="before")
    @classmethod
    def _number_as_text(cls, answer: Any) -> Any:
        """Data sets of arithmetic write the answer as a number."""
        # Not NaN and Infinity, which Python's JSON reader takes: no completion can equal them.
        is_number = isinstance(answer, int) or (isinstance(answer, float) and math.isfinite(answer))
        return str(answer) if is_number and not isinstance(answer, bool) else answer

    @field_validator("answer")
    @classmethod
    def _blank_is_unknown(cls, answer: str | None) -> str | None:
        return answer if answer and answer.strip() else None


class Question(Record):
    """A question of the evaluation.

    `completion` is the same question as the start of a statement, for a base model. `aliases` are further right answers. `fact` names
    the relation and the subject as RELATION:SUBJECT, so that answers of one relation can be ranked. `num_mentions`: how often the
    training text states the fact. A question of split "unknown" cannot be answered, and saying so is right. `form` is how it is typed (in
    lower case, as keywords, misspelt), `kind` what is asked for; accuracy is also reported by these.
    """

    question: Text
    completion: Text = ""
    answer: Text
    aliases: Texts = ()
    fact: Text = ""
    # 2^53: beyond it a reader that holds numbers as doubles, as JavaScript and many JSON tools do, would see another
    # one.
    num_mentions: int | None = Field(None, ge=0, le=2**53, strict=True)
    split: Split = "other"
    form: Text = ""
    kind: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _answer_of_the_unknown(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("split") == "unknown" and value.get("answer") is None:
            return {**value, "answer": NO_ANSWER}
        return value

    @model_validator(mode="after")
    def _is_not_blank(self) -> Self:
        for name in ("question", "answer"):
            if not getattr(self, name).strip():
                raise mistake(name, "is blank", "write its text, or remove the record")
        return self


def normal_form(record: Record) -> dict[str, Any]:
    """The record as JSON values, every default written out."""
    return record.model_dump(mode="json")
