"""Search by a web service instead of the run's own index.

Reads one URL per query, with {query} in the place of the words, such as https://searx.example.org/search?q={query}&format=json. The answer is
JSON in the form of SearXNG (https://docs.searxng.org/dev/search_api.html): {"results": [{"title", "url", "content"}, ...]}. Writes nothing.

The service is a stranger: localhost and private addresses are refused unless they are allowed, an answer may take some seconds and have
some size, and all of it is text.
"""

import json
import re
import time
from typing import NamedTuple
from urllib.parse import quote

import httpx

from model.errors import UserError
from tasks.redaction import redact_url
from tasks.web.http_client import StatusError, send

SECONDS = 10.0
MAX_BYTES = 1_000_000
BLOCK_BYTES = 65_536
MAX_QUERY_CHARACTERS = 300
MAX_RESULTS = 10
TAG = re.compile(r"<[^<>]{0,200}>")


class Found(NamedTuple):
    """One result of a service."""

    title: str
    url: str
    text: str


class ExternalSearch:
    """A search service. `allows_private`: whether it may be at localhost or in a private network."""

    def __init__(self, url: str, *, allows_private: bool = False) -> None:
        """Raises UserError where the URL is no template for queries."""
        if not re.match(r"https?://[^/{}]+/", url) or "{query}" not in url:
            raise UserError(
                f"{redact_url(url)[:200]} is no search URL: give one such as https://HOST/search?q={{query}}&format=json"
            )
        self.url = url
        self.allows_private = allows_private

    def search(self, query: str) -> list[Found]:
        """The results for a query. Raises UserError where the service cannot be asked, or gives something else."""
        words = query[:MAX_QUERY_CHARACTERS].encode("utf-8", "replace")
        url = self.url.replace("{query}", quote(words, safe=""))
        try:
            body = self._read(url)
            answer = json.loads(body)
        except UserError:  # a ValueError, too
            raise
        except StatusError as error:
            raise UserError(f"the search service answers with status {error.status}") from None
        except (httpx.HTTPError, OSError) as error:
            raise UserError(f"the search service cannot be reached ({type(error).__name__})") from None
        except (ValueError, RecursionError):
            raise UserError("the search service gives no JSON: its URL must ask for it, as format=json does") from None
        return _results(answer)

    def _read(self, url: str) -> bytes:
        deadline = time.monotonic() + SECONDS
        answer = send(url, "GET", {}, refuses_private=not self.allows_private, timeout_seconds=SECONDS)
        try:
            body = b""
            while block := answer.read(BLOCK_BYTES):
                body += block
                if len(body) > MAX_BYTES:
                    raise UserError(f"the search service gives more than {MAX_BYTES:,} bytes")
                # Each block may come just in time: a service that drips would hold the conversation for hours.
                if time.monotonic() > deadline:
                    raise UserError(f"the search service takes longer than {SECONDS:g} s")
            return body
        finally:
            answer.close()


def _results(answer: object) -> list[Found]:
    rows = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise UserError('the search service gives JSON without "results": it must answer as SearXNG does')
    found = [
        Found(*(_plain(row.get(name)) for name in ("title", "url", "content"))) for row in rows if isinstance(row, dict)
    ]
    return [result for result in found if result.text or result.title][:MAX_RESULTS]


def _plain(value: object) -> str:
    return " ".join(TAG.sub(" ", value[:10_000]).split()) if isinstance(value, str) else ""
