"""Personal data is found and replaced, look-alikes stay, and hostile texts cost time in proportion to their length."""

import gzip
import itertools
import json
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.pii import street_addresses
from tasks.pii.detect import FINDERS, Span, find, kind_to_drop, redact, to_redact
from tasks.pii.identifiers import NUMBERS, Table
from tasks.pii.street_addresses import find_addresses
from tests.support.cost import grows_linearly

KINDS = list(FINDERS)

PERSONAL = [
    ("email", "mail jane.doe+list@example.co.uk now", "jane.doe+list@example.co.uk"),
    ("email", "JANE_DOE99@Example.ORG.", "JANE_DOE99@Example.ORG"),
    ("email", "'o'neil@example.com'", "o'neil@example.com"),
    ("email", "a.b.c@example.com.", "a.b.c@example.com"),
    ("email", "an jörg@müller.de", "jörg@müller.de"),
    ("email", "to user@mail.xn--p1ai, or", "user@mail.xn--p1ai"),
    ("email", "*jane@example.com_", "jane@example.com"),
    ("email", "jane@example.com-", "jane@example.com"),
    ("ip", "from 8.8.8.8, at night", "8.8.8.8"),
    ("ip", "see http://93.184.216.34/index.html", "93.184.216.34"),
    ("ip", "at 2a00:1450:4001:82a::200e it", "2a00:1450:4001:82a::200e"),
    ("card", "card 4111 1111 1111 1111 was", "4111 1111 1111 1111"),
    ("card", "card 5555-5555-5555-4444.", "5555-5555-5555-4444"),
    ("card", "378282246310005 (Amex)", "378282246310005"),
    ("card", "4111 1111 1111 1111 12/25", "4111 1111 1111 1111"),
    ("card", "3782 822463 10005 123", "3782 822463 10005"),
    ("card", "4111\u00a01111\u00a01111\u00a01111", "4111\u00a01111\u00a01111\u00a01111"),
    ("card", "visa: 4111 111 111 111 111", "4111 111 111 111 111"),
    ("ssn", "is 123-45-6789.", "123-45-6789"),
    ("ssn", "SSN: 123456789", "123456789"),
    ("ssn", "social security number 123 45 6789", "123 45 6789"),
    ("phone", "call (212) 555-0123 today", "(212) 555-0123"),
    ("phone", "212.555.0123", "212.555.0123"),
    ("phone", "tel 2125550123", "2125550123"),
    ("phone", "at +44 20 7946 0958, or", "+44 20 7946 0958"),
    ("phone", "+4930901820", "+4930901820"),
    ("phone", "1-212-555-0123 x42", "1-212-555-0123 x42"),
    ("iban", "to GB82 WEST 1234 5698 7654 32 by", "GB82 WEST 1234 5698 7654 32"),
    ("phone", "Telefon: 089 1258-290", "089 1258-290"),
    ("phone", "au 01 42 68 53 00", "01 42 68 53 00"),
    ("phone", "0031 20 794 0800", "0031 20 794 0800"),
    ("phone", "his number (212-555-0123)", "212-555-0123"),
    ("phone", "phone: 555 01 99", "555 01 99"),
    ("phone", "12-34-56-78 (fax)", "12-34-56-78"),
    ("phone", "00442070019876", "00442070019876"),
    ("phone", "Teléfono: 912345678", "912345678"),
    ("phone", "call 061 123 456", "061 123 456"),
    ("iban", "DE89370400440532013000", "DE89370400440532013000"),
    ("iban", "AT61 1904 3002 3457 3201 BIC OPSKATWW", "AT61 1904 3002 3457 3201"),
    ("iban", "BE68-5390-0754-7034", "BE68-5390-0754-7034"),
    ("iban", "de89370400440532013000", "de89370400440532013000"),
    ("iban", "iban: de89 3704 0044 0532 0130 00, bic", "de89 3704 0044 0532 0130 00"),
    ("iban", "(gb 82 WEST 1234 5698 7654 32)", "gb 82 WEST 1234 5698 7654 32"),
    ("iban", "De89-3704-0044-0532-0130-00", "De89-3704-0044-0532-0130-00"),
    ("iban", "fr14 2004 1010 0505 0001 3m02 606 et", "fr14 2004 1010 0505 0001 3m02 606"),
    ("national_number", "DNI 54362315k", "54362315k"),
    ("email", "login jane@example.com:secret99", "jane@example.com"),
    ("email", "jane@github.com", "jane@github.com"),
    ("ip", "the server 12.0.3.4", "12.0.3.4"),
    ("ip", "DNS 8.8.8.8", "8.8.8.8"),
    ("ip", "ip=8.8.8.8", "8.8.8.8"),
    ("iban", "ES91 2100 0418 45 0200051332", "ES91 2100 0418 45 0200051332"),
    ("national_number", "AB 12 34 56 C", "AB 12 34 56 C"),
    ("national_number", "National Insurance number AB123456C", "AB123456C"),
    ("national_number", "NINO: AB 123456 C", "AB 123456 C"),
    ("national_number", "NHS number 943 476 5919", "943 476 5919"),
    ("national_number", "social insurance number: 130 692 544", "130 692 544"),
    ("national_number", "my TFN is 123 456 782", "123 456 782"),
    ("national_number", "Steuer-ID 36 574 261 809", "36 574 261 809"),
    ("national_number", "2 95 10 99 126 111 93", "2 95 10 99 126 111 93"),
    ("national_number", "DNI 54362315K", "54362315K"),
    ("national_number", "NIE: X-2482300-W", "X-2482300-W"),
    ("national_number", "RCCMNL83S18D969H", "RCCMNL83S18D969H"),
    ("national_number", "BSN 1112.22.333", "1112.22.333"),
    ("national_number", "85.07.30-033.28", "85.07.30-033.28"),
    ("national_number", "756.9217.0769.85", "756.9217.0769.85"),
    ("national_number", "PESEL 44051401359", "44051401359"),
    ("national_number", "personnummer 880320-0016", "880320-0016"),
    ("national_number", "personnummer 198803200016", "198803200016"),
    ("national_number", "CPR 211062-5629", "211062-5629"),
    ("national_number", "131052-308T", "131052-308T"),
    ("national_number", "131052X308T", "131052X308T"),
    ("national_number", "390.533.447-05", "390.533.447-05"),
    ("national_number", "BOXW310820HNERXN09", "BOXW310820HNERXN09"),
    ("national_number", "Aadhaar 2341 2341 2346", "2341 2341 2346"),
    ("national_number", "ACUPA7085R", "ACUPA7085R"),
    ("national_number", "360426199101010071", "360426199101010071"),
    ("national_number", "940101-1234567", "940101-1234567"),
    ("national_number", "912-90-3456", "912-90-3456"),
    ("national_number", "911-53-1234", "911-53-1234"),
    ("national_number", "passport number: X1234567", "X1234567"),
    ("address", "12 Main Street, Springfield, IL 62704", "12 Main Street, Springfield, IL 62704"),
    ("address", "12-B W 5th St. Apt. 3, New York, NY 10001-1234", "12-B W 5th St. Apt. 3, New York, NY 10001-1234"),
    ("address", "780 Lynnway, Lynn MA 01905", "780 Lynnway, Lynn MA 01905"),
    ("address", "to 9 High Road, Little Town, London SW1A 2AA", "9 High Road, Little Town, London SW1A 2AA"),
    ("address", "50 Elm Ave\nToronto, ON M5V 2T6", "50 Elm Ave\nToronto, ON M5V 2T6"),
    ("address", "at 12 Oak Lane, Gibson, NC", "12 Oak Lane, Gibson, NC"),
    ("address", "She lives at 12 Oak Lane", "12 Oak Lane"),
    ("address", "She lives at 12 5th street", "12 5th street"),
    ("address", "to 12 5 Apt 3, Springfield, IL 62704", "12 5 Apt 3, Springfield, IL 62704"),
    ("address", "9 West High Old Road, Aa Bb Cc Dd, Ee, M5V2T6", "9 West High Old Road, Aa Bb Cc Dd, Ee, M5V2T6"),
    ("address", "41 Kiannon Katu\n Suite 464", "41 Kiannon Katu\n Suite 464"),
    ("address", "Musterstraße 12, 12345 Berlin", "Musterstraße 12, 12345 Berlin"),
    ("address", "in der Berliner Str. 12a-14", "Berliner Str. 12a-14"),
    ("address", "in der Musterstraße 12 ist es", "Musterstraße 12"),
    ("address", "Am Markt 5\nD-04109 Leipzig", "Am Markt 5\nD-04109 Leipzig"),
    ("address", "Kerkstraat 12, 1017 GC Amsterdam", "Kerkstraat 12, 1017 GC Amsterdam"),
    ("address", "Via Roma 12, 00184 Roma", "Via Roma 12, 00184 Roma"),
    ("address", "au 15 bis, rue de la Paix, 75002 Paris", "15 bis, rue de la Paix, 75002 Paris"),
    (
        "address",
        "3 rue des Anciens-Combattants-Belges, 59000 Lille",
        "3 rue des Anciens-Combattants-Belges, 59000 Lille",
    ),
    ("address", "P.O. Box 12, Springfield, IL 62704", "P.O. Box 12, Springfield, IL 62704"),
    ("address", "PSC 12, Box 34\nAPO AE 09012", "PSC 12, Box 34\nAPO AE 09012"),
]


