"""Removes credentials and signatures from URLs, and from texts that hold URLs: errors, logs, command lines.

Reads and writes nothing. A URL without its secrets still names the file or the page, so it may be stored and shown; to fetch the file
the URL as the user gave it is needed. Time is linear in the length, whatever the text holds.

What counts as a secret:
- user and password before the host (RFC 3986, section 3.2.1);
- query parameters that sign a request: AWS Signature Version 2 and 4, Google Cloud Storage, Azure SAS, CloudFront, Alibaba, Tencent,
  Akamai;
- query parameters whose name says so: token, api_key, password, sessionid, and names that end in these;
- values in a form that only secrets have: keys of AWS, Google, GitHub, GitLab, Slack, Hugging Face, OpenAI, and JSON Web Tokens.

Short names that also have harmless meanings (se, sp, sv, policy, expires) count only next to a signature; `key` and `sid` only with
a value in the form of a secret.
"""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote, unquote

REMOVED = "REDACTED"
MAX_NESTED_URLS = 3  # a URL in a parameter of a URL: deeper ones go as a whole

SIGNATURE_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "q-sign-", "oauth_")
SIGNATURES = frozenset(["sig", "signature", "hmac", "googleaccessid", "hdnts", "hdnea", "hdntl", "q-ak", "q-signature"])
# Parameters that carry the conditions of a signature: harmless names elsewhere
WITH_SIGNATURE = frozenset(
    [
        *(
            "se",
            "sp",
            "sv",
            "sr",
            "st",
            "ss",
            "srt",
            "spr",
            "sip",
            "si",
            "sdd",
            "ses",
            "saoid",
            "suoid",
            "scid",
        ),  # Azure SAS
        *("ske", "skoid", "sks", "skt", "sktid", "skv"),  # Azure SAS with a user delegation key
        *("policy", "key-pair-id", "expires"),  # CloudFront, and the second version of AWS and Google
        *("q-key-time", "q-header-list", "q-url-param-list"),  # Tencent
    ]
)
SECRET_NAMES = frozenset(
    [
        *(
            "auth",
            "authorization",
            "bearer",
            "credential",
            "jwt",
            "samlresponse",
            "sessid",
            "sessionid",
            "token",
            "secret",
        ),
        *(
            "pass",
            "passphrase",
            "passwd",
            "password",
            "pwd",
            "apikey",
            "accesskeyid",
            "awsaccesskeyid",
            "ossaccesskeyid",
        ),
    ]
)
SECRET_ENDINGS = (
    *("token", "secret", "password", "passwd", "passphrase", "apikey", "accesskey", "secretkey", "privatekey"),
    *("authkey", "subscriptionkey", "signature", "sessionid", "sessid", "credential", "credentials", "oscsid", "zenid"),
)
CURSORS = ("pagetoken", "nexttoken", "continuationtoken", "synctoken")  # they say which part of a list, not who asks
SECRET_SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_\w{30,255}"
    r"|glpat-[\w-]{20,255}|xox[abeprs]-[\w-]{10,255}|hf_[A-Za-z0-9]{30,255}|sk-[\w-]{20,255}"
    r"|eyJ[\w-]{10,4096}\.eyJ[\w-]{4,8192}\.[\w-]{0,4096})"
)
# Hexadecimal, or capitals, small letters and digits mixed: names of pages are neither. 24 characters are 96 bits of hexadecimal
OPAQUE = re.compile(r"[0-9a-fA-F]{24,}|(?=[^0-9]*[0-9])(?=[^A-Z]*[A-Z])(?=[^a-z]*[a-z])[A-Za-z0-9_-]{24,}")
PATH_PARAMETER = re.compile(r";([^=;/]{1,64})=[^;/]*")  # /page;jsessionid=1A2B
PATH_SESSION = re.compile(r"\([SAF]\([A-Za-z0-9]{20,64}\)\)/?")  # ASP.NET without cookies: /(S(id))/page
AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20}:)?(?:\\?/){2}([^/?#\\]*)")
CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]{0,20}:/)")  # fsspec's: tar://member::https://host/archive.tar
CONTAINER_SCHEMES = ("abfs", "abfss", "wasb", "wasbs")  # Azure: CONTAINER@ACCOUNT is the address, no user
# "&" in the forms in which HTML and JSON write it too, as links are copied from there; ";" was a separator in HTML 4
SEPARATOR = re.compile(r"(&amp;|[&;]|\\u0026)")
URL_IN_TEXT = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20})?:(?:\\?/){2}[^\s\"<>`]+")
NAME = re.compile(r"(?<![\w?&;.-])(?P<name>-{0,2}[A-Za-z][\w.-]{0,80})(?P<sign>[\"']?\s?[=:]\s?|\s(?!-))")
OPTION = re.compile(r"-{0,2}[A-Za-z][\w.-]{0,80}")
VALUE = re.compile(r"\"[^\"]{1,512}\"|'[^']{1,512}'|[^\s\"',;}\])]+")
MODEL_TOKENS = re.compile(
    r"(?:bos|eos|pad|unk|sep|cls|mask|min|max|special|stop|next|first|last|new|per|add|image)[_-]?token", re.I
)
AUTHORIZATION = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/._~=-]{8,8192}", re.IGNORECASE)
TRAILING = ".,:;!?'\")]}"


