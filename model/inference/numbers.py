"""Numbers in texts: their exact values and units, in the ways that people and models write them.

Reads and writes nothing. Used to compare answers, see model/inference/answers.py.

Read are signs ("-5", "minus 5"), thousands separators (1,000; 1 000; 1'000; 1.000.000; 1,00,000), decimals (3.5; 3,5; .5), fractions
(3/4, 1 1/2, ½, \\frac{3}{4}), percent, currencies ($5, 5 euros), powers of ten (1e5, 3 × 10^8, 3×10⁸), large numbers in words (2.5 million,
10k, 3万), units of measure with their factors (1 km is 1000 m), digits of every script (५, ٥), and English number words (twenty-one).
A number with a single comma is read as in English where three digits follow it, and as a decimal comma elsewhere.

No numbers are: parts of words (H2O, COVID-19), versions and addresses (3.11.4), times (10:30), digits after a zero (007, 02139),
decades (1990s).
"""

import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import regex

MAX_DIGITS = 400  # a number of more digits, or a larger exponent, is not read: exact powers would take all memory

# Characters are unified before any number is read, so that the patterns below need to know one spelling of each sign only.
SUPERSCRIPT = regex.compile(r"(?<=[\w)])([⁺⁻]?[⁰¹²³⁴-⁹]+)(?![⁺⁻])")
VULGAR_FRACTION = regex.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
INVISIBLE = regex.compile(r"[\p{Cf}\p{Variation_Selector}]")
THIN_SPACE = regex.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")  # typesetters' thousands separators
SAME = str.maketrans(
    {"−": "-", "‐": "-", "⁄": "/", "∕": "/", "٫": ".", "٬": ",", "٪": "%", "’": "'", "‘": "'", "ʼ": "'"}
)
EN_DASH_SIGN = regex.compile(r"(?<![^\s(\[])–(?=\d)")
LATEX = ((r"\\[dt]?frac\{(\d+)\}\{(\d+)\}", r"\1/\2"), (r"\\times|\\cdot", "×"), (r"\{,\}", ","), (r"\\([$%])", r"\1"),
         (r"\^\{(-?\d+)\}", r"^\1"), (r"\\[,;: ]", " "), (r"\$([^$\s]{1,80})\$", r"\1"))  # fmt: skip

# The first group of a number with thousands separators. It begins with 1 to 9: "0,123" is a decimal, "0 123" no number.
FIRST = r"[1-9]\d{0,2}"
# Of a run of digits and separators: what it looks like, its thousands separators, its decimal separator. The first form that fits
# counts. Most quantifiers are possessive (++, *+): a run of digits has no second reading, and MAX_DIGITS bounds what is left
# to backtrack.
FORMS = [
    (regex.compile(pattern), thousands, decimal)
    for pattern, thousands, decimal in (
        (r"0|[1-9]\d*+", "", ""),
        (r"\d*+\.\d++", "", "."),
        (rf"{FIRST}(?:,\d{{3}})++(?:\.\d++)?", ",", "."),
        (r"[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d++)?", ",", "."),  # lakh and crore
        (rf"{FIRST}(?:\.\d{{3}}){{2,}}+(?:,\d++)?", ".", ","),
        (rf"{FIRST}(?:\.\d{{3}})++,\d++", ".", ","),
        (rf"{FIRST}(?:[ '_]\d{{3}})++(?:\.\d++)?", " '_", "."),
        (rf"{FIRST}(?:[ ']\d{{3}})++,\d++", " '", ","),
        (r"\d++,(?:\d{1,2}|\d{4,})|0,\d++", "", ","),
    )
]
# In order: a sign, unless something before it makes it a hyphen or a minus between numbers (10-5, A-5); a currency before the digits; what may
# not stand before a number, such as a letter (H2O) or a separator (the rest of 10:30); a fraction or digits; a power of ten; a large
# number in words; a unit. A suffix (5k) stands without a space, so that "5 K" is five kelvins and "5 m" five metres. At most nine
# digits where int() is called: exponents and fractions of more are no numbers that a reply would name.
NUMBER = regex.compile(
    r"""
    (?P<sign>(?<![^\s(\[{=:<>;,*"'|~≈])[-+])?
    (?P<currency>(?<!\p{L})(?:US\$|[$€£¥₹₩₽฿]|USD|EUR|GBP)\s?[-+]?)?
    (?<![\w.^/--[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]])(?<!\p{L}-)(?<!\d[:,'_])
    (?:
        (?:(?P<whole>\d{1,9})[ ])?(?P<numerator>\d{1,9}+)/(?P<denominator>\d{1,9}+)(?![/.:]?\d)
      | (?P<digits>\d{1,3}(?:[ ]\d{3})++(?!\d)(?:[.,]\d++)?|\d(?:[.,'_:]?\d)*+|\.\d++)
    )
    (?P<exponent>[eE](?P<e>[-+]?\d{1,9}+)|\s?[×x*]\s?10\^(?P<power>[-+]?\d{1,9}+)|(?<=10)\^(?P<alone>[-+]?\d{1,9}+))?
    (?:\s?(?P<magnitude>thousand|million|billion|trillion|lakh|crore|bn|dozen)\b|(?P<suffix>[kKMB万萬億亿만억])(?![\p{Latin}\d]))?
    (?:[ -]?(?P<unit>(?:°\s?)?\p{L}[\p{L}\p{M}]*+(?:\^?[23]|/h|/s)?+|[%$€£¥₹₩₽฿°]))?
    """,
    regex.VERBOSE | regex.V1,
)
MAGNITUDES = {
    "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "lakh": 10**5, "crore": 10**7, "bn": 10**9, "dozen": 12,
    "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "万": 10**4, "萬": 10**4, "만": 10**4, "億": 10**8, "亿": 10**8, "억": 10**8,
}  # fmt: skip

