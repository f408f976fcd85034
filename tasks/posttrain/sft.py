"""Supervised fine-tuning (SFT): trains a base model on conversations, and on a share of the text that it was pretrained on.

Reads a BaseModel, the Tokenizer, Conversations, those of probe too, and for the rehearsal Tokens; writes an SFTModel. The loss is the
cross-entropy of the assistant's turns and of the token that ends each, and of all tokens of the pretraining text. Other turns, and turns
of weight 0, are context only (InstructGPT, Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, section 3.5).

Rehearsal (Robins 1995; Scialom et al. 2022, https://arxiv.org/abs/2205.12393; PPO-ptx of InstructGPT) is there because fine-tuning
overwrites what it does not repeat: without it a frequent fact that no conversation states, read as a document, was ranked first in
55% before SFT and in 10% after it. The new turn tokens begin with the embeddings of "Q", "A", colon and newline, as pages with questions
and answers use them. One run each of 1.2 M parameters, 264 steps of 2,048 tokens: facts that no conversation states, asked in new words, are
answered in 75% at a rate of 3e-4, 72% at 6e-4 and 75% at 1e-3, where 65% are before any fine-tuning; strangers are refused in 90, 98 and
97%, taught facts answered in 81, 89 and 89%. Without rehearsal, in an earlier trial, 31% of the facts were left at 1e-3.

The rate and the steps are for the worked sums, which need the most. At 1e-3, 18% of sums of two digits were right where half of the
sums were additions and few had two digits, and 69% with five eighths and most; at 2e-3 it was 78%. Facts were answered as before (80, 81
and 78%, asked as on pages). Muon learns sums from half the tokens, but refuses fewer strangers (31% of recombined names, not 50%). All this is
of 450 steps. With 900, one seed, 96% of the sums are right instead of 79%, 87% of taught facts in held-out wordings instead of 80%, and 55% of
recombined names are refused instead of 45%; facts that no conversation states are answered as before (75%). Half as many wordings again made
no difference to that (85 to 88% in three runs), on pages too they cost the base model answers after a few examples (59% instead of 73%).

Departures: conversations are packed into sequences, each kept apart by the attention mask. The result has the weights of the lowest
loss on held-out conversations, see `train.patience`.
"""

from dataclasses import dataclass

from pydantic import Field

from model.config import LoRAConfig, OptimConfig, Source, TrainConfig, TrainRun
from model.errors import UserError
from model.tokenizer.chat import ROLE_TOKENS, TOOL_END, TOOL_START, TURN_END, TURN_SEP, TURN_START, ChatTokenizer
from tasks.artifacts.manifest import BaseModel, Checkpoint, Conversations, SFTModel, Tokenizer, Tokens
from tasks.artifacts.step import Outcome, Step, roles
from tasks.conversations.sources import ConversationsConfig
from tasks.conversations.tool_sources import ToolConversationsConfig
from tasks.execution.context import StageContext
from tasks.training import check_tokens, check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 7  # 7: conversations of what the base model knows
# What the turn tokens begin as. Measured for user, assistant and the three of every turn; the others by analogy.
LETTERS = {
    TURN_START: "\n",
    TURN_SEP: ":",
    TURN_END: "\n",
    ROLE_TOKENS["user"]: "Q",
    ROLE_TOKENS["assistant"]: "A",
    ROLE_TOKENS["system"]: "S",
    ROLE_TOKENS["tool"]: "R",
    TOOL_START: "[",
    TOOL_END: "]",
}


class SFTConfig(ConversationsConfig, ToolConversationsConfig):
    """The conversations, and how long the model is trained on them."""

    pretraining_fraction: float = Field(
        0.4,
        ge=0.0,
        le=0.95,
        description="Rehearsal: the share of the sequences that are text of the pretraining, so that it is not forgotten; 0: none.",
    )
    starts_from_letters: bool = Field(
        True,
        description="The turn tokens begin with the embeddings of Q, A, colon and newline. Turn it off where the base model has seen "
        "conversations in this format.",
    )
    # The rate suits models of about 1 M parameters; for imported models flows/recipes.py takes Llama 2's.
    train: TrainConfig = Field(
        TrainConfig(num_steps=900, batch_tokens=2048, num_ranks=2, eval_every_steps=100, patience=3), title="Training"
    )
    optim: OptimConfig = Field(OptimConfig(learning_rate=2e-3), title="Optimizer")
    lora: LoRAConfig = Field(LoRAConfig(), title="LoRA")