def redact_url(url: str) -> str:
    """`url` without user, password, signature and other secrets. Whatever it is given, it returns a string and raises nothing."""
    return "::".join(_redact_url(link, 0) for link in CHAIN.split(url))


def redact_text(text: str) -> str:
    """`text` without the secrets of the URLs in it, of assignments (password=x, --token x) and of HTTP Authorization headers."""
    # URLs first: their parameters are assignments as well, but end at "&", which belongs to the value in other text.
    text = URL_IN_TEXT.sub(_redact_match, text)
    text = AUTHORIZATION.sub(REMOVED, text)
    text = "".join(_without_assigned(text))
    return SECRET_SHAPE.sub(REMOVED, text)


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line without secrets. An option's value may be the argument after it: `--hf-token x`."""
    redacted: list[str] = []
    names_secret = False  # the argument before is an option that a secret follows
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_secret = OPTION.fullmatch(name) is not None and _is_secret_assignment(name, "=")
        if names_secret and not argument.startswith("--"):
            redacted.append(REMOVED)
        elif is_secret and value:  # the whole value: a password may hold spaces
            redacted.append(f"{name}={REMOVED}")
        else:
            redacted.append(redact_text(argument))
        names_secret = is_secret and not equals and name.startswith("-")
    return redacted


def _redact_url(url: str, depth: int) -> str:
    url = _without_user(url)
    head, hash_sign, fragment = url.partition("#")
    path, question_mark, query = head.partition("?")
    if ";" in path:
        path = PATH_PARAMETER.sub(lambda match: "" if is_secret_name(match[1]) else match[0], path)
    if "(" in path:
        path = PATH_SESSION.sub("", path)
    query = _redact_parameters(query, depth)
    if "=" in fragment:  # OAuth's implicit grant: #access_token=x
        fragment = _redact_parameters(fragment, depth)
    url = path + (question_mark and query and f"?{query}") + (hash_sign and fragment and f"#{fragment}")
    return SECRET_SHAPE.sub(REMOVED, url)


def _without_user(url: str) -> str:
    """`url` without what stands before the host and an @. A password may hold a "/" that should have been escaped."""
    match = AUTHORITY.match(url)
    if match is None or "@" not in url:
        return url
    start, end = match.span(1)
    authority = match[1]
    # The last @: an unescaped one may be a part of the password.
    user, at, host = authority.rpartition("@")
    if at:
        is_container = url.startswith(tuple(f"{scheme}:" for scheme in CONTAINER_SCHEMES)) and ":" not in user
        return url if is_container else url[:start] + host + url[end:]
    # No @ before the first slash, and a "port" that is no number: a password with an unescaped slash, user:pass/word@host.
    port = authority.rpartition("]")[2].partition(":")[2]
    if port and not port.isdecimal() and (last := url.rfind("@", end)) > 0:
        return url[:start] + url[last + 1 :]
    return url


