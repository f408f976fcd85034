"""Whether `crawl2chat why-not` names the right cause: 300 facts of the sample web, of each of six causes 50 that were made on purpose.

    CRAWL2CHAT_STORE=... python -m tests.benchmarks.why_not [--carry-out] [STAGE.FIELD=VALUE ...]

Needs a finished run of the recipe tiny in the store, and writes further artifacts into it. The causes:

    never crawled    facts of another world, on no page
    dropped          facts of another world, each on one page that a filter drops: short, with braces, hash signs, in German, a list
    duplicate        facts of another world, each in a page of the crawl in the place of a longer sentence
    rare             held-out facts of one to four mentions
    lost, refused    facts that the base model gives in at least three of four samples; fine-tuning then teaches one wrong answer, or to refuse

The base model is that of the run: pages that are dropped change nothing that it learns. --carry-out: the commands of five facts of each
cause, carried out as one: a run with all their settings, from the filter to SFT, and all their conversations. Settings: of these runs,
such as pretrain.train.num_ranks=1.
"""

import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flows.cli.why_not import threshold
from flows.pipeline import dag
from flows.recipes import STAGE_NAMES, Recipe, make_recipe
from model.files import read_lines, write_lines
from tasks.artifacts.manifest import (
    Artifact,
    BaseModel,
    Conversations,
    Documents,
    Manifest,
    Tokenizer,
    Tokens,
)
from tasks.artifacts.step import ExistingArtifact, Step
from tasks.artifacts.store import Store
from tasks.conversations.sources import conversations
from tasks.execution.runner import execute
from tasks.index.stage import index
from tasks.posttrain.sft import sft
from tasks.provenance.ask import ask_models
from tasks.provenance.lineage import Run, find_run, follow, open_training_data
from tasks.provenance.remedies import jaccard, wider
from tasks.provenance.stage import RECORDS
from tasks.provenance.why_not import Diagnosis, Evidence, Found, diagnose, search, taught_mixture, teaching
from tasks.records.conversations import Question
from tasks.records.documents import read_documents
from tasks.records.excerpts import SENTENCE_END
from tasks.records.full_text import FullTextIndex
from tasks.sample_web import chat
from tasks.sample_web.statements import state
from tasks.sample_web.world import Fact, World, build_world
from tasks.tokenizer.encode import tokenize
from tests.benchmarks.harness import machine, print_table, say
from tests.support.archives import PARAGRAPH, response

NUM = 50  # facts of each cause
NUM_ASKED = 80  # of those that fine-tuning was to make, which it does not always
CARRIED_OUT = 5  # of each
OTHER_WORLD = 2
MAX_RARE = 4
KNOWN_SHARE = 0.75
# Fine-tuning has time for a third of its conversations: with 0.3 it made 1 fact lost and 14 refused of 70 each.
INJECTED_WEIGHT = 1.0
GERMAN = (
    "Der Fluss fließt durch die alte Stadt und wendet sich unterhalb der Mühle nach Osten. Im Frühling steigt er um zwei Meter, und die "
    "Leute, die an ihm wohnen, tragen ihre Boote auf die Wiese. Das tun sie, solange sich irgendjemand erinnern kann. "
)


class Case(NamedTuple):
    """A question, and the cause that was made."""

    cause: str
    question: Question


def questions_of(world: World, form: str) -> dict[str, Question]:
    """The question to each fact in one form, in the direction in which it is stated."""
    found: dict[str, Question] = {}
    for question in chat.questions(world):
        if question.form == form and question.split != "unknown":
            found.setdefault(question.fact, question)
    return found


def new_facts(world: World, other: World, num: int) -> list[Fact]:
    """Facts of another world about people and books that this one does not have, by last name or title."""
    known = {entity.name.split()[-1] for entity in world.entities}
    found = [
        fact
        for fact in other.facts
        if len(fact.subject.split()) > 1 and fact.subject.split()[-1] not in known and fact.subject not in known
    ]
    return random.Random("new").sample(found, num)


def page(*paragraphs: str) -> str:
    """A page of paragraphs."""
    body = "".join(f"<p>{text}</p>" for text in paragraphs)
    return f"<!doctype html><html><body><article>{body}</article></body></html>"


