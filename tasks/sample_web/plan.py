"""The captures of the sample web's crawl, each with its expected outcome.

Reads the world's articles and data/crawl.yaml; writes nothing. `plan_captures` is a pure function of the world and the
settings. Every capture has its own random generator, so that one more page of a sort does not change the other sorts.
"""

import base64
import datetime
import gzip
import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tasks.sample_web.articles import Article, write_articles
from tasks.sample_web.config import SampleWebConfig
from tasks.sample_web.data import table
from tasks.sample_web.foreign import LANGUAGES, write_foreign, write_sentence
from tasks.sample_web.html import Page, Site, encode_page, page_path, render_page
from tasks.sample_web.noise import JUNK, advertise, headline, prose, resource, shell, visitor_comment, write_junk
from tasks.sample_web.personal import Personal, leak, person, personal_paragraph
from tasks.sample_web.sites import BLOCKED, blocked_address, build_sites
from tasks.sample_web.variants import repeat_passages
from tasks.sample_web.world import World

CRAWL_START = datetime.datetime(2024, 5, 18, tzinfo=datetime.UTC)
CRAWL_SECONDS = 10 * 24 * 3600

SHARES: dict[str, float] = table("crawl")["shares"]
TEMPLATES_OF_KIND: dict[str, list[str]] = table("crawl")["templates_of_kind"]
SYNONYMS: dict[str, str] = table("crawl")["synonyms"]
LEAST_SIMILARITY = 0.91


@dataclass(frozen=True)
class Capture:
    """One response of a web server, and its expected outcome. `body` is as sent: compressed or chunked where `headers` say so."""

    url: str
    date: datetime.datetime
    expected: str
    note: str
    body: bytes = b""
    content_type: str = "text/html"
    identified: str = "text/html"
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()
    cluster: str | None = None
    personal: Personal = field(default_factory=Personal)
    facts: tuple[str, ...] = ()
    revisit_of: datetime.datetime | None = None

    @property
    def digest(self) -> str:
        """The payload digest as WARC has it: SHA-1 in base 32."""
        return "sha1:" + base64.b32encode(hashlib.sha1(self.body, usedforsecurity=False).digest()).decode()


def plan_captures(world: World, config: SampleWebConfig) -> list[Capture]:
    """Every capture of the crawl by date. The last one is to be truncated."""
    seed = config.seed
    sites = build_sites(seed)
    counts = {sort: max(10, round(share * config.num_articles)) for sort, share in SHARES.items()}
    articles = list(write_articles(world, config.num_articles))
    if config.repeated_passages:
        articles = repeat_passages(articles, seed)
    *stories, last = add_personal_data(articles, seed, counts["personal"])
    originals = [
        capture_article(*story, sites.english, random.Random(f"{seed}/article/{n}")) for n, story in enumerate(stories)
    ]
    copies = list(capture_copies(stories, originals, sites.mirrors, counts["copies"], random.Random(f"{seed}/copies")))
    revisits = capture_revisits(originals, counts["revisits"], random.Random(f"{seed}/revisits"))
    captures = [*originals, *copies, *revisits]
    makers = (
        ("foreign", capture_foreign, sites.foreign),
        ("junk", capture_junk, sites.spam + sites.english),
        ("leaks", capture_leak, sites.spam + sites.english),
        ("blocked", capture_blocked, sites.spam),
        ("empty", capture_shell, sites.english),
        ("files", capture_file, sites.english),
        ("errors", capture_error, sites.english),
    )
    for sort, make, hosts in makers:
        captures += [make(hosts, number, random.Random(f"{seed}/{sort}/{number}")) for number in range(counts[sort])]
    cut = capture_article(*last, sites.english, random.Random(f"{seed}/cut"))
    end = CRAWL_START + datetime.timedelta(seconds=CRAWL_SECONDS)
    captures.append(replace(cut, date=end, expected="truncated", note="the file ends within this record"))
    return sorted(captures, key=lambda capture: (capture.date, capture.url))


