"""The report card: the figures of a run as one page of Markdown.

Reads figures (plain JSON values, see figures.py), writes nothing. Every table names its units; a section or row without data is left
out, since a crawl of the real web has no ground truth and a user's questions have no splits. Text of models is escaped.
"""

from collections.abc import Callable, Sequence

from tasks.evaluate.attacks import attacks_section
from tasks.evaluate.gate import gate_section
from tasks.evaluate.honesty import honesty_section
from tasks.evaluate.in_context import in_context_section
from tasks.evaluate.recital import recital_section
from tasks.evaluate.reversal import reversal_section
from tasks.evaluate.rl import ranking_section, rl_section
from tasks.evaluate.typed_messages import typed_section
from tasks.evaluate.written_sums import sums_section
from tasks.markdown import Figures, name, one_line, percent, size, table
from tasks.records.conversations import FREQUENT_MENTIONS
from tasks.records.histograms import histogram_row
from tasks.shares import shown

MAX_REASONS = 4  # drop reasons shown for a stage in the first table
MAX_NAMES = 10  # hosts and languages shown

# Metric -> row title, in the order of the table. A metric that is not listed is not shown; report.json has all.
ACCURACY_ROWS = {
    "seen_wording_accuracy": "Accuracy, wording seen in training",
    "heldout_wording_accuracy": "Accuracy, held-out wording",
    "heldout_fact_accuracy": "Accuracy, held-out facts (on the web, in no conversation)",
    "other_accuracy": "Accuracy, questions without a split",
    "unknown_accuracy": "Correct refusals, unanswerable questions",
    "false_refusal_fraction": "False refusals, answerable questions",
    "finished_fraction": "Replies that reach the end-of-turn token",
}
# The metrics of RLHF's validation that are measured before and after training alike (model/rl/grpo.py).
REWARD_ROWS = {
    "reward_mean": "Mean reward",
    "reward_model": "Reward-model score (standard deviations from the SFT model's mean)",
    "reward_verifiable": "Correct answers (fraction of prompts with an answer)",
    "completion_finished_fraction": "Finished completions (fraction)",
    "completion_tokens_mean": "Completion length (tokens)",
}
MODEL_NAMES = {"assistant": "SFT model", "policy": "policy"}


def render(figures: Figures) -> str:
    """The report card as Markdown."""
    return "# Report card\n\n" + "\n".join(section for build in SECTIONS if (section := build(figures)))


def summary_section(figures: Figures) -> str:
    """The main result of each part of the run."""
    # From the input of ingest to the output of dedup: the stages between appear in the next section.
    first, last = figures["documents"][0], figures["documents"][-1]
    # Figures are looked up by metric name. What a run did not measure is missing, and its row with it.
    language, chat, reward = figures["language"], figures["chat"], figures["reward"]
    share = percent(last["documents"] / max(1, first["documents_in"]))
    rows = [
        [
            "Documents kept",
            f"{last['documents']:,} of {first['documents_in']:,} ({share}), {size(last['text_bytes'])} of text",
        ]
    ]
    if (bits := language.get("base/validation/bits_per_byte")) is not None:
        rows.append(["Base model on held-out text", f"{bits:.3f} bits per byte"])
    # Held-out wordings show what was learned rather than memorised. A user's questions have no split, hence other_accuracy.
    for metric in ("heldout_wording_accuracy", "other_accuracy", "unknown_accuracy"):
        if all(metric in metrics for metrics in chat.values()):
            after = f"{percent(chat['policy'][metric])} (SFT model: {percent(chat['assistant'][metric])})"
            rows.append([f"Policy: {ACCURACY_ROWS[metric][:1].lower()}{ACCURACY_ROWS[metric][1:]}", after])
    if "pair_accuracy/all" in reward:
        rows.append(["Reward model: accuracy on held-out pairs", percent(reward["pair_accuracy/all"])])
    if "before/reward_mean" in reward:
        change = f"{reward['before/reward_mean']:.2f} before, {reward['validation/reward_mean']:.2f} after"
        rows.append(["RLHF: mean reward on held-out prompts", change])
    # Summed over stages: a pipeline that ran some of them at once took less.
    seconds = sum(row["wall_seconds"] for row in figures["cost"])
    rows.append(["Wall time of all stages", f"{seconds:,.0f} s"])
    return "## Summary\n\n" + table(["Result", "Value"], rows)


def documents_section(figures: Figures) -> str:
    """Documents and text by stage. Tokens are estimated with the bytes per token of the final tokenizer."""
    # Of the text that dedup kept, on which the vocabulary was trained. Text with other languages in it has fewer bytes per token.
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
            ", ".join(f"{name(row['reason'])} {row['documents']:,}" for row in stage["dropped"][:MAX_REASONS]),
        ]
        for stage in figures["documents"]
    ]
    headings = ["Stage", "Documents in", "Kept", "Kept %", "Text in", "Text kept", "Tokens kept", "Main drop reasons"]
    return "## Documents\n\n" + table(headings, rows)


