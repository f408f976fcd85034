"""Conversations to tokens: what is learned, what cannot be forged, and that the exported template gives the same tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.errors import UserError
from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer, check_mask
from model.tokenizer.template import chat_template
from tests.support.tiny_models import write_tokenizer

CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "what colour is the sky?"},
    {"role": "assistant", "content": "it is blue."},
    {"role": "user", "content": " and \n the sea? "},
    {"role": "assistant", "content": "I do not know."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ChatTokenizer:
    return ChatTokenizer.load(folder / "tokenizer.json")


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_decode_inverts_encode(tokenizer: ChatTokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert int(tokenizer.token_bytes[tokens].sum()) == len(text.encode())


LONE_SURROGATES = ["\ud800", "a\udfffb", "\ude00\ud83d", "caf\udce9", "\ud83d\ude00"]


@pytest.mark.parametrize("text", LONE_SURROGATES)
def test_lone_surrogate_becomes_the_replacement_character(tokenizer: ChatTokenizer, text: str) -> None:
    """From JSON escapes and from bytes of a command line that are no UTF-8. A surrogate pair becomes its character."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    expected = tokenizer.encode(whole)
    assert tokenizer.decode(expected) == whole
    assert tokenizer.encode(text) == expected
    assert tokenizer.encode_batch([text, "a", text]) == [expected, tokenizer.encode("a"), expected]
    assert tokenizer.encode_document(text) == [tokenizer.bos, *expected]
    message, same = {"role": "user", "content": text}, {"role": "user", "content": whole}
    assert tokenizer.render([message]) == tokenizer.render([same])
    assert tokenizer.render_prompt([message]) == tokenizer.render_prompt([same])


def test_batch_is_encoded_as_each_text_alone(tokenizer: ChatTokenizer) -> None:
    texts = ["the sky", "", "Zürich \U0001f600", "<|bos|>"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_text_cannot_forge_a_special_token(tokenizer: ChatTokenizer, name: str) -> None:
    text = f"a{name}b {name}"
    assert not set(tokenizer.encode(text)) & set(tokenizer.special.values())
    assert not set(tokenizer.encode_batch([text])[0]) & set(tokenizer.special.values())
    assert tokenizer.decode(tokenizer.encode(text)) == text
    forged, _ = tokenizer.render([{"role": "user", "content": text}])
    assert [token for token in forged if token in tokenizer.special.values()] == [
        tokenizer.bos,
        *tokenizer.turn_start("user"),
        tokenizer.turn_end,
    ]


def test_render_masks_assistant_turns_of_weight_0(tokenizer: ChatTokenizer) -> None:
    """OpenAI's `weight`: 0 is context that is not learned, 1 and no weight are learned."""
    turns = [
        ("user", "Hi", None),
        ("assistant", "BAD", 0),
        ("user", "No.", None),
        ("assistant", "Good.", 1),
        ("assistant", "x", None),
    ]
    messages = [
        {"role": role, "content": content} | ({} if weight is None else {"weight": weight})
        for role, content, weight in turns
    ]
    tokens, mask = tokenizer.render(messages)
    learned = [token for token, is_learned in zip(tokens, mask, strict=True) if is_learned]
    end = tokenizer.turn_end
    assert learned == [*tokenizer.encode("Good."), end, *tokenizer.encode("x"), end]
    unweighted = [{"role": role, "content": content} for role, content, _ in turns]
    assert tokens == tokenizer.render(unweighted)[0]


def test_loss_mask_covers_the_assistants_content_and_end_token(tokenizer: ChatTokenizer) -> None:
    tokens, mask = tokenizer.render(CHAT)
    learned = [token for token, is_learned in zip(tokens, mask, strict=True) if is_learned]
    end = tokenizer.turn_end
    assert learned == [*tokenizer.encode("it is blue."), end, *tokenizer.encode("I do not know."), end]


TOOLS = [
    {"role": "user", "content": "12 times 7?"},
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [{"name": "calculator", "arguments": "12*7"}, {"name": "search", "arguments": "7"}],
    },
    {"role": "tool", "content": "84"},
    {"role": "tool", "content": "red"},
    {"role": "assistant", "content": "It is 84."},
]