def add_personal_data(articles: Sequence[Article], seed: int, num_personal: int) -> list[tuple[Article, Personal]]:
    """The articles, some with a paragraph of personal data."""
    rng = random.Random(f"{seed}/personal")
    chosen = set(rng.sample(range(len(articles) - 1), min(num_personal, len(articles) - 1)))
    stories = []
    for index, article in enumerate(articles):
        personal = personal_paragraph(rng) if index in chosen else Personal()
        stories.append((add_paragraph(article, personal, rng), personal))
    return stories


def add_paragraph(article: Article, personal: Personal, rng: random.Random) -> Article:
    """The article with the personal sentences as one more paragraph."""
    if not personal.sentences:
        return article
    place = rng.randint(1, len(article.paragraphs))
    added = " ".join(personal.sentences)
    return replace(article, paragraphs=(*article.paragraphs[:place], added, *article.paragraphs[place:]))


# A page on a site, as sent


def make_page(site: Site, title: str, paragraphs: Sequence[str], rng: random.Random) -> Page:
    """A page with an address, an author, links and comments."""
    date = datetime.date(2015, 1, 1) + datetime.timedelta(days=rng.randrange(3400))
    path = page_path(site, title, rng.randrange(10**7, 10**8), date)
    related = tuple((f"/{rng.randrange(10**6)}", link_text(site, rng)) for _ in range(rng.randint(4, 8)))
    comments = tuple((person(rng), comment_text(site, rng)) for _ in range(rng.choice((0, 0, 1, 2, 3, 4, 6))))
    return Page(site, path, title, tuple(paragraphs), person(rng), date, related=related, comments=comments)


def link_text(site: Site, rng: random.Random) -> str:
    """The title of a related page, in the site's language."""
    return headline(rng) if site.language == "en" else write_foreign(site.language, rng)[0]


def comment_text(site: Site, rng: random.Random) -> str:
    """The text of a comment, in the site's language."""
    return visitor_comment(rng) if site.language == "en" else write_sentence(site.language, rng)


def capture_page(page: Page, rng: random.Random, expected: str, note: str) -> Capture:
    """The capture of a page as its site sends it."""
    site = page.site
    body, content_type = encode_page(render_page(page, rng), site)
    note = f"{note}; {site.template}, {site.charset}, announced: {site.announced}"
    capture = Capture(page.url, crawl_date(rng), expected, note, body, content_type, content_type.partition(";")[0])
    return send(capture, rng)


