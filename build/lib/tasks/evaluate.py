"""Evaluation: what came of it all, on one page.

Reads every artifact of the pipeline, writes a Report: `report.md` for people, `report.json` with the same figures.
Where the crawl is the sample web, its truth file says what should have become of every page, and the filters are held to it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.artifacts import Artifact, Checkpoint, Config, Documents, Outcome, Report, Step, Tokenizer, Tokens
from tasks.chat_data import questions
from tasks.stage import Run

VERSION = 1


class EvaluateConfig(Config):
    """How much is asked of the models, and how their words are drawn."""

    questions: str = Field(
        "sample", description="JSON Lines of questions: a path or glob, or 'sample' to compose them."
    )
    world_seed: int = Field(1, ge=0, description="The world of the sample web that they ask about.")
    max_questions: int = Field(400, ge=0, description="At most so many questions per model, spread over the splits.")
    max_preferences: int = Field(400, ge=0, description="At most so many preference pairs for the reward model.")
    max_new_tokens: int = Field(48, ge=1, le=4096, description="An answer is cut off after so many tokens.")
    batch_sequences: int = Field(64, ge=1, description="Sequences that are evaluated together.")
    frequency_bounds: tuple[int, ...] = Field(
        (2, 5, 20), description="Facts are classed by mentions on the web: below the first bound, up to the next, ..."
    )
    openings: list[str] = Field(
        ["Once upon a time", "The mayor of", "To make a good soup"], description="What the base model completes."
    )
    completion_tokens: int = Field(60, ge=1, le=4096, description="Length of those completions.")
    temperature: float = Field(0.7, ge=0.0, le=10.0, description="Of those completions; answers are greedy.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the questions asked and of the completions.")


def evaluate(
    raw: Step[Documents],
    clean: Step[Documents],
    unique: Step[Documents],
    tokens: Step[Tokens],
    tokenizer: Step[Tokenizer],
    base: Step[Checkpoint],
    assistant: Step[Checkpoint],
    judge: Step[Checkpoint],
    policy: Step[Checkpoint],
    config: EvaluateConfig,
) -> Step[Report]:
    inputs: dict[str, Step[Artifact]] = {
        "raw": raw,
        "clean": clean,
        "unique": unique,
        "tokens": tokens,
        "tokenizer": tokenizer,
        "base": base,
        "assistant": assistant,
        "judge": judge,
        "policy": policy,
        "questions": questions(config.questions, config.world_seed),
    }
    return Step("evaluate", VERSION, Report, config, inputs, run=run)


def run(run: Run, config: EvaluateConfig, **artifacts: Any) -> Outcome:
    figures: Figures = {
        "data": data_figures(artifacts),
        "truth": truth_figures(artifacts),
        "language": language_figures(artifacts),
        "cost": cost_figures(artifacts),
    } | model_figures(run, config, artifacts)
    write_atomically(run.folder / "report.json", json.dumps(figures, indent=1, ensure_ascii=False))
    card = render(figures)
    write_atomically(run.folder / "report.md", card)
    run.markdown("report", card, "What came of it all")
    return Outcome({"questions": len(figures["chat"])}, headline(figures))


def upstream(artifact: Artifact, role: str) -> Path:
    """The folder of an input of a finished artifact, which lies beside it in the store."""
    return artifact.folder.parents[1] / artifact.manifest.inputs[role]


def data_figures(artifacts: Mapping[str, Artifact]) -> list[Figures]:
    """What each stage of the data half was given, kept, and dropped for which reason."""
    rows = []
    for role in ("raw", "clean", "unique"):
        manifest = artifacts[role].manifest
        counts = manifest.counts
        dropped = {name.removeprefix("dropped/"): num for name, num in counts.items() if name.startswith("dropped/")}
        rows.append(
            {
                "stage": manifest.stage,
                "documents_in": counts["documents"] + sum(dropped.values()),
                "documents": counts["documents"],
                "text_bytes": counts.get("text_bytes", 0),
                "dropped": dict(sorted(dropped.items(), key=lambda reason: -reason[1])),
            }
        )
    return rows


def truth_figures(artifacts: Mapping[str, Any]) -> Figures:
    """Precision and recall of every filter where the crawl says what should become of its pages, else nothing."""
    raw, clean, unique = (artifacts[role] for role in ("raw", "clean", "unique"))
    path = upstream(raw, "crawl") / "truth.jsonl"
    if not path.exists():
        return {}
    pages = truth.read_truth(path)
    scores = truth.score(pages, truth.fates((raw, clean, unique), unique))
    families = {
        family: {**score._asdict(), "precision": score.precision, "recall": score.recall}
        for family, score in scores.items()
    }
    return {"families": families, "redaction": truth.redaction(pages, clean)}


def language_figures(artifacts: Mapping[str, Artifact]) -> Figures:
    """How well the text is cut into tokens, and how well the base model foresees it, beside a bigram model."""
    named = (artifacts[role].manifest for role in ("tokenizer", "tokens", "base"))
    figures: Figures = {}
    for manifest in named:
        figures |= {f"{manifest.stage}/{name}": value for name, value in (manifest.counts | manifest.metrics).items()}
    return figures


def cost_figures(artifacts: Mapping[str, Artifact]) -> list[Figures]:
    """Wall seconds and bytes of every stage."""
    return [
        {
            "stage": artifact.manifest.stage,
            "wall_seconds": artifact.manifest.provenance["wall_seconds"],
            "bytes": sum(file.bytes for file in artifact.manifest.files),
        }
        for artifact in artifacts.values()
    ]
