"""Our models through the lm-evaluation-harness: our decoder against the harness's backend `hf` on the exported model, request by request.

    pip install 'crawl2chat[eval]'
    python -m tests.benchmarks.lm_eval_agreement [RECIPE]      # a finished run in the store; default: tiny

Five tasks of local files (shared data, evals/ and pretrain/) and a sixth of the run's own questions: the three kinds of requests that the
harness has. Reported are the scores of both, as many digits as the harness prints, and how far single requests are apart.

Then the scores of a reference model that are known without running it: bigram counts of TinyStories as the weights of a transformer
(tests/support/bigram_model.py), whose log-probabilities are sums of a matrix.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model.files import read_lines
from model.network.huggingface import load_transformer
from tasks.artifacts.manifest import Bundle, Policy, Report, Tokenizer
from tasks.artifacts.store import Store
from tasks.evaluate.eval_tasks import EvalTask, LoadedTask, load_task
from tasks.evaluate.harness import run_harness
from tasks.evaluate.knowledge import RANKED
from tasks.evaluate.lm_eval_model import lm_eval_model
from tasks.export.stage import tokenizer_settings
from tasks.training import load_language_model
from tests.benchmarks.harness import machine, print_table, say, shared_data
from tests.support.bigram_model import bigram_logprobs, bits_per_byte, pair_nats, write_bigram_model
from tests.support.tiny_models import write_tokenizer

MAX_TOKENS = 256  # the context of tiny
NUM_TEXTS = 200  # of TinyStories that the bigram model is counted from, and as many others that it is scored by
REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def tasks_of(folder: Path, own: Path) -> Iterator[EvalTask]:
    evals = folder / "evals"
    yield EvalTask(name="blimp", path=str(evals / "blimp.jsonl.gz"), format="blimp", licence="CC-BY-4.0", limit=500)
    yield EvalTask(name="mmlu_dev", path=str(evals / "mmlu-dev.jsonl.gz"), format="mmlu", licence="MIT", limit=100)
    arithmetic = str(evals / "gpt3-arithmetic.jsonl.gz")
    yield EvalTask(name="arithmetic", path=arithmetic, format="completion", licence="none named", limit=100)
    yield EvalTask(name="bbh", path=str(evals / "bbh.jsonl.gz"), format="bbh", licence="MIT", limit=50)
    wikitext = str(folder / "pretrain" / "wikitext2-valid.txt.gz")
    yield EvalTask(name="wikitext2", path=wikitext, format="text", licence="CC-BY-SA-3.0", limit=20)
    yield EvalTask(name="own_questions", path=str(own), format="choices", licence="Apache-2.0", limit=200)


def own_questions(store: Store, recipe: str, path: Path) -> Path:
    """Beginnings of statements with four answers of one relation: of these a trained model has many right."""
    report = store.open(store.latest(recipe, "evaluate"), Report)
    lines = [line for line in read_lines(report.folder / "answers.jsonl") if line["model"] == RANKED]
    answers: dict[str, list[str]] = {}
    for line in lines:
        answers.setdefault(line["fact"].partition(":")[0], []).append(line["answer"])
    records = []
    for line in lines:
        others = [one for one in dict.fromkeys(answers[line["fact"].partition(":")[0]]) if one != line["answer"]]
        if len(others) > 2:
            records.append({"context": line["completion"], "choices": [line["answer"], *others[:3]], "gold": 0})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def recorded(lm: Any) -> tuple[Any, dict[str, list[Any]]]:
    """The model, and what it answers to each kind of request."""
    answers: dict[str, list[Any]] = {kind: [] for kind in REQUESTS}

    def recording(kind: str) -> Callable[..., Any]:
        asked = getattr(lm, kind)

        def answer(requests: Any, *rest: Any, **named: Any) -> Any:
            found = asked(requests, *rest, **named)
            answers[kind] += found
            return found

        return answer

    for kind in REQUESTS:
        setattr(lm, kind, recording(kind))
    return lm, answers


def hf(folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(
        pretrained=str(folder), device="cpu", dtype="float32", batch_size=16, max_length=MAX_TOKENS, add_bos_token=True
    )
    # The exported settings of generation would win over those of the task.
    lm.model.generation_config.max_new_tokens = None
    return lm


def distance(kind: str, one: Any, two: Any) -> float:
    if kind == "generate_until":
        return float(one != two)
    return abs(one - two) if kind == "loglikelihood_rolling" else max(abs(one[0] - two[0]), float(one[1] != two[1]))


def main() -> None:
    recipe = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    store = Store.default()
    tokenizer_folder = store.open(store.latest(recipe, "tokenizer"), Tokenizer).folder
    from model.tokenizer.chat import ChatTokenizer

    tokenizer = ChatTokenizer.load(tokenizer_folder / "tokenizer.json")
    model = load_language_model(store.open(store.latest(recipe, "rlhf"), Policy))
    bundle = store.open(store.latest(recipe, "export"), Bundle).folder
    with tempfile.TemporaryDirectory() as folder:
        own = own_questions(store, recipe, Path(folder) / "own.jsonl")
        loaded: list[LoadedTask] = [load_task(task) for task in tasks_of(shared_data(), own)]
        models = {"ours": lm_eval_model(model, tokenizer, MAX_TOKENS, 16), "hf": hf(bundle)}
        scores, answers = {}, {}
        for name, lm in models.items():
            say(name)
            asked, answers[name] = recorded(lm)
            scores[name] = run_harness(asked, loaded, bootstrap=100)
    rows = [
        [f"{one['task']}, {one['metric']}", one["num"], f"{one['value']:.4f}", f"{two['value']:.4f}", shown(one), "yes" if f"{one['value']:.4f}" == f"{two['value']:.4f}" else "no"]
        for one, two in zip(scores["ours"], scores["hf"], strict=True)
    ]  # fmt: skip
    apart = [
        f"{kind}: {len(answers['ours'][kind]):,} requests, at most {max(distance(kind, *pair) for pair in zip(answers['ours'][kind], answers['hf'][kind], strict=True)):.1e} apart"
        for kind in REQUESTS
    ]  # fmt: skip
    print_table(
        "Scores by the lm-evaluation-harness: our decoder and its backend hf",
        ["Task, metric", "Records", "Ours", "hf", "Standard error", "Equal"],
        rows,
        f"{'; '.join(apart)} (nats; texts: 1 is different). {machine()}.",
    )
    if any(row[-1] == "no" for row in rows):
        sys.exit("a score differs")
    with tempfile.TemporaryDirectory() as folder:
        known_scores(Path(folder))


def known_scores(folder: Path) -> None:
    """Print the scores of a bigram model: as its counts have them, by our decoder, and by the backend hf."""
    stories = str(shared_data() / "pretrain" / "tinystories-a.txt.gz")
    text = load_task(EvalTask(name="tinystories", path=stories, format="text", licence="CDLA-Sharing-1.0"))
    texts = [item.pairs[0][1] for item in text.items[: 2 * NUM_TEXTS]]
    learned, held_out = "\n".join(texts[:NUM_TEXTS]), texts[NUM_TEXTS:]
    tokenizer = write_tokenizer(folder, learned, vocab_size=512)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_settings(tokenizer, MAX_TOKENS)))
    logprobs = bigram_logprobs(tokenizer, learned)
    write_bigram_model(folder, logprobs)
    pairs = str(shared_data() / "evals" / "blimp.jsonl.gz")
    blimp = load_task(EvalTask(name="blimp", path=pairs, format="blimp", licence="CC-BY-4.0", limit=500))
    loaded: list[LoadedTask] = [blimp, text._replace(items=text.items[NUM_TEXTS : 2 * NUM_TEXTS])]
    nats = [[pair_nats(tokenizer, logprobs, *pair) for pair in item.pairs] for item in blimp.items]
    right = [values.index(max(values)) == item.gold for values, item in zip(nats, loaded[0].items, strict=True)]
    bits = bits_per_byte(tokenizer, logprobs, held_out, counts_bos=True)
    known = {("blimp", "acc"): sum(right) / len(right), ("tinystories", "bits_per_byte"): bits, ("tinystories", "byte_perplexity"): 2**bits}  # fmt: skip
    ours, theirs = (
        {(row["task"], row["metric"]): row for row in run_harness(lm, loaded, bootstrap=100)}
        for lm in (lm_eval_model(load_transformer(folder), tokenizer, MAX_TOKENS, 16), hf(folder))
    )
    rows = []
    for name, value in known.items():
        cells = [f"{one:.5f}" for one in (value, ours[name]["value"], theirs[name]["value"])]
        rows.append([", ".join(name), ours[name]["num"], *cells, "yes" if len(set(cells)) == 1 else "no"])
    print_table("Known scores of a bigram model", ["Task, metric", "Records", "Known", "Ours", "hf", "Equal"], rows)
    if any(row[-1] == "no" for row in rows):
        sys.exit("a known score is not reproduced")


def shown(row: dict[str, Any]) -> str:
    return "" if row["stderr"] is None else f"{row['stderr']:.4f}"


if __name__ == "__main__":
    main()
