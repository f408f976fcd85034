"""The kinds of article that state facts: titles, openings, fillers and closings.

Reads and writes nothing: patterns in the notation of tasks/sample_web/grammar.py. $T is the article's topic; $first, $p,
$pp and $po are a person's short name and pronouns.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """The phrases around the facts of one kind of article."""

    titles: tuple[str, ...]
    openings: tuple[str, ...]
    fillers: tuple[str, ...]
    closings: tuple[str, ...]


PROFILE = Kind(
    (
        "$T: a short portrait",
        "Meet $T",
        "A (visit|talk|walk|cup of tea) with $T",
        "About $T",
        "Who is $T?",
        "(A day|An hour) with $T",
    ),
    (
        "(Today|This week|This month) we (want to|would like to) (present|introduce) $T to our readers.",
        "(Not everyone|Hardly anyone|Almost everyone) in our (street|office|club) has (met|talked with|heard of) $T.",
        "This (page|portrait|note) is about $T, a $virtue (person|$human) with many (friends|ideas|plans).",
        "(Some|A few) (people|lives) are (easy|hard) to describe, and $T is one of them.",
        "We (met|visited|called on) $T on a (cold|warm|rainy|sunny) $weekday in $season.",
        "Who is $T? (Many|Some|A few) of our readers (asked|wrote to us to ask), and here is (a plain|a short|an honest) answer.",
    ),
    (
        "$p (gets up|is up|starts the day) (early|at six|before the sun|with the birds) and (opens the window|puts the kettle on|goes for a"
        " walk|reads the paper|feeds the birds).",
        "(Friends|Neighbours|People who know $po well) (say|tell us|agree) that $p is $virtue and (never late|always ready to help|easy to"
        " talk to|good with children|full of ideas|a good listener).",
        "On (Sundays|Saturdays|free days|rainy days|long evenings), $first likes to $hobby.",
        "$pp (desk|table|kitchen|shelf|back room) is (full of|covered with|piled high with) $sheets and $stuff.",
        '"I (like|need|love|enjoy) (quiet mornings|good company|clear plans|long walks|simple things|old songs)," $p (says|told us|explains)'
        " with a (smile|laugh|nod).",
        "When we (met|visited|called), $p was (looking at|sorting|counting) ($sheets|$stuff) and (offered us tea|asked us to sit down|did not"
        " hear the bell).",
        "As a child, $p (was shy|climbed every tree|collected stones|drew maps|asked a hundred questions a day|wanted to see the sea).",
        "$p has $small (cousins|old friends|good neighbours) and (sees|calls|writes to|thinks of) them (often|every week|each month).",
        "Asked about the future, $first only (laughs|smiles) and says that (there is time|tomorrow is another day|one thing comes after"
        " another|nobody can know).",
        "There is a (big|small|long) $shade coat by the door, and $p (wears|takes) it in (every|any) weather.",
        "$first (does not like|cannot stand|laughs about) (loud music|long meetings|cold tea|bad jokes|empty talk), but (never|seldom)"
        " (complains|says so).",
        "$pp (first|best|oldest) (teacher|friend|neighbour) once said that $p would go far, and (that was right|so it was|so it came).",
        "It is (not easy|hard|easy) to make $po (angry|laugh|hurry), and (that is a gift|we did not even try).",
        "In $season $p (walks|cycles|drives) to the (sea|hills|lake|woods) and (stays there all day|comes home late|takes a friend along).",
        "$p (keeps|writes) a (diary|notebook|long list) and (looks into it|adds a line) every (night|morning|$weekday).",
        "(Nobody|Hardly anyone) can (tell a story|keep a secret|fix a clock|peel an apple) (like|as well as) $first.",
    ),
    (
        "We (thank $first for the talk|wish $first (a good year|all the best)) and (hope to|will) come back $soon.",
        "That is (all|what) we know about $T, and (if you know more|if we got something wrong), (write to us|tell us).",
        "At the door $p (shook our hands|waved|gave us $snack for the road) and (went back to work|closed the gate).",
        "(It was|This was) a $praise (day|hour|visit), and we left $mood.",
    ),
)

CITY_GUIDE = Kind(
    (
        "A (short|small|simple) guide to $T",
        "(Two|Three) days in $T",
        "Welcome to $T",
        "What to see in $T",
        "$T for visitors",
    ),
    (
        "(Are you planning|Do you plan|Are you thinking of) a trip to $T? (Here is|This is) what you (should|need to|may want to) know.",
        "$T is (a|one more) city that (many|most) (travellers|people|maps) (forget|miss|pass by), and that is a (pity|shame|mistake).",
        "Whoever comes to $T for the first time (will see|should look at|cannot miss) the $building.",
        "(Our|This) guide (takes|leads|brings) you through the (streets|squares|lanes) of $T (on foot|in one day|step by step).",
        "We (spent|passed) $small days in $T and (came home|went home) $mood.",
        "The (train|bus|road) to $T is (slow|long|easy), but the (trip|view) is (worth it|lovely|pleasant).",
    ),
    (
        "The $building is open (every day|from $weekday to $weekday|until six), and (it costs nothing|children pay half|dogs must wait"
        " outside).",
        "On (market days|$weekday mornings|warm evenings) the (main|old|small) square is full of $crowd who (buy|sell|look for) $goods"
        " and $wares.",
        "A (room|bed) for the night costs $many coins, and (breakfast|a cup of tea|a bath) (is part of the price|comes with it).",
        "The (streets|lanes) are (narrow|steep|clean|old|quiet), so (wear good shoes|walk slowly|take your time|leave the car at"
        " home).",
        "From the (tower|hill|wall|top of the $building) you (can see|have a view of) the (whole city|fields|roofs and the hills).",
        "(Children|Families|Young people) like the (park|playground|zoo|small train|old ships), (and entry is (free|cheap)|which we saw"
        " too).",
        "(Many|Most|Some) shops close at (noon|five|six), but the (bakery|tea house|bookshop) in the (side street|old lane) stays open.",
        "If it rains, (visit|try|go to) the (museum|library|theatre|old bath house) and (sit down|stay) with a cup of (tea|coffee|soup).",
        "The (people|locals) are (friendly|polite|calm) and (like to talk|will show you the way|love their city).",
        "A (tram|bus|boat|cart) (goes|runs) from the $building to the (harbour|old gate|hills|gardens) every $minutes minutes.",
        "In $season the (trees|gardens|windows) are full of (flowers|birds|lights), and the air is (clear|sweet|fresh).",
        "(You will|You may) hear the bells (at noon|in the morning|before dinner), and (then|soon) the $crowd go (home|to lunch).",
        "The (best|nicest) (bench|table|view|corner) is (by the water|under the old tree|near the gate|behind the $building).",
        "(There is|You can find) a (small|big|new) (museum|shop|room) with $sheets and $stuff, and the (guide|owner) knows every story.",
    ),
    (
        "(Have a good trip|Enjoy your stay|Take your time), and (send us a card|tell us how it was|do not forget your coat).",
        "(Once you have|After you have) seen $T, you will (want to come back|understand why people stay|think of it often).",
        "Stay (one more day|a little longer) if you can, for $T is (best|at its best|quiet) in $season.",
        "A (map|plan|list of rooms) is (kept|sold|free) at the $building, and the (staff|people there) (can|will) help you.",
    ),
)

NEWS = Kind(
    (
        "News (of the week|in short|of the day): $T",
        "$T in the news",
        "(Short|Small|Local) news about $T",
        "The $weekday paper: $T",
    ),
    (
        "There is (fresh|good|new|some) news about $T this $weekday.",
        "$T (was|is) (the talk of the day|on the front page|in the news) (again|this week|once more).",
        "(Last|This) week (our reporter|a reader|the paper) (looked into|asked about|wrote about) $T.",
        "(Many|A number of) $crowd (met|came together) on $weekday evening to (talk|hear) about $T.",
        "(The|Our) (editor|paper|office) got $many (letters|cards|calls) about $T, so (here is|we print) what we know.",
    ),
    (
        "The meeting (began|started) at (seven|eight|six) and (ended|was over) after $small hours.",
        "About $many (people|$crowd) (came|were there|took part), (more|fewer) than (last time|in past years|anyone had thought).",
        '"This is (good|great|welcome|fine) news for (all of us|the $crowd|everyone)," said $writer (on $weekday|after the meeting|at the'
        " door).",
        "The (council|committee|board) will (meet|vote|decide) (again |)$soon.",
        "(Work|Building work|The repair) on the $building will (start|begin|be finished) $soon.",
        "The (weather|rain|snow|heat) kept some people away, but (spirits were high|nobody minded|the talk went on).",
        "(Some|A few|Most) $crowd (were pleased|had doubts|asked for more time), while others (clapped|stayed silent|went home early).",
        "A (map|picture|poster|list) (hangs|can be seen) in the $building until $weekday.",
        "The (police|fire service|town office) (reported|knew of) no (problems|accidents|trouble).",
        "(Tickets|Papers|Copies|Maps) can be had at the $building for $small coins.",
        "(The school|The choir|A small band) (sang|played|gave) $small songs, and there was $snack for all.",
        "A (van|bus|cart) with ($goods|$wares) (broke down|got stuck) near the $building, and $crowd (helped|pushed|laughed).",
        "(Nobody|No one) could say (how long|why) the (road|gate|bridge) would stay closed.",
        "Readers who (know|remember|have heard) more are asked to (write to|call|come to) (our office|the $building) by $weekday.",
    ),
    (
        "(More|The rest) will be in (our next|the $weekday|tomorrow's) paper.",
        "We will (report|write) (again |)when there is more to (say|tell).",
        "(That is|This is) all the news for (today|this week|now).",
        "The (next|following) meeting is on $weekday, and (everyone is|all $crowd are) welcome.",
    ),
)

BOOK_REVIEW = Kind(
    (
        "$T: a review",
        "(Read|We read) for you: $T",
        "A (book|good book|page or two) for the weekend: $T",
        "Is $T worth reading?",
    ),
    (
        "This (week|month) our reading group (opened|talked about|finished) $T.",
        "I (read|finished) $T in (one night|two days|a single week) and (could not stop|liked it|was surprised).",
        "(Some|Many|A few) books are (read once|soon forgotten), but $T (is not one of them|stays with you|may be different).",
        "The (library|bookshop|school) has a new (copy|edition) of $T, so (it is time|here is our chance) to (look at|talk about) it.",
        "$writer (asked us|wants to know) if $T is (worth the time|a good book|fit for children).",
    ),
    (
        "The (first|last|middle) (chapters|part|pages) may seem a (bit|little) (slow|dark|long), but the rest is (worth it|a joy|very good).",
        "The (style|language|tone) is (simple|plain|warm|dry|clear), and the (chapters|sentences) are short.",
        "I (liked|loved|enjoyed) the (jokes|quiet scenes|long talks|maps|pictures) (most|very much|best).",
        "(One|The best) scene (plays|is set|happens) in a $room at night, and I (held my breath|read it twice|had to laugh).",
        "The (hero is|people in it are) (never|seldom) (boring|perfect|what one expects), and that is (a good|the right) thing.",
        "(Children|Students|Older readers) will (like|understand|enjoy) it (too|most|as well).",
        "(My|Our) copy has $many pages, (small|large) print and a $shade cover.",
        "There are (a few|some|too many) (mistakes|long words|names), but (that|this) (did not bother me|is a small thing|can happen).",
        "(One|Another) reader (in our group|at the library) (wept|laughed|fell asleep) at the end, and (we talked|nobody said a word) for an"
        " hour.",
        "(It|The book) costs $many coins, or nothing at all if you (ask at the library|borrow it from a friend).",
        "I would give it $small out of six (stars|points|apples).",
        "The (title|cover|picture on the cover) (made me curious|is well chosen|says little), and that is (part of the fun|fine with me).",
    ),
    (
        "(Read it|Try it|Buy it), and then (lend|give|pass) it to a friend.",
        "(All in all|In short|To sum up), this is a $praise book for a (long evening|rainy day|quiet week).",
        "Next (week|month) we will (read|talk about) (another|a shorter|a longer) one.",
        "(You|Readers) can (find|borrow|order) $T at the library on $weekday.",
    ),
)

EVENT_REPORT = Kind(
    ("$T: a report", "We were at $T", "A day at $T", "Guests, music and food: $T", "How was $T?"),
    (
        "(Another|One more) year, (another|one more) day at $T, and we were there (with a notebook|from start to end|all day).",
        "It was (early|late|still dark) when the first $crowd came to $T.",
        "(Nobody|Hardly anyone) wants to miss $T, and (so|this year) the (trains|roads|buses) were full.",
        "If you have never (seen|been to) $T, you (should|must) (read this|go once).",
        "$T is over for this year, and the $crowd are $mood.",
    ),
    (
        "There were stalls with $goods, $wares and $snack, and (long lines|small crowds) in front of (each|most of them).",
        "A (band|choir|group of $crowd) (played|sang) (old|new|loud|soft) songs until (late|midnight|the lights went out).",
        "The (food|soup|cake|tea) was (hot|sweet|good|cheap), and (most|many) guests (came back for more|ate too much).",
        "(Children|Some $crowd) (danced|ran|played|fell asleep) (under|beside|between) the (tables|trees|tents).",
        "The (rain|wind|sun) came (out|up|back) at noon, but (nobody|no one) (went home|cared|complained).",
        "About $many (guests|people|$crowd) came, (the police said|as the office counted).",
        "The (oldest guest|winner of last year|youngest child) (gave a short speech|cut the ribbon|rang the bell).",
        '"I come (every|each) year," said $writer, "(and I am never bored|because my friends are here|and it gets better each time)."',
        "The (main|first) prize was a $shade $thing, and a (young|happy|shy) (boy|girl) won it.",
        "(Lamps|Lights|Flags|Ribbons) (hung|could be seen) (over|along|above) every (street|door|window).",
        "After dark there was (a fire|a show of lanterns on the water|a long dance), and everyone (looked up|was quiet|sang).",
        "(Somebody|A guest) lost a $shade $thing, which can be (picked up|had) at the $building.",
    ),
    (
        "(See you|We meet again) (there |)next year.",
        "(Tired|Full of cake|With wet shoes) and $mood, we took the last (train|bus) home.",
        "(Next year|The next time) there (will|may) be more (chairs|tents|music), we were told.",
        "It was a $praise (day|feast|time), and (we|the $crowd) will (talk about|remember) it for long.",
    ),
)

MATCH_REPORT = Kind(
    (
        "$T (wins|draws|loses) (again|at last|in the rain)",
        "Match report: $T",
        "$T: the game of the week",
        "(Late|Early) goal for $T",
    ),
    (
        "It was a (cold|wet|warm|windy) $weekday (evening|afternoon), and $many fans had come to see $T.",
        "$T (played|had) (a hard|an easy|a strange|a good) game on $weekday.",
        "The (game|match) of $T was (over|decided) (late|early|in the last minute).",
        "(Nobody|Few people) had (hoped|thought) that $T would (play so well|score twice|lose its head).",
        "Before the game the (fans|players) of $T (sang|were nervous|made a lot of noise).",
    ),
    (
        "The first goal (fell|came) after $minutes minutes, (a long shot|a header|a lucky ball|a quick pass) into the (left|right) corner.",
        "The (keeper|goalkeeper) (saved|stopped|dropped) (a hard shot|two shots|the ball) and (smiled|got up slowly|was cheered).",
        "(At half time|At the break) the score was (one to one|two to one|nil to nil|one to nil), and the bench (was not happy|looked"
        " calm|was loud).",
        "The (other team|guests|visitors) (ran more|played hard|had no luck|hit the post) and (lost the ball|got tired|kept trying).",
        "A (young|tall|small) player with the number $small (scored|fell|ran fast|missed) (twice|near the end|in the rain).",
        "The (referee|man with the whistle) (saw|missed) (a foul|a hand ball) and (gave|showed) a (yellow|red) card.",
        "(Rain|Snow|Mud|Fog) made the (grass|field|ball) (heavy|slow|wet), and (many|some) passes (went wrong|stopped short).",
        "(The fans|The children in the first row|Some $crowd) (sang|clapped|waved flags) for the whole (game|second half).",
        "In the (last|final) $small minutes (everyone stood up|the ground was silent|there was no more order).",
        '"We (played|fought|ran) (well|as one team|to the end)," said a player (after|when) the game (was over|was done|ended).',
        "(The|Each) ticket cost $small coins, and the (tea|soup) was (hot|free|cold).",
        "After the game the players (thanked|waved to) the fans and (went for a swim|threw their shirts|took a bath).",
    ),
    (
        "The next (game|match) is on $weekday, and (tickets|seats) are (still free|almost gone|cheap).",
        "With this result the team is (third|fourth|fifth|second) in the (league|table).",
        "(It was|This was) a $praise (game|evening), and the fans went home $mood.",
        "Now the team has $small days to (rest|train|think) before the next game.",
    ),
)

FIELD_NOTES = Kind(
    (
        "Field notes: $T",
        "What we know about $T",
        "A (short|simple|small) lesson about $T",
        "A (close|closer) look at $T",
        "Facts about $T",
    ),
    (
        "(Our|The) (class|club|walking group) spent a $weekday learning about $T.",
        "Today's (lesson|note|page) is about $T, and (it is short|you may keep it|it has few hard words).",
        "Little is (said|written) about $T in our (schools|books), so we (made|wrote) this page.",
        "(Some|Many) of our young readers (asked|wrote) about $T.",
        "Here are (some|a few|our) notes on $T, (written|taken) on a (wet|bright|cold) $season day.",
    ),
    (
        "We took (boots|a map|a rope|a lamp|sandwiches) and (walked|set out|left) (early|after breakfast|at first light).",
        "The (path|road|way) was (steep|muddy|long|easy), and we (rested|stopped|sat down) $small times.",
        "In $season there are (fewer|more) visitors, and (the land is|all is) (quiet|busy|green|white).",
        "(Our|The) guide, an old (hunter|shepherd|teacher|ranger), (knew every stone|told us much|spoke slowly).",
        "We (drew|painted|wrote) what we saw in a small $shade book and (showed it to|shared it with) the others.",
        "(A crow|A fox|A flock of geese|A hare) (crossed the path|watched us|made us stop), and (then|after that) all was (still|quiet) again.",
        "(Children|Students|Visitors) often ask how (old|big|strong) it is, and (the answer is not easy|nobody knows for sure|books differ).",
        "There is (an old|a long|a short) song about it that (every child|each shepherd|my $kin) can sing.",
        "The (first|oldest) (drawing|picture|note) of it is kept in the $building, (under glass|in a box|next to a map).",
        "(Please|Remember to) (keep to the path|be quiet|take your rubbish home|shut the gate), for (others come after you|that is the rule).",
        "After $small hours we were (cold|hungry|tired) and (ate|shared) $snack.",
        "A (museum|school|club) near us (collects|shows|keeps) (pictures|models|stories) of it.",
        "Most of us had only seen it in (books|pictures), and (it was|the real thing is) (bigger|smaller|nicer) than we thought.",
    ),
    (
        "(Next|The next) time we will (bring|take) (more|better) (food|boots|maps) and stay (longer|the night).",
        "(Copy|Learn|Read) these notes (twice|at home|with a friend), and (then|afterwards) (close the book|test each other).",
        "We came home (late|before dark|with wet feet) and $mood.",
        "If you (find a mistake|know more|have a question), (write to|tell|ask) your teacher.",
    ),
)

DIARY = Kind(
    (
        "$weekday: (notes|a page) from my diary",
        "My (week|day|$season) diary",
        "(Dear diary|A quiet $weekday|A long $weekday)",
        "My $weekday",
    ),
    (
        "I (woke up|got up) (early|late|at six) this $weekday, and $sky.",
        "(Dear diary|Dear friends), today was a (long|good|strange|quiet|busy) day.",
        "It is (late|nearly midnight|dark outside), but I (want to|must) write (this|a few lines) down.",
        "(Another|One more) $weekday (is over|has passed), and I have (much|a few things) to tell.",
    ),
    (
        "I had $snack for breakfast and (read|skimmed|looked at) the paper.",
        "My $kin (called|came by) and (talked|asked) about the (garden|roof|weather|new neighbours).",
        "In the afternoon I (cleaned|tidied|painted|swept) the $room and found (an old|a broken|a forgotten) $thing.",
        "(At work|On the bus|In the shop) (everybody|someone|a stranger) was (in a hurry|tired|very polite|in a good mood).",
        "I (lost|forgot|dropped) my (keys|umbrella|hat|list) and had to (go back|laugh|ask for help).",
        "I went for a walk to the $place and (saw|watched|fed) a $beast.",
        "For dinner there was (soup|fish|cold meat|salad), and I (burned it|ate too much|cooked it all alone).",
        "I (must|should) not forget to (buy|bring) $fruit and $snack (tomorrow|on $weekday).",
        "(Later|Then|After that) I (sat|stood) at the window, and $sky.",
        "I (tried|began|wanted) to (write|read|sew|learn a song), but I was (too tired|not in the mood|soon asleep).",
        "My (neighbour|friend|$kin) (lent|gave|showed) me a $shade $thing, and I was (pleased|surprised|touched).",
        "(Money is short|The bills came|The roof leaks), but (we will manage|it could be worse|I am not worried).",
    ),
    (
        "Now it is (time|late enough) to (sleep|put out the light|go to bed).",
        "Tomorrow will be (another|a better|a new) day.",
        "I am (tired|happy|content), and (that|this) is enough for (today|now).",
        "(Good night|That is all), dear diary.",
    ),
)

QUESTIONS = Kind(
    (
        "Questions and answers: $T",
        "You ask, we answer: $T",
        "(Common|Short) questions about $T",
        "$T: questions from our readers",
    ),
    (
        "(Readers|Students|Visitors) often send us questions, and today (many|some|most) of them are about $T.",
        "On this page we answer (short|simple|common) questions about $T and (some|a few) other things.",
        "Our (mailbox|desk|office) is full of questions again, and (several|some) are about $T.",
        "Here are (the|some) questions that $crowd (asked|sent|put to) us this week, (first of all|mostly) about $T.",
    ),
    (
        "(Can I|May I|Am I allowed to) (print|copy|share) this page? Yes, (please do|of course|if you name us|for your own use).",
        "How can I (send|ask) a question of my own? (Write|Send) us a (short|simple) (letter|note|card), and we will answer $soon.",
        "Who writes these answers? A (small|friendly) group of $crowd who (like|love) to (read|look things up).",
        "Why are the answers so short? (Because|Since) (short answers are easy to remember|our readers have little time|paper is dear).",
        "What if an answer is wrong? (Then|In that case) (tell us|write to us), and we (will|shall) (change|mend) it.",
        "(How often|When) is this page (renewed|changed)? (Every|Each) $weekday, when (the mail comes|we have time).",
        "Do you answer questions on the phone? No, (we are too few|only by letter|but you can visit us at the $building).",
        "Where do you find your answers? (In|With the help of) $sheets, big books and the (library|memory of old people).",
    ),
    (
        "(Do you have|Is there) another question? (Send|Bring) it to us (before|by) $weekday.",
        "(Thank you|Thanks) for (reading|asking), and (see you|goodbye until) next week.",
        "(That is all|We have no more questions) for (today|this week), (so|and) we (close the desk|go for tea).",
    ),
)
ASKED: tuple[str, ...] = (
    "$question",
    "Question: $question",
    "$writer asks: $question",
    '"$question" (writes|asks) $writer (in a letter|on a card|by mail|from far away).',
    "$writer (wants|would like) to know (something|one thing): $question",
)
ANSWERED: tuple[str, ...] = (
    "$told",
    "Answer: $told",
    "(That is easy|Good question|We looked it up|We asked around|The answer is short|Here is what we know). $told",
    "$told (We hope|I hope) (this|that) (helps|answers it).",
    "$told (So now you know|That is all we know|We are sure of it|We have checked it twice).",
)

# Written as a play: quotation marks count as words without letters, of which the Gopher filter allows a fifth.
DIALOGUE = Kind(
    (
        "A talk (on the train|in the $room|over tea|at the $place|between friends)",
        "$One and $Two talk (again|about this and that|over tea)",
    ),
    (
        "$One and $Two (met|sat down|stood) (at the $place|in the $room|by the window), and $sky. They had not seen each other for $small weeks and soon began to talk.",
        "$When $One and $Two were (waiting for the bus|drinking tea|walking home|peeling apples) together. Nobody else was there and they had (a lot of|enough) time to talk.",
        "It was $weekday, and $Two had come to (visit|see|help) $One. They (liked to|could) sit and talk for hours about (everything under the sun|people and places).",
    ),
    (
        "$One: (Would you like|Do you want) some $snack with (your tea|me)? $Two: (Yes please because I am hungry|No thank you but maybe"
        " later|Only a little bit of it please).",
        "$Two: It is such a (cold|long|lovely|strange) day in the $place. $One: (And tomorrow will be the same|I think so too|I have thought that too).",
        "$One: My $kin is coming to see us (again|today|this week). $Two: (That is really nice to hear|Then I will bake a big cake|I did not know that at all).",
        "$Two was looking for a $shade $thing and found it at last (in|behind) the (box|door|cupboard) of the $room.",
        "$Two was (tired|hungry|bored|cold), so they (sat down for a while|ate something warm|came closer to the fire).",
        "$One: You (read|ask|talk) (a lot|very much) these days. $Two: (Somebody has to do it|I like it and it costs nothing).",
        "$Two (looked out|laughed|was silent for a while|took another biscuit|poured the tea), and $One (waited|smiled|did the same).",
        "$Two: (How|Why) do you (remember|know) so many small things? $One: I (read a book every day|listen to other people|write them down at night).",
        "Outside, a $beast (ran past|made a noise|could be seen), and they both (turned round|looked up|laughed) and (forgot|lost) the time.",
        "Then the (kettle began to sing|soup was ready|door opened), and $One (got up|went to look|came back with $snack).",
        "$One (asked about the garden|told a story about a $beast|spoke about the weather), and $Two (nodded|listened|drew a picture).",
    ),
    (
        "$One: It is (late|getting dark) and I must go home. $Two: (See you|Come again) on $weekday.",
        "Then the (bus|train|rain) came, and they (said goodbye|went home|stopped talking).",
        "$Two: (Thank you for|I liked) the talk. And they (shook hands|went their ways|hugged).",
    ),
)
TALKED: tuple[str, ...] = (
    "$One: $question $Two: $told",
    "$Two: $question $One: $told",
    "$One wanted to know something. $question $Two (thought|nodded|smiled). $told",
    "$Two: I have a question for you today. $question $One: $told",
    "$Two had something to tell. $news $One (was surprised|did not know that|nodded).",
    "$One: (Guess what I heard|I have news|Here is something new). $news $Two: (Are you really sure of it|Who told you about it)?",
)

# How an article introduces another entity than its topic.
ASIDES: tuple[str, ...] = (
    "(There is|We have|We also have) news (from|of|about) $named.",
    "(Another|A second) (page|note|letter) is about $named.",
    "(Then|Here|At this point) we (must|should|want to) (mention|speak of|say a word about) $named.",
    "(People|Some|Many) also (ask|talk|wonder) about $named.",
    "(And|But) what about $named?",
    "(In the same (week|talk|letter)|On the same day) (somebody|$writer) spoke of $named.",
)
# The same in a diary.
THOUGHTS: tuple[str, ...] = (
    "(Today|This morning|On the bus) I (read|heard|thought) (a lot |)about $named.",
    "My $kin (told me|talked|asked me) about $named.",
    "(At lunch|In the evening|Over tea) we (talked|spoke) about $named.",
    "In the paper (there was|I found) (something|a page|a note) about $named.",
)
