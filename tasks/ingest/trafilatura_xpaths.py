"""trafilatura's searches for parts of a page, so that they find the same in less than half the time.

trafilatura looks for the article and for what is not wanted with a dozen XPath expressions, each of which holds the class and id of
every element against long regular expressions; with the copies of a page these are 6,000 looks at an element, and most of what it
costs. Here every element is looked at once, when the page is read: where one of its attributes fits a search, the search's letter is
written into an attribute of its own, which the copies keep. A search then asks its expression of the elements with its letter
alone, and nothing where the page has none. What an attribute must fit is read from the expressions themselves; an element that has
the letter and is not meant costs time, and is not found. The searches for an attribute are one automaton of RE2 (Cox 2010), which
reads a value once. Beside that, elements are made by lxml's own table of classes instead of a function in Python, as nobody here
asks for the fields of a form. With tasks/ingest/trafilatura_fallback.py trafilatura costs 45%.

Reads and changes the lists in `trafilatura.xpaths` of the versions it was tried with, and nothing of others: these are slower then.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from string import ascii_letters
from typing import Any

import re2

from tasks.ingest.trafilatura_fallback import extract_and_compare

TRIED = "2.3."
NAMESPACE = "http://exslt.org/regular-expressions"
LETTERS = "letters"  # the attribute with those of an element, and, at the root, with those of the page
SEARCHES = (
    *("RAW_TREE_PRUNE_XPATH", "REMOVE_COMMENTS_AND_LISTS_XPATH", "REMOVE_COMMENTS_XPATH", "BODY_XPATH"),
    *("OVERALL_DISCARD_XPATH", "DISCARD_IMAGE_ELEMENTS", "TEASER_DISCARD_XPATH", "PRECISION_DISCARD_XPATH"),
)
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
REMEMBERED_CHARACTERS = 1000
LOOKAHEAD = re.compile(r"\(\?[=!]\w+\)")  # RE2 has none; without, more is found

Search = Callable[[Any], list[Any]]


class Letters:
    """Which searches the value of an attribute fits. Remembered, as pages repeat their classes."""

    def __init__(self) -> None:
        self.letters = ""
        self.patterns = re2.Set.SearchSet()
        self.remembered = lru_cache(maxsize=2**15)(self.found)

    def add(self, letter: str, pattern: str) -> None:
        self.letters += letter
        self.patterns.Add(LOOKAHEAD.sub("", pattern))

    def found(self, value: str) -> str:
        return "".join([self.letters[number] for number in self.patterns.Match(value) or ()])

    def of(self, value: str) -> str:
        return self.remembered(value) if len(value) < REMEMBERED_CHARACTERS else self.found(value)


_letters: defaultdict[str, Letters] = defaultdict(Letters)  # by attribute


def patch_trafilatura() -> bool:
    """Change the searches of this process; False where the version of trafilatura is none of those tried."""
    from lxml.etree import ElementDefaultClassLookup
    from lxml.html import HtmlComment, HtmlElement
    from trafilatura import utils, xpaths

    core: Any = import_module("trafilatura.core")
    if not version("trafilatura").startswith(TRIED):
        return False
    if core.load_html is _load:
        return True
    _letters.clear()
    names = iter(ascii_letters)
    for name in SEARCHES:
        expressions = getattr(xpaths, name)
        expressions[:] = [_quickened(expression, next(names)) for expression in expressions]
    for letters in _letters.values():
        letters.patterns.Compile()
    core.load_html = _load
    core._extract_and_compare = extract_and_compare
    utils.HTML_PARSER.set_element_class_lookup(ElementDefaultClassLookup(element=HtmlElement, comment=HtmlComment))
    return True


def _quickened(expression: Any, letter: str) -> Search:
    """The search of an expression for elements that fit any of its conditions; the expression itself where it is another."""
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
        _letters[attribute].add(letter, "|".join(alternatives))
    return _search(expression, shape, letter)


def _pattern(condition: re.Match[str]) -> str:
    """What is found in every value that fits a condition."""
    text = condition["text"]
    if text is None:  # the attribute is there
        return ""
    if condition["function"] != "re:test":
        text = re.escape(text)
    is_start = condition["function"] in ("starts-with", None)
    ignored_case = "i" if condition["translated"] or condition["flag"] else ""
    return f"(?{ignored_case}:{'^' * is_start}{text})"


def _search(expression: Any, shape: re.Match[str], letter: str) -> Search:
    """`expression`, asked of the elements with `letter`. Of those that end in [1] the first alone is of use."""
    from lxml.etree import XPath

    tags = re.findall(r"self::(\w+)", shape["tags"] or "") or ["*"]
    predicates = f"{shape['tags'] or ''}{shape['conditions']}{shape['more']}"
    is_meant = XPath(f"self::*{predicates}", namespaces={"re": NAMESPACE})
    most = 1 if shape["first"] else None

    def search(tree: Any) -> list[Any]:
        letters = tree.getroottree().getroot().get(LETTERS)
        if letters is None:  # of a page that was not read by `_load`
            found: list[Any] = expression(tree)
            return found
        if letter not in letters:
            return []
        likely = (element for element in tree.iterdescendants(*tags) if letter in element.get(LETTERS, ""))
        return list(islice(filter(is_meant, likely), most))

    return search


def _load(page: Any, max_size: int | None = None) -> Any:
    """trafilatura's tree of a page, with letters."""
    from trafilatura import utils

    tree = utils.load_html(page, max_size)
    if tree is not None:
        letters: set[str] = set()
        for element in tree.iter("*"):
            if found := "".join([_letters[name].of(value) for name, value in element.items() if name in _letters]):
                element.set(LETTERS, found)
                letters.update(found)
        tree.set(LETTERS, "".join(letters))
    return tree
