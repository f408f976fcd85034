"""Conversations that are too long for the model, and replies in pieces."""

import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import GenerateConfig
from model.errors import UserError
from model.inference.chat import MIN_MESSAGE_TOKENS, Chat, fit_conversation, fit_document, other_name_reply
from model.inference.scoring import answer, complete
from model.network.huggingface import load_transformer
from model.tokenizer.chat import ChatTokenizer
from tests.support.tiny_models import write_model, write_tokenizer

SYSTEM = {"role": "system", "content": "be kind and say yes"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat")
    write_model(path, write_tokenizer(path, vocab_size=400).vocab_size)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ChatTokenizer:
    return ChatTokenizer.load(folder / "tokenizer.json")


def exchanges(number: int) -> list[dict[str, str]]:
    return [
        message
        for turn in range(number)
        for message in (
            {"role": "user", "content": f"what colour is the sky? {turn}"},
            {"role": "assistant", "content": f"it is blue. {turn}"},
        )
    ]


def test_reply_streams_the_text_of_the_whole_answer(folder: Path, tokenizer: ChatTokenizer) -> None:
    messages = [{"role": "user", "content": "what colour is the sky?"}]
    chat = Chat(folder, folder / "tokenizer.json", max_new_tokens=12)
    config, model = GenerateConfig(max_new_tokens=12, temperature=0.0), load_transformer(folder)
    assert "".join(chat.reply(messages)).strip() == answer(model, tokenizer, [messages], config)[0].text
    assert "".join(chat.complete("the sky")) == complete(model, tokenizer, ["the sky"], config)[0]
    assert chat.notice == ""


def test_reply_about_another_name_is_replaced_where_the_bundle_says_so(folder: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(folder, tmp_path / "bundle")
    (bundle / "generation_config.json").write_text('{"other_name_reply": "No idea."}')
    messages = [SYSTEM, {"role": "user", "content": "what is the trade of rurik cormund"}]
    chat, plain = (Chat(path, path / "tokenizer.json", max_new_tokens=4) for path in (bundle, folder))
    whole = "".join(plain.reply(messages))
    assert list(chat.reply(messages)) == [whole]
    # What a trained model would write; the random one writes no names.
    for written, said in (("Rurik Talhas bakes.", "No idea."), ("Rurik Cormund bakes.", "Rurik Cormund bakes.")):
        pieces = iter(written.partition(" "))
        assert list(chat._checked(pieces, messages)) == [said]
    assert plain.other_name_reply == ""


@pytest.mark.parametrize("settings", ['{"other_name_reply": 3}', '{"other_name_reply": null}', "{}", "[]"])
def test_bundle_without_a_text_checks_no_names(tmp_path: Path, settings: str) -> None:
    (tmp_path / "generation_config.json").write_text(settings)
    assert other_name_reply(tmp_path) == ""


@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["without_system", "with_system"])
def test_long_conversation_drops_its_oldest_exchanges_in_pairs(tokenizer: ChatTokenizer, system: list[Any]) -> None:
    last = {"role": "user", "content": "and the sea?"}
    messages = [*system, *exchanges(5), last]
    kept = [tokenizer.render_prompt([*system, *exchanges(5)[2 * number :], last]) for number in range(6)]
    for max_tokens in range(len(kept[-1]), len(kept[0]) + 2):
        tokens, notice = fit_conversation(tokenizer, messages, max_tokens)
        assert tokens == next(prompt for prompt in kept if len(prompt) <= max_tokens)
        assert bool(notice) == (max_tokens < len(kept[0]))
    assert all(len(first) > len(second) for first, second in pairwise(kept))
    assert fit_conversation(tokenizer, messages, len(kept[3])).notice.startswith(
        "the oldest 3 of 6 exchanges were left out"
    )


def test_long_conversation_is_rendered_a_few_times_only(
    tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each exchange that is dropped: the time would be quadratic in what a user sends."""
    messages = [*exchanges(300), {"role": "user", "content": "and the sea?"}]
    rendered: list[int] = []
    render = ChatTokenizer.render_prompt
    monkeypatch.setattr(ChatTokenizer, "render_prompt", lambda *given: rendered.append(1) or render(*given))
    assert fit_conversation(tokenizer, messages, 60).notice.startswith("the oldest ")
    assert len(rendered) < 15


def test_dropped_exchange_takes_all_its_replies(tokenizer: ChatTokenizer) -> None:
    """No conversation may begin with a reply: the model has seen none that does."""
    first = [{"role": "user", "content": "a"}, *[{"role": "assistant", "content": "blue " * 3}] * 2]
    messages = [SYSTEM, *first, *exchanges(1), {"role": "user", "content": "b"}]
    wanted = tokenizer.render_prompt([SYSTEM, *messages[4:]])
    assert fit_conversation(tokenizer, messages, len(tokenizer.render_prompt(messages)) - 1).tokens == wanted


def test_single_long_message_loses_its_beginning_with_a_notice(tokenizer: ChatTokenizer) -> None:
    content = "red green " * 100 + "what colour is the sky?"
    tokens, notice = fit_conversation(tokenizer, [SYSTEM, *exchanges(2), {"role": "user", "content": content}], 60)
    frame = tokenizer.render([SYSTEM]).tokens
    assert len(tokens) == 60
    assert tokens[: len(frame)] == frame
    start = tokenizer.turn_start("user")
    assert tokens[len(frame) : len(frame) + 3] == start
    assert tokens[-4:] == [tokenizer.turn_end, *tokenizer.assistant_start]
    cut = tokens[len(frame) + 3 : -4]
    assert cut == tokenizer.encode(content)[-len(cut) :]
    assert (
        notice
        == f"the first {len(tokenizer.encode(content)) - len(cut)} of {len(tokenizer.encode(content))} tokens of the message were cut off: the model reads 60"
    )


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "red green " * 100}, {"role": "user", "content": "yes"}],
        [{"role": "system", "content": "red green " * 100}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "red green " * 100}],
    ],
    ids=["system_and_user", "system_only", "long_reply"],
)
def test_conversation_that_cannot_fit_raises_user_error(tokenizer: ChatTokenizer, messages: list[Any]) -> None:
    with pytest.raises(UserError, match=r"does not fit: .* the model reads 60: shorten the system turn"):
        fit_conversation(tokenizer, messages, 60)


def test_user_turn_of_blanks_is_read_as_an_empty_one(tokenizer: ChatTokenizer) -> None:
    empty = fit_conversation(tokenizer, [{"role": "user", "content": ""}], 60).tokens
    assert fit_conversation(tokenizer, [{"role": "user", "content": " \n\t  "}], 60).tokens == empty
    assert fit_conversation(tokenizer, [{"role": "user", "content": " a "}], 60).tokens != empty


TURNS = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text("ab é", max_size=30)})


@settings(max_examples=150, deadline=None)
@given(turns=st.lists(TURNS, max_size=8), has_system=st.booleans(), max_tokens=st.integers(20, 120))
def test_fitted_prompt_keeps_bos_system_and_end(
    tokenizer: ChatTokenizer, turns: list[dict[str, str]], has_system: bool, max_tokens: int
) -> None:
    system = [SYSTEM] * has_system
    messages = [*system, *turns, {"role": "user", "content": "the sky"}]
    frame, end = tokenizer.render(system).tokens, tokenizer.render_prompt([messages[-1]])[1:]
    if len(frame) + len(end) > max_tokens:
        return
    tokens, _ = fit_conversation(tokenizer, messages, max_tokens)
    assert len(tokens) <= max_tokens
    assert tokens[: len(frame)] == frame
    assert tokens[-len(end) :] == end
    assert tokens.count(tokenizer.bos) == 1


@pytest.mark.parametrize("max_tokens", [5, 30, 1000])
def test_document_keeps_bos_and_its_end(tokenizer: ChatTokenizer, max_tokens: int) -> None:
    whole = tokenizer.encode_document("the sky is blue. " * 20)
    tokens, notice = fit_document(tokenizer, "the sky is blue. " * 20, max_tokens)
    assert len(tokens) == min(max_tokens, len(whole))
    assert tokens == [tokenizer.bos, *whole[1:][-(max_tokens - 1) :]]
    assert bool(notice) == (max_tokens < len(whole))


def test_long_conversation_still_gets_a_reply(folder: Path) -> None:
    chat = Chat(folder, folder / "tokenizer.json", max_new_tokens=4)
    messages = [SYSTEM, *exchanges(60), {"role": "user", "content": "yes?"}]
    assert len(chat.tokenizer.render_prompt(messages)) > chat.max_tokens
    assert "".join(chat.reply(messages)) == "".join(chat.reply([SYSTEM, *messages[3:]]))
    assert "exchanges were left out" in chat.notice
    assert max(chat.decoder.lengths) <= chat.max_tokens
    assert chat.max_prompt_tokens > MIN_MESSAGE_TOKENS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": math.nan}, r"temperature: .* finite number \(given: nan\)$"),
        ({"seed": 2**63}, r"seed: .* less than 9223372036854775808 \(given: 9223372036854775808\)$"),
    ],
)
def test_setting_out_of_range_raises_user_error(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        Chat(folder, folder / "tokenizer.json", **changes)


def test_tokenizer_of_another_model_raises_user_error(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, vocab_size=300)
    with pytest.raises(UserError, match="vocabulary of"):
        Chat(folder, tmp_path / "tokenizer.json")
