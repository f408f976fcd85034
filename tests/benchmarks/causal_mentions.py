"""What more mentions do: the accuracy of a base model on 30 facts, predicted from the curve of another run and then measured.

    python -m tests.benchmarks.causal_mentions [--recipe NAME] [--mentions K] [--set SETTING ...]

Reads the latest base model of the recipe, whose sample web is the plain one, from the store (CRAWL2CHAT_STORE, else artifacts). Its accuracy
by number of mentions is only a correlation: frequent facts belong to people and places whose names are frequent, too. The
sample web's setting `extra_mentions` states 30 rare facts, drawn by the seed, on K more pages. The curve predicts their accuracy; the
prediction is written to STORE/causal_mentions.json; then the recipe is run again with that setting alone changed, up to its base model,
and the same questions are asked. The other rare facts of the same frequency are the control group.

All questions are about held-out facts, in the direction in which they are stated. --set: what else the finished run was started with.
"""

import argparse
import bisect
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from model.config import GenerateConfig
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import BaseModel, Tokenizer
from tasks.artifacts.store import Store
from tasks.evaluate.knowledge import COMPLETED, FEW_SHOT, Answer, ask_base_model, ask_few_shot
from tasks.records.conversations import Question
from tasks.sample_web.chat import questions
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.variants import CHOSEN_MENTIONS, chosen_facts
from tasks.sample_web.world import World, build_world
from tasks.shares import share, shown
from tasks.training import load_language_model
from tests.benchmarks.harness import ROOT, machine, print_table, say

MEASURES = (COMPLETED, FEW_SHOT)
BATCH = 64
Share = dict[str, Any]
Curve = dict[int, Share]  # mentions -> share of right answers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--mentions", type=int, default=27)
    parser.add_argument("--set", action="append", default=[], metavar="SETTING", dest="settings")
    args = parser.parse_args()
    store = Store.default()
    world = build_world(1)
    chosen = {fact.id for fact in chosen_facts(world)}
    before = ask(store, args.recipe, world)
    curves = {measure: curve_of(before, measure) for measure in MEASURES}
    predicted = {measure: predict(curve, CHOSEN_MENTIONS + args.mentions) for measure, curve in curves.items()}
    path = store.root / "causal_mentions.json"
    values = {"facts": sorted(chosen), "extra_mentions": args.mentions, "curve": curves, "predicted": predicted}
    write_atomically(path, json.dumps(values, indent=1))
    say(f"the prediction is in {path}: {', '.join(f'{name} {shown(value)}' for name, value in predicted.items())}")
    name = f"{args.recipe}-mentions"
    run(args.recipe, [f"name={name}", f"ingest.sample.extra_mentions={args.mentions}", *args.settings])
    after = ask(store, name, world)
    print_result(args.mentions, chosen, before, after, predicted)


def run(recipe: str, settings: Sequence[str]) -> None:
    """Run a recipe up to its base model."""
    command = [sys.executable, "-m", "flows.cli.main", "run", recipe, "--until", "pretrain"]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment)


def ask(store: Store, recipe: str, world: World) -> list[Answer]:
    """The base model's answers about held-out facts: statements completed, and questions after examples about other facts."""
    base = load_language_model(store.open(store.latest(recipe, "pretrain"), BaseModel))
    tokenizer_file = store.open(store.latest(recipe, "tokenizer"), Tokenizer).folder / "tokenizer.json"
    tokenizer = ChatTokenizer.load(tokenizer_file)
    known = list(questions(world))
    asked = [question for question in known if is_asked(question)]
    shots = [question for question in known if question.split == "seen_wording"]
    settings = GenerateConfig(max_new_tokens=24, temperature=0.0)

    def progress(number: int) -> None:
        say(f"{recipe}: {number} answers")

    return [
        *ask_base_model(base, tokenizer, asked, settings, BATCH, progress, is_ranked=False),
        *ask_few_shot(base, tokenizer, asked, shots, settings, BATCH, progress),
    ]


def is_asked(question: Question) -> bool:
    """One question for each held-out fact."""
    return question.split == "heldout_fact" and question.form == "direct" and question.kind in RELATIONS


def curve_of(answers: Sequence[Answer], measure: str) -> Curve:
    """The share of right answers by the planned number of mentions."""
    found: dict[int, list[bool]] = {}
    for answer in answers:
        if answer.model == measure:
            found.setdefault(answer.question.num_mentions or 0, []).append(answer.is_correct)
    return {mentions: share(is_correct) for mentions, is_correct in sorted(found.items())}


def predict(curve: Curve, mentions: int) -> Share:
    """The curve at a number of mentions, and its interval: between two points straight over the logarithm of the mentions."""
    points = sorted(curve)
    place = bisect.bisect_left(points, mentions)
    if place == len(points) or place == 0 or points[place] == mentions:
        return curve[points[min(place, len(points) - 1)]]
    low, high = points[place - 1 : place + 1]
    weight = (math.log(mentions) - math.log(low)) / (math.log(high) - math.log(low))
    mixed = {key: (1 - weight) * curve[low][key] + weight * curve[high][key] for key in ("share", "low", "high")}
    return {**mixed, "num": min(curve[low]["num"], curve[high]["num"])}


def share_of(answers: Sequence[Answer], measure: str, facts: set[str]) -> Share:
    """The share of right answers about some facts."""
    return share([answer.is_correct for answer in answers if answer.model == measure and answer.question.fact in facts])


def print_result(
    mentions: int, chosen: set[str], before: Sequence[Answer], after: Sequence[Answer], predicted: dict[str, Share]
) -> None:
    others = {answer.question.fact for answer in before if answer.question.num_mentions == CHOSEN_MENTIONS} - chosen
    rows = [
        [
            measure,
            shown(share_of(before, measure, chosen)),
            shown(predicted[measure]),
            shown(share_of(after, measure, chosen)),
            shown(share_of(before, measure, others)),
            shown(share_of(after, measure, others)),
        ]
        for measure in MEASURES
    ]
    print_table(
        f"{mentions} more mentions of {len(chosen)} facts that were stated {CHOSEN_MENTIONS} times: predicted and measured",
        ["", "before", "predicted", "measured", "control before", "control after"],
        rows,
        f"One seed. In brackets the 95% interval and the number of questions. {machine()}.",
    )


if __name__ == "__main__":
    main()
