"""Street addresses in a text, as far as a rule can tell.

Pure functions. A house number and a street count where a town with its postcode follows, where the words before say so,
or where the form leaves no doubt (a German street, a post office box). "12 Main Street" alone stays: in prose it is a
place more often than a home. Not found: countries whose addresses have another order, or no form at all.
"""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from tasks.pii.spans import Span, words_before

MIN_CHARACTERS = 8  # what is left of an overlapped form may be a postcode alone
MAX_NAMES = 4  # words and numbers of a street's name before its last word
NUM_PLACES = 64  # that are remembered: candidates come in order and reach MAX_NAMES words ahead
# All repetitions have bounds, so that no text makes a pattern take more than linear time. A possessive WORD+ (no character is
# given back) stands where what follows cannot begin within a word: it only cuts failures short
WORD = r"[A-ZÀ-Þ][\w'’.&-]{0,24}"
# A comma or up to two blanks, line ends included: addresses stand on several lines
GAP = r"(?:,?\s{1,2}|,)"
# No price, date, path or decimal: see the characters that may not stand before
HOUSE = r"[0-9](?<![\w$€£#.,:/–-].)\d{0,4}(?:-\d{1,4})?(?:-?[A-Za-z]\b| ?(?:bis|ter)\b)?"
STREET = (
    r"(?i:street|st|avenue|ave|road|rd|boulevard|blvd|drive|dr|lane|ln|court|ct|place|pl|square|sq|terrace|way|parkway|"
    r"pkwy|highway|hwy|circle|cir|trail|crescent|close|gardens|grove|mews|row|plaza|turnpike|pike)\b\.?"
)
UNIT = r"(?:,? ?(?:(?i:apt|apartment|suite|ste|unit|floor|room|rm|flat|box)\b\.?|#) ?#?\w{1,5})?"
DOOR = r",?\s{1,2}(?:Apt|Apartment|Suite|Ste)\b\.? ?#?\w{1,5}\b"
# Abbreviations as the postal services of the United States and Australia have them, older ones, and names in full
STATE = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]|"
    r"Ala|Ariz|Calif|Colo|Conn|Fla|Ill|Ind|Mass|Mich|Minn|Penn|Tenn|Tex|Wash|Wis|Alabama|Alaska|Arizona|Arkansas|California|"
    r"Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|"
    r"Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New [HJMY]\w+|"
    r"(?:North|South) (?:Carolina|Dakota)|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|Tennessee|Texas|Utah|Vermont|"
    r"(?:West )?Virginia|Washington|Wisconsin|Wyoming|NSW|VIC|QLD|TAS|ACT)\b\.?"
)
TOWN = rf"{WORD}+(?: {WORD}+){{0,3}}"
POSTCODE = r"(?:[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z][ -]?\d[A-Z]\d)\b"  # United Kingdom, Canada
# A town is optional before a state, as in "12 Main St, IL 62704". The lookahead is implied by what follows it: it fails in 13 steps
# where three towns of up to four words each can be divided in 85 ways, all of which would be tried
PLACE = rf"(?:{GAP}{TOWN})?{GAP}{STATE}{GAP}\d{{4,5}}(?:-\d{{4}})?\b(?!,\d)|(?=(?:{GAP}{WORD}+){{0,12}}{GAP}{POSTCODE})(?:{GAP}{TOWN}){{0,3}}{GAP}{POSTCODE}"
# The rest of a house number after its digits, as in 12a, 12-14, 12/1
LAST_HOUSE = r"(?: ?[a-zA-Z])?\b(?: ?[-–/+] ?\d{1,4} ?[a-z]?\b)?"
CONTINENTAL_PLACE = rf"{GAP}(?:[A-Z]{{1,2}}-)?\d{{4,5}}(?: [A-Z]{{2}}\b)? {WORD}(?! {STREET})"
# Five digits, or the Dutch form, are postcodes by themselves; four digits may be a year
LONG_POSTCODE = re.compile(rf"\d{{5}} {WORD}$|\d{{4}} [A-Z]{{2}} {WORD}$")

