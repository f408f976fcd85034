"""Highlights of the report card: a dozen lines of plain text for a terminal and for the root README.

Reads the figures of report.json, writes nothing. A line whose figures a run does not have (no ground truth, no held-out text) is left
out.
"""

from collections.abc import Iterator

from tasks.markdown import Figures, percent

LABEL_CHARACTERS = 26


def highlights(figures: Figures) -> str:
    """Documents per stage, the most telling figures of the models, and one exchange with the policy."""
    lines = [*_funnel(figures), "", *_figures(figures), "", *_exchange(figures)]
    return "\n".join(lines).strip()


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_CHARACTERS}} {text}"


def _funnel(figures: Figures) -> Iterator[str]:
    """What each data stage kept, and its three most frequent reasons to drop."""
    # Six digits with separators: columns stay aligned up to 99,999 documents, and beyond that only the alignment is lost.
    for stage in figures["documents"]:
        reasons = ", ".join(f"{row['reason']} {row['documents']:,}" for row in stage["dropped"][:3])
        counts = f"{stage['documents_in']:>6,} -> {stage['documents']:>6,} documents"
        yield _line(stage["stage"], f"{counts}   dropped: {reasons}" if reasons else counts)


def _figures(figures: Figures) -> Iterator[str]:
    known, reward = figures["language"], figures["reward"]
    if truth := figures["truth"]:
        keep, seen = truth["families"]["keep"], truth["redaction"]
        found = f"{percent(keep['recall'])} of good pages kept, {percent(keep['precision'])} of kept pages good"
        yield _line("filters, ground truth", f"{found}; {seen['pii_redacted']} of {seen['pii']} strings redacted")
    # A base model's loss says little alone. The bigram model knows only which token follows which, so it is the least that training
    # must beat (tasks/tokenizer/bigram.py).
    if (bits := known.get("base/validation/bits_per_byte")) is not None:
        bigram = known.get("tokens/bigram/bits_per_byte")
        compared = f"; bigram model {bigram:.3f}" if bigram is not None else ""
        yield _line("base model", f"{bits:.3f} bits per byte of held-out text{compared}")
    # Held-out facts where there are some: those come first.
    if facts := [row for row in figures["facts"] if row["facts"] == figures["facts"][0]["facts"]]:
        rarest, commonest = facts[-1], facts[0]
        accuracy = [percent(row["accuracy"].get("policy", {}).get("share")) for row in (commonest, rarest)]
        yield _line(
            "facts answered correctly",
            f"{accuracy[0]} of those mentioned {commonest['mentions']} times, {accuracy[1]} of those mentioned "
            f"{'once' if rarest['mentions'] == '1' else rarest['mentions'] + ' times'}",
        )
    if (accuracy := reward.get("pair_accuracy/all")) is not None:
        yield _line("reward model", f"ranks {percent(accuracy)} of held-out pairs correctly")
    # Absent where RLHF had no held-out prompts to validate on.
    if "before/reward_mean" in reward:
        before, after = reward["before/reward_mean"], reward["validation/reward_mean"]
        yield _line("reward, before and after", f"{before:.2f} (SFT model), {after:.2f} (policy)")
    if not figures.get("gate", {"passed": True})["passed"]:
        yield _line("gate", figures["gate"]["sentence"])


def _exchange(figures: Figures) -> Iterator[str]:
    """The first question that the policy answers correctly, else the first."""
    # A right one on purpose, next to the accuracy above; the report card's samples are chosen regardless of the result. The sort is stable,
    # so that the order of knowledge.examples decides among equals. Control characters are escaped by the console that prints this.
    examples = sorted(figures["examples"], key=lambda example: not example["is_correct"])
    if examples:
        yield _line("you", " ".join(examples[0]["question"].split()))
        yield _line("assistant", " ".join(examples[0]["reply"].split()))
