"""From files to microbatches: the batch of a step depends on the seed and the step, and on nothing else.

Reads token shards (model/data/token_shards.py), conversations and preference pairs (model/data/conversations.py). Writes nothing.

Ranks and microbatches only split a step's batch. Their numbers change nothing but the order in which floating-point numbers are
added. A resumed run needs no state of the loader.
"""

import sys
from collections.abc import Iterator, Sequence

import numpy as np

from model.config import Objective, Packing, Source, TrainConfig, TrainRun
from model.data.conversations import ConversationRows, PreferencePairs
from model.data.copying import WithCopying
from model.data.dataset import Dataset, Microbatch, Mixture, NotEnoughData
from model.data.packing import Indices
from model.data.token_shards import TokenShards, WholeDocuments
from model.data.token_stream import shard_vocab_size
from model.errors import UserError
from model.tokenizer.chat import ChatTokenizer


def open_training(run: TrainRun, tokenizer: ChatTokenizer) -> Dataset:
    """The training data of a run. Raises ValueError where shards and tokenizer do not belong together."""
    # The weights of a mixture are relative to the run's own files.
    sources = [Source(paths=run.train_paths, weight=1.0), *run.mixture]
    parts = [
        open_dataset(
            source.objective or run.objective,
            source.paths,
            run.train.sequence_tokens,
            tokenizer,
            run.train.packing,
            # A mixture puts records of several data sets into one microbatch.
            has_one_shape=run.train.is_compiled or bool(run.mixture),
        )
        for source in sources
    ]
    dataset = Mixture(parts, [source.weight for source in sources]) if run.mixture else parts[0]
    copying = run.copying
    if not (copying.falling_steps or copying.fraction):
        return dataset
    return WithCopying(
        dataset,
        num_falling=copying.falling_steps * batch_records(run.train, dataset),
        fraction=copying.fraction,
        sequence_tokens=run.train.sequence_tokens,
        tokens=np.flatnonzero(tokenizer.token_bytes),  # all that stand for text
        seed=run.train.seed,
    )


def open_validation(run: TrainRun, tokenizer: ChatTokenizer) -> Dataset | None:
    """The validation data of a run; None, with a message, where nothing or too little was held out."""
    if not run.validation_paths:
        return None
    try:
        # Concatenated whatever the training's packing is: validation losses stay comparable between runs.
        return open_dataset(run.objective, run.validation_paths, run.train.sequence_tokens, tokenizer)
    except NotEnoughData as error:
        # A small corpus may hold out next to nothing, which must not stop the training.
        print(f"no validation: {error}", file=sys.stderr, flush=True)
        return None


def open_dataset(
    objective: Objective,
    paths: Sequence[str],
    sequence_tokens: int,
    tokenizer: ChatTokenizer,
    packing: Packing = "concatenated",
    *,
    has_one_shape: bool = False,
) -> Dataset:
    """The data set of an objective from files. Raises ValueError where shards and tokenizer do not belong together."""
    if objective == "sft":
        return ConversationRows(paths, sequence_tokens, tokenizer)
    if objective in ("reward", "dpo"):
        return PreferencePairs(paths, sequence_tokens, tokenizer, has_one_shape=has_one_shape)
    for path in paths:
        # Ids of another vocabulary would train without an error, on the wrong embeddings.
        if (vocab_size := shard_vocab_size(path)) != tokenizer.vocab_size:
            raise UserError(
                f"token shard {path} was written with a vocabulary of {vocab_size} tokens, and the tokenizer has "
                f"{tokenizer.vocab_size}: give the tokenizer that the shards were made with"
            )
    if packing == "whole_documents":
        return WholeDocuments(paths, sequence_tokens, tokenizer)
    return TokenShards(paths, sequence_tokens, tokenizer.vocab_size)


def batch_records(config: TrainConfig, dataset: Dataset) -> int:
    """Records of a batch, over all ranks. Raises ValueError where the ranks cannot share it evenly."""
    # A preference pair is two sequences, so a batch has half as many pairs.
    num_records = config.batch_tokens // (config.sequence_tokens * dataset.record_sequences)
    if num_records < 1 or num_records % config.num_ranks:
        raise ValueError(
            f"batch_tokens={config.batch_tokens} makes {num_records} records of {dataset.record_sequences} sequences, "
            f"which num_ranks={config.num_ranks} cannot share evenly: choose a multiple of "
            f"{config.sequence_tokens * dataset.record_sequences * config.num_ranks}"
        )
    return num_records


def microbatch_records(config: TrainConfig, dataset: Dataset) -> int:
    """Records of a microbatch: the largest divisor of a rank's share that microbatch_sequences admits."""
    share = batch_records(config, dataset) // config.num_ranks
    most = max(1, config.microbatch_sequences // dataset.record_sequences)
    # A divisor: gradient accumulation needs equal microbatches.
    return max(size for size in range(1, share + 1) if share % size == 0 and size <= most)


def batch_indices(dataset: Dataset, config: TrainConfig, number: int) -> Indices:
    """The records of batch `number` (from 0); it may reach into the next epoch."""
    size = batch_records(config, dataset)
    # Batch `number` has positions number x size and on: nothing is kept between steps.
    return dataset.draw(np.arange(number * size, (number + 1) * size), config.seed)


def microbatches(dataset: Dataset, config: TrainConfig, number: int, rank: int) -> Iterator[Microbatch]:
    """The part of `rank` of batch `number` (from 0), a microbatch at a time."""
    size = microbatch_records(config, dataset)
    # Interleaved, so that the ranks' records together are the batch, whatever their number.
    mine = batch_indices(dataset, config, number)[rank :: config.num_ranks]
    for start in range(0, len(mine), size):
        yield dataset.fetch(mine[start : start + size])
