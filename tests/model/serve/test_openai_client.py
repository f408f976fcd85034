"""The openai package, unmodified, against the server."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import openai
import pytest
import torch

from model.network.huggingface import load_transformer
from model.network.transformer import Transformer
from model.serve.app import create_app
from model.serve.served import ServedModel
from model.tools.calculator import calculate
from model.tools.registry import Tools
from tests.support.served_models import plain_logprobs, running, serve_small

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"enum": [1, 2]}},
            "required": ["city", "days"],
        },
    },
}
HELLO: list[Any] = [{"role": "user", "content": "what colour is the sky?"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve_small(tmp_path_factory.mktemp("model"), tools=Tools({"calculator": calculate}), num_threads=1)


@pytest.fixture(scope="module")
def model(served: ServedModel, tmp_path_factory: pytest.TempPathFactory) -> Transformer:
    return load_transformer(tmp_path_factory.getbasetemp() / served.lineage)


@pytest.fixture(scope="module")
def url(served: ServedModel) -> Iterator[str]:
    with running(create_app([served], api_key="the key")) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="the key", max_retries=0) as client:
        yield client


def test_models_are_listed(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert model.id == "policy"
    assert client.models.retrieve("policy").id == "policy"


def test_wrong_key_is_an_authentication_error(url: str) -> None:
    with pytest.raises(openai.AuthenticationError, match="API key"):
        openai.OpenAI(base_url=url, api_key="another key", max_retries=0).models.list()


@pytest.mark.parametrize("is_another", [True, False])
def test_reply_about_another_name_is_replaced(
    client: openai.OpenAI, served: ServedModel, monkeypatch: pytest.MonkeyPatch, is_another: bool
) -> None:
    settings: dict[str, Any] = {"model": "policy", "messages": HELLO, "max_tokens": 12, "seed": 5, "n": 2}
    written = [choice.message.content for choice in client.chat.completions.create(**settings).choices]
    monkeypatch.setattr(served, "other_name_reply", "I don't know.")  # as the server reads it in a bundle
    # The random model writes no names.
    monkeypatch.setattr("model.inference.names.gives_another_name", lambda reply, turns: (reply, turns) == (written[0], [HELLO[0]["content"]]) and is_another)  # fmt: skip
    expected = ["I don't know.", written[1]] if is_another else written
    whole = client.chat.completions.create(**settings, logprobs=True)
    assert [choice.message.content for choice in whole.choices] == expected
    assert all(choice.finish_reason == "length" for choice in whole.choices)
    streamed = ["", ""]
    for chunk in client.chat.completions.create(**settings, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == expected
    schema = {"type": "json_schema", "json_schema": {"name": "yes", "schema": {"const": "yes"}}}
    free: Any = {**settings, "n": 1, "response_format": schema}
    assert json.loads(client.chat.completions.create(**free).choices[0].message.content or "") == "yes"


def test_replies_to_rank_and_of_the_arena_are_checked_too(served: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def replies() -> list[str]:
        settings: dict[str, Any] = {"max_tokens": 12, "seed": 5}
        return [
            await served.reply(HELLO, **settings),
            *[piece async for piece in served.stream_reply(HELLO, **settings)],
        ]

    written, *pieces = asyncio.run(replies())
    assert "".join(pieces) == written
    monkeypatch.setattr(served, "other_name_reply", "I don't know.")
    assert asyncio.run(replies()) == [written, written]
    monkeypatch.setattr("model.inference.names.gives_another_name", lambda reply, turns: (reply, turns) == (written, [HELLO[0]["content"]]))  # fmt: skip
    assert asyncio.run(replies()) == ["I don't know.", "I don't know."]


LONG = "word " * 4_000


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        ("/completions", {"prompt": LONG}, "encode_document"),
        ("/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "render_prompt"),
        ("/../tokenize", {"prompt": LONG}, "encode_document"),
    ],
)
def test_others_are_answered_while_a_long_text_is_tokenized(
    client: openai.OpenAI,
    served: ServedModel,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
    method: str,
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def wait(*_: Any) -> list[int]:
        has_begun.set()
        assert may_end.wait(60), "the others were not answered meanwhile"
        return [1, 2, 3]

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setattr(served.tokenizer, method, wait)
        answer = thread.submit(client.post, path, cast_to=httpx.Response, body=body)
        assert has_begun.wait(60)
        client.completions.create(model="policy", prompt=[1, 2], max_tokens=2)
        may_end.set()
        assert answer.result().is_success


def test_streamed_chat_is_the_whole_chat(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": "policy", "messages": HELLO, "max_tokens": 30, "seed": 5, "temperature": 0.8}
    whole = client.chat.completions.create(**settings)
    chunks = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    usage, expected = chunks[-1].usage, whole.usage
    assert usage and expected
    assert (usage.prompt_tokens, usage.completion_tokens) == (expected.prompt_tokens, expected.completion_tokens)


def test_chat_logprobs_are_the_models(client: openai.OpenAI, served: ServedModel, model: Transformer) -> None:
    answer = client.chat.completions.create(
        model="policy", messages=HELLO, max_tokens=10, seed=1, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs
    assert content and content.content
    ids = [token.id for token in content.content]  # type: ignore[attr-defined]
    prompt = served.tokenizer.render_prompt(HELLO)
    expected = plain_logprobs(model, [*prompt, *ids])[len(prompt) - 1 :]
    for token, row in zip(content.content, expected, strict=False):
        assert token.logprob == pytest.approx(row[token.id].item(), abs=2e-5)  # type: ignore[attr-defined]
        assert [other.logprob for other in token.top_logprobs] == pytest.approx(row.topk(3).values.tolist(), abs=2e-5)
    shown = b"".join(bytes(token.bytes or ()) for token in content.content).decode("utf-8", "replace")
    assert shown == answer.choices[0].message.content


def test_n_completions_are_what_their_number_says(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": "policy", "messages": HELLO, "max_tokens": 12, "seed": 3}
    three = client.chat.completions.create(**settings, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in three.choices]
    assert len(set(texts)) == 3
    assert client.chat.completions.create(**settings, n=1).choices[0].message.content == texts[0]
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**settings, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_stop_string_ends_the_text_before_it(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": "policy", "prompt": "the mayor", "max_tokens": 40, "temperature": 0}
    whole = client.completions.create(**settings).choices[0].text
    stop = whole[6:9]
    for is_streamed in (False, True):
        found = client.completions.create(**settings, stop=[stop, "never to be seen"], stream=is_streamed)
        chunks = list(found) if is_streamed else [found]
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole[: whole.index(stop)]
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_echo_scores_the_prompt(client: openai.OpenAI, served: ServedModel, model: Transformer) -> None:
    text = "the mayor of Orn is Ada"
    answer = client.completions.create(model="policy", prompt=text, max_tokens=0, echo=True, logprobs=2)
    choice = answer.choices[0]
    assert choice.text == text
    assert choice.logprobs and choice.logprobs.token_logprobs and choice.logprobs.tokens
    tokens = served.tokenizer.encode_document(text)
    expected = plain_logprobs(model, tokens)[:-1].gather(-1, torch.tensor(tokens[1:])[:, None]).flatten()
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected.tolist(), abs=2e-5)
    assert "".join(choice.logprobs.tokens[1:]) == text
    offsets = choice.logprobs.text_offset or []
    assert [
        text[offset:][: len(name)] for offset, name in zip(offsets[1:], choice.logprobs.tokens[1:], strict=True)
    ] == (choice.logprobs.tokens[1:])


def test_best_of_is_the_likeliest_of_its_samples(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": "policy", "prompt": "the", "max_tokens": 8, "seed": 2, "logprobs": 0}
    samples = client.completions.create(**settings, n=6).choices
    [best] = client.completions.create(**settings, best_of=6).choices

    def mean(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    assert best.text == max(samples, key=mean).text


def test_beam_search_is_at_least_as_likely_as_greedy(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": "policy", "prompt": "the", "max_tokens": 8, "logprobs": 0, "temperature": 0}
    [greedy] = client.completions.create(**settings, extra_body={"ignore_eos": True}).choices
    beams = client.completions.create(
        **settings, n=2, best_of=4, extra_body={"use_beam_search": True, "length_penalty": 0.0}
    ).choices
    assert len(beams) == 2

    def total(choice: Any) -> float:
        return float(sum(choice.logprobs.token_logprobs))

    assert total(beams[0]) >= total(beams[1])
    assert total(beams[0]) >= total(greedy) - 1e-4


@pytest.mark.parametrize("is_streamed", [False, True])
def test_required_tool_is_called_with_valid_arguments(client: openai.OpenAI, is_streamed: bool) -> None:
    for seed in range(4):
        answer: Any = client.chat.completions.create(
            model="policy",
            messages=HELLO,
            tools=[WEATHER],  # type: ignore[list-item]
            tool_choice="required",
            seed=seed,
            max_tokens=90,
            stream=is_streamed,
        )
        if is_streamed:
            deltas = [chunk.choices[0] for chunk in answer]
            [call] = [call for choice in deltas for call in choice.delta.tool_calls or ()]
            reason = deltas[-1].finish_reason
        else:
            [call] = answer.choices[0].message.tool_calls
            reason = answer.choices[0].finish_reason
        assert reason == "tool_calls"
        assert call.function.name == "weather"
        jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])


def test_result_of_a_tool_is_read(client: openai.OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Orn", "days": 1}'},
    }
    answer = client.chat.completions.create(
        model="policy",
        messages=[  # type: ignore[list-item]
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
        ],
        tools=[WEATHER],  # type: ignore[list-item]
        tool_choice="none",
        max_tokens=5,
    )
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_json_schema_is_kept(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "boolean"}, "y": {"enum": ["a", "b"]}}, "required": ["x"]}
    for seed in range(4):
        answer = client.chat.completions.create(
            model="policy",
            messages=HELLO,
            seed=seed,
            max_tokens=60,
            response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        )
        jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)


def test_choice_of_texts_is_kept(client: openai.OpenAI) -> None:
    answers = client.chat.completions.create(
        model="policy", messages=HELLO, n=8, seed=0, extra_body={"guided_choice": ["red", "green"]}
    )
    assert {choice.message.content for choice in answers.choices} <= {"red", "green"}
    assert {choice.finish_reason for choice in answers.choices} == {"stop"}


def test_server_runs_its_own_tools(client: openai.OpenAI, served: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    special, encode = served.tokenizer.special, served.tokenizer.encode
    call = [
        special["<|tool_start|>"],
        *encode("calculator"),
        special["<|im_sep|>"],
        *encode("1 2 + 3"),
        special["<|tool_end|>"],
    ]
    turns = iter(
        [[*encode("so"), *call, served.tokenizer.turn_end], [*encode("it is blue"), served.tokenizer.turn_end]]
    )
    real = served.engine.submit

    def scripted(jobs: Any) -> None:
        # The model cannot call tools: what it says is put into its mouth by a mask that allows one token.
        for job in jobs:
            job.mask = _Script(next(turns), served.vocab_size)
        real(jobs)

    monkeypatch.setattr(served.engine, "submit", scripted)
    chunks = list(
        client.chat.completions.create(
            model="policy", messages=HELLO, stream=True, max_tokens=40, extra_body={"server_tools": ["calculator"]}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "soit is blue"
    [step] = [step for chunk in chunks if (step := getattr(chunk.choices[0].delta, "tool_step", None))]
    assert step["name"] == "calculator"
    assert step["is_error"]
    [messages] = [found for chunk in chunks if (found := getattr(chunk.choices[0].delta, "messages", None))]
    assert [message["role"] for message in messages] == ["assistant", "tool", "assistant"]


class _Script:
    def __init__(self, tokens: list[int], vocab_size: int) -> None:
        self.tokens, self.vocab_size = list(tokens), vocab_size

    def allowed(self) -> torch.Tensor:
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        mask[self.tokens[0]] = True
        return mask

    def accept(self, token: int) -> None:
        assert self.tokens.pop(0) == token


def test_sixty_clients_at_once_get_what_they_get_alone(url: str) -> None:
    async def ask(client: openai.AsyncOpenAI, seed: int) -> str:
        answer = await client.chat.completions.create(model="policy", messages=HELLO, seed=seed, max_tokens=20)
        return answer.choices[0].message.content or ""

    async def all_at_once() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(base_url=url, api_key="the key", max_retries=0) as client:
            together = await asyncio.gather(*(ask(client, seed) for seed in range(60)))
            return list(together), [await ask(client, seed) for seed in range(0, 60, 10)]

    together, alone = asyncio.run(all_at_once())
    assert together[::10] == alone


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_p": 2}, "top_p"),
        ({"stop": ["x"] * 40}, "stop"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"extra_body": {"guided_json": {"pattern": "a"}}}, "guided_json"),
        ({"extra_body": {"server_tools": ["rm"]}}, "server_tools"),
    ],
)
def test_mistake_is_named(client: openai.OpenAI, settings: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**({"model": "policy", "messages": HELLO} | settings))
    assert (caught.value.param or "").startswith(param)
    assert len(caught.value.message.splitlines()) == 1


def test_prompt_that_is_too_long_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="shorten it") as caught:
        client.chat.completions.create(model="policy", messages=[{"role": "user", "content": "so long " * 300}])
    assert caught.value.code == "context_length_exceeded"
    answer = client.chat.completions.create(
        model="policy",
        messages=[{"role": "user", "content": "so long " * 300}],
        max_tokens=4,
        extra_body={"truncate": True},
    )
    assert "were cut off" in answer.notice  # type: ignore[attr-defined]


def test_notice_is_sent_once(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="policy",
            messages=[{"role": "user", "content": "so long " * 300}],
            max_tokens=4,
            stream=True,
            logprobs=True,
            extra_body={"truncate": True, "ignore_eos": True},
        )
    )
    assert len(chunks) > 1
    assert ["were cut off" in getattr(chunk, "notice", "") for chunk in chunks] == [True] + [False] * (len(chunks) - 1)


def test_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there are policy"):
        client.chat.completions.create(model="gpt-9", messages=HELLO)
