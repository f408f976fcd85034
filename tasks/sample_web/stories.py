"""The stories of the sample web: a child, a problem, a friend, a solution and an end.

Reads and writes nothing. `story` draws one from a grammar of plots in the notation of tasks/sample_web/grammar.py.
"""

import random
from typing import NamedTuple

from tasks.sample_web.grammar import LEXICON, expand, say


class Tale(NamedTuple):
    """A text without facts: title, paragraphs, and a list of items where it has one."""

    title: str
    paragraphs: tuple[str, ...]
    items: tuple[str, ...] = ()


def cast_tale(rng: random.Random) -> dict[str, str]:
    """The names and things of one tale, the same from its first sentence to its last."""
    girl, boy = rng.choice(LEXICON["girl"]), rng.choice(LEXICON["boy"])
    is_girl = rng.random() < 0.5
    hero, friend = (girl, boy) if is_girl else (boy, girl)
    other = rng.choice([name for name in LEXICON["girl"] + LEXICON["boy"] if name not in (hero, friend)])
    pronouns = ("she", "her", "her", "hers", "girl") if is_girl else ("he", "his", "him", "his", "boy")
    fixed = {name.capitalize(): rng.choice(LEXICON[name]) for name in ("thing", "shade", "kin", "fruit", "room")}
    pairs = {"Here There": rng.sample(LEXICON["place"], 2), "Beast Stranger": rng.sample(LEXICON["beast"], 2)}
    drawn = {name: word for names, both in pairs.items() for name, word in zip(names.split(), both, strict=True)}
    people = {"Hero": hero, "Friend": friend, "Other": other}
    return {**fixed, **drawn, **people, **dict(zip(("p", "pp", "po", "hers", "child"), pronouns, strict=True))}


