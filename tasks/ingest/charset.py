"""The charset of a page: from bytes to text.

Follows the web's rules (https://html.spec.whatwg.org/#determining-the-character-encoding and https://encoding.spec.whatwg.org/):
a byte order mark, then the charset of the HTTP header, then that of <meta> or the XML declaration, then what the bytes look like, with
windows-1252 if they look like nothing else. Three departures, because crawled pages are wrongly labelled more often than browsers admit:

- Valid UTF-8 is UTF-8, whatever was announced: other text is not valid UTF-8 by chance.
- A charset that was announced, but in which a part of the page makes no sense, is not believed. Browsers show replacement characters.
- UTF-16 in the header is believed if the bytes have its zeros, and recognised by them if nothing was announced.

Bytes are recognised by resiliparse's detector, which is uchardet. Of 1,674 excerpts of the Universal Declaration of Human Rights (31
languages in their legacy charsets, 60 to 5,000 bytes) it alone had 81% right, and 99.6% with the corrections here; of a tenth of
them charset-normalizer had 82% right. It knows charsets that no page of the web has, such as cp852, and confuses some of one family.
"""

import codecs
import contextlib
import re
from collections.abc import Iterator

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from tasks.ingest.dropped import Dropped

PRESCAN_BYTES = 1024  # of the HTML standard
HEAD_BYTES = 16 * 1024  # a <meta> after those counts as well: browsers change the charset when they reach it
SAMPLE_BYTES = 128 * 1024  # that the detector sees
MAX_UNDECODED_FRACTION = 0.02  # of the text, control characters included
MAX_DAMAGED_FRACTION = 0.02  # of what is not ASCII, in a charset that fits but for some damage
MAX_DAMAGED_FRACTION_OF_UTF8 = 0.5  # announced, or nothing was: other text has hardly a valid sequence
MIN_UTF8_CHARACTERS = 4  # beyond ASCII; fewer may be valid by chance in a Chinese, Japanese or Korean charset
MIN_WIDE_FRACTION = 0.3  # of zeros in one half of the bytes of UTF-16; markup is ASCII

CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w:.-]{2,40})", re.I)
XML_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?\bencoding\s*=\s*[\"']([\w:.-]{2,40})[\"']", re.I)
MARKUP = re.compile(rb"<(?:!--|(meta)[\s/]|(/?[a-z])|[!/?])", re.I)
ATTRIBUTE = re.compile(rb"[\s/]*+([^\s/>=][^\s/>=]*+)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>]*+)))?")
LINE_OF_TEXT = re.compile(rb"[^<>\n]++")
CONTROLS = bytes(sorted({*range(32), 127} - set(b"\t\n\f\r\x1b")))
FORM_FEED = bytes.maketrans(b"\f", b" ")  # white space in HTML, forbidden in XML
ISO_2022 = re.compile(
    rb"\x1b(?:\$(?:[@B]|[(][@-DQ])|\([IJ])|(\x1b\$\)C)"
)  # escape sequences of ISO-2022-JP; of ISO-2022-KR
ASCII = b"<meta> \\u0041 +AEE-"  # codecs that read this as other text are no charsets of the web: EBCDIC, UTF-7, Python's own

BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Python's codecs that the web replaces by a larger one.
WEB_CHARSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
LABELS = {  # of the Encoding Standard that resiliparse 2.0 lacks
    "x-user-defined": "cp1252",
    "x-mac-cyrillic": "mac_cyrillic",
    "x-mac-ukrainian": "mac_cyrillic",
}
WIDER = {"euc_jp": "euc_jis_2004", "iso2022_jp": "iso2022_jp_2004"}  # with the characters of vendors, such as ①
MULTIBYTE = frozenset(["gb18030", "big5hkscs", "cp932", "euc_jp", "cp949", "iso2022_jp"])

