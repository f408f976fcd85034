"""Object stores by protocol: S3, Google Cloud Storage, and what else fsspec knows.

Conditional puts are what each protocol calls otherwise, and fsspec not at all: hence these classes, which call the protocol's own
requests through s3fs and gcsfs.
"""

import functools
import hashlib
import json
import secrets
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import fsspec

from model.errors import UserError
from tasks.artifacts.files import logger
from tasks.artifacts.object_errors import error_code, status_of
from tasks.artifacts.objects import Conflict, Listed, Objects, Stored, TooLarge, check_size
from tasks.artifacts.streams import LARGE_BYTES, Refused, copy_by_ranges
from tasks.redaction import redact_text, redact_url

# Without these a lost packet holds a request for a minute, and a lease is to be renewed several times a minute.
S3_CONFIG = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}}
SIGNED_SECONDS = 3600  # for which a URL to read an object by is valid


class BucketObjects(Objects):
    """Objects in a bucket, under a prefix of their keys."""

    def __init__(self, filesystem: Any, root: str, shown_url: str) -> None:
        super().__init__(filesystem, root, shown_url)
        self.bucket, _, prefix = self.root.partition("/")
        self.prefix = f"{prefix}/" if prefix else ""


class S3Objects(BucketObjects):
    """Amazon's S3 and servers of its protocol. The tag of a version is its ETag."""

    def download_in_streams(self, key: str, path: Path, num_bytes: int) -> bool:
        """As `download`; a large object in several streams."""
        if num_bytes >= LARGE_BYTES:
            # Signed for each range again: a range that waits for its turn, or for a server that restarts, has a URL that is valid.
            sign = functools.partial(self.filesystem.sign, self.address(key), SIGNED_SECONDS)
            try:
                copy_by_ranges(sign, path, num_bytes, self._call)
            except Refused as error:
                # Some policies allow no signed URLs. Whatever else is wrong, a request of s3fs has the error for.
                logger.debug("%s/%s is read in one stream: %s", self.shown_url, key, error)
            else:
                return True
        return self.download(key, path, num_bytes)

    def _get(self, key: str, max_bytes: int) -> Stored:
        # Not cat_file: it gives no ETag, and a HEAD before or after could be of another version.
        answer = self.filesystem.call_s3("get_object", Bucket=self.bucket, Key=self.prefix + key)
        try:
            check_size(f"{self.shown_url}/{key}", answer["ContentLength"], max_bytes)
        except TooLarge:
            answer["Body"].close()
            raise
        # The body is a stream of the event loop that fsspec runs in a thread, and is read there.
        data = fsspec.asyn.sync(self.filesystem.loop, answer["Body"].read)
        return Stored(data, answer["ETag"])

    def _put(self, key: str, data: bytes, tag: str | None) -> str:
        # The server compares and writes in one step; SeaweedFS 4.48 let one of eight at once succeed in 200 of 200 races.
        condition = {} if tag is None else {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        try:
            # In one request whatever the size: manifests, leases and records are small. Files go through `upload`, in parts.
            answer = self.filesystem.call_s3(
                "put_object", Bucket=self.bucket, Key=self.prefix + key, Body=data, **condition
            )
        except Exception as error:
            # 409: AWS answers so where another conditional put of this key is under way. 404: the object to replace is gone.
            is_gone = tag and isinstance(error, FileNotFoundError) and error_code(error) != "NoSuchBucket"
            if condition and (status_of(error) in (409, 412) or isinstance(error, FileExistsError) or is_gone):
                raise Conflict(key) from error
            raise
        return str(answer["ETag"])

    def _listing(self, prefix: str, page: str) -> tuple[list[Listed], str | None]:
        # Not find() or ls(): they keep listings in a cache of this process, and another machine writes meanwhile.
        more = {"ContinuationToken": page} if page else {}
        answer = self.filesystem.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=self.prefix + prefix, **more)
        # Keys without the store's own prefix, as all other methods take them.
        found = [
            Listed(entry["Key"].removeprefix(self.prefix), entry["Size"], entry["LastModified"])
            for entry in answer.get("Contents", ())
        ]
        return found, answer["NextContinuationToken"] if answer.get("IsTruncated") else None

    def _delete(self, keys: Sequence[str]) -> None:
        # Quiet: the answer names what failed and not the thousand keys that did not.
        names = {"Objects": [{"Key": self.prefix + key} for key in keys], "Quiet": True}
        answer = self.filesystem.call_s3("delete_objects", Bucket=self.bucket, Delete=names)
        for failed in answer.get("Errors", ()):
            if failed.get("Code") != "NoSuchKey":
                raise OSError(f"{failed.get('Key')} could not be deleted: {failed.get('Code')}")