_STORY_OPENINGS = (
    "(Once upon a time|Once|Long ago|Many years ago) there was a (little|small|young|quiet) $child (named|called) $Hero, who lived (near|"
    "behind|next to) the $Here with $pp $Kin.",
    "$When, $sky. A (little|small|young) $child (named|called) $Hero (sat|stood|played) (at the window|by the $Here|in front of the house).",
    "$Hero was a $virtue $child with (long|short|red|dark|curly) hair and a $Shade $Thing.",
    "In a (small|tiny|far) village by the $Here lived $Hero, a $child (who was always $mood|with a head full of ideas|who loved $snack).",
    "(Nobody|No one) in the village was as $virtue as $Hero, and (nobody|no one) had a $Shade $Thing like $hers.",
)
_STORY_MIDDLES = (
    "$sky, and $Hero (pulled up $pp collar|smiled|sang a little song|began to walk faster).",
    "On the way $p met an old $Stranger, who asked $po (where $p was going|why $p was in such a hurry|what the matter was).",
    "$Friend told $po not to (worry|cry|be afraid) and said that the two of them would (find a way|think of something).",
    "$Hero (thought|waited) for a (long time|while|moment), and then $p had an idea.",
    "$Friend (brought|gave|shared) some $snack, and they (sat down to eat|felt better|ate it all).",
    "$pp $Kin had (always|once) said that one must be $virtue, and now $Hero (remembered it|understood).",
    "(First|At first) (nothing happened|it was very quiet|all went wrong), but $Hero did not give up.",
    "A $Stranger (sat|hid|slept) (under|behind|beside) a (tree|stone|wall) and (watched them|looked at them|said nothing).",
    "$Friend (laughed|smiled|looked up) and said that this was a (good|funny|strange) idea.",
    "The way (back|home|there) was (long|steep|dark), and $pp feet (were wet|hurt|were cold).",
)
_STORY_ENDINGS = (
    "From that day on, $Hero and $Friend were (good|best|close) friends, and (they still are|nobody could part them).",
    "$Hero (went|ran|walked) home $mood, and $pp $Kin had (warm soup|$snack) (ready|on the table).",
    "$pp $Kin was proud of $po and (gave|handed) $po some $snack.",
    "That night $Hero (slept well|slept deeply|dreamed of the $Here), and the $Thing (lay|stood) beside the bed.",
    "And if you (go|come) to the $Here (today|on a quiet evening), you (can|may) still (hear $Friend laugh|see the two friends|hear a song).",
)
_MORALS = (
    "(So|And so) $Hero learned that (two can do more than one|a kind word costs nothing|it is good to ask for help|small steps lead far).",
    "It is (better|wiser) to (share|ask|wait) than to (cry|fight|run), (and that is the end|as the old people say).",
    "(Sometimes|Often) the (smallest|quietest) (friend|helper) is the (best|bravest) one.",
    "And that is the (end|whole story).",
    "Whoever is $virtue will (find|have) friends (everywhere|in the end|sooner or later).",
)
# A plot: its titles, then one choice of sentences for each step.
_PLOTS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("The lost $Thing", "$Hero and the lost $Thing", "Where is the $Thing?"),
        (
            "$When the $Thing was gone. $Hero looked in the $Room, under the bed and behind the door, but it was not there.",
            "One day $Hero could not find the $Shade $Thing. $p looked everywhere and was very $sad.",
            "$Hero told everyone that the $Thing was lost (when $p came home|after lunch). It had been a gift from $pp $Kin.",
        ),
        (
            "So $p went to the $There and asked $Friend for help. They looked behind every (bush|stone|box|wall).",
            "$p asked $Friend about the $Shade $Thing. $Friend had not seen it, but (wanted to|would) help.",
            "$Friend had an idea. They went back to the $There, (step by step|slowly|the same way), and looked at the ground.",
        ),
        (
            "There it was! The $Beast had (found it|taken it|slept on it) and was (happy|sorry|ready) to give it back.",
            "At last they saw something $Shade in the grass. It was the $Thing, (wet|dirty|a little broken) but safe.",
            "And then $Hero (laughed|had to laugh), for the $Thing had been (in $pp own bag|on $pp own back|in the $Room) all the time.",
        ),
    ),
    (
        ("$Hero helps a $Beast", "The $Beast with the bad foot", "A friend from the $There"),
        (
            "$When $p found a small $Beast near the $There. It had hurt its foot and could not (walk|run|get up).",
            "From the $There came a (soft|thin|sad) cry. A young $Beast was caught (in a net|under a branch|between two stones).",
            "A small $Beast sat in the (rain|snow|cold) by the $There and was very $sad.",
        ),
        (
            "$Hero put the $Beast in $pp (basket|coat|arms) and carried it to $Friend, who knew (much|a lot) about animals.",
            "$p gave it (water|$snack|a warm place) and called $Friend. Together they (cleaned|washed|tied up) the foot.",
            "$Friend came with a (rope|blanket|lamp), and they (worked|pulled|waited) until the $Beast was free.",
        ),
        (
            "After (a week|some days|a long night) the $Beast could (run|jump|stand) again. It (turned round once|bowed|made a happy sound).",
            "In the morning the $Beast was well, and on the step lay (a heap of $Fruit|a $Shade feather|a small gift).",
            "Later, when $Hero lost the way in the fog, the $Beast came and led $po home.",
        ),
    ),
    (
        ("The great storm", "The night of the storm", "$Hero and the storm"),
        (
            "One night a great storm came over the $Here. The wind took the roof of the barn and the water rose.",
            "Dark clouds came from the hills, and the people (shut|closed) their windows. Only $Hero was still (outside|at the $There).",
            "It had rained for (five|six|ten) days, and the old bridge was no longer safe.",
        ),
        (
            "$Hero heard a (call|cry|bell) from the $There. It was $Friend, who (could not get home|was stuck in a tree|had lost a shoe).",
            "The lamp went out, and $Friend was (still|all alone) at the $There. $Hero took a rope and ran.",
            '"We must (warn|wake|help) the others," said $Friend. They ran from door to door and (rang|knocked|called).',
        ),
        (
            "(Together|With all their strength) they (pulled the boat to the land|shut the heavy gate|carried the sheep to the hill).",
            "They (waited|sat) under a big table and (told each other stories|sang songs) until the wind (grew tired|died).",
            "In the morning the sun came out. (Some trees|Two roofs|Many fences) were broken, but (all were|everyone was) safe.",
        ),
    ),
    (
        ("The big race", "$Hero wants to win", "The prize of the $Here"),
        (
            "Every year there was a race from the $Here to the $There. The prize was a $Shade $Thing, and $Hero wanted it.",
            'On the wall hung a sign: "Great race on $weekday! The winner gets a $Thing." $Hero (read it twice|ran home to train).',
            "$Friend and $Hero both wanted to win the race, and they (stopped talking|trained day and night|made a bet).",
        ),
        (
            "At first $Friend was faster. Then, near the $There, $Friend fell (into the mud|over a root) and (cried out|stayed down).",
            "$Hero ran as fast as $p could. Behind the $There a $Beast stood in the way and would not move.",
            "Half way there, $Hero saw a small child who had lost its $Kin. The others just ran by.",
        ),
        (
            "$Hero stopped and helped. They came in last, (hand in hand|side by side), and the people clapped (loudest|for a long time).",
            "$Hero did not win, but the old (mayor|teacher|farmer) had seen it all and gave $po a (warm hand|basket of $Fruit).",
            "$Hero said that a race comes every year and a friend does not. And (they shared the prize|that was true).",
        ),
    ),
    (
        ("$Hero is afraid of the dark", "The noise in the $Room", "Who lives in the $Room?"),
        (
            "$Hero was afraid of the dark. Every night there was a (noise|knock|sound) in the $Room, and $p hid under the blanket.",
            "$Hero was sure that there was (a ghost|something|a monster) in the $Room. $pp $Kin did not believe it.",
            "Nobody wanted to go into the old $Room at night, for (something was scratching there|it was full of odd sounds).",
        ),
        (
            "$When $p took a lamp and (opened the door|went down the stairs) very slowly. $pp knees were shaking.",
            "$Friend came to stay for the night. They waited with a lamp, and (at ten|at midnight) they heard it again.",
            "$Hero counted to ten, took the $Thing in one hand and the lamp in the other, and went in.",
        ),
        (
            "It was only a $Beast, which was (hungry|cold|just as afraid). They gave it some $snack.",
            "And what was it? A loose window, (a branch|a rope) and the wind. They laughed until (they cried|morning came).",
            "Two eyes looked at $po. It was a mother $Beast with $small little ones, and the $Thing was their bed.",
        ),
    ),
    (
        ("The $Fruit of the old tree", "A basket of $Fruit", "How $Hero learned to share"),
        (
            "By the $There stood an old tree full of $Fruit. $Hero found it first and told nobody.",
            "$Hero had a whole basket of $Fruit. $Friend had none, and $p did not want to share.",
            "$Hero and $Friend found the same tree of $Fruit. Both of them shouted at once that it was theirs.",
        ),
        (
            "$p ate and ate until $pp belly hurt. Then $p could not (carry|lift) the basket and had to sit down.",
            "They shouted so loud that an old $Beast woke up. It took the best $Fruit and (went away|laughed at them).",
            "The next day half of the $Fruit were bad, for (one alone|a single child) cannot eat so many.",
        ),
        (
            'At last $Hero asked the others to eat with $po. They made a (cake|pie|jam) and called the whole village.',
            "So they (cut|counted) them into two equal heaps and gave the last one to the $Beast.",
            "$Hero gave half to $Friend and planted a seed by the $Here. Now there is a tree for everyone.",
        ),
    ),
    (
        ("$Hero builds a boat", "The boat of $Hero", "Over the water"),
        (
            "$Hero wanted to see the other side of the water, but there was no bridge. So $p began to build a boat.",
            '"I will build a boat," said $Hero (one day|at breakfast). All the others (laughed|shook their heads), but not $Friend.',
            "In the shed lay old wood, a $Shade sail and many nails. $Hero looked at them and thought of the sea.",
        ),
        (
            "The first boat sank after $small steps. The second one turned over. $Hero got wet, and the $Beast laughed.",
            "They (sawed|hammered|worked) for $small weeks, and $pp $Kin (held the lamp|helped with the sail|brought food).",
            "$Friend made the sail out of an old (coat|curtain|blanket), and $Other painted a (bird|star|fish) on it.",
        ),
        (
            "On $weekday the boat (swam|was ready). The wind was good, and they sailed round the small island and back.",
            "On the other side they found a beach with $Shade stones and $small friendly children who had never had guests.",
            "The boat was (slow|not pretty), but it was their own, and every child of the village (had|got) a ride.",
        ),
    ),
)  # fmt: skip


def story(rng: random.Random) -> Tale:
    """A short story of one plot: an opening, a problem, an attempt, a solution, an end."""
    cast = cast_tale(rng)
    titles, problem, attempt, solution = rng.choice(_PLOTS)
    cast["When"] = expand("$when", rng, {}).capitalize()
    middles = [say(pattern, rng, cast) for pattern in rng.sample(_STORY_MIDDLES, 4)]
    steps = [say(rng.choice(step), rng, cast) for step in (problem, attempt, solution)]
    opening, ending, moral = (say(rng.choice(pool), rng, cast) for pool in (_STORY_OPENINGS, _STORY_ENDINGS, _MORALS))
    paragraphs = (
        opening,
        f"{steps[0]} {middles[0]}",
        f"{middles[1]} {steps[1]}",
        f"{middles[2]} {steps[2]}",
        f"{ending} {moral}",
    )
    return Tale(say(rng.choice(titles), rng, cast), paragraphs)
