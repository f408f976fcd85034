"""What went wrong in a request to an object store: whether it may pass, and what a user can do about it.

Reads exceptions of botocore, aiohttp, s3fs, gcsfs and fsspec, and writes nothing. They are recognised by the names of their classes, so
that none of these packages has to be installed for a store that is a folder.
"""

from typing import Any

from model.errors import UserError
from tasks.redaction import redact_text

# Names of classes or of their bases. ConnectionError and TimeoutError are Python's too: sockets and asyncio raise them.
TRANSIENT_CLASSES = {
    *("HTTPClientError", "EndpointConnectionError", "ConnectionClosedError", "ResponseParserError"),  # botocore
    *("ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError"),  # aiohttp
    *("ConnectionError", "TimeoutError", "FSTimeoutError", "IncompleteReadError", "ChecksumError", "ProxyError"),
}
TRANSIENT_CODES = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "RequestTimeTooSkewed"}
# Of botocore. gcsfs falls back to an anonymous user, whom the server then refuses.
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"}


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment: the network, or a server that is busy or starts."""
    # What is not known counts as final: to repeat a request that the server refuses hides the reason for two minutes.
    status = status_of(error)
    return (
        status == 429
        or status >= 500
        or error_code(error) in TRANSIENT_CODES
        or bool(_names(error) & TRANSIENT_CLASSES)
    )


def as_user_error(error: Exception, where: str, seconds: float) -> UserError | None:
    """The mistake or the fault of the surroundings that a user can mend; None where that is not known. `seconds`: how long was retried."""
    reason = redact_text(" ".join(str(error).split()))[:200]
    # The order matters: without credentials, some servers answer that the bucket does not exist, others that access is refused.
    if _names(error) & NO_CREDENTIALS:
        return UserError(
            f"the store {where} needs credentials ({reason}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    # Libraries raise Python's own classes for a server's answer, then without an errno; one with an errno is about a local file.
    is_local = getattr(error, "errno", None) is not None
    if error_code(error) in ("NoSuchBucket", "InvalidBucketName") or (
        isinstance(error, FileNotFoundError) and not is_local
    ):
        return UserError(
            f"the bucket of the store {where} does not exist: create it, or name another one with CRAWL2CHAT_STORE"
        )
    is_refused = isinstance(error, PermissionError) and not is_local
    if is_refused or status_of(error) in (401, 403) or str(error).startswith("Forbidden"):
        return UserError(
            f"the store {where} refuses access ({reason}): check the credentials in the environment, and their rights to "
            "list, read, write and delete"
        )
    if is_transient(error):
        return UserError(
            f"the store {where} has not answered for {seconds:.0f} s ({reason}): check the network and the address, which "
            "AWS_ENDPOINT_URL gives for S3, then run the same command again"
        )
    return None


def _names(error: BaseException) -> set[str]:
    """The names of an error's classes, and of those of the error that a library made it of."""
    # s3fs replaces an error of botocore by one of Python and keeps the original as the cause.
    causes = [error, *([error.__cause__] if error.__cause__ else [])]
    return {base.__name__ for cause in causes for base in type(cause).__mro__}


def _answer(error: BaseException) -> dict[str, Any]:
    """The server's answer in an error of botocore, or in one that s3fs has made of it."""
    for cause in (error, error.__cause__):
        if isinstance(answer := getattr(cause, "response", None), dict):
            return answer
    return {}


def error_code(error: BaseException) -> str:
    """The code that S3 answered with, such as NoSuchKey; empty without one."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def status_of(error: BaseException) -> int:
    """The HTTP status that the server answered with; 0 without one."""
    # botocore has it in the answer, gcsfs as `code`, a number or a text.
    status = _answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(error, "code", None)
    return int(status) if isinstance(status, int) or (isinstance(status, str) and status.isdigit()) else 0