class GCSObjects(BucketObjects):
    """Google Cloud Storage. The tag of a version is its generation, a number that grows (cloud.google.com/storage/docs/request-preconditions)."""

    def _get(self, key: str, max_bytes: int) -> Stored:
        name = self.prefix + key
        # Two requests, since the generation must be known before the bytes are asked for.
        about = self.filesystem.call("GET", "b/{}/o/{}", self.bucket, name, json_out=True)
        check_size(f"{self.shown_url}/{key}", int(about["size"]), max_bytes)
        # Of this generation, or the bytes could be those of a later version than the tag.
        _, data = self.filesystem.call(
            "GET", "b/{}/o/{}", self.bucket, name, alt="media", generation=about["generation"]
        )
        return Stored(data, about["generation"])

    def _put(self, key: str, data: bytes, tag: str | None) -> str:
        condition = {} if tag is None else {"ifGenerationMatch": tag or "0"}
        # gcsfs has a put for "create" only (simple_upload, mode), none for a given generation; this is the request that it sends,
        # with a boundary that no data can hold by chance or on purpose.
        boundary = secrets.token_hex(16)
        about = f"--{boundary}\nContent-Type: application/json; charset=UTF-8\n\n{json.dumps({'name': self.prefix + key})}\n"
        body = (
            f"{about}--{boundary}\nContent-Type: application/octet-stream\n\n".encode()
            + data
            + f"\n--{boundary}--".encode()
        )
        try:
            answer = self.filesystem.call(
                "POST",
                f"{self.filesystem._location}/upload/storage/v1/b/{quote(self.bucket)}/o",
                uploadType="multipart",
                headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
                data=body,
                json_out=True,
                **condition,
            )
        except FileExistsError as error:  # what gcsfs makes of status 412
            raise Conflict(key) from error
        return str(answer["generation"])

    def _listing(self, prefix: str, page: str) -> tuple[list[Listed], str | None]:
        more = {"pageToken": page} if page else {}
        answer = self.filesystem.call("GET", "b/{}/o", self.bucket, prefix=self.prefix + prefix, json_out=True, **more)
        found = [
            Listed(
                entry["name"].removeprefix(self.prefix), int(entry["size"]), datetime.fromisoformat(entry["updated"])
            )
            for entry in answer.get("items", ())
        ]
        return found, answer.get("nextPageToken")

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:  # the JSON API deletes one object a request
            try:
                self.filesystem.call("DELETE", "b/{}/o/{}", self.bucket, self.prefix + key)
            except FileNotFoundError:
                continue


class OtherObjects(Objects):
    """Any other file system of fsspec, by the operations that all of them have.

    None has a swap, so machines do not share leases there: both may do the same work, and whoever commits first counts.
    `memory://`, which tests use, is one process's: there a lock makes the conditional put whole.
    """

    locks: ClassVar[dict[str, Any]] = {}

    def __init__(self, filesystem: Any, root: str, shown_url: str) -> None:
        super().__init__(filesystem, root, shown_url)
        # memory:// is one process, where the lock below is all that is needed.
        self.can_swap = filesystem.protocol == "memory"
        self.lock = self.locks.setdefault(self.root, threading.RLock())

    def _get(self, key: str, max_bytes: int) -> Stored:
        check_size(f"{self.shown_url}/{key}", self.filesystem.size(self.address(key)), max_bytes)
        data = self.filesystem.cat_file(self.address(key))
        return Stored(data, hashlib.sha256(data).hexdigest())

    def _put(self, key: str, data: bytes, tag: str | None) -> str:
        # Between machines nothing holds this lock, which is why `can_swap` is false but for memory.
        with self.lock:
            self._check(key, tag)
            self.filesystem.makedirs(self.address(key).rpartition("/")[0], exist_ok=True)
            self.filesystem.pipe_file(self.address(key), data)
        return hashlib.sha256(data).hexdigest()

    def _check(self, key: str, tag: str | None) -> None:
        if tag is None:
            return
        is_there = self.filesystem.exists(self.address(key))
        if (
            is_there
            if not tag
            else not is_there or hashlib.sha256(self.filesystem.cat_file(self.address(key))).hexdigest() != tag
        ):
            raise Conflict(key)

    def _download(self, key: str, path: Path, max_bytes: int) -> None:
        check_size(f"{self.shown_url}/{key}", self.filesystem.size(self.address(key)), max_bytes)
        self.filesystem.get_file(self.address(key), str(path))

    def upload(self, path: Path, key: str) -> None:
        """Write a file as an object; its folder is made."""
        self._call(lambda: self.filesystem.makedirs(self.address(key).rpartition("/")[0], exist_ok=True))
        super().upload(path, key)

    def _listing(self, prefix: str, page: str) -> tuple[list[Listed], str | None]:
        folder = self.address(prefix).rpartition("/")[0]
        entries = self.filesystem.find(folder, detail=True)
        found = [
            Listed(path.removeprefix(self.address("")), entry["size"] or 0, _modified(entry))
            for path, entry in entries.items()
        ]
        # A prefix need not end at a folder: step-0000 is one of step-00000012.json.
        return [entry for entry in found if entry.key.startswith(prefix)], None

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                self.filesystem.rm_file(self.address(key))
            except FileNotFoundError:
                continue


def open_objects(url: str) -> Objects:
    """The objects under a URL. Raises UserError where its protocol is unknown, or its package is not installed."""
    scheme, shown_url = url.partition("://")[0], redact_url(url)
    # Before the first request, since fsspec keeps one instance for each set of options.
    options: dict[str, Any] = {"config_kwargs": S3_CONFIG} if scheme in ("s3", "s3a") else {}
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        extra = {"s3": " (pip install 'crawl2chat[s3]')", "gs": " (pip install 'crawl2chat[gs]')"}.get(scheme, "")
        raise UserError(
            f"the store {shown_url} cannot be used ({redact_text(str(error))}){extra}: name a folder or another URL with CRAWL2CHAT_STORE"
        ) from None
    kind: type[Objects] = {"s3": S3Objects, "s3a": S3Objects, "gs": GCSObjects, "gcs": GCSObjects}.get(
        scheme, OtherObjects
    )
    return kind(filesystem, root, shown_url)


def _modified(entry: dict[str, Any]) -> datetime:
    time = entry.get("created") or entry.get("mtime") or entry.get("LastModified")
    return time if isinstance(time, datetime) else datetime.fromtimestamp(time or 0, UTC)
