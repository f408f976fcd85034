"""Conversations and questions about tools as artifacts, composed from the world of the sample web.

Reads the index of the run: the results in the conversations are those that the tool gives. Writes `train.jsonl` and `validation.jsonl`, or
`questions.jsonl`. Both are off by default: a recipe asks for them with sft.num_tool_conversations and evaluate.num_tool_questions.
"""

from dataclasses import dataclass

from pydantic import Field

from model.config import Config, runtime
from model.files import write_lines
from tasks.artifacts.manifest import Conversations, Index, Questions
from tasks.artifacts.step import Outcome, Step, roles
from tasks.conversations import tool_use
from tasks.conversations.readers import split
from tasks.conversations.tools import search_index
from tasks.execution.context import StageContext
from tasks.records.conversations import normal_form
from tasks.records.full_text import FullTextIndex
from tasks.sample_web.world import build_world

VERSION = 7  # 7: sentences about "her" first, and more differences
VALIDATION_FRACTION = 0.03
MORE_LINES = 25  # sentences of a search from which results for other names are made


class ToolConversationsConfig(Config):
    """How many conversations teach tools. Their artifact identifies them."""

    num_tool_conversations: int = runtime(
        0, ge=0, description="Conversations about the sample web that teach search, calculator and Python; 0: none."
    )


class ToolQuestionsConfig(Config):
    """How many questions ask for tools."""

    num_tool_questions: int = runtime(
        0, ge=0, description="Questions about the sample web of each kind that are answered with tools; 0: none."
    )


class ComposedConfig(Config):
    """What is composed."""

    num_records: int = Field(ge=1)
    world_seed: int


@dataclass(frozen=True)
class ToolConversationsInputs:
    """What the conversations search."""

    index: Index


def tool_conversations(
    config: ToolConversationsConfig, index: Step[Index], world_seed: int
) -> Step[Conversations] | None:
    """The step that composes conversations with tools; None where the recipe wants none."""
    if not config.num_tool_conversations:
        return None
    asked = ComposedConfig(num_records=config.num_tool_conversations, world_seed=world_seed)
    return Step(
        "tool_conversations",
        VERSION,
        Conversations,
        asked,
        roles(index=index),
        run=_write_conversations,
        takes=ToolConversationsInputs,
        is_source=True,
    )


def tool_questions(config: ToolQuestionsConfig, world_seed: int) -> Step[Questions] | None:
    """The step that composes questions for tools; None where the recipe wants none."""
    if not config.num_tool_questions:
        return None
    asked = ComposedConfig(num_records=config.num_tool_questions, world_seed=world_seed)
    return Step("tool_questions", VERSION, Questions, asked, {}, run=_write_questions, is_source=True)


def _write_conversations(ctx: StageContext, config: ComposedConfig, inputs: ToolConversationsInputs) -> Outcome:
    index = FullTextIndex(inputs.index.folder / "index.sqlite")
    search, lines = tool_use.search_text(search_index(index)), search_index(index, MORE_LINES)
    sides = split(
        tool_use.tool_conversations(build_world(config.world_seed), config.num_records, search, lines),
        VALIDATION_FRACTION,
        "the sample world",
    )
    index.close()
    return Outcome(
        {
            "train_records": write_lines(ctx.folder / "train.jsonl", map(normal_form, sides.train)),
            "validation_records": write_lines(ctx.folder / "validation.jsonl", map(normal_form, sides.validation)),
        }
    )


def _write_questions(ctx: StageContext, config: ComposedConfig) -> Outcome:
    records = tool_use.tool_questions(build_world(config.world_seed), config.num_records)
    return Outcome({"records": write_lines(ctx.folder / "questions.jsonl", map(normal_form, records))})
