"""What the trainers of reinforcement learning share: prompts, rewards, and watching whether the run still helps.

Reads a run's SFT model, reward model, tokenizer and prompts. Writes what every trainer does (model/training/trainer.py), and

    rollouts.jsonl     the best and the worst completion of one prompt of each step
    samples.jsonl      after each validation, the completion of one held-out prompt of each kind
    diagnosis.jsonl    after each validation, one sentence on the run so far

At each validation the policy completes the held-out prompts greedily; both the reward and the gold score
(model/rl/gold.py) see them. Where the gold score has fallen beyond chance (model/rl/watch.py), the run ends with the weights of its best step, unless `on_fall` is to report it only.

Metrics: reward/mean, reward/model (standard deviations), reward/verifiable (fraction right, of completions whose prompt has an answer),
completion/tokens_mean, completion/finished_fraction, completion/distinct_fraction, phase/generation_seconds, phase/scoring_seconds. Of held-out
prompts as validation/reward_mean and so on, with validation/gold_mean; in the summary also as before/..., of the SFT model. All
of them also by kind of prompt, as kind/KIND/reward_mean and kind/KIND/validation_gold_mean.
"""

import threading
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from model.config import num_parameters
from model.files import read_lines, write_lines
from model.network.huggingface import load_reward_model, load_transformer, max_tokens_of
from model.network.transformer import Transformer
from model.rl.config import RLRun
from model.rl.gold import GoldScorer
from model.rl.history import History
from model.rl.means import Means
from model.rl.prompts import read_prompts, split_prompts
from model.rl.rewards import RewardFunction
from model.rl.rollouts import Rollouts, add_rollouts, add_samples, calibrate, roll_out
from model.rl.watch import ALL, Diagnosis, Validation, before_name, gold_means
from model.tokenizer.chat import ChatTokenizer
from model.training.checkpoints import Checkpoints, complete_checkpoints
from model.training.engine import Engine, join_ranks
from model.training.metrics import Metrics, clocked
from model.training.trainer import Trainer


