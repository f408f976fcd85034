"""The data files of the sample web: tables of names and phrases (data/*.yaml) and page templates (data/pages/*.j2).

Reads package data; writes nothing. Whoever wants another world edits these files: the generator knows no name, relation or phrase of
the world. Values are used in the order of their files, so that the same files and seed give the same web.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
import yaml

FOLDER = files("tasks.sample_web") / "data"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it, is ten times faster


@cache
def table(name: str) -> dict[str, Any]:
    """The table `name`.yaml; of a folder, the tables of all its files together, in the order of their names."""
    merged: dict[str, Any] = {}
    for file in _files(FOLDER / name if (FOLDER / name).is_dir() else FOLDER / f"{name}.yaml"):
        merged |= yaml.load(file.read_text(encoding="utf-8"), LOADER)  # noqa: S506 - both loaders are safe
    return merged


def _files(place: Traversable) -> Iterator[Traversable]:
    yield from sorted(place.iterdir(), key=lambda file: file.name) if place.is_dir() else (place,)


@cache
def page_templates() -> jinja2.Environment:
    """The page templates. Every value is escaped unless it is marked as markup; a misspelt name in a template is an error."""
    loader = jinja2.FunctionLoader(lambda name: (FOLDER / "pages" / name).read_text(encoding="utf-8"))
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=False
    )
