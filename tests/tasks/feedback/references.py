"""Ratings and agreement by the reference libraries, evalica and krippendorff, for the tests next to this file.

Writes references.json: `python tests/tasks/feedback/references.py` where both are installed (evalica 0.4.2 and krippendorff 0.9.0; they bring
pandas, which nothing here needs).
"""

import json
import math
import random
from pathlib import Path

FILE = Path(__file__).with_name("references.json")
MODELS = ["base", "sft", "dpo", "grpo", "ppo", "larger"]
STRENGTHS = [-1.2, -0.3, 0.1, 0.2, 0.4, 0.8]


def simulated_votes(num_votes: int = 10_000, seed: int = 0) -> list[tuple[str, str, str]]:
    """Votes by the Bradley-Terry model, of which one in seven is a tie or bad on both sides."""
    generator = random.Random(seed)
    votes = []
    for _ in range(num_votes):
        left, right = generator.sample(range(len(MODELS)), 2)
        probability = 1 / (1 + math.exp(STRENGTHS[right] - STRENGTHS[left]))
        winner = "left" if generator.random() < probability else "right"
        winner = generator.choice(["tie", "both_bad"]) if generator.random() < 1 / 7 else winner
        votes.append((MODELS[left], MODELS[right], winner))
    return votes


def simulated_units(num_units: int, num_people: int, num_values: int, seed: int) -> list[list[int | None]]:
    """What people gave to each unit: the truth or something near it, and nothing in one case of five."""
    generator = random.Random(seed)
    units: list[list[int | None]] = []
    for _ in range(num_units):
        truth = generator.randrange(num_values)
        given = [min(max(truth + generator.choice([-1, 0, 0, 0, 1]), 0), num_values - 1) for _ in range(num_people)]
        units.append([value if generator.random() < 0.8 else None for value in given])
    return units


UNITS = [(30, 2, 3, 1), (50, 3, 5, 2), (200, 5, 9, 3), (12, 4, 2, 4)]


def main() -> None:
    import evalica
    import krippendorff

    votes = simulated_votes()
    winners = {"left": evalica.Winner.X, "right": evalica.Winner.Y}
    lefts, rights, won = zip(*votes, strict=True)
    given = (lefts, rights, [winners.get(winner, evalica.Winner.Draw) for winner in won])
    strengths = evalica.bradley_terry(*given, tolerance=1e-14, limit=100_000).scores
    alphas = []
    for size in UNITS:
        people = list(map(list, zip(*simulated_units(*size), strict=True)))
        data = [[math.nan if value is None else value for value in person] for person in people]
        alphas.append(krippendorff.alpha(reliability_data=data, level_of_measurement="ordinal"))
    found = {
        "bradley_terry": {name: float(strengths[name]) for name in MODELS},
        "elo": {name: float(value) for name, value in evalica.elo(*given).scores.items()},
        "ordinal_alpha": list(map(float, alphas)),
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
