"""What a model says while it is trained: a few completions now and then, for the eye.

Writes samples.jsonl: step, prompt and completion, a line each. A base model goes on from the prompts, an assistant answers them.
A step that is done again after a kill replaces what it said before.
"""

from pathlib import Path
from typing import Any

from model.config import GenerateConfig, TrainRun
from model.files import read_lines, write_lines
from model.inference.scoring import answer, complete
from model.network.transformer import Transformer
from model.tokenizer.chat import ChatTokenizer


def add_samples(path: Path, step: int, model: Transformer, tokenizer: ChatTokenizer, run: TrainRun) -> None:
    """Put what the model says after `step` steps into the file `path`."""
    before = [sample for sample in read_lines(path) if sample["step"] < step] if path.exists() else []
    write_lines(path, [*before, *speak(step, model, tokenizer, run)])


def speak(step: int, model: Transformer, tokenizer: ChatTokenizer, run: TrainRun) -> list[dict[str, Any]]:
    """A completion of each of the run's prompts, drawn at temperature 0.8 from the 50 likeliest tokens."""
    prompts = run.train.sample_prompts
    drawn = GenerateConfig(max_new_tokens=run.train.sample_tokens, temperature=0.8, top_k=50, seed=step)
    if run.objective == "sft":
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        completions = [given.text for given in answer(model, tokenizer, conversations, drawn)]
    else:
        completions = complete(model, tokenizer, prompts, drawn)
    return [
        {"step": step, "prompt": prompt, "completion": completion}
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
