"""Records what TRL computes on fixed tensors: python tests/golden/trl_losses.py, in an environment with TRL 1.16 and in one with 1.12.

    pip install trl==1.16.0 torch       # GRPO, DPO, reward model
    pip install trl==1.12.0 torch       # PPO, of which this is the last release

Writes tests/golden/trl_losses.json, each version its own part; tests/model/test_trl_losses.py compares with model/losses.py, without TRL. TRL computes
its losses within long methods of its trainers. The lines that do are taken from the installed source, named by their first and last line, and run
as they are on tensors of ours; where a release no longer has these lines, the script fails.
"""

import inspect
import json
import math
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

FILE = Path(__file__).with_suffix(".json")
LENGTHS = [7, 3, 5, 7, 1, 6]  # tokens of six completions, two groups of three
GROUP = 3


def tensors() -> dict[str, torch.Tensor]:
    """Log-probabilities, values and rewards of a small batch, with ratios far enough from 1 to be clipped."""
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
        return torch.round(torch.randn(*shape, generator=generator) * scale + shift, decimals=4)

    rows, places = len(LENGTHS), max(LENGTHS)
    old = draw(rows, places, scale=0.5, shift=-2.0)
    return {
        "mask": (torch.arange(places) < torch.tensor(LENGTHS)[:, None]).float(),
        "old": old,
        # A part for the whole completion, so that the mean over its tokens is clipped too.
        "now": old + draw(rows, places, scale=0.3) + draw(rows, 1, scale=0.4),
        "reference": old + draw(rows, places, scale=0.4),
        "advantages": draw(rows),
        "rewards": draw(rows, scale=2.0),
        "scores": draw(rows),
        "values": draw(rows, places),
        "new_values": draw(rows, places),
    }


def run(function: Any, first: str, last: str, names: dict[str, Any], before_last: bool = False) -> dict[str, Any]:
    """Run the lines of a function from the one that begins with `first` to the next that begins with `last`. Returns all names."""
    lines = inspect.getsource(function).splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(first))
    end = next(number for number in range(start, len(lines)) if lines[number].strip().startswith(last))
    names = {**vars(inspect.getmodule(function)), **names}
    exec(textwrap.dedent("\n".join(lines[start : end + (not before_last)])), names)
    return names


def grpo() -> dict[str, Any]:
    """Advantages and losses of TRL's GRPOTrainer."""
    from trl import GRPOTrainer

    given, found = tensors(), {}
    for name, scale in (("scaled", "group"), ("unscaled", "none")):
        rewards = given["rewards"][:, None]
        trainer = SimpleNamespace(
            multi_objective_aggregation="sum_then_normalize", reward_weights=torch.ones(1), scale_rewards=scale
        )
        names = {
            "self": trainer,
            "rewards_per_func": rewards,
            "unscorable_mask": torch.zeros(len(rewards), dtype=torch.bool),
            "num_generations": GROUP,
            "device": "cpu",
        }
        method = next(
            value for value in vars(GRPOTrainer).values()
            if inspect.isfunction(value) and "std_rewards + 1e-4" in inspect.getsource(value)
        )  # fmt: skip
        made = run(
            method, "if self.multi_objective_aggregation ==", "elif self.multi_objective_aggregation", names, True
        )
        found[f"advantages/{name}"] = made["advantages"].tolist()
    for loss_type in ("grpo", "bnpo", "dr_grpo", "dapo"):
        for level in ("token", "sequence") if loss_type == "grpo" else ("token",):
            now = given["now"].clone().requires_grad_()
            trainer = SimpleNamespace(
                importance_sampling_level=level,
                beta=0.05,
                args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
                loss_type=loss_type,
                epsilon_low=0.2,
                epsilon_high=0.28,
                off_policy_mask_threshold=None,
                use_vllm=False,
                max_completion_length=8,
                current_gradient_accumulation_steps=1,
                accelerator=SimpleNamespace(num_processes=1),
                model=SimpleNamespace(training=True),
            )
            names = {
                "self": trainer,
                "per_token_logps": now,
                "old_per_token_logps": given["old"],
                "mask": given["mask"],
                "advantages": given["advantages"][:, None],
                "entropy_mask": None,
                "inputs": {"ref_per_token_logps": given["reference"], "num_items_in_batch": given["mask"].sum()},
            }
            loss = run(GRPOTrainer._compute_loss, "log_ratio = ", "# Entropy bonus", names)["loss"]
            (gradient,) = torch.autograd.grad(loss, now)
            found[f"loss/{loss_type}/{level}"] = {"value": loss.item(), "gradient": gradient.tolist()}
    return found


