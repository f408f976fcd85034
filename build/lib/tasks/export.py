"""Export: the policy as inference engines load it, in the Hugging Face layout of Qwen3.

Reads the policy's Checkpoint, its Tokenizer and the Report on it; writes a Bundle: `config.json`, `model.safetensors`,
`tokenizer.json`, `tokenizer_config.json` with the chat template, `generation_config.json` and a model card in `README.md`.
transformers, vLLM and llama.cpp's converter read it with no code of this project.
"""

from pydantic import Field

from tasks.artifacts import Bundle, Checkpoint, Config, Outcome, Report, Step, Tokenizer
from tasks.stage import Run

VERSION = 1


class ExportConfig(Config):
    """What the bundle says of itself."""

    name: str = Field("crawl2chat-tiny", min_length=1, max_length=96, description="The model's name, on its card.")
    license: str = Field("apache-2.0", description="The licence of the weights, as the Hub names it.")
    temperature: float = Field(0.7, ge=0.0, le=10.0, description="What an engine samples with unless told otherwise.")
    max_new_tokens: int = Field(256, ge=1, le=2**20, description="Where an engine stops unless told otherwise.")


def export(
    policy: Step[Checkpoint], tokenizer: Step[Tokenizer], report: Step[Report], config: ExportConfig
) -> Step[Bundle]:
    inputs = {"policy": policy, "tokenizer": tokenizer, "report": report}
    return Step("export", VERSION, Bundle, config, inputs, run=run)


def run(run: Run, config: ExportConfig, policy: Checkpoint, tokenizer: Tokenizer, report: Report) -> Outcome:
    raise NotImplementedError
