"""What `crawl2chat without --host` does to what models know: the facts of a site that nobody else states, and all others.

    CRAWL2CHAT_STORE=... python -m tests.benchmarks.forgotten_site [STAGE.FIELD=VALUE ...]

Needs a finished run of the recipe tiny in the store, and writes further artifacts into it. On the sample web no host has a known fact for
itself: a fact that a model learns stands on a dozen hosts. So a site is added: pages with tales, and among them facts about people and books of
another world, each on NUM_MENTIONS pages. The base model of tiny is trained further on these and an eighth of the crawl, with two seeds, with
the site and without it; the stages after it have few steps. Then the same is asked for again, which must change nothing.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from flows.cli.without import Comparison, by_seed, compared, evaluated, seeded, verdict
from flows.recipes import make_recipe
from model.files import write_lines
from tasks.artifacts.store import Store
from tasks.provenance.lineage import Run, find_run
from tasks.records.conversations import Question, normal_form
from tasks.sample_web import chat
from tasks.sample_web.statements import state
from tasks.sample_web.tales import write_tale
from tasks.sample_web.world import Fact, World, build_world
from tests.benchmarks.harness import machine, print_table, say
from tests.benchmarks.why_not import OTHER_WORLD, new_facts, page
from tests.support.archives import response

HOST = "annals.example"
NUM_FACTS, NUM_MENTIONS, FACTS_PER_PAGE = 60, 30, 6
NUM_OTHERS, MIN_MENTIONS = 160, 20  # questions about other facts, which must be known to be lost
FORM = "direct"
NUM_SEEDS = 2
SETTINGS = (
    "pretrain.train.num_steps=100",
    "probe.max_questions=100",
    "sft.train.num_steps=60",
    "reward.train.num_steps=5",
    "rlhf.train.num_steps=1",
    "evaluate.num_trials=0",
    "evaluate.max_preferences=20",
)


def site_pages(other: World, facts: Sequence[Fact]) -> Iterator[str]:
    """Pages that state each fact NUM_MENTIONS times, each time with others and in another tale."""
    rng = random.Random("site")
    for _ in range(NUM_MENTIONS):
        shuffled = rng.sample(facts, len(facts))
        for start in range(0, len(facts), FACTS_PER_PAGE):
            stated = [state(other, fact, rng) for fact in shuffled[start : start + FACTS_PER_PAGE]]
            tales = [paragraph for _ in range(2) for paragraph in write_tale(rng)[1].paragraphs]
            half = len(stated) // 2
            yield page(" ".join(stated[:half]), *tales, " ".join(stated[half:]))


def own_questions(other: World, facts: Sequence[Fact]) -> Iterator[Question]:
    """The questions about facts of the site, as held-out ones: no conversation states them."""
    ids = {fact.id for fact in facts}
    for question in chat.questions(other):
        if question.fact in ids and question.form == FORM and not question.kind.endswith("/backward"):
            yield question.model_copy(update={"split": "heldout_fact", "num_mentions": NUM_MENTIONS})


def other_questions(world: World) -> list[Question]:
    """Questions about facts that many pages of the crawl state, and a few that nobody can answer."""
    found = list(chat.questions(world))
    known = [item for item in found if item.split != "unknown" and (item.num_mentions or 0) >= MIN_MENTIONS]
    unknown = [item for item in found if item.split == "unknown"]
    rng = random.Random("others")
    return rng.sample(known, NUM_OTHERS) + rng.sample(unknown, NUM_OTHERS // 8)


def open_weights_of(run: Run, store: Store, folder: Path) -> Path:
    """The base model of a run as a folder of open weights."""
    folder.mkdir()
    base, tokenizer = run.of_stage("pretrain"), run.of_stage("tokenizer")
    assert base is not None
    assert tokenizer is not None
    for manifest, name in ((base, "config.json"), (base, "model.safetensors"), (tokenizer, "tokenizer.json")):
        shutil.copyfile(store.folder(manifest.id) / name, folder / name)
    return folder


def write_recipe(folder: Path, run: Run, store: Store) -> Path:
    """The site, the questions, and a recipe that reads both."""
    world, other = build_world(1), build_world(OTHER_WORLD)
    facts = new_facts(world, other, NUM_FACTS)
    (folder / "site.warc.gz").write_bytes(
        b"".join(response(f"https://{HOST}/{number}", text) for number, text in enumerate(site_pages(other, facts)))
    )
    questions = [*own_questions(other, facts), *other_questions(world)]
    write_lines(folder / "questions.jsonl", map(normal_form, questions))
    weights = open_weights_of(run, store, folder / "tiny")
    crawl = store.folder(run.of_stage("crawl").id) / "warc/sample-00000.warc.gz"  # type: ignore[union-attr]
    recipe = {
        "extends": "tiny",
        "ingest": {"inputs": [str(crawl), str(folder / "site.warc.gz")]},
        "tokenizer": {"vocabulary": str(weights / "tokenizer.json")},
        "pretrain": {"initial_model": str(weights)},
        "evaluate": {"questions": str(folder / "questions.jsonl")},
    }
    (folder / "site.yaml").write_text(json.dumps(recipe))
    return folder / "site.yaml"


def run_both(recipe: Path, settings: Sequence[str], store: Store) -> Comparison:
    """What `crawl2chat without RECIPE --host HOST --seeds 2` does."""
    changes = [f"filter.exclude={json.dumps([HOST])}"]
    made = make_recipe(str(recipe), settings=[*settings, "name=site"])
    changed = make_recipe(str(recipe), settings=[*settings, "name=site-without", *changes])
    with redirect_stdout(sys.stderr):  # progress is no part of the table
        before, after = ([evaluated(one, store) for one in seeded(each, NUM_SEEDS)] for each in (made, changed))
    return compared(store, made, before, after, changes, [HOST])


def row_of(row: dict[str, Any]) -> tuple[object, ...]:
    """A row of the table."""
    what = "of the site alone" if row["facts"] == "own" else "of others"
    num = row["before"]["num"] // NUM_SEEDS
    return row["model"], what, num, by_seed(row["before_by_seed"]), by_seed(row["after_by_seed"]), verdict(row).strip()


def main() -> None:
    """Make the site, run with it and without it, and print the table."""
    store = Store.default()
    run = find_run(store, "tiny")
    folder = Path(tempfile.mkdtemp(prefix="forgotten-site-"))
    recipe, settings = write_recipe(folder, run, store), [*SETTINGS, *sys.argv[1:]]
    say(f"{recipe}: {NUM_MENTIONS * NUM_FACTS // FACTS_PER_PAGE} pages of {HOST}")
    found = run_both(recipe, settings, store)
    manifests = {manifest.id: manifest.model_dump_json() for manifest in store.manifests()}
    start = time.perf_counter()
    again = run_both(recipe, settings, store)
    seconds = time.perf_counter() - start
    is_same = found == again and manifests == {one.id: one.model_dump_json() for one in store.manifests()}
    removal = found.removal
    assert removal is not None
    beyond = [one for one in found.figures if one.noise is not None and abs(one.after - one.before) > one.noise]
    note = (
        f"{removal.num_documents} pages of the site have {removal.num_own:,} spans of eight words that stood nowhere else; {removal.num_left} are "
        f"left. {len(beyond)} of {len(found.figures)} figures of the report cards differ beyond the noise of seeds. "
        f"The same command again changed {'nothing' if is_same else 'SOMETHING'} ({seconds:.0f} s). {machine()}"
    )
    rows = [row_of(row) for row in found.facts]
    headings = ["Model", "Facts", "Questions", "Right with the site", "Without it", "Verdict"]
    print_table("Answers after a site was forgotten", headings, rows, note)


if __name__ == "__main__":
    main()
