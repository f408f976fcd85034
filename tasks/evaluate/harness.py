"""Evaluation by the lm-evaluation-harness: tasks of local files, any of our models, offline; scores with standard errors.

Reads loaded tasks (eval_tasks.py) and models (lm_eval_model.py, or a backend of the harness); writes nothing. Needs the extra `eval`. The
harness's own tasks are not used: they fetch data sets from a hub, and run code that comes with them. Metrics and standard errors are the
harness's; prompts are in eval_tasks.py.
"""

import os
from collections.abc import Sequence
from typing import Any

from model.errors import UserError
from tasks.evaluate.eval_tasks import Item, LoadedTask
from tasks.evaluate.lm_eval_model import NEEDS_EXTRA
from tasks.markdown import Figures, name, one_line, table

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
MAX_ANSWER_TOKENS = 64
MEAN = {"aggregation": "mean", "higher_is_better": True}
# By kind of task: the harness's type of output, and its metrics
OUTPUTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "choice": ("multiple_choice", [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}]),
    "greedy": ("loglikelihood", [{"metric": "acc", **MEAN}]),
    "exact": ("generate_until", [{"metric": "exact_match", **MEAN}]),
    "text": ("loglikelihood_rolling", [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}]),
}


def run_harness(lm: Any, tasks: Sequence[LoadedTask], bootstrap: int = 1000) -> list[Figures]:
    """The scores of a model of the harness: a row for each metric of each task, with its standard error (None where it has none)."""
    evaluator = _import()[1]
    results = evaluator.simple_evaluate(
        model=lm,
        tasks=[make_task(one) for one in tasks],
        bootstrap_iters=bootstrap,
        log_samples=False,
        cache_requests=False,
    )
    rows = []
    for one in tasks:
        found = results["results"][one.task.name]
        for metric, value in found.items():
            measure, comma, _ = metric.partition(",")
            if comma and not measure.endswith("_stderr"):
                error = found.get(metric.replace(measure, f"{measure}_stderr", 1))
                rows.append(
                    {
                        "task": one.task.name,
                        "metric": measure,
                        "value": float(value),
                        "stderr": float(error) if isinstance(error, float | int) else None,
                        "num": len(one.items),
                        "licence": one.task.licence,
                        "sha256": one.sha256,
                    }
                )
    return rows


def make_task(loaded: LoadedTask) -> Any:
    """A task of the harness. Raises UserError where the harness is not installed."""
    api, _ = _import()
    import datasets

    output, metrics = OUTPUTS[loaded.kind]
    documents = [document_of(item, loaded.kind) for item in loaded.items]
    config: dict[str, Any] = {
        "task": loaded.task.name,
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(documents)},
        "test_split": "test",
        "output_type": output,
        "doc_to_text": lambda document: document["context"],
        "doc_to_target": lambda document: document["target"],
        "target_delimiter": "",  # the continuations begin with their spaces
        "metric_list": metrics,
        "num_fewshot": 0,
        "metadata": {"version": 1},
    }
    if loaded.kind == "choice":
        config["doc_to_choice"] = lambda document: document["choices"]
    if loaded.kind == "exact":
        config["generation_kwargs"] = {"until": ["\n"], "max_gen_toks": MAX_ANSWER_TOKENS, "do_sample": False}
        config["process_results"] = exact_match
    if loaded.kind == "text":
        config["doc_to_text"] = ""
    return api(config=config)


def exact_match(document: Figures, results: Sequence[str]) -> dict[str, float]:
    """Whether the line that was written is the answer; spaces around it do not count."""
    return {"exact_match": float(results[0].strip() == document["target"].strip())}


def document_of(item: Item, kind: str) -> Figures:
    """An item as a record of the harness."""
    contexts, continuations = zip(*item.pairs, strict=True)
    if kind != "choice":
        return {"context": contexts[0], "target": continuations[0]}
    if len(set(contexts)) == 1:
        return {"context": contexts[0], "choices": list(continuations), "target": item.gold}
    # Several contexts before one continuation: the harness then takes the choices for contexts, and the context for the right number.
    return {"context": item.gold, "choices": list(contexts), "target": continuations[0]}


def harness_table(rows_by_model: dict[str, Sequence[Figures]]) -> str:
    """The scores of all models as Markdown: a row for each metric, and the source of each task."""
    first = next(iter(rows_by_model.values()))
    rows = [
        [
            f"{name(row['task'])}, {row['metric']}",
            f"{row['num']:,}",
            *(_cell(found[place]) for found in rows_by_model.values()),
        ]
        for place, row in enumerate(first)
    ]
    sources = {
        row["task"]: f"- {name(row['task'])}: {one_line(row['licence'])}, sha256 `{row['sha256']}`" for row in first
    }
    return table(["Task, metric", "Records", *rows_by_model], rows) + "\n" + "\n".join(sources.values()) + "\n"


def _cell(row: Figures) -> str:
    return f"{row['value']:.4f}" + (f" ± {row['stderr']:.4f}" if row["stderr"] is not None else "")


def _import() -> tuple[Any, Any]:
    """The harness's class of tasks and its evaluator, with the network of its libraries turned off before they are imported."""
    os.environ.update(OFFLINE)
    try:
        from lm_eval import evaluator
        from lm_eval.api.task import ConfigurableTask
    except ImportError:
        raise UserError(NEEDS_EXTRA) from None
    return ConfigurableTask, evaluator
