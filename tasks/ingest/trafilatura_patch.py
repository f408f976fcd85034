"""Makes trafilatura 2.3 twice as fast with the same output. The only file that touches trafilatura's internals.

Applied once in each extraction process by `patch_trafilatura`. With any other version, or if an internal name has changed, it logs one
warning and changes nothing: extraction is then slower, and its output the same. tests/tasks/ingest/test_trafilatura_patch.py compares
the outputs on real pages and each search on random trees.

Five things cost trafilatura more than half of its time:

1. Searches. It looks for the article and for unwanted parts with a dozen XPath expressions, each of which tests the class and id of
   every element against long regular expressions: some 6,000 tests in a page. Here each attribute value is tested once, when the
   page is parsed, against all expressions at the same time (one RE2 automaton, Cox 2010), and each element is tagged with the letters
   of the expressions that it may match, in an attribute added for this, which copies of the tree keep. A search then runs its expression
   on the elements with its letter alone, once for all of the same name and values. What an attribute must match is read from the
   expressions themselves. An element that has the letter and does not match costs time and is not found, so that the result is the same.
2. readability (Peters 2011). With preference for precision trafilatura also has readability extract the page, and takes that text only
   if its own has no paragraphs or is less than half as long. What readability finds is part of the page's text, so it need not run if
   all text of the page is too short to be taken: on three pages in four, which saves an eighth of the time.
3. Element classes. lxml calls a Python function for each element to choose its class (a form has other fields than a link). A lookup
   by type does the same in C for what trafilatura uses.
4. Characters that XML forbids, which were removed before (tasks/ingest/markup.py) and are searched for with a regular expression.
5. justext's stop words, 154,000 of 100 languages, which are hashed for each page.

Together trafilatura takes 41% of its time (a quarter of the pages of tests/benchmarks/fineweb_speed.py). Worth offering upstream; then
this file can go.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from string import ascii_letters
from typing import Any

import re2

from tasks.ingest.markup import load_tree

CHECKED_VERSIONS = ("2.3.",)
VIDEO_CHARACTERS = 5  # readability writes VIDEO in place of one
LETTERS_ATTRIBUTE = "letters"  # of an element; at the root, those of all elements of the page
SEARCHES = (
    *("RAW_TREE_PRUNE_XPATH", "REMOVE_COMMENTS_AND_LISTS_XPATH", "REMOVE_COMMENTS_XPATH", "BODY_XPATH"),
    *("OVERALL_DISCARD_XPATH", "DISCARD_IMAGE_ELEMENTS", "TEASER_DISCARD_XPATH", "PRECISION_DISCARD_XPATH"),
)
REGULAR_EXPRESSIONS = "http://exslt.org/regular-expressions"
PREDICATE = r"\[(?:'[^']*'|[^'\[\]])*\]"
SEARCH = re.compile(
    rf"\s*\(?\.//\*(?P<tags>\[self::\w+(?: or self::\w+)*\])?(?P<conditions>{PREDICATE})"
    rf"(?P<more>(?:{PREDICATE})*?)\s*\)?(?P<first>\[1\])?\s*"
)
CONDITION = re.compile(
    r"(?:(?P<function>re:test|contains|starts-with)\((?:translate\()?)?(?P<attributes>@[\w-]+(?:\|@[\w-]+)*)"
    r"(?P<translated>, *'[A-Z]+', *'[a-z]+'\))?(?:(?:=|, *)'(?P<text>[^']*)')?(?P<flag>, *'i')?\)?"
)
ANY_OF = re.compile(r"\[\s*@(?:\s+or\s+@)*\s*\]")
# 2^15 values of at most so many characters are cached for each attribute: 32 MB at worst where they are ASCII
CACHED_CHARACTERS = 1000  # longer values are not cached
CACHED_MATCHES = 2**12  # of each search
LOOKAHEAD = re.compile(r"\(\?[=!]\w+\)")  # RE2 has none; without it more elements are tagged

Search = Callable[[Any], list[Any]]
logger = logging.getLogger(__name__)


class LetterTable:
    """Which searches a value of one attribute may match, as letters. Cached, because pages repeat their classes."""

    def __init__(self) -> None:
        self.letters = ""
        self.patterns = re2.Set.SearchSet()
        self.cached = lru_cache(maxsize=2**15)(self._match)

    def add(self, letter: str, pattern: str) -> None:
        """Add a search: `letter` stands for the values that match `pattern`."""
        self.letters += letter
        self.patterns.Add(LOOKAHEAD.sub("", pattern))

    def letters_of(self, value: str) -> str:
        """The letters of all searches that a value may match."""
        return self.cached(value) if len(value) < CACHED_CHARACTERS else self._match(value)

    def _match(self, value: str) -> str:
        return "".join([self.letters[number] for number in self.patterns.Match(value) or ()])


class StopWords(tuple[str, ...]):
    """justext's stop words of all languages, hashed as one object.

    justext asks a cache for their set at each page, and to hash 154,000 words takes 3 ms.
    """

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


_tables: defaultdict[str, LetterTable] = defaultdict(LetterTable)  # by attribute


@lru_cache(maxsize=1)
def patch_trafilatura() -> bool:
    """Change trafilatura in this process; False, with one warning, if its version is not one of those checked."""
    installed = version("trafilatura")
    if not installed.startswith(CHECKED_VERSIONS):
        logger.warning(
            "trafilatura %s is not one of those checked (%s*): it runs unchanged, at half the speed",
            installed,
            *CHECKED_VERSIONS,
        )
        return False
    try:
        _apply()
    except (AttributeError, ImportError) as error:
        logger.warning(
            "trafilatura %s lacks a name that is expected (%s): it runs unchanged, at half the speed", installed, error
        )
        return False
    return True


def _apply() -> None:
    """Change trafilatura. Raises AttributeError or ImportError before the first change if anything is missing."""
    from lxml.etree import ElementDefaultClassLookup
    from lxml.html import HtmlComment, HtmlElement
    from trafilatura import htmlprocessing, main_extractor, utils, xml, xpaths

    core: Any = import_module("trafilatura.core")
    external: Any = import_module("trafilatura.external")
    used = (
        *((xpaths, name) for name in SEARCHES),
        *((core, name) for name in ("load_html", "_extract_and_compare")),
        *(
            (external, name)
            for name in ("compare_extraction", "_prefer_readability", "jt_stoplist_init", "JT_STOPLIST")
        ),
        *((htmlprocessing, "prune_unwanted_nodes"), (main_extractor, "extract_content"), (xml, "delete_element")),
        *((utils, "load_html"), (utils, "trim"), (utils, "HTML_PARSER"), (utils, "INVALID_XML_CHARS")),
    )
    # All names are looked up before anything is changed: half a patch could change the output.
    for module, name in used:
        getattr(module, name)
    _tables.clear()
    letters = iter(ascii_letters)
    for name in SEARCHES:
        expressions = getattr(xpaths, name)
        expressions[:] = [_faster_search(expression, next(letters)) for expression in expressions]
    for table in _tables.values():
        table.patterns.Compile()
    # `decode` and `mend_characters` have removed the others, and a search for one character is a hundred times as fast.
    utils.INVALID_XML_CHARS = re.compile("\ufffe")
    external.JT_STOPLIST = StopWords(external.jt_stoplist_init())
    core.load_html = load_html
    core._extract_and_compare = extract_and_compare
    utils.HTML_PARSER.set_element_class_lookup(ElementDefaultClassLookup(element=HtmlElement, comment=HtmlComment))


def load_html(page: Any, max_size: int | None = None) -> Any:
    """trafilatura's tree of a page, with letters. A tree is returned as it is, but tagged."""
    tree = load_tree(page, max_size)
    if tree is not None:
        letters: set[str] = set()
        # For every attribute of every element, so that a lookup and a call count.
        letters_of = {name: table.letters_of for name, table in _tables.items()}.get
        for element in tree.iter("*"):
            found = ""
            for name, value in element.items():
                if search := letters_of(name):
                    found += search(value)
            if found:
                element.set(LETTERS_ATTRIBUTE, found)
                letters.update(found)
        tree.set(LETTERS_ATTRIBUTE, "".join(letters))
    return tree