@dataclass(frozen=True)
class SFTInputs:
    """The artifacts that SFT reads. `base`: a base model, or an SFT model that is trained further. `tool_conversations`: those that teach
    tools. `tokens`: the text of the rehearsal.

    `probed`: conversations of what the base model knows and does not know.
    """

    base: Checkpoint
    tokenizer: Tokenizer
    conversations: Conversations
    tool_conversations: Conversations | None = None
    tokens: Tokens | None = None
    probed: Conversations | None = None


def sft(
    base: Step[BaseModel] | Step[SFTModel],
    tokenizer: Step[Tokenizer],
    conversations: Step[Conversations],
    tokens: Step[Tokens],
    config: SFTConfig,
    tool_conversations: Step[Conversations] | None = None,
    probed: Step[Conversations] | None = None,
) -> Step[SFTModel]:
    """Fine-tune a base model on conversations and, where the config asks for it, on tokens of its pretraining.

    `probed`: conversations that answer what this base model knows, and refuse what it does not.
    """
    rehearsed = tokens if config.pretraining_fraction else None
    inputs = roles(
        base=base,
        tokenizer=tokenizer,
        conversations=conversations,
        tool_conversations=tool_conversations,
        tokens=rehearsed,
        probed=probed,
    )
    return Step("sft", VERSION, SFTModel, config, inputs, run=fine_tune, takes=SFTInputs)


def check_kind(base: Checkpoint) -> None:
    """Raises UserError where a model is trained further that is not meant to be: a policy would lose what it was rewarded for."""
    if base.manifest.kind not in (BaseModel.__name__, SFTModel.__name__):
        raise UserError(
            f"artifact {base.manifest.id} is of kind {base.manifest.kind}, and BaseModel or SFTModel is needed here"
        )


def fine_tune(ctx: StageContext, config: SFTConfig, inputs: SFTInputs) -> Outcome:
    """Train on the assistant's turns. Raises UserError where the tokenizer is not that of the base model and the tokens."""
    check_kind(inputs.base)
    check_vocabulary(inputs.base, inputs.tokenizer)
    if inputs.tokens:
        check_tokens([inputs.tokens], inputs.tokenizer)
    read = [part for part in (inputs.conversations, inputs.tool_conversations, inputs.probed) if part]
    settings = TrainRun(
        objective="sft",
        model=model_config(inputs.base),
        train=config.train,
        optim=config.optim,
        tokenizer=tokenizer_file(inputs.tokenizer),
        train_paths=tuple(path for part in read for path in paths(part, "train.jsonl")),
        mixture=rehearsal(inputs.tokens, config.pretraining_fraction),
        validation_paths=tuple(path for part in read for path in paths(part, "validation.jsonl")),
        initial_weights=str(inputs.base.folder),
        copied_rows=rows_of_letters(ChatTokenizer.load(tokenizer_file(inputs.tokenizer)))
        if config.starts_from_letters
        else {},
        lora=config.lora,
        output=str(ctx.folder),
    )
    return train(
        ctx, "model.training.loop", settings, num_steps=config.train.num_steps, num_ranks=config.train.num_ranks
    )


def rehearsal(tokens: Tokens | None, fraction: float) -> tuple[Source, ...]:
    """The pretraining text as a part of the mixture that is `fraction` of its sequences."""
    if tokens is None or not fraction:
        return ()
    # A weight is relative to the conversations, which have 1.
    return (Source(paths=paths(tokens, "train/*.arrow"), objective="pretrain", weight=fraction / (1 - fraction)),)


def rows_of_letters(tokenizer: ChatTokenizer) -> dict[int, int]:
    """The turn tokens, and the token that each begins as."""
    # A single character of ASCII is one token in every byte-level vocabulary.
    return {tokenizer.special[name]: tokenizer.encode(letter)[-1] for name, letter in LETTERS.items()}
