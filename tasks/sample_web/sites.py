"""The hosts of the sample web and the blocklists that name some of them.

`build_sites` is a pure function of the seed; `write_blacklists` writes <category>/domains, urls and usage in the layout of the
UT1 lists (https://dsi.ut-capitole.fr/blacklists/): one host a line, one host/path a line without a scheme.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from tasks.sample_web.foreign import GRAMMARS
from tasks.sample_web.html import PATHS, Site
from tasks.sample_web.tables import words

# How bytes are encoded, and how the site says so. Its length has no factor in common with the number of templates.
CHARSETS = (
    ("utf-8", "header"),
    ("utf-8", "both"),
    ("windows-1252", "meta"),
    ("utf-8", "meta"),
    ("iso-8859-1", "header"),
    ("utf-8", "none"),
    ("utf-16", "header"),
    ("utf-8", "wrong"),
    ("windows-1252", "none"),
    ("utf-8", "header"),
    ("windows-1252", "wrong"),
    ("utf-8", "both"),
    ("utf-16", "none"),
)
FOREIGN_CHARSETS = {
    "de": (("iso-8859-1", "header"), ("utf-8", "meta"), ("windows-1252", "none")),
    "fr": (("utf-8", "header"), ("windows-1252", "meta"), ("iso-8859-1", "both")),
    "es": (("utf-8", "none"), ("iso-8859-1", "meta"), ("utf-8", "wrong")),
    "ru": (("koi8-r", "header"), ("windows-1251", "meta"), ("utf-8", "header")),
}

FIRST = words(
    "brell | tarn | quill | merrow | fennick | ostrel | harrow | lindle | corvan | wexley | amber | thistle | marlow | pindle | sorrel | garnet"
)
SECOND = words(
    "vale | press | mere | gate | guild | post | field | works | haven | courier | ledger | lane | hearth | weekly | garden | circle"
)
ENDINGS = ("org", "com", "net", "info", "co.uk", "com", "org")
SECTIONS = words(
    "News | People | Places | Books | Sports | Food | Travel | Science | Letters | Events | Rivers | Music | Markets | Archive | Gardens | Weather"
)

# Blocked by domain (below it, too), by host alone, and by address.
BLOCKED: dict[str, dict[str, tuple[str, ...]]] = {
    "gambling": {
        "domains": ("brellspins.com", "palace.tarnjackpot.net", "quillbets.info"),
        "urls": ("pages.fennickhosting.net/roulette", "members.wexleyspace.com/lucky"),
    },
    "adult": {
        "domains": ("merrowafterdark.com", "lounge.ostrelnights.net"),
        "urls": ("pages.fennickhosting.net/lounge",),
    },
    "malware": {
        "domains": ("freedrivers-harrow.com", "cdn.lindlecodecs.net"),
        "urls": ("files.corvanmirror.org/setup",),
    },
}
NUM_BLOCKED_ADDRESSES = 8


@dataclass(frozen=True)
class Sites:
    """Hosts by what they publish."""

    english: tuple[Site, ...]
    mirrors: tuple[Site, ...]
    foreign: tuple[Site, ...]
    spam: tuple[Site, ...]


def build_sites(seed: int) -> Sites:
    """All hosts of the sample web for a seed."""
    rng = random.Random(f"{seed}/sites")
    names = rng.sample([(first, second) for first in FIRST for second in SECOND], 45)
    templates = tuple(PATHS)
    hosts = [english_site(name, templates[index % len(templates)], index, rng) for index, name in enumerate(names)]
    foreign = tuple(site for language in GRAMMARS for site in foreign_sites(language, templates, rng))
    return Sites(english=tuple(hosts[:32]), mirrors=tuple(hosts[32:40]), foreign=foreign, spam=tuple(hosts[40:]))


def english_site(name: tuple[str, str], template: str, index: int, rng: random.Random) -> Site:
    """A host with English pages; `index` decides its charset and how broken it is."""
    charset, announced = CHARSETS[index % len(CHARSETS)]
    prefix = rng.choice(("www.", "www.", "", "blog." if template == "blog" else "", "read."))
    return Site(
        host=f"{prefix}{name[0]}{rng.choice(('', '-'))}{name[1]}.{rng.choice(ENDINGS)}",
        name=f"The {name[0].title()} {name[1].title()}",
        template=template,
        sections=tuple(rng.sample(SECTIONS, 11)),
        scheme="http" if template == "table" or index % 5 == 4 else "https",
        charset=charset,
        announced=announced,
        is_broken=index % 4 == 1,
        is_typographic=charset == "windows-1252" or index % 16 == 7,
    )


def foreign_sites(language: str, templates: tuple[str, ...], rng: random.Random) -> list[Site]:
    """The hosts of another language, one for each of its charsets."""
    grammar = GRAMMARS[language]
    return [
        Site(
            host=f"www.{rng.choice(FIRST)}{rng.choice(SECOND)}{index}.{language}",
            name=f"{rng.choice(FIRST).title()} {grammar.sections[index]}",
            template=rng.choice(templates),
            sections=grammar.sections,
            language=language,
            charset=charset,
            announced=announced,
        )
        for index, (charset, announced) in enumerate(FOREIGN_CHARSETS[language])
    ]


def blocked_address(category: str, rng: random.Random) -> tuple[str, str]:
    """The host and the start of the path of a page that a list names."""
    lists = BLOCKED[category]
    entry = rng.choice(lists["domains"] + lists["urls"])
    if "/" in entry:
        host, directory = entry.split("/")
        return host, f"/{directory}/page-{rng.randrange(NUM_BLOCKED_ADDRESSES)}.html"
    return entry if entry.count(".") > 1 else rng.choice(("", "www.")) + entry, ""


def write_blacklists(folder: Path) -> None:
    """Write the blocklists, a folder for each category."""
    for category, lists in BLOCKED.items():
        target = folder / category
        target.mkdir(parents=True, exist_ok=True)
        pages = [f"{entry}/page-{number}.html" for entry in lists["urls"] for number in range(NUM_BLOCKED_ADDRESSES)]
        (target / "domains").write_text("".join(f"{host}\n" for host in sorted(lists["domains"])), encoding="utf-8")
        (target / "urls").write_text("".join(f"{page}\n" for page in sorted(pages)), encoding="utf-8")
        (target / "usage").write_text("black\n", encoding="utf-8")
