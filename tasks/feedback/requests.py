"""What the page may send to the rooms Rank and Arena. Reads and writes nothing.

Every field has a bound and its exact type; a field that is not known is refused. The server turns a mistake into status 400 and one sentence.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from tasks.feedback.labels import unreadable
from tasks.feedback.ratings import Winner

MAX_PROMPT = 20_000  # characters
MAX_PROMPTS = 1_000  # of one request
MAX_COMPLETIONS = 9  # InstructGPT's labellers ranked 4 to 9 (Ouyang et al. 2022, section 3.5)
NICKNAME = re.compile(r"\w(?:[\w .'-]{0,30}[\w.])?")  # letters of any script
MAX_NUMBER = 2**53  # what JavaScript counts exactly; SQLite's integers end at 2^63


def _readable(text: str) -> str:
    if reason := unreadable(text):
        raise ValueError(reason)
    return text


def _nickname(who: str) -> str:
    if not NICKNAME.fullmatch(who):
        raise ValueError(
            "give a nickname of 1 to 32 letters or digits, with spaces, dots, hyphens or apostrophes within"
        )
    return who


# A nickname, and no more of a person.
Who = Annotated[str, AfterValidator(_nickname)]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT), AfterValidator(_readable)]
Number = Annotated[int, Field(ge=0, le=MAX_NUMBER)]


class Body(BaseModel):
    """The JSON body of a request: strict types, no other fields."""

    # Of a string "1" a number could be made, and of 1 a bool: a page that sends these has a fault to find.
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Sampled(Body):
    """How completions are sampled."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 256

    def sampling(self) -> dict[str, Any]:
        """The settings, as they are kept with each completion."""
        return {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}


class NewPrompts(Body):
    """Prompts for the end of the queue."""

    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)]


class NextPrompt(Body):
    """The next prompt that a person has not ranked, after the one of that number."""

    who: Who
    after: Number = 0


class MakeCompletions(Sampled):
    """Completions of a prompt, by the models of these names in turn; by all that chat without names."""

    who: Who
    prompt: Number
    models: Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Field(max_length=32)] = []
    num_completions: Annotated[int, Field(ge=2, le=MAX_COMPLETIONS)] = 4


class NewLabel(Body):
    """A ranking: the rank of each completion by its place, under the guidelines of that version."""

    who: Who
    prompt: Number
    ranks: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_COMPLETIONS)]], Field(min_length=2, max_length=MAX_COMPLETIONS)
    ]
    all_bad: bool = False
    saw_draft: bool = False
    guidelines: Annotated[str, StringConstraints(max_length=64)]


class NewBattle(Sampled):
    """A prompt that two models answer."""

    who: Who
    prompt: Prompt


class ReadSide(Body):
    """Who reads the answer of a side."""

    who: Who


class NewVote(Body):
    """A vote on a battle."""

    who: Who
    battle: Number
    winner: Winner
