"""Samples: completions of a few prompts while a model is trained, to be read by a person.

Writes samples.jsonl: step, prompt and completion, one object a line. A base model continues the prompts, an assistant answers them.
The samples of a step that is taken again after a kill replace the earlier ones.
"""

from pathlib import Path
from typing import Any

from model.config import GenerateConfig, TrainRun
from model.files import read_lines, write_lines
from model.inference.scoring import answer, complete
from model.network.transformer import Transformer
from model.tokenizer.chat import ChatTokenizer


def add_samples(path: Path, step: int, model: Transformer, tokenizer: ChatTokenizer, run: TrainRun) -> None:
    """Add the completions of the model after `step` steps to the file `path`."""
    # Rewritten whole: the file is small, and after a kill steps are repeated.
    before = [sample for sample in read_lines(path) if sample["step"] < step] if path.exists() else []
    write_lines(path, [*before, *draw_samples(step, model, tokenizer, run)])


def draw_samples(step: int, model: Transformer, tokenizer: ChatTokenizer, run: TrainRun) -> list[dict[str, Any]]:
    """A completion of each of the run's prompts, drawn at temperature 0.8 from the 50 likeliest tokens."""
    prompts = run.train.sample_prompts
    # The step is the seed: a resumed run draws the same samples.
    # Not greedy: greedy completions fall into repetition (Holtzman et al. 2020), in a half-trained model above all.
    drawn = GenerateConfig(max_new_tokens=run.train.sample_tokens, temperature=0.8, top_k=50, seed=step)
    if run.objective == "sft":
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        completions = [reply.text for reply in answer(model, tokenizer, conversations, drawn)]
    else:
        completions = complete(model, tokenizer, prompts, drawn)
    return [
        {"step": step, "prompt": prompt, "completion": completion}
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