def send(capture: Capture, rng: random.Random) -> Capture:
    """The capture as its server sends it: some compress, some send chunks, some do both; most declare a length."""
    body, draw = capture.body, rng.random()
    headers: list[tuple[str, str]] = []
    if draw < 0.10:
        body = gzip.compress(body, mtime=0)
        headers.append(("Content-Encoding", "gzip"))
    if 0.08 < draw < 0.20:
        pieces = [body[start : start + 4096] for start in range(0, len(body), 4096)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        headers.append(("Transfer-Encoding", "chunked"))
    elif draw < 0.90:
        headers.append(("Content-Length", str(len(body))))
    return replace(capture, body=body, headers=tuple(headers))


def crawl_date(rng: random.Random, earliest: datetime.datetime = CRAWL_START) -> datetime.datetime:
    """A random time of the crawl, not before `earliest`."""
    elapsed = int((earliest - CRAWL_START).total_seconds())
    return CRAWL_START + datetime.timedelta(seconds=rng.randrange(elapsed, CRAWL_SECONDS))


# Articles and their copies


def capture_article(article: Article, personal: Personal, sites: Sequence[Site], rng: random.Random) -> Capture:
    """The capture of an article on a site that fits it."""
    site = rng.choice([site for site in sites if is_fitting(site, article)])
    page = make_page(site, article.title, article.paragraphs, rng)
    page = replace(page, table=article.table, items=article.items)
    return replace(capture_page(page, rng, "keep", article.kind), personal=personal, facts=article.facts)


def is_fitting(site: Site, article: Article) -> bool:
    """Lists and tables go where the layout marks them for an extractor."""
    if site.template == "table" and (article.items or article.table):
        return False
    templates = TEMPLATES_OF_KIND.get(article.kind)
    return site.template in templates if templates else site.template != "recipe"


def capture_copies(
    stories: Sequence[tuple[Article, Personal]],
    originals: list[Capture],
    mirrors: Sequence[Site],
    count: int,
    rng: random.Random,
) -> Iterator[Capture]:
    """`count` copies of articles drawn at random, one to five of each. Sets the cluster of their originals in place."""
    order = rng.sample(range(len(originals)), len(originals))
    while count > 0:
        index = order.pop()
        originals[index] = replace(originals[index], cluster=f"cluster-{index}")
        num_copies = min(count, rng.choice((1, 1, 1, 2, 2, 3, 5)))
        count -= num_copies
        for _ in range(num_copies):
            yield replace(capture_copy(stories[index], originals[index], mirrors, rng), expected="duplicate")


def capture_copy(
    story: tuple[Article, Personal], original: Capture, mirrors: Sequence[Site], rng: random.Random
) -> Capture:
    """One copy: the same page at another address, or the article on a mirror, edited or not."""
    note = rng.choice(
        ("same address", "other scheme", "campaign link", "mirror", "mirror", "edited", "edited", "edited")
    )
    moved = {
        "same address": original.url,
        "other scheme": re.sub("^https?", "http" if original.url.startswith("https") else "https", original.url),
        "campaign link": original.url
        + ("&" if "?" in original.url else "?")
        + "utm_source=newsletter&utm_medium=email",
    }
    if note in moved:
        return replace(original, url=moved[note], date=crawl_date(rng), note=f"copy: {note}")
    article, personal = story
    if note == "edited":
        article = replace(article, paragraphs=edit_paragraphs(article.paragraphs, rng))
    copy = capture_article(
        article, personal, [site for site in mirrors if site.template != "recipe" or article.items], rng
    )
    return replace(copy, note=f"copy: {note}; {copy.note}", cluster=original.cluster)


def edit_paragraphs(paragraphs: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """Up to three small edits, each only if the texts stay near duplicates."""
    edited = paragraphs
    for edit in rng.sample((change_word, change_word, add_date, swap_sentences), 3):
        candidate = edit(edited, rng)
        if similarity(" ".join(paragraphs), " ".join(candidate)) >= LEAST_SIMILARITY:
            edited = candidate
    return edited


def change_word(paragraphs: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """The paragraphs with one word replaced by a synonym."""
    index = rng.randrange(len(paragraphs))
    known = sorted(set(re.findall(r"[a-z]+", paragraphs[index])) & set(SYNONYMS))
    if not known:
        return paragraphs
    word = rng.choice(known)
    changed = re.sub(rf"\b{word}\b", SYNONYMS[word], paragraphs[index], count=1)
    return (*paragraphs[:index], changed, *paragraphs[index + 1 :])


def add_date(paragraphs: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """The paragraphs with a line that gives a date."""
    month = rng.choice(("January", "March", "May", "August", "October"))
    return (*paragraphs, f"Updated in {month} {rng.randint(2016, 2024)}.")


def swap_sentences(paragraphs: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """The paragraphs with the last two sentences of the longest exchanged."""
    index = max(range(len(paragraphs)), key=lambda number: len(paragraphs[number]))
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", paragraphs[index])
    return (*paragraphs[:index], " ".join([*sentences[:-2], *reversed(sentences[-2:])]), *paragraphs[index + 1 :])


def similarity(first: str, second: str) -> float:
    """Jaccard similarity of the sets of word 5-grams."""
    sets = []
    for text in (first, second):
        words = re.findall(r"\w+", text.lower())
        sets.append({tuple(words[start : start + 5]) for start in range(len(words) - 4)})
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))


def capture_revisits(originals: Sequence[Capture], count: int, rng: random.Random) -> Iterator[Capture]:
    """Later captures of unchanged pages."""
    for original in rng.sample(originals, min(count, len(originals))):
        date = crawl_date(rng, earliest=original.date)
        yield replace(
            original, date=date, expected="revisit", note="unchanged since", cluster=None, revisit_of=original.date
        )


# Pages that are not articles


def capture_foreign(sites: Sequence[Site], number: int, rng: random.Random) -> Capture:
    """A page in another language than English."""
    language = tuple(LANGUAGES)[number % len(LANGUAGES)]
    site = rng.choice([site for site in sites if site.language == language])
    return capture_page(make_page(site, *write_foreign(language, rng), rng), rng, "language", language)


def capture_junk(sites: Sequence[Site], number: int, rng: random.Random) -> Capture:
    """A page of low quality."""
    noise = write_junk(tuple(JUNK)[number % len(JUNK)], rng)
    page = make_page(rng.choice(sites), noise.title, noise.paragraphs, rng)
    return capture_page(replace(page, comments=()), rng, "quality", noise.note)


def capture_leak(sites: Sequence[Site], number: int, rng: random.Random) -> Capture:
    """A page of personal data only."""
    personal = leak(rng)
    groups = [" ".join(personal.sentences[start : start + 5]) for start in range(0, len(personal.sentences), 5)]
    title = f"Member list {rng.randint(2016, 2024)}, part {number + 1}"
    return replace(
        capture_page(make_page(rng.choice(sites), title, groups, rng), rng, "pii", "dense"), personal=personal
    )


def capture_blocked(sites: Sequence[Site], number: int, rng: random.Random) -> Capture:
    """An advertisement at an address that a blocklist names."""
    category = tuple(BLOCKED)[number % len(BLOCKED)]
    noise = advertise(category, rng)
    host, path = blocked_address(category, rng)
    page = make_page(replace(rng.choice(sites), host=host), noise.title, noise.paragraphs, rng)
    return capture_page(replace(page, path=path or page.path), rng, "url", noise.note)


def capture_shell(sites: Sequence[Site], number: int, rng: random.Random) -> Capture:
    """A page without readable text."""
    document, note = shell(rng)
    site = rng.choice(sites)
    body, content_type = encode_page(document, site)
    url = f"{site.root}/view/{number}-{rng.randrange(10**6)}"
    return send(Capture(url, crawl_date(rng), "empty", note, body, content_type), rng)


def capture_file(sites: Sequence[Site], number: int, rng: random.Random) -> Capture:
    """A file that is not a web page."""
    name, declared, body, identified = resource(rng)
    url = f"{rng.choice(sites).root}/files/{number}/{name}"
    note = f"{identified}, declared as {declared}"
    return send(Capture(url, crawl_date(rng), "mime", note, body, declared, identified), rng)


def capture_error(sites: Sequence[Site], number: int, rng: random.Random) -> Capture:
    """Redirects with a line of HTML, and errors with enough text to look like an article."""
    status = (
        "301 Moved Permanently",
        "302 Found",
        "404 Not Found",
        "404 Not Found",
        "410 Gone",
        "500 Internal Server Error",
    )[number % 6]
    page = make_page(rng.choice(sites), f"Error {status}", prose(rng, 5, 5), rng)
    if status.startswith("3"):
        target = page.site.root + "/"
        body = (
            f'<html><head><title>{status}</title></head><body>Moved <a href="{target}">here</a>.</body></html>'.encode()
        )
        moved = Capture(page.url, crawl_date(rng), "status", status, body, status=status)
        sent = send(moved, rng)
        return replace(sent, headers=(("Location", target), *sent.headers))
    return replace(capture_page(page, rng, "status", status), status=status)
