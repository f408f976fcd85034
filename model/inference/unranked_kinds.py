"""What a reward model cannot rank.

Reads the metrics of a ranking (model/inference/ranking.py), writes nothing. A module that does without torch: the report card needs it, and
every command would wait for torch.
"""

from collections.abc import Mapping

MIN_ACCURACY = 0.8  # of pairs; a kind that is ranked worse is one that the model cannot rank
MIN_PAIRS = 10  # of a kind; with fewer, chance decides


def unranked_kinds(metrics: Mapping[str, float]) -> dict[str, float]:
    """What a model cannot rank, by the metrics of its ranking: kinds and faults of at least MIN_PAIRS pairs, with the accuracy."""
    return {
        name.removeprefix("pair_accuracy/"): accuracy
        for name, accuracy in metrics.items()
        if name.startswith("pair_accuracy/")
        and accuracy < MIN_ACCURACY
        and metrics.get(f"pairs/{name.removeprefix('pair_accuracy/')}", 0) >= MIN_PAIRS
    }
