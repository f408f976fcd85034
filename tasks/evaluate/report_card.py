"""The report card: what the manifests and the truth say of a pipeline's run, and all figures as one page of Markdown.

Reads artifacts' manifests and the sample web's truth file, writes nothing. Figures are plain JSON values.
"""

import json
from collections.abc import Iterable

from tasks.artifacts.manifest import Artifact, BaseModel, Documents
from tasks.evaluate import filter_truth
from tasks.evaluate.inputs import EvaluateInputs
from tasks.markdown import Figures, one_line, percent, size, table
from tasks.records.histograms import histogram_row
from tasks.records.kept_dropped import funnel
from tasks.resources import short_name


def data_figures(inputs: EvaluateInputs) -> list[Figures]:
    """What each stage of the data half was given, kept, and dropped for which reason."""
    rows = []
    for documents in (inputs.raw, inputs.clean, inputs.unique):
        manifest = documents.manifest
        kept, *dropped = sorted(funnel(manifest.counts), key=lambda row: row["reason"] != "kept")
        rows.append(
            {
                "stage": manifest.stage,
                "documents_in": kept["documents"] + sum(row["documents"] for row in dropped),
                "documents": kept["documents"],
                "text_bytes_in": kept["text_bytes"] + sum(row["text_bytes"] for row in dropped),
                "text_bytes": kept["text_bytes"],
                "dropped": dropped,
            }
        )
    return rows


def measured_figures(clean: Documents) -> Figures:
    """Histograms of what was measured, the commonest hosts and languages: as filter wrote them, else nothing."""
    paths = clean.files("histograms.json")
    return json.loads(paths[0].read_text(encoding="utf-8")) if paths else {}


def truth_figures(inputs: EvaluateInputs) -> Figures:
    """Precision and recall of every filter where the crawl says what should become of its pages, else nothing."""
    raw, clean, unique = inputs.raw, inputs.clean, inputs.unique
    paths = inputs.crawl.files("truth.jsonl")
    if not paths:
        return {}
    pages = filter_truth.read_truth(paths[0])
    scores = filter_truth.score(pages, filter_truth.outcomes((raw, clean, unique), unique))
    families = {
        family: {**score._asdict(), "precision": score.precision, "recall": score.recall}
        for family, score in scores.items()
    }
    return {"families": families, "redaction": filter_truth.redaction(pages, clean)}


def language_figures(inputs: EvaluateInputs) -> Figures:
    """What tokenizer, tokens and base model say of themselves, by role and name."""
    return {
        f"{role}/{name}": value
        for role, artifact in (("tokenizer", inputs.tokenizer), ("tokens", inputs.tokens), ("base", inputs.base))
        for name, value in (artifact.manifest.counts | artifact.manifest.metrics).items()
    }


def base_figures(base: BaseModel) -> Figures:
    """The layout of the base model, and what it was started from where that is a model from elsewhere."""
    layout = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    is_imported = "initial_model" in base.manifest.inputs
    origin = short_name(base.manifest.config["initial_model"]) if is_imported else ""
    return {"layout": layout.removesuffix("ForCausalLM"), "initial_model": origin}


def cost_figures(artifacts: Iterable[Artifact]) -> list[Figures]:
    """Wall seconds and bytes of every stage."""
    return [
        {
            "stage": artifact.manifest.stage,
            "wall_seconds": artifact.manifest.provenance["wall_seconds"],
            "bytes": sum(file.bytes for file in artifact.manifest.files),
        }
        for artifact in artifacts
    ]


def render(figures: Figures) -> str:
    """The report card as Markdown."""
    sections = (
        data_section,
        dropped_section,
        measured_section,
        truth_section,
        language_section,
        fact_section,
        chat_section,
        reward_section,
        words_section,
        cost_section,
    )
    return "# Report card\n\n" + "\n".join(section for build in sections if (section := build(figures)))


