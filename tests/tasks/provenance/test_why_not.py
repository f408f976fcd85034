"""Why a model does not know an answer: names and statements, the cause by what was found, and settings that change it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.recipes import make_recipe
from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.execution.context import StageContext
from tasks.execution.runner import execute
from tasks.filter.stage import FilterConfig, broken_rule, limits
from tasks.provenance.ask import Asked
from tasks.provenance.lineage import Run
from tasks.provenance.remedies import jaccard, to_keep, to_keep_both, wider, without_rule
from tasks.provenance.statements import names, statements, stating
from tasks.provenance.why_not import Evidence, changes, command, decide, enough_mentions, taught_mixture
from tasks.records.documents import Document
from tasks.records.full_text import FullTextIndex, IndexedText, IndexWriter
from tasks.records.kept_dropped import KeptDroppedWriter

CONFIG = FilterConfig().model_dump(mode="json")
KNOWN = Asked("Orn.", False, False, share=0.9)
REFUSED = Asked("I don't know.", False, True, share=0.9)
UNKNOWN = Asked("Bex.", False, False, share=0.0)


class Counted:
    """Words as a training set has them: names with capitals."""

    num_words = 1000

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def longest(self, text: bytes) -> int:
        raise AssertionError("names are looked up by their counts")

    def count(self, text: bytes) -> int:
        return sum(stored.count(text.decode()) for stored in self.texts)

    count_word = count


DATA = Counted("Ada Brell wrote The Marble Crown in the town of Karville, and what work she did above all. what work")


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Who is Ada Brell?", ["Ada Brell"]),
        ("I have a question. What did Ada Brell write?", ["Ada Brell"]),
        ("Excuse me, who wrote The Marble Crown?", ["Marble Crown"]),
        ("Ada Brell's home?", ["Ada Brell"]),
        ("what work does ada brell do", ["ada brell"]),
        ("to what country does karville belong?", ["karville"]),
        ("who wrote the marble crown", ["marble crown"]),
        ("Did Ada Brell meet Ben Cord?", ["Ada Brell", "Ben Cord"]),
        ("", []),
        ("?! \x00", []),
    ],
)
def test_names_of_a_question(question: str, found: list[str]) -> None:
    assert [name.lower() for name in names(question, DATA)] == [name.lower() for name in found]


@given(st.text(max_size=200))
def test_any_question_has_few_names(question: str) -> None:
    assert len(names(question, DATA)) <= 4


@pytest.mark.parametrize(
    ("text", "is_stated"),
    [
        ("Ada Brell lives in Orn.", True),
        ("Ada Brell came early. She lives in Orn.", True),
        ("Ada lives in Orn.", False),  # any Ada
        ("Eva Brell lives in Orn.", False),
        ("Ada Brell came. There was rain. Ada lives in Orn.", True),
        ("Ada Brell came early. Ben lives in Orn.", False),
        ("Ada Brell lives in Ornstadt.", False),
        ("Ada Brell came. She sang. Then it rained all day. The house is in Orn.", False),
        ("ada brell: home in orn", True),
        ("", False),
    ],
)
def test_a_sentence_states_an_answer_about_its_subject(text: str, is_stated: bool) -> None:
    assert bool(stating(text, ["Ada Brell"], "Orn")) is is_stated


def test_statements_are_found_by_any_form_of_the_answer_once(tmp_path: Path) -> None:
    with IndexWriter(tmp_path / "w.sqlite", stems=True) as writer:
        writer.add(
            "a",
            [
                IndexedText("document", str(n), text)
                for n, text in enumerate(["Ada Brell is a cook.", "Ada Brell sings."])
            ],
        )
        writer.finish(tmp_path / "index.sqlite")
    index = FullTextIndex(tmp_path / "index.sqlite")
    found = list(statements(index, ["Ada Brell"], ["a cook", "cook", ""], ["document"]))
    assert [(record.id, sentence) for record, sentence in found] == [("0", "Ada Brell is a cook.")]
    assert list(statements(index, ['" OR "'], ["*"], ["document"])) == []


@pytest.mark.parametrize(
    ("asked", "num_kept", "reasons", "cause"),
    [
        (Asked("Orn", True, False), 0, [], "answered"),
        (UNKNOWN, 0, [], "never_crawled"),
        (UNKNOWN, 0, ["quality/gopher_words", "duplicate/url"], "dropped"),
        (UNKNOWN, 0, ["duplicate/minhash"], "duplicate"),
        (KNOWN, 30, ["duplicate/minhash"], "lost"),
        (REFUSED, 30, [], "refused"),
        (UNKNOWN, 3, [], "rare"),
        (UNKNOWN, 30, [], "unlearned"),
        (Asked("I don't know.", False, True), 30, [], "unlearned"),
    ],
)
def test_the_cause_is_decided_in_the_order_of_the_pipeline(
    asked: Asked, num_kept: int, reasons: list[str], cause: str
) -> None:
    assert decide(asked, num_kept, 0, reasons, threshold=20) == cause


def test_what_only_held_out_documents_state_was_crawled() -> None:
    assert decide(UNKNOWN, 0, 1, [], threshold=20) == "rare"


def test_the_threshold_is_the_least_class_of_which_half_is_known() -> None:
    rows = [("50 or more", 0.9), ("20 to 49", 0.6), ("5 to 19", 0.2), ("1", 0.7)]
    facts = [
        {"facts": "held out", "mentions": name, "accuracy": {"base, few-shot": {"share": share}}}
        for name, share in rows
    ]
    assert enough_mentions({"facts": facts}) == 20
    assert enough_mentions({}) is None
    assert enough_mentions({"facts": facts[2:]}) is None


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"gopher_words": 31.0}, "quality/gopher_words"),
        ({"gopher_hash_fraction": 0.123456, "c4_brace_lines": 2.0}, "quality/gopher_hash_fraction"),
        ({"c4_sentences": 1.0, "gopher_words": 8.0}, "quality/gopher_words"),
        ({"pii_fraction": 0.31}, "pii/dense"),
        ({"language_score": 0.41}, "language/unsure"),
    ],
)
def test_settings_let_a_dropped_document_pass(attributes: dict[str, float], reason: str) -> None:
    row = {"url_rule": None, "language": "en", "pii": [], **good_attributes(), **attributes}
    assert broken_rule(row, FilterConfig(), limits(FilterConfig())) == reason
    document = Document(id="1", url="", date="", file="", offset=0, text="", attributes=attributes, reason=reason)
    changed = make_recipe("tiny", settings=to_keep([document], CONFIG)).filter
    assert broken_rule(row, changed, limits(changed)) is None


def good_attributes() -> dict[str, float | None]:
    return dict.fromkeys(limits(FilterConfig())) | {"pii_fraction": 0.0, "language_score": 0.99}


def test_settings_for_several_documents_keep_all_of_them() -> None:
    documents = [
        Document(
            id="1",
            url="",
            date="",
            file="",
            offset=0,
            text="",
            attributes={"gopher_words": words},
            reason="quality/gopher_words",
        )
        for words in (31.0, 12.0, 40.0)
    ]
    assert to_keep(documents, CONFIG) == ["filter.min_gopher_words=12"]


def test_another_language_is_added_to_those_that_are_kept() -> None:
    german = Document(id="1", url="", date="", file="", offset=0, text="", reason="language/de")
    assert to_keep([german], CONFIG) == ['filter.languages=["en", "de"]']


@pytest.mark.parametrize("reason", ["quality/gopher_words", "quality/gopher_hash_fraction", "quality/c4_sentences", "pii/dense",
                                    "language/unsure", "language/de", "url/adult", "url/blocked_word", "duplicate/minhash", "duplicate/url"])  # fmt: skip
def test_every_rule_can_be_left_out_by_settings_of_a_recipe(reason: str) -> None:
    settings = without_rule(reason, CONFIG)
    assert settings
    assert make_recipe("tiny", settings=settings) != make_recipe("tiny")


@pytest.mark.parametrize("reason", ["", "quality/", "nothing", "duplicate/x", "mime/image", "quality/\x1b[2J"])
def test_a_reason_that_no_setting_changes_is_none(reason: str) -> None:
    assert without_rule(reason, CONFIG) is None


def test_near_duplicates_are_told_apart_above_their_similarity() -> None:
    words = [one + two for one in "abcdefghij" for two in "klmnopqrst"]  # numbers would be equal to dedup
    one, two = " ".join(words), " ".join([*words[:50], "other", *words[51:]])
    assert jaccard(one, two, 5) == pytest.approx(91 / 101)
    assert to_keep_both(one, two, 5) == ["dedup.jaccard_threshold=0.96"]
    assert to_keep_both(one, one, 5) == ["dedup.by_minhash=false"]


def test_a_command_can_be_pasted_into_a_shell() -> None:
    line = command("my recipe.yaml", ["filter.min_gopher_words=3"], "it's taught.jsonl")
    assert line.startswith("crawl2chat run 'my recipe.yaml' --set filter.min_gopher_words=3 --set ")
    assert "$(" not in command("tiny", ["a=$(rm x)"]).replace("'a=$(rm x)'", "")


def test_a_command_keeps_the_sources_that_a_recipe_has() -> None:
    assert taught_mixture("t.jsonl", 5, {"own.jsonl": 1.0}) == (
        'sft.conversations_mixture={"own.jsonl": 1.0, "t.jsonl": 0.05}'
    )
    assert taught_mixture("t.jsonl", 1000).endswith('{"t.jsonl": 0.2}')
    assert '"own.jsonl": 1.0, "t.jsonl": 0.01' in command("tiny", [], "t.jsonl", {"own.jsonl": 1.0})


@pytest.mark.parametrize(
    ("name", "one", "two", "kept"),
    [
        ("max_gopher_words", 5, 9, 9),
        ("min_gopher_words", 5, 9, 5),
        ("jaccard_threshold", 0.9, 0.96, 0.96),
        ("languages", ["en"], ["en", "de"], ["en", "de"]),
        ("language_threshold", 0.5, 0.3, 0.3),
    ],
)
def test_of_two_values_the_one_that_keeps_more_is_taken(name: str, one: object, two: object, kept: object) -> None:
    assert wider(name, one, two) == wider(name, two, one) or name == "languages"
    assert wider(name, one, two) == kept


class DroppedPages(FilterConfig):
    num: int = 8


def write_dropped(ctx: StageContext, config: DroppedPages) -> Outcome:
    with KeptDroppedWriter(ctx.folder, "a.parquet") as writer:
        for number in range(config.num):
            page = Document(id=str(number), url="", date="", file="", offset=number, text="", attributes={"gopher_words": 40.0 - number})  # fmt: skip
            writer.drop(page, "quality/gopher_words")
    return Outcome({"documents": 0, "text_bytes": 0})


@pytest.mark.parametrize(("threshold", "least"), [(None, 36), (7, 34), (20, 33)])
def test_settings_keep_as_many_dropped_documents_as_are_enough(store: Store, threshold: int | None, least: int) -> None:
    manifest = execute(Step("filter", 1, Documents, DroppedPages(), {}, run=write_dropped), store)
    run = Run(manifest, {manifest.id: manifest})
    evidence = Evidence(store, run, None, None, None, threshold)  # type: ignore[arg-type]
    dropped = [IndexedText("dropped", str(number), "") for number in range(8)]
    assert list(changes(evidence, "dropped", dropped)) == [f"filter.min_gopher_words={least}"]
