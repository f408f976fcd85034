"""jusText (Pomikálek 2011, https://is.muni.cz/th/45523/fi_d/phdthesis.pdf): paragraphs of a page by length, stop words and links.

Each paragraph's class is the jusText library's; two parts are written here. What makes paragraphs of a tree: three quarters of the library's
time go into cleaning a copy of the page, SAX events and paths that nobody reads; here the tree that trafilatura reads too is walked once.
And what revises classes by their neighbours: the library's takes time with the square of the paragraphs, minutes for a page of 50,000.
tests/tasks/ingest/test_justext_paragraphs.py compares both with the library.

Departs from the library in the parser (trafilatura's, which has removed comments), and in the stop words: those of the language that the page
names in `lang`, else of English: a page in a language without a list has no good paragraphs. Blank text between two elements separates
their words, which the library joins.
"""

import re
from collections.abc import Iterable, Sequence, Set
from functools import cache
from typing import Any

# What the library has lxml's cleaner remove: with all they hold, or the tags alone.
KILLED = frozenset(["script", "style", "head", "applet", "base", "button", "input", "select", "textarea"])
TRANSPARENT = KILLED | {"form", "iframe", "embed", "layer", "object", "param"}
BLOCKS = frozenset(
    [
        *("body", "blockquote", "caption", "center", "col", "colgroup", "dd", "div", "dl", "dt", "fieldset", "legend"),
        *("optgroup", "option", "p", "pre", "table", "td", "tfoot", "th", "thead", "tr", "ul", "li"),
        *("h1", "h2", "h3", "h4", "h5", "h6"),
    ]
)
HEADINGS = frozenset(f"h{level}" for level in range(1, 7))
MARKING = BLOCKS | {"br", "a"}
LANGUAGES = {
    "da": "Danish", "de": "German", "en": "English", "es": "Spanish", "fi": "Finnish", "fr": "French", "it": "Italian",
    "nl": "Dutch", "no": "Norwegian_Bokmal", "pl": "Polish", "pt": "Portuguese", "ru": "Russian", "sv": "Swedish",
}  # fmt: skip
HEADING_CHARACTERS = 200  # between a heading and the text that makes it one
SPACE = re.compile(r"\s+")


class Paragraph:
    """A block of text with the attributes that jusText's classification reads and sets."""

    dom_path = ""  # it asks for "select" in it; those were not entered
    cf_class = class_type = ""
    heading = False

    def __init__(self, text: str, chars_count_in_links: int, is_heading: bool) -> None:
        self.text, self.chars_count_in_links, self.is_heading = text, chars_count_in_links, is_heading

    def __len__(self) -> int:
        return len(self.text)

    def stopwords_density(self, stopwords: frozenset[str]) -> float:
        """The share of the words that are stop words."""
        words = self.text.lower().split()
        return sum(map(stopwords.__contains__, words)) / len(words) if words else 0.0

    def links_density(self) -> float:
        """The share of the characters that are in links."""
        return self.chars_count_in_links / len(self.text) if self.text else 0.0