# Charsets that no page is in, although the detector says so: these mean another one, or nothing.
DETECTED = {"iso8859-16": "cp1250", "mac-cyrillic": "mac_cyrillic"}
NOT_OF_THE_WEB = re.compile(
    r"|utf-8|ascii|johab|viscii|cp(?!866|874|932|949|125\d)\d+|iso8859-(?:10|14)|mac-?(?!cyrillic)\w+"
)
UKRAINIAN = re.compile(rb"[\xa4\xa6\xa7\xad\xb4\xb6\xb7\xbd]")  # letters in KOI8-U, lines of boxes in KOI8-R
C1 = bytes(range(0x80, 0xA0))  # control characters in ISO 8859, which no page has
LETTERS_OF_1250 = bytes.fromhex("8a8c8d8e8f9a9c9d9e9f")  # of C1
BALTIC = bytes.fromhex(
    "c0c1c2c6c7c8cacbcccdcecfd0d2d8dadbdee0e1e2e6e7e8eaebecedeeeff0f2f8fafbfe"
)  # letters of lt and lv
BALTIC_ONLY = bytes.fromhex("c2cbced0d8dbdee2ebeef0f8fbfe")  # not those that Italian has on the same bytes
NOT_ICELANDIC = bytes.fromhex("e0e2e7e8ebeceeeff2f8fb")  # letters of lt and lv only, in windows-1257
ICELANDIC = bytes.fromhex("cdd3dae9edf3f6fafd")  # letters of is that lt and lv have not
POLISH_ISO, POLISH_WINDOWS = b"\xb1\xb6\xbc", b"\xb9\x9c\x9f"  # ą, ś and ź in ISO-8859-2 and in windows-1250
CZECH = b"\xec\xf8\xf9\xcc\xd8"  # ě, ř and ů, which tell Czech ž from Slovak ľ
ETH_AND_THORN, ACUTES = b"\xd0\xde\xf0\xfe", b"\xc1\xc9\xcd\xd3\xd6\xda\xe1\xe9\xed\xf3\xf6\xfa"
ITALIAN = bytes.fromhex("c8e0e8ecf2f9")  # letters that end words in Italian, and hardly in Slavic languages
ACUTE_E = b"\xc9\xe9"  # the same in windows-1250 and -1252, as are those of SHARED
SHARED = bytes.fromhex("c1c2c4c7c9cbcdced3d4d6dadcdddfe1e2e4e7e9ebedeef3f4f6fafcfd")
GRAVE_A_AND_RING = b"\xc0\xe0\xc5\xe5"  # in windows-1250 ŕ and ĺ, the rarest letters of Slovak
WORD_END = re.compile(rb"[\xc8\xe0\xe8\xec\xf2\xf9](?![a-zA-Z\x8a-\x9f\xc0-\xff])")
VIETNAMESE = b"\xd0\xf0\xf5\xfd\xd5\xdd"  # đ, ơ and ư
ALPHA_TONOS = re.compile(rb"(?<![\xb6-\xfe])[\xa2\xb6](?=[\xe1-\xfe])")  # A2 in windows-1253, B6 in ISO-8859-7
GREEK_APOSTROPHE = re.compile(rb"[\xdc-\xfe]\xa2")  # in ISO-8859-7


def decode(body: bytes, content_type: str) -> str:  # noqa: PLR0911 - a return for each rule
    """A body as text; `content_type` is the HTTP header. Raises Dropped if no charset fits."""
    if bom := bom_charset(body):
        return body.decode(bom, "replace")
    announced = CHARSET.search(content_type)
    header = announced[1] if announced else ""
    if wide := wide_charset(body, header):
        return body[: len(body) & ~1].decode(wide, "replace")
    if b"\x1b" not in body:  # most pages: plainly UTF-8, and nothing else has to be read
        with contextlib.suppress(UnicodeDecodeError):
            plain = (clean := body.translate(FORM_FEED, delete=CONTROLS)).decode()
            if len(clean) - len(plain) >= 2 * MIN_UTF8_CHARACTERS or plain.isascii():
                return plain
    charsets = list(dict.fromkeys(filter(None, (web_charset(header), _meta_charset(body)))))
    if b"\x1b" in body and (escape := ISO_2022.search(body)):  # it would be valid UTF-8
        shifted = "iso2022_kr" if escape[1] else "iso2022_jp"
        charsets = (
            [shifted, *charsets] if body.isascii() else [*charsets, shifted]
        )  # it has seven bits, whatever was announced
        return next(filter(None, (_decode_as(body, charset) for charset in charsets)), "") or _decode_detected(body)
    num_bytes, body = len(body), body.translate(FORM_FEED, delete=CONTROLS)
    if (text := _decode_utf8(body, charsets)) is not None:
        return text
    for charset in dict.fromkeys([*charsets, "utf-8"]):
        if (text := _decode_as(body, charset)) is not None:
            return text
    return _decode_detected(body, num_bytes - len(body))


def web_charset(label: str) -> str:
    """Python's codec for a charset's label on a web page, or "" if it names no charset of text. The label UTF-16 is not believed."""
    label = label.strip().lower()
    if label in LABELS:
        return LABELS[label]
    with contextlib.suppress(LookupError, ValueError):
        codec = codecs.lookup(map_encoding_to_html5(label, fallback_utf8=False) or label).name
        charset = WEB_CHARSETS.get(codec, codec)
        if ASCII.decode(charset, "replace") == ASCII.decode("ascii"):
            return charset
    return ""


def bom_charset(body: bytes) -> str | None:
    """The charset of the byte order mark that a body begins with; None without one."""
    return next((charset for bom, charset in BOMS.items() if body.startswith(bom)), None)


