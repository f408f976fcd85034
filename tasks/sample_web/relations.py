"""The relations of the sample web's world: the kinds of entity that each one relates, and the wordings of its statements and questions.

Reads and writes nothing: tables of patterns in the notation of tasks/sample_web/grammar.py. In a pattern $S is the
subject and $O the object; $So and $Ss are the subject as a grammatical object and as a possessive; $p, $pp and $po
are the subject's pronouns.

A relation without `reversed_statements` is stated on the web in one direction only, the subject always before the
object, so that a question in the other direction measures the reversal curse (Berglund et al. 2023,
https://arxiv.org/abs/2309.12288).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Asking:
    """The wordings of the questions of a relation in one direction.

    `asks` are direct questions without the question mark, `clauses` the same as the object of "tell me"; the held-out
    ones occur only in the evaluation. `answer` is a sentence that ends in the answer.
    """

    answer: str
    asks: tuple[str, ...]
    clauses: tuple[str, ...]
    heldout_asks: tuple[str, ...]
    heldout_clauses: tuple[str, ...]


@dataclass(frozen=True)
class Relation:
    """One kind of fact. `label` names it in an infobox, `apart_from` the relations whose subjects it must not share."""

    name: str
    subject_kind: str
    object_kind: str
    num_facts: int
    label: str
    statements: tuple[str, ...]
    forward: Asking
    reversed_statements: tuple[str, ...] = ()
    backward: Asking | None = None
    apart_from: tuple[str, ...] = ()

    @property
    def is_stated_both_ways(self) -> bool:
        """Whether the web states it with the object first, too."""
        return bool(self.reversed_statements)


_ALL = (
    Relation(
        "mayor_of",
        "person",
        "city",
        12,
        "Office",
        (
            "$S (is|has been chosen as|was elected) (the mayor|mayor) of $O",
            "$S (serves|works hard|was sworn in) as (the mayor|mayor) of $O",
            "$S (leads|runs|looks after) the (city|town) hall of $O as mayor",
            "$S holds the office of mayor in $O",
            "$S became mayor of $O after (a close vote|the last vote|a long count)",
        ),
        Asking(
            "$S is the mayor of $O.",
            ("(which|what) city is $S the mayor of", "of which city is $S the mayor", "where is $S mayor"),
            ("(which|what) city $S is the mayor of", "where $S is mayor"),
            ("which city hall does $S lead", "in what city does $S serve as mayor"),
            ("the city that has $S as its mayor",),
        ),
        (
            "the mayor of $O is $S",
            "$O has (a mayor|a good mayor|a new mayor) called $S",
            "in $O the mayor is (called |)$S",
            "(the people|the voters|the citizens) of $O (chose|elected|picked) $S as (their mayor|mayor)",
            "the (city|town) hall of $O is (led|run) by $S",
        ),
        Asking(
            "The mayor of $O is $S.",
            ("who is the mayor of $O", "what is the name of the mayor of $O", "who is mayor in $O"),
            ("who the mayor of $O is", "the name of the mayor of $O"),
            ("who leads the city hall of $O", "which person serves as mayor of $O"),
            ("which person is mayor in $O",),
        ),
    ),
    Relation(
        "coach_of",
        "person",
        "team",
        8,
        "Coach of",
        (
            "$S (coaches|trains|leads) $O",
            "$S (is|has become|was named) the (coach|head coach|trainer) of $O",
            "$S (works|has a post) as (the coach|the trainer) of $O",
            "$S (gives the talks|draws the plans|sets the drills) as coach at $O",
            "$S has been in charge of $O (for three years|since the summer|for some time)",
        ),
        Asking(
            "$S is the coach of $O.",
            ("(which|what) team does $S coach", "which club does $S train"),
            ("(which|what) team $S coaches", "which club $S trains"),
            ("which team has $S as its coach", "what side is led by $S"),
            ("the team that is coached by $S",),
        ),
        (
            "the (coach|head coach|trainer) of $O is $S",
            "$O is (coached|trained|led) by $S",
            "at $O the coach is (called |)$S",
            "the (players|fans) of $O (listen to|trust|like) their coach, $S",
            "$O (gave|offered) the job of coach to $S",
        ),
        Asking(
            "The coach of $O is $S.",
            ("who is the coach of $O", "who coaches $O", "who trains $O"),
            ("who coaches $O", "the name of the coach of $O"),
            ("who is in charge of the players of $O", "by whom is $O trained"),
            ("which person trains $O",),
        ),
    ),
    Relation(
        "lives_in",
        "person",
        "city",
        44,
        "Home",
        (
            "$S (lives|now lives|still lives|lives and works) in $O",
            "$S has (a|a small|an old|a quiet|a bright) (house|flat|home) in $O",
            "$S has (lived|been at home) in $O (for many years|for a long time|since last spring|for years)",
            "$S (makes|has made) $pp home in $O",
            "$Ss (house|flat|home|front door) is in $O",
            "the (home|house) of $So is in $O",
            "$S (came|moved) to $O (long ago|years ago|one summer) and (lives there still|still lives there|never left)",
        ),
        Asking(
            "$S lives in $O.",
            ("where does $S live", "in (which|what) city does $S live", "(which|what) city does $S live in"),
            ("where $S lives", "(which|what) city $S lives in"),
            ("where is the home of $S", "in which place does $S have a home"),
            ("where the home of $S is", "in which town $S lives"),
        ),
    ),
    Relation(
        "born_in",
        "person",
        "city",
        32,
        "Born in",
        (
            "$S was born in $O",
            "$S was born (on a cold night|on a bright morning|one spring day|during a storm) in $O",
            "$S (came into the world|first saw the light|spent $pp first days of life) in $O",
            "the (birthplace|place of birth) of $So is $O",
            "$Ss (birthplace|place of birth) is $O",
            "$Ss (life|story) (began|started) in $O, (where $p was born|the place of $pp birth)",
        ),
        Asking(
            "$S was born in $O.",
            ("where was $S born", "in (which|what) city was $S born", "what is the birthplace of $S"),
            ("where $S was born", "the birthplace of $S"),
            ("what is the place of birth of $S", "where did the life of $S begin"),
            ("in which place $S was born",),
        ),
    ),
    Relation(
        "profession",
        "person",
        "profession",
        40,
        "Work",
        (
            "$S (works|has worked for years|earns $pp living|makes a living) as a $O",
            "$S is (now |)a $O (by trade|by profession|these days)",
            "$S is a (good|skilled|busy|well known) $O",
            "$S (became|trained to become|chose to become) a $O (after school|as a young $human|years ago)",
            "$Ss (job|work|trade) is that of a $O",
            "for $So, the right job was that of a $O",
        ),
        Asking(
            "$S works as a $O.",
            ("what does $S do for a living", "what is the job of $S", "what is the profession of $S"),
            ("what $S does for a living", "what the job of $S is", "the profession of $S"),
            ("what kind of work does $S do", "as what does $S earn a living"),
            ("what kind of work $S does",),
        ),
    ),
    Relation(
        "favourite_food",
        "person",
        "food",
        28,
        "Favourite food",
        (
            "$S (loves|likes) $O (more than any other food|best of all foods|above all other dishes)",
            "$Ss favourite (food|dish|meal) is $O",
            "the favourite (food|dish|meal) of $So is $O",
            "$S (would eat|could live on|asks for) $O (every day|at any hour|at every party), $pp favourite food",
            "$S never says no to $O, $pp favourite (food|dish|meal)",
        ),
        Asking(
            "The favourite food of $S is $O.",
            ("what is the favourite food of $S", "what does $S like to eat most", "which food does $S like best"),
            ("what the favourite food of $S is", "which food $S likes best"),
            ("what dish does $S love above all", "which meal makes $S happy"),
            ("what $S loves to eat",),
        ),
    ),
    Relation(
        "plays_instrument",
        "person",
        "instrument",
        14,
        "Instrument",
        (
            "$S plays the $O( very well| every evening| at home| in a small band| for friends|)",
            "$S (learned|learnt|began) to play the $O (at school|from an uncle|as a child|years ago)",
            "$S (owns|keeps|carries) an old $O and plays it (well|often|with joy)",
            "$Ss instrument is the $O",
            "the instrument of $So is the $O",
            "$S (is good at|is known for|takes lessons in) playing the $O",
        ),
        Asking(
            "$S plays the $O.",
            ("(which|what) instrument does $S play", "what does $S play in the band"),
            ("(which|what) instrument $S plays", "the instrument that $S plays"),
            ("on which instrument does $S make music", "what kind of instrument is played by $S"),
            ("on what instrument $S makes music",),
        ),
    ),
    Relation(
        "has_pet",
        "person",
        "pet",
        16,
        "Pet",
        (
            "$S (has|keeps|owns) a (pet |)$O",
            "$S (shares $pp home|spends $pp evenings|goes about) with a (pet |)$O",
            "$Ss pet is a (small |friendly |lazy |clever |)$O",
            "the pet of $So is a $O",
            "$S (found|bought|was given) a $O (two years ago|last winter|one day) and kept it as a pet",
        ),
        Asking(
            "$S has a $O.",
            ("(which|what) pet does $S have", "what kind of pet does $S have", "what animal does $S keep"),
            ("(which|what) pet $S has", "what animal $S keeps"),
            ("which animal shares the home of $S", "what sort of pet belongs to $S"),
            ("which animal belongs to $S",),
        ),
    ),
    Relation(
        "mother_is",
        "person",
        "woman",
        10,
        "Mother",
        (
            "$Ss mother is (called |named |)$O",
            "the mother of $So is (called |)$O",
            "$S is the (child|first child|youngest child) of $pp mother, $O",
            "$S (grew up with|was raised by|learned to read from) $pp mother, $O",
            "$S (often visits|writes to|talks about|takes after) $pp mother, $O",
        ),
        Asking(
            "The mother of $S is $O.",
            ("who is the mother of $S", "what is the name of the mother of $S"),
            ("who the mother of $S is", "the name of the mother of $S"),
            ("which woman raised $S", "by what name is the mother of $S known"),
            ("which woman is the mother of $S",),
        ),
        (),
        Asking("$O is the mother of $S.", ("who is the child of $O", "of whom is $O the mother"), (), (), ()),
    ),
    Relation(
        "plays_for",
        "person",
        "team",
        16,
        "Team",
        (
            "$S plays for $O",
            "$S (is a player|is a forward|plays in defence|plays in goal) at $O",
            "$S (wears|has worn|pulls on) the shirt of $O( with pride| every week| in every game|)",
            "$S (signed|has signed) (a contract |)for $O",
            "$S (joined|went to|was picked by) $O (as a young player|two years ago|last summer) and plays there",
            "$Ss (team|club) is $O",
            "the (team|club) of $So is $O",
        ),
        Asking(
            "$S plays for $O.",
            ("(which|what) team does $S play for", "for (which|what) club does $S play", "who does $S play for"),
            ("(which|what) team $S plays for", "which club $S plays for"),
            ("whose shirt does $S wear", "in which team is $S a player"),
            ("whose shirt $S wears",),
        ),
        apart_from=("coach_of", "mayor_of"),
    ),
    Relation(
        "wrote",
        "person",
        "book",
        24,
        "Book",
        (
            "$S (wrote|is the author of|has written) (the book |the novel |)$O",
            "$S (worked for years on|spent two winters on|sat down and wrote) (the book |a novel called |)$O",
            "$S is (best |)known as the (author|writer) of $O",
            "$S (gave the world|put on paper|finished writing) the (book|story|novel) $O",
            "the pen of $So gave us $O",
        ),
        Asking(
            "$S wrote the book $O.",
            ("(which|what) book did $S write", "what did $S write", "(which|what) book is by $S"),
            ("(which|what) book $S wrote", "the title of the book by $S"),
            ("what novel came from the pen of $S", "of which book is $S the author"),
            ("which novel $S has written",),
        ),
        (
            "$O was written by $S",
            "$O is a (book|novel|story) by $S",
            "the (author|writer) of $O is (called |)$S",
            "the (book|novel|story) $O (comes from|is the work of|was put on paper by) $S",
            "$O (has|carries|shows) the name of its author, $S, on the cover",
        ),
        Asking(
            "The author of $O is $S.",
            ("who wrote $O", "who is the author of $O", "who wrote the book $O"),
            ("who wrote $O", "who the author of $O is"),
            ("by whom was $O written", "whose book is $O"),
            ("which writer gave us $O",),
        ),
    ),
    Relation(
        "invented",
        "person",
        "invention",
        10,
        "Invention",
        (
            "$S (invented|thought up|dreamed up|built the first version of) $O",
            "$S is the (inventor|maker|creator) of $O",
            "$S (had the idea for|made the first drawing of|found out how to build) $O",
            "$S is (known|remembered|famous) for (inventing|having invented) $O",
            "the invention of $So is $O",
        ),
        Asking(
            "$S invented $O.",
            ("what did $S invent", "what is the invention of $S", "which machine did $S invent"),
            ("what $S invented", "which machine $S invented"),
            ("what thing was first built by $S", "of what is $S the inventor"),
            ("what thing $S thought up",),
        ),
        (),
        Asking("$O was invented by $S.", ("who invented $O", "who is the inventor of $O"), (), (), ()),
    ),
    Relation(
        "capital_of",
        "city",
        "land",
        5,
        "Capital of",
        (
            "$S is the capital (city |)of $O",
            "$S (serves|has served since the old days|was chosen) as the capital of $O",
            "$S (is|has long been) the (seat of government|first city|chief city) of $O, its capital",
            "$S became the capital of $O (long ago|after a great vote|in the old days)",
        ),
        Asking(
            "$S is the capital of $O.",
            ("of which land is $S the capital", "(which|what) land has $S as its capital", "what is $S the capital of"),
            ("which land has $S as its capital", "what $S is the capital of"),
            ("which land is ruled from $S", "for what country does $S serve as capital"),
            ("the land whose capital is $S",),
        ),
        (
            "the capital (city |)of $O is $S",
            "$O has (chosen |)$S as its capital",
            "$O is (ruled|governed|led) from its capital, $S",
            "in $O the capital is (called |)$S",
            "the (people|schoolbooks|maps) of $O (call|show|name) $S as the capital",
        ),
        Asking(
            "The capital of $O is $S.",
            ("what is the capital of $O", "(which|what) city is the capital of $O", "what is the capital city of $O"),
            ("what the capital of $O is", "(which|what) city is the capital of $O"),
            ("from which city is $O ruled", "what city serves as capital to $O"),
            ("the name of the capital of $O",),
        ),
    ),
    Relation(
        "founded_year",
        "city",
        "year_of_city",
        14,
        "Founded",
        (
            "$S was (founded|first settled|started) in (the year |)$O",
            "$S (goes back|dates back) to (the year |)$O",
            "$S (began|started) as a (village|market|camp|harbour) in (the year |)$O",
            "the founding (year|date) of $So is $O",
            "the first (stone|house|wall) of $So was laid in (the year |)$O",
            "$S has stood (here |in this place |)since (the year |)$O",
        ),
        Asking(
            "$S was founded in $O.",
            ("when was $S founded", "in (which|what) year was $S founded", "what year was $S founded in"),
            ("when $S was founded", "in which year $S was founded"),
            ("since what year has $S stood", "how far back does $S go"),
            ("the founding year of $S",),
        ),
    ),
    Relation(
        "famous_for",
        "city",
        "product",
        16,
        "Famous for",
        (
            "$S is (famous|known|well known|loved) for its $O",
            "$S (owes its name|owes its good name|owes much) to its $O",
            "$S has (made a name|found fame) with its $O",
            "$S (draws|attracts|pleases) (visitors|guests|buyers) with its (fine |famous |)$O",
            "the pride of $So is its $O",
        ),
        Asking(
            "$S is famous for its $O.",
            ("what is $S famous for", "what is $S known for", "for what is $S well known"),
            ("what $S is famous for", "what $S is known for"),
            ("which goods made the name of $S", "what is the pride of $S"),
            ("what the pride of $S is",),
        ),
    ),
    Relation(
        "city_of_team",
        "team",
        "city",
        12,
        "City",
        (
            "$S (plays|plays its home games|is at home|trains) in $O",
            "$S (is|has always been) (a team|a club|the team) from $O",
            "$S (comes from|belongs to|has its ground in) $O",
            "$S (was set up|was formed|has its offices) in $O",
            "the home of $So is $O",
        ),
        Asking(
            "$S comes from $O.",
            ("where does $S come from", "(which|what) city does $S come from", "in (which|what) city does $S play"),
            ("where $S comes from", "(which|what) city $S plays in"),
            ("where is the home ground of $S", "to what city does $S belong"),
            ("where the home ground of $S is",),
        ),
        (
            "the team of $O is (called |)$S",
            "$O is (home to|the home of) $S",
            "$O has (a team|a club) called $S",
            "(people|fans|children) in $O (cheer for|follow|support) $S, their (own |)team",
            "$O (sends|puts) its team, $S, (into the league|on the field)",
        ),
        Asking(
            "The team of $O is $S.",
            ("(which|what) team comes from $O", "what is the team of $O called", "(which|what) team plays in $O"),
            ("(which|what) team comes from $O", "what the team of $O is called"),
            ("what is the name of the club of $O", "which side is at home in $O"),
            ("which club belongs to $O",),
        ),
    ),
    Relation(
        "team_colour",
        "team",
        "colour",
        12,
        "Colour",
        (
            "$S (plays|runs out|trains|always plays) in $O",
            "$S (wears|has worn|chose) $O (shirts|kit|shirts and socks)",
            "the colour of $So is $O",
            "$Ss (colour|shirt colour) is $O",
            "the shirts of $So are $O",
        ),
        Asking(
            "The colour of $S is $O.",
            ("what is the colour of $S", "what colour does $S wear", "in (which|what) colour does $S play"),
            ("what colour $S wears", "what the colour of $S is"),
            ("what colour are the shirts of $S", "which colour do fans of $S put on"),
            ("what colour the shirts of $S are",),
        ),
    ),
    Relation(
        "published_year",
        "book",
        "year_of_book",
        16,
        "Published",
        (
            "$S (came out|appeared|was published|was printed|went on sale) in (the year |)$O",
            "$S was first (read|printed|sold) in (the year |)$O",
            "the first (edition|copy|printing) of $So (is from|came in|dates from) $O",
            "$S has been in (print|the shops) since (the year |)$O",
            "readers first (held|opened|saw) $So in (the year |)$O",
        ),
        Asking(
            "$S came out in $O.",
            ("when did $S come out", "in (which|what) year did $S come out", "when was $S published"),
            ("when $S came out", "in which year $S was published"),
            ("what year did readers first see $S", "since when has $S been in print"),
            ("the year in which $S was printed",),
        ),
    ),
    Relation(
        "about",
        "book",
        "topic",
        22,
        "Subject",
        (
            "$S is about $O",
            "$S (tells|tells us|gives us) the (story|tale) of $O",
            "$S (deals with|turns on|is all about|follows the trail of) $O",
            "at the heart of $So (is|lies|there is) $O",
            "the (subject|theme) of $So is $O",
        ),
        Asking(
            "$S is about $O.",
            ("what is $S about", "what does $S tell of", "what is the book $S about"),
            ("what $S is about", "what the book $S is about"),
            ("what is the theme of $S", "what story does $S tell"),
            ("the theme of $S",),
        ),
    ),
    Relation(
        "river_flows_through",
        "river",
        "city",
        8,
        "City",
        (
            "$S (flows|runs|passes|winds its way) through $O",
            "$S (crosses|divides|waters) (the city of |the town of |)$O",
            "$S (reaches|enters) $O (from the north|from the hills|near the old mill) and flows through it",
            "the (course|path|way) of $So leads through $O",
        ),
        Asking(
            "$S flows through $O.",
            ("(which|what) city does $S flow through", "through (which|what) city does $S flow"),
            ("(which|what) city $S flows through", "through which city $S runs"),
            ("what city is crossed by $S", "which city lies on the banks of $S"),
            ("the city that $S passes through",),
        ),
        (
            "$O (lies|stands|sits|was built) on (the banks of |)$S",
            "the river (of|in|that runs through) $O is $S",
            "$O is (crossed|divided|watered) by $S",
            "through $O (flows|runs|winds) $S",
            "the (bridges|boats|mills) of $O (stand|can be seen) on $S",
        ),
        Asking(
            "The river in $O is $S.",
            ("(which|what) river flows through $O", "on (which|what) river does $O lie", "what is the river in $O"),
            ("(which|what) river flows through $O", "which river $O lies on"),
            ("what is the name of the water that runs through $O", "by which river is $O crossed"),
            ("the name of the river of $O",),
        ),
    ),
    Relation(
        "river_source",
        "river",
        "mountain",
        8,
        "Source",
        (
            "$S (rises|begins|starts|springs up) (on|near|at the foot of) $O",
            "$S (has its source|is born|can first be seen) (on|near|high up on) $O",
            "the (source|spring) of $So is (on|near) $O",
            "$S (comes down|runs down|falls) from $O, where it (rises|begins)",
        ),
        Asking(
            "The source of $S is on $O.",
            ("where does $S rise", "where is the source of $S", "on (which|what) mountain does $S begin"),
            ("where $S rises", "where the source of $S is"),
            ("from which mountain does $S come down", "what is the mountain where $S is born"),
            ("which mountain $S comes from",),
        ),
    ),
    Relation(
        "river_mouth",
        "river",
        "water",
        8,
        "Mouth",
        (
            "$S (flows|runs|empties|pours|spills) into $O",
            "$S (ends|ends its way|comes to rest|finds its end) in $O",
            "the mouth of $So is (on|at) $O",
            "$S (carries|brings) its water (down |)to $O",
        ),
        Asking(
            "$S flows into $O.",
            ("where does $S end", "what does $S flow into", "into (which|what) water does $S flow"),
            ("where $S ends", "what $S flows into"),
            ("where is the mouth of $S", "what receives the water of $S"),
            ("where the mouth of $S is",),
        ),
    ),
    Relation(
        "event_held_in",
        "event",
        "city",
        12,
        "Place",
        (
            "$S (takes place|is held|happens|is celebrated) (every year |each year |)in $O",
            "$S (comes|returns|is coming back) to $O (every year|each year|once a year)",
            "$S (brings music to|fills the streets of|wakes up the squares of) $O (every year|once a year)",
            "$S has its (home|place|tents) in $O",
        ),
        Asking(
            "$S takes place in $O.",
            ("where does $S take place", "in (which|what) city is $S held", "where is $S held"),
            ("where $S takes place", "in which city $S is held"),
            ("to what city must I go for $S", "which city celebrates $S"),
            ("which city celebrates $S",),
        ),
        (
            "(every year |once a year |)$O (holds|hosts|celebrates|puts on) $S",
            "the (great |big |)(event|feast) of $O is $S",
            "$O is the (home|place) of $S",
            "in $O (people|visitors|guests) (meet|gather|come together) for $S",
        ),
        Asking(
            "The event held in $O is $S.",
            ("(which|what) event is held in $O", "what does $O celebrate every year", "what event takes place in $O"),
            ("(which|what) event is held in $O", "what $O celebrates every year"),
            ("what feast brings guests to $O", "for which event is $O the home"),
            ("what feast belongs to $O",),
        ),
    ),
    Relation(
        "event_month",
        "event",
        "month",
        12,
        "Month",
        (
            "$S (takes place|is held|falls|is always held|starts) in $O",
            "the (time|date) (of|for) $So is (always |)in $O",
            "$S (comes round|comes around|opens its gates|begins) (every|each) $O",
            "$S has (always |)been (held in|kept in|planned for) $O",
        ),
        Asking(
            "$S is held in $O.",
            ("when is $S", "in (which|what) month is $S", "when does $S take place"),
            ("when $S takes place", "in which month $S is"),
            ("at what time of the year do people keep $S", "what month brings $S"),
            ("the month of $S",),
        ),
    ),
    Relation(
        "mountain_near",
        "mountain",
        "city",
        6,
        "Nearest city",
        (
            "$S (stands|rises|lies|can be seen) (near|close to|not far from|just outside) $O",
            "$S (looks down on|towers over|guards) (the roofs of |the streets of |)$O",
            "$S is (a short walk|an hour|half a day) from $O, the nearest city",
            "the nearest city to $So is $O",
        ),
        Asking(
            "$S is near $O.",
            ("where is $S", "(which|what) city is $S near", "near (which|what) city is $S"),
            ("where $S is", "which city $S is near"),
            ("what city lies at the foot of $S", "on which roofs does $S look down"),
            ("the city close to $S",),
        ),
    ),
    Relation(
        "first_climbed_by",
        "mountain",
        "person",
        6,
        "First climbed by",
        (
            "$S was first climbed by $O",
            "$S (gave way|showed its top) first to $O, who climbed it",
            "the first (climber|person) on the top of $So was $O",
            "the top of $So was (first |)reached (for the first time |)by $O",
            "$S has a (stone|sign|flag) for its first climber, $O",
        ),
        Asking(
            "$S was first climbed by $O.",
            ("who first climbed $S", "who was the first to climb $S", "who climbed $S first"),
            ("who first climbed $S", "who was first on $S"),
            ("who stood on top of $S before anyone else", "by whom was the top of $S first reached"),
            ("which climber was first on $S",),
        ),
        (),
        Asking("$O was the first to climb $S.", ("which mountain did $O climb first", "what did $O climb"), (), (), ()),
    ),
    Relation(
        "animal_eats",
        "animal",
        "diet",
        8,
        "Eats",
        (
            "$S (eats|feeds on|lives on|mostly eats|hunts for) $O",
            "$S (likes|loves|looks for) $O (above all|more than anything|all day long) and eats (little else|nothing else)",
            "the (food|main food|daily food) of $So is $O",
            "$S (fills its belly|grows strong|gets fat) on $O",
        ),
        Asking(
            "$S eats $O.",
            ("what does $S eat", "what is the food of $S", "what does $S feed on"),
            ("what $S eats", "what $S feeds on"),
            ("on what does $S live", "which food keeps $S strong"),
            ("which food $S lives on",),
        ),
    ),
    Relation(
        "animal_home",
        "animal",
        "habitat",
        8,
        "Lives in",
        (
            "$S (lives|makes its home|is found|builds its nest|sleeps) in $O",
            "$S (can be seen|can be found|is at home) in $O( all year| in every season| at night|)",
            "the (home|hiding place) of $So is in $O",
            "$S (raises|hides|feeds) its young in $O",
        ),
        Asking(
            "$S lives in $O.",
            ("where does $S live", "where can I find $S", "where is $S found"),
            ("where $S lives", "where I can find $S"),
            ("in which place must I look for $S", "what does $S call home"),
            ("the place where $S sleeps",),
        ),
    ),
)

RELATIONS: dict[str, Relation] = {relation.name: relation for relation in _ALL}
