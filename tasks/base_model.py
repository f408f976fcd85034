"""A base model from elsewhere: an open-weights model of Qwen3 or Llama, to start at fine-tuning.

Reads a folder as the Hugging Face Hub holds it: config.json, tokenizer.json, and the weights in the safetensors format, in one file
or several. Writes a Tokenizer, which is its vocabulary and after it the special tokens of the conversation format, and a Checkpoint
whose embedding and head have a row for each of these: the mean of the others (Hewitt 2021). The model is read whole into
memory and kept in float32.

Both are named by what the files hold and not by where they are. The store remembers the hash of an unchanged file.
"""

import json
from pathlib import Path

import tokenizers
from pydantic import Field

from model.config import num_parameters
from model.tokenizer import Tokenizer as Encoder
from tasks import vocabularies
from tasks.artifacts import Checkpoint, Config, Outcome, Step, Store, Tokenizer, runtime
from tasks.stage import Run
from tasks.training import tokenizer_file

VERSION = 1


class BaseModelConfig(Config):
    """Where a model is, and what its files hold."""

    path: str = runtime("", description="The folder of the model, on this machine.")
    sha256: dict[str, str] = Field(description="The hash of every file that is read, by name.")


def imported(path: str) -> tuple[Step[Checkpoint], Step[Tokenizer]]:
    """The steps that copy a model and its tokenizer into the store. Raises ValueError where a file of theirs is missing."""
    tokenizer = Step(
        "base_tokenizer", VERSION, Tokenizer, _config(path, "tokenizer.json"), {}, run=run_tokenizer, is_source=True
    )
    config = _config(path, "config.json", "*.safetensors", "*.safetensors.index.json")
    return Step(
        "base_model", VERSION, Checkpoint, config, {"tokenizer": tokenizer}, run=run_model, is_source=True
    ), tokenizer


def _config(path: str, *patterns: str) -> BaseModelConfig:
    """The files in a folder that match a pattern; all patterns but that of an index must match one."""
    hashes = Store.default().hashes
    found = {pattern: sorted(Path(path).glob(pattern)) for pattern in patterns}
    for pattern, files in found.items():
        if not files and not pattern.endswith("index.json"):
            raise ValueError(
                f"there is no {pattern} in {path!r}: give the folder of a model of Qwen3 or Llama, as `hf download` makes it"
            )
    sha256 = {file.name: hashes.of(file) for files in found.values() for file in files}
    hashes.save()
    return BaseModelConfig(path=str(Path(path).absolute()), sha256=sha256)


def _folder(config: BaseModelConfig) -> Path:
    """The folder of the model. Raises ValueError where its files are no longer what was named."""
    if _config(config.path, *config.sha256) != config:
        raise ValueError(f"the model at {config.path!r} changed while the pipeline was being started: run it again")
    return Path(config.path)


def run_tokenizer(run: Run, config: BaseModelConfig) -> Outcome:
    encoder = vocabularies.load([_folder(config) / "tokenizer.json"])
    encoder.save(str(run.folder / "tokenizer.json"))
    return Outcome({"vocab_size": Encoder(encoder).vocab_size})


def run_model(run: Run, config: BaseModelConfig, tokenizer: Tokenizer) -> Outcome:
    from model.checkpoint import load_transformer, resized, save_weights

    folder = _folder(config)
    vocab_size = Encoder.load(tokenizer_file(tokenizer)).vocab_size
    num_known = max(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab().values()) + 1
    model = load_transformer(folder)
    if model.config.vocab_size < num_known:
        raise ValueError(
            f"the model at {config.path!r} has a vocabulary of {model.config.vocab_size} tokens and the tokenizer beside it one of "
            f"{num_known}: give the tokenizer.json that the model was trained with"
        )
    model = resized(model, num_known, vocab_size)
    max_tokens = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    save_weights(run.folder, model, model.state_dict(), max_tokens)
    (run.folder / "run.json").write_text(json.dumps({"model": model.config.model_dump()}, indent=1))
    return Outcome({"parameters": num_parameters(model.config)})
