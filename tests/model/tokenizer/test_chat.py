"""Conversations to tokens: what is learned, what cannot be forged, and that the exported template gives the same tokens."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
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


def test_loss_mask_covers_the_assistants_content_and_end_token(tokenizer: ChatTokenizer) -> None:
    tokens, mask = tokenizer.render(CHAT)
    learned = [token for token, is_learned in zip(tokens, mask, strict=True) if is_learned]
    end = tokenizer.assistant_end
    assert learned == [*tokenizer.encode("it is blue."), end, *tokenizer.encode("I do not know."), end]


def test_render_prompt_is_a_prefix_of_render(tokenizer: ChatTokenizer) -> None:
    prompt = tokenizer.render_prompt(CHAT[:4])
    tokens, mask = tokenizer.render(CHAT)
    assert tokens[: len(prompt)] == prompt
    assert prompt[-1] == tokenizer.assistant_start
    assert all(mask[len(prompt) :])


def test_unknown_role_raises_error(tokenizer: ChatTokenizer) -> None:
    with pytest.raises(ValueError, match="'critic' is unknown; use system, user or assistant"):
        tokenizer.render([{"role": "critic", "content": "no"}])


@pytest.mark.parametrize("num_turns", range(1, len(CHAT) + 1))
def test_chat_template_gives_the_same_tokens(folder: Path, tokenizer: ChatTokenizer, num_turns: int) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    theirs.chat_template = tokenizer.chat_template()
    messages = CHAT[:num_turns]
    assert theirs.apply_chat_template(messages, return_dict=False) == tokenizer.render(messages)[0]
    prompt = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt == tokenizer.render_prompt(messages)


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