# Before its last word the name of a street has at most MAX_NAMES words or numbers: longer rows of numbers, as in tables, end here
HOUSE_FIRST = re.compile(
    rf"{HOUSE},? (?=[A-ZÀ-Þ]|rue|avenue|boulevard|place|chemin|allée|impasse|quai"
    r"|(?:\d{1,4}+(?:st|nd|rd|th)?+,?\s{1,2}+){1,5}+[A-Za-zÀ-Þ])"
)
NAME = re.compile(rf"(?:{WORD}+|\d{{1,3}}(?:st|nd|rd|th)?) ")
FULL = re.compile(rf"{WORD}{UNIT}(?:{PLACE})|(?:{WORD}+|\d{{1,4}}+){DOOR}(?:{PLACE})?")
STREET_ONLY = re.compile(rf"{STREET}{UNIT}(?P<state>,\s{TOWN},? {STATE})?")
# One of these is in every match of FULL, STREET_ONLY and FRENCH: a part of a postcode, a door, or the last word of a street
LANDMARK = re.compile(rf"\d{{4}}|\d[A-Z]|(?<=\s)(?:Apt|Apartment|Suite|Ste)\b|(?<= ){STREET}")
MAX_HOUSES = 1 / 5  # a character: prose and tables have fewer house numbers, and a hostile text is searched so far
MAX_CHARACTERS = 600  # from the start of a street's name to its landmark: 17 words and a unit, with what separates them
FRENCH = re.compile(
    rf"(?:rue|avenue|boulevard|place|chemin|allée|impasse|quai)(?: [\w'’-]{{1,30}}){{1,6}}{CONTINENTAL_PLACE}"
)
HOUSE_LAST = re.compile(rf"[0-9](?<![\w$€£#.,:/–-].)\d{{0,3}}{LAST_HOUSE}{CONTINENTAL_PLACE}")
# The search is for "traße": the first letters of the word, of any length, are matched backwards from there (GERMAN_BEFORE)
GERMAN = re.compile(rf"tr(?:aße|asse|\.) ?\d{{1,4}}{LAST_HOUSE}(?:{CONTINENTAL_PLACE})?")
GERMAN_BEFORE = re.compile(rf"(?:{WORD}[ -])?{WORD}$")
HIGHWAY = re.compile(r"(?:Bundes|Landes|Kreis|Staats)s$")
STREET_BEFORE = re.compile(rf"{WORD} (?:{WORD} |de[rsnlm]? |la |di |van ){{0,3}}$")
STREET_LAST = re.compile(
    r"(?:platz|weg|gasse|allee|ring|damm|ufer|hof|straat|laan|plein|gracht|kade|vej|gade|gate|gata|gatan|veien|vägen) $",
    re.IGNORECASE,
)
# "May 12, 10000 Germans" is a day and a number
MONTH = re.compile(
    r"\b(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|"
    r"Dec(?:ember)?)\.? $"
)
# Post office boxes, and those of the military of the United States: APO, DPO and FPO with AA, AE or AP for a state
# With or without points: PO Box, P.O. Box, P. O. Box
BOX = re.compile(rf"P(?:\.? ?O\.? ?(?i:box) \d{{1,6}}(?:{PLACE})?|O A[AEP] \d{{5}}\b)")
MILITARY_BEFORE = re.compile(r"(?:(?:PSC|CMR|Unit) \d{1,5},? Box \d{1,5}\s{1,2})?\b[ADF]$")
CONTEXT = re.compile(
    r"\b(?:address(?: is|:)?|(?:lives?|lived|living|resides?|resided|residing|located) (?:at|on|in)|(?:mail|ship|send|sent) to)"
    r"[\s:]{0,3}$",
    re.IGNORECASE,
)

CONTEXT_ENDS = ("address", "is", "at", "on", "in", "to")  # the last words of CONTEXT


def find_addresses(text: str, kinds: Collection[str]) -> Iterator[Span]:
    """Addresses of every form, each from where the one before it ends."""
    end = 0
    for first, stop in sorted((*house_first(text), *house_last(text), *german(text), *boxes(text))):
        # Two forms may overlap: what the one before has taken is cut off, with the separators that then come first.
        start = max(first, end)
        start += len(text[start:stop]) - len(text[start:stop].lstrip(" ,\r\n"))
        if stop - start >= MIN_CHARACTERS:
            end = stop
            yield Span(start, stop, "address")


