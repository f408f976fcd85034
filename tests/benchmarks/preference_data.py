"""Reward models and DPO on real preference files: what they make of pairs that they have not seen.

    python -m tests.benchmarks.preference_data [RECIPE] [--only WORD]

Starts from the latest SFT model of a recipe that was run (default: tiny), a small model that knows the sample web alone: what it learns of these pairs it
learns from them. A tenth of each file is held out. The reward model is trained as the stage `reward` does, the policy as `rlhf` with
algorithm=dpo; accuracy is the fraction of held-out pairs whose chosen side has the higher reward, of DPO the higher implicit reward. 50% is chance. The
same by commands, for a file of your own:

    crawl2chat run tiny --set reward.preferences=FILE --only reward
    crawl2chat run tiny --set reward.preferences=FILE --set rlhf.algorithm=dpo --only rlhf
"""

import argparse
import math
import os

from model.config import TrainConfig
from model.rl.config import DPOLossConfig
from tasks.artifacts.manifest import RewardModel, SFTModel, Tokenizer
from tasks.artifacts.step import ExistingArtifact
from tasks.artifacts.store import Store
from tasks.conversations.sources import PreferencesConfig, PromptsConfig, preferences, prompts
from tasks.execution.runner import execute
from tasks.posttrain.reward import RewardConfig, reward
from tasks.posttrain.rlhf import RLHFConfig, rlhf
from tests.benchmarks.harness import machine, print_table, say, shared_data

FILES = {  # name -> file, tokens of the longest sides that are read, epochs
    "instructions (rasbt)": ("sft_rl/instruction-preference.jsonl.gz", 256, 3),
    "OpenAssistant rankings": ("sft_rl/oasst-en_100_tree.jsonl.gz", 512, 2),
    "HH harmless (Anthropic)": ("sft_rl/hh-harmless-base.jsonl.gz", 512, 1),
}
PAIRS = 16  # of a step


def main() -> None:
    """Train on each file, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="tiny")
    parser.add_argument("--only", help="a word in the name of the files to take")
    given = parser.parse_args()
    rows = [figures(given.recipe, name) for name in FILES if not given.only or given.only in name]
    headings = (
        "Preference file",
        "pairs",
        "held out",
        "reward model",
        "DPO",
        "DPO: log-ratio of chosen",
        "of rejected sides",
    )
    note = f"Accuracy on held-out pairs with its standard error; log-ratios to the SFT model in nats. {machine()}."
    print_table("Reward models and DPO on real preference files", headings, rows, note)


def figures(recipe: str, name: str) -> tuple[str, ...]:
    """A row of the table."""
    store = Store.default()
    assistant = ExistingArtifact.of(SFTModel, store.latest(recipe, "sft"))
    tokenizer = ExistingArtifact.of(Tokenizer, store.latest(recipe, "tokenizer"))
    file, sequence_tokens, epochs = FILES[name]
    source = PreferencesConfig(preferences=str(shared_data() / file), validation_fraction=0.1, max_bad_fraction=0.1)
    pairs = preferences(source, world_seed=1)
    counts = execute(pairs, store).counts
    num_pairs, num_heldout = counts["train_records"], counts["validation_records"]
    train = TrainConfig(
        num_steps=max(1, epochs * num_pairs // PAIRS),
        sequence_tokens=sequence_tokens,
        batch_tokens=2 * PAIRS * sequence_tokens,
        microbatch_sequences=8,
        eval_every_steps=0,
        eval_sequences=2 * num_heldout,
        sample_every_steps=0,
    )
    say(f"{name}: {num_pairs} pairs, {train.num_steps} steps")
    measured = execute(reward(assistant, tokenizer, pairs, RewardConfig(train=train)), store).metrics
    unread = prompts(PromptsConfig(), world_seed=1)
    config = RLHFConfig(algorithm="dpo", dpo_train=train, dpo=DPOLossConfig(beta=1.0, sft_weight=1.0))
    # Neither is read by DPO.
    scored = ExistingArtifact.of(RewardModel, store.latest(recipe, "reward"))
    preferred = execute(rlhf(assistant, scored, tokenizer, unread, pairs, config), store).metrics
    return (
        name,
        f"{num_pairs}",
        f"{num_heldout}",
        accuracy(measured["validation/accuracy"], num_heldout),
        accuracy(preferred["validation/accuracy"], num_heldout),
        f"{preferred['validation/chosen_log_ratio']:+.1f}",
        f"{preferred['validation/rejected_log_ratio']:+.1f}",
    )


def accuracy(value: float, num_pairs: int) -> str:
    """A share with its standard error."""
    return f"{value:.1%} ± {math.sqrt(value * (1 - value) / num_pairs):.1%}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
