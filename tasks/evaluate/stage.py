"""Evaluation: measures every model of a run and writes the report card.

Reads one artifact of every stage (inputs.py). Writes a Report: `report.md`, one page for people; `report.html`, the same with pictures;
`report.json`, the figures of both; `answers.jsonl`, every question with the models' replies. What is measured, and after whom, is in
knowledge.py (facts), filter_truth.py (precision and recall of the filters, on a crawl with ground truth), reversal.py, recital.py, in_context.py, written_sums.py, typed_messages.py, and below:
accuracy of the reward model on held-out pairs, and completions of the base model. Cost: generation of an answer to each question by two
models dominates.
"""

import json
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from model.config import GenerateConfig
from model.files import write_lines
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import (
    Attributes,
    BaseModel,
    Checkpoint,
    Crawl,
    Documents,
    Index,
    Policy,
    Preferences,
    Questions,
    Report,
    RewardModel,
    SFTModel,
    Tokenizer,
    Tokens,
)
from tasks.artifacts.step import Outcome, Step, roles
from tasks.conversations.identity import SAMPLE
from tasks.conversations.readers import read_records
from tasks.conversations.sources import QuestionsConfig
from tasks.conversations.tool_sources import ToolQuestionsConfig
from tasks.evaluate import figures as collect
from tasks.evaluate import knowledge, tool_use, typed_messages, written_sums
from tasks.evaluate.card_page import render_page
from tasks.evaluate.chat_replies import ChatReplies, Flags
from tasks.evaluate.gate import gate_figures
from tasks.evaluate.honesty import honesty_figures
from tasks.evaluate.in_context import in_context_figures
from tasks.evaluate.inputs import EvaluateInputs
from tasks.evaluate.knowledge import Answer
from tasks.evaluate.lineage import curves_figures, lineage_figures, samples_figures
from tasks.evaluate.recital import recital_figures
from tasks.evaluate.report_card import render
from tasks.evaluate.reversal import reversal_figures, reversal_questions
from tasks.evaluate.rl import rl_figures
from tasks.execution.context import StageContext
from tasks.markdown import Figures
from tasks.records.conversations import Preference, Question, normal_form
from tasks.shares import shares
from tasks.training import load_language_model

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

VERSION = 13  # 13: the gate compares every kind of right replies
# The prefixes of their metrics: assistant/..., policy/...
CHAT_MODELS = ("assistant", "policy")


class EvaluateConfig(QuestionsConfig, ToolQuestionsConfig):
    """How many questions and pairs are evaluated, and how the models generate."""

    max_questions: int = Field(
        2000, ge=4, description="At most this many questions per model, the same number of each split."
    )
    # Accuracy on 400 pairs has a standard error of at most 2.5%. A pair costs two forwards and no generation, far less than an answer.
    max_preferences: int = Field(400, ge=0, description="At most this many held-out pairs for the reward model.")
    # The sample's assistants reply in about 9 tokens. A model that has not learned to stop costs all 48 steps.
    num_trials: int = Field(
        60,
        ge=0,
        description="Passages of each frequency, prompts of made-up words of each length, messages of each kind, and four times as many sums; "
        "0: none.",
    )
    max_new_tokens: int = Field(48, ge=1, le=4096, description="An answer is cut off after this many tokens.")
    batch_sequences: int = Field(64, ge=1, description="Sequences in a batch.")
    frequency_bounds: tuple[int, ...] = Field(
        (2, 5, 20, 50),
        min_length=1,
        description="Lower bounds of the classes of facts by mentions: below the first, up to the next, ...",
    )
    # A tale, a fact and a recipe: kinds of pages of the sample web, and openings that other English text may have too.
    openings: list[str] = Field(
        ["Once upon a time", "The mayor of", "To make a good soup"],
        description="Openings that the base model completes, as samples in the report card.",
    )
    completion_tokens: int = Field(60, ge=1, le=4096, description="Length of these completions.")
    temperature: float = Field(
        0.7, ge=0.0, le=10.0, description="Temperature of these completions; answers are greedy."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed for the choice of questions and for the completions.")

    @model_validator(mode="after")
    def _bounds_ascend(self) -> "EvaluateConfig":
        # From 2: the first class is what lies below the first bound, and should hold facts that are mentioned once.
        bounds = self.frequency_bounds
        if bounds[0] < 2 or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"frequency_bounds={list(bounds)} does not ascend from 2 on; such as [2, 5, 20, 50]")
        return self


