"""Masked decoding: whatever a model prefers, the output is valid, and every valid output stays possible."""

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.serve import grammar as grammar_module
from model.serve.errors import ApiError
from model.serve.grammar import Grammar, GrammarMask, GrammarTooLarge, Vocabulary
from model.serve.json_schema import any_object, choices, schema_grammar
from model.tokenizer.chat import ChatTokenizer
from model.tokenizer.pieces import token_pieces
from tests.support.tiny_models import write_tokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["a", "ö", 3, None]}, "minItems": 1, "maxItems": 2},
        "weight": {"anyOf": [{"type": "null"}, {"type": "number"}]},
        "next": {"$ref": "#/$defs/point"},
    },
    "required": ["name", "tags"],
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}},
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def vocabulary(tokenizer: ChatTokenizer) -> Vocabulary:
    return Vocabulary(token_pieces(tokenizer))


def walk(grammar: Grammar, tokenizer: ChatTokenizer, seed: int, num_tokens: int = 300) -> str | None:
    """The text of random allowed tokens; None where it did not end."""
    draws, mask, tokens = random.Random(seed), GrammarMask(grammar, [tokenizer.turn_end]), list[int]()
    for _ in range(num_tokens):
        allowed = mask.allowed().nonzero().flatten().tolist()
        assert allowed, "a completion must always have a next token"
        if tokenizer.turn_end in allowed and draws.random() < 0.7:
            return tokenizer.decode(tokens)
        # Closing marks more often, or strings would not end.
        closing = [token for token in allowed if tokenizer.decode([token]) in ('"', "}", "]")]
        token = draws.choice(closing if closing and draws.random() < 0.3 else allowed)
        tokens.append(token)
        mask.accept(token)
    return None


def test_random_walks_are_valid_under_their_schema(tokenizer: ChatTokenizer, vocabulary: Vocabulary) -> None:
    grammar = Grammar(schema_grammar(PERSON, "guided_json"), vocabulary)
    texts = [text for seed in range(150) if (text := walk(grammar, tokenizer, seed))]
    assert len(texts) > 100
    for text in texts:
        jsonschema.validate(json.loads(text), PERSON)
    seen = {name for text in texts for name in json.loads(text)}
    assert seen == set(PERSON["properties"])  # type: ignore[call-overload]


def test_any_object_gives_json(tokenizer: ChatTokenizer, vocabulary: Vocabulary) -> None:
    grammar = Grammar(any_object(), vocabulary)
    texts = [text for seed in range(60) if (text := walk(grammar, tokenizer, seed))]
    assert len(texts) > 20
    assert all(isinstance(json.loads(text), dict) for text in texts)


def accepts(grammar: Grammar, tokenizer: ChatTokenizer, text: str) -> bool:
    """Whether the tokens of a text are allowed one after the other, and it may end after them."""
    mask = GrammarMask(grammar, [tokenizer.turn_end])
    for token in tokenizer.encode(text):
        if not mask.allowed()[token]:
            return False
        mask.accept(token)
    return bool(mask.allowed()[tokenizer.turn_end])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text("ab", max_size=2), values, max_size=2),
    max_leaves=4,
)


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.text('abö"\\\n', max_size=3), VALUES, max_size=2))
def test_json_object_is_accepted(tokenizer: ChatTokenizer, vocabulary: Vocabulary, value: dict[str, Any]) -> None:
    deepest = json.dumps(value).replace("[", "{").count("{")
    if deepest > 4:
        return
    grammar = Grammar(any_object(), vocabulary)
    # The two ways in which Python writes JSON, escaped and not.
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))):
        # A lone control character of U+007F is escaped by nobody, and left out of the grammar.
        if "\x7f" not in text and "\\ud" not in text:
            assert accepts(grammar, tokenizer, text), text


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=12))
def test_text_that_is_no_json_is_not_accepted(tokenizer: ChatTokenizer, vocabulary: Vocabulary, text: str) -> None:
    try:
        is_object = isinstance(json.loads(text), dict)
    except ValueError:
        is_object = False
    if not is_object:
        assert not accepts(Grammar(any_object(), vocabulary), tokenizer, text)


def test_choices_accept_exactly_the_choices(tokenizer: ChatTokenizer, vocabulary: Vocabulary) -> None:
    grammar = Grammar(choices(["yes", "yes, I do", "nö"]), vocabulary)
    assert all(accepts(grammar, tokenizer, text) for text in ("yes", "yes, I do", "nö"))
    assert not any(accepts(grammar, tokenizer, text) for text in ("", "ye", "yes,", "no", "yes "))
    assert {walk(grammar, tokenizer, seed) for seed in range(30)} == {"yes", "yes, I do", "nö"}


