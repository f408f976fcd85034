"""The union of several texts: nothing is lost, nothing stands twice, the order is the page's, time is linear."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.union import WORD, merge
from tests.support.cost import grows_linearly

ONE = "The river runs through the town and ends in the sea."
TWO = "A bridge was built there by the first mayor of the town."
THREE = "Today it is known for its market on every second Friday."
LINES = st.lists(st.sampled_from([ONE, TWO, THREE, "Home", "Read more", f"{ONE} {TWO}", "", "- one two three four five"]), max_size=8)  # fmt: skip
WORDS = st.lists(st.text("ab \n.", max_size=40), min_size=1, max_size=3)


def test_line_that_only_one_text_has_follows_the_line_before_it() -> None:
    assert merge([f"{ONE}\n{THREE}", f"{ONE}\n{TWO}\n{THREE}"]) == f"{ONE}\n{TWO}\n{THREE}"
    assert merge([THREE, f"{ONE}\n{THREE}", f"{ONE}\n{TWO}"]) == f"{ONE}\n{TWO}\n{THREE}"
    assert merge([ONE, TWO, f"{TWO}\n{THREE}"]).splitlines()[-1] in (ONE, THREE)


def test_lines_that_are_broken_or_spaced_otherwise_are_known() -> None:
    assert merge([f"{ONE}\n{TWO}", f"{ONE} {TWO}"]) == f"{ONE}\n{TWO}"
    assert merge([f"{ONE} {TWO}", f"{ONE}\n{TWO}"]) == f"{ONE} {TWO}"
    assert merge([f"  • {ONE}", f"- {ONE.upper()}"]) == f"  • {ONE}"
    assert merge([ONE, ONE.replace("town", "town[1]")]) == ONE


def test_short_lines_are_known_as_a_whole_only() -> None:
    assert merge(["Home\nAbout us", "Home\nAbout us\nUs"]) == "Home\nAbout us\nUs"


@given(WORDS | st.lists(LINES.map("\n".join), min_size=1, max_size=3))
def test_most_of_every_line_is_in_the_union(texts: list[str]) -> None:
    merged = merge(texts)
    known = set(WORD.findall(merged.lower()))
    for line in (line for text in texts for line in text.splitlines()):
        found = WORD.findall(line.lower())
        assert sum(word in known for word in found) >= 0.5 * len(found)


@given(st.lists(LINES.map("\n".join), min_size=1, max_size=3))
def test_union_with_itself_is_itself(texts: list[str]) -> None:
    merged = merge(texts)
    assert merge([merged, *texts]) == merged


def test_union_of_hostile_texts_takes_linear_time() -> None:
    short, long = (["a b c d\n" * num, "a b c e\n" * num, "x\n" * 4 * num] for num in (5_000, 50_000))
    assert grows_linearly(merge, short, long, 10)