def redacted(text, kinds):
    """The text without what is found, the finds by kind, and how many characters they had."""
    spans = find(text, kinds)
    counts = dict(sorted(Counter(span.kind for span in spans).items()))
    return redact(text, kinds), counts, sum(span.end - span.start for span in spans)


@pytest.mark.parametrize(("kind", "text", "value"), PERSONAL)
def test_redact_replaces_personal_data_and_nothing_else(kind, text, value):
    clean, counts, num_characters = redacted(text, KINDS)
    assert clean == text.replace(value, f"[{kind.upper()}]")
    assert counts == {kind: 1}
    assert num_characters == len(value)


@pytest.mark.parametrize(("kind", "text", "value"), PERSONAL)
def test_kind_that_is_not_requested_stays(kind, text, value):
    assert kind not in redacted(text, [other for other in KINDS if other != kind])[1]


@pytest.mark.parametrize(
    "text",
    [
        "icon@2x.png and @handle and a@b",  # no public suffix
        "me at example dot com",
        "git@github.com:user/project.git and ssh -T git@github.com and ssh://git@gitlab.com/user/project, hg@bitbucket.org",
        "scp jane@example.com:/home/jane/file . and deploy@example.com:project.git and rsync me@example.com:~/file",
        "nginx 1.18.0.5, Chrome 99.0.4844.51, Windows 10.0.19041.1, OpenSSL (1.1.1.9), python>=3.8.1.2, foo==1.2.3.4, ^1.2.3.4",
        "LibreOffice 7.4.0.3, upgraded from 4.3.2.1, updating packages to 4.3.2.2, 4.3.2.1 beta, 4.3.2.1 (x64), 4.3.2.1-rc1",
        "de89370400440532013001, GB82 west 1234 5698 7654 33, de12 and the house of the old man by the sea",
        "10.0.0.1, 192.168.1.20, 127.0.0.1, 224.0.0.1",  # not public
        "version 11.22.33.44 and v8.8.4.4 and Chrome/99.0.48.44",  # versions
        "ver. 4.2.1.12, EC 3.4.21.4, fig. 1.2.3.4, kernel 5.15.0.91, version number is 5.1.2.60, update to 1.2.3.4",
        "8.8.8.8.8 and 999.8.8.8 and 1.2.3",
        "at 12:30:45 and fe80::1 and std::vector and 10:20:30:40:50:60",
        "order 4111 1111 1111 1112",  # check digit
        "serial 9999 9999 9999 9995",  # no issuer
        "in a table 4111 111 111 111 111",  # not as a card is printed
        "911-66-1234, 999-93-1234",  # groups that are not given out
        "000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567, 123-45-0000",  # ranges that are not given out
        "part 123456789 of 987654321",
        "from 1990 to 2020, 10,000,000 and 3.14159265358",
        "2024-11-20 12:30:45, 20/11/2024",
        "ISBN 978-0-306-40615-7, ISBN 0-306-40615-2",
        "(111) 555-0123",  # no such area
        "id 2125550123 in the log",  # neither form nor context
        "GB82 WEST 1234 5698 7654 33",  # check digits
        "9434765919, 046 454 286, 36574261809, 44051401359, 54362315K",  # no words before
        "NHS number 9434765918, SIN 046 454 287, CPF 390.533.447-06",  # check digits
        "in 10 Downing Street, at 12 Main Street and on 5th Avenue",  # nobody says that somebody lives there
        "on March 12, 2001 Berlin saw 12 Angry Men and 3 Good Reasons, 99 Per Cent",
        "Table 3\n2019 Results, Formula 1 2021 Season, Windows 10, 2004 Update, Win 10, 5000 Prizes",
        "software license number 12345678, broker's license no. 01234567",
        "0012345678 and 10000000 mobile users, 3600000000000 + 62426244000 + 198472480000",
        "auf der Bundesstraße 224 nach Essen, Platz 3, Seite 12",
        "call 911, mobile 2014-2015, phones: up to 10 000 000 at office 12.11.2024",
    ],
)
def test_look_alikes_stay(text):
    assert redacted(text, KINDS) == (text, {}, 0)


