"""Direct preference optimization (DPO): the SFT model learns preference pairs without rollouts: `python -m model.rl.dpo RUN.json`.

Reads RUN.json (a `DPORun`) and the files it names: the SFT model, a tokenizer, and the preference pairs that a reward model would be trained
on. Writes what model/training/loop.py does, whose trainer this is: DPO too minimises a loss over the batches of a data set, so it resumes,
returns from bad steps, stops early and shards (ZeRO 0 to 3) as fine-tuning does.

The reward is implicit: beta times the log-ratio of the policy and of the frozen reference policy, the SFT model, for a completion (Rafailov et
al. 2023, https://arxiv.org/abs/2305.18290). The losses are in model/losses.py. The reference's log-probabilities are computed once, before the
first step, and again after a restart; then the reference needs no memory.

With `sft_weight` the negative log-likelihood of the chosen completions is added, as Pang et al. do (2024, https://arxiv.org/abs/2404.19733).

Metrics: those of model/training/loop.py; validation/accuracy is the fraction of pairs whose chosen completion has the higher implicit reward,
validation/chosen_log_ratio and validation/rejected_log_ratio the means of the log-ratios in nats. DPO may lower both (Razin et al. 2024,
https://arxiv.org/abs/2410.08847): then it unlearns the chosen completions, too.
"""

import threading
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model import losses
from model.data.conversations import Pair, PreferencePairs
from model.data.dataloader import batch_records
from model.data.dataset import Dataset, ReferencedPairs
from model.data.packing import Indices
from model.inference.scoring import continuation_logprobs
from model.network.huggingface import load_transformer
from model.network.transformer import Transformer
from model.rl.completions import pad_completions, score_completions
from model.rl.config import DPOLossConfig, DPORun
from model.rl.gains import train_gains_alone, with_gain_rate
from model.training.engine import Engine
from model.training.loop import LossTrainer
from model.training.metrics import Metrics
from model.training.trainer import run_rank


class ReferencedDataset:
    """Preference pairs, each with the log-probabilities of its two completions under the reference policy."""

    record_sequences = 2

    def __init__(self, pairs: PreferencePairs, used: Indices, logprobs: Tensor) -> None:
        """`used` [M]: the numbers of the pairs that are fetched, in ascending order; logprobs [M, 2]."""
        self.inner = pairs
        self.used, self.logprobs = used, logprobs
        self.draw, self.files, self.counts, self.epochs = pairs.draw, pairs.files, pairs.counts, pairs.epochs

    def __len__(self) -> int:
        return len(self.inner)

    def fetch(self, indices: Indices) -> ReferencedPairs:
        """Pairs by number."""
        pairs = self.inner.pairs(indices)
        sides = [side for pair in pairs for side in split_sides(pair)]
        weights = torch.tensor([pair.weight for pair in pairs], dtype=torch.float32)
        prompts, completions = zip(*sides, strict=True)
        places = torch.from_numpy(np.searchsorted(self.used, indices))
        return ReferencedPairs(*pad_completions(prompts, completions), self.logprobs[places].flatten(), weights)


