"""Secrets in URLs, errors and command lines: what has to go, what has to stay, and hostile texts."""

import json
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.execution.provenance import provenance
from tasks.redaction import redact_arguments, redact_text, redact_url
from tests.support.cost import grows_linearly

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

SIGNED = {
    "aws version 4": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=SECRET%2F20240101&X-Amz-Expires=60&X-Amz-Signature=SECRET",
    "aws in lower case": "x-amz-signature=SECRET&x-amz-security-token=SECRET",
    "aws version 2": "AWSAccessKeyId=SECRET&Expires=1700000000&Signature=SECRET",
    "google version 4": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=SECRET&X-Goog-Signature=SECRET",
    "google version 2": "GoogleAccessId=SECRET@p.iam.gserviceaccount.com&Expires=1&Signature=SECRET",
    "azure": "sv=2022-11-02&ss=b&srt=sco&sp=rSECRET&se=2030-01-01T00:00:00Z&st=2020-01-01&spr=https&sig=SECRET",
    "azure user delegation": "skoid=SECRET&sktid=SECRET&skt=1&ske=2&sks=b&skv=3&sr=c&sig=SECRET",
    "cloudfront": "Expires=1&Policy=SECRET&Signature=SECRET&Key-Pair-Id=SECRET",
    "alibaba": "OSSAccessKeyId=SECRET&Expires=1&Signature=SECRET&security-token=SECRET",
    "tencent": "q-sign-algorithm=sha1&q-ak=SECRET&q-key-time=1;2&q-signature=SECRET",
    "akamai": "hdnts=exp=1~acl=/*~hmac=SECRET",
    **{
        name: f"{name}=SECRET"
        for name in (
            *(
                "token",
                "access_token",
                "accessToken",
                "refresh_token",
                "id_token",
                "auth_token",
                "csrf_token",
                "private_token",
            ),
            *("api_key", "apikey", "api-key", "API_KEY", "x-api-key", "app_secret", "client_secret", "secret", "auth"),
            *("password", "passwd", "pwd", "pass", "PHPSESSID", "jsessionid", "sessionid", "session_id", "oauth_nonce"),
            *("%74oken", "to%6ben", "to\tken", "subscription-key", "ASP.NET_SessionId", "jwt", "user[password]"),
        )
    },
    "key of google": "key=AIzaSyD-1234567890SECRETabcdefghijklmno",
    "opaque key": "key=SECRETf3A9dK2mPq7sT5vWxYz1",
    "opaque sid": "sid=0123456789abcdef0123456789abcdef",
    "answer of oauth": "code=SECRET&state=SECRET",
    "a token in an unknown parameter": f"x={JWT}",
    "after an escaped ampersand": "amp;token=SECRET",
}


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
@pytest.mark.parametrize("form", ["{}", "a=1&{}", "{}&a=1", "a=1;{}"])
def test_redact_url_removes_signatures_and_secrets_from_the_query(query, form):
    url = "https://host.example/a.warc.gz?" + form.format(query)
    redacted = redact_url(url)
    assert redacted.startswith("https://host.example/a.warc.gz")
    assert not any(secret in redacted for secret in ("SECRET", JWT, "0123456789abcdef"))
    assert ("a=1" in redacted) == ("a=1" in url)
    assert redact_url(redacted) == redacted


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("https://user:secret@host.example:8443/a?b=1", "https://host.example:8443/a?b=1"),
        ("https://secret@host.example/a", "https://host.example/a"),
        ("https://user:se@cret@host.example/a", "https://host.example/a"),
        ("https://user:se/cr?et@host.example/a", "https://host.example/a"),
        ("HTTPS://USER:SECRET@HOST.EXAMPLE/", "HTTPS://HOST.EXAMPLE/"),
        ("ftp://user:secret@host.example/a", "ftp://host.example/a"),
        ("s3://secret:key@bucket/a", "s3://bucket/a"),
        ("//user:secret@host.example/a", "//host.example/a"),
        ("https://user:secret@[::1]:80/a", "https://[::1]:80/a"),
        ("tar://lists::https://user:secret@host.example/a.tar", "tar://lists::https://host.example/a.tar"),
        ("https://host.example/a;jsessionid=secret/b;v=1?c=2", "https://host.example/a/b;v=1?c=2"),
        ("https://host.example/(S(lit3py55t21z5v55vlm25s55))/a", "https://host.example/a"),
        ("https://host.example/a#access_token=secret&b=1", "https://host.example/a#b=1"),
        (
            "https://host.example/?next=https%3A%2F%2Fuser%3Asecret%40other.example%2F%3Ftoken%3Dsecret&b=1",
            "https://host.example/?next=https%3A%2F%2Fother.example%2F&b=1",
        ),
        ("https://host.example/?next=https://u:secret@other.example/", "https://host.example/?next=https://other.example/"),
        ("https://host.example/bot/ghp_0123456789abcdefghijklmnopqrstuvwxyz", "https://host.example/bot/REDACTED"),
    ],
)  # fmt: skip
def test_redact_url_removes_secrets_outside_the_query(url, redacted):
    assert redact_url(url) == redacted


