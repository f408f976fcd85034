"""Sites and pages of the sample web, and the HTML fragments that its templates share.

Reads nothing and writes nothing: pure functions of a page and a random generator. Markup is kept short so that a crawl
stays small.
"""

import datetime
import html
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from tasks.sample_web.foreign import LABELS
from tasks.sample_web.tables import words


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


PATHS = {
    "blog": "/{date:%Y/%m}/{slug}/",
    "news": "/{section}/{slug}-{number}.html",
    "wiki": "/wiki/{slug}_{number}",
    "forum": "/viewtopic.php?f={month}&t={number}",
    "recipe": "/kitchen/{slug}-{number}",
    "corporate": "/insights/{date:%Y}/{slug}.aspx",
    "table": "/~{section}/{slug}.htm",
    "app": "/read/{number}/{slug}",
}


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


# Text -> markup


def markup(text: str, page: Page, rng: random.Random) -> str:
    """A paragraph as HTML: escaped, with typographic quotes where the site has them, and a few words as links or emphasis."""
    if page.site.is_typographic:
        text = typographic(text)
    escaped = html.escape(text, quote=False)
    if page.site.is_typographic and page.site.charset == "utf-8":
        escaped = escaped.replace("\u2019", "&rsquo;").replace("\u2014", "&mdash;")
    return re.sub(r"\b[A-Za-z]{5,}\b(?![^&]*;)", lambda match: decorate(match[0], page, rng), escaped)


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


def body(page: Page, rng: random.Random, paragraph: str = "<p>{}</p>") -> str:
    """The main text: paragraphs, the list after the first, the infobox after the last."""
    blocks = [paragraph.format(markup(text, page, rng)) for text in page.paragraphs]
    if page.items:
        entries = "\n".join(f"<li>{markup(text, page, rng)}</li>" for text in page.items)
        blocks.insert(1, f"<ul>\n{entries}\n</ul>")
    if page.table:
        blocks.append(box(page))
    return "\n".join(blocks)


def box(page: Page) -> str:
    """Labels and values: a table on wikis, elsewhere a list, which leaves no bars and dashes in the extracted text."""
    is_table = page.site.template == "wiki"
    entry = '<tr><th scope="row">{}</th><td>{}</td></tr>' if is_table else "<li><b>{}:</b> {}</li>"
    entries = "\n".join(entry.format(*map(html.escape, pair)) for pair in page.table)
    return f'<table class="wikitable">\n{entries}\n</table>' if is_table else f"<ul>\n{entries}\n</ul>"


def links(pairs: Iterable[tuple[str, str]], entry: str = '<li><a href="{}">{}</a></li>') -> str:
    """Links as list entries."""
    return "\n".join(entry.format(html.escape(url), html.escape(text)) for url, text in pairs)


def navigation(site: Site) -> list[tuple[str, str]]:
    """The links of a site's menu, as (url, title)."""
    label = LABELS[site.language]
    pages = [
        ("/", label.home),
        *((f"/{slugify(section) or index}/", section) for index, section in enumerate(site.sections)),
    ]
    return [*pages, ("/about", label.about), ("/contact", label.contact), ("/search", label.search)]


def comments(page: Page, entry: str) -> str:
    """The visitors' comments, each in the template's `entry`."""
    return "\n".join(entry.format(who=html.escape(who), text=html.escape(text)) for who, text in page.comments)


# The head: metadata, styles, scripts


def head(page: Page, extra: str = "") -> str:
    """The head of a document, with `extra` at its end."""
    site, title = page.site, html.escape(page.title)
    summary = html.escape(page.paragraphs[0][:150]) if page.paragraphs else title
    return f"""<head>
{meta_charset(site)}<title>{title} | {html.escape(site.name)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="{summary}">
<meta property="og:title" content="{title}"><meta property="og:type" content="article">
<meta property="og:site_name" content="{html.escape(site.name)}"><meta property="og:description" content="{summary}">
<link rel="canonical" href="{html.escape(page.url)}"><link rel="alternate" type="application/rss+xml" href="/feed.xml">
<style>{stylesheet(site.host)}</style>
<script>{analytics(site.host)}</script>
{extra}</head>"""


def meta_charset(site: Site) -> str:
    """The meta element that declares the charset, where the site has one."""
    if site.announced in ("none", "header"):
        return ""
    charset = wrong_charset(site.charset) if site.announced == "wrong" else site.charset
    if site.template in ("table", "forum"):
        return f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">\n'
    return f'<meta charset="{charset}">\n'


def linked_data(page: Page) -> str:
    """The article's metadata as JSON-LD (https://schema.org/Article)."""
    data = {
        "@context": "https://schema.org",
        "@type": "Article",
        "headline": page.title,
        "datePublished": page.date.isoformat(),
        "author": {"@type": "Person", "name": page.author},
        "publisher": {"@type": "Organization", "name": page.site.name, "url": page.site.root},
    }
    text = json.dumps(data).replace("</", "<\\/")
    return f'<script type="application/ld+json">{text}</script>\n'


@lru_cache(maxsize=256)
def stylesheet(host: str) -> str:
    """CSS rules, different for each host."""
    rng = random.Random(host)
    names = words(
        "header | nav | main | aside | footer | .menu | .post | .meta | .card | .share | .notice | .comment | .button | .grid | .hero | h1 | h2 | a"
    )
    rules = (
        f"{name}{{margin:{rng.randint(0, 4)}px;padding:{rng.randint(2, 24)}px;color:#{rng.randrange(4096):03x};"
        f"font:{rng.randint(12, 30)}px/1.{rng.randint(2, 6)} {rng.choice(['Georgia', 'Arial', 'Verdana'])},serif}}"
        for name in names
    )
    return "\n".join(rules)


@lru_cache(maxsize=256)
def analytics(host: str) -> str:
    """A script as sites embed it to count visitors."""
    number = random.Random(host + "/analytics").randrange(10**6, 10**7)
    return f"""window.dataLayer=window.dataLayer||[];function tag(){{dataLayer.push(arguments);}}
tag('js',new Date());tag('config','X-{number}');if(document.cookie.indexOf('seen=1')<0){{document.cookie='seen=1;path=/';}}
document.addEventListener('click',function(e){{var a=e.target.closest('a');if(a&&a.host!==location.host){{tag('event','out');}}}});
window.onload=function(){{var n=document.getElementsByClassName('notice');for(var i=0;i<n.length;i++){{n[i].hidden=false;}}}};"""


def newsletter(site: Site) -> str:
    """A form that asks for an e-mail address."""
    label = LABELS[site.language]
    return f'<form class="newsletter" action="/subscribe"><label>{label.newsletter}</label><input type="email"></form>'


def footer(site: Site) -> str:
    """The end of a page: links and copyright."""
    label = LABELS[site.language]
    legal = links((("/privacy", label.privacy), ("/terms", label.terms), ("/contact", label.contact)))
    return f'<footer class="site-footer footer"><p>&copy; 2024 {html.escape(site.name)}. {label.rights}</p><ul>{legal}</ul></footer>'
