"""CPU seconds and memory of 1 MB of hostile text in each step that reads texts: language, quality rules, personal data, redaction.

    python -m tests.benchmarks.hostile_texts [NAME ...]

Each text is one piece repeated, and runs in a separate process. The bound is 2 s and 500 MB for all steps together.
"""

import itertools
import os
import resource
import sys
import time
from collections.abc import Callable

from tasks.filter import quality
from tasks.filter.quality import TextRules
from tasks.pii import detect as pii
from tasks.redaction import redact_text
from tasks.web import language_id
from tests.benchmarks.harness import machine, print_table

MAX_SECONDS, MAX_BYTES = 2.0, 500e6
NUM_CHARACTERS = 1_000_000
PIECES = {
    **{
        name: name
        for name in (
            "a",
            "0",
            "A",
            "@",
            ".",
            "[",
            "-",
            "'",
            "_",
            "%",
            "€",
            "+1",
            "0.",
            "::",
            "a:",
            "a.",
            "a-",
            "中",
            "ก",
        )
    },
    **{
        name: name
        for name in (
            "word ",
            "1 ",
            "4111 ",
            "AB12 ",
            "GB82 WEST ",
            "1 Aa ",
            "a@a.co",
            "8.8.8.8 ",
            "2a00:1450:",
            "</s> ",
        )
    },
    **{
        name: name
        for name in ("P.O. Box 1 ", "tr. 1 ", "1 rue a ", "1 Main Street, ", "tel 0123456789 ", "jane@example.com ")
    },
    **{name: name for name in ("[{(", "https://", "a b c d e ", "eyJ", "token=", "visa 4111 ", "ssn 1 ", "call 1 ")},
    **{name: name for name in ("1 1 A ", "1 1 A St ", "1 A A A A ", "1 2 3 4 Aa Aa Aa Aa Aa Aa Aa Aa Aa Aa Aa Aa x ")},
    "postcodes far apart": "1 1 A " * 90 + "1234 ",
    "split towns": "1 A A A A A, A A A A A, A, W1 1AA ",
    "spaces": " ",
    "no-break spaces": "\u00a0",
    "line feeds": "\n",
    "line separators": "\u2028",
    "combining marks": "\u0301\u0327",
    "letters with a mark": "x\u0301",
    "joiners": "\u200d",
    "emoji": "😀",
    "nulls": "\0",
    "long words": "b" * 1500 + " ",
    "braces on lines": "{\n",
    "bullets": "- a\n",
    "hashes": "#\n",
    "policies": "lorem ipsum javascript use cookies terms of use\n",
}


def steps() -> dict[str, Callable[[str], object]]:
    """What is done with a text, by name."""
    model = language_id.load_model(language_id.find_model())
    return {
        "language": lambda text: language_id.identify(text, model),
        "quality": lambda text: quality.compute_attributes(text, "en", TextRules()),
        "personal data": lambda text: pii.find(text, pii.FINDERS),
        "redaction": redact_text,
    }


def cost(text: str) -> list[float]:
    """Seconds of each step, then the bytes that memory grew by, measured in a separate process."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        return [float(number) for number in answer.split()]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = [time.process_time()]
    for step in steps().values():
        step(text)
        times.append(time.process_time())
    seconds = [after - start for start, after in itertools.pairwise(times)]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    os.write(writing, " ".join(map(str, [*seconds, grown])).encode())
    os._exit(0)


def main() -> None:
    names = list(steps())
    rows, worst = [], 0.0
    for name, piece in PIECES.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        *seconds, grown = cost(piece * (NUM_CHARACTERS // len(piece)))
        is_over = sum(seconds) > MAX_SECONDS or grown > MAX_BYTES
        worst = max(worst, sum(seconds))
        rows.append(
            (
                repr(name),
                *(f"{value:.2f}" for value in (*seconds, sum(seconds))),
                f"{grown / 1e6:.0f}",
                "over" if is_over else "",
            )
        )
    print_table(
        "1 MB of hostile text: CPU seconds", ("text", *names, "all", "MB", f"above {MAX_SECONDS:g} s or {MAX_BYTES / 1e6:g} MB"), rows,
        f"At most {worst:.2f} s. {machine()}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