def wide_charset(body: bytes, label: str = "") -> str:
    """UTF-16 without a byte order mark, by the zeros in its ASCII markup; "" for other text."""
    even, odd = body[:PRESCAN_BYTES:2], body[1:PRESCAN_BYTES:2]
    if not odd or b"\0" not in body[:PRESCAN_BYTES]:
        return ""
    zeros = even.count(0) / len(even), odd.count(0) / len(odd)
    is_announced = label.lower().startswith(("utf-16", "utf16", "ucs-2", "unicode", "iso-10646", "csunicode"))
    least = 0.02 if is_announced else MIN_WIDE_FRACTION  # markup may be short before text in another script
    if max(zeros) < least or min(zeros) > max(zeros) / 4:
        return ""
    charset, tag = ("utf-16-be", b"\0<") if zeros[0] > zeros[1] else ("utf-16-le", b"<\0")
    return charset if is_announced or tag in body[:PRESCAN_BYTES] else ""


def _meta_charset(body: bytes) -> str:
    """The charset that a page names in <meta> or in its XML declaration; UTF-16 there means UTF-8, as it was read as ASCII."""
    if declared := XML_ENCODING.match(body[:PRESCAN_BYTES].lstrip()):
        labels: Iterator[bytes] = iter([declared[1]])
    else:
        labels = _meta_labels(body[:HEAD_BYTES])
    for label in labels:
        name = label.decode("ascii", "replace").strip()
        is_wide = map_encoding_to_html5(name, fallback_utf8=False) in ("utf-16-le", "utf-16-be")
        if charset := "utf-8" if is_wide else web_charset(name):
            return charset
    return ""


def _meta_labels(head: bytes) -> Iterator[bytes]:
    """The labels in <meta charset> and <meta http-equiv=content-type content>, without those in comments."""
    position = 0
    while found := MARKUP.search(head, position):
        position = found.end()
        if found[0] == b"<!--":  # "<!-->" is a whole comment
            end = head.find(b"-->", found.start() + 2)
            position = end + 3 if end >= 0 else len(head)
        elif found[1] or found[2]:
            attributes: dict[bytes, bytes] = {}
            position = found.end() - 1 if found[1] else found.end()
            while attribute := ATTRIBUTE.match(head, position):
                position = attribute.end()
                attributes.setdefault(attribute[1].lower(), attribute[2] or attribute[3] or attribute[4] or b"")
            if not found[1]:
                continue
            if charset := attributes.get(b"charset"):
                yield charset
            elif attributes.get(b"http-equiv", b"content-type").lower() == b"content-type":
                content = CHARSET.search(attributes.get(b"content", b"").decode("latin-1"))
                if content:
                    yield content[1].encode("latin-1")


def _decode_utf8(body: bytes, charsets: list[str]) -> str | None:
    """The text if it is valid UTF-8 (or nearly, and long), whatever was announced."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        if body.translate(None, delete=bytes(range(128)))[:64].count(0) == 0:
            text = body.decode("utf-8", "replace")
            num_lost, num_wide = _num_lost(text)
            if num_wide - num_lost >= 20 and num_lost <= MAX_DAMAGED_FRACTION * num_wide:
                return text
        return None
    if charsets and charsets[0] in MULTIBYTE and len(body) - len(text) < 2 * MIN_UTF8_CHARACTERS and not text.isascii():
        return None
    return text


def _decode_as(body: bytes, charset: str) -> str | None:
    """The text in a charset, with U+FFFD for some damage; None if it does not fit."""
    for codec in filter(None, (charset, WIDER.get(charset))):
        with contextlib.suppress(UnicodeDecodeError):
            return body.decode(codec)
    text = body.decode(charset, "replace")
    num_lost, num_wide = _num_lost(text)
    if charset == "utf-8" and num_lost == 1 and text.endswith("\ufffd") and num_wide == 1:
        return text  # cut within its only character beyond ASCII
    # UTF-8 is self-synchronising: half of its characters may be damaged, and the rest still shows what it is.
    most = MAX_DAMAGED_FRACTION_OF_UTF8 if charset == "utf-8" else MAX_DAMAGED_FRACTION
    return text if num_lost <= most * num_wide else None


def _num_lost(text: str) -> tuple[int, int]:
    """How many characters are U+FFFD, and how many are beyond ASCII."""
    return text.count("\ufffd"), len(text) - len(text.encode("ascii", "ignore"))


def _decode_detected(body: bytes, num_controls: int = 0) -> str:
    """The text in the charset that the bytes look like. Raises Dropped if the result is no text."""
    sample = text_sample(body)
    charset = detect_charset(sample)
    try:
        text = body.decode(charset)
    except UnicodeDecodeError:
        text = body.decode(charset, "replace")
        if text.count("\ufffd") > MAX_UNDECODED_FRACTION * len(text) and charset != "cp1252":
            text = body.decode("cp1252", "replace")
    if num_controls + text.count("\ufffd") > MAX_UNDECODED_FRACTION * len(text):
        raise Dropped("empty/undecodable")
    return text


def text_sample(body: bytes) -> bytes:
    """The pieces between tags that are not ASCII, up to SAMPLE_BYTES: scripts and markup say nothing of a charset."""
    pieces, num_bytes = [], 0
    for piece in LINE_OF_TEXT.finditer(body):
        if not piece[0].isascii():
            pieces.append(piece[0])
            num_bytes += len(piece[0])
            if num_bytes > SAMPLE_BYTES:
                break
    return b"\n".join(pieces)


def detect_charset(sample: bytes) -> str:
    """Python's codec for text of which nothing is known but that it is not UTF-8."""
    # Either half may be free of it.
    half = len(sample) // 2
    for piece in (sample, sample[:half], sample[half:]):  # one damaged character makes it give up
        detected = (detect_encoding(piece, html5_compatible=False) or "").lower()
        if charset := "" if NOT_OF_THE_WEB.fullmatch(detected) else DETECTED.get(detected, web_charset(detected)):
            return _corrected(sample, charset)
    return "cp1252"