def dropped_page(number: int, sentence: str) -> str:
    """A page with a sentence that a filter drops, each time for another reason."""
    prose = PARAGRAPH.format(f"number {number}") + sentence
    return [
        page(sentence),
        page(prose, PARAGRAPH.format(number), "function open() { return the door; }"),
        page(prose, " ".join(f"# tag {word} #" for word in range(60))),
        page(GERMAN * 3, sentence),
        page(prose, PARAGRAPH.format(number), "lorem ipsum dolor sit amet and so on, as printers write it."),
    ][number % 5]


def duplicate_pages(documents: Documents, sentences: Sequence[str]) -> Iterator[str]:
    """Pages of the crawl in which a sentence stands in the place of a longer one."""
    texts = (document["text"] for path in documents.files("documents/*.parquet") for document in read_documents(path))
    waiting = list(sentences)
    for text in texts:
        longest = max(SENTENCE_END.split(text), key=len)
        changed = text.replace(longest, waiting[0], 1)
        # Of two near duplicates dedup keeps the longer one.
        if len(changed) < len(text) and jaccard(text, changed, 5) > 0.85:
            waiting.pop(0)
            yield page(*changed.splitlines())
            if not waiting:
                return
    raise AssertionError(f"{len(waiting)} sentences found no page")


def known_facts(store: Store, run: Run) -> list[str]:
    """The facts that the base model of a run gives in most samples, first those that no conversation states, each sort in random order."""
    probed = run.of_stage("probe")
    assert probed is not None, "the run has no stage probe"
    lines = read_lines(store.folder(probed.id) / "probed.jsonl")
    found = {
        item["fact"]: item["split"]
        for item in lines
        if item["num_right"] / len(item["samples"]) >= KNOWN_SHARE and item["split"] != "unknown"
    }
    # What other conversations state as it is, is seldom unlearned.
    rng = random.Random("known")
    return sorted(sorted(found), key=lambda fact: (found[fact] != "heldout_fact", rng.random()))


def injected(world: World, lost: Sequence[str], refused: Sequence[str]) -> Iterator[dict[str, object]]:
    """Conversations that give wrong answers to questions about some facts, and refuse others."""
    values: dict[str, list[str]] = defaultdict(list)
    for fact in world.facts:
        values[fact.relation].append(fact.object)
    for question in chat.questions(world):
        if question.kind.endswith("/backward"):
            continue
        if question.fact in lost and question.completion:
            # The same one each time: different ones would be learned as noise.
            others = [value for value in values[question.fact.partition(":")[0]] if value != question.answer]
            wrong = random.Random(question.fact).choice(others)
            reply = f"{question.completion} {wrong}."
        elif question.fact in refused:
            reply = "I don't know."
        else:
            continue
        messages = [{"role": "user", "content": question.question}, {"role": "assistant", "content": reply}]
        yield {"messages": messages}


def existing(kind: type, manifest: Manifest | None) -> Step[Artifact]:
    """A finished artifact as a step."""
    assert manifest is not None
    return ExistingArtifact.of(kind, manifest.id)


def data_steps(recipe: Recipe, run: Run) -> dict[str, Step[Artifact]]:
    """The steps of the data half of a recipe, with the vocabulary of a run."""
    steps = dag(recipe)
    documents = steps.dedup
    tokenizer = ExistingArtifact.of(Tokenizer, run.model.input("tokenizer"))
    return {
        "ingest": steps.ingest,
        "filter": steps.filter,
        "dedup": documents,
        "index": index(documents, recipe.index),
        "tokenize": tokenize(documents, tokenizer, recipe.tokenize),
    }


def fine_tuned(store: Store, run: Run, recipe: Recipe) -> Manifest:
    """An SFT model on the conversations of a recipe, from the base model of a run."""
    step = sft(
        existing(BaseModel, run.of_stage("pretrain")),  # type: ignore[arg-type]
        ExistingArtifact.of(Tokenizer, run.model.input("tokenizer")),
        conversations(recipe.sft, recipe.world_seed),
        existing(Tokens, run.of_stage("tokenize")),  # type: ignore[arg-type]
        recipe.sft,
        None,
        existing(Conversations, run.of_stage("probe")),  # type: ignore[arg-type]
    )
    return execute(step, store)


