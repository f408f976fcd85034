"""Export: writes the policy in the layout that inference engines load: Hugging Face's for Qwen3, or for Llama if the base model was one.

Reads the Policy, its Tokenizer and the Report on it; writes a Bundle. Where the policy does not pass the report's gate (tasks/evaluate/gate.py), the
bundle holds the SFTModel that it started from, and the model card says so. A Bundle is `config.json`, `model.safetensors`, `tokenizer.json`,
`tokenizer_config.json` with the chat template, `generation_config.json` and a model card in `README.md`. transformers, vLLM and llama.cpp's
converter read it without this project's code. The template gives the tokens of `ChatTokenizer.render_prompt`, for texts that spell
special tokens too: they cannot forge a turn. Its generation tags give the loss mask of training. An unknown role raises.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from model.config import Config, num_parameters
from model.tokenizer.chat import BOS, PAD, TURN_END, ChatTokenizer
from model.tokenizer.template import chat_template
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import Bundle, Checkpoint, Policy, Report, SFTModel, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.markdown import one_line
from tasks.training import check_vocabulary, model_config, tokenizer_file

VERSION = 6  # 6: the SFT model where the policy does not pass the gate


class ExportConfig(Config):
    """What the model card and the generation settings of the bundle say."""

    name: str = Field("crawl2chat-tiny", min_length=1, max_length=96, description="The model's name, on its card.")
    license: str = Field(
        "apache-2.0",
        description="The licence of the weights, by the Hub's name. An imported base model has its own, which applies.",
    )
    temperature: float = Field(
        0.7, ge=0.0, le=10.0, description="The sampling temperature that engines use by default."
    )
    max_new_tokens: int = Field(
        256, ge=1, le=2**20, description="The length of a completion at which engines stop by default."
    )


@dataclass(frozen=True)
class ExportInputs:
    """What a bundle is made of."""

    policy: Policy
    assistant: SFTModel
    tokenizer: Tokenizer
    report: Report


def export(
    policy: Step[Policy],
    assistant: Step[SFTModel],
    tokenizer: Step[Tokenizer],
    report: Step[Report],
    config: ExportConfig,
) -> Step[Bundle]:
    """Write the policy, or the SFT model where the policy does not pass the gate, in the layout that inference engines load."""
    inputs = roles(policy=policy, assistant=assistant, tokenizer=tokenizer, report=report)
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
    shape = json.loads((model.folder / "config.json").read_text())
    # Copied and not linked: a bundle stays whole when the model is removed from the store.
    shutil.copy(model.folder / "model.safetensors", ctx.folder)
    shutil.copy(tokenizer_file(tokenizer), ctx.folder)
    _write(ctx.folder / "config.json", shape | ids)
    _write(ctx.folder / "tokenizer_config.json", tokenizer_settings(encoder, shape["max_position_embeddings"]))
    _write(ctx.folder / "generation_config.json", generation_settings(config, ids))
    # From the report, which names the origin of the base model: the policy's own inputs lead to it only through the SFT model.
    card = model_card(
        config, figures["base"], gate["sentence"], (report.folder / "report.md").read_text(encoding="utf-8")
    )
    write_atomically(ctx.folder / "README.md", card)
    num_bytes = sum(path.stat().st_size for path in ctx.folder.iterdir() if path.is_file())
    counts = {"parameters": num_parameters(model_config(model)), "bytes": num_bytes}
    return Outcome(counts, {"gate/passed": float(gate["passed"])})


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
    return ids | sampling | {"max_new_tokens": config.max_new_tokens}


def model_card(config: ExportConfig, base: Mapping[str, str], gate: str, report: str) -> str:
    """README.md as the Hub shows it: its header, how to load the model, and the report card.

    `gate`: the sentence on whether the policy is what was exported. `base`: the `layout` of the base model, and the `initial_model` that it was imported from or "". The card links to a model that is on the Hub.
    """
    # A name with a slash is OWNER/NAME of the Hub, see short_name; a folder's name has none.
    origin = base["initial_model"]
    link = f"base_model: {origin}\n" if "/" in origin else ""
    source = f"the base model {one_line(origin)}" if origin else "raw web archive files"
    # The report card becomes a section of the card: its title moves down a level, and its own sections stay on the same one.
    return f"""---
license: {config.license}
{link}library_name: transformers
pipeline_tag: text-generation
---

# {config.name}

A chat assistant made from {source} by crawl2chat, in {base["layout"]}'s layout. {gate}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
prompt = tokenizer.apply_chat_template([{{"role": "user", "content": "..."}}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**prompt)[0]))
```

{report.replace("# Report card", "## Report card", 1)}"""
