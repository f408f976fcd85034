"""Recipe files: what is read, what is written, and the one line with file and line number that a mistake gets."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from flows import recipe_files
from flows.recipe_files import MAX_BYTES, parse
from flows.recipes import BUILTIN, RECIPES, Recipe, from_text, load, make_recipe
from model.config import Config, num_parameters
from model.errors import UserError
from model.planning.presets import PRESETS


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", RECIPES)
def test_printed_recipe_is_the_recipe(name: str) -> None:
    text = recipe_files.write(load(name), "heading\nof two lines", leave_out=frozenset({"name"}))
    assert from_text(parse(text, "printed.yaml"), name) == load(name)
    assert from_text(parse(recipe_files.write(load(name), comments=False), "plain.yaml"), "other") == load(name)


def test_printed_recipe_explains_every_setting() -> None:
    lines = recipe_files.write(load("tiny")).splitlines()
    settings = [number for number, line in enumerate(lines) if line.strip() and not line.strip().startswith("#")]
    unexplained = [lines[number] for number in settings if not lines[number - 1].strip().startswith("#")]
    assert not unexplained


def test_every_builtin_recipe_is_a_file_and_no_other_is() -> None:
    assert {path.stem for path in BUILTIN.iterdir()} == set(RECIPES)


def test_header_of_tiny_states_its_numbers() -> None:
    recipe, header = load("tiny"), (BUILTIN / "tiny.yaml").read_text()
    stated = {int(number.replace(",", "")) for number in re.findall(r"\d{1,3}(?:,\d{3})+", header)}
    parameters = num_parameters(recipe.pretrain.model.with_vocabulary(recipe.tokenizer.vocab_size))
    tokens = recipe.pretrain.train.num_steps * recipe.pretrain.train.batch_tokens
    assert stated == {recipe.ingest.sample.num_articles, parameters, tokens}


def test_gpt2_has_the_model_and_the_optimizer_of_its_preset() -> None:
    assert load("gpt2").pretrain.model == PRESETS["gpt2"].model.shape
    assert load("gpt2").pretrain.optim == PRESETS["gpt2"].optim


def test_tiny_is_every_default() -> None:
    assert load("tiny") == Recipe()


def test_file_extends_another_file_and_changes_only_what_it_names(tmp_path: Path) -> None:
    write(tmp_path / "lab.yaml", "extends: small\nfilter:\n  language_threshold: 0.8\nsft:\n")
    recipe = load(write(tmp_path / "my run.yaml", "extends: lab.yaml\npretrain: {train: {num_steps: 7}}\n"))
    assert recipe.name == "my-run"
    assert recipe.filter.language_threshold == 0.8
    assert recipe.pretrain.train == load("small").pretrain.train.model_copy(update={"num_steps": 7})
    assert recipe.ingest == load("small").ingest


def test_file_without_extends_extends_tiny_and_an_empty_one_is_tiny(tmp_path: Path) -> None:
    assert load(write(tmp_path / "empty.yaml", "")) == load("tiny").model_copy(update={"name": "empty"})
    named = make_recipe(write(tmp_path / "a.yml", "name: mine\nworld_seed: 3\n"), settings=["sft.num_conversations=9"])
    assert (named.name, named.world_seed, named.sft.num_conversations) == ("mine", 3, 9)


def test_text_of_a_form_is_a_recipe() -> None:
    recipe = make_recipe("tiny", text="extends: small\nname: nightly\nfilter: {languages: [no, de]}\n")
    assert (recipe.name, recipe.ingest, recipe.filter.languages) == ("nightly", load("small").ingest, ["no", "de"])
    with pytest.raises(UserError, match=r"^recipe:1: extends: there is no recipe './other.yaml'"):
        make_recipe("tiny", text="extends: ./other.yaml\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "extends: tiny\npretrain:\n  train:\n    num_stepz: 3\n",
            "4: pretrain.train.num_stepz: unknown field; did you mean num_steps?",
        ),
        ("pretrian: {}\n", "1: pretrian: unknown field; did you mean pretrain?"),
        ("sft:\n  world_seed: 3\n", "2: sft.world_seed: unknown field; did you mean world_seed?"),
        ("\n\nfilter:\n  xyzzy: 1\n", "4: filter.xyzzy: unknown field"),
        (
            "filter: {languages: [en],\n  language_threshold: 3}\n",
            "2: filter.language_threshold: Input should be less than or equal to 1 (given: 3)",
        ),
        ("pretrain:\n  train:\n    num_steps: many\n", "3: pretrain.train.num_steps: .*integer.* (given: 'many')"),
        ("dedup:\n  eval_sets:\n    - a\n    - 7\n", "4: dedup.eval_sets.1: .*string.* (given: 7)"),
        ("pretrain: 5\n", "1: pretrain: .*dictionary.* (given: 5)"),
        ("pretrain:\n  train: {num_steps: 0}\n", "1: pretrain: train.num_steps=0 uses a model unchanged"),
        ("filter:\n  language_threshold: .nan\n", "2: filter.language_threshold: .*number"),
        ("filter:\n  language_threshold: nan\n", "2: filter.language_threshold: .*finite"),
        ("world_seed: " + "9" * 5000, "1: world_seed: .*integer.* (given: '9{79}...)"),
        (
            "extends: huge\n",
            "1: extends: there is no recipe 'huge': take one of tiny, tools, reasoning, gaming, lab, small, gpt2, study",
        ),
        ("extends: [tiny]\n", "1: extends: there is no recipe ['tiny']"),
        ("name: a/b\n", "1: name: .*pattern"),
        ("sft: {}\nsft: {}\n", "2: sft is set twice: remove one"),
        ("a: &a [1]\nb: *a\n", "1: anchors (&) and aliases (*) are not read"),
        ("sft: *x\n", "1: anchors (&) and aliases (*) are not read"),
        ("sft: !!python/object/apply:os.system [id]\n", "1: tags (!) are not read"),
        ("? [a]\n: 1\n", "1: a key is the name of a setting"),
        ("- tiny\n", "1: settings are a mapping"),
        ("tiny\n", "1: settings are a mapping"),
        ("sft: [\n", "2: not YAML"),
        ("sft:\n\tnum: 1\n", "2: not YAML"),
        ("a: 1\n---\nb: 1\n", "2: not YAML"),
        ("sft: \x01\n", "1: not YAML"),
        ("a: " + "[" * 100_000, "1: nested more than 12 deep"),
        ("a: " + "{a: " * 40_000, "1: nested more than 12 deep"),
        ("# " + "x" * MAX_BYTES, "1: the file is larger than 200,000 bytes"),
        ("<<: {sft: {}}\n", "1: <<: unknown field"),
    ],
)
def test_mistake_is_one_line_with_file_and_line_number(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "my.yaml", text)
    with pytest.raises(UserError) as error:
        load(path)
    printed = str(error.value)
    pattern = re.escape(f"{path}:{message}").replace(r"\.\*", ".*").replace(r"9\{79\}", "9{79}")
    assert re.match(pattern, printed), printed
    assert "\n" not in printed
    assert len(printed) < len(path) + 300


def test_bomb_of_aliases_is_refused_before_it_is_built(tmp_path: Path) -> None:
    layers = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    path = write(tmp_path / "bomb.yaml", "a0: &a0 [x, x]\n" + "\n".join(layers))
    with pytest.raises(UserError, match=r"bomb.yaml:1: anchors"):
        load(path)


def test_files_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: a.yaml\n")
    with pytest.raises(UserError, match=r"a.yaml:1: extends: 8 files extend each other"):
        load(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(("content", "line"), [(b"\xff\xfes\x00", 1), (b"# ok\nsft: \xe9\n", 2)])
def test_file_that_is_not_utf8_is_named(tmp_path: Path, content: bytes, line: int) -> None:
    (tmp_path / "my.yaml").write_bytes(content)
    with pytest.raises(UserError, match=rf"my.yaml:{line}: the file is not UTF-8"):
        load(str(tmp_path / "my.yaml"))


def test_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_bytes(b"\xef\xbb\xbfworld_seed: 2\n")
    assert load(str(tmp_path / "my.yaml")).world_seed == 2


@pytest.mark.parametrize("path", ["nowhere.yaml", ".", "a\0b.yaml", "x" * 300 + ".yaml"])
def test_file_that_cannot_be_read_is_one_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load(f"{tmp_path}/{path}")


class Texts(Config):
    text: str = ""
    texts: tuple[str, ...] = ()
    numbers: dict[str, float] = Field({})


@given(
    st.builds(
        Texts,
        text=st.text(),
        texts=st.lists(st.text()).map(tuple),
        numbers=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    )
)
def test_written_values_are_read_back(config: Texts) -> None:
    assert Texts.model_validate(parse(recipe_files.write(config), "texts.yaml").values) == config