def evaluate(
    crawl: Step[Crawl],
    raw: Step[Documents],
    attributes: Step[Attributes],
    clean: Step[Documents],
    unique: Step[Documents],
    tokenizer: Step[Tokenizer],
    tokens: Step[Tokens],
    base: Step[BaseModel],
    assistant: Step[SFTModel],
    reward_model: Step[RewardModel],
    policy: Step[Policy],
    preferences: Step[Preferences],
    questions: Step[Questions],
    config: EvaluateConfig,
    tool_questions: Step[Questions] | None = None,
    index: Step[Index] | None = None,
) -> Step[Report]:
    """Evaluate all models and write the report card."""
    inputs = roles(
        crawl=crawl,
        raw=raw,
        attributes=attributes,
        clean=clean,
        unique=unique,
        tokenizer=tokenizer,
        tokens=tokens,
        base=base,
        assistant=assistant,
        reward_model=reward_model,
        policy=policy,
        preferences=preferences,
        questions=questions,
        tool_questions=tool_questions,
        index=index if tool_questions else None,  # what no question needs is no reason to run again
    )
    return Step("evaluate", VERSION, Report, config, inputs, run=evaluate_models, takes=EvaluateInputs)


def evaluate_models(ctx: StageContext, config: EvaluateConfig, inputs: EvaluateInputs) -> Outcome:
    """Ask every model, score the reward model, and write the report."""
    from model.tokenizer.chat import ChatTokenizer

    # Reversed questions apart: they ask for what may not be stated, and would lower every share of what should be known.
    reversals, questions = reversal_questions(read_records(Question, inputs.questions.folder / "questions.jsonl"))
    tokenizer = ChatTokenizer.load(inputs.tokenizer.folder / "tokenizer.json")
    # Both chat models are asked the same questions, so that their accuracies can be compared.
    asked = knowledge.sample_questions(questions, config.max_questions, config.seed)
    reversals = knowledge.sample_questions(reversals, config.max_questions, config.seed)
    replies = ask_chat_models(ctx, config, inputs, tokenizer, asked, reversals)
    assistant, policy = replies.values()
    chat = {name: some.answers for name, some in replies.items()}
    base = load_language_model(inputs.base)
    forward = [*ask_base_model(ctx, config, base, tokenizer, questions, asked), *assistant.answers, *policy.answers]
    backward = [
        *ask_backward(config, base, tokenizer, reversals),
        *assistant.reversed_answers,
        *policy.reversed_answers,
    ]
    # Before the figures: should one of them fail, the stage is run again, and nothing is published without a manifest.
    lines = (answer.as_json() for answer in [*forward, *backward])
    write_lines(ctx.folder / "answers.jsonl", [*lines, *assistant.tool_answers, *policy.tool_answers])
    figures: Figures = {
        "documents": collect.documents_figures((inputs.raw, inputs.clean, inputs.unique)),
        "attributes": collect.attributes_figures(inputs.clean),
        "truth": collect.truth_figures(inputs),
        "language": collect.language_figures(inputs),
        "base": collect.base_figures(inputs.base),
        "facts": knowledge.accuracy_by_mentions(forward, config.frequency_bounds),
        "chat": {name: knowledge.chat_metrics(some) for name, some in chat.items()},
        "chat_shares": {name: knowledge.chat_shares(some) for name, some in chat.items()},
        "honesty": honesty_figures(chat),
        "reversal": reversal_figures(forward, backward),
        "sums": {name: shares(some.sums) for name, some in replies.items() if some.sums},
        "typed": {name: shares(some.typed) for name, some in replies.items() if some.typed},
        **try_base_model(config, inputs, base, tokenizer),
        "reward": reward_metrics(config, inputs, tokenizer),
        "gate": gate_figures(assistant.right(), policy.right(), inputs.policy.manifest.metrics),
        "rl": rl_figures(inputs.policy),
        "completions": complete_openings(config, base, tokenizer),
        "examples": [answer.as_json() for answer in knowledge.examples(policy.answers)],
        "cost": collect.cost_figures(inputs.all()),
        "curves": curves_figures(inputs.all()),
        "samples": samples_figures((inputs.raw, inputs.clean, inputs.unique)),
        "lineage": lineage_figures(inputs.all()),
    }
    if assistant.tool_answers:
        figures["tools"] = tool_use.tool_figures(assistant.tool_answers)
        figures["search_steps"] = tool_use.search_steps(assistant.tool_answers)
    return publish(ctx, figures, len(asked))