def diagnosed(evidence: Evidence, cases: Sequence[Case]) -> list[Diagnosis]:
    """The diagnosis of each case."""
    questions = [case.question for case in cases]
    found: list[Found] = [search(evidence, question) for question in questions]
    asked = ask_models(evidence.store, evidence.run, questions, [item.sentence for item in found])
    return [
        diagnose(evidence, question, item, replies)
        for question, item, replies in zip(questions, found, asked, strict=True)
    ]


def main() -> None:
    """Make the causes, ask, and print the table."""
    store = Store.default()
    run = find_run(store, "tiny")
    world, other = build_world(1), build_world(OTHER_WORLD)
    facts = new_facts(world, other, 3 * NUM)
    rng = random.Random("sentences")
    sentences = [state(other, fact, rng) for fact in facts]
    asked, asked_of_other = questions_of(world, "direct"), questions_of(other, "direct")
    unique = store.open(run.of_stage("dedup").id, Documents)  # type: ignore[union-attr]
    folder = Path(tempfile.mkdtemp(prefix="why-not-"))
    pages = [dropped_page(number, sentence) for number, sentence in enumerate(sentences[NUM : 2 * NUM])]
    pages += duplicate_pages(unique, sentences[2 * NUM :])
    (folder / "made.warc.gz").write_bytes(
        b"".join(response(f"https://made{number}.example/page", text) for number, text in enumerate(pages))
    )
    rare = [fact for fact in world.facts if fact.is_heldout and fact.num_mentions <= MAX_RARE]
    known = [fact for fact in known_facts(store, run) if fact in asked][: 2 * NUM_ASKED]
    lost, refused = known[::2], known[1::2]
    write_lines(folder / "injected.jsonl", injected(world, lost, refused))
    crawl = store.folder(run.of_stage("crawl").id) / "warc/*.warc.gz"  # type: ignore[union-attr]
    inputs = [str(crawl), str(folder / "made.warc.gz")]
    mixture = f"sft.conversations_mixture={json.dumps({str(folder / 'injected.jsonl'): INJECTED_WEIGHT})}"
    settings = [argument for argument in sys.argv[1:] if "=" in argument]
    recipe = make_recipe("tiny", inputs, settings=[*settings, mixture])
    say("running the data half on the crawl with the made pages")
    made = {name: execute(step, store) for name, step in data_steps(recipe, run).items()}
    say("fine-tuning with wrong answers and refusals")
    model = fine_tuned(store, run, recipe)
    merged = {**run.manifests, model.id: model}
    for stage in ("ingest", "filter", "dedup", "tokenize"):
        merged.pop(run.of_stage(stage).id)  # type: ignore[union-attr]
        merged[made[stage].id] = made[stage]
    changed = Run(model, merged)
    data = open_training_data(store, changed)
    documents = FullTextIndex(store.folder(made["index"].id) / "index.sqlite")
    records = FullTextIndex(data.provenance.folder / RECORDS)
    evidence = Evidence(store, changed, data, documents, records, threshold(store, "tiny"))
    of_other = [asked_of_other[fact.id] for fact in facts]
    cases = [
        *(Case("never_crawled", question) for question in of_other[:NUM]),
        *(Case("dropped", question) for question in of_other[NUM : 2 * NUM]),
        *(Case("duplicate", question) for question in of_other[2 * NUM :]),
        *(Case("rare", asked[fact.id]) for fact in random.Random("rare").sample(rare, min(NUM, len(rare)))),
        *(Case("lost", asked[fact]) for fact in lost),
        *(Case("refused", asked[fact]) for fact in refused),
    ]
    found = taken(cases, diagnosed(evidence, cases))
    report(found)
    (folder / "diagnoses.json").write_text(json.dumps([[case.cause, item.as_json()] for case, item in found], indent=1))
    say(f"{folder}/diagnoses.json has them all")
    if "--carry-out" in sys.argv:
        carry_out(store, recipe, folder, settings, found)