class Place(NamedTuple):
    """What matches at a place after a house number: the next word of a name ends at `next` (-1: none), an address in full, a street alone."""

    next: int
    full: re.Match[str] | None
    street: re.Match[str] | None


def house_first(text: str) -> Iterator[tuple[int, int]]:
    """12 Main Street, Springfield, IL 62704; 12 rue de la Paix, 75002 Paris; a street alone where its state or the words before say so."""
    places: dict[int, Place] = {}
    landmark, num_left = -1, 100 + int(len(text) * MAX_HOUSES)
    for house in HOUSE_FIRST.finditer(text):
        start, first = house.span()
        if landmark < first:
            landmark = found.start() if (found := LANDMARK.search(text, first)) else len(text) + MAX_CHARACTERS
        if landmark > first + MAX_CHARACTERS:
            continue  # a number in a table, or one of a hostile million
        if not (num_left := num_left - 1):
            return
        if len(places) > NUM_PLACES:
            places.clear()
        full, street = _longest(text, first, places)
        if match := full or FRENCH.match(text, first):
            yield start, match.end()
        elif (
            street
            and text[first - 2] != ","
            # Without a postcode, its state or the words before must say that it is an address.
            and (street["state"] or _says_address(words_before(text, start)))
        ):
            yield start, street.end()


def _longest(text: str, first: int, places: dict[int, Place]) -> tuple[re.Match[str] | None, re.Match[str] | None]:
    """The address in full and the street alone with the longest name that begins at `first`, as a greedy pattern would match them.

    House numbers in a row lead to the same words, so each place is matched once: one pattern from the number on, which tried every
    division of a row of capitalised words into street and towns again for each number, took 5 times as long for such texts.
    """
    full: re.Match[str] | None = None
    street: re.Match[str] | None = None
    place = first
    for num_names in range(MAX_NAMES + 1):
        if (known := places.get(place)) is None:
            name = NAME.match(text, place)
            known = Place(name.end() if name else -1, FULL.match(text, place), STREET_ONLY.match(text, place))
            places[place] = known
        place = known.next
        full = known.full or full
        if num_names:  # "12 Street" has no name
            street = known.street or street
        if place < 0:
            break
    return full, street


def _says_address(before: str) -> bool:
    # The expression is slow, and before most numbers stands another word.
    return before.rstrip().rstrip(":").rstrip().lower().endswith(CONTEXT_ENDS) and CONTEXT.search(before) is not None


def house_last(text: str) -> Iterator[tuple[int, int]]:
    """Musterweg 12, 12345 Berlin; Via Roma 12, 00184 Roma. Four digits may be a year, and want a street before."""
    for house in HOUSE_LAST.finditer(text):
        before = words_before(text, house.start())
        is_certain = LONG_POSTCODE.search(house[0]) or STREET_LAST.search(before)
        if is_certain and not MONTH.search(before) and (street := STREET_BEFORE.search(before)):
            yield house.start() - len(street[0]), house.end()


def german(text: str) -> Iterator[tuple[int, int]]:
    """Musterstraße 12; Berliner Str. 12, 12345 Berlin."""
    for house in GERMAN.finditer(text):
        before = words_before(text, house.start())
        # "Bundesstraße 12" is a road across the country and nobody's address.
        if (street := GERMAN_BEFORE.search(before)) and not HIGHWAY.search(before):
            yield house.start() - len(street[0]), house.end()


def boxes(text: str) -> Iterator[tuple[int, int]]:
    """P.O. Box 12, Springfield, IL 62704; PSC 12, Box 34, APO AE 09012."""
    for box in BOX.finditer(text):
        # The pattern begins at PO: the letter before it makes APO, DPO or FPO, and the unit with its box may stand before that.
        is_military = box[0].startswith("PO A")
        before = MILITARY_BEFORE.search(words_before(text, box.start())) if is_military else None
        if before or not is_military:
            yield box.start() - len(before[0] if before else ""), box.end()
