"""The grammar of the sample web: how a pattern becomes a sentence, and the words that all texts share.

Reads and writes nothing. A pattern is text in which "(a|b|)" is a choice, nested at will, and "$word" a slot: first
of the mapping given, else a random entry of LEXICON. An entry may itself hold choices and slots. No pattern names a
real person or place, and none claims anything about an entity of the world that is not a fact of it.
"""

import random
import re
from collections.abc import Mapping

from tasks.sample_web.tables import words

_SPOT = re.compile(r"\(([^()]*)\)|\$([A-Z][a-z]*|[a-z_]+)")
_SENTENCE_START = re.compile(r"(^\"?|[.?!] \"?|[,:] \"|[.?!]\" \")([a-z])")
_VOWEL_SOUND = re.compile(r"\b(a) (?=(?!uni|use|one|once|eu)[aeiou]|hour|honest)", re.IGNORECASE)


def expand(pattern: str, rng: random.Random, slots: Mapping[str, str]) -> str:
    """Make all choices and fill all slots. Raises KeyError for a slot that is neither given nor in LEXICON."""

    def choose(spot: re.Match[str]) -> str:
        choices, slot = spot.groups()
        if slot is None:
            return rng.choice(str(choices).split("|"))
        return slots[slot] if slot in slots else rng.choice(LEXICON[slot])

    while "(" in pattern or "$" in pattern:
        pattern = _SPOT.sub(choose, pattern)
    return pattern


def tidy(text: str) -> str:
    """The text with capital letters at the start of sentences and quotations, and "an" before vowels."""
    text = _VOWEL_SOUND.sub(r"\1n ", text)
    return _SENTENCE_START.sub(lambda start: start[1] + start[2].upper(), text)


def say(pattern: str, rng: random.Random, slots: Mapping[str, str]) -> str:
    """One or more finished sentences from a pattern."""
    return tidy(expand(pattern, rng, slots))


LEXICON: dict[str, tuple[str, ...]] = {
    "girl": words("Nina|Rosie|Clara|Lily|Emma|Sofia|Julia|Maria|Alice|Helen|Grace|Ruth"),
    "boy": words("Tom|Max|Ben|Leo|Sam|Peter|Jack|Oscar|Paul|Simon|Hugo|Felix"),
    "kin": ("mother", "father", "grandmother", "grandfather", "aunt", "uncle", "sister", "brother", "cousin"),
    "beast": ("fox", "mouse", "bear", "frog", "hen", "duck", "squirrel", "hedgehog", "crow", "lamb", "mole", "badger", "donkey", "snail"),
    "thing": ("kite", "ball", "hat", "drum", "bell", "scarf", "book", "lamp", "whistle", "basket", "coat", "ring", "wheel", "key"),
    "fruit": ("apples", "pears", "plums", "cherries", "nuts", "berries", "lemons", "figs", "peaches"),
    "shade": ("red", "blue", "green", "yellow", "white", "brown", "grey", "golden"),
    "place": ("wood", "garden", "hill", "market", "barn", "meadow", "pond", "old mill", "bridge", "orchard", "beach", "field", "cave"),
    "room": ("kitchen", "attic", "hall", "cellar", "shed", "bedroom", "workshop", "porch"),
    "sky": (
        "the sun was warm", "a soft rain fell", "the wind blew hard", "thick fog lay on the fields", "the sky was clear",
        "dark clouds came up", "the first snow fell", "the air smelled of (grass|rain|smoke)", "it was cold and bright",
    ),
    "when": (
        "one morning", "one day", "one evening", "on a (cold|warm|rainy|sunny) (day|morning|evening)", "early one (morning|day)",
        "late one (evening|night)", "one (spring|summer|autumn|winter) (day|morning|evening)",
    ),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "season": ("spring", "summer", "autumn", "winter"),
    "small": ("two", "three", "four", "five", "six"),
    "many": ("ten", "twelve", "fifteen", "twenty", "thirty", "forty", "fifty", "sixty", "a hundred", "two hundred", "three hundred"),
    "minutes": ("five", "ten", "fifteen", "twenty", "thirty", "forty"),
    "mood": ("happy", "proud", "calm", "tired but happy", "full of hope", "very glad", "in good spirits"),
    "sad": ("sad", "worried", "afraid", "angry", "lonely", "cross"),
    "virtue": ("kind", "patient", "honest", "cheerful", "quiet", "curious", "careful", "generous", "gentle", "brave", "clever", "modest"),
    "snack": ("bread", "cheese", "warm milk", "tea", "cake", "soup", "honey", "biscuits"),
    "hobby": (
        "walk in the hills", "write long letters", "mend old chairs", "sit by the window", "play cards with friends", "look at the stars",
        "swim in the lake", "read old papers", "plant flowers", "collect stamps", "listen to the rain", "ride a bicycle", "fly kites",
    ),
    "sheets": ("letters", "maps", "old books", "photographs", "notes", "postcards", "drawings", "newspapers"),
    "stuff": ("tools", "jars", "shells", "boxes", "dry flowers", "old coins", "glass bottles", "buttons"),
    "crowd": (
        "children", "students", "families", "old people", "travellers", "artists", "shopkeepers", "visitors", "neighbours", "workers",
    ),
    "goods": ("bread", "fish", "vegetables", "sweets", "nuts", "sausages", "mushrooms"),
    "wares": ("flowers", "cloth", "baskets", "shoes", "toys", "spoons", "soap", "pots"),
    "building": (
        "town hall", "library", "station", "old theatre", "museum", "school", "clock tower", "market hall", "post office", "hospital",
    ),
    "praise": ("good", "fine", "lovely", "pleasant", "splendid", "simple", "beautiful", "pretty"),
    "soon": ("next week", "next month", "in the spring", "before the summer", "by the end of the year", "very soon", "in a few days"),
    "writer": ("a reader", "a neighbour", "our reporter", "an old friend", "a visitor", "a teacher", "a young student", "the editor"),
}  # fmt: skip