@pytest.mark.parametrize(("kind", "text", "value"), PERSONAL)
@pytest.mark.parametrize("separator", [" ", ", ", "; ", "\n"])
def test_list_of_personal_data_is_replaced_in_full(kind, text, value, separator):
    clean, counts, _ = redacted(separator.join([text] * 30), KINDS)
    assert counts == {kind: 30}
    assert value not in clean


def test_find_returns_all_kinds_of_a_text():
    text = "Jane (jane@example.com, joe@example.com), 212-555-0123, 8.8.8.8."
    clean, counts, num_characters = redacted(text, KINDS)
    assert clean == "Jane ([EMAIL], [EMAIL]), [PHONE], [IP]."
    assert counts == {"email": 2, "ip": 1, "phone": 1}
    assert num_characters == 16 + 15 + 12 + 7


def test_ip_within_another_is_one_span():
    assert redacted("at 2a00:1450::8.8.8.8 it", KINDS) == ("at [IP] it", {"ip": 1}, 18)


def test_personal_data_next_to_other_is_found():
    text = "jane@example.com,212-555-0123 8.8.8.8 212-555-0123 12 Oak Lane, Gibson, NC 27000 212-555-0123"
    assert redact(text, KINDS) == "[EMAIL],[PHONE] [IP] [PHONE] [ADDRESS] [PHONE]"


