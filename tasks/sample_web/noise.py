"""The pages of the sample web that the filters should drop: spam, link farms, placeholder text, code, advertising, shells, files.

Reads data/noise.yaml; writes nothing. Each kind of low quality breaks one rule of the Gopher, C4 or FineWeb filters (named in
JUNK) and is otherwise ordinary English, so that the report card shows which filter works. Advertising is good English:
only its address identifies it.
"""

import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.sample_web.data import table
from tasks.sample_web.grammar import capitalize, deal


@dataclass(frozen=True)
class Noise:
    """The text of a junk page. `note` names its defect."""

    title: str
    paragraphs: tuple[str, ...]
    note: str
    items: tuple[str, ...] = ()


TABLES: dict[str, Any] = table("noise")
NOUNS: list[str] = TABLES["nouns"]
ADJECTIVES: list[str] = TABLES["adjectives"]
OPENINGS: list[str] = TABLES["openings"]


def sentences(rng: random.Random, count: int) -> list[str]:
    """Ordinary English; a page repeats an opening, a claim or an ending only after it has used them all."""
    columns = [
        deal(rng, entries, count) for entries in (OPENINGS, ADJECTIVES, NOUNS, TABLES["predicates"], TABLES["endings"])
    ]
    lines = []
    for opening, adjective, noun, predicate, ending in zip(*columns, strict=True):
        tail = f", {ending}." if rng.random() < 0.7 else "."
        lines.append(f"{opening} the {adjective} {noun} {predicate}{tail}")
    return lines


def prose(rng: random.Random, *lengths: int) -> tuple[str, ...]:
    """Paragraphs with the given numbers of sentences."""
    lines = sentences(rng, sum(lengths))
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return tuple(" ".join(lines[start : start + length]) for start, length in zip(starts, lengths, strict=True))


def headline(rng: random.Random) -> str:
    """A short headline about a product."""
    return f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.choice(TABLES['predicates'])}"


# Low quality, one rule each


def repetition(rng: random.Random) -> tuple[str, ...]:
    """One slogan again and again between other sentences."""
    slogan = f"Order your {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} today and save a lot of money with us."
    return tuple(f"{slogan} {line} {slogan} {slogan}" for line in sentences(rng, 6))


def keywords(rng: random.Random) -> tuple[str, ...]:
    """Keywords in place of sentences."""
    noun = rng.choice(NOUNS)
    stuffing = " ".join(
        f"{adjective} {noun} shop, best {noun} of the year, buy {noun} here," for adjective in ADJECTIVES
    )
    first, last = prose(rng, 2, 1)
    return (first, f"Find the {noun} that you want: {stuffing} and more {noun} offers to come.", last)


def link_farm(rng: random.Random) -> tuple[str, ...]:
    """Lines of link texts without punctuation."""
    lines = [f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} and {rng.choice(NOUNS)}" for _ in range(40)]
    return (*lines, "Have a look at all of the friends that link with us.")


def placeholder(rng: random.Random) -> tuple[str, ...]:
    """Lorem ipsum among ordinary sentences."""
    first, middle, last = prose(rng, 5, 1, 4)
    return (first, f"{TABLES['placeholder']} {middle}", last)


def stub(rng: random.Random) -> tuple[str, ...]:
    """A page of one short paragraph."""
    return (f"{sentences(rng, 1)[0]} The page about it has yet to be written.",)


def boilerplate(rng: random.Random) -> tuple[str, ...]:
    """Policy and cookie notices, with hardly a sentence of content."""
    tables = (OPENINGS, TABLES["policy_verbs"], TABLES["policies"], TABLES["endings"])
    columns = (deal(rng, entries, 10) for entries in tables)
    lines = (
        f"{opening} {verb} {rule} in full, {ending}." for opening, verb, rule, ending in zip(*columns, strict=True)
    )
    return (*lines, "That is all that we have to say about it.")


def menu(rng: random.Random) -> tuple[str, ...]:
    """Short lines, as of a menu."""
    names = [f"{adjective.title()} {dish}" for adjective in ADJECTIVES for dish in TABLES["menu"]]
    return (*sentences(rng, 1), *rng.sample(names, 30), "Open to all with a table, and closed on Mondays.")


def code(rng: random.Random) -> tuple[str, ...]:
    """JavaScript as text."""
    name = rng.choice(("total", "price", "count", "weight"))
    listing = f"for (int i = 0; i < n; i++) {{ {name} += values[i]; }} return {name} / n;"
    first, last = prose(rng, 4, 4)
    return (first, f"The function that we use for it is short: {listing}", last)


def teasers(rng: random.Random) -> tuple[str, ...]:
    """Sentences that end in an ellipsis."""
    return tuple(f"{line[:-1]}{rng.choice(('...', '…'))}" for line in sentences(rng, 10))


def figures(rng: random.Random) -> tuple[str, ...]:
    """Sentences among rows of numbers."""
    lines = (" ".join(f"{rng.randrange(1, 900)},{rng.randrange(100):02d}" for _ in range(14)) for _ in range(6))
    return tuple(f"{text} {line}." for text, line in zip(sentences(rng, 6), lines, strict=True))