@pytest.mark.parametrize(
    "url",
    [
        "https://host.example/",
        "https://host.example/@user/a@b?c=d@e",
        "https://[::1]:80/@user",
        "https://host.example/?sv=1&se=2&sp=3&st=4&sr=5&policy=6&expires=7&code=8&state",
        "https://host.example/?key=12&sid=34&session=2024&id=5&hash=0123456789abcdef",
        "https://host.example/?key=what-is-the-best-way-to-cook-an-egg",
        "https://host.example/?pageToken=CAUQAA&tokens=5&author=me&passenger=2&secretary=x&keyword=y&compass=z",
        "https://host.example/?token",
        "https://host.example/?q=https%3A%2F%2Fother.example%2F%3Fb%3D1",
        "abfss://container@account.dfs.core.windows.net/a",
        "/folder/a@b/c?token",
        "mailto:user@host.example",
        "dns:host.example",
        "",
    ],
)
def test_redact_url_leaves_other_urls_as_they_are(url):
    assert redact_url(url) == url


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (
            "Client error '404 Not Found' for url 'https://u:secret@host.example/a?token=secret'",
            "Client error '404 Not Found' for url 'https://host.example/a'",
        ),
        ("https://host.example/a?token=secret: try again", "https://host.example/a: try again"),
        ('{"url":"https:\\/\\/u:secret@host.example\\/a"}', '{"url":"https:\\/\\/host.example\\/a"}'),
        ('{"url":"https://host.example/?a=1\\u0026token=secret"}', '{"url":"https://host.example/?a=1"}'),
        ("run --input https://host.example/?sig=secret --hf-token secret", "run --input https://host.example/ --hf-token REDACTED"),
        ("run --api-key=secret --password 'se cret' -v", "run --api-key=REDACTED --password REDACTED -v"),
        ("error: password: secret", "error: password: REDACTED"),
        ("AWS_SECRET_ACCESS_KEY=secret run", "AWS_SECRET_ACCESS_KEY=REDACTED run"),
        ('{"api_key": "secret", "a": 1}', '{"api_key": REDACTED, "a": 1}'),
        ("Authorization: Bearer secret.secret", "Authorization: REDACTED"),
        ("the key AKIAIOSFODNN7EXAMPLE is", "the key REDACTED is"),
    ],
)  # fmt: skip
def test_redact_text_removes_secrets(text, redacted):
    assert redact_text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "ValueError: 12 tokens a second; token 5 of 9, eos_token=2, pad_token: '<|pad|>', tokens=5, min_token: 4",
        "special token: the, max_token=9, password required, --token --verbose, author: me",
        "https://host.example/a?b=1, and (https://other.example/@user)",
        "C:\\folder\\a.txt 12:30:45 a::b ://",
    ],
)
def test_redact_text_leaves_other_text_as_it_is(text):
    assert redact_text(text) == text


@given(st.text(max_size=80) | st.text("htp:/[]@?#.%&;=\\u1a-", max_size=60))
def test_redact_url_bears_any_string(url):
    assert redact_url(redact_url(url)) is not None
    redact_text(url)


HOSTILE = [
    "a",
    "@",
    "://",
    "http://",
    "http://h/?u=",
    "%",
    "a=",
    "a=b&",
    "--a ",
    "Bearer ",
    "eyJaaaaaaaaaaaaa.",
    "(S(",
    "hf_",
    "token=",
    ";",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("redact", [redact_url, redact_text])
def test_redaction_takes_time_in_proportion_to_the_length(redact, piece):
    assert grows_linearly(redact, f"http://h/?{piece * 2_000}", f"http://h/?{piece * 32_000}", 16)


ARGUMENTS = {
    "an option and its value": ["run", "--hf-token", "SECRET", "--until", "sft"],
    "an option with an equals sign": ["run", "--api-key=SECRET with blanks"],
    "a setting": ["run", "tiny", "--set", "ingest.password=SECRET of two words"],
    "a signed URL in a setting": ["run", "--set", "ingest.inputs=s3://b/x.gz?X-Amz-Signature=SECRET&part=1"],
    "user and password": ["run", "--input", "https://user:SECRET@host/x.warc.gz"],
    "user and password before a token": ["run", "--input", "https://user:SECRET@host/x?token=SECRET"],
    "JSON": ["run", "--set", 'storage={"secret": "SECRET"}'],
    "a list of URLs": ["run", "--set", "ingest.inputs=[https://h/a?token=SECRET,https://h/b?sig=SECRET]"],
    "a header": ["run", "--header", "Authorization: Bearer SECRET12345"],
    "a secret that begins with a dash": ["run", "--password", "-SECRET"],
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_provenance_stores_the_command_line_without_secrets(arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["crawl2chat", *arguments])
    stored = provenance(datetime.now(UTC), 1.0)["argv"]
    assert "SECRET" not in json.dumps(stored)
    assert len(stored) == len(arguments) + 1
    assert stored[:2] == ["crawl2chat", "run"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "tiny", "--until", "sft", "--set", "pretrain.max_tokens=1000"],
        ["run", "--max-token", "5", "--input", "https://host/page?key=1"],
        ["run", "--token", "--force", "sft"],
        ["", "=", "--", "-", "--set", "x="],
    ],
)
def test_redact_arguments_leaves_other_arguments_as_they_are(arguments):
    assert redact_arguments(arguments) == arguments


@given(st.lists(st.text()))
def test_redact_arguments_bears_any_arguments(arguments):
    assert len(redact_arguments(arguments)) == len(arguments)
