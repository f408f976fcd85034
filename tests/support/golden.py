"""Golden outputs of the stages: what each stage made of a small input, together with the stage's version.

Reads the artifacts of a run; writes tests/golden/stages.json if CRAWL2CHAT_RECORD_GOLDEN is set. Data stages make the same bytes on every
machine, so their golden value is a digest of all files. Stages that train give slightly different weights on another processor, so
theirs is the list of files, the settings files by digest, and the metrics to 2%. All files of evaluate hold texts of models, scores or
times; of them the questions, the figures of the data stages, and the headings and first columns of the report card are hashed.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts.manifest import MANIFEST, Manifest
from tasks.artifacts.store import Store

FILE = Path(__file__).parents[1] / "golden/stages.json"
TRAINED = ("index", "pretrain", "probe", "sft", "reward", "rlhf", "evaluate", "export")
# Of these stages, files that depend on the machine or the clock
VARIES = (
    "safetensors",
    "gguf",
    "sqlite",
    "svg",
    "log",
    "jsonl",
    "run.json",
    "tfevents",
    "report",
    "knowledge",
    "README.md",
    "summary.json",
)
TOLERANCE = 0.02
CLOCK = ("seconds", "per_second", "mfu", "bytes_peak", "memory")
# Of answers.jsonl, what the models wrote and how it was scored
SCORED = ("reply", "is_correct", "is_refusal", "is_finished", "num_tokens", "logprob")
# Of report.json, the sections that are counted from data, and the roles of "language" that no model shapes
COUNTED = ("documents", "attributes", "truth", "base")
DATA_ROLES = ("tokenizer/", "tokens/")

Golden = dict[str, dict[str, Any]]


def outputs(store: Store, stages: tuple[str, ...], recipe: str) -> Golden:
    """The golden value of every stage's latest artifact, and of the sources that these were made from."""
    found: Golden = {}
    waiting = [store.latest(recipe, stage) for stage in stages]
    while waiting:
        manifest = store.find(waiting.pop(0))
        assert manifest is not None
        if manifest.stage not in found:
            found[manifest.stage] = {"version": manifest.stage_version, **output(manifest, store.folder(manifest.id))}
            waiting += manifest.inputs.values()
    return dict(sorted(found.items()))


def output(manifest: Manifest, folder: Path) -> dict[str, Any]:
    """What one artifact holds, as far as it is equal on every machine."""
    if manifest.stage not in TRAINED:
        return {"digest": manifest.digest}
    names = sorted(file.path for file in manifest.files)
    settled = [name for name in names if not any(part in name for part in VARIES) and name != MANIFEST]
    texts = "".join(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in settled)
    if manifest.stage == "evaluate":
        texts += json.dumps(report_without_scores(folder), sort_keys=True)
    metrics = {name: value for name, value in manifest.metrics.items() if not any(part in name for part in CLOCK)}
    return {
        "files": [name for name in names if "tfevents" not in name],
        "digest": hashlib.sha256(texts.encode()).hexdigest()[:16],
        "metrics": metrics,
    }


def report_without_scores(folder: Path) -> dict[str, Any]:
    """What a Report holds apart from times and from what depends on a model's weights: that differs from machine to machine."""
    # Six digits of a fraction: the last bits of a sum of logarithms are the processor's.
    read = json.JSONDecoder(parse_float=lambda digits: f"{float(digits):.6g}").decode
    figures = read((folder / "report.json").read_text(encoding="utf-8"))
    answers = map(json.loads, (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines())
    card = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    # The first cell of a row names it; the others are figures. Lines of text hold what models wrote.
    rows = [line.split(" | ")[0] for line in card if line.startswith(("#", "| "))]
    return {
        "sections": sorted(figures),
        "figures": {name: figures[name] for name in COUNTED},
        "language": {
            name: value
            for name, value in figures["language"].items()
            if name.startswith(DATA_ROLES) and not any(part in name for part in CLOCK)
        },
        "questions": [{name: value for name, value in answer.items() if name not in SCORED} for answer in answers],
        "rows": rows,
    }


def check(found: Golden) -> None:
    """Fail for every stage whose output changed without its version, and for every output that is not recorded."""
    if os.environ.get("CRAWL2CHAT_RECORD_GOLDEN"):
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    known: Golden = json.loads(FILE.read_text(encoding="utf-8"))
    assert problems(found, known) == []


def problems(found: Golden, known: Golden) -> list[str]:
    """One sentence per stage that is not as recorded."""
    record = "record it with CRAWL2CHAT_RECORD_GOLDEN=1"
    messages = [f"stage {stage} is new: {record}" for stage in found if stage not in known]
    messages += [f"stage {stage} left no artifact" for stage in known if stage not in found]
    for stage in found.keys() & known.keys():
        now, then = dict(found[stage]), dict(known[stage])
        metrics = now.pop("metrics", {}), then.pop("metrics", {})
        if now["version"] != then["version"]:
            messages.append(f"stage {stage} has version {now['version']}, recorded is {then['version']}: {record}")
        elif now != then or metrics[0] != pytest.approx(metrics[1], rel=TOLERANCE, abs=TOLERANCE):
            messages.append(
                f"the output of stage {stage} changed: raise its VERSION unless only its inputs changed, then {record}"
            )
    return messages
