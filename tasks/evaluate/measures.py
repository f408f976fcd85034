"""The figures of a report card by which runs are compared, each under a name and by model.

Reads figures (plain JSON values), writes nothing. A value is a number, or a share with its interval (tasks/shares.py) where the card knows how
many were counted. A card of an older version lacks some: those measures are left out.
"""

from collections.abc import Mapping
from typing import Any

from tasks.evaluate.typed_messages import NAMES
from tasks.markdown import Figures
from tasks.shares import share_of

MODELS = {"assistant": "SFT model", "policy": "policy"}
CHAT = {
    "heldout_fact_accuracy": "Held-out facts, all forms",
    "heldout_wording_accuracy": "Taught facts, held-out wording, all forms",
    "unknown_accuracy": "Strangers refused, all",
    "false_refusal_fraction": "Known facts refused",
    "finished_fraction": "Replies that end by themselves",
}
# Of these a lower value is better, of those below neither is; of all others a higher one is.
LOWER_IS_BETTER = frozenset({"Known facts refused", "Expected calibration error", "Bits per byte of held-out text"})
NEUTRAL_SECTIONS = frozenset({"Documents", "Cost"})
Value = float | dict[str, Any]
Measures = dict[str, dict[str, Value]]  # a measure's value by the model's name


def value_of(value: Value) -> float:
    """The number of a value: of a share without its interval."""
    return float(value["share"] if isinstance(value, dict) else value)


def document_measures(figures: Figures) -> Measures:
    """What each data stage keeps, and how well the filters do where the truth is known."""
    measures: Measures = {}
    for stage in figures["documents"]:
        measures[f"Documents kept by {stage['stage']}"] = {"": share_of(stage["documents"], stage["documents_in"])}
    tokens = figures["language"].get("tokens/train/tokens")
    return measures | ({"Tokens of training text": {"": tokens}} if tokens is not None else {})


def filter_measures(figures: Figures) -> Measures:
    """Precision and recall of the filters, for a crawl with ground truth."""
    if not (truth := figures.get("truth")):
        return {}
    keep, seen = truth["families"].get("keep"), truth["redaction"]
    measures: Measures = {"Personal data redacted": {"": share_of(seen["pii_redacted"], seen["pii"])}}
    if keep:
        measures |= {
            "Good pages kept": {"": share_of(keep["right"], keep["expected"])},
            "Kept pages good": {"": share_of(keep["right"], keep["found"])},
        }
    return measures


def base_measures(figures: Figures) -> Measures:
    """Loss and facts of the base model."""
    measures: Measures = {}
    if (bits := figures["language"].get("base/validation/bits_per_byte")) is not None:
        measures["Bits per byte of held-out text"] = {"base": bits}
    for row in figures["facts"]:
        asked = {way: share for way, share in row["accuracy"].items() if way.startswith("base")}
        measures |= {
            f"Facts {row['facts']}, {mentions(row)}, {way.split(', ')[-1]}": {"base": asked[way]} for way in asked
        }
    for row in figures.get("in_context", ()):
        for number, share in row["accuracy"].items():
            measures[f"In context, {row['task']}, examples: {number}"] = {"base": share}
    return measures


def chat_measures(figures: Figures) -> Measures:
    """Shares of the fine-tuned models, most important first."""
    # A card from before version 10 has the values alone.
    chat: Figures = figures["chat_shares"] if "chat_shares" in figures else figures["chat"]
    honesty, sums = figures["honesty"], figures.get("sums") or {}
    kinds = honesty.get("kinds", {})
    measures: Measures = {
        label: _by_model({model: chat.get(model, {}).get(key) for model in MODELS}) for key, label in CHAT.items()
    }
    for row in figures["facts"]:
        measures[f"Facts {row['facts']}, {mentions(row)}"] = _by_model(row["accuracy"])
    for kind in sorted({kind for model in MODELS for kind in kinds.get(model, {})}):
        measures[kind.capitalize()] = _by_model({model: kinds.get(model, {}).get(kind) for model in MODELS})
    measures["Expected calibration error"] = _by_model(honesty.get("calibration_error", {}))
    for way in ("at once", "worked"):
        measures[f"Sums of two digits, {way}"] = _by_model({model: sums[model].get(way) for model in sums})
    typed = figures.get("typed") or {}
    for kind in NAMES:
        measures[f"Fitting replies, {NAMES[kind]}"] = _by_model({model: typed[model].get(kind) for model in typed})
    return {name: values for name, values in measures.items() if values}


def reward_measures(figures: Figures) -> Measures:
    """The reward model on held-out pairs, and the rewards of the SFT model and the policy."""
    known = figures["reward"]
    measures: Measures = {}
    for metric, value in known.items():
        if metric.startswith("pair_accuracy/"):
            kind = metric.partition("/")[2]
            num = round(known.get(f"pairs/{kind}", 0))
            right = share_of(round(value * num), num) if num else value
            measures[f"Pairs ranked correctly, {kind.replace('_', ' ')}"] = {"reward model": right}
    rewards = {model: known.get(f"{time}/reward_mean") for model, time in (("assistant", "before"), ("policy", "validation"))}  # fmt: skip
    return measures | {"Mean reward on held-out prompts": _by_model(rewards)}


def cost_measures(figures: Figures) -> Measures:
    """Wall seconds of each stage."""
    return {f"Seconds of {row['stage']}": {"": float(row["wall_seconds"])} for row in figures["cost"]}


def _by_model(values: Mapping[str, Any]) -> dict[str, Value]:
    """The values of the models that have one."""
    return {model: values[model] for model in MODELS if values.get(model) is not None}


def mentions(row: Figures) -> str:
    """How often the web states the facts of a row."""
    return "1 mention" if row["mentions"] == "1" else f"{row['mentions']} mentions"