def data_section(figures: Figures) -> str:
    """Tokens are told as the tokenizer that came of it would count them."""
    bytes_per_token = figures["language"]["tokens/bytes_per_token"]
    rows = [
        [
            stage["stage"],
            f"{stage['documents_in']:,}",
            f"{stage['documents']:,}",
            percent(stage["documents"] / max(1, stage["documents_in"])),
            size(stage["text_bytes_in"]),
            size(stage["text_bytes"]),
            f"{stage['text_bytes'] / bytes_per_token:,.0f}",
            ", ".join(f"{row['reason']} {row['documents']:,}" for row in stage["dropped"][:4]),
        ]
        for stage in figures["data"]
    ]
    headings = ["Stage", "In", "Kept", "Share", "Text in", "Text kept", "Tokens", "Most dropped for"]
    return "## Data\n\n" + table(headings, rows)


def dropped_section(figures: Figures) -> str:
    """Every reason of every stage."""
    rows = [
        [
            row["reason"],
            stage["stage"],
            f"{row['documents']:,}",
            percent(row["documents"] / max(1, stage["documents_in"])),
            size(row["text_bytes"]) if row["text_bytes"] else "",
        ]
        for stage in figures["data"]
        for row in stage["dropped"]
    ]
    return "## What was dropped\n\n" + table(["Reason", "Stage", "Documents", "Share of the stage's", "Text"], rows)


def measured_section(figures: Figures) -> str:
    """Left out where nothing was measured."""
    if not (measured := figures["measured"]):
        return ""
    rows = []
    for name, histogram in measured["histograms"].items():
        row = histogram_row(name, histogram)
        limits = ["" if row[side] is None else f"{row[side]:g}" for side in ("min", "max")]
        rows.append([name, *limits, f"{row['last edge']:g}", f"`{row['documents']}`"])
    told = "## What was measured\n\n" + table(
        ["Measure", "At least", "At most", "Last edge", "Documents, from 0 on"], rows
    )
    for kind in ("hosts", "languages"):
        ranked = ", ".join(f"{name} {num:,} ({kept:,} kept)" for name, num, kept in measured[kind][:10])
        told += f"\nThe commonest {kind}: {ranked}.\n"
    return told


def truth_section(figures: Figures) -> str:
    """Left out where nobody knows the truth."""
    if not figures["truth"]:
        return ""
    rows = [
        [family, f"{score['expected']:,}", f"{score['found']:,}", percent(score["precision"]), percent(score["recall"])]
        for family, score in figures["truth"]["families"].items()
    ]
    seen = figures["truth"]["redaction"]
    return (
        "## Filters against the truth\n\n"
        + table(["What becomes of a page", "Should", "Did", "Precision", "Recall"], rows)
        + f"\nPersonal data redacted in kept pages: {seen['pii_redacted']:,} of {seen['pii']:,}; "
        + f"look-alikes left alone: {seen['traps_kept']:,} of {seen['traps']:,}.\n"
    )


def language_section(figures: Figures) -> str:
    """Bits per byte are left out where no text was held out."""
    known = figures["language"]
    model_bits = known.get("base/validation/bits_per_byte")
    bigram_bits = known.get("tokens/bigram/bits_per_byte")
    rows = [
        ["Tokenizer", f"{known['tokenizer/vocab_size']:,} tokens, {known['tokens/bytes_per_token']:.2f} bytes each"],
        ["Text to train on", f"{known['tokens/train/tokens']:,} tokens, {size(known['tokens/train/text_bytes'])}"],
        ["Base model", f"{known['base/parameters']:,} parameters, {_origin(figures['base'], known['base/tokens'])}"],
    ]
    if model_bits is not None:
        rows.append(["Bits per byte of held-out text", f"{model_bits:.3f}"])
    if model_bits is not None and bigram_bits is not None:
        told = f"{bigram_bits:.3f}; the base model is {_distance(model_bits, bigram_bits)}"
        rows.append(["the same of a bigram model", told])
    return "## Language\n\n" + table(["", "Figure"], rows)


def _origin(base: Figures, num_tokens: int) -> str:
    """Where a base model came from, and what it was trained on here."""
    if not base["initial_model"]:
        return f"{num_tokens:,} tokens seen"
    trained = f"trained on with {num_tokens:,} tokens" if num_tokens else "taken as it is"
    return f"{one_line(base['initial_model'])} in {base['layout']}'s layout, {trained}"