def dpo() -> dict[str, Any]:
    """Losses of TRL's DPOTrainer, by loss type and label smoothing."""
    from trl import DPOTrainer

    given, found = tensors(), {}
    for loss_type in ("sigmoid", "robust", "hinge", "ipo"):
        now = given["now"].clone().requires_grad_()
        logratios = ((now - given["reference"]) * given["mask"]).sum(-1)
        # TRL has chosen sides in the first half of a batch, rejected ones in the second.
        chosen, rejected = logratios.chunk(2)
        trainer = SimpleNamespace(
            loss_types=[loss_type], loss_weights=[1.0], beta=0.3, label_smoothing=0.1, use_weighting=False
        )
        names = {
            "self": trainer,
            "chosen_scores": chosen,
            "rejected_scores": rejected,
            "chosen_logratios": chosen,
            "rejected_logratios": rejected,
            "delta_score": chosen - rejected,
            "completion_mask": given["mask"],
            "math": math,
        }
        made = run(DPOTrainer._compute_loss, "loss = 0.0", "if self.use_weighting", names, True)
        (gradient,) = torch.autograd.grad(made["per_sequence_loss"].sum(), now)
        found[loss_type] = {"value": made["per_sequence_loss"].tolist(), "gradient": gradient.tolist()}
    return found


def reward() -> dict[str, Any]:
    """The loss of TRL's RewardTrainer."""
    from trl import RewardTrainer

    names = {
        "outputs": SimpleNamespace(logits=tensors()["scores"][:, None]),
        "inputs": {},
        "self": SimpleNamespace(args=SimpleNamespace(center_rewards_coefficient=None)),
    }
    made = run(
        RewardTrainer.compute_loss, "# Split the rewards", "if self.args.center_rewards_coefficient", names, True
    )
    return {"value": made["loss"].item()}


def ppo() -> dict[str, Any]:
    """Rewards, advantages and losses of TRL's PPOTrainer, of completions of full length and of others."""
    from trl.experimental.ppo import PPOTrainer
    from trl.experimental.ppo.ppo_trainer import INVALID_LOGPROB

    given, found = tensors(), {}
    for name, lengths in (("full", [max(LENGTHS)] * len(LENGTHS)), ("padded", LENGTHS)):
        ends = torch.tensor(lengths) - 1
        places = torch.arange(max(LENGTHS)).repeat(len(LENGTHS), 1)
        padding, padding_p1 = places > ends[:, None], places > ends[:, None] + 1
        for estimator in ("k1", "k3"):
            for whitens in (False, True):
                args = SimpleNamespace(
                    kl_estimator=estimator, kl_coef=0.05, whiten_rewards=whitens, gamma=0.98, lam=0.95,
                    temperature=1.0, cliprange=0.2, cliprange_value=0.2, vf_coef=0.1,
                )  # fmt: skip
                names = {
                    "args": args,
                    "logprobs": given["old"].masked_fill(padding, INVALID_LOGPROB),
                    "ref_logprobs": given["reference"].masked_fill(padding, INVALID_LOGPROB),
                    "values": given["values"].masked_fill(padding_p1, 0),
                    "scores": given["scores"],
                    "sequence_lengths": ends,
                    "sequence_lengths_p1": ends + 1,
                    "padding_mask": padding,
                    "padding_mask_p1": padding_p1,
                    "responses": torch.zeros_like(places),
                }
                made = run(PPOTrainer.train, "# 4. compute rewards", "advantages = torch.masked_fill", names)
                keys = ("kl", "rewards", "advantages", "returns")
                found[f"{name}/{estimator}/{'whitened' if whitens else 'plain'}"] = {
                    key: made[key].tolist() for key in keys
                }
        found[f"{name}/loss"] = ppo_losses(PPOTrainer, made, given, padding, padding_p1)
    return found


def ppo_losses(
    trainer: Any, made: dict[str, Any], given: dict[str, Any], padding: Any, padding_p1: Any
) -> dict[str, Any]:
    """The policy's and the critic's loss of a batch, with their gradients."""
    now, values = given["now"].clone().requires_grad_(), given["new_values"].clone().requires_grad_()
    names = {
        **made,
        "mb_advantage": made["advantages"],
        "mb_logprobs": made["logprobs"],
        "mb_values": made["values"],
        "mb_return": made["returns"],
        "micro_batch_inds": slice(None),
        "new_logprobs": torch.where(padding, made["logprobs"], now),
        "vpred": torch.where(padding_p1, torch.zeros(()), values),
    }
    ended = run(trainer.train, "vpredclipped = ", "loss = pg_loss", names)
    gradient, value_gradient = torch.autograd.grad((ended["pg_loss"], ended["vf_loss"]), (now, values))
    return {
        "policy": ended["pg_loss"].item(),
        "value": ended["vf_loss"].item(),
        "policy_gradient": gradient.tolist(),
        "value_gradient": value_gradient.tolist(),
    }


def main() -> None:
    """Write the parts that the installed version has."""
    import trl

    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    found["inputs"] = {name: tensor.tolist() for name, tensor in tensors().items()}
    parts = {"ppo": ppo} if trl.__version__.startswith("1.12") else {"grpo": grpo, "dpo": dpo, "reward": reward}
    for name, part in parts.items():
        found[name] = {"trl": trl.__version__, **part()}
    FILE.write_text(json.dumps(rounded(found), separators=(",", ":")) + "\n")


def rounded(value: Any) -> Any:
    """Floats with 8 decimals: what is compared to 1e-5 needs no more."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 8) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