# Spelling -> dimension, and the factor to its first unit. Factors are exact: the inch is 0.0254 m and the pound 0.45359237 kg by
# definition (International Yard and Pound Agreement of 1959). A dimension holds units that differ by a factor, which leaves apart:
# months from seconds (no fixed number of days), degrees Celsius from Fahrenheit (another zero), and currencies (no fixed rate). Yen and
# yuan share a sign, and so a dimension: 5 yuan equal 5 yen here. Cents are taken for those of a dollar. "in" is left out, which is mostly
# the preposition. An unknown unit, such as KiB, is ignored, and the number compared as if it had none.
UNITS: dict[str, tuple[str, Fraction]] = {}
for dimension, table in {
    "length": "1 m metre metres meter meters;1000 km kilometre kilometres kilometer kilometers;1/100 cm centimetre centimetres centimeter "
    "centimeters;1/1000 mm millimetre millimetres millimeter millimeters;127/5000 inch inches;381/1250 ft foot feet;"
    "1143/1250 yd yard yards;201168/125 mi mile miles",
    "mass": "1 kg kilogram kilograms kilogramme kilogrammes kilo kilos;1/1000 g gram grams gramme grammes;1/1000000 mg milligram milligrams;"
    "1000 t tonne tonnes;45359237/100000000 lb lbs;45359237/1600000000 oz ounce ounces",
    "time": "1 s sec secs second seconds;60 min mins minute minutes;3600 h hr hrs hour hours;86400 d day days;604800 week weeks;1/1000 ms",
    "month": "1 month months;12 year years yr yrs",
    "volume": "1 l L litre litres liter liters;1/1000 ml mL millilitre millilitres milliliter milliliters;1000 m^3",
    "area": "1 m^2 m2;1000000 km^2 km2;10000 ha hectare hectares",
    "speed": "1 m/s;5/18 km/h kph kmh;1397/3125 mph",
    "celsius": "1 °C ℃",
    "fahrenheit": "1 °F",
    "kelvin": "1 K kelvin",
    "angle": "1 ° degree degrees",
    "byte": "1 byte bytes;1000 kB KB;1000000 MB;1000000000 GB;1000000000000 TB",
    "watt": "1 W watt watts;1000 kW",
    "joule": "1 J joule joules;1000 kJ",
    "newton": "1 N newton newtons",
    "volt": "1 V volt volts",
    "hertz": "1 Hz hertz;1000 kHz;1000000 MHz;1000000000 GHz",
    "ratio": "1/100 % percent pct",
    "dollar": "1 $ US$ USD dollar dollars;1/100 cent cents",
    "euro": "1 € EUR euro euros",
    "pound": "1 £ GBP pound pounds",
    "yen": "1 ¥ JPY yen 円 元 yuan RMB CNY",
    "rupee": "1 ₹ INR rupee rupees",
    "won": "1 ₩ KRW won 원",
    "rouble": "1 ₽ RUB rouble roubles ruble rubles",
    "baht": "1 ฿ THB baht บาท",
}.items():
    for row in table.split(";"):
        factor, *spellings = row.split()
        UNITS |= {spelling: (dimension, Fraction(factor)) for spelling in spellings}