def good_paragraphs(tree: Any) -> list[str]:
    """The texts of the paragraphs that jusText takes for main text, in order."""
    from justext.core import classify_paragraphs

    found = paragraphs(tree)
    classify_paragraphs(
        found, stop_words(tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang") or "")
    )
    classes = revise(found)
    return [paragraph.text for paragraph, final in zip(found, classes, strict=True) if final == "good"]


def revise(found: Sequence[Paragraph]) -> list[str]:
    """The final class of each paragraph, good or bad, by its own class and those of its neighbours (section 3.3 of the thesis)."""
    # The thesis first takes short headings before good text for nearly good. In the library (3.0) that step has no effect, since it reads the
    # classes of later paragraphs before they are set; the step at the end finds these headings.
    classes = [paragraph.cf_class for paragraph in found]
    decided, nearest = _neighbours(classes, {"short", "neargood"}), _neighbours(classes, {"short"})
    for place, own in enumerate(list(classes)):
        if own == "short":
            around = decided[place]
            is_near = any(far == "bad" and near == "neargood" for far, near in zip(around, nearest[place], strict=True))
            classes[place] = around[0] if around[0] == around[1] else "good" if is_near else "bad"
    before = "bad"
    for place, (_, after) in enumerate(_neighbours(classes, {"neargood"})):
        if classes[place] == "neargood":  # in order: one that became good helps the next
            classes[place] = "bad" if before == after == "bad" else "good"
        before = classes[place]
    for place, paragraph in enumerate(found):
        if (
            paragraph.heading
            and classes[place] == "bad" != paragraph.cf_class
            and _is_before_good(found, classes, place)
        ):
            classes[place] = "good"
    return classes


def _is_before_good(found: Sequence[Paragraph], classes: Sequence[str], place: int) -> bool:
    """Whether a good paragraph follows within HEADING_CHARACTERS."""
    distance = 0
    for after in range(place + 1, len(found)):
        if distance > HEADING_CHARACTERS:
            return False
        if classes[after] == "good":
            return True
        distance += len(found[after])  # no paragraph is empty, so that few are visited
    return False


def _neighbours(classes: Sequence[str], ignored: Set[str]) -> list[tuple[str, str]]:
    """Of each place the nearest class before and after it that is not ignored; bad where there is no such neighbour."""

    def nearest_before(some: Iterable[str]) -> list[str]:
        found, last = [], "bad"
        for one in some:
            found.append(last)
            last = last if one in ignored else one
        return found

    return list(zip(nearest_before(classes), reversed(nearest_before(reversed(classes))), strict=True))


@cache
def _stop_words(language: str) -> frozenset[str]:
    import justext

    words: frozenset[str] = justext.get_stoplist(language)
    return words


def stop_words(lang: str) -> frozenset[str]:
    """The stop words of a language as HTML names it: de, de-AT."""
    return _stop_words(LANGUAGES.get(lang[:2].lower(), "English"))


def paragraphs(tree: Any) -> list[Paragraph]:
    """The paragraphs of a page: a block element begins and ends one, and so do two line breaks after each other."""
    from lxml.etree import iterwalk

    maker = ParagraphMaker()
    walk = iterwalk(tree, events=("start", "end"))
    for event, element in walk:
        tag, is_start = element.tag, event == "start"
        if tag in KILLED and is_start:
            walk.skip_subtree()
            continue
        if tag in MARKING:  # others, such as b and span, end nothing
            maker.start(tag) if is_start else maker.end(tag)
        elif is_start and tag not in TRANSPARENT:
            maker.after_break = False
        if text := element.text if is_start else element.tail:
            maker.add(text)
    maker.cut()
    return maker.found


class ParagraphMaker:
    """Collects the text between the ends of blocks."""

    def __init__(self) -> None:
        self.found: list[Paragraph] = []
        self.texts: list[str] = []
        self.heading_depth = self.link_characters = 0
        self.in_link = self.after_break = self.is_heading = False

    def start(self, tag: str) -> None:
        """An element begins that is a block, a line break or a link."""
        if tag in BLOCKS:
            self.heading_depth += tag in HEADINGS
            self.cut()
        elif tag == "br":
            if self.after_break:
                self.cut()
            else:
                self.after_break = True
                self.texts.append(" ")
        else:
            self.in_link, self.after_break = True, False

    def end(self, tag: str) -> None:
        """Such an element ends."""
        if tag in BLOCKS:
            self.heading_depth -= tag in HEADINGS
            self.cut()
        elif tag == "a":
            self.in_link = False

    def add(self, text: str) -> None:
        """Text of the current paragraph."""
        self.texts.append(text)
        if not text.isspace():
            self.after_break = False
            if self.in_link:
                self.link_characters += len(SPACE.sub(" ", text))

    def cut(self) -> None:
        """The paragraph ends, and the next begins: as a heading if it begins within one, as in the library."""
        if self.texts:
            if text := " ".join("".join(self.texts).split()):
                self.found.append(Paragraph(text, self.link_characters, self.is_heading))
            self.texts, self.link_characters = [], 0
        self.is_heading = self.heading_depth > 0