def _corrected(sample: bytes, charset: str) -> str:  # noqa: PLR0911 - a return for each family
    """The detector's guess, or the charset that it is confused with."""
    if charset == "koi8-r" and UKRAINIAN.search(sample):
        return "koi8-u"
    if charset == "mac_cyrillic" and _count(sample, bytes(range(0xC0, 0xDF))) > _count(sample, C1):
        return "cp1251"  # capitals are there, and in mac_cyrillic where C1 is
    if charset == "cp1258" and _count(sample, VIETNAMESE) < 0.1 * _num_letters(sample):
        return "cp1252"
    if charset in ("iso8859-7", "cp1253"):
        return _greek(sample, charset)
    if charset in ("iso8859-13", "cp1257"):
        return "cp1257" if _is_baltic(sample) else "cp1252"
    if charset in ("iso8859-2", "cp1250") and _num_letters(sample):
        return _central_european(sample, charset)
    return charset


def _count(sample: bytes, letters: bytes) -> int:
    return len(sample) - len(sample.translate(None, delete=letters))


def _num_letters(sample: bytes) -> int:
    return _count(sample, bytes(range(0xC0, 0x100)))


def _greek(sample: bytes, charset: str) -> str:
    """Both charsets of Greek differ in few places: a capital alpha with an accent, and the apostrophe."""
    if _count(sample, C1):
        return "cp1253"
    if GREEK_APOSTROPHE.search(sample):
        return "iso8859-7"
    alpha = ALPHA_TONOS.search(sample)
    return charset if not alpha else "cp1253" if alpha[0] == b"\xa2" else "iso8859-7"


def _is_baltic(sample: bytes) -> bool:
    if _count(sample, ETH_AND_THORN) and _count(sample, ICELANDIC) and not _count(sample, NOT_ICELANDIC):
        return False
    num_letters = _num_letters(sample)
    num_others = num_letters - _count(sample, BALTIC)
    return num_others <= 0.1 * num_letters and _count(sample, BALTIC_ONLY) >= 0.2 * num_letters


def _central_european(sample: bytes, charset: str) -> str:
    """windows-1250, ISO-8859-2, or the windows-1252 of a Western language with few letters beyond ASCII."""
    num_letters, num_italian = _num_letters(sample), _count(sample, ITALIAN)
    is_icelandic = (
        _count(sample, ETH_AND_THORN) >= 0.1 * num_letters and _count(sample, ACUTES) >= 0.3 * num_letters
    )  # or Faroese
    is_italian = (
        num_italian
        and num_italian + _count(sample, ACUTE_E) == num_letters
        and len(WORD_END.findall(sample)) >= 0.8 * num_italian
    )
    num_graves = _count(sample, GRAVE_A_AND_RING)
    has_central_marks = _count(sample, b"\x8a\x8d\x8e\x8f\x9a\x9d\x9e\x9f\xb3\xb9\xbe")
    is_western = num_graves and num_graves + _count(sample, SHARED) == num_letters and not has_central_marks
    if is_icelandic or is_italian or is_western:
        return "cp1252"
    if _count(sample, LETTERS_OF_1250):
        return "cp1250"
    is_polish = _count(sample, POLISH_ISO) and not _count(sample, POLISH_WINDOWS)
    is_czech = _count(sample, b"\xbe") and _count(sample, CZECH)
    return "iso8859-2" if is_polish or is_czech else charset