# "5th" is the number 5: a question for a rank may be answered either way.
ORDINALS = {"st", "nd", "rd", "th"}

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
WORDS = {word: value for value, word in enumerate(ONES.split())} | {
    word: 10 * value
    for value, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
# Of the kinds of number words: which may stand before each; "" is the beginning. What does not fit makes no number, so that "one two
# three" is not read as six.
MAY_FOLLOW = {
    "one": ("", "ten", "hundred", "scale"), "ten": ("", "hundred", "scale"), "hundred": ("one",), "scale": ("one", "ten", "hundred"),
}  # fmt: skip
ANY_WORD = "|".join(sorted([*WORDS, *SCALES], key=len, reverse=True))
SPELLED = regex.compile(
    rf"(?<![\w'-])(?:{ANY_WORD})(?:(?:\s+and\s+|[\s-]+)(?:{ANY_WORD})(?![\w'-]*\w))*+(?![\w'])", regex.IGNORECASE
)
MINUS = regex.compile(r"(?<!\w)(?<!\d\s)(?:minus|negative)\s*$", regex.IGNORECASE)


class Quantity(NamedTuple):
    """A number in a text."""

    value: Fraction
    # Of its unit, "" where it has none or an unknown one; a value without a unit may be compared with any.
    dimension: str
    factor: Fraction  # of its unit to the first one of the dimension
    start: int  # of its characters in the prepared text
    end: int

    def equals(self, other: "Quantity") -> bool:
        """Whether both are the same amount. A missing unit fits every unit, as in GSM8K; 50% is 50 and also 0.5."""
        # Fractions are exact: 0.1 + 0.2 is 0.3 here, and a third is not 0.333.
        if self.dimension and other.dimension:
            return self.dimension == other.dimension and self.value * self.factor == other.value * other.factor
        if self.value == other.value:
            return True
        return "ratio" in (self.dimension, other.dimension) and self.value * self.factor == other.value * other.factor


def prepare(text: str) -> str:
    """A text with one spelling of each character: NFKC, ASCII digits, plain minus signs and apostrophes, no invisible or control characters.

    Superscripts stay apart from the digits before them (10⁵ becomes 10^5, not 105), and so do fractions (1½ becomes 1 1/2).
    """
    # Control characters become spaces, format characters nothing: those may stand inside a number.
    text = regex.sub(r"\p{Cc}", " ", text)
    text = VULGAR_FRACTION.sub(" ", SUPERSCRIPT.sub(lambda match: "^" + match[1], INVISIBLE.sub("", text)))
    # Before NFKC, which makes plain spaces of them: such a space may also stand between two numbers.
    text = THIN_SPACE.sub("'", text)
    text = unicodedata.normalize("NFKC", INVISIBLE.sub("", unicodedata.normalize("NFKC", text)))
    text = EN_DASH_SIGN.sub("-", text.translate(SAME))
    return regex.sub(r"[^\P{Nd}0-9]", lambda match: str(unicodedata.decimal(match[0])), text)


def plain_latex(text: str) -> str:
    """A prepared text in which LaTeX's numbers are written as others are."""
    # The search is a shortcut: few replies hold LaTeX, and each pattern reads the whole text.
    for pattern, replacement in LATEX if regex.search(r"[\\{$]", text) else ():
        text = regex.sub(pattern, replacement, text)
    return text


def quantities(text: str) -> list[Quantity]:
    """The numbers of a prepared text in order; those in words only where it has no digits ("this one is 7" has one number)."""
    return list(_in_digits(text)) or list(_in_words(text))


def only_quantity(text: str) -> Quantity | None:
    """The number that a prepared text consists of, or None."""
    text = text.strip().removesuffix(".")  # of a sentence
    found = quantities(text)
    # Two numbers are a list or a calculation.
    if len(found) != 1:
        return None
    [quantity] = found
    prefix = MINUS.sub("", text[: quantity.start])
    return quantity if not prefix.strip() and not text[quantity.end :].strip() else None


def _in_digits(text: str) -> Iterator[Quantity]:
    for match in NUMBER.finditer(text):
        value = _value(match)
        if value is None:
            continue
        if word := match["magnitude"] or match["suffix"]:
            value *= MAGNITUDES[word]
        end = max(map(match.end, ("digits", "denominator", "exponent", "magnitude", "suffix")))
        # The pattern takes any word after a number for its unit. The table decides whether it is one.
        unit, is_attached = match["unit"] or "", match.start("unit") == end
        # "1990s" is a decade and not 1990 seconds.
        is_decade = unit == "s" and is_attached and value % 10 == 0 and 1000 <= value < 3000
        if unit in UNITS and not is_decade:
            end = match.end("unit")
        elif unit in ORDINALS and is_attached:
            end, unit = match.end("unit"), ""
        elif is_attached and regex.match(r"\p{Latin}", unit):  # a part of a word: 4x4, 1990s
            continue
        else:
            unit = ""
        currency = (match["currency"] or "").strip(" -+")
        dimension, factor = UNITS.get(currency or unit, ("", Fraction(1)))
        # The sign may stand on either side of the currency: -$5 and $-5.
        is_negative = "-" in (match["sign"] or "") + (match["currency"] or "")
        # The 12 characters before the number hold "negative" with spaces: a search from the beginning of the text for every number would be
        # quadratic.
        if is_negative or MINUS.search(text, max(0, match.start() - 12), match.start()):
            value = -value
        yield Quantity(value, dimension, factor, match.start(), end)


def _value(match: "regex.Match[str]") -> Fraction | None:
    """The value of the digits, without the sign, or None where they are no number."""
    if match["numerator"]:
        denominator = int(match["denominator"])
        return int(match["whole"] or 0) + Fraction(int(match["numerator"]), denominator) if denominator else None
    digits, exponent = match["digits"], int(match["e"] or match["power"] or match["alone"] or 0)
    # Before int() and the power: both take time and memory that grow with the digits.
    if len(digits) > MAX_DIGITS or abs(exponent) > MAX_DIGITS:
        return None
    if match["alone"]:
        return Fraction(10) ** exponent if digits == "10" else None
    plain = plain_digits(digits)
    return None if plain is None else Fraction(plain) * Fraction(10) ** exponent


def plain_digits(digits: str) -> str | None:
    """Digits without thousands separators and with a decimal point, or None where they are no number or too many."""
    if len(digits) <= MAX_DIGITS:
        for form, thousands, decimal in FORMS:
            if form.fullmatch(digits):
                plain = digits.translate(dict.fromkeys(map(ord, thousands)))
                return plain.replace(decimal, ".") if decimal else plain
    return None


def _in_words(text: str) -> Iterator[Quantity]:
    """Numbers in English words. Words that do not form one number ("one two three") are left out."""
    for match in SPELLED.finditer(text):
        value = _value_of_words([word for word in regex.findall("[a-z]+", match[0].lower()) if word != "and"])
        if value is not None:
            is_negative = MINUS.search(text, max(0, match.start() - 12), match.start()) is not None
            yield Quantity(-value if is_negative else value, "", Fraction(1), match.start(), match.end())


def _value_of_words(words: list[str]) -> Fraction | None:
    # "two hundred and five thousand": hundreds multiply the group that is being counted, scales close it.
    total = group = 0  # finished thousands, and what is counted below the next scale
    before = ""
    for word in words:
        kind = "hundred" if word == "hundred" else "scale" if word in SCALES else "ten" if WORDS[word] >= 20 else "one"
        if before not in MAY_FOLLOW[kind] or (before == "ten" and kind == "one" and not 1 <= WORDS[word] <= 9):
            return None
        if kind == "scale":
            total, group = total + group * SCALES[word], 0
        else:
            group = group * 100 if kind == "hundred" else group + WORDS[word]
        before = kind
    return Fraction(total + group)
