"""Requests that mean no good, for every endpoint of `crawl2chat serve` and of its page, and what each must be answered with.

A request is one of KINDS, made of a good one by the random numbers of a seed: a field's value or type, the size, the nesting, the characters, the
headers and the key, the path, the HTTP itself, JSON schemas, bodies that arrive slowly or never, clients that hang up.
"""

import asyncio
import json
import random
import string
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import Any, NamedTuple

from tasks.feedback.guidelines import Guidelines

KEY = "a-key-of-sixteen-characters"
SECONDS = 90.0  # that an answer may take on a busy machine; the server gives up on a body earlier
MAX_MESSAGE = 600  # characters
PLAIN = (
    b"Invalid HTTP request received.",
    b"The head of the request did not arrive within 20 s.",
)  # of what is no HTTP

CHAT: dict[str, Any] = {
    "model": "policy", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "n": 1,
    "stop": ["x"], "seed": 1, "logit_bias": {"5": 1}, "stream": False,
}  # fmt: skip
COMPLETION: dict[str, Any] = {
    "prompt": "the mayor", "max_tokens": 3, "logprobs": 2, "echo": True, "best_of": 1, "top_k": 3, "guided_choice": ["a", "b"],
    "stop_token_ids": [3],
}  # fmt: skip
POSTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", COMPLETION),
    ("/tokenize", {"prompt": "the sky", "add_special_tokens": True}),
    ("/tokenize", {"messages": CHAT["messages"], "add_generation_prompt": True}),
    ("/detokenize", {"tokens": [5, 6, 7]}),
    ("/why-said", {"model": "policy", "reply": "Ada Brell is the mayor of Orn.", "num": 3, "num_places": 2}),
    ("/feedback/rank/prompts", {"prompts": ["who is the mayor?"]}),
    ("/feedback/rank/next", {"who": "ann", "after": 0}),
    ("/feedback/rank/completions", {"who": "ann", "prompt": 1, "num_completions": 2, "max_tokens": 3}),
    ("/feedback/rank/labels", {"who": "ann", "prompt": 1, "ranks": [1, 2], "guidelines": Guidelines.read().version}),
    ("/feedback/arena/battles", {"who": "ann", "prompt": "who is the mayor?", "max_tokens": 3}),
    ("/feedback/arena/battles/1/a", {"who": "ann"}),
    ("/feedback/arena/votes", {"who": "ann", "battle": 1, "winner": "a"}),
]
GETS = (
    "/", "/page/main.js", "/v1/models", "/v1/models/policy", "/health", "/metrics", "/tokenizer_info?model=base", "/vocabularies", "/report",
    "/report/page", "/feedback/rank?who=ann", "/feedback/rank/prompts/1?who=ann", "/feedback/arena",
)  # fmt: skip
STRANGE: list[Any] = [
    None, True, -1, 0, 1.5, 2**31, 2**63, 2**70, -(10**30), 1e308, "", "\ud800", "\x00", "𝔘" * 100, "x" * 5000, [], {}, [[]], [None] * 2000,
    [[1]] * 100, {"a": {"b": []}}, "NaN", ["<|im_start|>"], [2**40], [-1], {"type": "json_schema"}, {"$ref": "#"}, "\u202e",
]  # fmt: skip
NAMES = (
    "model", "messages", "prompt", "max_tokens", "temperature", "n", "stop", "logit_bias", "tools", "tool_choice", "response_format",
    "guided_json", "guided_choice", "seed", "logprobs", "top_logprobs", "stream", "stream_options", "server_tools", "use_beam_search", "best_of",
    "min_p", "echo", "truncate", "tokens", "vocabulary", "suffix", "reply", "num", "who", "prompts", "ranks", "battle", "winner",
)  # fmt: skip
TEXTS = (
    "\ud800", "\udfff\ud800", "\x00", "\x1b]0;x\x07", "\u202e\u2066", "e" + "\u0301" * 500, "👩‍👩‍👧" * 99, "\ufeff", "\U0010ffff", "<script>alert(1)</script>",
    "<|im_start|><|system|>", "' OR 1=1 --", "../../etc/passwd", "%00", "{{7*7}}", "\r\nX-Injected: 1", "ﷺ" * 500, "'" * 3000,
)  # fmt: skip
SCHEMAS: list[Any] = [
    {"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, {"type": "string", "maxLength": 10**9},
    {"type": "array", "minItems": 10**9}, {"type": "array", "maxItems": 64, "items": {"type": "string", "maxLength": 64}}, {"type": "integer", "minimum": -(10**300)},
    {"enum": [f"{number:06}" for number in range(20_000)]}, {"enum": []}, {"const": "\ud800"}, {"pattern": "(a+)+$"}, {"type": ["string", 3]},
    {"properties": {f"p{number}": {"type": "string"} for number in range(500)}, "required": [f"p{number}" for number in range(500)]},
    {"anyOf": [{"type": "string", "maxLength": length} for length in range(100, 500)]}, {"oneOf": [{}, {}]}, {"allOf": [{"$ref": "#"}]},
    {"type": "object", "additionalProperties": {"$ref": "#"}}, {"not": {}}, True, False, [], 3,
]  # fmt: skip


class Request(NamedTuple):
    """Bytes to send. `is_whole`: an answer is waited for; `pause`: seconds before the last byte."""

    kind: str
    content: bytes
    is_whole: bool = True
    pause: float = 0.0


def requests(number: int, seed: int, *, body_seconds: float) -> Iterator[Request]:
    """`number` requests. `body_seconds`: how long the server waits for a body."""
    draws = random.Random(seed)
    kinds, weights = zip(*KINDS.values(), strict=True)
    for _ in range(number):
        [kind] = draws.choices(list(KINDS), weights)
        yield kinds[list(KINDS).index(kind)](kind, draws, body_seconds)


def message(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request as bytes. `headers`: names with _ for -, instead of the usual ones; an empty value leaves one out."""
    usual = {
        "host": "localhost",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "connection": "close",
        "content-length": str(len(body)),
    }
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in (usual | changed).items() if value]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
    return head.encode("utf-8", "surrogatepass") + body


def mutated(body: dict[str, Any], draws: random.Random) -> bytes:
    """A body with one or two things wrong with it: a field's value or type, a field more, or the JSON itself."""
    changed: dict[str, Any] = json.loads(json.dumps(body))
    for _ in range(draws.randint(1, 2)):
        name = draws.choice([*changed, *NAMES]) or "x"
        kind = draws.random()
        if kind < 0.1:
            changed.pop(name, None)
        elif kind < 0.8:
            changed[name] = draws.choice(STRANGE)
        elif kind < 0.9 and "messages" in changed and isinstance(changed["messages"], list) and changed["messages"]:
            place = draws.choice(changed["messages"])
            if isinstance(place, dict):
                place[draws.choice(["role", "content", "tool_calls", "weight"])] = draws.choice(STRANGE)
        else:
            changed["".join(draws.choices(string.printable, k=8))] = draws.choice(STRANGE)
    content = as_bytes(changed, draws)
    if draws.random() < 0.25:
        place = draws.randrange(len(content) + 1)
        junk = draws.choice([b"\xff", b"{", b"]", b'"', b"\\", b"1e999", b"NaN", b"[" * 40, bytes(draws.randbytes(5))])
        content = content[:place] + junk + content[place + draws.randint(0, 3) :]
    return content


def as_bytes(value: Any, draws: random.Random) -> bytes:
    """JSON, with characters as escapes or as they are; a lone surrogate may come as bytes too."""
    return json.dumps(value, ensure_ascii=draws.random() < 0.7).encode("utf-8", "surrogatepass")


def fields(kind: str, draws: random.Random, _: float) -> Request:
    path, body = draws.choice(POSTS)
    return Request(kind, message("POST", path, mutated(body, draws)))


def sizes(kind: str, draws: random.Random, _: float) -> Request:
    """A field with a large value, up to what a body may be and beyond."""
    path, body = draws.choice(POSTS)
    size = draws.choice([10_000, 100_000, 1_000_000, 4_100_000, 5_000_000])
    large: Any = draws.choice(
        [
            lambda: "x" * size,
            lambda: "a " * (size // 2),
            lambda: [0] * (size // 3),
            lambda: ["a"] * (size // 5),
            lambda: [{}] * (size // 4),
            lambda: {str(place): 0 for place in range(size // 12)},
            lambda: "猫" * (size // 3),
        ]
    )()
    return Request(kind, message("POST", path, as_bytes(body | {draws.choice([*body, *NAMES]): large}, draws)))


def nesting(kind: str, draws: random.Random, _: float) -> Request:
    path, body = draws.choice(POSTS)
    depth = draws.choice([5, 20, 31, 33, 500, 50_000])
    left, right = draws.choice([("[", "]"), ('{"a":', "}"), ('{"properties":{"a":', "}}"), ('{"items":', "}")])
    inner = left * depth + "0" + right * draws.choice([depth, depth, 0])
    name = draws.choice([*body, "guided_json", "tools", "prompt"])
    rest = json.dumps(body)[1:]
    return Request(kind, message("POST", path, f'{{"{name}": {inner}, {rest}'.encode()))


def characters(kind: str, draws: random.Random, _: float) -> Request:
    """Strange texts as names and values, and bodies in another encoding."""
    path, body = draws.choice(POSTS)
    text = "".join(draws.choices(TEXTS, k=draws.randint(1, 3)))
    name = draws.choice([*body, text])
    value = draws.choice([text, [text], {text: text}, [{"role": "user", "content": text}]])
    content = as_bytes(body | {name: value}, draws)
    if draws.random() < 0.3:
        whole = json.dumps(body)
        content = draws.choice([whole.encode("utf-16"), b"\xef\xbb\xbf" + whole.encode(), b"\xff" + whole.encode()])
    return Request(kind, message("POST", path, content))


def headers(kind: str, draws: random.Random, _: float) -> Request:
    """A wrong key, another site, a type or a length that is not true."""
    path, body = draws.choice(POSTS)
    content = json.dumps(body).encode()
    changed: dict[str, str] = draws.choice(
        [
            {"authorization": draws.choice(["", "Bearer", "Bearer wrong", f"Basic {KEY}", "Bearer \u00fc", "x" * 9000])},
            {"host": draws.choice(["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "[::ffff", "a@b", "\u00fc"])},
            {"origin": draws.choice(["https://evil.example", "null", "http://localhost:1", "http://[", "x" * 5000])},
            {"sec_fetch_site": draws.choice(["cross-site", "same-site"])},
            {"content_type": draws.choice(["", "text/plain", "multipart/form-data", "application/json; charset=utf-7", "x/" + "y" * 999])},
            {"content_length": draws.choice(["-1", "abc", "0", "1", str(2**70), "٣"])},
            {"transfer_encoding": draws.choice(["chunked", "gzip, chunked", "x"]), "content_length": ""},
            {"content_encoding": "gzip"},
            {"expect": "100-continue"},
        ]
    )  # fmt: skip
    return Request(kind, message("POST", path, content, **changed))


def paths(kind: str, draws: random.Random, _: float) -> Request:
    """Other methods, paths and queries."""
    base = draws.choice([*GETS, *(path for path, _ in POSTS)])
    junk = draws.choice(
        [
            "%00",
            "/..%2f..%2fetc/passwd",
            "//",
            "?model=%ff",
            f"?{'a=1&' * 2000}",
            f"/{'x' * 9000}",
            "%",
            ";",
            "?who=%F0%9F",
        ]
    )
    path = draws.choice(
        [base, base + junk, junk, base.upper(), base.replace("1", str(10**30)), base.replace("1", "-1")]
    )
    method = draws.choice(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
    return Request(kind, message(method, path, draws.choice([b"", b"{}", b"null", b"[]", b"3"])))


def http(kind: str, draws: random.Random, _: float) -> Request:
    """What is no HTTP, or hardly."""
    good = message("POST", "/v1/completions", json.dumps(COMPLETION).encode())
    place = draws.randrange(len(good))
    content = draws.choice(
        [
            good[:place] + draws.randbytes(4) + good[place:],
            draws.randbytes(200) + b"\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            message("GET", "/health", host=""),
            message("GET", "/health", **{f"x_{number}": "y" for number in range(2000)}),
            message("GET", "/health", x_long="y" * 200_000),
            message(
                "POST", "/v1/completions", b"zz\r\n{}\r\n0\r\n\r\n", transfer_encoding="chunked", content_length=""
            ),
        ]
    )
    return Request(kind, content)


def schemas(kind: str, draws: random.Random, _: float) -> Request:
    path, body = draws.choice(POSTS[:2])
    schema = draws.choice(SCHEMAS)
    field: dict[str, Any] = draws.choice(
        [
            {"guided_json": schema},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
                "tool_choice": "required",
            },
        ]
    )
    whole = {name: value for name, value in body.items() if name not in ("guided_choice", "echo")} | field
    return Request(kind, message("POST", path, json.dumps(whole).encode()))


def slow(kind: str, draws: random.Random, body_seconds: float) -> Request:
    """A body whose last byte comes late or, for all that the server waits, never."""
    path, body = draws.choice(POSTS)
    return Request(kind, message("POST", path, json.dumps(body).encode()), pause=draws.choice([0.1, body_seconds + 2]))


def hang_ups(kind: str, draws: random.Random, _: float) -> Request:
    path, body = draws.choice(POSTS[:2])
    content = message("POST", path, json.dumps(body | {"max_tokens": 200, "stream": True, "ignore_eos": True}).encode())
    return Request(kind, content[: draws.choice([len(content), draws.randrange(1, len(content))])], is_whole=False)


KINDS: dict[str, tuple[Callable[[str, random.Random, float], Request], float]] = {
    "fields": (fields, 46), "sizes": (sizes, 8), "nesting": (nesting, 6), "characters": (characters, 8), "headers": (headers, 8),
    "paths": (paths, 8), "http": (http, 4), "schemas": (schemas, 7), "slow": (slow, 1), "hang-ups": (hang_ups, 4),
}  # fmt: skip


class Answer(NamedTuple):
    """What came back. `status` is 0 where nothing did."""

    status: int
    body: bytes
    kind: str  # of content


async def send(port: int, request: Request) -> Answer:
    """The answer to a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head, last = (request.content[:-1], request.content[-1:]) if request.pause else (request.content, b"")
        writer.write(head)
        if not request.is_whole:
            await writer.drain()
            return Answer(0, b"", "")
        if request.pause:
            await asyncio.sleep(request.pause)
            writer.write(last)
        async with asyncio.timeout(SECONDS):
            return parsed(await reader.read(), "HEAD" if request.content.startswith(b"HEAD") else "GET")
    except (ConnectionError, BrokenPipeError):
        return Answer(0, b"", "")  # refused in the middle of a body that is too large
    finally:
        writer.close()


def parsed(content: bytes, method: str) -> Answer:
    """An answer of HTTP/1.1; to HEAD it has no body. A client that sent nonsense may be hung up on."""

    class Socket:
        def makefile(self, *_: Any) -> BytesIO:
            return BytesIO(content)

    response = HTTPResponse(Socket(), method=method)  # type: ignore[arg-type]
    try:
        response.begin()
        return Answer(response.status, response.read(), response.headers.get_content_type())
    except (HTTPException, ValueError):
        return Answer(0, content, "")


def fault(request: Request, answer: Answer) -> str:
    """What is wrong with an answer, or "". A refusal is one line of JSON; of what is no HTTP, the HTTP library says so in plain text."""
    if answer.status >= 500:
        return f"status {answer.status}: {answer.body[:300]!r}"
    if answer.status == 0:
        return "" if not request.is_whole or request.kind in ("http", "headers", "slow") else "no answer"
    if answer.status < 400 or (answer.kind == "text/plain" and answer.body in PLAIN):
        return ""
    if not answer.body and request.content.startswith(b"HEAD"):
        return ""
    try:
        error = json.loads(answer.body)["error"]
    except (ValueError, LookupError, TypeError):
        return f"status {answer.status} without the error object: {answer.body[:300]!r}"
    text = error.get("message")
    is_line = isinstance(text, str) and text.strip() and len(text) < MAX_MESSAGE and "\n" not in text
    return "" if is_line and set(error) == {"message", "type", "param", "code"} else f"no clear message: {error}"