def dropped_section(figures: Figures) -> str:
    """Every drop reason of every stage."""
    rows = [
        [
            name(row["reason"]),
            stage["stage"],
            f"{row['documents']:,}",
            percent(row["documents"] / max(1, stage["documents_in"])),
            # A reason of ingest may come before extraction, where a document has no text yet: blank, not 0.
            size(row["text_bytes"]) if row["text_bytes"] else "",
        ]
        for stage in figures["documents"]
        for row in stage["dropped"]
    ]
    return "## Drop reasons\n\n" + table(["Reason", "Stage", "Documents", "% of the stage's input", "Text"], rows)


def attributes_section(figures: Figures) -> str:
    """Histograms of the attributes that the filters decide on, the most frequent hosts and languages."""
    if not (attributes := figures["attributes"]):
        return ""
    rows = []
    # Bars as text: report.md is read on terminals too, which show no pictures.
    for attribute, histogram in attributes["histograms"].items():
        limits = ["" if histogram[side] is None else f"{histogram[side]:g}" for side in ("min", "max")]
        bars = str(histogram_row(attribute, histogram)["documents"]).replace(" ", "·")  # Markdown drops leading blanks
        rows.append([attribute, *limits, f"{histogram['edges'][-1]:g}", f"`{bars}`"])
    headings = ["Attribute", "Minimum", "Maximum", "Upper edge", "Documents per bin, from 0 (·: empty)"]
    section = "## Attributes of documents\n\n" + table(headings, rows)
    for kind in ("hosts", "languages"):
        ranked = ", ".join(f"{name(host)} {num:,} ({kept:,} kept)" for host, num, kept in attributes[kind][:MAX_NAMES])
        section += f"\nMost frequent {kind}, in documents: {ranked}.\n"
    return section


def truth_section(figures: Figures) -> str:
    """Precision and recall of the filters, for a crawl with ground truth."""
    if not figures["truth"]:
        return ""
    rows = [
        [family, f"{score['expected']:,}", f"{score['found']:,}", percent(score["precision"]), percent(score["recall"])]
        for family, score in figures["truth"]["families"].items()
    ]
    # Look-alikes are what a pattern may take for personal data, such as version numbers: keeping them is the precision of redaction.
    seen = figures["truth"]["redaction"]
    return (
        "## Precision and recall of the filters\n\n"
        # Outcomes are families of reasons, "quality" for quality/gopher_words, see filter_truth.py.
        + table(["Outcome", "Pages expected", "Pages found", "Precision", "Recall"], rows)
        + f"\nPersonal data redacted in kept pages: {seen['pii_redacted']:,} of {seen['pii']:,} strings. "
        + f"Look-alikes kept: {seen['traps_kept']:,} of {seen['traps']:,} strings.\n"
    )


def pretraining_section(figures: Figures) -> str:
    """Tokenizer, training text and base model. Bits per byte need held-out text."""
    known = figures["language"]
    # Bits per byte and not loss: they do not depend on the tokenizer, so that runs with different vocabularies can be compared.
    model_bits = known.get("base/validation/bits_per_byte")
    bigram_bits = known.get("tokens/bigram/bits_per_byte")
    rows = [
        ["Vocabulary", f"{known['tokenizer/vocab_size']:,} tokens"],
        ["Compression", f"{known['tokens/bytes_per_token']:.2f} bytes per token"],
        ["Training text", f"{known['tokens/train/tokens']:,} tokens, {size(known['tokens/train/text_bytes'])}"],
        ["Base model", f"{known['base/parameters']:,} parameters, {_origin(figures['base'], known['base/tokens'])}"],
    ]
    if model_bits is not None:
        rows.append(["Base model on held-out text", f"{model_bits:.3f} bits per byte"])
    if model_bits is not None and bigram_bits is not None:
        compared = f"{bigram_bits:.3f} bits per byte; the base model is {_distance(model_bits, bigram_bits)}"
        rows.append(["Bigram model on held-out text", compared])
    return "## Tokenizer and base model\n\n" + table(["", "Value"], rows)


def _origin(base: Figures, num_tokens: int) -> str:
    """Where a base model comes from, and the number of tokens that it was trained on here."""
    # one_line: the name is that of a user's folder.
    if not base["initial_model"]:
        return f"trained on {num_tokens:,} tokens"
    trained = f"trained further on {num_tokens:,} tokens" if num_tokens else "not trained further"
    return f"imported from {one_line(base['initial_model'])} ({base['layout']} layout), {trained}"


def _distance(value: float, reference: float) -> str:
    return f"{percent(abs(1 - value / reference))} {'below' if value <= reference else 'above'}"