class PreferenceObjective(nn.Module):
    """The chosen completion of a pair becomes likelier than the rejected one, compared with the reference policy."""

    num_sums = 5

    def __init__(self, model: Transformer, config: DPOLossConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def logprobs(self, pairs: ReferencedPairs) -> Tensor:
        """log p of each side under the policy, in nats: [2 B]."""
        return score_completions(self.model, pairs.tokens, pairs.mask).sum(-1)

    def log_ratios(self, logprobs: Tensor, pairs: ReferencedPairs) -> Tensor:
        """log of policy over reference for each side, in nats: the policy's log p [2 B] of the sides -> [B, 2]."""
        ratios = logprobs - (0.0 if self.config.is_reference_free else pairs.reference_logprobs)
        # Means over tokens, see `losses.preference_loss`.
        ratios = ratios / pairs.mask.sum(-1) if self.config.loss_type == "ipo" else ratios
        return ratios.view(-1, 2)

    def forward(self, *pairs: Tensor) -> tuple[Tensor, Tensor]:
        """The fields of `ReferencedPairs` -> the sum to minimise, and the summed nats."""
        nats = self.measure(*pairs)[0]
        return nats, nats

    def measure(self, *pairs: Tensor) -> tuple[Tensor, ...]:
        """Summed nats, pairs whose chosen completion has the higher implicit reward, and the summed log-ratios of both sides, all by weight."""
        config = self.config
        referenced_pairs = ReferencedPairs(*pairs)
        weights = referenced_pairs.weights
        logprobs = self.logprobs(referenced_pairs)
        chosen, rejected = self.log_ratios(logprobs, referenced_pairs).unbind(-1)
        nats = losses.preference_loss(chosen, rejected, config.loss_type, config.beta, config.label_smoothing)
        nats = nats - config.sft_weight * (logprobs / referenced_pairs.mask.sum(-1))[::2]
        # Equal ratios count as wrong: the SFT model itself has an accuracy of 0, not of 1.
        sums = (nats, chosen > rejected, chosen, rejected)
        return tuple((weights * values).sum() for values in sums)

    @staticmethod
    def report(nats: float, num_right: float, chosen: float, rejected: float, num_learned: float) -> Metrics:
        """Metrics of sums over all validation pairs."""
        return {
            "validation/loss_nats": nats / num_learned,
            "validation/accuracy": num_right / num_learned,
            "validation/chosen_log_ratio": chosen / num_learned,
            "validation/rejected_log_ratio": rejected / num_learned,
        }


class DPOTrainer(LossTrainer):
    """Minimises the loss of DPO over preference pairs."""

    run: DPORun

    def __init__(self, run: DPORun, checkpoints: Path, stop: threading.Event) -> None:
        """As the other trainers, with the learning rate of what is trained."""
        super().__init__(
            run.model_copy(update={"optim": with_gain_rate(run.optim, run.gain_rate_factor)}), checkpoints, stop
        )

    def start_engine(self) -> Engine:
        """The policy with its optimizer; the reference's log-probabilities are computed first."""
        engine = super().start_engine()
        # After a bad step the engine is made again, and the data sets are there already.
        if not isinstance(self.dataset, ReferencedDataset):
            self.add_reference(engine)
        return engine

    def make_objective(self) -> PreferenceObjective:
        """The objective around a model with fresh weights."""
        model = Transformer(self.run.model)
        model.model.activation_checkpointing = self.run.train.activation_checkpointing
        if self.run.gain_rate_factor:
            train_gains_alone(model)
        return PreferenceObjective(model, self.run.dpo)

    def add_reference(self, engine: Engine) -> None:
        """Compute the reference's log-probabilities of all pairs that the run fetches; all ranks call it."""
        config = self.run.train
        reference = load_transformer(Path(self.run.initial_weights)).to(engine.device)
        num_records = batch_records(config, self.dataset) * (config.num_steps + config.max_rollbacks)
        drawn = self.dataset.draw(np.arange(num_records), config.seed)
        self.dataset = referenced(self.dataset, np.unique(drawn), reference, engine)
        if self.validation is not None:
            first = np.arange(min(len(self.validation), config.eval_sequences // 2))
            self.validation = referenced(self.validation, first, reference, engine)


def referenced(pairs: Dataset, used: Indices, reference: Transformer, engine: Engine) -> ReferencedDataset:
    """The pairs with the reference's log-probabilities of those with the numbers `used`, each computed on one rank."""
    assert isinstance(pairs, PreferencePairs)
    num_ranks = engine.config.num_ranks
    mine = used[engine.rank :: num_ranks]
    logprobs = torch.zeros(len(used), 2)
    if len(mine):
        sides = [side for pair in pairs.pairs(mine) for side in split_sides(pair)]
        logprobs[engine.rank :: num_ranks] = continuation_logprobs(reference, sides).view(-1, 2)
    summed = torch.tensor(engine.totals(logprobs.flatten().tolist())).float()
    return ReferencedDataset(pairs, used, summed.view(-1, 2))


def split_sides(pair: Pair) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion of the chosen and of the rejected side."""
    return [(side[: pair.prompt_tokens], side[pair.prompt_tokens :]) for side in (pair.chosen, pair.rejected)]


def train(run: DPORun, checkpoints: Path, stop: threading.Event) -> None:
    """Train to the end, or until `stop` is set on some rank (SystemExit). Every rank calls it."""
    DPOTrainer(run, checkpoints, stop).train()


def main() -> None:
    """Train the run whose file the command line names."""
    run_rank(lambda path, stop: train(DPORun.model_validate_json(path.read_text()), path.parent / "checkpoints", stop))


if __name__ == "__main__":
    main()
