"""trafilatura's XPath expressions, compiled so that they find the same in less time.

trafilatura looks for unwanted parts of a page with expressions that test the class and id of every element against long regular
expressions. They are most of what it costs, for a reason outside of them: lxml makes two Python objects of every attribute before
it searches it, and walks `.//*[...]` by way of the list of all nodes. Here an attribute is passed as a string, only where there is
one, what was found in it is remembered, as pages repeat their classes, descendants are walked as such, and one look at an element's
name stands for a set of nodes for every name. Beside that, elements are made by lxml's own table of classes instead of a function in
Python, as nobody here asks for the fields of a form. Together trafilatura costs two thirds.

Reads and changes the lists in `trafilatura.xpaths` of the versions it was tried with, and nothing of others: these are slower then.
"""

import re
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

TRIED = "2.3."
NAMESPACE = "http://exslt.org/regular-expressions"
REGEX_TEST = re.compile(r"re:test\((@[\w@|-]+),((?:'[^']*'|[^')])*)\)")
BY_POSITION = re.compile(r"\]\s*\[\d+\]")  # among the children of each parent, which are not its descendants
BY_NAME = re.compile(r"\[self::\w+(?: or self::\w+)+\](?=\[)")
REMEMBERED_CHARACTERS = 1000


def quicken() -> bool:
    """Compile the expressions of this process; False where the version of trafilatura is none of those tried."""
    from lxml.etree import ElementDefaultClassLookup
    from lxml.html import HtmlComment, HtmlElement
    from trafilatura import utils, xpaths

    if not version("trafilatura").startswith(TRIED):
        return False
    for expressions in vars(xpaths).values():
        if isinstance(expressions, list):
            expressions[:] = [_compiled(expression.path) for expression in expressions]
    utils.HTML_PARSER.set_element_class_lookup(ElementDefaultClassLookup(element=HtmlElement, comment=HtmlComment))
    return True


def _compiled(path: str) -> Any:
    from lxml.etree import XPath

    path = REGEX_TEST.sub(r"(\1 and re:test(string(\1),\2))", path)
    if not BY_POSITION.search(path):
        path = path.replace(".//*[", "descendant::*[")
    path = BY_NAME.sub(_one_of, path)
    functions = {(NAMESPACE, "test"): _test}
    return XPath(path, namespaces={"re": NAMESPACE}, extensions=functions, regexp=False, smart_strings=False)


def _one_of(names: re.Match[str]) -> str:
    known = "|".join(re.findall(r"self::(\w+)", names[0]))
    return f"[contains('|{known}|', concat('|', name(), '|'))]"


def _test(_: Any, value: str, pattern: str, flags: str = "") -> bool:
    """XPath's re:test, with the one flag that is used."""
    if len(value) < REMEMBERED_CHARACTERS:
        return _is_found(value, pattern, flags)
    return _pattern(pattern, flags).search(value) is not None


@lru_cache(maxsize=2**17)
def _is_found(value: str, pattern: str, flags: str) -> bool:
    return _pattern(pattern, flags).search(value) is not None


@cache
def _pattern(pattern: str, flags: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE if "i" in flags else 0)
