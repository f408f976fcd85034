"""README.md of a bundle, as the Hub shows it: how to use each file, where the data came from, limits, and the report card.

Reads and writes nothing; gives the text. Foreign text in it, such as names of files and models, is made harmless.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.artifacts.manifest import Documents, Manifest
from tasks.markdown import Figures, one_line
from tasks.redaction import redact_url

USES: Mapping[str, tuple[str, str]] = {
    # What the file is for, and the command or call that uses it.
    "model.safetensors": ("weights for transformers, vLLM and others of Hugging Face's layout", "`vllm serve .`"),
    "run.py": ("a conversation with `model.safetensors` and numpy, and nothing else", "`python run.py`"),
    "model.fp32.safetensors": ("the weights in float32", '`from_pretrained(".", variant="fp32")`'),
    "model.bf16.safetensors": ("the weights in bfloat16", '`from_pretrained(".", variant="bf16")`'),
    "model.fp16.safetensors": ("the weights in float16", '`from_pretrained(".", variant="fp16")`'),
    "model-f32.gguf": ("llama.cpp, exact", "`llama-server -m model-f32.gguf`"),
    "model-f16.gguf": ("llama.cpp, half the size", "`llama-server -m model-f16.gguf`"),
    "model-q8_0.gguf": ("llama.cpp, a quarter of the size", "`llama-server -m model-q8_0.gguf`"),
    "Modelfile": ("Ollama", "`ollama create NAME -f Modelfile`"),
}
EXAMPLE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
prompt = tokenizer.apply_chat_template([{"role": "user", "content": "..."}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**prompt)[0]))
```"""


@dataclass(frozen=True)
class Card:
    """What a model card says."""

    name: str
    license: str
    num_parameters: int
    max_tokens: int
    files: Collection[str]  # of the bundle
    figures: Figures  # report.json
    report: str  # report.md
    lineage: Manifest  # of the report: it names the artifacts that the report was made from
    raw: Documents | None  # the documents of the crawl, whose settings name it


def model_card(card: Card) -> str:
    """README.md. It links to a base model that is on the Hub."""
    base = card.figures["base"]
    # A name with a slash is OWNER/NAME of the Hub, see short_name; a folder's name has none.
    origin = base["initial_model"]
    link = f"base_model: {origin}\n" if "/" in origin else ""
    source = f"the base model {one_line(origin)}" if origin else "raw web archive files"
    # The report card becomes a section of the card: its title moves down a level, and its own sections stay on the same one.
    return f"""---
license: {card.license}
{link}library_name: transformers
pipeline_tag: text-generation
---

# {card.name}

A chat assistant made from {source} by crawl2chat, in {base["layout"]}'s layout: {card.num_parameters:,} parameters, sequences of
{card.max_tokens:,} tokens at most. {card.figures["gate"]["sentence"]}

## Use

{_uses(card.files)}
{EXAMPLE}

## Limits

{_limits(card)}
## Data

{_data(card)}
{card.report.replace("# Report card", "## Report card", 1)}"""


def _uses(files: Collection[str]) -> str:
    return _table(("File", "For", "Command"), ((f"`{name}`", *use) for name, use in USES.items() if name in files))


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    # Of text alone, where tasks.markdown.table aligns figures.
    return "".join(f"| {' | '.join(line)} |\n" for line in (headings, [":---"] * 3, *rows))


def _limits(card: Card) -> str:
    limits = [
        "It was trained on the documents and conversations named here and knows nothing else. It states wrong facts as fluently as right ones.",
        "It was tested with the questions of the report card only, not for safety: no filter stands between it and a reader.",
        "It learned one conversation format, which the chat template gives. Other formats give poor replies.",
    ]
    if "Modelfile" in card.files:
        limits.append(
            "Ollama's template cannot break the names of special tokens in a message: its users can forge turns of a conversation."
        )
    return "".join(f"- {limit}\n" for limit in limits)


def _data(card: Card) -> str:
    digests = card.lineage.input_digests
    artifacts = ((role, f"`{made}`", f"`{digests.get(role, '')}`") for role, made in card.lineage.inputs.items())
    crawl = [_source(text) for text in card.raw.manifest.config["inputs"]] if card.raw else ["not named"]
    return f"""Crawl: {", ".join(crawl)}. What was kept of it and what was dropped, with the bound of each filter, stands in the report card. The weights
are under the licence {one_line(card.license)}; the pages belong to their authors. The artifacts that the report card was
made from, each with a hash of its files:

{_table(("Role", "Artifact", "Digest"), artifacts)}"""


def _source(text: str) -> str:
    if text == "sample":  # ingest's name for it
        return "the sample web, which crawl2chat makes itself: all of its people, places and facts are invented"
    # Paths of this machine are nobody's concern; a crawl and a URL are the same everywhere.
    return one_line(redact_url(text) if text.startswith("cc:") or "://" in text else Path(text).name)
