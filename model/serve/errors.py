"""What a client is sent when a request cannot be answered: OpenAI's error object, one sentence, never a traceback.

Reads and writes nothing. Clients such as the `openai` package choose their exception by the status, and show `message`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from model.tokenizer.chat import whole_characters

MAX_MESSAGE = 500  # characters: a message may quote a value of the request
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "server_busy"}


class ApiError(Exception):
    """A request that is refused, with the HTTP status. `param`: the field that is wrong; `code`: a word that programs compare."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        # A quoted value may hold line ends, and lone surrogates, which no UTF-8 can carry.
        message = " ".join(whole_characters(self.message).split())
        shown = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} ..."
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": shown, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer to the client."""
        return JSONResponse(self.body(), self.status, self.headers)


def queue_full(num_waiting: int) -> ApiError:
    """The model has as many waiting requests as it takes."""
    return ApiError(
        429,
        f"{num_waiting} requests wait already: try again in a second",
        code="queue_full",
        headers={"Retry-After": "1"},
    )


def too_large(error: Exception) -> ApiError:
    """The grammar of the output cannot be computed."""
    return ApiError(400, f"the grammar of the output is too large: {str(error) or type(error).__name__}")


def invalid(details: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first mistake that pydantic found in a request, as one sentence."""
    detail = details[0]
    # FastAPI puts "body" first; a union's branches appear as names of types.
    where = ".".join(str(part) for part in detail["loc"] if part != "body")
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {detail.get('ctx', {}).get('error', message)}")
    if detail["type"] == "extra_forbidden":
        return ApiError(400, f"{where} is no field of this request", where)
    return ApiError(400, f"{where}: {message}" if where else message, where or None)
