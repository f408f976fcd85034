"""GRPO, PPO and DPO from one SFT model: what each does to the reward, to right answers and to refusals, at what KL.

    python -m tests.benchmarks.rl_algorithms [RECIPE] [--seeds 3] [--algorithms grpo dpo] [--set rlhf.dpo.beta=0.2 ...]

Reads the latest SFT model, reward model, preference pairs, prompts and questions of a recipe that was run (default: tiny) and its settings of `rlhf`;
trains a policy by each algorithm, into the store. Questions, right answers and refusals are those of the report card, whose truth no training sees.
The gold score (model/rl/gold.py) is that of completions of further prompts of the sample world, which no run has trained or validated on: greedy ones, and
ones sampled at the temperature of training, the SFT model's too, with each seed. The reward model's score is in standard deviations of the SFT
model's. The KL is measured on completions sampled from the policy (k1, nats of a whole completion).

A star marks what differs from the SFT model beyond chance, in either direction (p < 0.05). Policies of several seeds answer the same questions, which so
do not count several times: a question's differences are added up over the seeds, and a permutation test flips the signs of these sums.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from flows.recipes import Recipe, make_recipe
from model import losses
from model.config import GenerateConfig
from model.network.huggingface import load_reward_model, load_transformer
from model.network.transformer import Transformer
from model.rl.completions import completion_logprobs, pad_completions
from model.rl.gold import GoldScorer
from model.rl.prompts import Prompt, read_prompts, split_prompts
from model.rl.rewards import RewardFunction
from model.rl.rollouts import Rollouts, calibrate, roll_out
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Preferences, Prompts, RewardModel, SFTModel, Tokenizer
from tasks.artifacts.step import ExistingArtifact
from tasks.artifacts.store import Store
from tasks.conversations.readers import read_records
from tasks.evaluate.knowledge import Answer, ask_chat_model, sample_questions
from tasks.evaluate.written_sums import WORKED, work_sums
from tasks.execution.runner import execute
from tasks.posttrain.rlhf import RLHFConfig, rlhf
from tasks.records.conversations import Question
from tasks.sample_web.chat import prompts as compose_prompts
from tasks.sample_web.world import build_world
from tests.benchmarks.harness import machine, print_table, say

ALGORITHMS = ("grpo", "ppo", "dpo")
MAX_QUESTIONS, NUM_PROMPTS, NUM_SUMS = 2000, 2000, 800
LEVEL, NUM_FLIPS = 0.05, 20000
SFT = "SFT model"
# By row of the table: a value for each question or prompt, those of one seed after another's.
Figures = dict[str, list[float]]


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--set", nargs="+", default=(), metavar="rlhf.FIELD=VALUE", help="of the policies' training")
    given = parser.parse_args()
    store, config = Store.default(), make_recipe(given.recipe, settings=given.set).rlhf
    ids = inputs_of(store, given.recipe)
    measure = Measure(store, ids, make_recipe(given.recipe))
    found: dict[str, Figures] = defaultdict(lambda: defaultdict(list))
    for seed in range(given.seeds):
        folders = {SFT: store.folder(ids["sft"])}
        folders |= {name.upper(): train(store, ids, config, name, seed) for name in given.algorithms}
        for name, folder in folders.items():
            for row, values in measure(folder, seed).items():
                found[name][row] += values
    show(found, given.seeds, given.set)


def inputs_of(store: Store, recipe: str) -> dict[str, str]:
    """Artifact ids by stage. Raises UserError where the recipe was not run."""
    ids = {stage: store.latest(recipe, stage) for stage in ("sft", "reward", "tokenizer", "rlhf", "evaluate")}
    ids |= {stage: _input(store, ids[of], role) for stage, of, role in (
        ("prompts", "rlhf", "prompts"), ("preferences", "reward", "preferences"), ("questions", "evaluate", "questions"),
    )}  # fmt: skip
    return ids


def _input(store: Store, artifact_id: str, role: str) -> str:
    manifest = store.find(artifact_id)
    assert manifest, f"{artifact_id} is missing"
    return manifest.inputs[role]


def train(store: Store, ids: dict[str, str], config: RLHFConfig, algorithm: str, seed: int) -> Path:
    """The folder of the policy that an algorithm trains."""
    parts = {
        "train": config.train.model_copy(update={"seed": seed}),
        "dpo_train": config.dpo_train.model_copy(update={"seed": seed}),
    }
    settings = config.model_copy(update={"algorithm": algorithm, **parts})
    step = rlhf(
        ExistingArtifact.of(SFTModel, ids["sft"]),
        ExistingArtifact.of(RewardModel, ids["reward"]),
        ExistingArtifact.of(Tokenizer, ids["tokenizer"]),
        ExistingArtifact.of(Prompts, ids["prompts"]),
        ExistingArtifact.of(Preferences, ids["preferences"]),
        settings,
    )
    say(f"{algorithm}, seed {seed}: {execute(step, store).id}")
    return store.folder(step.id)


class Measure:
    """What the table shows of one model."""

    def __init__(self, store: Store, ids: dict[str, str], recipe: Recipe) -> None:
        self.config = recipe.rlhf.train
        self.tokenizer = ChatTokenizer.load(store.folder(ids["tokenizer"]) / "tokenizer.json")
        self.reference = load_transformer(store.folder(ids["sft"]))
        paths = [str(path) for path in sorted(store.folder(ids["prompts"]).glob("*.jsonl")) if path.stem != "bad_lines"]
        known = read_prompts(paths, self.tokenizer, self.config)
        training, _ = split_prompts(known, self.config)
        self.prompts = further_prompts(recipe, known, self.tokenizer)
        reward_model = load_reward_model(store.folder(ids["reward"]))
        self.rewards = calibrate(RewardFunction(self.config, self.tokenizer, reward_model), self.reference, training)
        self.questions = sample_questions(
            list(read_records(Question, store.folder(ids["questions"]) / "questions.jsonl")), MAX_QUESTIONS, seed=0
        )

    def __call__(self, folder: Path, seed: int) -> Figures:
        """The rows of the model in a folder. `seed`: of the sampled completions."""
        model = load_transformer(folder)
        greedy, sampled = (roll_out(model, self.rewards, self.prompts, seed, temperature=one) for one in (0.0, None))
        return {
            **self.gold("greedy", greedy),
            **self.gold("sampled", sampled),
            "reward-model score, greedy (standard deviations)": greedy.rewards.scores.tolist(),
            **self.answers(model),
            "KL to the SFT model (nats per completion)": self.kl(model, sampled),
            "tokens per completion": [float(len(done)) for done in greedy.completions],
        }

    def gold(self, how: str, rollouts: Rollouts) -> Figures:
        """The gold scores of completions, all and by kind of prompt."""
        gold = GoldScorer(self.tokenizer)(rollouts).tolist()
        rows: Figures = {f"gold score, {how}": gold}
        for prompt, score in sorted(zip(self.prompts, gold, strict=True), key=lambda pair: pair[0].kind):
            rows.setdefault(f"gold score, {how}: {prompt.kind}", []).append(score)
        return rows

    def answers(self, model: Transformer) -> Figures:
        """Right answers and refusals by the truth of the sample web."""
        config = GenerateConfig(max_new_tokens=48, temperature=0.0)
        answers = ask_chat_model("", model, self.tokenizer, self.questions, config, 64, lambda _: None)
        frequent = [answer for answer in answers if answer.is_frequent]
        return {
            "right, wording seen in training": picked(frequent, "seen_wording"),
            "right, held-out wording": picked(frequent, "heldout_wording"),
            "right, held-out facts": picked(frequent, "heldout_fact"),
            "worked sums of two digits": [
                float(flag) for flag in work_sums(model, self.tokenizer, NUM_SUMS, 64)[WORKED]
            ],
            "refusals of strangers": picked(answers, "unknown"),
            "false refusals": [float(bool(answer.is_refusal)) for answer in frequent],
        }

    def kl(self, model: Transformer, sampled: Rollouts) -> list[float]:
        """Summed log-ratios of completions that the model has sampled."""
        completions = pad_completions([prompt.tokens for prompt in self.prompts], sampled.completions)
        now, before = (
            completion_logprobs(one, completions, self.config.temperature) for one in (model, self.reference)
        )
        return losses.kl_estimate(now, before, "k1", completions.mask).sum(-1).tolist()  # type: ignore[no-any-return]


def further_prompts(recipe: Recipe, known: Sequence[Prompt], tokenizer: ChatTokenizer) -> list[Prompt]:
    """Prompts with an answer that are not among the known ones, composed after those of the recipe."""
    first, texts = recipe.rlhf.num_prompts, {prompt.text for prompt in known}
    composed = islice(compose_prompts(build_world(recipe.world_seed), first + 4 * NUM_PROMPTS), first, None)
    fresh = (prompt for prompt in composed if prompt.answer and prompt.messages[-1].content not in texts)
    return [
        Prompt(
            text := one.messages[-1].content,
            tokenizer.render_prompt([{"role": "user", "content": text}]),
            one.answer,
            one.kind or "",
        )
        for one in islice(fresh, NUM_PROMPTS)
    ]


def picked(answers: Sequence[Answer], split: str) -> list[float]:
    """Whether each answer of a split is right."""
    return [float(answer.is_correct) for answer in answers if answer.question.split == split]


def show(found: Mapping[str, Figures], num_seeds: int, settings: Sequence[str]) -> None:
    """Print the table."""
    rows, names = [], [name for name in found if name != SFT]
    for name, before in found[SFT].items():
        cells = [f"{mean(before):.3f}"]
        for algorithm in names:
            after = found[algorithm][name]
            is_compared = not name.startswith(("KL", "tokens"))
            mark = "*" if is_compared and differs(before, after, num_seeds) else ""
            cells.append(f"{mean(after):.3f}{mark}")
        rows.append((f"{name} [{len(before) // num_seeds}]", *cells))
    seeds = ", ".join((f"{num_seeds} seed(s)", *settings))
    note = f"In brackets the number of prompts or questions; {seeds}. * beyond chance. {machine()}."
    print_table("GRPO, PPO and DPO from one SFT model", ("", SFT, *names), rows, note)


def differs(before: Sequence[float], after: Sequence[float], num_seeds: int) -> bool:
    """Whether the values of the questions, of one seed after another, differ beyond chance.

    If nothing changed, a question's difference would have the other sign as often.
    """
    differences = np.subtract(after, before).reshape(num_seeds, -1).sum(0)
    differences = differences[differences != 0]
    signs = 2 * np.random.default_rng(0).integers(0, 2, (NUM_FLIPS, len(differences)), np.int8) - 1
    # The differences themselves are one of the cases, so that p is never 0; a little less, for the rounding of sums.
    as_large = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    return bool((1 + as_large.sum()) / (1 + NUM_FLIPS) < LEVEL)


def mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