def test_many_choices_with_one_beginning_are_few_places(tokenizer: ChatTokenizer, vocabulary: Vocabulary) -> None:
    texts = [f"word {number}" for number in range(1500)]
    grammar = Grammar(schema_grammar({"enum": texts}, "guided_json"), vocabulary)
    assert all(accepts(grammar, tokenizer, json.dumps(text)) for text in texts)
    assert not any(accepts(grammar, tokenizer, text) for text in ('"word 1500"', '"word "', '"word 12', '"word 0123"'))
    assert max(map(len, grammar.places)) <= 11  # ten digits, or the end


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string", "pattern": "a+"}, "'pattern' is not supported"),
        ({"type": "integer", "minimum": 3}, "'minimum' is not supported"),
        ({"type": "robot"}, "type 'robot' is unknown"),
        ({"$ref": "#/$defs/none"}, "there is no '#/\\$defs/none'"),
        ({"$ref": "https://example.org/schema"}, "references into the schema"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "nested deeper"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "'b' is not among the properties"),
        ({"enum": []}, "enum must be a list"),
        ({"type": "string", "maxLength": 10**9}, "maxLength must be"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "less than minItems"),
        ({"properties": {str(number): {} for number in range(500)}}, "at most 128"),
        ({"anyOf": [{"anyOf": [{}] * 100}] * 100}, "larger than"),
        ({"items": 3, "type": "array"}, "a schema is an object"),
        ({"type": "object", "properties": {}, "anyOf": [{"type": "null"}]}, "'properties' next to 'anyOf'"),
        ({"type": "object", "anyOf": [{"type": "null"}]}, "'type' next to 'anyOf'"),
        ({"anyOf": [{"const": 3}], "oneOf": [{"const": 4}]}, "'oneOf' next to 'anyOf'"),
        ({"$ref": "#/$defs/x", "enum": [2], "$defs": {"x": {"const": 1}}}, "'enum' next to '\\$ref'"),
        ({"enum": ["a", "bc"], "minLength": 2}, "'minLength' next to 'enum'"),
        ({"type": "string", "enum": [7]}, "together allow no value"),
        ({"type": "integer", "const": True}, "together allow no value"),
        ({"const": 1, "enum": [2]}, "together allow no value"),
        ({"anyOf": []}, "anyOf must be a list"),
    ],
)
def test_schema_that_cannot_be_kept_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        schema_grammar(schema, "guided_json")
    assert caught.value.status == 400


KINDS = [{"type": "object", "properties": {"kind": {"const": name}, "x": {}}, "required": ["kind"]} for name in "ab"]
APART: list[list[Any]] = [
    [{"type": "string"}, {"type": "integer"}, {"type": "null"}, {"enum": [True]}],
    [{"enum": [1, "a"]}, {"const": 2}, {"enum": [True, "b"]}],
    KINDS,
    [{"$ref": "#/$defs/a"}, KINDS[1]],
    [{"type": "string", "maxLength": 2}, {"type": "string", "minLength": 3}],
    [{"type": "array", "items": {"type": "string"}, "minItems": 1}, {"type": "array", "items": {"type": "null"}}],
    [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}],
    [{"properties": {"a": {}}, "additionalProperties": False}, {"properties": {"a": {}, "b": {}}, "required": ["b"]}],
    [{"anyOf": [{"type": "string"}, {"type": "null"}]}, {"oneOf": [{"type": "boolean"}, {"type": "number"}]}],
]
OVERLAPPING: list[list[Any]] = [
    [{}, {"type": "string"}],
    [{"type": "integer"}, {"type": "number"}],
    [{"type": ["string", "null"]}, {"type": ["null", "boolean"]}],
    [{"enum": [1, 2]}, {"enum": [3, 2.0]}],
    [{"const": 3}, {"type": "integer"}],
    [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 3}],
    [{"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "null"}}],
    [{"properties": {"a": {"const": 1}}}, {"properties": {"a": {"const": 2}}}],
    [{"properties": {"a": {}}}, {"properties": {"a": {}, "b": {}}, "required": ["b"]}],
    [{"type": "object"}, KINDS[0]],
    [{"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "null"}],
]


@pytest.mark.parametrize("branches", APART)
def test_one_of_branches_that_are_apart_is_valid(
    branches: list[Any], tokenizer: ChatTokenizer, vocabulary: Vocabulary
) -> None:
    schema = {"oneOf": branches, "$defs": {"a": KINDS[0]}, "discriminator": {"propertyName": "kind"}}
    grammar = Grammar(schema_grammar(schema, "guided_json"), vocabulary)
    texts = [text for seed in range(30) if (text := walk(grammar, tokenizer, seed))]
    assert len(texts) > 10
    for text in texts:
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("branches", OVERLAPPING)
def test_one_of_branches_that_overlap_is_refused(branches: list[Any]) -> None:
    with pytest.raises(ApiError, match="the branches 1 and 2 of oneOf may allow the same"):
        schema_grammar({"oneOf": branches}, "guided_json")


BRANCHES = st.one_of(
    st.sampled_from([branch for branches in [*APART, *OVERLAPPING] for branch in branches if "$ref" not in branch]),
    st.fixed_dictionaries({"enum": st.lists(st.sampled_from([1, 1.0, True, None, "a", "b"]), min_size=1, max_size=2)}),
    st.builds(
        lambda names, needed, closed: {
            "type": "object",
            "properties": {name: {"const": value} for name, value in names.items()},
            "required": sorted(needed & set(names)),
            "additionalProperties": not closed,
        },
        st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, 2]), min_size=1),
        st.sets(st.sampled_from("abc")),
        st.booleans(),
    ),
)