def extract_and_compare(cleaned: Any, backup: Any, page: Any, options: Any) -> tuple[Any, str]:
    """trafilatura's text of a page, or that of its fallbacks if it is better, as an element and as text."""
    from lxml.html import Element
    from trafilatura import external, htmlprocessing, main_extractor, xpaths

    body, text = main_extractor.extract_content(cleaned, options)
    if options.fast:
        return body, text
    if options.focus != "precision":
        return external.compare_extraction(backup, copy(page), body, text, options)
    htmlprocessing.prune_unwanted_nodes(page, xpaths.OVERALL_DISCARD_XPATH)  # as is done before readability reads it
    most = 2 * len(text)
    is_long_enough = 0 < max_readability_characters(page) <= most
    if is_long_enough and not external._prefer_readability(body, page, "", len(text), most, options):
        page = Element("html")
    return external.compare_extraction(backup, page, body, text, options)


def max_readability_characters(page: Any) -> int:
    """At least as many characters as readability finds in a page. Removes what it does not read."""
    from trafilatura import utils, xml

    for element in list(page.iter("script", "style")):
        xml.delete_element(element)
    num_videos = sum(1 for _ in page.iter("iframe"))
    return len(utils.trim(page.text_content())) + num_videos * VIDEO_CHARACTERS


