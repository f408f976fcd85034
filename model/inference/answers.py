"""Whether a reply gives the expected answer. Used by the rewards of reinforcement learning and by the evaluation.

Reads and writes nothing. How a reply is compared follows from the kind of the reference answer:

- choice: a single letter, "B" or "(B)". The letter that the reply chooses must be it: after "answer is" or in \\boxed{}, at the beginning, or
  the only one that stands alone, as in MMLU (Hendrycks et al. 2021, https://arxiv.org/abs/2009.03300) and the extraction of MMLU-Pro.
  "A" and "I" before a word are English words. A reply that names several letters chooses none.
- number: a number with or without a unit, see model/inference/numbers.py. Values are compared, not spellings. The number after `####`
  (GSM8K, Cobbe et al. 2021, https://arxiv.org/abs/2110.14168), "answer is" or in \\boxed{} counts; else, where the reply calculates or names more
  than MAX_NUMBERS numbers, the last one, as lm-evaluation-harness does ("flexible-extract" of its gsm8k task); else any of them.
- text: the words of the reference must stand in the reply in a row. SQuAD's normalisation (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250,
  and its evaluate-v2.0.py) is repaired: NFKC and casefold for all scripts, combining marks kept, numbers by their value, signs that are
  part of a name kept (C++, C#, A-, 50%), and an article may be missing or be another one, unless it ends the answer (vitamin A).

Departures from SQuAD: the reply may hold more than the answer, because a chat model answers in sentences; what follows "not" does not count.
Where a script has no spaces, a word is a character with its marks (for Katakana: a run; so are Chinese numerals), so that 日本 is found
in 日本語: only a dictionary could separate the two. A Korean word may have a particle after it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import regex

from model.inference.numbers import Quantity, only_quantity, plain_digits, plain_latex, prepare, quantities

AnswerKind = Literal["choice", "number", "text"]

MAX_NUMBERS = 3  # a reply with more different numbers lists them; then only the last counts, or a policy learns to list
# English only: articles of other languages must stand in the reply as in the reference.
ARTICLES = ("a", "an", "the")
# As `_words` leaves them: the apostrophe of "isn't" separates two words, or is left out where words are joined.
NEGATIONS = ("not", "isn t", "wasn t", "aren t", "isnt", "wasnt", "arent", "never")

FINAL_MARK = regex.compile(r"####|\\boxed\{")
ANSWER_MARK = regex.compile(r"\banswer(?:\s+is(?!\s+not\b)|\s*:)[:\s]*", regex.IGNORECASE)
# A reply that calculates names its operands before the result. A hyphen or slash counts with spaces only: 5-7 is a range, 3/4 a fraction.
ARITHMETIC = regex.compile(r"=|\d\s*[+*×÷]\s*\d|\d\s+[-/x]\s+\d|\d\s+(?:plus|minus|times|divided by)\s+-?\d")
NEGATION = regex.compile(r"\b(?:not|never|(?:is|was|are)n't)\s+\W{0,3}$", regex.IGNORECASE)

# The whole of a reference or of a reply: B, (B), B), B. and B:
CHOICE = regex.compile(r"\(?([A-Za-z])[).:]?")
# A letter that stands alone, not that of C++, U.S. or A's.
LETTER = regex.compile(r"(?<![\w'.&/+-])(?P<open>[(\[{])?(?P<letter>[A-Za-z])(?![\w'&/+#-]|\.\w)")
# What makes "a" and "I" before it English words ("A cat", "I think"). The words excepted follow a choice too: "A is right".
ENGLISH_WORD = regex.compile(r"\s+(?!(?:is|and|or|because|since|as|but|was)\b)\p{Ll}|\s+\p{Lu}\p{Ll}")
# Another choice after the first: "A or B" chooses none.
NEXT_LETTER = regex.compile(r"[)\].:*}]*\s*(?:,|/|&|\bor\b|\band\b)\s*[*(\[]*[A-Z](?![\w'])")

# Scripts written without spaces. Hangul has spaces.
SPACELESS = r"[\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
# One alternative a line: a Chinese numeral; a run of Katakana; a character of a script without spaces, with its marks; a number, with its
# sign unless that is a hyphen; a word of letters and digits, with what is part of a name: a version (v3.11), an exponent, C++, C#,
# A-; a symbol. Quantifiers are possessive, since no word has a second reading.
WORD = regex.compile(
    rf"""
      [〇零一二三四五六七八九十百千万亿億]++
    | [\p{{Katakana}}ー]++
    | {SPACELESS}\p{{M}}*+
    | (?:(?<![\p{{L}}\p{{N}}\p{{M}})])-)? (?P<digits>\d(?:[.,'_:/]?\d)*+) (?:\^-?\d++)? (?![\p{{Latin}}\p{{M}}])
    | (?:[\p{{L}}\p{{N}}\p{{M}}--{SPACELESS}--\p{{Katakana}}])++ (?:[.:]\d++)*+
      (?: \^-?\d++ | (?:\+{{1,2}}|\#) (?![\p{{L}}\p{{N}}]) | (?<=(?<!\p{{L}})\p{{L}}{{1,2}})- (?![-\p{{L}}\p{{N}}\p{{M}}]) )?
    | [\p{{Sm}}\p{{Sc}}\p{{So}}%]
    """,
    regex.VERBOSE | regex.V1,
)
JOINT = regex.compile(r"(?<=\p{L}\p{M}*+)['.-](?=\p{L})")  # Hawai'i, U.S. and Spider-Man are also written without
# U.S.S.R. and J. K. are one word.
INITIALS = regex.compile(r"(?<![\p{L}.])\p{L}(?:(?:\.\p{L})+(?!\p{L})|(?:\. ?\p{L})+(?=\.))")
# Korean particles and forms of "to be" that are written onto a noun, the frequent ones.
PARTICLES = frozenset([
    "은", "는", "이", "가", "을", "를", "의", "에", "에서", "에게", "께", "와", "과", "도", "만", "로", "으로", "까지", "부터", "보다", "이나",
    "나", "이며", "며", "이고", "고", "이다", "다", "입니다", "이에요", "예요", "이었다", "였다", "이라고", "라고", "이라는", "라는", "에는", "에도",
    "에서는", "에서도", "으로는", "로는",
])  # fmt: skip

# English abbreviations whose full stop ends no sentence.
ABBREVIATIONS = frozenset([
    "st", "mt", "ft", "mr", "mrs", "ms", "dr", "prof", "rev", "hon", "gen", "col", "capt", "lt", "sgt", "sen",
    "rep", "gov", "jr", "sr", "inc", "ltd", "co", "corp", "no", "vs", "e.g", "i.e", "cf", "al", "approx", "ca",
    "fig", "vol",
])  # fmt: skip
SENTENCE_END = regex.compile(r"[.!?](?=[\s\"'”’)\]]|$)|(?<=\p{Ll}{2})[.!?](?=\p{Lu}\p{Ll})|[。！？؟۔।॥\n]")


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether a reply gives one of the reference answers, each compared in the way of its kind."""
    return any(_holds(text, answer) for answer in answers)


def right_answers(question: Mapping[str, Any]) -> list[str]:
    """All reference answers of a question: its `answer` and its `aliases`."""
    return [question["answer"], *question.get("aliases", ())]


def answer_kind(reference: str) -> AnswerKind:
    """How replies are compared with a reference answer."""
    # A single letter is always a choice, the symbol of a variable ("x") and a roman numeral too: nothing in the reference tells them apart.
    prepared = plain_latex(prepare(reference)).strip()
    if CHOICE.fullmatch(prepared):
        return "choice"
    # A reference that is more than one number with its unit is text, as "Apollo 11" is.
    return "text" if only_quantity(prepared) is None else "number"


def normalise(text: str) -> str:
    """The words of a text, separated by spaces: NFKC, casefold, no punctuation, numbers as their values. Idempotent."""
    return " ".join(_words(text))


def first_sentence(text: str) -> str:
    """A text up to the end of its first sentence, without the mark: not cut in 3.5, after "St." or after an initial."""
    # The dot of an abbreviation ends the sentence only where nothing follows: a name after "Inc." may begin the next sentence or not.
    for match in SENTENCE_END.finditer(text):
        before = text[: match.start()]
        last = before.rsplit(maxsplit=1)[-1].lstrip("(\"'“‘[") if before.strip() else ""
        # A capital letter with a full stop is an initial, as in "J. K. Rowling".
        is_abbreviation = match[0] == "." and (
            last.lower() in ABBREVIATIONS or regex.fullmatch(r"(?:\p{Lu}\.)*\p{Lu}", last)
        )
        if before.strip() and not (is_abbreviation and text[match.end() :].strip()):
            return before
    return text


def _holds(text: str, reference: str) -> bool:
    kind = answer_kind(reference)
    if kind == "choice":
        letter = regex.sub(r"[().:\s]", "", prepare(reference))
        return _chosen_letter(plain_latex(prepare(text)), letter.islower()) == letter.upper()
    if kind == "number":
        # A reference in words ("seven") may also stand in the reply as words that are not read as a number.
        is_spelled = not any(character.isdigit() for character in prepare(reference))
        return _gives_number(text, reference) or (is_spelled and _gives_words(text, reference))
    return _gives_words(text, reference)


def _gives_number(text: str, reference: str) -> bool:
    expected = only_quantity(plain_latex(prepare(reference)).strip())
    return expected is not None and any(found.equals(expected) for found in _given_numbers(plain_latex(prepare(text))))


def _given_numbers(text: str) -> list[Quantity]:
    """The numbers of a prepared reply that count as its answer."""
    for mark in (FINAL_MARK, ANSWER_MARK):
        # The last mark: a model may correct itself.
        ends = [match.end() for match in mark.finditer(text)]
        if ends and (found := quantities(text[ends[-1] :])):
            # After #### or in a box there is the answer and nothing else; "answer is" begins a sentence, which may have more numbers.
            if mark is FINAL_MARK:
                return found[:1]
            text = text[ends[-1] :]
            break
    found = [
        number for number in quantities(text) if not NEGATION.search(text, max(0, number.start - 16), number.start)
    ]
    # Different values: the same number said twice is no list.
    is_listing = len({(number.value, number.dimension) for number in found}) > MAX_NUMBERS
    return found[-1:] if is_listing or ARITHMETIC.search(text) else found


def _chosen_letter(text: str, is_lower: bool = False) -> str | None:
    """The letter that a prepared reply chooses, in upper case, or None. `is_lower`: lower-case letters may name choices."""
    # Markdown around a letter: **B**, `B`, "B".
    plain = text.strip().strip("*_`\"' ")
    if whole := CHOICE.fullmatch(plain):
        return whole[1].upper()
    # The last mark of either kind, then the beginning of the reply.
    marks = [match.end() for mark in (FINAL_MARK, ANSWER_MARK) for match in mark.finditer(plain)][-1:]
    for start in (*marks, 0):
        # Skips spaces and Markdown between the mark and the letter.
        found = LETTER.match(plain, start + len(plain[start:]) - len(plain[start:].lstrip(" *_`\"'")))
        is_alone = (
            found and regex.match(r"[)\].:,*_}\s]|$", plain, pos=found.end()) and not _is_english_word(plain, found)
        )
        if found and is_alone and (start or regex.match(r"[)\].:,*_\n]|$", plain, pos=found.end())):
            return None if NEXT_LETTER.match(plain, found.end()) else found["letter"].upper()
    letters = {
        found["letter"].upper()
        for found in LETTER.finditer(plain)
        if (found["letter"].isupper() or found["open"] or is_lower)
        and not _is_english_word(plain, found)
        and not NEGATION.search(plain, max(0, found.start() - 16), found.start())
    }
    # Several letters are a list, from which nothing was chosen.
    return letters.pop() if len(letters) == 1 else None


def _is_english_word(text: str, found: "regex.Match[str]") -> bool:
    """Whether the letter found is the article "a" or the pronoun "I"."""
    return found["letter"] in "aAI" and not found["open"] and ENGLISH_WORD.match(text, found.end()) is not None


def _gives_words(text: str, reference: str) -> bool:
    wanted = _words(reference)
    if not wanted:  # punctuation only
        return bool(reference.strip()) and prepare(text).strip() == prepare(reference).strip()
    # Twice: as written, and with "U.S." or "Spider-Man" joined, since either side may write it so.
    return _stands_in(wanted, _words(text)) or _stands_in(
        _words(reference, is_joined=True), _words(text, is_joined=True)
    )


def _words(text: str, is_joined: bool = False) -> list[str]:
    """The words of a text as they are compared. Joined: an apostrophe, full stop or hyphen between letters is left out."""
    # casefold can undo NFKC and the reverse: repeated, the result is stable, which makes `normalise` idempotent.
    folded = prepare(prepare(prepare(text).casefold()).casefold()).replace("&", " and ")
    folded = INITIALS.sub(lambda match: regex.sub(r"[. ]", "", match[0]), folded)
    return [_canonical(match) for match in WORD.finditer(JOINT.sub("", folded) if is_joined else folded)]


def _canonical(match: "regex.Match[str]") -> str:
    """A number as its value, so that 1,000 is 1000 and 3.50 is 3.5; other words as they are."""
    plain = plain_digits(match["digits"]) if match["digits"] else None
    if plain is None:
        return match[0]
    if "." in plain:
        plain = ("0" + plain if plain.startswith(".") else plain).rstrip("0").rstrip(".")
    return match[0].replace(match["digits"], plain)


def _stands_in(wanted: Sequence[str], found: Sequence[str]) -> bool:
    """Whether the wanted words stand in a row in those found, articles aside, and not right after a negation."""
    # Every place, since an earlier one may be negated: "It is not Paris. Paris is ..." gives Paris.
    for start in range(len(found)):
        if _matches_at(wanted, found, start):
            # Two words before, without articles: "is not the capital".
            before = [word for word in found[max(0, start - 4) : start] if word not in ARTICLES]
            if not " ".join(before[-2:]).endswith(NEGATIONS) or wanted[0] in NEGATIONS:
                return True
    return False


def _matches_at(wanted: Sequence[str], found: Sequence[str], start: int) -> bool:
    place = start
    for number, word in enumerate(wanted):
        is_last = number + 1 == len(wanted)
        # Articles in the reply that the reference lacks are skipped, but not before its first word: `start` covers those.
        while place < len(found) and found[place] != word and found[place] in ARTICLES and place > start:
            place += 1
        if place < len(found) and (found[place] == word or (is_last and _has_particle(found[place], word))):
            place += 1
        # An article of the reference may be missing in the reply, but not as its last word: vitamin A.
        elif is_last or word not in ARTICLES:
            return False
    return True


def _has_particle(found: str, word: str) -> bool:
    """Whether a Korean word is found with a particle after it."""
    # 가 to 힣: the precomposed Hangul syllables, in which NFKC writes Korean.
    return found.startswith(word) and "가" <= word[-1] <= "힣" and found[len(word) :] in PARTICLES