def ask_chat_models(
    ctx: StageContext,
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    tokenizer: "ChatTokenizer",
    asked: list[Question],
    reversals: list[Question],
) -> dict[str, ChatReplies]:
    """The replies of each chat model, by model."""
    found = {}
    for name, artifact in zip(CHAT_MODELS, (inputs.assistant, inputs.policy), strict=True):
        progress = partial(ctx.progress, total=len(asked) + len(reversals), unit=f"questions to the {name}")
        model = load_language_model(artifact)
        answers = knowledge.ask_chat_model(
            name, model, tokenizer, [*asked, *reversals], greedy_settings(config), config.batch_sequences, progress
        )
        found[name] = ChatReplies(
            answers[: len(asked)],
            answers[len(asked) :],
            **try_chat_model(config, artifact, model, tokenizer),
            tool_answers=ask_with_tools(ctx, config, inputs, name, model, tokenizer),
        )
        del model  # freed before the next one is loaded
    return found


def greedy_settings(config: EvaluateConfig) -> GenerateConfig:
    """How answers are generated: one reply, the same each time. Sampled replies would need many per question for the same certainty."""
    return GenerateConfig(max_new_tokens=config.max_new_tokens, temperature=0.0)


def ask_base_model(
    ctx: StageContext,
    config: EvaluateConfig,
    base: "Transformer",
    tokenizer: "ChatTokenizer",
    questions: list[Question],
    asked: list[Question],
) -> list[Answer]:
    """The base model's ends of statements, and its answers after examples to the questions that no conversation taught."""
    # Drawn apart from the questions: one statement may belong to several wordings of a question, and is asked once.
    stated = knowledge.statements(questions, config.max_questions, config.seed)
    progress = partial(ctx.progress, total=2 * len(stated), unit="statements of the base model")
    facts = knowledge.ask_base_model(base, tokenizer, stated, greedy_settings(config), config.batch_sequences, progress)
    # Of what no conversation taught, and of the unknown: the base model and the chat models are compared on these.
    shared = [question for question in asked if question.split in ("heldout_fact", "unknown")]
    shots = [question for question in questions if question.split == "seen_wording"]
    progress = partial(ctx.progress, total=len(shared), unit="questions to the base model")
    few_shot = knowledge.ask_few_shot(
        base, tokenizer, shared, shots, greedy_settings(config), config.batch_sequences, progress
    )
    return [*facts, *few_shot]


def ask_backward(
    config: EvaluateConfig, base: "Transformer", tokenizer: "ChatTokenizer", reversals: list[Question]
) -> list[Answer]:
    """The base model's answers to reversed questions: statements, ranked and completed, and after examples that are reversed, too."""

    def progress(_: int) -> None:
        """A few dozen questions: not reported."""

    if not reversals:
        return []
    # A base model does not stop by itself, and an answer has some 20 tokens.
    settings = GenerateConfig(max_new_tokens=min(24, config.max_new_tokens), temperature=0.0)
    batch = config.batch_sequences
    return [
        *knowledge.ask_base_model(base, tokenizer, reversals, settings, batch, progress),
        *knowledge.ask_few_shot(base, tokenizer, reversals, reversals, settings, batch, progress),
    ]


def try_base_model(
    config: EvaluateConfig, inputs: EvaluateInputs, base: "Transformer", tokenizer: "ChatTokenizer"
) -> Figures:
    """What a base model does with examples and with the beginnings of passages, as figures."""
    shards, batch = inputs.tokens.files("train/*.arrow"), config.batch_sequences
    bounds = config.frequency_bounds
    return {
        "in_context": in_context_figures(base, tokenizer, config.num_trials, batch),
        "recital": recital_figures(base, tokenizer.bos, shards, bounds, config.num_trials, batch),
    }


