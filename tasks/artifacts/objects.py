"""Objects: the few operations of an object store that the project needs, with retries and one-line errors.

Reads and writes objects under a URL: s3:// through s3fs, gs:// through gcsfs, any other one through fsspec. Credentials and endpoints
come from the environment, as those libraries read them (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, FSSPEC_S3_...); none is a setting here, so none can get into a manifest.

What makes an object store safe for several machines is the conditional put: `create` succeeds where no object has the key, `swap`
where the object is still the one that was read (If-None-Match and If-Match of RFC 9110, section 13.1; S3 has had both since 2024, GCS
has generations). The server decides, so of many that try at once one succeeds. fsspec has no name for a swap, hence the two subclasses.
"""

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import tenacity

from model.errors import UserError
from tasks.artifacts.object_errors import as_user_error, error_code, is_transient

T = TypeVar("T")
# Longer than a restart, shorter than the patience of a person who has mistyped an address.
RETRY_SECONDS = 120.0  # a server that restarts is back by then
MAX_WAIT_SECONDS = 10.0
MAX_DELETED = 1_000  # keys of one request, the limit of S3's DeleteObjects


class Conflict(Exception):
    """A conditional put was refused: another writer was faster."""


class TooLarge(UserError):
    """An object has more bytes than it may have. It is not read: a damaged or hostile store must not fill memory or disk."""


class _Limit(fsspec.Callback):  # type: ignore[misc]
    """Ends a download before its first byte where it has too many: s3fs and gcsfs name the size when the answer begins."""

    def __init__(self, where: str, max_bytes: int) -> None:
        super().__init__()
        self.where, self.max_bytes = where, max_bytes

    def set_size(self, size: int | None) -> None:
        """Raises TooLarge."""
        check_size(self.where, size, self.max_bytes)
        super().set_size(size)


@dataclass(frozen=True)
class Stored:
    """An object that was read: its bytes, and the tag of this version of it."""

    data: bytes
    tag: str


@dataclass(frozen=True)
class Listed:
    """An object as a listing has it. `key` is relative to the URL of the store."""

    key: str
    bytes: int
    modified: datetime


class Objects(ABC):
    """The objects under a URL. Keys are relative to it. Every method retries what may pass and raises UserError for a user's mistake."""

    can_swap = True

    def __init__(self, filesystem: Any, root: str, shown_url: str) -> None:
        # The URL as it may be shown: it can hold a password, and errors quote it.
        self.filesystem, self.root, self.shown_url = filesystem, root.rstrip("/"), shown_url
        self.retry_seconds = RETRY_SECONDS

    def impatient(self, seconds: float) -> "Objects":
        """The same objects with requests that give up after `seconds`."""
        # Connections, and the thread that serves them, are fsspec's and shared.
        other = copy.copy(self)
        other.retry_seconds = seconds
        return other

    def get(self, key: str, max_bytes: int) -> Stored | None:
        """The object, or None where it does not exist. Raises TooLarge where it has more than `max_bytes`."""
        return self._call(functools.partial(self._get, key, max_bytes), missing=None)

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whatever was there."""
        self._call(lambda: self._put(key, data, None))

    def create(self, key: str, data: bytes) -> str:
        """Write an object that must not exist yet; its tag. Raises Conflict where it does, with other contents."""
        return self._put_if(key, data, "")

    def swap(self, key: str, data: bytes, tag: str) -> str:
        """Replace the version `tag` of an object; the new tag. Raises Conflict where the object is another one by now."""
        return self._put_if(key, data, tag)

    # Unconditional, because keys of files hold their hash: whoever writes one writes the same bytes.
    def upload(self, path: Path, key: str) -> None:
        """Write a file as an object, in parts where it is large."""
        self._call(lambda: self.filesystem.put_file(str(path), self.address(key)))

    def download(self, key: str, path: Path, max_bytes: int) -> bool:
        """Write an object to a file. Returns whether it exists. Raises TooLarge where it has more than `max_bytes`."""

        def write() -> bool:
            # Again from the start: the path is a temporary file, and its first half may be of a broken connection.
            self._download(key, path, max_bytes)
            return True

        return self._call(write, missing=False)

    def download_in_streams(self, key: str, path: Path, num_bytes: int) -> bool:
        """As `download`, of an object that is to have `num_bytes`: a large one in several streams, where the protocol has them."""
        return self.download(key, path, num_bytes)

    def listing(self, prefix: str) -> Iterator[Listed]:
        """All objects whose key begins with `prefix`, in pages of 1,000 or so a request."""
        page: str | None = ""
        # Of a file system with folders, where this one does not exist; an object store has an empty page.
        nothing: tuple[list[Listed], str | None] = ([], None)
        while page is not None:
            found, page = self._call(functools.partial(self._listing, prefix, page), missing=nothing)
            yield from found

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that does not exist is no error."""
        # A stage of 10,000 shards leaves 30,000 objects of state: 30 requests in place of 30,000.
        for start in range(0, len(keys), MAX_DELETED):
            self._call(functools.partial(self._delete, keys[start : start + MAX_DELETED]), missing=None)

    def address(self, key: str) -> str:
        """The path of an object as fsspec takes it."""
        return f"{self.root}/{key}"

    def _put_if(self, key: str, data: bytes, tag: str) -> str:
        try:
            return self._call(lambda: self._put(key, data, tag))
        except Conflict:
            # A request that was carried out while its answer was lost is sent again, and finds its own object.
            try:
                stored = self.get(key, len(data))
            except TooLarge:
                stored = None
            if stored is None or stored.data != data:
                raise
            return stored.tag

    def _call(self, request: Callable[[], T], **missing: T) -> T:
        """The result of a request, or `missing` where the object does not exist."""
        try:
            # s3fs and botocore repeat a request for two seconds or so by themselves; this is for a server that restarts.
            for attempt in _retrying(self.retry_seconds):
                with attempt:
                    return request()
        except (Conflict, UserError):
            raise
        except Exception as error:
            # A missing bucket is a mistake to report; a missing object is an answer.
            if isinstance(error, FileNotFoundError) and missing and error_code(error) != "NoSuchBucket":
                return missing["missing"]
            if (mistake := as_user_error(error, self.shown_url, self.retry_seconds)) is not None:
                raise mistake from None
            raise
        raise AssertionError("tenacity returns or raises")

    def _download(self, key: str, path: Path, max_bytes: int) -> None:
        limit = _Limit(f"{self.shown_url}/{key}", max_bytes)
        self.filesystem.get_file(self.address(key), str(path), callback=limit)

    @abstractmethod
    def _get(self, key: str, max_bytes: int) -> Stored: ...

    @abstractmethod
    def _put(self, key: str, data: bytes, tag: str | None) -> str:
        """`tag`: None to replace whatever is there, "" where nothing may be, else the version to replace."""

    @abstractmethod
    def _listing(self, prefix: str, page: str) -> tuple[list[Listed], str | None]: ...

    @abstractmethod
    def _delete(self, keys: Sequence[str]) -> None: ...


def check_size(where: str, num_bytes: int | None, max_bytes: int) -> None:
    """Raises TooLarge."""
    if num_bytes is not None and num_bytes > max_bytes:
        raise TooLarge(f"{where} has {num_bytes} bytes, where {max_bytes} are the most: delete it")


def _retrying(seconds: float) -> tenacity.Retrying:
    # With jitter: hundreds of workers whose server was restarted would otherwise all come back in the same moment.
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=MAX_WAIT_SECONDS),
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )
