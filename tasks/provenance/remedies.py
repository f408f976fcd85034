"""Settings with which a document that was dropped is kept. Reads nothing and writes nothing.

A setting is written as `crawl2chat run --set` takes it, STAGE.FIELD=VALUE. The names of the filter's limits are min_ or max_ and the
attribute, and so is the reason; so a limit follows from the reason and from what was measured.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.dedup import minhash
from tasks.filter.stage import FilterConfig
from tasks.records.documents import Document

# A limit that nothing breaks, where the field itself has no upper bound
UNLIMITED = 10**9
ESTIMATE_ERROR = 0.05  # of the similarity that dedup estimates of a pair: one standard deviation is 0.04
DIGITS = 4


def to_keep(documents: Sequence[Document], config: Mapping[str, Any]) -> list[str]:
    """The settings of the filter, changed as little as keeps all of these documents that it dropped. `config`: as it was."""
    changed: dict[str, Any] = {}
    for document in documents:
        for name, value in _needed(document, config):
            changed[name] = wider(name, value, changed[name]) if name in changed else value
    return [f"filter.{name}={json.dumps(value)}" for name, value in sorted(changed.items())]


def _needed(document: Document, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What must change for one document: all rules that it breaks, since the filter names only the first."""
    family, _, rule = document["reason"].partition("/")
    attributes = document.get("attributes", {})
    if family in ("url", "pii", "language"):
        yield from _of_family(family, rule, attributes, config)
    for name, value in attributes.items():
        low, high = config.get(f"min_{name}"), config.get(f"max_{name}")
        # Attributes are stored with 32 bits: a limit a little beyond the value, so that rounding does not matter.
        if low is not None and value < low:
            yield f"min_{name}", _rounded(value, math.floor)
        if high is not None and value > high:
            yield f"max_{name}", _rounded(value, math.ceil)


def _of_family(
    family: str, rule: str, attributes: Mapping[str, float], config: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    if family == "language" and rule == "unsure":
        # The limit is exclusive.
        score = attributes.get("language_score", 0.0)
        yield "language_threshold", max(0.0, _rounded(score, math.floor) - 10**-DIGITS)
    elif family == "language":
        yield "languages", [*config["languages"], rule]
    elif family == "pii":
        # pii/dense is a limit like the others, and found by its attribute.
        if rule != "dense":
            yield "pii_action", "redact"
            yield "pii_actions", {}
    elif rule == "excluded":
        yield "exclude", []
    elif rule in config["blocked_categories"]:
        yield "blocked_categories", [name for name in config["blocked_categories"] if name != rule]
    else:
        fields = {
            "blocked_word": "blocked_words",
            "soft_blocked_words": "soft_blocked_words",
            "blocked_part": "blocked_substrings",
        }
        if rule in fields:
            yield fields[rule], []


def _rounded(value: float, towards: Any) -> float:
    """A value rounded down or up to DIGITS digits, a whole number as one."""
    if value == int(value):
        return int(value)
    return float(towards(value * 10**DIGITS) / 10**DIGITS)


def wider(name: str, one: Any, two: Any) -> Any:
    """Of two values of a setting of the filter or of dedup the one that keeps more. `name`: of the field."""
    if name == "languages":
        return list(dict.fromkeys([*one, *two]))
    if name == "blocked_categories":
        return [entry for entry in one if entry in two]
    if name.startswith("max_") or name == "jaccard_threshold":
        return max(one, two)
    return min(one, two) if name.startswith("min_") or name == "language_threshold" else one


def without_rule(reason: str, config: Mapping[str, Any]) -> list[str] | None:
    """The settings with which no document is dropped for a reason; None where no setting does that."""
    family, _, rule = reason.partition("/")
    if family == "duplicate":
        field = {"url": "by_url", "content": "by_content", "minhash": "by_minhash"}.get(rule)
        return [f"dedup.{field}=false"] if field else None
    if family == "contaminated":
        return ["dedup.eval_sets=[]"]
    if reason == "language/unsure":
        return ["filter.language_threshold=0"]
    if reason == "pii/dense":
        return ["filter.max_pii_fraction=1"]
    if family in ("url", "language", "pii"):
        changed = dict(_of_family(family, rule, {}, config))
    elif family == "quality":
        changed = {name: value for name, value in _unlimited(rule) if name in config}
    else:
        return None
    return [f"filter.{name}={json.dumps(value)}" for name, value in changed.items()] or None


def _unlimited(rule: str) -> Iterator[tuple[str, float]]:
    yield f"min_{rule}", 0
    field = FilterConfig.model_fields.get(f"max_{rule}")
    is_fraction = field is not None and any(getattr(limit, "le", None) == 1 for limit in field.metadata)
    yield f"max_{rule}", 1 if is_fraction else UNLIMITED


def to_keep_both(one: str, two: str, ngram_size: int) -> list[str]:
    """The settings of dedup with which two near duplicates are both kept."""
    similarity = jaccard(one, two, ngram_size)
    if similarity + ESTIMATE_ERROR >= 1:
        return ["dedup.by_minhash=false"]
    return [f"dedup.jaccard_threshold={math.ceil(100 * (similarity + ESTIMATE_ERROR)) / 100:g}"]


def jaccard(one: str, two: str, ngram_size: int) -> float:
    """The Jaccard similarity of two texts' n-grams of words: the shares of both that they have in common."""
    sets = [
        set(minhash.hash_ngrams(minhash.hash_words(minhash.split_words(text)), ngram_size).tolist())
        for text in (one, two)
    ]
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))
