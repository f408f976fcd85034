"""Size and documentation of the source: files, functions, comments, docstrings, of this checkout and of others given as arguments.

    python -m tests.benchmarks.code_size [CHECKOUT ...]

Counts flows, tasks and model; a function's lines are those of its body with its signature, docstring included. Comments per 100 lines
count lines of # comments and of docstrings, since both explain.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.benchmarks.harness import ROOT, print_table

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """What is counted in one checkout."""

    files: list[int]  # lines of each file
    functions: list[int]  # lines of each function
    num_comments: int  # comment lines
    num_docstring_lines: int
    num_public: int  # public modules, classes, functions and methods
    num_documented: int  # those of them with a docstring


def main(checkouts: list[Path]) -> None:
    """Print one column per checkout."""
    names = ["this checkout" if checkout == ROOT else checkout.name for checkout in checkouts]
    columns = [figures(read_source(checkout)) for checkout in checkouts]
    rows = [[label, *(column[label] for column in columns)] for label in columns[0]]
    print_table("Size and documentation of the source", ["", *names], rows)


def read_source(checkout: Path) -> Source:
    """Count the Python files of flows, tasks and model."""
    source = Source([], [], 0, 0, 0, 0)
    for top in ("flows", "tasks", "model"):
        for path in sorted((checkout / top).rglob("*.py")):
            source = _count(source, path.read_text(encoding="utf-8"))
    return source


def _count(source: Source, text: str) -> Source:
    tree = ast.parse(text)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    documented = [tree, *public_definitions(tree)]
    docstrings = [ast.get_docstring(node) for node in documented]  # type: ignore[arg-type]
    functions = [
        node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    return Source(
        [*source.files, text.count("\n")],
        [*source.functions, *functions],
        source.num_comments + sum(token.type == tokenize.COMMENT for token in tokens),
        source.num_docstring_lines + sum(docstring.count("\n") + 1 for docstring in docstrings if docstring),
        source.num_public + len(documented),
        source.num_documented + sum(docstring is not None for docstring in docstrings),
    )


def public_definitions(scope: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """The classes, functions and methods that other modules may use; those within a function do not count."""
    for node in scope.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


def figures(source: Source) -> dict[str, str]:
    """The counts as text, by label."""
    lines = sum(source.files)
    return {
        "files": f"{len(source.files):,}",
        "lines": f"{lines:,}",
        "lines of a file: median, 90th percentile, longest": _quantiles(source.files),
        "lines of a function: median, 90th percentile, longest": _quantiles(source.functions),
        "comment lines per 100 lines": f"{100 * source.num_comments / lines:.1f}",
        "comment and docstring lines per 100 lines": f"{100 * (source.num_comments + source.num_docstring_lines) / lines:.1f}",
        "public definitions with a docstring": f"{source.num_documented / source.num_public:.0%} of {source.num_public:,}",
    }


def _quantiles(values: list[int]) -> str:
    return f"{np.quantile(values, 0.5):.0f}, {np.quantile(values, 0.9):.0f}, {max(values)}"


if __name__ == "__main__":
    main([Path(argument).resolve() for argument in sys.argv[1:]] or [ROOT])