def test_actions_are_chosen_by_kind():
    spans = find("jane@example.com, joe@example.com, 8.8.8.8, 212-555-0123", KINDS)
    redact_all = dict.fromkeys(KINDS, "redact")
    assert kind_to_drop(spans, redact_all) is None
    assert to_redact(spans, redact_all) == spans
    actions = {**redact_all, "email": "keep", "ip": "drop", "phone": "drop"}
    assert kind_to_drop(spans, actions) == "ip"
    assert {span.kind for span in to_redact(spans, {**actions, "phone": "redact"})} == {"phone"}
    assert kind_to_drop(spans, {**actions, "email": "drop"}) == "email"


HOSTILE = (
    *(
        "0",
        "@",
        ":",
        "1.",
        "1.1.1.1 ",
        "8.8.8.8 ",
        "a@",
        "a@b.",
        "a:",
        "+1",
        "(0",
        "1 1 ",
        "01 23 ",
        "11 ",
        "1 A",
        "1 Aa ",
    ),
    *("A", "AB12 ", "GB82 WEST ", "4111 1111 ", "tel 0123456789 ", "1 Aa Aa Aa Aa Aa, ", "Aa 1, 12345 Aa ", "1 rue a "),
    *("P.O. Box 1 ", "tr. 1 ", "1 Main Street, ", "1 Suite ", "212-555-0123 ", "jane@example.com "),
    *(
        "1 1 A ",
        "1 1 A St ",
        "1 1 A " * 90 + "1234 ",
        "1 2 3 4 Aa Aa Aa Aa Aa Aa Aa Aa Aa Aa Aa x ",
        "1 A A A A A, A A A A A, A, W1 1AA ",
        "cc 4111 4111 ",
    ),
)


@pytest.mark.parametrize("fragment", HOSTILE)
def test_find_takes_time_in_proportion_to_the_length(fragment):
    short, long = ((fragment * num_characters)[:num_characters] for num_characters in (2_000, 32_000))
    assert grows_linearly(lambda text: find(text, KINDS), short, long, 16)


HOUSES = ("12 ", "7, ", "1 " * 20)
NAMES = ("Main ", "Berlin ", "A " * 20, "St", "Street ", "rue de la Paix", "lives at ", "to: ", "x" * 300 + " ")
ENDS = (", ", "\n", "Springfield ", "IL ", "IL, 62704", "SW1A 1AA", "Apt 5", "75002 Paris ")
addresses = st.lists(st.sampled_from([*HOUSES, *NAMES, *ENDS]), max_size=20).map("".join)


