"""The records of chat data: conversations, preference pairs, prompts and questions, one JSON object a line.

This is the one definition of their shape. Users' files are parsed into these records (tasks/conversations/readers.py), the sample
web composes them, and the artifacts hold them in the form that `normal_form` gives, with every default written out. So whatever
passes the check of a file can be read by every later stage.

The message list is that of OpenAI's fine-tuning files (https://platform.openai.com/docs/guides/supervised-fine-tuning) and of
Hugging Face chat templates. Departures: text only (no images, tools or functions), and turns alternate, since a chat model is
always asked that way. Fields that are not named here are ignored. A null in an optional field means that it is absent, since
Hugging Face `datasets` writes absent fields so.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, field_validator, model_serializer, model_validator

from tasks.records.mistakes import mistake, shown

Role = Literal["system", "user", "assistant"]
# The first three are of the sample web: a fact asked in a wording that training saw, in one that it did not, and a fact
# that no conversation of the training set asks for.
Split = Literal["seen_wording", "heldout_wording", "heldout_fact", "unknown", "other"]
Text = Annotated[str, Field(strict=True)]
# FailFast: only the first mistake is reported, so a line with a million of them costs no memory
Texts = Annotated[tuple[Text, ...], FailFast()]

NOT_TEXT = ("tool_calls", "function_call", "audio")  # what an OpenAI message can hold in place of text
_WITHOUT_TOOLS = "remove the record, or the tool calls from it"
NO_ANSWER = "I don't know."  # the right answer to a question of split "unknown"


class Record(BaseModel):
    """A frozen record. Unknown fields are ignored, and a null in an optional field means that it is absent."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: item for name, item in value.items() if item is not None or name not in optional}


class Message(Record):
    """One turn. `weight` 0 keeps an assistant's turn as context that is not learned, as in OpenAI's files."""

    role: Role
    content: Text
    weight: Literal[0, 1] = 1

    @model_validator(mode="before")
    @classmethod
    def _from_openai(cls, value: Any) -> Any:
        """OpenAI's newer forms as role and text: the role "developer", and content as a list of parts."""
        if not isinstance(value, Mapping):
            return value
        message = dict(value)
        # Before pydantic sees the role: its message would list the three roles and hide the reason.
        if message.get("role") in ("tool", "function"):
            raise mistake("role", f"is {shown(message['role'])}, and tools are not supported", _WITHOUT_TOOLS)
        # An empty list or a null is no tool call.
        if used := [name for name in NOT_TEXT if message.get(name)]:
            raise mistake(used[0], "is set, and only text is supported", _WITHOUT_TOOLS)
        # OpenAI's name for the system role since its reasoning models; the meaning is the same.
        if message.get("role") == "developer":
            message["role"] = "system"
        if "content" in message:
            message["content"] = _joined(message["content"])
        # Other roles are never learned, so their weight is not looked at.
        message["weight"] = _checked_weight(message.get("weight")) if message.get("role") == "assistant" else 1
        return message

    @model_serializer
    def _serialize(self) -> dict[str, Any]:
        # The default is left out: records without weights keep the form that they have in users' files.
        plain = {"role": self.role, "content": self.content}
        return plain if self.weight else {**plain, "weight": 0}


def _joined(content: Any) -> Any:
    """Text parts, joined by line feeds as vLLM does for models that read text only; what is not a list stays as it is."""
    if content is None:
        raise mistake("content", "is null", "write the text of the turn, or remove the record")
    if not isinstance(content, list):
        return content
    for number, part in enumerate(content):
        if not (isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            remedy = 'give text parts only, {"type": "text", "text": "..."}, or remove the record'
            raise mistake(f"content[{number}]", f"is {shown(part)}, and only text is supported", remedy)
    return "\n".join(part["text"] for part in content)


def _checked_weight(weight: Any) -> int:
    if weight is None:
        return 1
    # True equals 1 in Python. 1.0 equals it as well, and JSON writers that know one kind of number write it so.
    if isinstance(weight, bool) or weight not in (0, 1):
        raise mistake("weight", f"is {shown(weight)}", "write 1 for a turn to learn, 0 for one to leave out")
    return int(weight)


Messages = Annotated[tuple[Message, ...], FailFast()]


class Conversation(Record):
    """A conversation whose assistant turns are to be learned. `facts` names the facts of the sample world that it states."""

    messages: Messages
    kind: Text = ""
    facts: Texts = ()

    @model_validator(mode="before")
    @classmethod
    def _no_tools(cls, value: Any) -> Any:
        """Training on the answers without the tools that the model was offered would teach something else."""
        for name in ("tools", "functions"):
            if isinstance(value, Mapping) and value.get(name):
                raise mistake(name, "is set, and tools are not supported", f"remove the record, or {name} from it")
        return value

    @field_validator("messages")
    @classmethod
    def _has_an_answer(cls, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        messages = check_turns(messages)
        if all(message.role != "assistant" for message in messages):
            raise mistake("", "holds no assistant turn to learn", "add the answer, or remove the record")
        return messages

    @property
    def is_learned(self) -> bool:
        """Whether some turn of it adds to the loss."""
        return any(message.role == "assistant" and message.weight for message in self.messages)


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
    """Two completions of one prompt, the better first. `kind` ends in the fault of the worse one, where that is known."""

    chosen: Text
    rejected: Text
    kind: Text = ""

    @field_validator("chosen")
    @classmethod
    def _is_a_reply(cls, chosen: str) -> str:
        """A rejected completion may be blank: silence is a fault that the reward model has to learn."""
        if not chosen.strip():
            raise mistake("", "is blank", "write the better completion, or remove the record")
        return chosen

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
    training text states the fact. A question of split "unknown" cannot be answered, and saying so is right.
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


def check_turns(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages without blank system turns. Raises where turns do not alternate, the user first, or one of them is blank."""
    first_role = messages[0].role if messages else None
    expected = "user"
    for number, message in enumerate(messages):
        if message.role == "system":
            if number:
                raise mistake(f"[{number}].role", 'is "system"', "put the system turn first, and only one")
            continue
        if message.role != expected:
            problem = f"is {shown(message.role)}, and it is the {expected}'s turn"
            raise mistake(f"[{number}].role", problem, "let user and assistant alternate, the user first")
        if not message.content.strip():
            raise mistake(f"[{number}].content", "is blank", "write the text of the turn, or remove the record")
        expected = "assistant" if expected == "user" else "user"
    # True is 1: no message at all, or a system turn alone.
    if len(messages) == (first_role == "system"):
        raise mistake("", "holds no turn of the user", "write the question, or remove the record")
    # A blank system turn would be rendered as an empty turn.
    return messages[1:] if first_role == "system" and not messages[0].content.strip() else messages


def normal_form(record: Record) -> dict[str, Any]:
    """The record as JSON values, every default written out."""
    return record.model_dump(mode="json")