def try_chat_model(
    config: EvaluateConfig, artifact: Checkpoint, model: "Transformer", tokenizer: "ChatTokenizer"
) -> dict[str, Flags]:
    """Whether a chat model works sums and answers what people type; none where the questions are a user's, whose models know other words."""
    from model.network.huggingface import max_tokens_of

    num, batch = config.num_trials, config.batch_sequences
    if config.questions != SAMPLE or not num:
        return {}
    max_tokens = max_tokens_of(artifact.folder)
    return {
        # More than the others, since the gate must see a fall of a few points.
        "sums": written_sums.work_sums(model, tokenizer, 4 * num, batch),
        "typed": typed_messages.answer_typed(model, tokenizer, max_tokens, num, batch),
    }


def ask_with_tools(
    ctx: StageContext,
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    name: str,
    model: "Transformer",
    tokenizer: "ChatTokenizer",
) -> list[Figures]:
    """A chat model's answers to the questions for tools; none where the recipe has no such questions."""
    if not (inputs.tool_questions and inputs.index):
        return []
    questions = list(read_records(Question, inputs.tool_questions.folder / "questions.jsonl"))
    # A call and the answer after it are a turn each, and the code of a call is longer than an answer.
    greedy = GenerateConfig(max_new_tokens=2 * config.max_new_tokens, temperature=0.0)
    progress = partial(ctx.progress, total=len(questions), unit=f"questions with tools to the {name}")
    return tool_use.ask_with_tools(
        name, model, tokenizer, questions, inputs.index, greedy, config.batch_sequences, progress
    )


def publish(ctx: StageContext, figures: Figures, num_questions: int) -> Outcome:
    """Write and report the report card. The outcome has the metrics of the chat models and the reward model."""
    # ensure_ascii=False keeps text of other scripts readable in report.json, at a third to a half of the bytes.
    card = render(figures)
    write_atomically(ctx.folder / "report.json", json.dumps(figures, indent=1, ensure_ascii=False))
    write_atomically(ctx.folder / "report.md", card)
    write_atomically(ctx.folder / "report.html", render_page(figures))
    # A browser may refuse to follow a link from Prefect's pages to a file: the address can be copied, and the command is next to it.
    uri = (ctx.folder / "report.html").resolve().as_uri()
    link = f"With pictures: [report.html]({uri}), or `crawl2chat report --html report.html`.\n\n"
    ctx.markdown("report", link + card, "Report card")
    # Only what compares runs becomes a metric of the manifest; the rest of the figures is in report.json.
    metrics = {f"{model}/{name}": value for model in CHAT_MODELS for name, value in figures["chat"][model].items()}
    gate = {"gate/passed": float(figures["gate"]["passed"])}
    return Outcome({"questions": num_questions}, {**metrics, **figures["reward"], **gate})


def reward_metrics(config: EvaluateConfig, inputs: EvaluateInputs, tokenizer: "ChatTokenizer") -> dict[str, float]:
    """How the reward model ranks held-out pairs, overall and by kind of prompt and fault, and RLHF's metrics before and after training."""
    from model.inference.ranking import rank_pairs, ranking_metrics
    from model.network.huggingface import default_device, load_reward_model

    model = load_reward_model(inputs.reward_model.folder).to(default_device())
    # The first ones of the file, not a sample of it. A user's pairs may have no `kind`, and are counted under "all" alone.
    pairs = list(read_records(Preference, inputs.preferences.folder / "validation.jsonl"))[: config.max_preferences]
    ranking = rank_pairs(model, tokenizer, list(map(normal_form, pairs)), config.batch_sequences)
    accuracy = ranking_metrics(ranking) if pairs else {}  # JSON has no mean of nothing
    # Taken over, not measured again: RLHF's own validation has the rewards of both policies on the same prompts.
    rlhf = inputs.policy.manifest.metrics
    return accuracy | {name: value for name, value in rlhf.items() if name.startswith(("before/", "validation/"))}


def complete_openings(config: EvaluateConfig, model: "Transformer", tokenizer: "ChatTokenizer") -> list[Figures]:
    """Samples of the base model: completions of the openings. top_k 50 is the default of Hugging Face's `generate`."""
    from model.inference.scoring import complete

    settings = GenerateConfig(
        max_new_tokens=config.completion_tokens, temperature=config.temperature, top_k=50, seed=config.seed
    )
    texts = complete(model, tokenizer, config.openings, settings)
    return [{"opening": opening, "text": text} for opening, text in zip(config.openings, texts, strict=True)]
