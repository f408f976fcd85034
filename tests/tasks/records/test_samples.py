"""What is shown of documents holds no personal data and no secrets, also where an excerpt would cut it in two."""

import json

import pytest

from tasks.records.samples import redacted_excerpt, redacted_line, redacted_url, sample_line

PERSONAL = {
    "email": "jane.doe@example.com",
    "phone": "212-555-0123",
    "ip": "8.8.8.8",
    "card": "4111 1111 1111 1111",
    "ssn": "536-90-4399",
    "iban": "GB82 WEST 1234 5698 7654 32",
    "national_number": "756.9217.0769.85",
    "address": "12 Main Street, Springfield, IL 62704",
}


def document(text, **values):
    return {"id": "1", "url": "http://a.example/", "date": "", "file": "f", "offset": 0, "text": text, **values}


@pytest.mark.parametrize("kind", PERSONAL)
def test_sample_line_holds_no_personal_data_of_any_kind(kind):
    value = PERSONAL[kind]
    sample = json.loads(sample_line(document(f"Ask {value} today.", attributes={"a": 1.0}), "pii/dense", 500))
    assert sample["text"] == f"Ask [{kind.upper()}] today."
    assert sample["reason"] == "pii/dense"
    assert "attributes" not in sample


@pytest.mark.parametrize("kind", PERSONAL)
@pytest.mark.parametrize("num_cut", [1, 5, 10])
def test_excerpt_does_not_end_within_personal_data(kind, num_cut):
    value = PERSONAL[kind]
    text = f"{'word ' * 20}ask {value}, and so on"
    start = text.index(value)
    shown = redacted_excerpt(text, start + len(value) - min(num_cut, len(value) - 1))
    assert shown == f"{'word ' * 20}ask [{kind.upper()}]"


def test_excerpt_of_a_long_text_reads_its_start_only():
    assert redacted_excerpt("ab " * 1_000_000, 6) == "ab ab "
    assert redacted_excerpt("", 6) == ""


def test_excerpt_holds_no_secrets_of_urls():
    text = "see https://user:secret@host.example/a?token=secret and more"
    for num_characters in range(len(text)):
        assert "secret" not in redacted_excerpt(text, num_characters)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:p@a.example/?mail=jane@example.com&token=x", "http://a.example/?mail=[EMAIL]"),
        ("http://a.example/?mail=jane%40example.com", "http://a.example/?mail=[EMAIL]"),
        ("http://a.example/2024/01/02/5551234567.html?a%40b", "http://a.example/2024/01/02/5551234567.html?a%40b"),
    ],
)
def test_shown_url_holds_neither_secrets_nor_addresses(url, shown):
    assert redacted_url(url) == shown


def test_line_is_redacted_whole():
    line = json.dumps({"redact": list(PERSONAL.values())})
    assert not any(value in redacted_line(line) for value in PERSONAL.values())
