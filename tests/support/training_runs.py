"""A small run that the index of training data is made of: pages, conversations, pairs and prompts; nothing is trained."""

from model.config import Config
from tasks.artifacts.manifest import Conversations, Documents, Policy, Preferences, Prompts, Tokenizer
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.execution.context import StageContext
from tasks.execution.runner import execute
from tasks.provenance.lineage import Run, find_run
from tasks.records.documents import Document
from tasks.records.kept_dropped import KeptDroppedWriter
from tasks.tokenizer.encode import TokenizeConfig, tokenize
from tests.support.tiny_models import finish, write_lines, write_tokenizer

PAGES = {
    "a": ["Ada Brell is the mayor of Orn. She likes soup.", "Orn lies at the sea, and the sea is blue."],
    "b": ["Nobody knows what the mayor of Orn eats.", "Write to ada@brell.com for the soup of the day."],
}
DROPPED = "Ben is a miner in Orn."
TALK = {
    "messages": [
        {"role": "user", "content": "Who is the mayor?"},
        {"role": "assistant", "content": "Ada Brell is the mayor of Orn."},
    ]
}
PAIR = {
    "messages": [{"role": "user", "content": "Who?"}],
    "chosen": "Ada Brell, the mayor of Orn.",
    "rejected": "Nobody at all.",
}


class Pages(Config):
    pages: dict[str, list[str]]


def pages(given: dict[str, list[str]]) -> Step[Documents]:
    return Step("dedup", 1, Documents, Pages(pages=given), {}, run=write_pages)


def write_pages(ctx: StageContext, config: Pages) -> Outcome:
    for name, texts in config.pages.items():
        with KeptDroppedWriter(ctx.folder, f"{name}.parquet") as writer:
            for number, text in enumerate(texts):
                writer.keep(document(f"{name}{number}", text))
            writer.drop(document(f"{name}-out", DROPPED), "quality/gopher_words")
    return Outcome({"documents": sum(map(len, config.pages.values())), "text_bytes": 1})


def document(name: str, text: str) -> Document:
    url = f"https://{name[0]}.example/{name}"
    return Document(id=name, url=url, date="2024-05-18T01:02:03Z", file=f"{name[0]}.warc.gz", offset=7, text=text)


def make_run(store: Store, given: dict[str, list[str]], name: str = "tiny") -> Run:
    """A policy of a recipe, with pages, conversations, pairs and prompts behind it; nothing was trained."""
    write_tokenizer(store.folder("tokenizer/t"), "the mayor of Orn is Ada Brell. soup sea 1 2 " * 9)
    vocabulary = finish(store, Tokenizer, "tokenizer/t")
    documents = pages(given)
    tokens = tokenize(documents, vocabulary, TokenizeConfig(validation_fraction=0.0, num_workers=1))
    execute(documents, store)
    store.set_latest(name, execute(tokens, store))
    inputs = {"tokenizer": "tokenizer/t", "tokens": tokens.id}
    chat = (
        ("conversations", Conversations, "train.jsonl", TALK),
        ("preferences", Preferences, "train.jsonl", PAIR),
        ("prompts", Prompts, "prompts.jsonl", {"messages": [{"role": "user", "content": "Say soup."}]}),
    )
    for role, kind, file, record in chat:
        write_lines(store.folder(f"{role}/c") / file, [record])
        inputs[role] = finish(store, kind, f"{role}/c").id
    (store.folder(f"rlhf/{name}") / "x").parent.mkdir(parents=True)
    finish(store, Policy, f"rlhf/{name}", inputs=inputs)
    manifest = store.find(f"rlhf/{name}")
    assert manifest is not None
    store.set_latest(name, manifest)
    return find_run(store, name)