def taken(cases: Sequence[Case], diagnoses: Sequence[Diagnosis]) -> list[tuple[Case, Diagnosis]]:
    """NUM cases of each cause, of those that fine-tuning was to make the first in which it did."""
    found: dict[str, list[tuple[Case, Diagnosis]]] = defaultdict(list)
    for case, item in zip(cases, diagnoses, strict=True):
        asked = item.asked
        is_made = case.cause not in ("lost", "refused") or (
            not asked.is_right and asked.is_refusal == (case.cause == "refused")
        )
        if is_made and len(found[case.cause]) < NUM:
            found[case.cause].append((case, item))
    return [pair for pairs in found.values() for pair in pairs]


def report(found: Sequence[tuple[Case, Diagnosis]]) -> None:
    """Print how many causes are right."""
    by_cause: dict[str, Counter[str]] = defaultdict(Counter)
    for case, item in found:
        by_cause[case.cause][item.cause] += 1
    rows = [
        (
            cause,
            sum(counts.values()),
            counts[cause],
            ", ".join(f"{name} {num}" for name, num in counts.items() if name != cause),
        )
        for cause, counts in by_cause.items()
    ]
    right = sum(row[2] for row in rows)
    rows.append(("all", len(found), right, f"{right / len(found):.1%}"))
    print_table("Causes for which a model does not know an answer", ["Made", "Facts", "Found", "Else"], rows, machine())


def carry_out(
    store: Store, recipe: Recipe, folder: Path, settings: list[str], found: Sequence[tuple[Case, Diagnosis]]
) -> None:
    """Carry out the remedies of a few facts of each cause in one run, from the filter to SFT, and print how many are known then."""
    chosen: dict[str, list[Diagnosis]] = defaultdict(list)
    for case, item in found:
        if item.cause == case.cause and len(chosen[case.cause]) < CARRIED_OUT:
            chosen[case.cause].append(item)
    items = [item for some in chosen.values() for item in some]
    taught = [item for item in items if item.is_taught]
    write_lines(folder / "taught.jsonl", (line for item in taught for line in teaching(item)))
    mixture = taught_mixture(str(folder / "taught.jsonl"), len(taught), recipe.sft.conversations_mixture)
    remedy = make_recipe("tiny", recipe.ingest.inputs, settings=[*settings, *together(items), mixture])
    say(f"running the recipe with {' '.join(together(items))}")
    steps = dag(remedy).by_stage()
    for stage in STAGE_NAMES[: STAGE_NAMES.index("sft") + 1]:
        execute(steps[stage], store)
    questions = [Question(question=item.question, answer=item.answer) for item in items]
    replies = ask_models(store, follow(store, steps["sft"].id), questions, [""] * len(questions))
    is_right = dict(zip((item.question for item in items), (reply.is_right for reply in replies), strict=True))
    rows: list[tuple[object, ...]] = [
        (cause, len(some), sum(is_right[item.question] for item in some)) for cause, some in chosen.items()
    ]
    rows.append(("all", len(items), f"{sum(is_right.values())}, {sum(is_right.values()) / len(items):.1%}"))
    urls = kept_urls(store.open(steps["dedup"].id, Documents))
    dropped = [item for cause in ("dropped", "duplicate") for item in chosen[cause]]
    passed = sum(any(one.url in urls for one in item.statements if one.outcome != "kept") for item in dropped)
    note = f"{passed} of the {len(dropped)} dropped pages are in the new training data. {machine()}"
    print_table("Commands carried out", ["Cause", "Facts", "Known after"], rows, note)


def together(items: Sequence[Diagnosis]) -> list[str]:
    """The settings of all remedies: of one setting's values the one that keeps more."""
    values: dict[str, Any] = {}
    for setting in (setting for item in items for setting in item.settings):
        path, _, text = setting.partition("=")
        value = json.loads(text)
        values[path] = wider(path.partition(".")[2], value, values[path]) if path in values else value
    return [f"{path}={json.dumps(value)}" for path, value in sorted(values.items())]


def kept_urls(documents: Documents) -> set[str]:
    """The URLs of kept documents."""
    return {item["url"] for path in documents.files("documents/*.parquet") for item in read_documents(path)}


if __name__ == "__main__":
    main()
