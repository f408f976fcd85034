"""Export: writes the policy as inference engines load it, and as two files that chat by themselves.

Reads the Policy and the SFTModel that it started from, their Tokenizer, the Report and the documents of the crawl; writes a Bundle of the policy, or of
the SFT model where the policy does not pass the report's gate (tasks/evaluate/gate.py): the model card says which. A Bundle is `config.json`, `tokenizer.json`,
`tokenizer_config.json` with the chat template, `generation_config.json` and `model.safetensors` in the layout of Hugging Face for Qwen3, or
for Llama if the base model was one; `model-*.gguf` and a `Modelfile`; `run.py`; and a model card in `README.md`. transformers, vLLM, llama.cpp and
Ollama read it without this project's code. The template gives the tokens of `ChatTokenizer.render_prompt`, for texts that spell
special tokens too: they cannot forge a turn. Its generation tags give the loss mask of training. An unknown role raises.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from model.config import Config, FloatType, GGUFType, num_parameters
from model.errors import UserError
from model.inference.names import OTHER_NAME_REPLY
from model.tokenizer.chat import BOS, PAD, TURN_END, ChatTokenizer
from model.tokenizer.template import chat_template
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import Bundle, Checkpoint, Documents, Policy, Report, SFTModel, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.export.card import Card, model_card
from tasks.export.modelfile import modelfile
from tasks.export.weights import run_metadata, write_gguf_files, write_safetensors
from tasks.markdown import Figures
from tasks.records.conversations import NO_ANSWER
from tasks.training import check_vocabulary, model_config, tokenizer_file

RUN = Path(__file__).with_name("run.py")
VERSION = 10  # 10: run.py is written more plainly, with the same replies


class ExportConfig(Config):
    """What the bundle holds, and what its model card and generation settings say."""

    name: str = Field("crawl2chat-tiny", min_length=1, max_length=96, description="The model's name, on its card.")
    license: str = Field(
        "apache-2.0",
        description="The licence of the weights, by the Hub's name. An imported base model has its own, which applies.",
    )
    temperature: float = Field(
        0.7, ge=0.0, le=10.0, description="The sampling temperature that engines use by default."
    )
    dtypes: tuple[FloatType, ...] = Field(
        ("float32",), min_length=1, description="Precisions of the weights. model.safetensors has the first."
    )
    gguf: tuple[GGUFType, ...] = Field(
        ("f32", "f16", "q8_0"),
        description="GGUF files by the type of their matrices; none is written where llama.cpp would compute another model.",
    )
    max_new_tokens: int = Field(
        256, ge=1, le=2**20, description="The length of a completion at which engines stop by default."
    )
    other_name_reply: str = Field(
        NO_ANSWER,
        max_length=200,
        description="What this project's chat says instead of a reply about another name than it was asked about "
        "(model/inference/names.py); empty: replies are not checked. For models of the sample web.",
    )


@dataclass(frozen=True)
class ExportInputs:
    """What a bundle is made of."""

    policy: Policy
    assistant: SFTModel
    tokenizer: Tokenizer
    report: Report
    raw: Documents | None = None


def export(
    policy: Step[Policy],
    assistant: Step[SFTModel],
    tokenizer: Step[Tokenizer],
    report: Step[Report],
    config: ExportConfig,
    raw: Step[Documents] | None = None,
) -> Step[Bundle]:
    """Write the policy, or the SFT model where the policy does not pass the gate. `raw`: the documents of the crawl, which the model card names."""
    inputs = roles(policy=policy, assistant=assistant, tokenizer=tokenizer, report=report, raw=raw)
    return Step("export", VERSION, Bundle, config, inputs, run=export_model, takes=ExportInputs)


def export_model(ctx: StageContext, config: ExportConfig, inputs: ExportInputs) -> Outcome:
    """Write weights, tokenizer, chat template and model card. Raises UserError where the tokenizer is not the model's."""
    tokenizer, report = inputs.tokenizer, inputs.report
    figures = json.loads((report.folder / "report.json").read_text(encoding="utf-8"))
    gate = figures["gate"]
    model: Checkpoint = inputs.policy if gate["passed"] else inputs.assistant
    if not gate["passed"]:
        ctx.log(gate["sentence"])
    check_vocabulary(model, tokenizer)
    encoder = ChatTokenizer.load(tokenizer_file(tokenizer))
    ids = encoder.token_ids
    # The policy's config.json is in transformers' layout already. Engines stop at the eos_token_id that they find in it, so the ids of the
    # special tokens are set from the tokenizer of this bundle.
    shape = json.loads((model.folder / "config.json").read_text()) | ids | {"dtype": config.dtypes[0]}
    # Copied and not linked: a bundle stays whole when the model is removed from the store.
    shutil.copy(tokenizer_file(tokenizer), ctx.folder)
    _write(ctx.folder / "config.json", shape)
    _write(ctx.folder / "tokenizer_config.json", tokenizer_settings(encoder, shape["max_position_embeddings"]))
    generation = generation_settings(config, ids)
    _write(ctx.folder / "generation_config.json", generation)
    write_weights(ctx, config, model.folder, shape, generation)
    parameters = num_parameters(model_config(model))
    write_card(ctx, config, inputs, figures, parameters, shape["max_position_embeddings"])
    num_bytes = sum(path.stat().st_size for path in ctx.folder.iterdir() if path.is_file())
    return Outcome({"parameters": parameters, "bytes": num_bytes}, {"gate/passed": float(gate["passed"])})


