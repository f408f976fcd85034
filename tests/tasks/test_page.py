"""Pages: one file that loads nothing, and text of strangers that stays text."""

import re

import pytest
from lxml import html as parser
from markupsafe import Markup

from tasks.markdown import one_line, table
from tasks.page import Section, charts, folded, from_markdown, page, paragraph

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://tracker.example/a.png)",
    "<http://tracker.example/>",
    "`</code><script>`",
    "</td></table><iframe src=x>",
    "[a]: http://tracker.example/\n\n[a]",
    "&lt;script&gt;",
    "--></style><script>",
    "\x1b[31m\u202e",
]
ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "nav",
        "a",
        "section",
        "p",
        "div",
        "br",
        "li",
        "ul",
        "ol",
    ),
    *(
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "em",
        "strong",
        "details",
        "summary",
        "blockquote",
        "pre",
        "hr",
    ),
}


def elements(text: str) -> list[parser.HtmlElement]:
    return [element for element in parser.document_fromstring(text).iter() if isinstance(element.tag, str)]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_strangers_stays_text(text: str) -> None:
    bodies = [from_markdown(f"x {text} y\n\n{table(['a', 'b'], [[one_line(text), one_line(text)]])}"), paragraph(text)]
    whole = page(text, paragraph(text), [Section(text, body) for body in bodies])
    found = elements(whole)
    assert {element.tag for element in found} <= ALLOWED
    for element in found:
        assert not [name for name in element.attrib if name.startswith("on") or name == "src"]
        assert element.get("href", "#").startswith("#")
    assert not re.search("[\x00-\x08\x1b\u202e]", whole)


def test_escaped_markdown_is_shown_as_it_was() -> None:
    text = "a <b> *c* `d` | e # f [g] ~h~ & \\i"
    cells = parser.fromstring(str(from_markdown(table(["x", "y"], [[one_line(text), "1"]])))).iter("td")
    assert next(iter(cells)).text_content() == text


def test_page_has_a_link_to_every_section_and_forbids_requests() -> None:
    whole = page("T", Markup(""), [Section("One & two", folded("more", paragraph("x"))), Section("Three", charts([]))])
    tree = parser.document_fromstring(whole)
    assert [link.get("href") for link in tree.iter("a")] == ["#one-two", "#three"]
    assert [section.get("id") for section in tree.iter("section")] == ["one-two", "three"]
    policy = next(meta.get("content") for meta in tree.iter("meta") if meta.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "@import" not in whole
    assert "url(" not in whole