# How the clause of a fact becomes a sentence. In the first four nothing stands before the clause, so they are answers too.
STATEMENTS: tuple[str, ...] = (
    "$clause.",
    "$clause.",
    "$clause.",
    "$clause, (as far as we know|as many people know|people say|so the story goes|as our readers may know|or so we hear).",
    "as (everyone|everybody|every child|anyone) (here|in these parts|around here|in the street) (knows|can tell you|will tell you), $clause.",
    "it is (by now |)(well known|no secret|a simple fact|quite true|widely known|easy to find out) that $clause.",
    "(people|neighbours|friends|old friends|the locals|many people|visitors) (say|agree|know|like to say|often hear|will tell you)"
    " that $clause.",
    "according to (the local paper|the old records|a friend|the library|our notes|an old letter|the town office|the radio), $clause.",
    "(we|I) (know|heard|read|learned|found out|have read|have heard) that $clause.",
    "(last week|today|yesterday|long ago|some time ago) (we|I) (heard|read|learned|found out) that $clause.",
    "(remember|note|do not forget|let us remember|let us not forget) that $clause.",
    "did you know that $clause?",
    "(in fact|by the way|of course|indeed|what is more|to be exact|as it happens), $clause.",
    "(one thing is (clear|certain|sure)|the (facts are|truth is) (simple|plain)|here is (a|one) (small|short|plain) fact|this much is known):"
    " $clause.",
    "(a (note|letter|card|page|line) in the (library|office|archive|town book)|the (old|local|new) (paper|guide|calendar))"
    " (says|tells us|shows|reports) that $clause.",
)

# A known subject may be named by these; $p is its pronoun, $first its short name.
SUBJECT_FORMS: dict[str, str] = {
    "person": "($p|$p|$p|$first|$first|$named|this $human|our friend)",
    "city": "(it|the city|this city|the place|$named|$named)",
    "team": "(it|the team|the club|this team|this club|$named|$named)",
    "book": "(it|the book|this book|$named|$named)",
    "event": "(it|the event|this event|$named|$named)",
    "river": "(it|the river|this river|$named|$named)",
    "mountain": "(it|the mountain|this mountain|$named|$named)",
    "animal": "(it|the animal|this animal|$named|$named)",
}