def facts_section(figures: Figures) -> str:
    """Accuracy by class of frequency, for questions with a count of mentions, with intervals."""
    if not figures["facts"]:
        return ""
    # Columns in the order in which models first appear. A class may lack one: the base model is not asked every question.
    models = list(dict.fromkeys(model for row in figures["facts"] for model in row["accuracy"]))
    rows = [
        [row["facts"], row["mentions"], *(shown(row["accuracy"].get(model)) for model in models)]
        for row in figures["facts"]
    ]
    headings = ["Facts", "Mentions", *(MODEL_NAMES.get(model, model) for model in models)]
    note = "Held out: no page and no conversation asks about them. In brackets the 95% interval and the number of questions.\n\n"
    return "## Accuracy by number of mentions in the training text\n\n" + note + table(headings, rows)


def chat_section(figures: Figures) -> str:
    """Accuracy of the chat models by split."""
    chat = figures["chat"]
    # A row only where both models have the metric, which they do: they were asked the same questions.
    rows = [
        [title, *(percent(metrics[metric]) for metrics in chat.values())]
        for metric, title in ACCURACY_ROWS.items()
        if all(metric in metrics for metrics in chat.values())
    ]
    rows.append(["Mean reply length (tokens)", *(f"{metrics['tokens_mean']:.1f}" for metrics in chat.values())])
    headings = ["Metric", *(MODEL_NAMES.get(model, model) for model in chat)]
    scope = f"facts of conversations, others with at least {FREQUENT_MENTIONS} mentions in the training text, and questions without a count"
    return f"## Chat models\n\nAccuracy and false refusals: {scope}.\n\n" + table(headings, rows)


def tools_section(figures: Figures) -> str:
    """Questions that are answered with tools, by kind."""
    if "tools" not in figures:
        return ""

    rows = [[name(row["kind"]), shown(row["correct"]), shown(row["called"])] for row in figures["tools"]]
    scope = "SFT model, its tools offered by the system turn. Right: the answer, by the tool of the kind; none: no tool is needed or called."
    headings = ["Kind", "Right (95% interval)", "Called a tool"]
    text = f"## Tools\n\n{scope}\n\n" + table(headings, rows)
    steps = figures.get("search_steps", {})
    if steps and next(iter(steps.values()))["num"]:
        text += "\nSearch, step by step; each share is of the questions that passed the step before.\n\n"
        text += table(["Step", "Passed"], [[step, shown(passed)] for step, passed in steps.items()])
    return text


def reward_section(figures: Figures) -> str:
    """The reward model on held-out pairs, and greedy completions of held-out prompts before and after RLHF."""
    # The SFT model is the policy before training, so "before" is its column.
    known = figures["reward"]
    rows = [
        [title, f"{known[f'before/{metric}']:.2f}", f"{known[f'validation/{metric}']:.2f}"]
        for metric, title in REWARD_ROWS.items()
        if f"before/{metric}" in known
    ]
    section = table(["Held-out prompts, greedy", "SFT model", "policy"], rows) if rows else ""
    section = "\n".join(part for part in (section, ranking_section(known)) if part)
    return f"## Reward model and RLHF\n\n{section}" if section else ""


def samples_section(figures: Figures) -> str:
    """Completions of the base model, and questions with the policy's replies."""
    # Block quotes of one line each: text of a model cannot end the quote and begin a heading.
    texts = [f"> **{one_line(sample['opening'])}** {one_line(sample['text'])}\n" for sample in figures["completions"]]
    turns = [
        f"> **{one_line(answer['question'])}** {one_line(answer['reply'])} "
        f"*({'correct' if answer['is_correct'] else 'wrong'}, {answer['split'].replace('_', ' ')})*\n"
        for answer in figures["examples"]
    ]
    parts = [_samples("Base model, completions:", texts), _samples("Policy, replies:", turns)]
    return "## Samples\n\n" + "\n".join(part for part in parts if part) if texts or turns else ""


def _samples(title: str, lines: Sequence[str]) -> str:
    return f"{title}\n\n" + "\n".join(lines) if lines else ""


def cost_section(figures: Figures) -> str:
    """Wall time and size of every artifact."""
    rows = [[row["stage"], f"{row['wall_seconds']:,.0f}", size(row["bytes"])] for row in figures["cost"]]
    seconds, num_bytes = (sum(row[unit] for row in figures["cost"]) for unit in ("wall_seconds", "bytes"))
    return "## Cost\n\n" + table(
        ["Stage", "Wall time (s)", "Size"], [*rows, ["all", f"{seconds:,.0f}", size(num_bytes)]]
    )


# In the order of the card. Its page (card_page.py) has the same ones.
SECTIONS: tuple[Callable[[Figures], str], ...] = (
    summary_section,
    documents_section,
    dropped_section,
    attributes_section,
    truth_section,
    pretraining_section,
    facts_section,
    chat_section,
    honesty_section,
    reversal_section,
    sums_section,
    typed_section,
    in_context_section,
    recital_section,
    tools_section,
    reward_section,
    rl_section,
    gate_section,
    attacks_section,
    samples_section,
    cost_section,
)
