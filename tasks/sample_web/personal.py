"""Invented personal data for the sample web, in ordinary sentences, and look-alikes that must stay.

Reads nothing and writes nothing. Numbers come from ranges set aside for fiction and tests where such exist (555-01xx, the
drama ranges of Ofcom, ACMA, Arcep and the Bundesnetzagentur, the payment industry's test prefixes), so that they are valid
in form and belong to nobody.
"""

import ipaddress
import random
from dataclasses import dataclass, field

from tasks.sample_web.tables import capitalize, deal, words

FIRST = words(
    "Mara | Jonas | Elin | Tobias | Petra | Owen | Lucia | Henrik | Nadia | Victor | Ines | Rufus | Greta | Samir | Hanna | Felix | Dora | Milo | Vera | Anton"
)
LAST = words(
    "Holt | Brandt | Okafor | Lindqvist | Farrow | Castell | Nowak | Petrov | Adler | Quist | Marsh | Delgado | Thorne | Weiss | Rowan | Kessler"
)
MAIL_HOSTS = (
    "brell-press.org",
    "tarnvale-mail.net",
    "post.ostrel.com",
    "quillmere.info",
    "merrowgate.co.uk",
    "fennick-guild.org",
)
KINDS = ("email", "phone", "ip", "card", "ssn")


@dataclass
class Personal:
    """Sentences with the expected redactions: strings by kind to redact, and look-alikes (`traps`) to keep."""

    sentences: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    redact: list[str] = field(default_factory=list)
    traps: list[str] = field(default_factory=list)

    def add(self, kind: str, rng: random.Random, patterns: tuple[str, ...]) -> None:
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
    return f"{rng.choice(FIRST)} {rng.choice(LAST)}"


def email(rng: random.Random) -> str:
    """An e-mail address at an invented host."""
    first, last = person(rng).lower().split()
    name = rng.choice(
        (f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{rng.randrange(100)}", f"{last}+{first}")
    )
    return f"{name}@{rng.choice(MAIL_HOSTS)}"


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

SENTENCES = {
    "email": (
        "Questions about this page reach {who} at {}.",
        "Anyone who knows more may write to {}, and {who} will answer.",
        "Corrections are welcome; send them to {} before the end of the month.",
        "Tickets are kept by {who}, whose address is {} all year round.",
    ),
    "phone": (
        "The office can be called on {} in the morning.",
        "Call {who} at {} to ask for a place.",
        "For a visit, ring {} and ask for {who}.",
    ),
    "ip": (
        "The old archive server still answers at {} on most days.",
        "The last change was made from {} late at night.",
        "According to the log, a visitor from {} read the page twice.",
    ),
    "card": (
        "The deposit was paid with the card {} and never returned.",
        "By mistake the receipt showed the whole card number, {}, for everyone to see.",
    ),
    "ssn": (
        "The form gave the social security number of {who} as {} without any need.",
        "On the scanned letter one can still read the number {} beside the name of {who}.",
    ),
}

TRAPS = (
    (
        version,
        ("The catalogue now runs on version {} of the software.", "Release {} of the reading app mended the search."),
    ),
    (
        private_ip,
        ("Inside the library the printer sits at {} as before.", "In the reading room, open {} to see the plan."),
    ),
    (
        order_number,
        ("The order number {} is needed to collect the book.", "The parcel carries the number {} on its label."),
    ),
    (
        invalid_ssn,
        ("The shelf mark {} leads to the second floor.", "In the register it has the entry {} since the move."),
    ),
)


def personal_paragraph(rng: random.Random) -> Personal:
    """One to three sentences for an ordinary article: data to redact, often next to a look-alike."""
    personal = Personal()
    for kind in rng.choices(KINDS, weights=(6, 5, 3, 1, 1), k=rng.choice((1, 1, 2))):
        personal.add(kind, rng, SENTENCES[kind])
    if rng.random() < 0.5:
        personal.add_trap(rng)
    return personal


LEAKS = {
    "email": ("signs in as {}", "reads mail at {}", "used {} as a login", "gave {} for invoices"),
    "phone": ("picks up at {}", "left {} as a number", "calls from {}", "answers on {}"),
    "ip": ("connects from {}", "was seen at {}", "owns the router {}", "uploads through {}"),
    "card": ("pays with {}", "keeps the card {}", "was charged on {}", "typed {} into the form"),
    "ssn": ("is filed as {}", "has the security number {}", "was registered under {}", "signed beside {}"),
}
ROLES = words(
    "the treasurer | the second rower | our oldest singer | a former chairman | the night porter | one of the tenants | the new driver"
    " | a paying guest | the club doctor | the referee | the caretaker | a founding member | the youngest coach | an honorary member"
)
PLACES = words(
    "of the north office | in the evening course | from two doors down | on the second list | behind the harbour | of the choir"
    " | near the station | at the boat house | in the annex | upstairs | of the chess table | from the old school | by the mill"
)
TAILS = words(
    "after work | and never changed it | for the whole family | on most weekends | in every shop | since last autumn | under a false name"
    " | until the fee is due | despite a weak password | for three years now | when nobody looks | by old habit | without knowing it"
)
RUMOURS = words(
    "as the backup shows | though the club denies it | and nobody noticed | so the file says | though it was meant to be secret"
    " | according to page nine | and the board was told | as anyone can read here | because the form asked for it"
    " | and the list was never locked | as the letters prove | but the entry is a year old"
)


def leak(rng: random.Random) -> Personal:
    """A page of personal data only: a leaked member list as sentences, about twenty entries, most with an e-mail address."""
    personal = Personal()
    kinds = ("email", "email", "email", *rng.choice((("phone",), ("card", "ssn"), ("ip", "phone"), ("card",))))
    columns = (deal(rng, table, rng.randint(18, 24)) for table in (ROLES, PLACES, TAILS, RUMOURS))
    for role, place, tail, rumour in zip(*columns, strict=False):
        kind = rng.choice(kinds)
        claims = (f"{capitalize(role)} {{who}} {place} {claim} {tail} {rumour}." for claim in LEAKS[kind])
        personal.add(kind, rng, tuple(claims))
    return personal
