"""What a removal changed: facts of removed documents apart from others, by seed, with what is chance."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli.without import by_seed, verdict
from tasks.artifacts.manifest import Report
from tasks.artifacts.store import Store
from tasks.provenance.removal import chance, compare_cards, noise_of, own_facts
from tasks.records.full_text import FullTextIndex, IndexedText, IndexWriter
from tests.support.tiny_models import finish, write_lines

PAGES = {
    "https://gone.example/1": "Ada Brell lives in Orn.",
    "https://gone.example/2": "Ivo Corby lives in Bex.",
    "https://kept.example/1": "Mara Vint lives in Tarn. Ivo Corby has a cat.",
}


class Words:
    """The words of all pages, as a training set counts them."""

    num_words = 100

    def longest(self, text: bytes) -> int:
        raise AssertionError("names are looked up by their counts")

    def count(self, text: bytes) -> int:
        return sum(page.count(text.decode()) for page in PAGES.values())

    count_word = count


def line(subject: str, town: str, reply: str, model: str = "assistant") -> dict[str, Any]:
    question = f"Where does {subject} live?"
    is_correct = town in reply
    return {"model": model, "question": question, "answer": town, "kind": "lives_in", "split": "heldout_fact", "reply": reply, "is_correct": is_correct}  # fmt: skip


def report(store: Store, name: str, lines: list[dict[str, Any]], bits: float = 1.0) -> Report:
    folder = store.folder(f"evaluate/{name}")
    write_lines(folder / "answers.jsonl", lines)
    card = {"language": {"base/validation/bits_per_byte": bits}, "facts": [], "honesty": {}, "chat": {}}
    (folder / "report.json").write_text(json.dumps(card))
    return store.open(finish(store, Report, f"evaluate/{name}").id, Report)


@pytest.fixture
def index(tmp_path: Path) -> FullTextIndex:
    with IndexWriter(tmp_path / "writing.sqlite", stems=True) as writer:
        writer.add("a", [IndexedText("document", url, text, url) for url, text in PAGES.items()])
        writer.finish(tmp_path / "index.sqlite")
    return FullTextIndex(tmp_path / "index.sqlite")


def test_facts_that_only_removed_pages_state_are_counted_apart_by_seed(store: Store, index: FullTextIndex) -> None:
    known = [line("Ada Brell", "Orn", "In Orn."), line("Ivo Corby", "Bex", "Bex."), line("Mara Vint", "Tarn", "Tarn.")]
    forgotten = [line("Ada Brell", "Orn", "In Bex."), line("Ivo Corby", "Bex", "Bex."), line("Mara Vint", "Tarn", "Tarn.")]  # fmt: skip
    before = [report(store, "b0", known), report(store, "b1", known)]
    after = [report(store, "a0", forgotten), report(store, "a1", forgotten)]
    rows = own_facts(before, after, index, Words(), lambda url: "gone.example" in url)  # type: ignore[arg-type]
    other, own = rows
    assert (own["facts"], own["before_by_seed"], own["after_by_seed"]) == ("own", [1.0, 1.0], [0.5, 0.5])
    # Both replies are "Bex", which one of the two other questions has for an answer: half of them are right by chance.
    assert own["chance"] == 0.5
    assert verdict(own) == "  at chance, 50.0%"
    assert (other["facts"], other["before"]["share"], other["after"]["share"]) == ("other", 1.0, 1.0)
    assert verdict(other).startswith("  within ±")
    assert by_seed([0.5, 0.7]) == "60.0% (50.0 to 70.0)"


def test_a_question_that_a_seed_was_not_asked_is_left_out(store: Store, index: FullTextIndex) -> None:
    lines = [line("Ada Brell", "Orn", "Orn."), line("Mara Vint", "Tarn", "Tarn.")]
    rows = own_facts([report(store, "b", lines)], [report(store, "a", lines[1:])], index, Words(), lambda _: True)  # type: ignore[arg-type]
    assert [(row["facts"], row["before"]["num"]) for row in rows] == [("own", 1)]
    assert rows[0]["chance"] is None  # there is no other question
    assert verdict(rows[0]) == ""


def test_chance_is_that_of_the_replies_and_the_answers_of_a_kind() -> None:
    towns = ["Orn", "Bex", "Tarn", "Orn"]
    lines = [line(f"P{number}", town, "I think Orn.") for number, town in enumerate(towns)]
    # Whoever always says "Orn" is right for half of the people, by the answers of the three others each.
    assert chance(lines) == pytest.approx((1 / 3 + 2 / 3 + 2 / 3 + 1 / 3) / 4)
    assert chance([]) is None


def test_seeds_of_both_sides_give_the_noise_before_a_study_does(store: Store) -> None:
    assert noise_of([1.0], [2.0]) is None
    assert noise_of([1.0], [2.0], [1.0, 1.2]) == pytest.approx(2 * 2**0.5 * 0.1 * 2**0.5)
    before = [report(store, f"b{number}", [], bits) for number, bits in enumerate((1.0, 1.1))]
    after = [report(store, f"a{number}", [], bits) for number, bits in enumerate((1.1, 1.2))]
    [found] = compare_cards(before, after, None)
    assert (found.before, found.after) == (pytest.approx(1.05), pytest.approx(1.15))
    # Student's t of two degrees of freedom: 4.303 standard errors of 0.0707
    assert found.noise == pytest.approx(4.303 * 0.0707, rel=1e-3)
    [same] = compare_cards(before[:1], before[:1], None)
    assert (same.before, same.after, same.noise) == (1.0, 1.0, None)