@settings(max_examples=300)
@given(addresses)
def test_landmarks_only_save_time(text):
    found = list(find_addresses(text, KINDS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(street_addresses, "LANDMARK", re.compile(""))
        assert list(find_addresses(text, KINDS)) == found


fragments = st.lists(
    st.one_of(
        st.sampled_from([text for _, text, _ in PERSONAL]),
        st.from_regex(re.compile(r"[0-9 .()+:-]{1,20}", re.ASCII), fullmatch=True),
        st.text(max_size=8),
        st.sampled_from(["@", "call ", "ssn ", "v", ".", "-", " "]),
    ),
    max_size=12,
).map("".join)


@settings(deadline=None, max_examples=200)
@given(fragments)
def test_redact_is_idempotent(text):
    clean, _, _ = redacted(text, KINDS)
    assert redacted(clean, KINDS) == (clean, {}, 0)


@settings(deadline=None, max_examples=100)
@given(fragments)
def test_spans_do_not_overlap_and_lie_in_the_text(text):
    spans = find(text, KINDS)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(one.end <= other.start for one, other in itertools.pairwise(spans))


@settings(deadline=None, max_examples=50)
@given(fragments, fragments)
def test_redact_does_not_depend_on_earlier_texts(one, other):
    """As in shards: no state runs on from one document to the next."""
    alone = redacted(other, KINDS)
    redacted(one, KINDS)
    assert redacted(other, KINDS) == alone


PRESIDIO = {
    "EMAIL_ADDRESS": "email",
    "IP_ADDRESS": "ip",
    "CREDIT_CARD": "card",
    "US_SSN": "ssn",
    "PHONE_NUMBER": "phone",
    "IBAN_CODE": "iban",
    "STREET_ADDRESS": "address",
    "ADDRESS": "address",
    "US_DRIVER_LICENSE": "national_number",
}
FLOORS = {
    "email": (1, 1),
    "ip": (1, 0.93),
    "card": (1, 1),
    "ssn": (1, 1),
    "phone": (1, 0.92),
    "iban": (1, 0.95),
    "address": (1, 0.39),
    "national_number": (1, 1),
}
"""Precision and recall. Addresses are labelled in parts, many of countries and in orders that no rule knows."""


def overlaps(span, others):
    return any(span.kind == other.kind and span.start < other.end and other.start < span.end for other in others)


def test_precision_and_recall_on_presidio_sentences(shared_data):
    with gzip.open(shared_data / "pii/presidio-synth_dataset_v2.json.gz", "rt", encoding="utf-8") as stream:
        sentences = json.load(stream)
    sentences += json.loads((shared_data / "pii/presidio-generated_small.json").read_text())
    labels, hits, finds, right = Counter(), Counter(), Counter(), Counter()
    for sentence in sentences:
        gold = [
            Span(span["start_position"], span["end_position"], PRESIDIO[span["entity_type"]])
            for span in sentence["spans"]
            if span["entity_type"] in PRESIDIO
        ]
        found = find(sentence["full_text"], KINDS)
        labels.update(span.kind for span in gold)
        hits.update(span.kind for span in gold if overlaps(span, found))
        finds.update(span.kind for span in found)
        right.update(span.kind for span in found if overlaps(span, gold))
    for kind, (precision, recall) in FLOORS.items():
        assert right[kind] / finds[kind] >= precision, kind
        assert hits[kind] / labels[kind] >= recall, kind


def test_prose_has_next_to_no_personal_data(shared_data):
    with gzip.open(shared_data / "pretrain/english-novels.jsonl.gz", "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in itertools.islice(stream, 5)]
    texts.append(gzip.decompress((shared_data / "pretrain/wikitext2-train-excerpt.txt.gz").read_bytes()).decode())
    assert sum(map(len, texts)) > 4_000_000
    assert [span.kind for text in texts for span in find(text, KINDS)] == []


def test_table_of_identifiers_starts_at_the_first_form_that_matches():
    """The common pattern renumbers the forms' backreferences: two groups of one number must be separated alike."""
    table = Table(NUMBERS)
    for text in (
        "4111 1111 1111 1111",
        "4111 1111-1111 1111",
        "123-45-6789",
        "123 45-6789",
        "2 95 10 99 126 111 93",
        "x",
    ):
        first = next((number for number, row in enumerate(NUMBERS) if row.form.match(text)), len(NUMBERS))
        assert table.from_first_match(text, 0) == NUMBERS[first:]