def test_tool_calls_are_learned_and_their_results_are_not(tokenizer: ChatTokenizer) -> None:
    special = {token: name for name, token in tokenizer.special.items()}

    def shown(tokens: list[int]) -> str:
        return "".join(special.get(token) or tokenizer.decode([token]) for token in tokens)

    tokens, mask = tokenizer.render(TOOLS)
    calls = "<|tool_start|>calculator<|im_sep|>12*7<|tool_end|><|tool_start|>search<|im_sep|>7<|tool_end|>"
    assert shown(tokens) == (
        "<|bos|><|im_start|><|user|><|im_sep|>12 times 7?<|im_end|>"
        f"<|im_start|><|assistant|><|im_sep|>Let me see.{calls}<|im_end|>"
        "<|im_start|><|tool|><|im_sep|>84<|im_end|><|im_start|><|tool|><|im_sep|>red<|im_end|>"
        "<|im_start|><|assistant|><|im_sep|>It is 84.<|im_end|>"
    )
    learned = [token for token, is_learned in zip(tokens, mask, strict=True) if is_learned]
    assert shown(learned) == f"Let me see.{calls}<|im_end|>It is 84.<|im_end|>"


TEXTS = st.lists(
    st.one_of(st.sampled_from([*SPECIAL_TOKENS, "<|im_", "|>", "<", " "]), st.text(max_size=8)), max_size=5
).map("".join)
CALLS = st.lists(st.fixed_dictionaries({"name": TEXTS.filter(bool), "arguments": TEXTS}), max_size=2)
TURNS = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "tool"]), "content": TEXTS}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXTS, "tool_calls": CALLS}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXTS, "weight": st.sampled_from([0, 1])}),
)


@settings(max_examples=200, deadline=None)
@given(messages=st.lists(TURNS, max_size=5))
def test_no_text_produces_a_special_token(tokenizer: ChatTokenizer, messages: list[dict[str, Any]]) -> None:
    """Of a user, a system, an assistant or a tool; in names and arguments of tool calls too."""
    tokens = tokenizer.render(messages).tokens
    num_calls = sum(len(message.get("tool_calls", ())) for message in messages)
    assert sum(token in tokenizer.special.values() for token in tokens) == 1 + 4 * len(messages) + 3 * num_calls


@settings(max_examples=200, deadline=None)
@given(messages=st.lists(TURNS, max_size=6))
def test_prompts_are_prefixes_of_the_training_tokens(tokenizer: ChatTokenizer, messages: list[dict[str, Any]]) -> None:
    """What the model reads at generation is what it was trained on, before each turn of the assistant; and so is what it writes."""
    tokens, mask = tokenizer.render(messages)
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = tokenizer.render_prompt(messages[:number])
        turn = tokenizer.render_turn(message)
        written = turn.tokens[len(tokenizer.assistant_start) :]
        assert tokens[: len(prompt) + len(written)] == [*prompt, *written]
        assert mask[len(prompt) : len(prompt) + len(written)] == [int(message.get("weight", 1) != 0)] * len(written)


@settings(max_examples=200, deadline=None)
@given(message=TURNS.filter(lambda message: message["role"] == "assistant"))
def test_parse_reply_inverts_render(tokenizer: ChatTokenizer, message: dict[str, Any]) -> None:
    """A reply that was sampled, parsed and rendered again as a part of the conversation has the sampled tokens."""
    sampled = tokenizer.render_turn(message).tokens[len(tokenizer.assistant_start) :]
    reply = tokenizer.parse_reply(sampled)
    assert reply.problem == ""
    assert len(reply.tool_calls) == len(message.get("tool_calls", ()))
    assert tokenizer.render_turn(reply.message()).tokens == [*tokenizer.assistant_start, *sampled]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["yes", "<|tool_start|>", "no", "<|im_end|>"], "form no tool call: <|tool_start|>"),
        (["<|tool_start|>", "no", "<|tool_end|>"], "form no tool call: <|tool_start|> <|tool_end|>"),
        (["yes", "<|bos|>"], "form no tool call: <|bos|>"),
        (["<|tool_start|>", "no", "<|im_sep|>", "yes", "<|tool_end|>", "red"], "text after a tool call"),
        (["<|tool_start|>", "<|im_sep|>", "yes", "<|tool_end|>"], "a tool without a name"),
    ],
)
def test_malformed_reply_says_its_problem(tokenizer: ChatTokenizer, names: list[str], problem: str) -> None:
    ids = [token for name in names for token in ([tokenizer.special[name]] if "|" in name else tokenizer.encode(name))]
    assert problem in tokenizer.parse_reply(ids).problem


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"role": "critic", "content": "no"}, "'critic' is unknown; use one of system, user, assistant, tool"),
        ({"role": "user", "content": None}, "the content of a message of role 'user' is no text"),
        ({"role": "user", "content": "a", "tool_calls": [{"name": "f", "arguments": ""}]}, "only the assistant calls"),
        ({"role": "assistant", "content": "a", "tool_calls": [{"name": "f"}]}, "has no name and arguments"),
        ({"role": "assistant", "content": "a", "tool_calls": ["f"]}, "has no name and arguments"),
    ],
)
def test_wrong_message_raises_error(tokenizer: ChatTokenizer, message: dict[str, Any], error: str) -> None:
    with pytest.raises(UserError, match=error):
        tokenizer.render([message])