def fact_section(figures: Figures) -> str:
    """Left out where no question was asked."""
    if not figures["facts"]:
        return ""
    models = list(figures["facts"][0]["right_fraction"])
    rows = [
        [row["mentions"], str(row["facts"]), *(percent(row["right_fraction"].get(model)) for model in models)]
        for row in figures["facts"]
    ]
    return "## Facts, by how often the web tells them\n\n" + table(["Mentions", "Questions", *models], rows)


CHAT_ROWS = {
    "seen_wording_right_fraction": "Right, asked in a wording seen in training",
    "heldout_wording_right_fraction": "Right, asked in a held-out wording",
    "heldout_fact_right_fraction": "Right, of facts told in no conversation",
    "other_right_fraction": "Right, of other questions",
    "false_refusal_fraction": "Says it does not know, wrongly",
    "unknown_right_fraction": "Says it does not know, where nobody can",
    "finished_fraction": "Ends its answer by itself",
}


def chat_section(figures: Figures) -> str:
    """Left out where no question was asked."""
    chat = figures["chat"]
    rows = [
        [title, *(percent(said[name]) for said in chat.values())]
        for name, title in CHAT_ROWS.items()
        if all(name in said for said in chat.values())
    ]
    if not figures["exchange"]:
        return ""
    rows.append(["Tokens of an answer", *(f"{said['tokens_mean']:.1f}" for said in chat.values())])
    return "## Answers, about facts that the web tells five times or more\n\n" + table(["", *chat], rows)


def _distance(value: float, reference: float) -> str:
    return f"{percent(abs(1 - value / reference))} {'below' if value <= reference else 'above'}"


REWARD_ROWS = {
    "reward_mean": "Reward",
    "reward_model": "of it the reward model's score, in deviations",
    "reward_verifiable": "Answers right, where known",
    "completion_finished_fraction": "Completions with an end",
    "completion_tokens_mean": "Tokens of a completion",
}


def reward_section(figures: Figures) -> str:
    """The reward model on held-out pairs, and greedy completions of held-out prompts before and after RLHF."""
    known = figures["reward"]
    rows = [
        [title, f"{known[f'before/{name}']:.2f}", f"{known[f'validation/{name}']:.2f}"]
        for name, title in REWARD_ROWS.items()
        if f"before/{name}" in known
    ]
    faults = {name.partition("/")[2]: value for name, value in known.items() if name.startswith("pair_accuracy/")}
    overall = percent(faults.pop("all", None))
    by_fault = ", ".join(f"{fault.replace('_', ' ')} {percent(value)}" for fault, value in sorted(faults.items()))
    told = f"\nThe reward model prefers the better of two held-out replies in {overall}" + (
        f"; by the fault of the worse one: {by_fault}.\n" if by_fault else ".\n"
    )
    return "## Reward\n\n" + table(["On held-out prompts", "Before RLHF", "After"], rows) + told


def words_section(figures: Figures) -> str:
    """Texts of the base model, and questions with the policy's answers, each with what it is worth."""
    texts = [f"> **{shown['opening']}**{one_line(shown['text'])}\n" for shown in figures["completions"]]
    turns = [
        f"> **{shown['question']}** {one_line(shown['said'])} *({'right' if shown['is_right'] else 'wrong'}, {shown['split'].replace('_', ' ')})*\n"
        for shown in figures["exchange"]
    ]
    told = "## In its own words\n\nThe base model writes on:\n\n" + "\n".join(texts)
    return told + ("\nThe policy answers:\n\n" + "\n".join(turns) if turns else "")


def cost_section(figures: Figures) -> str:
    rows = [[row["stage"], f"{row['wall_seconds']:,.0f}", size(row["bytes"])] for row in figures["cost"]]
    total_seconds, total_bytes = (sum(row[unit] for row in figures["cost"]) for unit in ("wall_seconds", "bytes"))
    return "## Cost\n\n" + table(
        ["Stage", "Seconds", "Size"], [*rows, ["all", f"{total_seconds:,.0f}", size(total_bytes)]]
    )
