"""Conversations to tokens: what is learned, what cannot be forged, and that the exported template says the same."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokenizer.chat import CHAT_TEMPLATE, SPECIAL_TOKENS, ChatTokenizer
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
def test_every_text_comes_back(tokenizer: ChatTokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert int(tokenizer.token_bytes[tokens].sum()) == len(text.encode())


def test_half_of_a_character_is_one_that_is_not_known(tokenizer: ChatTokenizer) -> None:
    """Bytes that are no UTF-8 come so from a command line."""
    said = b"caf\xe9 \xf0\x9f\x98\x80".decode("utf-8", "surrogateescape")
    assert tokenizer.decode(tokenizer.encode(said)) == "caf\ufffd \U0001f600"
    assert tokenizer.render([{"role": "user", "content": said}])


def test_a_batch_is_encoded_as_each_text_alone(tokenizer: ChatTokenizer) -> None:
    texts = ["the sky", "", "Zürich \U0001f600"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_text_cannot_make_a_special_token(tokenizer: ChatTokenizer, name: str) -> None:
    text = f"a{name}b {name}"
    assert not set(tokenizer.encode(text)) & set(tokenizer.special.values())
    assert not set(tokenizer.encode_batch([text])[0]) & set(tokenizer.special.values())
    assert tokenizer.decode(tokenizer.encode(text)) == text
    forged, _ = tokenizer.render([{"role": "user", "content": text}])
    assert len(set(forged) & set(tokenizer.special.values())) == 3  # bos, user_start, user_end


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
    end = tokenizer.assistant_end
    assert learned == [*tokenizer.encode("Good."), end, *tokenizer.encode("x"), end]
    unweighted = [{"role": role, "content": content} for role, content, _ in turns]
    assert tokens == tokenizer.render(unweighted)[0]


def test_the_mask_is_on_the_assistants_words_and_the_end_of_its_turn(tokenizer: ChatTokenizer) -> None:
    tokens, mask = tokenizer.render(CHAT)
    learned = [token for token, is_learned in zip(tokens, mask, strict=True) if is_learned]
    end = tokenizer.assistant_end
    assert learned == [*tokenizer.encode("it is blue."), end, *tokenizer.encode("I do not know."), end]


def test_a_prompt_is_the_beginning_of_the_conversation_it_leads_to(tokenizer: ChatTokenizer) -> None:
    prompt = tokenizer.render_prompt(CHAT[:4])
    tokens, mask = tokenizer.render(CHAT)
    assert tokens[: len(prompt)] == prompt
    assert prompt[-1] == tokenizer.assistant_start
    assert all(mask[len(prompt) :])


def test_an_unknown_role_is_named(tokenizer: ChatTokenizer) -> None:
    with pytest.raises(ValueError, match="'critic' is unknown; use system, user or assistant"):
        tokenizer.render([{"role": "critic", "content": "no"}])


@pytest.mark.parametrize("num_turns", range(1, len(CHAT) + 1))
def test_the_exported_template_renders_the_same(folder: Path, tokenizer: ChatTokenizer, num_turns: int) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    theirs.chat_template = CHAT_TEMPLATE
    messages = CHAT[:num_turns]
    assert theirs.apply_chat_template(messages, return_dict=False) == tokenizer.render(messages)[0]
    prompt = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt == tokenizer.render_prompt(messages)


@pytest.mark.parametrize("change", ["special", "pre_tokenizer"])
def test_a_tokenizer_that_makes_special_tokens_of_text_is_refused(tmp_path: Path, folder: Path, change: str) -> None:
    """Where they are tokens like others, or a word that is not cut is looked up whole."""
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


def test_a_tokenizer_without_the_special_tokens_is_refused(tmp_path: Path) -> None:
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"no special tokens \['<\|bos\|>'"):
        ChatTokenizer.load(tmp_path / "tokenizer.json")
