"""Further articles of the sample web that state no facts: how-tos, recipes, jokes and word problems with solutions.

Reads and writes nothing. Every function draws one article from a grammar in the notation of
tasks/sample_web/grammar.py. The word problems spell most numbers out, as children's books do: a page must keep four
fifths of its words alphabetic to pass the Gopher filter.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tasks.sample_web.grammar import expand, say
from tasks.sample_web.stories import Tale, cast_tale
from tasks.sample_web.tables import words

NUMBER_WORDS = words(
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
    "|twenty"
)


# A task: its name, then its steps; each article leaves some out.
_TASKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("plant a (small |young |)tree", (
        "Choose a (sunny|quiet|dry) place with (enough room|good soil|no stones).",
        "Dig a hole that is (twice|two times) as wide as the (roots|pot) and (just|about) as deep.",
        "(Put|Set) the tree in the hole and (hold|keep) it straight.",
        "Fill the hole with earth and (press|tread) it down (with your foot|gently).",
        "Tie the tree to a (stick|post) so that the wind cannot (move|bend) it.",
        "(Give|Pour) it (a bucket|two cans) of water (each evening|every second day) in the first weeks.",
    )),
    ("paint a (wooden |garden |)fence", (
        "(Wait for|Choose) a dry day, because (wet wood|rain) and paint do not go together.",
        "(Brush|Clean) the wood and (take off|remove) the old paint.",
        "Cover the (ground|grass|stones) with (old paper|a cloth).",
        "(Stir|Mix) the paint (well|slowly) until it is smooth.",
        "Paint from the top to the bottom and (always|only) along the wood.",
        "Let it dry (for a day|over night) and (paint|do) it a second time.",
    )),
    ("wash a (big |wet |)dog", (
        "(Fill|Prepare) a tub with warm water, (not too hot|up to your hand).",
        "Brush the dog (first|before you start), so that the (loose|dead) hair comes out.",
        "(Speak|Talk) to the dog in a (calm|low|friendly) voice and hold it with one hand.",
        "Wet the back and the legs, but (keep|leave) the ears and eyes dry.",
        "Use (a little|mild) soap and rub it in (circles|slowly).",
        "(Rinse|Wash) all the soap out and stand back, for the dog will shake itself.",
    )),
    ("write a letter", (
        "Think about (who|the person who) will read the letter and what (they|this person) should know.",
        "Put the (date|place and the date) in the (top|right) corner.",
        "Begin with a (greeting|friendly word) and the name of the (reader|person).",
        "Say the (most important|main) thing first and keep the sentences short.",
        "Ask (a question|how they are), because people like to answer.",
        "(Sign|End) with your name, fold the paper and do not forget the stamp.",
    )),
    ("fix a flat (bicycle |)tyre", (
        "Turn the bicycle over so that it stands on the (seat|saddle).",
        "Take off the wheel and pull the (tyre|rubber) from the rim with two spoons.",
        "(Pump|Blow) some air into the tube and hold it under water.",
        "Look for (bubbles|small bubbles), (since|because) they show where the hole is.",
        "Dry the (place|spot), make it rough and put (glue|a little glue) and a patch on it.",
        "Put (everything|all) back (in order|slowly) and pump until the tyre is hard.",
    )),
    ("keep (your |)bread fresh", (
        "Let the bread get (cold|cool) before you (store it|put it away).",
        "(Wrap|Roll) it in a clean cloth and not in (plastic|foil).",
        "Keep it in a (box|pot) of (wood|clay) with a lid that lets in some air.",
        "Do not put it near the (stove|oven|window), where it (dries out|gets warm).",
        "(Cut|Slice) only as much as you want to eat (now|at one meal).",
        "Old bread is (good|fine) for soup, or you can (toast|fry) it.",
    )),
    ("make a (paper |big |)kite", (
        "Take two thin sticks, one (long|of a metre) and one (short|half as long).",
        "Tie them together in the form of a cross with (strong|waxed) string.",
        "Lay the cross on (strong|thin|bright) paper and cut (round it|the form).",
        "Fold the edges over the string and (glue|stick) them down.",
        "Make a tail from (old ribbons|bits of cloth) so that the kite (flies straight|does not turn).",
        "Find an open (field|hill), run against the wind and let out the line (bit by bit|slowly).",
    )),
    ("clean (a|your) window", (
        "Take down the (curtain|plants) and wipe off the dust with a (dry|soft) cloth.",
        "Put (some|a little) vinegar in a bucket of warm water.",
        "Wash the (frame|wood) first and the glass (after that|second).",
        "Wipe from the top to the (bottom|foot) without (stopping|a break).",
        "Dry the glass with old newspaper until it (shines|is clear).",
        "Do not work in (full|bright) sun, (because|since) the water dries too fast.",
    )),
    ("learn a (long |hard |)poem", (
        "Read the poem (aloud|slowly) from the first line to the last.",
        "(Look up|Ask about) the words that you do not (know|understand).",
        "Learn two lines at a time and (cover|hide) them with your hand.",
        "(Draw|Think of) a picture for (each|every) part.",
        "Say it (while walking|to a friend|in front of a mirror) (in the evening|before bed).",
        "(Repeat|Say) it the next morning, (since|for) sleep helps you to keep it.",
    )),
    ("pack (for a trip|a bag)", (
        "Make a list (the day|some days) before and (read|check) it twice.",
        "Put (heavy|big) things at the bottom and light ones on top.",
        "Roll your (shirts|clothes), because that (saves|takes less) room.",
        "(Keep|Put) papers, money and keys in a small bag that stays with you.",
        "Take (one warm coat|a warm coat), even if the sun is shining.",
        "Leave some (room|space), for one always comes home with more.",
    )),
    ("sleep (better|well)", (
        "Go to bed at the same (time|hour) (every|each) night.",
        "Do not (drink|have) coffee after (noon|lunch) and eat a small dinner.",
        "Open the window for (a few|ten) minutes, so that the room is cool.",
        "Put away the (papers|phone|work) an hour before you lie down.",
        "(Read|Listen to) something (quiet|calm), or (count|breathe) slowly.",
        "If you (cannot sleep|lie awake), get up, (drink some water|walk a little) and try again.",
    )),
    ("grow tomatoes( on a balcony| at home|)", (
        "Put the seeds in small pots (at the end of winter|in early spring) and keep them warm.",
        "When the plants have (four|five) leaves, give (each|every) one its own pot.",
        "They need (much|a lot of) sun and a wall that keeps off the wind.",
        "(Water|Wet) the earth (in the morning|each morning) but never the leaves.",
        "Bind the stems to a stick (as|when) they (grow|get tall).",
        "Pick the tomatoes when they are (red|soft and red), and eat the first one (at once|right there).",
    )),
)  # fmt: skip
_HOW_TO_OPENINGS = (
    "(Many|Some|Most) people think that it is hard to $task. (It is not|That is wrong), if you (follow|know) a few (simple |)rules.",
    "$writer asked us how to $task. (Here is|This is) (our|a short) answer.",
    "My $kin showed me how to $task, and (now|today) I (want to|will) show you.",
    "(Would you like|Do you want) to $task? You need (some time|an hour or two|a free day) and (a bit of care|patience).",
)
_HOW_TO_TIPS = (
    "(Take|Give yourself) (enough|plenty of) time, because (hurry|haste) leads to mistakes.",
    "(Children|Young people) can help, but (stay|be) with them and (keep|put) sharp (things|tools) away.",
    "(It took|I needed) $small tries before I (got it right|was happy with it), so do not (give up|be sad).",
    "Ask $writer to (watch|help) if you are (not sure|in doubt).",
    "A (good|useful) rule is to (think|look) first and (work|act) (afterwards|second).",
    "It costs (little|about $small coins) and (saves you much trouble|gives you much joy).",
    "If (it|something) goes wrong, (start again|laugh|take a rest) and try (once more|another way).",
)  # fmt: skip
_HOW_TO_CLOSINGS = (
    "(That is all|Now you are done). (Wash your hands|Put the tools away|Sit down) and (enjoy|look at) your work.",
    "(Tell|Write) us how it went, and (send|show) us a (picture|photograph).",
    "(Good luck|Have fun), and (remember|do not forget): (practice helps|the second time is easier|nobody is born a master).",
)


def how_to(rng: random.Random) -> Tale:
    """Instructions for an everyday task; the steps are sentences, or a list."""
    task, steps = rng.choice(_TASKS)
    slots = {"task": expand(task, rng, {})}
    kept = sorted(rng.sample(range(len(steps)), 5))
    lines = [say(steps[place], rng, slots) for place in kept]
    tips = [say(pattern, rng, slots) for pattern in rng.sample(_HOW_TO_TIPS, rng.randint(3, 4))]
    opening, closing = say(rng.choice(_HOW_TO_OPENINGS), rng, slots), say(rng.choice(_HOW_TO_CLOSINGS), rng, slots)
    title = say("(How to|How you can|An easy way to|Learn to) $task", rng, slots)
    if rng.random() < 0.5:
        return Tale(title, (opening, " ".join(tips[:2]), f"{' '.join(tips[2:])} {closing}"), tuple(lines))
    paragraphs = [
        f"First of all, {lines[0][0].lower()}{lines[0][1:]}",
        *lines[1:4],
        f"Finally, {lines[4][0].lower()}{lines[4][1:]}",
    ]
    return Tale(
        title,
        (
            f"{opening} {tips[0]}",
            " ".join(paragraphs[:3]),
            f"{' '.join(paragraphs[3:])} {tips[1]}",
            f"{' '.join(tips[2:])} {closing}",
        ),
    )


_MAINS = words("potato|carrot|onion|bean|mushroom|tomato|pumpkin|leek|turnip|radish|parsnip|artichoke|chestnut")
_SPICES = words("salt|chives|parsley|thyme|garlic|mint|dill|paprika|ginger|basil")
_DISHES = ("soup", "stew", "pie", "salad", "bake", "pancakes", "dumplings", "casserole")
_COOKING = (
    "(Wash|Clean) the $One and (cut|chop|slice) them into (small|thin|even) pieces.",
    "(Peel|Wash) the $Two and put them (aside|in a bowl of water|on a plate).",
    "(Heat|Warm) the (butter|oil) in a (big|deep|heavy) (pan|pot) and (fry|turn) the $One until they are (soft|golden|brown).",
    "(Add|Stir in) the $Two, the $Spice and a (pinch|spoon) of $Second.",
    "(Pour|Add) (the milk|the water|the broth) (slowly|bit by bit) and keep (stirring|the heat low).",
    "(Cover|Close) the pot and let it (cook|simmer) for $minutes minutes.",
    "(Taste|Try) it (with a clean spoon|now and then) and add more $Spice if you (like|wish).",
    "(Beat|Mix) two eggs with (the flour|a little flour) and fold them in with care.",
    "(Take|Lift) it off the (fire|stove) and let it (rest|cool) for $small minutes.",
    "(Sprinkle|Strew) $Second over the top (at the end|before you serve it).",
)
_RECIPE_OPENINGS = (
    "This $Dish (comes from|was made by) my $kin, who (cooked|made) it (every $weekday|each $season|for all guests).",
    "On a (cold|rainy|long) $weekday (nothing is|few things are) better than a (plate|bowl) of $Main $Dish.",
    "(You|We) need (only|just) a few things for this $Dish, and (most|all) of them are cheap in $season.",
    "(Even|Also) $crowd who (never|do not) like $One will (eat|love|enjoy) this $Dish.",
    "$writer sent us this recipe, and we (tried|cooked) it at once.",
)
_RECIPE_CLOSINGS = (
    "(Serve|Eat) it (hot|warm|at once) with (fresh bread|rice|a green salad). It is enough for $small people.",
    "It (tastes|is) even better on the (next|second) day, so (make|cook) (more|enough) of it.",
    "(Instead of|In place of) $Two you (can|may) (use|take) $Third. (Enjoy your meal|We hope that you like it)!",
    "(Children|Guests) (like|love) it with (honey|cheese|cream), and (so do we|nothing is left in the end).",
)


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith(("o", "sh")) else f"{noun}s"


def recipe(rng: random.Random) -> Tale:
    """A dish with its list of ingredients."""
    one, two, third = rng.sample(_MAINS, 3)
    spice, second = rng.sample(_SPICES, 2)
    slots = {
        "Main": one,
        "One": _plural(one),
        "Two": _plural(two),
        "Third": _plural(third),
        "Spice": spice,
        "Second": second,
        "Dish": rng.choice(_DISHES),
    }
    amounts = (
        "(Two|Three|Four|Five) (large|small|fresh|ripe) $One.", "(A bowl|Two cups|One pound|Half a pound) of $Two.",
        "(Some|A spoon of|A little) $Spice and $Second.", "(A cup of (oil|cream)|Two spoons of (butter|oil|cream)|A small piece of butter).",
        "(Half a litre|A litre|Two cups) of (milk|water|broth).", "(Two|Three) eggs and (a cup|a spoon|some) of flour.",
    )  # fmt: skip
    items = tuple(say(pattern, rng, slots).replace("some of flour", "some flour") for pattern in rng.sample(amounts, 5))
    steps = [say(_COOKING[place], rng, slots) for place in sorted(rng.sample(range(len(_COOKING)), rng.randint(6, 8)))]
    opening, closing = say(rng.choice(_RECIPE_OPENINGS), rng, slots), say(rng.choice(_RECIPE_CLOSINGS), rng, slots)
    tip = say(rng.choice(_HOW_TO_TIPS[:1] + _HOW_TO_TIPS[2:4]), rng, slots)
    title = say(
        "($Main $Dish|$Dish with $One and $Two|(Simple|Quick|Winter|Summer) $Main $Dish|My $kin's $Main $Dish)",
        rng,
        slots,
    )
    return Tale(
        title[0].upper() + title[1:], (f"{opening} {tip}", " ".join(steps[:4]), " ".join(steps[4:]), closing), items
    )


JOKES: tuple[str, ...] = (
    "Why did the $Beast (cross|run over) the (road|street|bridge)? (Because|It had heard that) the $snack (was|is) (better|cheaper) on the"
    " other side.",
    "A $Beast goes into a shop and asks for $snack. The man says that there is none left. Good, says the $Beast, then you have time to"
    " (play|talk) with me.",
    "The teacher asks $Hero why $p is late. It is because of the sign, says $Hero. (It|The sign) says that children must go slow near a"
    " school.",
    "What did the (big|old|long) (clock|chimney|river) say to the (small|young|short) one? You are (too young|much too little) to (strike|smoke|run"
    " away from home).",
    "A man tells his doctor that he feels like a $Beast. How long has this been so, asks the doctor. Ever since I was a (small|very young)"
    " $Beast, says the man.",
    "Why does the $Beast wear a $shade $thing today? Because the $Shade one is (still |)in the (wash|laundry).",
    "A guest calls the waiter and says that there is a fly in the soup. Please (speak|talk) softly, says the waiter, or (everybody|the whole"
    " room) will want one.",
    "What is $shade and goes up and down all day? A (pear|plum|$Beast) in a lift.",
    "$Hero asks $pp $Kin if it is hard to write (in the dark|with closed eyes). Not at all, says the $Kin. (Good|Fine), says $Hero, then"
    " please sign my school report.",
    "Two $Beast friends look at the moon. Do you think that (somebody|anyone) lives there, asks the first. Of course, says the second, the"
    " light is on.",
    "Why can the $Beast not keep a secret? Because it (always lets the cat out of the bag|talks in its sleep).",
    "$Hero asks $Friend how many $fruit one can eat on an empty stomach. $Friend thinks that (six|ten|five) is right. No, says $Hero, only"
    " one, for after that it is not empty.",
    "What do you call a $Beast with a (map|compass|lamp) in its hand? (Lost|Late), but (well prepared|not for long).",
    "My $kin can lift $many bricks, says $Hero. (That is nothing|So what), says $Friend, for mine can lift a whole bus (by hand|with a lever).",
    "Where does a $Beast go when it has lost its $thing? To the (lost and found|nearest shop), just like (you and me|anyone else).",
    "The (pilot|captain|driver) says that there is good news and bad news. The good news is that we are (very fast|early). The bad news is that we"
    " are lost.",
    "Why was the (book|school book|exercise book) so sad? It had (too many|far too many) problems.",
    "What has $many teeth and (cannot bite|never eats)? A comb (of course|in your pocket).",
    "You should (wash|clean) your hands before you play the piano, says the $kin. There is no need, says $Hero, because I only play the black"
    " keys.",
    "What gets wetter the more it dries? A (towel|cloth), of course.",
    "The (innkeeper|host) asks if the guest slept well. No, says the guest, I made a mistake and slept badly, so I want my money back.",
    "Why did $Hero take a (ladder|long ladder) to school? Because $p had heard that it was a high school.",
)  # fmt: skip
_JOKE_FRAMES = (
    "(Here is|This is) (one|another one|a joke) that my $kin (tells|told us) (at every feast|each $weekday|twice a day).",
    "(The next|This) one (is old|came by mail), but (it still makes us laugh|we like it|children love it).",
    "(Have you heard|Do you know) (this one|the one about the $beast)? We (laughed|smiled) about it for $small days.",
    "A reader called $Friend sent us (the following|this) joke and (got|won) a $thing for it.",
    "If you do not laugh now, then (try|read) it again (tomorrow|with a friend|in the evening).",
    "You can tell this one to your $kin (on $weekday|after dinner|on the train) without (fear|trouble).",
)
_JOKE_ENDS = (
    "(Do you know|Have you got) a better one? (Send|Write) it to us, and we will print it (next week|$soon).",
    "That is (enough|all) for (today|this week), (so keep|now keep) smiling until $weekday.",
    "We (hope|think) that one of them made you (laugh|smile), (even|at least) a little.",
)


def joke(rng: random.Random) -> str:
    """One short joke."""
    return say(rng.choice(JOKES), rng, cast_tale(rng))


def jokes(rng: random.Random) -> Tale:
    """A page of jokes, each with a sentence before it."""
    frames = rng.sample(_JOKE_FRAMES, 4)
    chosen = rng.sample(JOKES, 4)
    paragraphs = tuple(
        f"{say(frame, rng, cast_tale(rng))} {say(text, rng, cast_tale(rng))}"
        for frame, text in zip(frames, chosen, strict=True)
    )
    title = say("(Jokes|Four jokes|Short jokes|Something to laugh) for (a rainy|every|your|a long) $weekday", rng, {})
    return Tale(title, (*paragraphs, say(rng.choice(_JOKE_ENDS), rng, {})))


class _Sum(NamedTuple):
    """A kind of word problem: the two numbers are words $a and $b, the result $c; $A, $B, $C are figures."""

    draw: Callable[[random.Random], tuple[int, int, int]]
    texts: tuple[str, ...]
    steps: tuple[str, ...]
    answers: tuple[str, ...]


def _draw_sum(rng: random.Random) -> tuple[int, int, int]:
    a, b = rng.randint(2, 12), rng.randint(2, 8)
    return a, b, a + b


def _draw_difference(rng: random.Random) -> tuple[int, int, int]:
    a = rng.randint(5, 20)
    b = rng.randint(2, a - 2)
    return a, b, a - b


def _draw_product(rng: random.Random) -> tuple[int, int, int]:
    a = rng.randint(2, 5)
    b = rng.randint(2, 20 // a)
    return a, b, a * b


_SUMS = (
    _Sum(
        _draw_sum,
        (
            "$Hero has $a $Fruit. $When, $Friend gives $po $b more. How many $Fruit does $Hero have now?",
            "There are $a children near the $Here. Then $b more children come to play. How many children are there in all?",
            "$Hero reads $a pages before lunch and $b pages after dinner. How many pages does $p read on this day?",
            "In the shop $Hero pays $a coins for a $Thing and $b coins for some $snack. How many coins does $p pay together?",
        ),
        (
            "(We put|Put) the two numbers together. $a and $b (make|are) $c, so we write $A + $B = $C.",
            "To find the answer we add. We (start|begin) at $a and count $b steps up: $A + $B = $C.",
            "The question tells us to add. We know by heart that $a plus $b is $c.",
        ),
        ("The answer is $c.", "So there are $c in all.", "That makes $c together.", "(Now|So) we have $c."),
    ),
    _Sum(
        _draw_difference,
        (
            "$Hero has $a $Fruit in a basket and gives $b of them to $Friend. How many $Fruit are left?",
            "On a wall sit $a birds. $b of them fly away (when a $beast comes|at noon). How many birds stay on the wall?",
            "A rope is $a steps long. $Friend cuts off $b steps. How long is the rope now?",
            "$Hero has saved $a coins and buys a $Thing for $b coins. How many coins does $p keep?",
        ),
        (
            "(We take|Take) $b away from $a. $a minus $b is $c, so we write $A - $B = $C.",
            "A part goes away and so we subtract. We begin at $a and count $b steps down: $A - $B = $C.",
            "The question tells us to take something away. We know by heart that $a minus $b is $c.",
        ),
        ("The answer is $c.", "So $c are left.", "That leaves $c.", "In the end there are $c."),
    ),
    _Sum(
        _draw_product,
        (
            "$Friend has $a boxes with $b $Fruit in each of them. How many $Fruit are there in all the boxes?",
            "In the hall stand $a tables, and $b children sit at each table. How many children are in the hall?",
            "$Hero walks $b miles every day for $a days. How many miles is that?",
            "Each $Thing costs $b coins. $Hero wants to buy $a of them. How many coins does $p need?",
        ),
        (
            "(We have|There are) $a groups of $b. We (multiply|count the groups) and write $A x $B = $C.",
            "$a times $b is $c. (You can|We may) also add $b again and again: the result of $A x $B is $C.",
            "The question tells us to multiply. We know by heart that $a times $b is $c.",
        ),
        ("The answer is $c.", "So there are $c in all.", "That makes $c.", "All together it is $c."),
    ),
)
_SUM_OPENINGS = (
    "(Sums|Numbers|Word problems) are (easy|fun|not hard) if you (read slowly|draw a picture|think step by step). (Here are|We look at) two of"
    " them today, and the way to the answer is shown under each.",
    "In our class we (solve|work on|do) two (sums|problems) every $weekday, and (afterwards|then) we (talk about|check) them.",
    "$writer (sent|gave) us two (problems|small problems) with numbers. (Get|Take) a (pencil|pen) and try (first|it yourself).",
    "My $kin (always says|says) that (counting|arithmetic) is like (cooking|walking): (one|you) must (not hurry|take one step at a time).",
)
_SUM_MIDDLES = (
    "(Read|Look at) the (question|text) (again|twice) before you (start|begin) to (count|write).",
    "(Draw|Make) a (small|simple) picture if (that|it) helps you.",
    "$Other (tried|did) it on (both hands|paper|the wall) and (got|found) the same.",
    "(Let us|Now let us) (think|see) what we know and what we want to find.",
    "(Stop|Wait) here and (cover|hide) the next lines with your hand.",
)
_SUM_CLOSINGS = (
    "(Was it|Were they) (easy|hard)? (Make up|Write) a (problem|question) of your own and (give|show) it to a friend.",
    "(Check|Test) (each|every) answer by (going back|counting again), and (you will be|be) sure.",
    "(Next|On the next) $weekday we will have (two|some) more, (a bit|a little) harder ones.",
)  # fmt: skip


def word_problems(rng: random.Random) -> Tale:
    """Two arithmetic problems with steps and answers; all numbers stay within twenty."""
    kinds = rng.sample(_SUMS, 2)
    middles = rng.sample(_SUM_MIDDLES, 4)
    paragraphs = [say(rng.choice(_SUM_OPENINGS), rng, {})]
    for place, kind in enumerate(kinds):
        slots = {**cast_tale(rng), **_number_slots(kind.draw(rng)), "When": say("$when", rng, {})}
        text, step, answer = (say(rng.choice(pool), rng, slots) for pool in (kind.texts, kind.steps, kind.answers))
        before, after = (say(pattern, rng, slots) for pattern in middles[2 * place : 2 * place + 2])
        paragraphs += [f"{text} {before}", f"{step} {answer} {after}"]
    title = say(
        "(Sums|Numbers|Two problems|Counting|Arithmetic) (for $weekday|at home|step by step|for the class|with $boy and $girl)",
        rng,
        {},
    )
    return Tale(title, (*paragraphs, say(rng.choice(_SUM_CLOSINGS), rng, {})))


def _number_slots(numbers: Sequence[int]) -> dict[str, str]:
    spelt = zip("abc", (NUMBER_WORDS[number] for number in numbers), strict=True)
    return {**dict(spelt), **dict(zip("ABC", map(str, numbers), strict=True))}