def _redact_parameters(query: str, depth: int) -> str:
    """The parameters of a query that are no secrets, with the separators between them."""
    if not query:
        return ""
    pieces = SEPARATOR.split(query)
    names = [_name(piece) for piece in pieces[::2]]
    is_signed = any(name in SIGNATURES or name.startswith(SIGNATURE_PREFIXES) for name in names)
    # OAuth 2.0 (RFC 6749, section 4.1.2) sends code and state together; alone they are names of countries and products.
    is_oauth_answer = {"code", "state"} <= {
        name for name, piece in zip(names, pieces[::2], strict=True) if "=" in piece
    }
    kept: list[str] = []
    for number, (name, piece) in enumerate(zip(names, pieces[::2], strict=True)):
        _, equals, value = piece.partition("=")
        is_condition = (is_signed and name in WITH_SIGNATURE) or (is_oauth_answer and name in ("code", "state"))
        if equals and (is_condition or is_secret_name(name) or _is_secret_value(name, value)):
            continue
        if kept:
            kept.append(pieces[2 * number - 1])
        kept.append(_redact_nested(piece, depth))
    return "".join(kept)


def _name(piece: str) -> str:
    """The name of a parameter, as servers read it: percent signs decoded, in lower case, without blanks."""
    return "".join(unquote(piece.partition("=")[0][:256]).split()).lower()


def is_secret_name(name: str) -> bool:
    """Whether a parameter, an option or a variable of this name holds a secret: api_key, --hf-token, AWS_SECRET_ACCESS_KEY."""
    name = name.lower().lstrip("-")
    if name in SIGNATURES or name.startswith(SIGNATURE_PREFIXES):
        return True
    plain = re.sub(r"[^a-z0-9]", "", name)
    if plain.endswith(CURSORS):
        return False
    return plain in SECRET_NAMES or plain.endswith(SECRET_ENDINGS)


def _is_secret_value(name: str, value: str) -> bool:
    """Whether a value of an ambiguous name has the form of a secret: `key` and `sid` name pages and stories too."""
    return name in ("key", "sid", "session", "ticket") and OPAQUE.fullmatch(value[:512]) is not None


def _redact_nested(piece: str, depth: int) -> str:
    """A parameter whose value is a URL itself, without the secrets of that."""
    name, equals, value = piece.partition("=")
    decoded = unquote(value) if "%" in value else value
    if "://" not in decoded:
        return piece
    if depth >= MAX_NESTED_URLS:
        return f"{name}{equals}{REMOVED}"
    redacted = _redact_url(decoded, depth + 1)
    if redacted == decoded:
        return piece
    return f"{name}{equals}{quote(redacted, safe='') if decoded != value else redacted}"


def _redact_match(match: re.Match[str]) -> str:
    """A URL in a text; the punctuation behind it is the text's."""
    url = match[0].rstrip(TRAILING)
    return redact_url(url) + match[0][len(url) :]


def _without_assigned(text: str) -> Iterator[str]:
    """`text` in pieces, without the values of password=x, "api_key": "x" and --hf-token x."""
    done = 0
    for match in NAME.finditer(text):
        if match.start() < done or not _is_secret_assignment(match["name"], match["sign"]):
            continue
        value = VALUE.match(text, match.end())
        is_word = ":" in match["sign"] and match["name"].lower().endswith("token")  # "token: the" in a model's log
        if value and not (is_word and len(value[0]) < 10):
            yield text[done : match.end()]
            yield REMOVED
            done = value.end()
    yield text[done:]


def _is_secret_assignment(name: str, sign: str) -> bool:
    """Whether a value is a secret by its name. Tokens of a language model (eos_token=3) are not."""
    is_assignment = name.startswith("--") or not sign.isspace()
    return is_assignment and is_secret_name(name) and not MODEL_TOKENS.search(name)
