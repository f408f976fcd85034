"""Where a run's figures come from: curves of the trainings, samples of dropped documents, and every artifact with its settings.

Reads the manifests, `metrics.jsonl` and `dropped.jsonl` of a run's artifacts; writes nothing. What leaves the store here is shown on a page
that people pass on: samples were redacted when they were written (tasks/records/samples.py), settings lose secrets and the folders of
this machine here.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from model.files import read_lines
from tasks.artifacts.manifest import Artifact, Checkpoint, Documents
from tasks.markdown import Figures
from tasks.redaction import redact_text
from tasks.training import read_metrics

MAX_POINTS = 150  # of a curve: a chart is 290 pixels wide
MAX_SAMPLES, SAMPLE_CHARACTERS = 3, 240  # of each reason
# A path on this machine, alone or after the name of a format (gsm8k:/home/...), up to its last slash. Of a URL the host follows ://.
LOCAL_FOLDER = re.compile(r"(?:^|(?<=:))(?:file://)?(?:~|/(?!/))[^:]*/")
# Title of a chart -> its metrics. Training and validation of one unit share a chart.
CURVES = {
    "Loss, nats per token": ("train/loss_nats", "validation/loss_nats"),
    "Accuracy on held-out pairs": ("validation/accuracy",),
    "Reward": ("reward/mean", "validation/reward_mean"),
    "KL to the SFT model, nats per token": ("policy/kl_k3",),
}


def curves_figures(artifacts: Iterable[Artifact]) -> list[Figures]:
    """The curves of every training: stage, title and points [step, value] by metric."""
    rows = []
    for artifact in artifacts:
        if not isinstance(artifact, Checkpoint) or not artifact.files("metrics.jsonl"):
            continue
        lines = read_metrics(artifact.folder / "metrics.jsonl")
        for title, names in CURVES.items():
            # A training that measures accuracy has no loss in nats per token: what a stage lacks is left out.
            series = {
                name: averaged([(line["step"], line[name]) for line in lines if name in line])
                for name in names
                if any(name in line for line in lines)
            }
            if series:
                rows.append({"stage": artifact.manifest.stage, "title": title, "series": series})
    return rows


def averaged(points: Sequence[tuple[float, float]]) -> list[list[float]]:
    """At most MAX_POINTS points: the means of as many neighbours each, since single steps are noise and a page shows the course."""
    size = -(-len(points) // MAX_POINTS) or 1
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [[sum(values) / len(group) for values in zip(*group, strict=True)] for group in groups]


def samples_figures(stages: Iterable[Documents]) -> list[Figures]:
    """A few dropped documents of every reason, as excerpts without personal data."""
    rows = []
    for documents in stages:
        counts = Counter[str]()
        for path in documents.files("dropped.jsonl"):
            for sample in read_lines(path):
                counts[sample["reason"]] += 1
                if counts[sample["reason"]] <= MAX_SAMPLES:
                    text = " ".join(sample["text"].split())[:SAMPLE_CHARACTERS]
                    row = {"stage": documents.manifest.stage, "reason": sample["reason"], "url": sample["url"]}
                    rows.append({**row, "text": text})
    return rows


def lineage_figures(artifacts: Iterable[Artifact]) -> list[Figures]:
    """Every artifact: its name, the version of its stage, when it was made, what of, and with which settings."""
    rows = []
    for artifact in artifacts:
        manifest = artifact.manifest
        provenance = manifest.provenance
        rows.append(
            {
                "artifact": manifest.id,
                "kind": manifest.kind,
                "version": manifest.stage_version,
                "started": provenance.get("started", ""),
                "commit": provenance.get("commit", ""),
                "inputs": manifest.inputs,
                "settings": shareable(manifest.config),
            }
        )
    return rows


def shareable(value: Any) -> Any:
    """Settings as anyone may read them: without secrets, and of paths on this machine only the name."""
    if isinstance(value, dict):  # of a mixture the keys are paths
        return {shareable(str(name)): shareable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [shareable(part) for part in value]
    if not isinstance(value, str):
        return value
    return LOCAL_FOLDER.sub("…/", redact_text(value))
