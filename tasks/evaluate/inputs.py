"""The artifacts that the report card is made of. Reads and writes nothing."""

from dataclasses import dataclass, fields

from tasks.artifacts.manifest import (
    Artifact,
    Attributes,
    BaseModel,
    Crawl,
    Documents,
    Index,
    Policy,
    Preferences,
    Questions,
    RewardModel,
    SFTModel,
    Tokenizer,
    Tokens,
)


@dataclass(frozen=True)
class EvaluateInputs:
    """One artifact of every stage, in the order in which they were made."""

    # The fields are the roles of the stage's step: they are filled by name, and each artifact's kind is checked by its annotation.
    crawl: Crawl
    raw: Documents
    attributes: Attributes
    clean: Documents
    unique: Documents
    tokenizer: Tokenizer
    tokens: Tokens
    base: BaseModel
    assistant: SFTModel
    reward_model: RewardModel
    policy: Policy
    preferences: Preferences
    questions: Questions
    tool_questions: Questions | None = None
    index: Index | None = None

    # In the order of fields, which is that of the pipeline: the table of costs lists the artifacts so.
    def all(self) -> list[Artifact]:
        """The artifacts in order, without those that are absent."""
        return [found for field in fields(self) if (found := getattr(self, field.name)) is not None]