@settings(deadline=None, max_examples=100)
@given(branches=st.lists(BRANCHES, min_size=2, max_size=3), seed=st.integers(0, 99))
def test_one_of_is_refused_or_valid(
    tokenizer: ChatTokenizer, vocabulary: Vocabulary, branches: list[Any], seed: int
) -> None:
    schema = {"oneOf": branches}
    try:
        grammar = Grammar(schema_grammar(schema, "guided_json"), vocabulary)
    except ApiError:
        return
    if text := walk(grammar, tokenizer, seed):
        jsonschema.validate(json.loads(text), schema)


def test_object_with_as_many_optional_properties_as_allowed_can_be_walked(
    tokenizer: ChatTokenizer, vocabulary: Vocabulary
) -> None:
    schema = {"type": "object", "properties": {f"p{number}": {"type": "null"} for number in range(128)}}
    grammar = Grammar(schema_grammar(schema, "guided_json"), vocabulary)
    assert accepts(grammar, tokenizer, "{}")
    assert accepts(grammar, tokenizer, '{"p3": null, "p127":null}')
    assert not accepts(grammar, tokenizer, '{"p3": null, "p2": null}')


def test_type_next_to_enum_leaves_its_values(tokenizer: ChatTokenizer, vocabulary: Vocabulary) -> None:
    def written(schema: dict[str, Any]) -> set[str]:
        grammar = Grammar(schema_grammar(schema, "guided_json"), vocabulary)
        return {text for text in ("1", "1.0", "1.5", "true", "null", '"a"') if accepts(grammar, tokenizer, text)}

    values = [1, 1.0, 1.5, True, None, "a"]
    assert written({"enum": values}) == {"1", "1.0", "1.5", "true", "null", '"a"'}
    assert written({"enum": values, "type": "integer"}) == {"1", "1.0"}
    assert written({"enum": values, "type": "number"}) == {"1", "1.0", "1.5"}
    assert written({"enum": values, "type": ["boolean", "null"]}) == {"true", "null"}
    # As pydantic writes a literal of one value.
    assert written({"const": "a", "enum": ["a"], "type": "string", "title": "A"}) == {'"a"'}


def test_state_with_too_many_places_is_refused(vocabulary: Vocabulary) -> None:
    branches = [{"type": "string", "maxLength": length} for length in range(100, 500)]
    with pytest.raises(GrammarTooLarge, match="256"):
        node = schema_grammar({"anyOf": branches}, "guided_json")
        mask = GrammarMask(Grammar(node, vocabulary), [0])
        mask.accept(vocabulary.tree[ord('"')][None][0])
        mask.allowed()


def test_number_of_states_is_bounded(
    tokenizer: ChatTokenizer, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_module, "MAX_STATES", 20)
    grammar = Grammar(choices(["a" * 100]), vocabulary)
    mask, [token] = GrammarMask(grammar, [tokenizer.turn_end]), vocabulary.tree[ord("a")][None]
    with pytest.raises(GrammarTooLarge, match="20 states"):
        for _ in range(100):
            mask.accept(token)
    assert grammar.is_large
    assert len(grammar.places) == 20
