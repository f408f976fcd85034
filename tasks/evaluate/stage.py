"""Evaluation: what came of it all, on one page.

Reads the artifacts of the whole pipeline, writes a Report: `report.md` for people, `report.json` with the same figures.
Where the crawl is the sample web, its truth file says what should have become of every page, and the filters are held to it.
"""

import bisect
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from model.config import GenerateConfig
from model.files import read_lines, write_lines
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import (
    Attributes,
    BaseModel,
    Crawl,
    Documents,
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
from tasks.conversations.sources import QuestionsConfig
from tasks.evaluate.inputs import EvaluateInputs
from tasks.evaluate.report_card import (
    base_figures,
    cost_figures,
    data_figures,
    language_figures,
    measured_figures,
    render,
    truth_figures,
)
from tasks.execution.context import StageContext
from tasks.markdown import Figures

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

VERSION = 4
CHAT = ("assistant", "policy")
WELL_KNOWN_MENTIONS = 5  # an assistant is not expected to know what the web tells less often


class EvaluateConfig(QuestionsConfig):
    """How much is asked of the models, and how their words are drawn."""

    max_questions: int = Field(2000, ge=4, description="At most so many questions per model, spread over the splits.")
    max_preferences: int = Field(400, ge=0, description="At most so many preference pairs for the reward model.")
    max_new_tokens: int = Field(48, ge=1, le=4096, description="An answer is cut off after so many tokens.")
    batch_sequences: int = Field(64, ge=1, description="Sequences that are evaluated together.")
    frequency_bounds: tuple[int, ...] = Field(
        (2, 5, 10, 30),
        description="Facts are classed by mentions on the web: below the first bound, up to the next, ...",
    )
    openings: list[str] = Field(
        ["Once upon a time", "The mayor of", "To make a good soup"], description="What the base model completes."
    )
    completion_tokens: int = Field(60, ge=1, le=4096, description="Length of those completions.")
    temperature: float = Field(0.7, ge=0.0, le=10.0, description="Of those completions; answers are greedy.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the questions asked and of the completions.")


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
    )
    return Step("evaluate", VERSION, Report, config, inputs, run=evaluate_models, takes=EvaluateInputs)


def evaluate_models(ctx: StageContext, config: EvaluateConfig, inputs: EvaluateInputs) -> Outcome:
    """Ask every model and write `report.md` and `report.json`."""
    from model.network.huggingface import load_transformer
    from model.tokenizer.chat import ChatTokenizer

    asked = read_lines(inputs.questions.folder / "questions.jsonl")
    encoder = ChatTokenizer.load(inputs.tokenizer.folder / "tokenizer.json")
    base = load_transformer(inputs.base.folder)
    chosen = choose(asked, config.max_questions, config.seed)
    answers: list[Figures] = []
    for role, chat_model in zip(CHAT, (inputs.assistant, inputs.policy), strict=True):
        answers += interview(ctx, config, role, load_transformer(chat_model.folder), encoder, chosen)
    facts = recall(ctx, config, base, encoder, asked)
    write_lines(ctx.folder / "answers.jsonl", [*answers, *facts])
    figures: Figures = {
        "data": data_figures(inputs),
        "measured": measured_figures(inputs.clean),
        "truth": truth_figures(inputs),
        "language": language_figures(inputs),
        "base": base_figures(inputs.base),
        "facts": facts_by_class([*facts, *answers], config.frequency_bounds),
        "chat": {role: chat_figures([said for said in answers if said["model"] == role]) for role in CHAT},
        "reward": reward_figures(config, inputs, encoder),
        "completions": completions(config, base, encoder),
        "exchange": exchange([said for said in answers if said["model"] == CHAT[-1]]),
        "cost": cost_figures(inputs.all()),
    }
    return publish(ctx, figures, len(chosen))


