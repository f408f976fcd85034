"""Mends HTML that parsers refuse: characters that XML forbids, and elements nested deeper than libxml2 reads.

Functions of text, in linear time. Without them one `&#xFFFE;` lost the page (lxml raises ValueError when trafilatura copies such a
text), and so did nesting: libxml2 stops at 256 elements and drops the rest of the page without an error. Its option for huge
trees stops at 2,048 instead, and trafilatura's time grows with the square of the depth (5 s for 2,000 elements), so deep elements
are taken out instead and their text stays.
"""

import re
from collections import Counter
from typing import Any

MAX_DEPTH = 180  # libxml2 has 256, and adds missing elements such as html, body and tbody
NUMBER_DIGITS = 7  # of a code point, without leading zeros
REFERENCE = re.compile(r"&#(?:[xX]0*([0-9a-fA-F]+)|0*([0-9]+));?")
FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
SUSPECTS = "\0\ufffe\uffff"  # the others that remain after decoding harm no parser, and are removed from the text
# An attribute that holds < hides its tag here; the depth counted is then a little off, for which MAX_DEPTH leaves room
TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]{0,30})[^<>]*+>")
VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)
BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
CLOSED_BY_THEMSELVES = frozenset(["p", "li", "dt", "dd", "option", "td", "th", "tr"])  # by the next of the same name


def remove_forbidden(text: str) -> str:
    """Without control characters, surrogates and noncharacters: none of them is text."""
    return FORBIDDEN.sub("", text)


def mend_characters(html: str) -> str:
    """HTML without noncharacters and without references to what XML forbids. `decode` has removed control characters."""
    if "&#" in html:
        html = REFERENCE.sub(_mended, html)
    return remove_forbidden(html) if any(character in html for character in SUSPECTS) else html


def _mended(reference: re.Match[str]) -> str:
    digits = reference[1] or reference[2]
    code = int(digits, 16 if reference[1] else 10) if len(digits) <= NUMBER_DIGITS else 0
    # FFFE and FFFF of every plane are noncharacters, those beyond the first plane too.
    is_character = 0 < code < 0x110000 and not FORBIDDEN.match(chr(code)) and code & 0xFFFE != 0xFFFE
    return reference[0] if is_character or 0x80 <= code < 0xA0 else ""  # these mean windows-1252, which parsers know


def load_tree(html: str, max_size: int | None = None) -> Any:
    """trafilatura's tree of a page, whole also if it is nested too deep for libxml2; None if the page is no HTML."""
    from trafilatura import utils

    tree = utils.load_html(html, max_size)
    error = utils.HTML_PARSER.error_log.last_error
    if error is not None and error.type_name == "ERR_RESOURCE_LIMIT":
        tree = utils.load_html(flatten(html), max_size)
    return tree


def flatten(html: str, max_depth: int = MAX_DEPTH) -> str:
    """HTML without the tags of elements nested deeper than `max_depth`; blocks leave a line break."""
    parts: list[str] = []
    stack: list[str] = []
    removed: Counter[str] = Counter()  # elements that are open, by name
    position = 0
    for tag in TAG.finditer(html):
        name = tag[2].lower()
        if name in VOID:
            continue
        if tag[1]:
            # The end tag of a removed element goes with it; else all that is open within the element ends, as in a parser.
            is_removed = removed[name] > 0
            removed[name] -= is_removed
            if not is_removed and name in stack:
                while stack.pop() != name:
                    pass
        else:
            if stack and stack[-1] == name and name in CLOSED_BY_THEMSELVES:
                stack.pop()
            is_removed = len(stack) >= max_depth
            if is_removed:
                removed[name] += 1
            else:
                stack.append(name)
        if is_removed:
            parts += (html[position : tag.start()], "<br>" if name in BLOCKS else "")
            position = tag.end()
    parts.append(html[position:])
    return "".join(parts)
