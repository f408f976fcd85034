"""Invented personal data for the sample web, in ordinary sentences, and look-alikes that must stay.

Reads data/personal.yaml; writes nothing. Numbers come from ranges set aside for fiction and tests where such exist (555-01xx, the
drama ranges of Ofcom, ACMA, Arcep and the Bundesnetzagentur, the payment industry's test prefixes), so that they are valid
in form and belong to nobody.
"""

import ipaddress
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.sample_web.data import table
from tasks.sample_web.grammar import capitalize, deal

TABLES: dict[str, Any] = table("personal")
KINDS = ("email", "phone", "ip", "card", "ssn")


@dataclass
class Personal:
    """Sentences with the expected redactions: strings by kind to redact, and look-alikes (`traps`) to keep."""

    sentences: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    redact: list[str] = field(default_factory=list)
    traps: list[str] = field(default_factory=list)

    def add(self, kind: str, rng: random.Random, patterns: Sequence[str]) -> None:
        """Add a sentence with an invented value of a kind, to be redacted."""
        value = MAKERS[kind](rng)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.redact.append(value)
        self.sentences.append(rng.choice(patterns).format(value, who=person(rng)))

    def add_trap(self, rng: random.Random) -> None:
        """Add a sentence with a look-alike, to be kept."""
        make, patterns = rng.choice(TRAPS)
        value = make(rng)
        self.traps.append(value)
        self.sentences.append(rng.choice(patterns).format(value))


def person(rng: random.Random) -> str:
    """An invented first and last name."""
    return f"{rng.choice(TABLES['first'])} {rng.choice(TABLES['last'])}"


def email(rng: random.Random) -> str:
    """An e-mail address at an invented host."""
    first, last = person(rng).lower().split()
    name = rng.choice(
        (f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{rng.randrange(100)}", f"{last}+{first}")
    )
    return f"{name}@{rng.choice(TABLES['mail_hosts'])}"


def phone(rng: random.Random) -> str:
    """A phone number from a range for fiction."""
    area = rng.choice((212, 303, 312, 415, 503, 617, 718, 805))
    line, subscriber = rng.randrange(100, 200), rng.randrange(100, 1000)
    return rng.choice(
        (
            f"({area}) 555-0{line}",
            f"{area}-555-0{line}",
            f"+1 {area} 555 0{line}",
            f"+44 20 7946 0{subscriber}",
            f"+44 113 496 0{subscriber}",
            f"+33 1 99 00 {rng.randrange(10, 100)} {rng.randrange(10, 100)}",
            f"+49 30 23125 {subscriber}",
            f"+61 491 570 {rng.choice((156, 157, 158, 159))}",
        )
    )


def ip(rng: random.Random) -> str:
    """A public IPv4 address."""
    while True:
        address = ipaddress.IPv4Address(rng.getrandbits(32))
        if address.is_global and not address.is_multicast:
            return str(address)


def card(rng: random.Random) -> str:
    """Sixteen digits with a valid Luhn check digit, in groups of four or in one."""
    digits = rng.choice(("411111", "555555", "401288", "510510")) + f"{rng.randrange(10**9):09d}"
    return group_digits(digits + str(luhn_digit(digits)), rng)


def order_number(rng: random.Random) -> str:
    """Sixteen digits like a card number whose check digit is wrong."""
    digits = "4" + f"{rng.randrange(10**14):014d}"
    return group_digits(digits + str((luhn_digit(digits) + rng.randint(1, 9)) % 10), rng)


def luhn_digit(digits: str) -> int:
    """The check digit of a card number (ISO/IEC 7812-1)."""
    doubled = [int(digit) * (2 if index % 2 == 0 else 1) for index, digit in enumerate(reversed(digits))]
    return -sum(value - 9 if value > 9 else value for value in doubled) % 10


def group_digits(digits: str, rng: random.Random) -> str:
    """Digits in groups of four, or in one."""
    groups = [digits[start : start + 4] for start in range(0, 16, 4)]
    return rng.choice((" ", "-", "")).join(groups)


def ssn(rng: random.Random) -> str:
    """A valid United States social security number."""
    area = rng.choice([number for number in range(100, 900) if number != 666])
    return f"{area:03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


def invalid_ssn(rng: random.Random) -> str:
    """A number that is written like a social security number, in a range that is never issued."""
    return f"{rng.choice(('000', '666', '901', '987'))}-{rng.randint(1, 49):02d}-{rng.randint(1, 9999):04d}"


def private_ip(rng: random.Random) -> str:
    """An address of a private network, which identifies nobody."""
    return rng.choice(
        (f"192.168.{rng.randrange(256)}.{rng.randrange(1, 255)}", f"10.0.{rng.randrange(9)}.{rng.randrange(1, 255)}")
    )


def version(rng: random.Random) -> str:
    """A version number of four parts, which looks like an IP address."""
    return f"{rng.randrange(1, 20)}.{rng.randrange(20)}.{rng.randrange(40)}"


MAKERS = {"email": email, "phone": phone, "ip": ip, "card": card, "ssn": ssn}

TRAPS = tuple((make, TABLES["traps"][make.__name__]) for make in (version, private_ip, order_number, invalid_ssn))


def personal_paragraph(rng: random.Random) -> Personal:
    """One to three sentences for an ordinary article: data to redact, often next to a look-alike."""
    personal = Personal()
    for kind in rng.choices(KINDS, weights=(6, 5, 3, 1, 1), k=rng.choice((1, 1, 2))):
        personal.add(kind, rng, TABLES["sentences"][kind])
    if rng.random() < 0.5:
        personal.add_trap(rng)
    return personal


def leak(rng: random.Random) -> Personal:
    """A page of personal data only: a leaked member list as sentences, about twenty entries, most with an e-mail address."""
    personal = Personal()
    kinds = ("email", "email", "email", *rng.choice((("phone",), ("card", "ssn"), ("ip", "phone"), ("card",))))
    columns = (deal(rng, TABLES[name], rng.randint(18, 24)) for name in ("roles", "places", "tails", "rumours"))
    for role, place, tail, rumour in zip(*columns, strict=False):
        kind = rng.choice(kinds)
        claims = (f"{capitalize(role)} {{who}} {place} {claim} {tail} {rumour}." for claim in TABLES["leaks"][kind])
        personal.add(kind, rng, tuple(claims))
    return personal
