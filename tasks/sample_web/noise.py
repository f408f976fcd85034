"""The pages of the sample web that the filters should drop: spam, link farms, placeholder text, code, advertising, shells, files.

Reads nothing and writes nothing. Each kind of low quality breaks one rule of the Gopher, C4 or FineWeb filters (named in
JUNK) and is otherwise ordinary English, so that the report card shows which filter works. Advertising is good English:
only its address identifies it.
"""

import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tasks.sample_web.tables import capitalize, deal, words


@dataclass(frozen=True)
class Noise:
    """The text of a junk page. `note` names its defect."""

    title: str
    paragraphs: tuple[str, ...]
    note: str
    items: tuple[str, ...] = ()


NOUNS = words(
    "lamp | garden chair | winter coat | kettle | travel bag | wooden shelf | bicycle | alarm clock | blanket | desk | mirror | suitcase"
    " | teapot | raincoat | tool box | carpet | hammock | umbrella | frying pan | bookcase"
)
ADJECTIVES = words(
    "cheap | sturdy | bright | modern | quiet | light | popular | simple | elegant | practical | famous | soft | warm"
)
OPENINGS = words(
    "Last week | Most of the time | In our experience | To be honest | After a long day | This year | For a small family"
    " | On rainy days | As the seller told us | Before you decide | Compared with the old one | Without much effort"
)
PREDICATES = words(
    "fits into almost any room | was easier to clean than we had hoped | costs less than it used to | makes a fine present"
    " | arrived in a plain brown box | lasts for years with a little care | looks better in daylight | can be returned within a month"
    " | needs no tools at all | has surprised even our neighbours | is not as heavy as it seems | comes in four colours"
)
ENDINGS = words(
    "and that is what matters | but the handle could be longer | so we bought a second one | which nobody had expected"
    " | although the colour is a matter of taste | and the children like it too | because it was built with care"
    " | at least in the smaller size | and it has never let us down | while others gave up long ago"
)


def sentences(rng: random.Random, count: int) -> list[str]:
    """Ordinary English; a page repeats an opening, a claim or an ending only after it has used them all."""
    columns = [deal(rng, table, count) for table in (OPENINGS, ADJECTIVES, NOUNS, PREDICATES, ENDINGS)]
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
    return f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.choice(PREDICATES)}"


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
    filler = (
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore."
    )
    first, middle, last = prose(rng, 5, 1, 4)
    return (first, f"{filler} {middle}", last)


def stub(rng: random.Random) -> tuple[str, ...]:
    """A page of one short paragraph."""
    return (f"{sentences(rng, 1)[0]} The page about it has yet to be written.",)


def boilerplate(rng: random.Random) -> tuple[str, ...]:
    """Policy and cookie notices, with hardly a sentence of content."""
    rules = ("our terms of use", "the privacy policy", "our cookie policy", "the use of cookies")
    verbs = (
        "visitors accept",
        "buyers have read",
        "members agree to",
        "guests confirm",
        "we may print",
        "everyone falls under",
    )
    columns = (deal(rng, table, 10) for table in (OPENINGS, verbs, rules, ENDINGS))
    lines = (
        f"{opening} {verb} {rule} in full, {ending}." for opening, verb, rule, ending in zip(*columns, strict=True)
    )
    return (*lines, "That is all that we have to say about it.")


def menu(rng: random.Random) -> tuple[str, ...]:
    """Short lines, as of a menu."""
    dishes = words(
        "soup of the day | roast with beans | bread and butter | fish of the lake | plum cake | cheese plate | barley stew"
    )
    names = [f"{adjective.title()} {dish}" for adjective in ADJECTIVES for dish in dishes]
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

TRADES = {
    "gambling": (
        words(
            "roulette | blackjack | the slot machines | live poker | bingo | the sports bets | the jackpot draw | baccarat"
        ),
        words(
            "pays out within a day | doubles your first deposit | is open all night | has a new bonus | brings a free round | beats the old one"
        ),
    ),
    "adult": (
        words(
            "the private show | our new gallery | the late night chat | the members' club | the grown-up film corner"
        ),
        words(
            "is for adults only | opens after dark | shows new faces weekly | costs nothing at first | never closes before dawn"
            " | asks for your age | keeps every secret"
        ),
    ),
    "malware": (
        words(
            "the free driver | this video codec | our registry cleaner | the cracked installer | the speed booster | the toolbar"
        ),
        words(
            "repairs any computer | installs in one click | runs without a licence | finds a hundred errors | replaces your browser | needs no restart"
        ),
    ),
}
LURES = words(
    "players say so in every review | you only have to sign up | there is no limit for new members | no questions are asked"
    " | our team has checked it twice | thousands have joined since the spring | the offer ends on Friday | it works on any phone"
    " | the download takes a minute | your friends will thank you for it | the rules fit on one page | waiting makes no sense"
    " | the first hundred get a present | nobody reads the small print | the manager is in a good mood | a code comes by mail"
)


def advertise(category: str, rng: random.Random) -> Noise:
    """An advertisement of a blocked category."""
    products, claims = TRADES[category]
    num_pitches = 14
    columns = [
        deal(rng, table, num_pitches)
        for table in (products, claims, OPENINGS, ("because", "and", "so", "while"), LURES)
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
    praise = words(
        "Lovely read | Thanks for this | I had no idea | Not sure I agree | My aunt told me the same | First! | Finally someone says it"
    )
    thought = words(
        "my dog knocked over the coffee while I was reading | we discussed it at dinner yesterday | you forgot the best part"
        " | the picture at the top is upside down | I printed it for my office | greetings from a rainy campsite | where can I subscribe"
        " | the last link does not work for me | I would give it four stars | somebody should turn it into a song"
    )
    return f"{rng.choice(praise)}, {rng.choice(thought)}{rng.choice(('.', '!', ' :-)', '...'))}"
