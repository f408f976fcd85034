"""The files with a bundle's weights: safetensors in one or several precisions, and GGUF.

Reads a policy's weights, the configuration and the tokenizer.json of the bundle. Writes `model.safetensors` in the first precision,
`model.fp16.safetensors` and the like in the others (transformers' `variant`), and `model-TYPE.gguf`. The metadata of a safetensors
file holds the configuration and the tokenizer too: with it and `run.py` alone one can talk with the model.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from model.config import FloatType, GGUFType
from model.errors import UserError
from model.files import replacing
from model.tokenizer.chat import ChatTokenizer
from model.tokenizer.unicode import classes_of
from model.tokenizer.vocabularies import pattern_of
from tasks.artifacts.files import write_atomically
from tasks.export.run import python_pattern

if TYPE_CHECKING:
    from torch import Tensor

VARIANTS: Mapping[FloatType, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}  # transformers' names
INDEX = "model.safetensors.index.json"
NORMALIZERS = (None, {"type": "NFC"})  # that run.py has


def run_metadata(shape: Mapping[str, Any], tokenizer: Path, generation: Mapping[str, Any]) -> dict[str, str]:
    """What run.py reads besides the weights. `generation`: the bundle's generation_config.json.

    Raises UserError where the tokenizer is of a kind that run.py has not.
    """
    # Of the library and not of the file: older files write merges in another way.
    fields = json.loads(tokenizers.Tokenizer.from_file(str(tokenizer)).to_str())
    pattern = pattern_of(fields)
    if not pattern or fields.get("normalizer") not in NORMALIZERS:
        raise UserError("the tokenizer.json splits words by more than one pattern, or has a normalizer that is not NFC")
    words: dict[str, Any] = {"pattern": pattern, "classes": classes_of(pattern)}
    try:
        python_pattern(**words)
    except ValueError as error:
        raise UserError(f"the tokenizer.json is of a kind that run.py does not read: {error}") from None
    parts = {"config": shape, "tokenizer": fields, "words": words, "generation_config": generation}
    return {f"{name}.json": json.dumps(part, ensure_ascii=False, separators=(",", ":")) for name, part in parts.items()}


def write_safetensors(
    folder: Path, weights: Mapping[str, "Tensor"], dtypes: Sequence[FloatType], metadata: Mapping[str, str]
) -> None:
    """Write the weights in each precision. Raises UserError where one is too large for float16."""
    # Here, since it imports torch: all commands would wait for it.
    import torch
    from safetensors.torch import save_file

    from model.network.huggingface import check_fits_float16

    for number, dtype in enumerate(dtypes):
        if dtype == "float16":
            for name, tensor in weights.items():
                check_fits_float16(name, tensor)
        rounded = {name: tensor.to(getattr(torch, dtype)) for name, tensor in weights.items()}
        variant = f".{VARIANTS[dtype]}" if number else ""
        with replacing(folder / f"model{variant}.safetensors") as temporary:
            # "format" is what transformers writes itself.
            save_file(rounded, temporary, metadata={"format": "pt", **metadata})
            sort_metadata(temporary)
    if len(dtypes) > 1:
        # vLLM loads every *.safetensors of a folder, unless an index names the ones to load.
        write_atomically(
            folder / INDEX, json.dumps({"weight_map": dict.fromkeys(sorted(weights), "model.safetensors")})
        )


def sort_metadata(path: Path) -> None:
    """Give the header of a safetensors file its one order: the library writes the metadata in that of a hash map, which differs each time.

    Raises ValueError where the header cannot keep its length.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
        if len(text) != size:
            raise ValueError(f"{path}: its header has {size} bytes, and {len(text)} in order")
        file.seek(8)
        file.write(text)


def write_gguf_files(
    folder: Path,
    weights: Mapping[str, "Tensor"],
    shape: Mapping[str, Any],
    kinds: Sequence[GGUFType],
    fields: Mapping[str, str],
) -> None:
    """Write model-TYPE.gguf of each type, with the folder's tokenizer.json. `fields`: more strings of the header.

    Raises NoEquivalentError where llama.cpp would compute another model or other tokens; there is no file then.
    """
    from model.network.gguf import write_gguf
    from model.network.huggingface import from_hugging_face
    from model.tokenizer.llama_cpp import read_vocabulary

    if not kinds:
        return
    path = folder / "tokenizer.json"
    config, vocabulary, tokenizer = from_hugging_face(dict(shape)), read_vocabulary(path), ChatTokenizer.load(path)
    for kind in kinds:
        write_gguf(
            folder / f"model-{kind}.gguf",
            weights,
            config,
            vocabulary,
            tokenizer,
            matrices=kind,
            max_tokens=shape["max_position_embeddings"],
            fields=fields,
        )
