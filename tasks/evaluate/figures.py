"""The figures of the report card that come from manifests and files, as plain JSON values.

Reads the artifacts of a run, the histograms of filter and the truth file of the sample web; writes nothing.
"""

import json
from collections.abc import Iterable

from tasks.artifacts.manifest import Artifact, BaseModel, Documents
from tasks.evaluate import filter_truth
from tasks.evaluate.inputs import EvaluateInputs
from tasks.markdown import Figures
from tasks.records.kept_dropped import funnel
from tasks.resources import short_name


def documents_figures(stages: Iterable[Documents]) -> list[Figures]:
    """Documents and bytes of text that each stage read, kept and dropped, by reason."""
    rows = []
    for documents in stages:
        manifest = documents.manifest
        # funnel() orders by number, and a stage may drop more than it keeps. The sort is stable: reasons stay the most frequent first.
        kept, *dropped = sorted(funnel(manifest.counts), key=lambda row: row["reason"] != "kept")
        rows.append(
            {
                "stage": manifest.stage,
                # Summed from the outcomes: every document that was read has exactly one.
                "documents_in": kept["documents"] + sum(row["documents"] for row in dropped),
                "documents": kept["documents"],
                "text_bytes_in": kept["text_bytes"] + sum(row["text_bytes"] for row in dropped),
                "text_bytes": kept["text_bytes"],
                "dropped": dropped,
            }
        )
    return rows


def attributes_figures(clean: Documents) -> Figures:
    """Histograms of attributes, the most frequent hosts and languages, as filter wrote them; empty if it wrote none."""
    paths = clean.files("histograms.json")
    return json.loads(paths[0].read_text(encoding="utf-8")) if paths else {}


def truth_figures(inputs: EvaluateInputs) -> Figures:
    """Precision and recall of every outcome, and redactions; empty for a crawl without ground truth."""
    paths = inputs.crawl.files("truth.jsonl")
    if not paths:
        return {}
    # attributes drops nothing, so that the three stages that do are enough.
    pages = filter_truth.read_truth(paths[0])
    found = filter_truth.outcomes((inputs.raw, inputs.clean, inputs.unique), inputs.unique)
    families = {
        family: {**score._asdict(), "precision": score.precision, "recall": score.recall}
        for family, score in filter_truth.score(pages, found).items()
    }
    return {"families": families, "redaction": filter_truth.redaction(pages, inputs.clean)}


def language_figures(inputs: EvaluateInputs) -> Figures:
    """Counts and metrics of tokenizer, tokens and base model, as ROLE/NAME."""
    return {
        f"{role}/{name}": value
        for role, artifact in (("tokenizer", inputs.tokenizer), ("tokens", inputs.tokens), ("base", inputs.base))
        for name, value in (artifact.manifest.counts | artifact.manifest.metrics).items()
    }


def base_figures(base: BaseModel) -> Figures:
    """The layout of the base model, and the name of the model that it was imported from or ""."""
    # Such as Qwen3ForCausalLM: the class by which transformers loads the model.
    layout = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    # `initial_model` is a path on the machine that ran the stage: only its last part, or the name on the Hub, is published.
    is_imported = "initial_model" in base.manifest.inputs
    origin = short_name(base.manifest.config["initial_model"]) if is_imported else ""
    return {"layout": layout.removesuffix("ForCausalLM"), "initial_model": origin}


def cost_figures(artifacts: Iterable[Artifact]) -> list[Figures]:
    """Wall time in seconds and size in bytes of every artifact."""
    return [
        {
            "stage": artifact.manifest.stage,
            # Of the run that made the artifact, which may be an older one: a skipped stage costs nothing this time.
            "wall_seconds": artifact.manifest.provenance["wall_seconds"],
            "bytes": sum(file.bytes for file in artifact.manifest.files),
        }
        for artifact in artifacts
    ]