class RLTrainer(Trainer):
    """A policy, the frozen reference policy and a reward function, with prompts to train on and held-out ones to watch."""

    rollouts: Rollouts  # of the newest step
    diagnosis: Diagnosis  # after the newest validation
    num_done: int  # steps, that of `train_step` included

    def __init__(self, run: RLRun, checkpoints: Path, stop: threading.Event) -> None:
        """Raises UserError if no prompt is short enough, or the ranks are not those of the run."""
        self.run, self.config = run, run.config
        join_ranks(self.config.num_ranks)
        super().__init__(self.config, Checkpoints(checkpoints, self.config.keep_checkpoints), Path(run.output), stop)
        self.tokenizer = ChatTokenizer.load(run.tokenizer)
        self.prompts, heldout = split_prompts(read_prompts(run.prompts, self.tokenizer, self.config), self.config)
        # Equal shares of the ranks: they must have the same metrics, and all of them have prompts or none has.
        self.heldout = heldout[: len(heldout) // self.config.num_ranks * self.config.num_ranks]
        self.kinds = sorted({prompt.kind for prompt in (*self.prompts, *self.heldout)})
        self.engine = self.start_engine()
        # A separate copy that never moves. Its weights stay whole on every rank: ZeRO shards the policy's state alone. And in
        # float32 whatever the policy's dtype: with bfloat16 the KL then includes the policy's rounding.
        self.reference = load_transformer(Path(run.initial_weights)).to(self.engine.device)
        self.reward_function = self.scaled(run.reward_model)
        self.gold_scorer = GoldScorer(self.tokenizer, self.scaled(run.gold_model) if run.gold_model else None)
        self.history = History(checkpoints.parent, [prompt.kind for prompt in self.heldout], num_validations(run))
        # Again after a restart: it depends on the SFT model alone, so it needs no place in the checkpoint.
        self.before, self.first = self.evaluate(self.reference, 0)

    @abstractmethod
    def start_engine(self) -> Engine:
        """The policy, which starts from the SFT model, with its optimizer."""

    @abstractmethod
    def whole_policy(self) -> Transformer:
        """The policy with all its weights on this rank; all ranks call it."""

    def scaled(self, folder: str) -> RewardFunction:
        """The rewards by the reward model in a folder, in standard deviations of the SFT model's scores."""
        reward_model = load_reward_model(Path(folder)).to(self.engine.device)
        return calibrate(RewardFunction(self.config, self.tokenizer, reward_model), self.reference, self.prompts)

    def resume(self, first_step: int) -> None:
        """Get ready for step `first_step`, with the validations of the steps before it."""
        super().resume(first_step)
        self.history.resume(self.first, first_step)
        self.diagnosis = self.history.diagnosis()

    def evaluate(self, policy: Transformer, step: int) -> tuple[Metrics, Validation]:
        """The metrics and the validation of greedy completions of the held-out prompts after `step` steps; empty without prompts."""
        rank, num_ranks, means = self.engine.rank, self.config.num_ranks, Means(self.kinds)
        if not self.heldout:
            return {}, Validation(step, np.zeros(0), np.zeros(0))
        # Greedy, so that two validations differ by the policy alone. The seed has no effect then.
        rollouts = roll_out(policy, self.reward_function, self.heldout[rank::num_ranks], seed=0, temperature=0.0)
        means.add_rollouts(rollouts)
        rows = np.zeros((3, len(self.heldout)))  # rewards, gold scores, and where there is one
        gold = self.gold_scorer(rollouts)
        rows[:, rank::num_ranks] = rollouts.rewards.total, np.nan_to_num(gold), ~np.isnan(gold)
        rewards, gold, is_scored = np.reshape(self.engine.totals(rows.flatten().tolist()), rows.shape)
        validation = Validation(step, rewards, np.where(is_scored > 0, gold, np.nan))
        self.add_samples(rollouts, validation)
        return as_validation(means.over_ranks(self.engine)) | gold_metrics(validation, self.history.kinds), validation

    def add_samples(self, rollouts: Rollouts, validation: Validation) -> None:
        """Write the first completion of each kind of held-out prompts on this rank, which is rank 0."""
        if self.engine.rank == 0:
            gold = validation.gold[:: self.config.num_ranks].tolist()
            add_samples(self.output / "samples.jsonl", rollouts, gold, self.tokenizer, validation.step)

    def validate(self) -> Metrics:
        """The metrics of the current policy on held-out prompts, with a new diagnosis."""
        metrics, validation = self.evaluate(self.whole_policy(), self.num_done)
        self.history.add(validation, is_written=self.engine.rank == 0)
        self.diagnosis = self.history.diagnosis()
        return metrics

    def take_step(self, step: int) -> None:
        """One step, and what is due after it."""
        self.num_done = step + 1
        super().take_step(step)

    def record(self, done: int, metrics: Metrics) -> None:
        """Write the metrics and two rollouts of a step, after a validation also the diagnosis and the best weights."""
        # In the first line too, so that a plot begins with the SFT model.
        super().record(done, metrics | self.metrics_before() if done == 1 else metrics)
        if self.engine.rank == 0:
            path, group_size = self.output / "rollouts.jsonl", self.config.completions_per_prompt
            add_rollouts(path, self.rollouts, self.tokenizer, group_size, done)
        if self.heldout and self.history.validations[-1].step == done:
            with clocked(self.seconds, "phase/samples_seconds"):
                self.keep_best(done)

    def keep_best(self, done: int) -> None:
        """Write the diagnosis, and the weights where step `done` is the best; all ranks call it."""
        if self.diagnosis.best_step == done:
            weights = self.engine.full_weights(self.model)
            if self.engine.rank == 0:
                kept = complete_checkpoints(self.checkpoints.folder)
                self.history.save(weights, int(kept[0].name.removeprefix("step-")) if kept else 0)
        if self.engine.rank == 0:
            path = self.output / "diagnosis.jsonl"
            before = [line for line in read_lines(path) if line["step"] < done] if path.exists() else []
            write_lines(path, [*before, {"step": done, **self.diagnosis._asdict()}])

    def is_over(self) -> bool:
        """Whether the rule ends the run."""
        return self.config.on_fall == "stop" and self.diagnosis.is_over

    def best_step(self) -> int | None:
        """The step that a run which the rule ended returns to; None where the last weights are kept.

        Not always that of the best validation: a run of GRPO was thrown away for three prompts of 139, which is chance.
        """
        return self.diagnosis.best_step if self.is_over() else None

    def result(self) -> dict[str, Tensor]:
        """The weights after the last step, or those of the best one."""
        best = self.best_step()
        if best is None:
            return super().result()
        if best == 0:
            return {name: weight.detach() for name, weight in self.reference.named_parameters()}
        # Rank 0 writes them, and its node alone may have the file.
        return self.history.best.load(best) if self.engine.rank == 0 else {}

    def max_tokens(self) -> int:
        """That of the SFT model."""
        # Rollouts may be shorter than what it was trained on; the policy keeps the positions.
        return max_tokens_of(Path(self.run.initial_weights))

    def summary(self, last: Metrics) -> dict[str, Any]:
        """Counts, the last step's metrics without times, and the SFT model's validation under before/.

        Where the rule ended the run, validation/... is that of the weights that were kept.
        """
        best = self.best_step()
        if best is not None:
            found = self.log.lines(best)[-1:] if best else [self.before]
            last = last | {name: value for name, value in found[0].items() if is_validation(name)}
        return {
            "parameters": num_parameters(self.run.model),
            "steps": last.get("step", 0),
            "kept_step": last.get("step", 0) if best is None else best,
            "rollouts": last.get("step", 0) * self.config.prompts_per_step * self.config.completions_per_prompt,
            **{name: value for name, value in last.items() if not name.startswith("phase/") and name != "step"},
            # Of the weights that are kept: those of the best step never have.
            "gold/has_fallen": float(best is None and self.diagnosis.has_fallen),
            **self.metrics_before(),
        }

    def metrics_before(self) -> Metrics:
        """The SFT model's validation, under before/."""
        return {before_name(name): value for name, value in self.before.items()}


def num_validations(run: RLRun) -> int:
    """The validations of a whole run, that of the SFT model included."""
    every, steps = run.config.eval_every_steps, run.config.num_steps
    return 1 + (-(-steps // every) if every else 1)


def as_validation(metrics: Metrics) -> Metrics:
    """Metrics of held-out prompts under their names: validation/reward_mean, kind/KIND/validation_reward_mean."""
    return {
        f"{name.rpartition('/')[0]}/validation_{name.rpartition('/')[2]}"
        if name.startswith("kind/")
        else f"validation/{name.replace('/', '_')}": value
        for name, value in metrics.items()
    }


def gold_metrics(validation: Validation, kinds: list[str]) -> Metrics:
    """The mean gold score of all prompts and of each kind, where there is one."""
    return {
        "validation/gold_mean" if kind == ALL else f"kind/{kind}/validation_gold_mean": score
        for kind, score in gold_means(validation, kinds).items()
    }


def is_validation(name: str) -> bool:
    """Whether a metric is one of held-out prompts."""
    return name.startswith("validation/") or "/validation_" in name
