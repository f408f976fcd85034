"""The hosts of the sample web and the blocklists that name some of them.

Reads data/sites.yaml. `build_sites` is a pure function of the seed; `write_blacklists` writes <category>/domains, urls and usage in the
layout of the UT1 lists (https://dsi.ut-capitole.fr/blacklists/): one host a line, one host/path a line without a scheme.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.sample_web.data import table
from tasks.sample_web.foreign import LANGUAGES
from tasks.sample_web.html import PATHS, Site

DATA: dict[str, Any] = table("sites")
BLOCKED: dict[str, dict[str, list[str]]] = DATA["blocked"]  # by domain (below it, too), by host alone, and by address
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
    names = rng.sample([(first, second) for first in DATA["first"] for second in DATA["second"]], 45)
    templates = tuple(PATHS)
    hosts = [english_site(name, templates[index % len(templates)], index, rng) for index, name in enumerate(names)]
    foreign = tuple(site for language in LANGUAGES for site in foreign_sites(language, templates, rng))
    return Sites(english=tuple(hosts[:32]), mirrors=tuple(hosts[32:40]), foreign=foreign, spam=tuple(hosts[40:]))


def english_site(name: tuple[str, str], template: str, index: int, rng: random.Random) -> Site:
    """A host with English pages; `index` decides its charset and how broken it is."""
    # The number of charsets has no factor in common with the number of templates, so that each template has each charset.
    charset, announced = DATA["charsets"][index % len(DATA["charsets"])]
    prefix = rng.choice(("www.", "www.", "", "blog." if template == "blog" else "", "read."))
    return Site(
        host=f"{prefix}{name[0]}{rng.choice(('', '-'))}{name[1]}.{rng.choice(DATA['endings'])}",
        name=f"The {name[0].title()} {name[1].title()}",
        template=template,
        sections=tuple(rng.sample(DATA["sections"], 11)),
        scheme="http" if template == "table" or index % 5 == 4 else "https",
        charset=charset,
        announced=announced,
        is_broken=index % 4 == 1,
        is_typographic=charset == "windows-1252" or index % 16 == 7,
    )


def foreign_sites(language: str, templates: tuple[str, ...], rng: random.Random) -> list[Site]:
    """The hosts of another language, one for each of its charsets."""
    sections = tuple(LANGUAGES[language]["sections"])
    return [
        Site(
            host=f"www.{rng.choice(DATA['first'])}{rng.choice(DATA['second'])}{index}.{language}",
            name=f"{rng.choice(DATA['first']).title()} {sections[index]}",
            template=rng.choice(templates),
            sections=sections,
            language=language,
            charset=charset,
            announced=announced,
        )
        for index, (charset, announced) in enumerate(DATA["foreign_charsets"][language])
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
