"""Open weights: a published model of Qwen3 or Llama, to train further or to start fine-tuning from.

Reads a folder as the Hugging Face Hub holds it: config.json, tokenizer.json, and the weights in the safetensors format, in one file
or several. Writes a copy of these files, identified by content and not by path. The store remembers the hash of an unchanged file, so
that a model of many gigabytes is hashed once.

`adapted` gives the model a row of embedding and head for each special token of the conversation format, after its own
vocabulary. <|bos|> has the row of the token that the model's own texts begin with and <|im_end|> that of the one that ends them,
the first of several: the adapted model reads a document as the original does. Every other new row is the mean of the model's rows
(Hewitt 2021). The whole model is read into memory and kept in float32.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from pydantic import Field

from model.config import Config, runtime
from model.errors import UserError
from model.tokenizer import vocabularies
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import BaseModel, Resource, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.artifacts.store import Store
from tasks.execution.context import StageContext
from tasks.resources import expand_user, short_name
from tasks.training import tokenizer_file

if TYPE_CHECKING:
    from model.network.transformer import Transformer

VERSION = 3
# What is copied. Weights in pickle's format (*.bin) run code when they are loaded, and are left out.
PATTERNS = ("config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json")


class OpenWeightsConfig(Config):
    """Where a model is, and the hashes of its files once they are found."""

    path: str = runtime("", description="The folder of the model, on this machine.")
    sha256: dict[str, str] = Field({}, description="The hash of every file that is read, by name.")


def open_weights(path: str) -> Step[Resource] | None:
    """The step that copies the model in the folder `path` into the store; None where the path is empty."""
    if not path:
        return None
    # The hashes are empty until `find` resolves the step: only then is the folder read.
    asked = OpenWeightsConfig(path=path)
    return Step(
        "open_weights", VERSION, Resource, asked, {}, run=copy_weights, resolve=find, check=check_model, is_source=True
    )


def find(asked: OpenWeightsConfig) -> OpenWeightsConfig:
    """The files of the model in a folder, hashed. Raises UserError where one is missing."""
    return named(expand_user(asked.path))


def check_model(config: OpenWeightsConfig) -> None:
    """Raises UserError where the model is of a kind that is not read here."""
    from model.network.huggingface import read_config

    read_config(Path(config.path))


def named(path: str) -> OpenWeightsConfig:
    """The files of the model in a folder, hashed. Raises UserError where one is missing: only the index is optional."""
    # Remembered by size, times and inode (tasks/artifacts/files.py): to name the step, every command would hash many gigabytes again.
    hashes = Store.default().hashes
    found = {pattern: sorted(Path(path).glob(pattern)) for pattern in PATTERNS}
    for pattern, files in found.items():
        if not files and not pattern.endswith("index.json"):
            raise UserError(
                f"there is no {pattern} in {path!r}: give the folder of a model of Qwen3 or Llama, as `hf download` makes it"
            )
    sha256 = {file.name: hashes.of(file) for files in found.values() for file in files}
    hashes.save()
    return OpenWeightsConfig(path=str(Path(path).absolute()), sha256=sha256)


def copy_weights(ctx: StageContext, config: OpenWeightsConfig) -> Outcome:
    """Copy the files into `files/`. Raises UserError where they changed since they were hashed."""
    # Hours may lie between naming and copying, when other stages run first.
    if named(config.path) != config:
        raise UserError(f"the model at {config.path!r} changed while the pipeline was being started: run it again")
    # exist_ok: a killed attempt may have left the folder, and its files are written over.
    (ctx.folder / "files").mkdir(exist_ok=True)
    for name in config.sha256:
        shutil.copyfile(Path(config.path) / name, ctx.folder / "files" / name)
    num_bytes = sum(path.stat().st_size for path in (ctx.folder / "files").iterdir())
    return Outcome({"files": len(config.sha256), "bytes": num_bytes})


@dataclass(frozen=True)
class TrainedInputs:
    """A base model of a run, and its tokenizer."""

    base: BaseModel
    tokenizer: Tokenizer


def trained_weights(base: Step[BaseModel], tokenizer: Step[Tokenizer]) -> Step[Resource]:
    """The step that takes a base model of a run as one to start from, to train it further on other tokens."""
    inputs = roles(base=base, tokenizer=tokenizer)
    config = OpenWeightsConfig(path="base")  # what errors name it by
    return Step(
        "trained_weights", VERSION, Resource, config, inputs, run=copy_trained, takes=TrainedInputs, is_source=True
    )


def copy_trained(ctx: StageContext, _: OpenWeightsConfig, inputs: TrainedInputs) -> Outcome:
    """Copy the model and its tokenizer into `files/`, as a folder of open weights has them."""
    (ctx.folder / "files").mkdir(exist_ok=True)
    for folder, name in ((inputs.base.folder, "config.json"), (inputs.base.folder, "model.safetensors"), (inputs.tokenizer.folder, "tokenizer.json")):  # fmt: skip
        shutil.copyfile(folder / name, ctx.folder / "files" / name)
    return Outcome({"files": 3})


def adapted(model: Resource, tokenizer: Tokenizer) -> tuple["Transformer", int]:
    """The model with a row for each token of `tokenizer`, in evaluation mode, and how many tokens its sequences may have.

    Raises UserError where the tokenizer is not the model's, or the model is not supported.
    """
    from model.network.huggingface import load_transformer, resized

    folder = model.folder / "files"
    name = short_name(model.manifest.config["path"])
    check_tokenizer(folder / "tokenizer.json", tokenizer, name)
    # The highest id and not the number of tokens: ids may have gaps, and special tokens stand after the vocabulary.
    num_known = max(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab().values()) + 1
    original = load_transformer(folder)
    # More rows than tokens are common: Qwen3 pads its embedding to 151,936 rows for 151,669 tokens. Fewer cannot be right.
    if original.config.vocab_size < num_known:
        raise UserError(
            f"the model {name} has a vocabulary of {original.config.vocab_size} tokens and the tokenizer next to it one of "
            f"{num_known}: give the tokenizer.json that the model was trained with"
        )
    # Our names for what begins and ends a text may be new tokens; the rows of the model's own give them their meaning from the start.
    fields = json.loads((folder / "config.json").read_text())
    encoder = ChatTokenizer.load(tokenizer_file(tokenizer))
    larger = resized(original, num_known, encoder.vocab_size)
    inherit(larger, num_known, {encoder.bos: fields.get("bos_token_id"), encoder.turn_end: fields.get("eos_token_id")})
    return larger, fields["max_position_embeddings"]


def check_tokenizer(original: Path, tokenizer: Tokenizer, name: str) -> None:
    """Raises UserError where a tokenizer is not the model's `original`, with our special tokens after it."""
    wanted, given = vocabularies.load([original]), tokenizers.Tokenizer.from_file(tokenizer_file(tokenizer))
    # Compared as a whole: two tokenizers of one size may number their tokens differently, and give a wrong text without an error.
    if given.to_str() != wanted.to_str():
        raise UserError(
            f"artifact {tokenizer.manifest.id}, of {given.get_vocab_size()} tokens, is not the tokenizer of the model {name}, of "
            f"{wanted.get_vocab_size()}: set tokenizer.vocabulary to the tokenizer.json next to the model, as --base-model does"
        )


def inherit(model: "Transformer", num_known: int, origins: dict[int, Any]) -> None:
    """Copy to new tokens the rows of tokens that the model knows: new token -> known token, as config.json has it (or not)."""
    from model.network.huggingface import copy_rows

    # config.json may list several tokens that end a text, as Llama 3 does; the first is the one of documents.
    firsts = {token: origin[0] if isinstance(origin, list) and origin else origin for token, origin in origins.items()}
    # Only towards new rows: where the vocabulary has the token already (num_known > token), its row is the trained one. A missing or
    # foreign id leaves the new row at the mean.
    known = {token: first for token, first in firsts.items() if isinstance(first, int)}
    copy_rows(model, {token: first for token, first in known.items() if 0 <= first < num_known <= token})
