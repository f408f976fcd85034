"""The project's language: retired words do not come back, in names, docstrings, comments, messages, help texts and READMEs.

Each word below was once used for something that the field has a better word for. The fictional prose of the sample web is text that
models learn from, and is not checked.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [path for top in ("flows", "tasks", "model") for path in sorted((ROOT / top).rglob("*.py"))]
READMES = sorted(path for path in ROOT.rglob("README.md") if ".venv" not in path.parts)
FICTION = ROOT / "tasks/sample_web"

# retired phrase -> what to write instead
PHRASES = {
    r"told": "logged, reported, returned",
    r"tells? (?:what|how|who|whether|the|of|itself)": "log, report, show",
    r"goes on|go on|going on|went on": "resume, continue",
    r"held against|held to it": "compared with",
    r"fore(?:tell|told|tells|telling)": "predict",
    r"judge[sd]?|judging": "reward model, evaluate",
    r"a look": "prefilter, check",
    r"sieve[sd]?": "filter, writer",
    r"troubles?": "error, reason",
    r"anew": "again",
    r"beside": "next to, compared with",
    r"what there is": "say what it is",
    r"(?-i:there is none|is none|are none)": "is missing, does not exist",
    r"of (?:its|their|our) own": "own, separate",
    r"for the eye": "to read",
    r"in hand": "current",
    r"quicken(?:s|ed)?": "patch, speed up",
    r"nobody knows": "unknown",
    r"comes? of it": "results",
}
NAMES = {
    "told", "tell", "sieve", "look", "quicken", "judge", "judged", "trouble", "foretell", "foretold", "listener", "listening", "laid", "pace"
}  # fmt: skip


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """The comments and string constants of a module, with their line numbers. f-strings give their constant parts."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def names_of(path: Path) -> Iterator[tuple[int, str]]:
    """The identifiers of a module, except attributes: those may be a library's, such as tell() of a file."""
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.NAME and before != ".":
            yield token.start[0], token.string
        before = token.string


def retired_phrases(text: str) -> list[str]:
    flat = re.sub(r"\s+", " ", text)
    return [
        f"{match[0]!r} (write: {plain})"
        for phrase, plain in PHRASES.items()
        for match in re.finditer(rf"\b(?:{phrase})\b", flat, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_uses_no_retired_word(path: Path) -> None:
    found = [f"line {line}: the name {name}" for line, name in names_of(path) if NAMES & set(name.lower().split("_"))]
    if FICTION not in path.parents:
        found += [f"line {line}: {phrase}" for line, text in prose_of(path) for phrase in retired_phrases(text)]
    assert found == []


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readme_uses_no_retired_word(path: Path) -> None:
    # A quoted line holds what a model wrote.
    ours = re.sub(r"^>.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert retired_phrases(ours) == []


def test_check_finds_retired_words() -> None:
    assert retired_phrases("The cache goes\n on beside it") == [
        "'goes on' (write: resume, continue)",
        "'beside' (write: next to, compared with)",
    ]
