"""lm-eval's `local-completions` against `crawl2chat serve`, compared with its `hf` backend on the same bundle.

    python -m tests.benchmarks.lm_eval_serving BUNDLE [PYTHON]

BUNDLE: what the stage `export` makes. PYTHON: an interpreter with lm-eval[api]; without it one is made, which uses the torch and transformers of
this environment. The tasks are local files of texts that the model writes: which of four endings follows (accuracy by log-likelihood), the next
word (greedy or not), the perplexity of texts (rolling windows), and a greedy completion. The tokens, the log-probabilities and whether
they are greedy all come from the server, so equal figures mean an equal model.

Perplexities agree to six digits and not always to the last that is printed. A second table says why: the sum of the log-probabilities of all texts, by
each side and in float64. JSON carries every bit of a float, and both sides add up alike; what differs is the order of float32 operations in
the network, as it does between two kinds of attention of transformers.
"""

import json
import random
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import AutoModelForCausalLM

from model.tokenizer.chat import ChatTokenizer
from tests.benchmarks.harness import machine, peer, print_table, say
from tests.benchmarks.serving_speed import server

LM_EVAL = "lm-eval[api]==0.4.13"
NUM_DOCUMENTS, NUM_CHOICES, MAX_TOKENS = 60, 4, 256
TASKS: dict[str, dict[str, Any]] = {
    "endings": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{half}}",
        "doc_to_choice": "{{endings}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "next_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{before}}",
        "doc_to_target": "{{word}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}, {"metric": "byte_perplexity"}],
    },
    "completions": {
        "output_type": "generate_until",
        "doc_to_text": "{{before}}",
        "doc_to_target": "{{word}}",
        "generation_kwargs": {"until": [" "], "max_gen_toks": 8, "do_sample": False, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def documents(port: int) -> list[dict[str, Any]]:
    """A text each, with what each task asks of it. The model itself writes them: of other texts a small model knows nothing."""
    asked = {"prompt": "The", "n": NUM_DOCUMENTS, "seed": 0, "max_tokens": 80, "temperature": 0.7, "ignore_eos": True}
    answer = httpx.post(f"http://localhost:{port}/v1/completions", json=asked, timeout=300).json()
    texts = ["The" + " ".join(choice["text"].split()) for choice in answer["choices"]]
    draws = random.Random(0)
    halves = [_halves(text) for text in texts]
    found = []
    for number, (first, second) in enumerate(halves):
        others = draws.sample([end for place, (_, end) in enumerate(halves) if place != number], NUM_CHOICES - 1)
        label = draws.randrange(NUM_CHOICES)
        endings = [*others[:label], second, *others[label:]]
        # The ending follows the first half, the last word the whole text before it.
        before, _, word = first.rpartition(" ")
        found.append(
            {
                "text": texts[number],
                "half": first,
                "before": before,
                "word": f" {word}",
                "endings": endings,
                "label": label,
            }
        )
    return found


def _halves(text: str) -> tuple[str, str]:
    words = text.split()
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def write_tasks(folder: Path, port: int) -> None:
    lines = "".join(json.dumps(document) + "\n" for document in documents(port))
    (folder / "documents.jsonl").write_text(lines, encoding="utf-8")
    for name, task in TASKS.items():
        data = {"data_files": {"test": str(folder / "documents.jsonl")}}
        whole = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test", **task}
        (folder / f"{name}.yaml").write_text(json.dumps(whole), encoding="utf-8")  # JSON is YAML


def evaluate(python: Path, folder: Path, model: str, arguments: dict[str, object]) -> dict[str, dict[str, float]]:
    """Metrics of each task."""
    out = folder / f"results-{model}"
    command = [
        python,
        "-m",
        "lm_eval",
        "--model",
        model,
        "--tasks",
        ",".join(TASKS),
        "--include_path",
        folder,
        "--output_path",
        out,
    ]
    command += [
        "--model_args",
        ",".join(f"{name}={value}" for name, value in arguments.items()),
        "--batch_size",
        "1",
        "--device",
        "cpu",
    ]
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(command, check=True, stdout=sys.stderr, env={"PATH": "/usr/bin:/bin", **environment})
    [path] = out.rglob("results_*.json")
    results: dict[str, dict[str, Any]] = json.loads(path.read_text())["results"]
    return {
        task: {name: value for name, value in found.items() if isinstance(value, float) and "stderr" not in name}
        for task, found in results.items()
    }


def interpreter() -> Path:
    """An environment with lm-eval on top of this one."""
    python = peer("pip")
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    (packages / "ours.pth").write_text("\n".join(site.getsitepackages()))
    subprocess.run([python, "-m", "pip", "install", "--quiet", LM_EVAL], check=True, stdout=sys.stderr)
    return python


def rows(bundle: Path, python: Path) -> Iterator[tuple[object, ...]]:
    with tempfile.TemporaryDirectory() as name, server("--ours", str(bundle)) as (port, _):
        folder = Path(name)
        write_tasks(folder, port)
        say("lm-eval with hf")
        # One token less than the server reads: local-completions keeps one for the completion.
        theirs = evaluate(
            python,
            folder,
            "hf",
            {"pretrained": bundle, "dtype": "float32", "max_length": MAX_TOKENS - 1},
        )
        say("lm-eval with local-completions")
        served = {
            "model": "bundle",
            "base_url": f"http://localhost:{port}/v1/completions",
            "tokenizer_backend": "huggingface",
            "tokenizer": bundle,
            "max_length": MAX_TOKENS,
            "num_concurrent": 4,
        }
        ours = evaluate(python, folder, "local-completions", served)
    for task, metrics in theirs.items():
        for metric, value in metrics.items():
            mine = ours[task][metric]
            yield (
                task,
                metric.partition(",")[0],
                f"{value:.6g}",
                f"{mine:.6g}",
                "yes" if f"{value:.5g}" == f"{mine:.5g}" else "NO",
            )


def rounding(bundle: Path) -> Iterator[tuple[object, ...]]:
    """The sum of the log-probabilities of the texts, in nats, by who computes it, and its distance from float64's."""
    with server("--ours", str(bundle)) as (port, _):
        encode = ChatTokenizer.load(bundle / "tokenizer.json").encode_document
        texts = [encode(document["text"])[:MAX_TOKENS] for document in documents(port)]
        sums = {"crawl2chat serve": sum(_served_sum(port, ids) for ids in texts)}
    for name, settings in {
        "transformers, sdpa": {"dtype": torch.float32, "attn_implementation": "sdpa"},
        "transformers, eager": {"dtype": torch.float32, "attn_implementation": "eager"},
        "transformers, float64": {"dtype": torch.float64},
    }.items():
        model = AutoModelForCausalLM.from_pretrained(bundle, **settings)
        sums[name] = sum(_plain_sum(model, ids) for ids in texts)
    exact = sums["transformers, float64"]
    for name, found in sums.items():
        yield name, f"{found:.5f}", f"{found - exact:+.5f}", f"{abs(found / exact - 1):.0e}"


def _served_sum(port: int, ids: list[int]) -> float:
    asked = {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}
    answer = httpx.post(f"http://localhost:{port}/v1/completions", json=asked, timeout=300).json()
    return float(sum(answer["choices"][0]["logprobs"]["token_logprobs"][1:]))


@torch.inference_mode()
def _plain_sum(model: Any, ids: list[int]) -> float:
    logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return float(logprobs.gather(1, torch.tensor(ids[1:])[:, None]).double().sum())


def main() -> None:
    bundle = Path(sys.argv[1]).resolve()
    python = Path(sys.argv[2]) if len(sys.argv) > 2 else interpreter()
    print_table(
        f"lm-eval on a bundle: hf, and local-completions against crawl2chat serve, {NUM_DOCUMENTS} documents a task",
        ["Task", "Metric", "hf", "local-completions", "Equal to five digits"],
        rows(bundle, python),
    )
    print_table(
        "The sum of the log-probabilities of the texts, nats",
        ["By", "Sum", "From float64", "Share"],
        rounding(bundle),
        machine(),
    )


if __name__ == "__main__":
    main()
