"""JSON Lines as people have them: any Unicode encoding, with or without a byte order mark, gzip or not, any line end.

Reads one file, writes nothing. Whatever is in the file, the values come out or a `UserError` names the file, the line and the
remedy. A line has at most MAX_LINE_BYTES, so a file without line ends cannot fill the memory.

A file that is one JSON array is read too, if it has at most MAX_ARRAY_CHARACTERS: its elements are then numbered like lines.
"""

import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from model.errors import UserError
from model.tokenizer.chat import SURROGATE, whole_characters

MAX_LINE_BYTES = 1 << 24
MAX_ARRAY_CHARACTERS = 1 << 29
GZIP = b"\x1f\x8b"
BINARY = {b"PAR1": "Parquet", b"PK\x03\x04": "ZIP", b"ARROW1": "Arrow", b"\x28\xb5\x2f\xfd": "Zstandard"}
HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that may be half of a surrogate pair
BYTE_ORDER_MARK = "\ufeff"
ARRAY_REMEDY = "write one record a line (jq -c '.[]' FILE)"


class _Refused(ValueError):
    """Valid for Python's parser, refused here."""


def read_values(path: Path, on_error: Callable[[int, UserError], None] | None = None) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not blank, with its line number from 1. Raises UserError.

    `on_error` is called for a line that cannot be parsed, and the next one is read; without it the error is raised. Damage of the file
    raises in any case.
    """
    lines = ((number, text) for number, line in _lines(path) if (text := _trimmed(line)))
    first = next(lines, None)
    if first is None:
        return
    if _begins_an_array(first[1]):
        yield from enumerate(_array(path, itertools.chain([first], lines)), 1)
        return
    for number, text in itertools.chain([first], lines):
        try:
            value = parse(text, f"{shown(path)}:{number}")
        except UserError as error:
            if on_error is None:
                raise
            on_error(number, error)
        else:
            yield number, value


def _trimmed(line: str) -> str:
    return line.strip(BYTE_ORDER_MARK + " \t\r\n")  # a mark can stand within, where files were joined


def _begins_an_array(text: str) -> bool:
    """Whether the first line of a file is not a record but the beginning of an array of them."""
    if not text.startswith("["):
        return False
    try:
        return not _is_messages(json.loads(text))
    except (ValueError, RecursionError):
        return text == "[" or text.removeprefix("[").lstrip().startswith("{")


def _is_messages(value: Any) -> bool:
    """Whether a list is a conversation by itself, as some files have one a line."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) and "role" in item for item in value)
    )


def _array(path: Path, lines: Iterator[tuple[int, str]]) -> list[Any]:
    texts, num_characters = [], 0
    for number, text in lines:
        texts.append(text)
        num_characters += len(text)
        if num_characters > MAX_ARRAY_CHARACTERS:
            raise UserError(
                f"{shown(path)}:{number}: the array has more than {MAX_ARRAY_CHARACTERS:,} characters; {ARRAY_REMEDY}"
            )
    return list(_parsed("\n".join(texts), shown(path)))


def parse(text: str, place: str) -> Any:
    """The JSON value of a line: an object, or a list of messages. Raises UserError, which begins with `place`."""
    value = _parsed(text, place)
    if isinstance(value, list) and not _is_messages(value):
        raise UserError(f"{place}: an array, not an object; {ARRAY_REMEDY}")
    return value


def _parsed(text: str, place: str) -> Any:
    if SURROGATE.search(text):  # a byte that is not UTF-8, see _utf8_lines
        raise UserError(f"{place}: not text in UTF-8; save the file as UTF-8")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if HALF_CHARACTER.search(text):
            value = json.loads(whole_characters(json.dumps(value, ensure_ascii=False)))
    except json.JSONDecodeError as error:
        remedy = ARRAY_REMEDY if text.startswith("[") else "write one record a line (jq -c . FILE)"
        raise UserError(f"{place}: not valid JSON at column {error.colno}, {error.msg}; {remedy}") from None
    except RecursionError:
        raise UserError(f"{place}: nested too deeply; write the text as one string") from None
    except _Refused as error:
        raise UserError(f"{place}: {error}") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise UserError(f"{place}: a number has too many digits; write it as a string") from None
    return value


def shown(path: Path) -> str:
    """A path for an error: one line, without control characters or bytes that are not UTF-8."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with path.open("rb") as file, _decompressed(file) as stream:
            start = stream.peek(8)[:8]
            for magic, name in BINARY.items():
                if start.startswith(magic):
                    raise UserError(f"{shown(path)} is a {name} file; convert it to JSON Lines in UTF-8")
            encoding = json.detect_encoding(start)
            lines = _utf8_lines(stream) if encoding.startswith("utf-8") else _text_lines(stream, encoding)
            for number, line in enumerate(lines, 1):
                yield number, line
    except UnicodeDecodeError as error:
        place = f"{shown(path)}:{number + 1}"
        raise UserError(f"{place}: not text in {error.encoding.upper()}; save the file as UTF-8") from None
    except _Refused as error:
        raise UserError(f"{shown(path)}:{number + 1}: {error}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        place = f"{shown(path)}:{number + 1}"
        raise UserError(f"{place}: the gzip data is damaged ({error}); fetch or compress the file again") from None
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None


def _decompressed(file: io.BufferedReader) -> io.BufferedReader:
    if file.peek(2)[:2] == GZIP:
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    return file


def _utf8_lines(stream: IO[bytes]) -> Iterator[str]:
    """Line by line. A byte that is not UTF-8 becomes a lone surrogate, so that it is an error of its line and not of the file."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        _check_length(line)
        yield line.decode("utf-8", "surrogateescape")


def _text_lines(stream: io.BufferedReader, encoding: str) -> Iterator[str]:
    """UTF-16 and UTF-32, where a line feed is not one byte."""
    text = io.TextIOWrapper(stream, encoding=encoding, newline="\n")
    while line := text.readline(MAX_LINE_BYTES + 1):
        _check_length(line)
        yield line


def _check_length(line: bytes | str) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise _Refused(f"longer than {MAX_LINE_BYTES:,} bytes; write one record a line")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two values of one field is meant, nobody can know; Python would take the last."""
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Refused(f"the field {json.dumps(twice)[:80]} occurs twice in one object; keep one of them")
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not JSON; write a number, a string or null")
