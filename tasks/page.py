"""A report as one HTML file: Markdown made to HTML, charts, and the style sheet, with nothing to load and no script.

Reads page.css next to it; writes nothing. What a report says may come from hostile pages and from models. So Markdown is read without HTML
in it (markdown-it-py escapes it), all else goes through markupsafe, and the page's Content-Security-Policy forbids scripts and any
request, should an escape be forgotten somewhere.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from tasks.markdown import CONTROL

# No image either: a picture of a page could be a request, and data: is not needed, since charts are inline SVG.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Section(NamedTuple):
    """A part of a page under a heading."""

    title: str
    body: Markup


def page(title: str, introduction: Markup, sections: Sequence[Section]) -> str:
    """The whole file."""
    links = Markup("\n").join(Markup('<a href="#{}">{}</a>').format(_anchor(one.title), one.title) for one in sections)
    parts = Markup("\n").join(
        Markup('<section id="{}">\n<h2>{}</h2>\n{}</section>').format(_anchor(one.title), one.title, one.body)
        for one in sections
    )
    template = Markup(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n<style>{style}</style>\n</head>\n'
        "<body>\n<h1>{title}</h1>\n{introduction}\n<nav>{links}</nav>\n{parts}\n</body>\n</html>\n"
    )
    # The style sheet is the project's own and must not be escaped: `>` is a part of CSS.
    whole = template.format(
        policy=POLICY, title=title, style=_style(), introduction=introduction, links=links, parts=parts
    )
    return CONTROL.sub("\ufffd", str(whole))


def from_markdown(text: str) -> Markup:
    """Markdown as HTML: headings, tables, quotes, emphasis and code. HTML in it is shown as text, links and images are not followed."""
    html = _parser().render(text)
    # A wide table scrolls by itself instead of widening the page of a telephone.
    html = html.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    return Markup(html)  # noqa: S704 (the parser has escaped what is text)


def folded(title: str, body: Markup) -> Markup:
    """A part that a reader opens."""
    return Markup("<details><summary>{}</summary>{}</details>").format(title, body)


def charts(figures: Sequence[Markup]) -> Markup:
    """Charts in rows, as many next to each other as fit; empty ones are left out."""
    shown = [figure for figure in figures if figure]
    return Markup('<div class="charts">{}</div>').format(Markup("").join(shown)) if shown else Markup("")


def paragraph(text: str) -> Markup:
    """A line of plain text."""
    return Markup("<p>{}</p>\n").format(escape(text))


@cache
def _parser() -> MarkdownIt:
    # Links and images off: reports have none, and a page's text could be one.
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "image", "autolink", "reference"])


@cache
def _style() -> Markup:
    text = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 (the project's file)


def _anchor(title: str) -> str:
    """A heading as the target of a link: lower-case letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")
