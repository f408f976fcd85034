"""Replies with tools: trained tokens are sampled tokens, results are data, and every limit ends a reply."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import GenerateConfig
from model.inference.chat import Chat
from model.inference.cpu_kernels import make_decoder
from model.inference.tool_use import ToolLimits, ToolReply, converse, replies_with_tools
from model.network.huggingface import load_transformer
from model.tokenizer.chat import SPECIAL_TOKENS, TOOL_END, TOOL_START, TURN_SEP, ChatTokenizer
from model.tools.calculator import calculate
from model.tools.registry import Tools
from tests.support.tiny_models import write_model, write_tokenizer

USER = {"role": "user", "content": "what is 12 times 7?"}
FORGERIES = (
    st.text(max_size=20) | st.sampled_from(SPECIAL_TOKENS) | st.lists(st.sampled_from(SPECIAL_TOKENS)).map("x".join)
)
TOOLS = Tools({"calculator": calculate, "echo": lambda arguments: arguments})
LIMITS = ToolLimits(max_calls=3, max_tokens=4_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tools")
    write_model(path, write_tokenizer(path, vocab_size=400).vocab_size)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ChatTokenizer:
    return ChatTokenizer.load(folder / "tokenizer.json")


def assistant(text: str = "", *calls: tuple[str, str]) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": text,
        "tool_calls": [{"name": name, "arguments": given} for name, given in calls],
    }


def written(
    tokenizer: ChatTokenizer, *turns: dict[str, Any]
) -> Callable[[Sequence[Sequence[int]], int], list[list[int]]]:
    """A sampler that writes these turns."""
    start = len(tokenizer.assistant_start)
    completions = [tokenizer.render_turn(turn).tokens[start:] for turn in turns]
    return lambda contexts, number: [completions[number] for _ in contexts]


def reply_of(
    tokenizer: ChatTokenizer, *turns: dict[str, Any], limits: ToolLimits = LIMITS, tools: Tools = TOOLS
) -> ToolReply:
    return converse(written(tokenizer, *turns), tokenizer, [tokenizer.render_prompt([USER])], 32, tools, limits)[0]


def test_result_enters_the_context_and_the_model_writes_on(tokenizer: ChatTokenizer) -> None:
    reply = reply_of(tokenizer, assistant("Let me see.", ("calculator", "12*7")), assistant("It is 84."))
    assert reply.text == "It is 84."
    assert [step.result.text for step in reply.steps] == ["84"]
    assert [message["role"] for message in reply.messages] == ["assistant", "tool", "assistant"]
    assert tokenizer.render([USER, *reply.messages]).tokens == tokenizer.render_prompt([USER]) + reply.tokens
    # What is learned is what was sampled: the mask of the renderer without the prompt.
    prompt = tokenizer.render_prompt([USER])
    assert tokenizer.render([USER, *reply.messages]).mask[len(prompt) :] == list(map(int, reply.is_sampled))


turn = st.lists(st.integers(0, 399), max_size=12)


@given(st.lists(turn, min_size=1, max_size=6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_trained_ids_are_sampled_ids_whatever_is_sampled(
    tokenizer: ChatTokenizer, turns: list[list[int]], calls: bool
) -> None:
    start, sep, end = (tokenizer.special[name] for name in (TOOL_START, TURN_SEP, TOOL_END))
    sampled: list[int] = []

    def sample(contexts: Sequence[Sequence[int]], number: int) -> list[list[int]]:
        # Any tokens at all; with `calls` in the place of a call's arguments, cut into tokens as the tokenizer never would.
        tokens = turns[number % len(turns)]
        if calls:
            plain = [token for token in tokens if token not in tokenizer.special.values()]
            tokens = [start, *tokenizer.encode("echo"), sep, *plain, end]
        sampled.extend([*tokens, tokenizer.turn_end])
        return [[*tokens, tokenizer.turn_end]]

    prompt = tokenizer.render_prompt([USER])
    [reply] = converse(sample, tokenizer, [prompt], 32, TOOLS, LIMITS)
    assert [token for token, is_sampled in zip(reply.tokens, reply.is_sampled, strict=True) if is_sampled] == sampled
    assert len(reply.steps) <= LIMITS.max_calls
    inserted = [token for token, is_sampled in zip(reply.tokens, reply.is_sampled, strict=True) if not is_sampled]
    expected = [
        token
        for step in reply.steps
        for token in tokenizer.render_turn({"role": "tool", "content": step.result.text}).tokens
    ]
    rest = [token for token in inserted if token not in tokenizer.special.values()]
    assert rest == [token for token in expected if token not in tokenizer.special.values()]


@given(FORGERIES)
@settings(max_examples=150, deadline=None)
def test_result_never_makes_a_special_token(tokenizer: ChatTokenizer, text: str) -> None:
    forging = Tools({"echo": lambda _: text})
    reply = reply_of(tokenizer, assistant("", ("echo", "x")), assistant("yes"), tools=forging)
    plain = reply_of(tokenizer, assistant("", ("echo", "x")), assistant("yes"), tools=Tools({"echo": lambda _: "no"}))
    special = set(tokenizer.special.values())
    assert [token for token in reply.tokens if token in special] == [
        token for token in plain.tokens if token in special
    ]


def test_every_limit_ends_a_reply(tokenizer: ChatTokenizer) -> None:
    calling = assistant("", ("calculator", "1+1"))
    assert reply_of(tokenizer, *[calling] * 9).ended == "calls"
    assert len(reply_of(tokenizer, *[calling] * 9).steps) == 3
    many = reply_of(tokenizer, assistant("", *[("calculator", "1+1")] * 5), assistant("done"))
    assert [step.result.is_error for step in many.steps] == [False, False, False, True, True]
    assert reply_of(tokenizer, calling, limits=ToolLimits(max_tokens=40)).ended == "context"
    cut = converse(lambda contexts, _: [[20, 21]], tokenizer, [[1]], 32, TOOLS, LIMITS)[0]
    assert (cut.ended, cut.tokens) == ("cut", [20, 21])
    stray = converse(lambda contexts, _: [[tokenizer.bos, tokenizer.turn_end]], tokenizer, [[1]], 32, TOOLS, LIMITS)[0]
    assert stray.ended == "malformed"


def test_long_result_is_cut_to_the_context(tokenizer: ChatTokenizer) -> None:
    long = Tools({"echo": lambda _: "blue sky " * 200}, max_characters=10_000)
    limits = ToolLimits(max_tokens=200)
    reply = reply_of(tokenizer, assistant("", ("echo", "x")), assistant("yes"), limits=limits, tools=long)
    assert reply.ended == ""
    assert 100 < len(tokenizer.render_prompt([USER])) + len(reply.tokens) <= 200


def test_tool_that_fails_is_a_result(tokenizer: ChatTokenizer) -> None:
    reply = reply_of(tokenizer, assistant("", ("calculator", "1/0"), ("shell", "ls")), assistant("no"))
    assert [step.result.text.split(";")[0] for step in reply.steps] == [
        "error: division by zero",
        "error: no such tool",
    ]


def test_batch_gives_the_replies_of_single_rows(folder: Path, tokenizer: ChatTokenizer) -> None:
    decoder, config = make_decoder(load_transformer(folder)), GenerateConfig(max_new_tokens=12, temperature=0.0)
    prompts = [tokenizer.render_prompt([{"role": "user", "content": text}]) for text in ("yes?", "no", "what is blue?")]
    together = replies_with_tools(decoder, tokenizer, prompts, config, TOOLS, LIMITS)
    single = [replies_with_tools(decoder, tokenizer, [prompt], config, TOOLS, LIMITS)[0] for prompt in prompts]
    assert [reply.tokens for reply in together] == [reply.tokens for reply in single]


def test_chat_streams_what_the_batch_gives(folder: Path, tokenizer: ChatTokenizer) -> None:
    chat = Chat(folder, folder / "tokenizer.json", max_new_tokens=12)
    pieces = chat.reply_with_tools([USER], TOOLS)
    texts: list[str] = []
    while True:
        try:
            piece = next(pieces)
        except StopIteration as stop:
            reply = stop.value
            break
        if isinstance(piece, str):
            texts.append(piece)
    assert "".join(texts).strip() == reply.text
    assert (
        reply.tokens
        == replies_with_tools(chat.decoder, tokenizer, [tokenizer.render_prompt([USER])], chat.config, TOOLS, LIMITS)[
            0
        ].tokens
    )
