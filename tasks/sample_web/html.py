"""Sites and pages of the sample web, and how a page becomes a document and bytes.

Reads the page templates (data/pages); writes nothing. The templates follow what common publishing software emits (semantic articles, wiki
markup, forum posts, table layout, hashed class names), with the boilerplate that an extractor has to remove: navigation, cookie notice,
breadcrumbs, related links, comments, newsletter form, scripts. Markup is kept short so that a crawl stays small.
"""

import datetime
import html
import json
import random
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from markupsafe import Markup

from tasks.sample_web.data import page_templates, table


@dataclass(frozen=True)
class Site:
    """One host. `charset` encodes its bytes; `announced` is where it is declared: header, meta, both, wrong or none."""

    host: str
    name: str
    template: str
    sections: tuple[str, ...]
    scheme: str = "https"
    language: str = "en"
    charset: str = "utf-8"
    announced: str = "header"
    is_broken: bool = False
    is_typographic: bool = False

    @property
    def root(self) -> str:
        """The address of the host, without a slash at the end."""
        return f"{self.scheme}://{self.host}"

    @property
    def number(self) -> int:
        """The number by which a counter of visitors knows the host."""
        return random.Random(self.host + "/analytics").randrange(10**6, 10**7)

    @property
    def stylesheet(self) -> Markup:
        """CSS rules, different for each host."""
        return Markup(_stylesheet(self.host))  # noqa: S704 - made here, of numbers

    @property
    def meta_charset(self) -> Markup:
        """The meta element that declares the charset, where the site has one."""
        if self.announced in ("none", "header"):
            return Markup("")
        charset = wrong_charset(self.charset) if self.announced == "wrong" else self.charset
        if self.template in ("table", "forum"):
            return Markup('<meta http-equiv="Content-Type" content="text/html; charset={}">\n').format(charset)
        return Markup('<meta charset="{}">\n').format(charset)


@dataclass(frozen=True)
class Page:
    """The content of one page. All text is plain; `related` holds (url, title), `comments` (author, text)."""

    site: Site
    path: str
    title: str
    paragraphs: tuple[str, ...]
    author: str
    date: datetime.date
    table: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()
    related: tuple[tuple[str, str], ...] = ()
    comments: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        """The address of the page."""
        return self.site.root + self.path

    @cached_property
    def summary(self) -> str:
        """The start of the text, for the head."""
        return self.paragraphs[0][:150] if self.paragraphs else self.title


PATHS: dict[str, str] = table("sites")["paths"]


def page_path(site: Site, title: str, number: int, date: datetime.date) -> str:
    """The address below the host, in the style of the site's software; `number` makes it unique."""
    slug = slugify(title) or "page"
    section = slugify(site.sections[number % len(site.sections)])
    path = PATHS[site.template].format(date=date, slug=slug, section=section, number=number, month=date.month)
    return path if str(number) in path else path.replace(slug, f"{slug}-{number}")


def slugify(text: str) -> str:
    """A title as the last part of an address."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48].strip("-")


def encode_page(document: str, site: Site) -> tuple[bytes, str]:
    """The body as bytes, and its Content-Type header, which is wrong on some sites."""
    declared = {"wrong": wrong_charset(site.charset), "none": "", "meta": ""}.get(site.announced, site.charset)
    content_type = "application/xhtml+xml" if site.template == "wiki" and site.announced == "both" else "text/html"
    header = f"{content_type}; charset={declared}" if declared else content_type
    return document.encode(site.charset, errors="xmlcharrefreplace"), header


def wrong_charset(charset: str) -> str:
    """A charset that a site declares by mistake."""
    return "iso-8859-1" if charset == "utf-8" else "utf-8"


def render_page(page: Page, rng: random.Random) -> str:
    """The whole HTML document. Broken sites lack closing tags and have stray ones, as browsers tolerate."""
    site = page.site
    document = (
        page_templates()
        .get_template(f"{site.template}.j2")
        .render(
            page=page,
            site=site,
            label=table("foreign")["labels"][site.language],
            navigation=navigation(site),
            paragraphs=[markup(text, page, rng) for text in page.paragraphs],
            items=[markup(text, page, rng) for text in page.items],
            linked_data=linked_data(page),
            number=rng.randrange(10**4),
        )
    )
    return break_markup(document, rng) if site.is_broken else document


def break_markup(document: str, rng: random.Random) -> str:
    """Unclosed paragraphs and entries, bare ampersands, unquoted attributes, a closing tag too many."""
    document = re.sub(r"</p>|</li>", lambda match: match[0] if rng.random() < 0.4 else "", document)
    document = document.replace("&amp;", "&")
    document = re.sub(r'class="([a-z]+)"', r"class=\1", document)
    return document.replace("</body>", "</div></span></b></body>")


def navigation(site: Site) -> list[tuple[str, str]]:
    """The links of a site's menu, as (url, title)."""
    label = table("foreign")["labels"][site.language]
    sections = [(f"/{slugify(section) or index}/", section) for index, section in enumerate(site.sections)]
    return [("/", label["home"]), *sections, *((f"/{name}", label[name]) for name in ("about", "contact", "search"))]


def markup(text: str, page: Page, rng: random.Random) -> Markup:
    """A paragraph as HTML: escaped, with typographic quotes where the site has them, and a few words as links or emphasis."""
    if page.site.is_typographic:
        text = typographic(text)
    escaped = html.escape(text, quote=False)
    if page.site.is_typographic and page.site.charset == "utf-8":
        escaped = escaped.replace("\u2019", "&rsquo;").replace("\u2014", "&mdash;")
    # Escaped two lines above.
    return Markup(re.sub(r"\b[A-Za-z]{5,}\b(?![^&]*;)", lambda match: decorate(match[0], page, rng), escaped))  # noqa: S704


def typographic(text: str) -> str:
    """Curly quotes, and a dash between words; a minus between numbers stays."""
    text = re.sub(r'"([^"]*)"', "\u201c\\1\u201d", text).replace("'", "\u2019")
    return re.sub(r"(?<=[a-z]) - (?=[a-z])", "\u2014", text)


def decorate(word: str, page: Page, rng: random.Random) -> str:
    """A word as a link or as emphasis, now and then."""
    draw = rng.random()
    if draw > 0.03:
        return word
    if draw > 0.012:
        return f'<a href="/{slugify(page.site.sections[0])}/{word.lower()}">{word}</a>'
    return f"<em>{word}</em>" if draw > 0.005 else f"<strong>{word}</strong>"


def linked_data(page: Page) -> Markup:
    """The article's metadata as JSON-LD (https://schema.org/Article)."""
    data = {
        "@context": "https://schema.org",
        "@type": "Article",
        "headline": page.title,
        "datePublished": page.date.isoformat(),
        "author": {"@type": "Person", "name": page.author},
        "publisher": {"@type": "Organization", "name": page.site.name, "url": page.site.root},
    }
    text = json.dumps(data).replace("</", "<\\/")  # the text of a script element ends at "</"
    return Markup(f'<script type="application/ld+json">{text}</script>\n')  # noqa: S704


@lru_cache(maxsize=256)
def _stylesheet(host: str) -> str:
    rng = random.Random(host)
    rules = (
        f"{name}{{margin:{rng.randint(0, 4)}px;padding:{rng.randint(2, 24)}px;color:#{rng.randrange(4096):03x};"
        f"font:{rng.randint(12, 30)}px/1.{rng.randint(2, 6)} {rng.choice(('Georgia', 'Arial', 'Verdana'))},serif}}"
        for name in table("sites")["styled"]
    )
    return "\n".join(rules)