JUNK: dict[str, Callable[[random.Random], tuple[str, ...]]] = {
    "repetition": repetition,  # Gopher repetition
    "keyword stuffing": keywords,  # Gopher repetition
    "link farm": link_farm,  # FineWeb line punctuation, short lines
    "lorem ipsum": placeholder,  # C4
    "stub": stub,  # Gopher, fewer than 50 words
    "boilerplate": boilerplate,  # C4 policy lines, fewer than 5 sentences left
    "menu": menu,  # FineWeb short lines
    "code": code,  # C4 braces
    "teasers": teasers,  # Gopher ellipsis lines
    "figures": figures,  # Gopher words with a letter
}


def write_junk(kind: str, rng: random.Random) -> Noise:
    """A page of one kind of low quality, a key of JUNK."""
    return Noise(headline(rng), JUNK[kind](rng), kind)


# Advertising: fluent, on hosts of a blocklist


def advertise(category: str, rng: random.Random) -> Noise:
    """An advertisement of a blocked category."""
    products, claims = (TABLES["trades"][category][name] for name in ("products", "claims"))
    num_pitches = 14
    columns = [
        deal(rng, entries, num_pitches)
        for entries in (products, claims, OPENINGS, ("because", "and", "so", "while"), TABLES["lures"])
    ]
    pitches = []
    for product, claim, opening, joint, lure in zip(*columns, strict=True):
        parts = rng.choice(
            (f"{opening} {product} {claim}, {joint} {lure}.", f"{opening} {lure}, {joint} {product} {claim}.")
        )
        pitches.append(parts)
    title = f"{rng.choice(products)} {rng.choice(claims)}"
    paragraphs = tuple(" ".join(pitches[start : start + 4]) for start in range(0, num_pitches, 4))
    return Noise(capitalize(title), paragraphs, f"{category} blocklist")


# Pages without text, and files that are not pages


def shell(rng: random.Random) -> tuple[str, str]:
    """An HTML document without readable text, and its note."""
    title, build = rng.choice(NOUNS).title(), f"{rng.getrandbits(32):08x}"
    scripts = "".join(f'<script src="/static/{number}.{build}.js"></script>' for number in range(rng.randint(2, 9)))
    frames = f'<frameset cols="160,*"><frame src="menu{build}.htm"><frame src="main.htm"></frameset>'
    images = "".join(f'<a href="/p{number}"><img src="/t/{build}{number}.jpg" alt=""></a>' for number in range(24))
    bodies = {
        "JavaScript only": f'<body><div id="root"></div>{scripts}</body>',
        "frames": frames,
        "image gallery": f"<body><div class=gallery>{images}</div></body>",
        "empty body": f"<body><!-- {build} --></body>",
    }
    note = rng.choice(tuple(bodies))
    return f"<!DOCTYPE html><html><head><title>{title}</title></head>{bodies[note]}</html>", note


def resource(rng: random.Random) -> tuple[str, str, bytes, str]:
    """A file that is not a web page: name, declared type, body, and the type that its bytes have."""
    make = rng.choice((pdf, png, css, data, feed))
    return make(rng)


def pdf(rng: random.Random) -> tuple[str, str, bytes, str]:
    """A small PDF file."""
    stream = zlib.compress(prose(rng, 20)[0].encode())
    body = (
        b"%PDF-1.4\n1 0 obj <</Length "
        + str(len(stream)).encode()
        + b">> stream\n"
        + stream
        + b"\nendstream endobj\n%%EOF\n"
    )
    declared = rng.choice(("application/pdf", "application/pdf", "application/octet-stream", "text/html"))
    return "report.pdf", declared, body, "application/pdf"


def png(rng: random.Random) -> tuple[str, str, bytes, str]:
    """A small PNG image."""

    def block(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width = rng.randint(8, 32)
    pixels = b"".join(b"\0" + rng.randbytes(width) for _ in range(width))
    header = struct.pack(">IIBBBBB", width, width, 8, 0, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(pixels)) + block(b"IEND", b"")
    return "photo.png", "image/png", body, "image/png"


def css(rng: random.Random) -> tuple[str, str, bytes, str]:
    """A style sheet."""
    rules = "".join(f".c{number}{{margin:{rng.randrange(40)}px}}\n" for number in range(60))
    return "site.css", "text/css", rules.encode(), "text/css"


def data(rng: random.Random) -> tuple[str, str, bytes, str]:
    """A JSON document."""
    body = json.dumps({"results": [{"title": headline(rng), "id": rng.randrange(10**6)} for _ in range(12)]})
    return "search.json", "application/json", body.encode(), "application/json"


def feed(rng: random.Random) -> tuple[str, str, bytes, str]:
    """An RSS feed."""
    entries = "".join(
        f"<item><title>{headline(rng)}</title><description>{line}</description></item>" for line in sentences(rng, 8)
    )
    body = f'<?xml version="1.0"?><rss version="2.0"><channel><title>News</title>{entries}</channel></rss>'
    return "feed.xml", "application/rss+xml", body.encode(), "application/rss+xml"


# Visitors' comments


def visitor_comment(rng: random.Random) -> str:
    """A comment of one or two sentences."""
    praise, thoughts = TABLES["comments"]["praise"], TABLES["comments"]["thoughts"]
    return f"{rng.choice(praise)}, {rng.choice(thoughts)}{rng.choice(('.', '!', ' :-)', '...'))}"