def _faster_search(expression: Any, letter: str) -> Search:
    """The search of an expression that asks for any of several attribute values; the expression itself if it is another kind."""
    path = getattr(expression, "path", "")
    shape = SEARCH.fullmatch(path)
    if not shape or not ANY_OF.fullmatch(CONDITION.sub("@", shape["conditions"])):
        search: Search = expression
        return search
    patterns = defaultdict(list)
    for condition in CONDITION.finditer(shape["conditions"]):
        for attribute in re.findall(r"[\w-]+", condition["attributes"]):
            patterns[attribute].append(_pattern(condition))
    for attribute, alternatives in patterns.items():
        _tables[attribute].add(letter, "|".join(alternatives))
    return _search(expression, shape, letter, tuple(patterns))


def _pattern(condition: re.Match[str]) -> str:
    """A regular expression that every value meeting the condition matches."""
    text = condition["text"]
    if text is None:  # the attribute exists
        return ""
    if condition["function"] != "re:test":
        text = re.escape(text)
    is_start = condition["function"] in ("starts-with", None)
    ignored_case = "i" if condition["translated"] or condition["flag"] else ""
    return f"(?{ignored_case}:{'^' * is_start}{text})"


def _search(expression: Any, shape: re.Match[str], letter: str, attributes: tuple[str, ...]) -> Search:
    """`expression`, run on the elements with `letter` alone. Of an expression that ends in [1] only the first element is used.

    `attributes`: those that its conditions ask for.
    """
    from lxml.etree import XPath

    tags = re.findall(r"self::(\w+)", shape["tags"] or "") or ["*"]
    predicates = f"{shape['tags'] or ''}{shape['conditions']}{shape['more']}"
    is_match: Callable[[Any], Any] = XPath(f"self::*{predicates}", namespaces={"re": REGULAR_EXPRESSIONS})
    if not shape["more"]:
        is_match = _of_values(is_match, attributes)
    max_found = 1 if shape["first"] else None

    def search(tree: Any) -> list[Any]:
        letters = tree.getroottree().getroot().get(LETTERS_ATTRIBUTE)
        if letters is None:  # the page was not parsed by `load_html`
            found: list[Any] = expression(tree)
            return found
        if letter not in letters:
            return []
        candidates = (
            element for element in tree.iterdescendants(*tags) if letter in element.get(LETTERS_ATTRIBUTE, "")
        )
        return list(islice(filter(is_match, candidates), max_found))

    return search


def _of_values(is_match: Callable[[Any], Any], attributes: tuple[str, ...]) -> Callable[[Any], bool]:
    """`is_match`, which depends on the name of an element and these attributes alone, asked once for elements alike."""
    known: dict[tuple[str | None, ...], bool] = {}

    def is_match_of_values(element: Any) -> bool:
        values = (element.tag, *map(element.get, attributes))
        found = known.get(values)
        if found is None:
            found = bool(is_match(element))
            if sum(len(value) for value in values if value) < CACHED_CHARACTERS:
                if len(known) == CACHED_MATCHES:
                    known.clear()
                known[values] = found
        return found

    return is_match_of_values