def write_weights(
    ctx: StageContext, config: ExportConfig, model: Path, shape: dict[str, Any], generation: dict[str, Any]
) -> None:
    """Write all files with weights, and those that go with one. What has no equivalent is left out, and the reason logged."""
    # Here, since it imports torch: all commands would wait for it.
    from model.network.huggingface import read_weights
    from model.tokenizer.llama_cpp import NoEquivalentError

    weights, metadata = read_weights(model), {}
    try:
        metadata = run_metadata(shape, ctx.folder / "tokenizer.json", generation)
        shutil.copy(RUN, ctx.folder)
    except UserError as error:
        ctx.log(f"no run.py: {error}")
    write_safetensors(ctx.folder, weights, config.dtypes, metadata)
    fields = {"general.name": config.name, "general.license": config.license}
    try:
        write_gguf_files(ctx.folder, weights, shape, config.gguf, fields)
    except NoEquivalentError as error:
        ctx.log(f"no GGUF: {error}")
        return
    if config.gguf:
        text = modelfile(
            config.gguf[0],
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            max_tokens=shape["max_position_embeddings"],
            license_name=config.license,
        )
        write_atomically(ctx.folder / "Modelfile", text)


def write_card(
    ctx: StageContext,
    config: ExportConfig,
    inputs: ExportInputs,
    figures: Figures,
    num_parameters: int,
    max_tokens: int,
) -> None:
    """Write README.md. It is the last file: the card lists the others."""
    report = inputs.report
    card = Card(
        name=config.name,
        license=config.license,
        num_parameters=num_parameters,
        max_tokens=max_tokens,
        files={path.name for path in ctx.folder.iterdir()},
        # From the report, which names the origin of the base model: the policy's own inputs lead to it only through the SFT model.
        figures=figures,
        report=(report.folder / "report.md").read_text(encoding="utf-8"),
        lineage=report.manifest,
        raw=inputs.raw,
    )
    write_atomically(ctx.folder / "README.md", model_card(card))


def _write(path: Path, settings: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(settings, indent=2) + "\n")


def tokenizer_settings(tokenizer: ChatTokenizer, max_tokens: int) -> dict[str, Any]:
    """tokenizer_config.json: the roles of the special tokens, and the chat template.

    `split_special_tokens` stays off: with it transformers would split the template's own tokens too.
    """
    # eos is what ends a reply. A document of pretraining ends with the <|bos|> of the next, so completing texts needs another stop token.
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": TURN_END,
        "pad_token": PAD,
        "chat_template": chat_template(tokenizer),
        "model_max_length": max_tokens,
        "clean_up_tokenization_spaces": False,
    }


def generation_settings(config: ExportConfig, ids: dict[str, int]) -> dict[str, Any]:
    """generation_config.json: how engines sample by default, and the tokens that end a completion."""
    # transformers refuses a temperature of 0 and warns of one without sampling: greedy is do_sample=False alone.
    is_sampled = config.temperature > 0
    sampling: dict[str, Any] = {"do_sample": is_sampled} | ({"temperature": config.temperature} if is_sampled else {})
    # A field that other engines do not know, and pass over.
    checked = {OTHER_NAME_REPLY: config.other_name_reply} if config.other_name_reply else {}
    return ids | sampling | {"max_new_tokens": config.max_new_tokens} | checked