def publish(ctx: StageContext, figures: Figures, num_questions: int) -> Outcome:
    """Write the report, show it, and give its most telling figures."""
    card = render(figures)
    write_atomically(ctx.folder / "report.json", json.dumps(figures, indent=1, ensure_ascii=False))
    write_atomically(ctx.folder / "report.md", card)
    ctx.markdown("report", card, "What came of it all")
    metrics = {f"{role}/{name}": value for role in CHAT for name, value in figures["chat"][role].items()}
    return Outcome({"questions": num_questions}, {**metrics, **figures["reward"]})


def choose(asked: Sequence[Figures], most: int, seed: int) -> list[Figures]:
    """At most so many questions, the same number of each split where it has as many."""
    splits: dict[str, list[Figures]] = defaultdict(list)
    for question in random.Random(seed).sample(asked, len(asked)):
        splits[question["split"]].append(question)
    return [question for split in sorted(splits) for question in splits[split][: max(1, most // len(splits))]]


def interview(
    ctx: StageContext,
    config: EvaluateConfig,
    role: str,
    model: "Transformer",
    encoder: "ChatTokenizer",
    asked: Sequence[Figures],
) -> list[Figures]:
    """Every question with what a chat model said to it. Where there is no answer, a refusal is the right one."""
    from model.inference.answers import holds, right_answers
    from model.inference.scoring import answer

    said: list[Figures] = []
    for start in range(0, len(asked), config.batch_sequences):
        group = asked[start : start + config.batch_sequences]
        conversations = [[{"role": "user", "content": question["question"]}] for question in group]
        for question, reply in zip(group, answer(model, encoder, conversations, greedy(config)), strict=True):
            is_known = question["split"] != "unknown"
            is_right = holds(reply.text, right_answers(question)) if is_known else reply.is_refusal
            judged = {"is_right": is_right, "is_refusal": reply.is_refusal, "is_finished": reply.is_finished}
            said.append({"model": role, **question, "said": reply.text, "tokens": reply.num_tokens, **judged})
        ctx.progress(len(said), len(asked), "questions")
    return said


def recall(
    ctx: StageContext, config: EvaluateConfig, model: "Transformer", encoder: "ChatTokenizer", asked: Sequence[Figures]
) -> list[Figures]:
    """Facts as statements for the base model to end: with the likeliest candidate, and in its own words."""
    from model.inference.answers import first_sentence, holds, right_answers
    from model.inference.scoring import complete, rank

    known = {
        question["completion"]: question
        for question in asked
        if question["fact"] and question["completion"] and question["split"] != "unknown"
    }
    candidates = candidates_by_relation(known.values())
    facts = [fact for fact in known.values() if len(candidates[relation(fact)]) > 1]
    facts = random.Random(config.seed).sample(facts, min(len(facts), config.max_questions))
    openings = [fact["completion"] for fact in facts]
    ctx.progress(0, 2 * len(facts), "facts")
    ranked = rank(model, encoder, openings, [candidates[relation(fact)] for fact in facts], config.batch_sequences)
    ctx.progress(len(facts), 2 * len(facts), "facts")
    written = complete(model, encoder, openings, greedy(config), config.batch_sequences)
    ctx.progress(2 * len(facts), 2 * len(facts), "facts")
    sentences = [first_sentence(text) for text in written]
    return [
        {"model": way, **fact, "said": said, "is_right": holds(said, right_answers(fact))}
        for way, all_said in (("base, ranked", ranked), ("base, written", sentences))
        for fact, said in zip(facts, all_said, strict=True)
    ]


def relation(fact: Mapping[str, Any]) -> tuple[str, bool]:
    """The relation that a fact belongs to, and whether it asks for the subject, which its name ends in."""
    name, _, subject = fact["fact"].partition(":")
    return name, fact["answer"].lower().replace(" ", "-") == subject


def candidates_by_relation(facts: Iterable[Mapping[str, Any]]) -> dict[tuple[str, bool], list[str]]:
    """Every answer that some fact of a relation has."""
    candidates: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for fact in facts:
        candidates[relation(fact)].add(fact["answer"])
    return {name: sorted(answers) for name, answers in candidates.items()}


def greedy(config: EvaluateConfig) -> GenerateConfig:
    return GenerateConfig(max_new_tokens=config.max_new_tokens, temperature=0.0)


def facts_by_class(said: Sequence[Figures], bounds: Sequence[int]) -> list[Figures]:
    """Share of right answers by how often the web tells the fact, for every model that was asked."""
    rows: dict[int, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for answer in said:
        if answer["split"] != "unknown" and answer["num_mentions"] is not None:
            rows[bisect.bisect(bounds, answer["num_mentions"])][answer["model"]].append(answer["is_right"])
    return [
        {"mentions": class_name(number, bounds), "facts": max(map(len, models.values()))}
        | {"right_fraction": {model: mean(is_right) for model, is_right in models.items()}}
        for number, models in sorted(rows.items(), reverse=True)
    ]


def class_name(number: int, bounds: Sequence[int]) -> str:
    """How the class of facts between two bounds is called."""
    if number == len(bounds):
        return f"{bounds[-1]} or more"
    low, high = (bounds[number - 1] if number else 1), bounds[number] - 1
    return f"{low} to {high}" if low < high else str(high)


def chat_figures(said: Sequence[Figures]) -> dict[str, float]:
    """What a chat model is worth: right answers to what is well known by split, right and false refusals, ends."""
    answerable = [answer for answer in said if answer["split"] != "unknown"]
    known = [a for a in answerable if a["num_mentions"] is None or a["num_mentions"] >= WELL_KNOWN_MENTIONS]
    unknown = [answer for answer in said if answer["split"] == "unknown"]
    by_split: dict[str, list[bool]] = defaultdict(list)
    for answer in [*known, *unknown]:
        by_split[answer["split"]].append(answer["is_right"])
    return {f"{split}_right_fraction": mean(is_right) for split, is_right in by_split.items()} | {
        "false_refusal_fraction": mean([answer["is_refusal"] for answer in known]),
        "finished_fraction": mean([answer["is_finished"] for answer in said]),
        "tokens_mean": mean([answer["tokens"] for answer in said]),
    }


def reward_figures(config: EvaluateConfig, inputs: EvaluateInputs, encoder: "ChatTokenizer") -> dict[str, float]:
    """How often the reward model prefers what people did, by the fault of the worse one, and what RLHF made of its reward."""
    from model.inference.scoring import pair_accuracy
    from model.network.huggingface import load_reward_model

    reward_model = load_reward_model(inputs.reward_model.folder)
    pairs = read_lines(inputs.preferences.folder / "validation.jsonl")[: config.max_preferences]
    kinds: dict[str, list[Figures]] = {"all": pairs}
    for pair in pairs:
        if pair["kind"]:
            kinds.setdefault(pair["kind"].rpartition("/")[2], []).append(pair)
    accuracy = {
        f"pair_accuracy/{kind}": pair_accuracy(reward_model, encoder, some) for kind, some in kinds.items() if some
    }
    rlhf = inputs.policy.manifest.metrics
    return accuracy | {name: value for name, value in rlhf.items() if name.startswith(("before/", "validation/"))}


def completions(config: EvaluateConfig, model: "Transformer", encoder: "ChatTokenizer") -> list[Figures]:
    """What the base model makes of a few openings."""
    from model.inference.scoring import complete

    drawn = GenerateConfig(
        max_new_tokens=config.completion_tokens, temperature=config.temperature, top_k=50, seed=config.seed
    )
    texts = complete(model, encoder, config.openings, drawn)
    return [{"opening": opening, "text": text} for opening, text in zip(config.openings, texts, strict=True)]


def exchange(said: Sequence[Figures], num: int = 3) -> list[Figures]:
    """Questions with the final model's answers: of each split some of which the fact is told most, each of another relation.

    Not picked by what came of it.
    """
    splits: dict[str, dict[str, Figures]] = defaultdict(dict)
    for answer in sorted(said, key=lambda answer: -(answer["num_mentions"] or 0)):
        splits[answer["split"]].setdefault(answer["fact"].partition(":")[0], answer)
    return [answer for _, split in sorted(splits.items()) for answer in list(split.values())[:num]]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