@pytest.mark.parametrize(
    ("messages", "mask", "error"),
    [
        ([CHAT[1]], [0, 0], "nothing of the conversation is learned"),
        ([{**CHAT[2], "weight": 0}], [0], "nothing of the conversation is learned"),
        ([], [1, 1, 1], "every token of the conversation is learned"),
    ],
)
def test_empty_and_full_masks_are_refused(
    tokenizer: ChatTokenizer, messages: list[dict[str, Any]], mask: list[int], error: str
) -> None:
    with pytest.raises(UserError, match=error):
        check_mask(mask)
    if messages:
        with pytest.raises(UserError, match=error):
            tokenizer.render_training(messages)


@pytest.fixture(scope="module")
def theirs(folder: Path, tokenizer: ChatTokenizer) -> Any:
    transformers = pytest.importorskip("transformers")
    encoder = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    encoder.chat_template = chat_template(tokenizer)
    return encoder


@settings(max_examples=150, deadline=None)
@given(messages=st.lists(TURNS, min_size=1, max_size=5))
@example(messages=CHAT)
@example(messages=TOOLS)
def test_chat_template_gives_the_same_tokens_and_mask(
    theirs: Any, tokenizer: ChatTokenizer, messages: list[dict[str, Any]]
) -> None:
    rendered = tokenizer.render(messages)
    found = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    assert found["input_ids"] == rendered.tokens
    assert found["assistant_masks"] == rendered.mask
    prompt = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt == tokenizer.render_prompt(messages)


@pytest.mark.parametrize(
    "call",
    [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": "é <|im_end|>"}'}},
        {"function": {"name": "f", "arguments": {"a": "é <|im_end|>"}}},
        {"name": "f", "arguments": {"a": "é <|im_end|>"}},
    ],
)
def test_tool_calls_of_openai_and_transformers_are_rendered_alike(
    theirs: Any, tokenizer: ChatTokenizer, call: dict[str, Any]
) -> None:
    expected = tokenizer.render([{"role": "assistant", "content": "", "tool_calls": [TOOLS_CALL]}])
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert tokenizer.render([message]) == expected
    assert theirs.apply_chat_template([message], return_dict=False) == expected.tokens


TOOLS_CALL = {"name": "f", "arguments": '{"a": "é <|im_end|>"}'}


@pytest.mark.parametrize("change", ["special", "pre_tokenizer"])
def test_tokenizer_that_parses_special_tokens_in_text_raises_error(tmp_path: Path, folder: Path, change: str) -> None:
    """If they are ordinary tokens, or if whole words are looked up before they are split."""
    saved = json.loads((folder / "tokenizer.json").read_text())
    if change == "special":
        saved["added_tokens"] = [token | {"special": False} for token in saved["added_tokens"]]
    else:
        saved["pre_tokenizer"] = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
        saved["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(
        ValueError, match=r"makes special tokens of text that says \['<\|bos\|>', .*: call them special"
    ):
        ChatTokenizer.load(tmp_path / "tokenizer.json")


def test_tokenizer_without_special_tokens_raises_error(tmp_path: Path) -> None:
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"no special tokens \['<\|bos\|>'"):
        ChatTokenizer.load(tmp_path / "tokenizer.json")
