"""Formats of chat data: each on a record of its kind, on a real file, and on what is not one; mixtures, and bad lines that are left out."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import UserError
from model.files import read_lines
from tasks.artifacts.store import Store
from tasks.conversations.formats.detect import FORMATS
from tasks.conversations.identity import find_files, stated_format
from tasks.conversations.readers import BadLine, check_source, mixed, read_files, read_records
from tasks.conversations.sources import ConversationsConfig, conversations
from tasks.execution.runner import execute
from tasks.records.conversations import Conversation, Preference, Prompt, normal_form
from tasks.records.messages import Record


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


def tool(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def node(role: str, text: str, *replies: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies), **fields}


def said(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


CALL = {"name": "f", "arguments": '{"x": 1}'}
GSM8K = {"question": "How many?", "answer": "He has 48/2 = <<48/2=24>>24 left.\nIt is 24+1=<<24+1=25>>25.\n#### 25"}
TREE = {
    "message_tree_id": "1",
    "prompt": node(
        "prompter",
        "a?",
        node("assistant", "worse", rank=1),
        node(
            "assistant",
            "better",
            node("prompter", "and?", node("assistant", "x", rank=None), node("assistant", "y")),
            node("prompter", "thanks"),
            rank=0,
        ),
        node("assistant", "gone", rank=2, deleted=True),
        node("assistant", "bad", rank=3, review_result=False),
    ),
}
HH = {
    "chosen": "\n\nHuman: a?\n\nAssistant: b\n\nHuman: c?\n\nAssistant: good",
    "rejected": "\n\nHuman: a?\n\nAssistant: b\n\nHuman: c?\n\nAssistant: bad",
}
AB = [user("a?"), assistant("b")]

CONVERSATIONS: list[tuple[str, Any, list[list[dict[str, Any]]]]] = [
    ("openai", {"messages": [system("s"), *AB]}, [[system("s"), *AB]]),
    ("a list of messages", AB, [AB]),
    (
        "tools",
        {"messages": AB, "tools": [{"type": "function", "function": {"name": "f"}}]},
        [[system('Tools:\n{"type": "function", "function": {"name": "f"}}'), *AB]],
    ),
    (
        "LLaMA-Factory's messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "a?"}], "loss_weight": 0.0},
                {"role": "assistant", "content": [{"type": "text", "value": "no"}], "loss_weight": 0.0},
                {"role": "user", "content": [{"type": "text", "value": "a?"}], "loss_weight": 0.0},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_call", "value": json.dumps(CALL)}],
                    "loss_weight": 1.0,
                },
            ]
        },
        [[user("a?"), assistant("no", weight=0), user("a?"), assistant("", tool_calls=[CALL])]],
    ),
    ("trl", {"prompt": "a?", "completion": "b"}, [AB]),
    ("trl lists", {"prompt": [user("a?")], "completion": [assistant("b")]}, [AB]),
    ("sharegpt", {"conversations": [said("human", "a?"), said("gpt", "b")], "system": "s"}, [[system("s"), *AB]]),
    (
        "sharegpt with tools",
        {
            "conversations": [
                said("human", "a?"),
                said("function_call", json.dumps({"name": "f", "arguments": {"x": 1}})),
                said("observation", "8"),
                said("gpt", "b"),
            ],
            "tools": '[{"name": "f"}]',
        },
        [[system('Tools:\n{"name": "f"}'), user("a?"), assistant("", tool_calls=[CALL]), tool("8"), assistant("b")]],
    ),
    ("alpaca", {"instruction": "a?", "input": "", "output": "b"}, [AB]),
    (
        "alpaca with input and history",
        {"instruction": "a?", "input": "1", "output": "b", "history": [["c?", "d"]], "system": "s"},
        [[system("s"), user("c?"), assistant("d"), user("a?\n\n1"), assistant("b")]],
    ),
    (
        "self-instruct",
        {"instruction": "a?", "instances": [{"input": "", "output": "b"}, {"input": "1", "output": "c"}]},
        [AB, [user("a?\n\n1"), assistant("c")]],
    ),
    (
        "openassistant",
        TREE,
        [
            [user("a?"), assistant("better"), user("and?"), assistant("x")],
            [user("a?"), assistant("better", weight=0), user("and?"), assistant("y")],
            [user("a?"), assistant("worse")],
        ],
    ),
    ("ultrachat", {"id": "1", "data": ["a?", "b", "c?", "d"]}, [[*AB, user("c?"), assistant("d")]]),
    ("hh", HH, [[*AB, user("c?"), assistant("good")]]),
    (
        "gsm8k",
        GSM8K,
        [
            [
                user("How many?"),
                assistant("He has 48/2 = ", tool_calls=[{"name": "calculator", "arguments": "48/2"}]),
                tool("24"),
                assistant("24 left.\nIt is 24+1=", tool_calls=[{"name": "calculator", "arguments": "24+1"}]),
                tool("25"),
                assistant("25.\n#### 25"),
            ]
        ],
    ),
]
PAIR = {"messages": [user("a?")], "chosen": "b", "rejected": "c", "kind": ""}
PREFERENCES: list[tuple[str, Any, list[dict[str, Any]]]] = [
    ("own", {"messages": [user("a?")], "chosen": "b", "rejected": "c"}, [PAIR]),
    ("trl", {"prompt": "a?", "chosen": "b", "rejected": "c"}, [PAIR]),
    ("trl implicit", {"chosen": AB, "rejected": [user("a?"), assistant("c")]}, [PAIR]),
    ("trl both", {"prompt": "a?", "chosen": AB, "rejected": [user("a?"), assistant("c")], "score_chosen": 1.0}, [PAIR]),
    (
        "openai",
        {
            "input": {"messages": [user("a?")]},
            "preferred_output": [assistant("b")],
            "non_preferred_output": [assistant("c")],
        },
        [PAIR],
    ),
    (
        "sharegpt",
        {"conversations": [said("human", "a?")], "chosen": said("gpt", "b"), "rejected": said("gpt", "c")},
        [PAIR],
    ),
    ("alpaca", {"instruction": "a?", "input": "", "output": "b", "chosen": "b", "rejected": "c"}, [PAIR]),
    (
        "openassistant",
        TREE,
        [{"messages": [user("a?")], "chosen": "better", "rejected": "worse", "kind": ""}],
    ),
    ("hh", HH, [{"messages": [*AB, user("c?")], "chosen": "good", "rejected": "bad", "kind": ""}]),
]


def read(tmp_path: Path, value: Any, kind: type[Record], stated: str = "") -> list[Any]:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n")
    return [normal_form(record) for record in read_records(kind, path, stated)]


@pytest.mark.parametrize(
    ("value", "expected"), [case[1:] for case in CONVERSATIONS], ids=[case[0] for case in CONVERSATIONS]
)
def test_conversations_of_every_format_are_detected_and_read(tmp_path: Path, value: Any, expected: Any) -> None:
    assert [record["messages"] for record in read(tmp_path, value, Conversation)] == expected


@pytest.mark.parametrize(
    ("value", "expected"), [case[1:] for case in PREFERENCES], ids=[case[0] for case in PREFERENCES]
)
def test_preferences_of_every_format_are_detected_and_read(tmp_path: Path, value: Any, expected: Any) -> None:
    assert read(tmp_path, value, Preference) == expected


@pytest.mark.parametrize(
    ("value", "question", "answer"),
    [
        (GSM8K, "How many?", "25"),
        (TREE, "a?", None),
        ({"instruction": "a?", "input": "1", "output": "b"}, "a?\n\n1", None),
        ({"prompt": "a?", "answer": 4}, "a?", "4"),
    ],
)
def test_prompts_of_other_formats_are_read(tmp_path: Path, value: Any, question: str, answer: str | None) -> None:
    assert read(tmp_path, value, Prompt) == [{"messages": [user(question)], "answer": answer, "kind": ""}]


def test_stated_format_decides(tmp_path: Path) -> None:
    [record] = read(tmp_path, GSM8K, Conversation, "gsm8k_text")
    assert record["messages"][1]["content"] == "He has 48/2 = 24 left.\nIt is 24+1=25.\n#### 25"
    assert stated_format("gsm8k_text:a/b.jsonl") == ("gsm8k_text", "a/b.jsonl")
    assert stated_format("https://a.b/c") == ("", "https://a.b/c")
    with pytest.raises(UserError, match=r"records.jsonl:1: conversations is missing; write it as a list"):
        read(tmp_path, GSM8K, Conversation, "sharegpt")


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        ({"conversations": "hi"}, Conversation, 'conversations is "hi"; write it as a list'),
        ({"conversations": [7]}, Conversation, "a turn of conversations is 7; write it as a JSON object"),
        ({"conversations": [said("robot", "x")]}, Conversation, 'from is "robot"; write one of human'),
        (
            {"conversations": [said("function_call", "{")]},
            Conversation,
            'value of a function_call is "{"; write JSON in it',
        ),
        ({"conversations": [said("gpt", "b")]}, Conversation, "messages[0].role is"),
        ({"instruction": "a?"}, Conversation, "output is missing; write it as a string"),
        ({"instruction": 7, "output": "b"}, Conversation, "instruction is 7; write it as a string"),
        ({"instruction": "a?", "output": "b", "history": [1]}, Conversation, "history has 1; write pairs"),
        ({"prompt": node("assistant", "b")}, Conversation, "write the first message of a tree, of role prompter"),
        ({"prompt": node("prompter", "a?", node("bot", "b", node("assistant", "c")))}, Conversation, 'role is "bot"'),
        (
            {"prompt": {**node("prompter", "a?"), "replies": 7}},
            Conversation,
            "replies is 7; write it as a list of messages",
        ),
        ({"chosen": "x Human: a", "rejected": "Human: b"}, Preference, 'chosen is "x Human: a"; begin it with Human:'),
        (
            {"chosen": "Human: a", "rejected": "Human: b"},
            Preference,
            "differ first in turn 1, which is not the assistant's",
        ),
        (GSM8K, Preference, "it is a record of the format gsm8k, which holds no preferences; give another file"),
        ({"prompt": 7.5, "completion": "b"}, Conversation, "messages is missing"),
        (
            {"prompt": "a?", "completion": 7},
            Conversation,
            "the turn of the assistant is 7; write it as a string or a list",
        ),
        ({"data": ["a?", 7]}, Conversation, "messages[1].content is 7"),
        ({"messages": AB, "tools": 7}, Conversation, "tools is 7; write it as a list"),
    ],
)
def test_bad_records_are_named_with_their_reason(tmp_path: Path, value: Any, kind: type[Record], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, value, kind)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'records.jsonl'}:1: ")
    assert str(caught.value).isprintable()


KEYS = [
    "messages",
    "role",
    "content",
    "prompt",
    "replies",
    "text",
    "conversations",
    "from",
    "value",
    "chosen",
    "rejected",
    "instruction",
    "output",
    "history",
    "tools",
    "data",
    "rank",
    "tool_calls",
    "instances",
    "question",
    "answer",
]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(value=JSON, kind=st.sampled_from([Conversation, Preference, Prompt]), stated=st.sampled_from(["", *FORMATS]))
def test_no_value_breaks_a_reader(
    tmp_path_factory: pytest.TempPathFactory, value: Any, kind: type[Record], stated: str
) -> None:
    """A record, or one error in one line."""
    try:
        read(tmp_path_factory.getbasetemp(), value, kind, stated)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_is_read_as_its_records(tmp_path: Path, wrap: Any, indent: int | None) -> None:
    records = [{"instruction": f"{n}?", "output": "b"} for n in range(3)]
    (tmp_path / "a.json").write_bytes(wrap(json.dumps(records, indent=indent).encode()))
    found = list(read_records(Conversation, tmp_path / "a.json"))
    assert [record.messages[0].content for record in found] == ["0?", "1?", "2?"]
    (tmp_path / "a.json").write_text(json.dumps([*records, {"instruction": 7}]))
    with pytest.raises(UserError, match=r"a.json:4: instruction is 7"):
        list(read_records(Conversation, tmp_path / "a.json"))
    (tmp_path / "a.json").write_text(json.dumps(records, indent=2)[:-3])
    with pytest.raises(UserError, match=r"a.json: not valid JSON"):
        list(read_records(Conversation, tmp_path / "a.json"))


BAD = ["{", '{"messages": 7}', '{"instruction": "a?"}', b"\xff\xfe{}".decode("latin1")]


def test_bad_lines_are_left_out_below_the_stated_fraction(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "chats.jsonl"
    good = [json.dumps({"messages": [user(f"{n}?"), assistant("b")]}) for n in range(96)]
    lines = [*good[:50], *BAD, *good[50:]]
    path.write_bytes("\n".join(lines).encode("latin1"))
    found = read_files(Conversation, [path], "", 0.04)
    assert (len(found.records), found.num_bad) == (96, 4)
    assert [line.line for line in found.bad_lines] == [51, 52, 53, 54]
    assert found.bad_lines[2] == BadLine(str(path), 53, "output is missing; write it as a string")
    assert found.bad_lines[3].reason == "not text in UTF-8; save the file as UTF-8"
    expected = r"chats.jsonl:51: not valid JSON.* \(4 of 100 records are bad, more than max_bad_fraction=0.03\)"
    with pytest.raises(UserError, match=expected):
        check_source(Conversation, str(path), 0.0, 0.03)
    assert check_source(Conversation, str(path), 0.0, 0.04)["bad_lines"] == 4
    config = ConversationsConfig(conversations=str(path), validation_fraction=0.0, max_bad_fraction=0.04)
    manifest = execute(conversations(config, 1), store)
    assert manifest.counts == {"train_records": 96, "validation_records": 0, "bad_lines": 4}
    named = read_lines(store.folder(manifest.id) / "bad_lines.jsonl")
    assert named[0] | {"reason": ""} == {"file": str(path), "line": 51, "reason": ""}
    assert len(named) == 4


def test_mixture_has_the_stated_shares_and_is_the_same_each_time(tmp_path: Path, store: Store) -> None:
    for name, number in (("a", 40), ("b", 100), ("c", 3)):
        lines = [json.dumps({"messages": [user(f"{name}{n}?"), assistant(name)]}) for n in range(number)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    config = ConversationsConfig(
        conversations=str(tmp_path / "a.jsonl"),
        conversations_mixture={str(tmp_path / "b.jsonl"): 0.5, f"messages:{tmp_path / 'c.jsonl'}": 0.25},
        validation_fraction=0.0,
    )
    step = conversations(config, 1)
    records = read_lines(store.folder(execute(step, store).id) / "train.jsonl")
    asked = [record["messages"][0]["content"] for record in records]
    assert {name: sum(text.startswith(name) for text in asked) for name in "abc"} == {"a": 40, "b": 20, "c": 10}
    assert len({text for text in asked if text.startswith("b")}) == 20  # none twice
    assert {text[0] for text in asked[:12]} > {"a"}  # shuffled
    again = Store(str(tmp_path / "again"))
    assert read_lines(again.folder(execute(conversations(config, 1), again).id) / "train.jsonl") == records
    other = config.model_copy(update={"conversations_mixture": {str(tmp_path / "b.jsonl"): 0.6}})
    assert conversations(other, 1).id != step.id


def test_mixture_of_validation_records_repeats_none() -> None:
    assert sorted(mixed([list("aaaa"), list("bc")], [1.0, 1.0], may_repeat=False)) == list("aaaabc")
    assert len(mixed([list("aaaa"), list("bc")], [1.0, 1.0], may_repeat=True)) == 8
    assert mixed([list("aaaa"), []], [1.0, 1.0], may_repeat=True) == list("aaaa")


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_weight_that_is_not_above_0_is_refused(weight: float) -> None:
    with pytest.raises(UserError, match=r"the source 'b.jsonl' has the weight .*; give one above 0"):
        conversations(ConversationsConfig(conversations_mixture={"b.jsonl": weight}), 1)


def test_remote_files_are_fetched_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    filesystem = fsspec.filesystem("memory")
    ids = []
    for text in ("b", "b", "other"):
        for name in ("one", "two"):
            filesystem.pipe(f"/chats/{name}.jsonl", json.dumps({"messages": [user(name), assistant(text)]}).encode())
        files = find_files("memory://chats/*.jsonl")
        assert [path.name for path in files] == ["one.jsonl", "two.jsonl"]
        config = ConversationsConfig(conversations="messages:memory://chats/*.jsonl")
        ids.append(conversations(config, 1).id)
        assert [record.messages[1].content for file in files for record in read_records(Conversation, file)] == [
            text
        ] * 2
    assert ids[0] == ids[1] != ids[2]
    for url in ("memory://nowhere/*.jsonl", "memory://nowhere/a.jsonl", "nosuch://a/b.jsonl", "nosuch://a/*.jsonl"):
        with pytest.raises(UserError, match=r"no file matches|cannot be read"):
            find_files(url)


REAL = [  # file, kind, records, bad records
    ("alpaca_en_demo.json.gz", Conversation, 999, 0),
    ("code_alpaca_2k.json.gz", Conversation, 2015, 2),
    ("dpo_en_demo.jsonl.gz", Preference, 200, 0),
    ("dpo_en_demo.jsonl.gz", Conversation, 200, 0),
    ("glaive_toolcall_en_demo.json.gz", Conversation, 300, 0),
    ("gsm8k_train.jsonl.gz", Conversation, 7473, 0),
    ("gsm8k_train.jsonl.gz", Prompt, 7473, 0),
    ("hh-harmless-base.jsonl.gz", Preference, 1593, 7),
    ("hh-harmless-base.jsonl.gz", Conversation, 1592, 8),
    ("instruction-preference.jsonl.gz", Preference, 850, 0),
    ("oasst-en_100_tree.jsonl.gz", Conversation, 546, 0),
    ("oasst-en_100_tree.jsonl.gz", Preference, 754, 0),
    ("self-instruct-seed_tasks.jsonl.gz", Conversation, 175, 0),
    ("v1_sft_demo.jsonl.gz", Conversation, 500, 0),
]


@pytest.mark.parametrize(("name", "kind", "num_records", "num_bad"), REAL)
def test_real_files_are_read(shared_data: Path, name: str, kind: type[Record], num_records: int, num_bad: int) -> None:
    path = shared_data / "sft_rl" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    found = read_files(kind, [path], "", 0.01)
    assert (len(found.records), found.num_bad) == (num_records, num_bad)


def test_calculations_of_gsm8k_are_calls_with_their_results(shared_data: Path) -> None:
    path = shared_data / "sft_rl" / "gsm8k_train.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    records = read_files(Conversation, [path]).records
    texts = "".join(message.content for record in records for message in record.messages)
    calls = [call for record in records for message in record.messages for call in message.tool_calls]
    assert "<<" not in texts and len(calls) > 20_000
    assert {call.name for call in calls} == {"calculator"}


def test_ultrachat_is_read_where_it_is_there(shared_data: Path) -> None:
    files = sorted((shared_data / "sft_rl").glob("*ultrachat*"))
    if not files:
        pytest.skip(f"no file of UltraChat in {shared_data / 'sft_rl'}")
    assert read_files(Conversation, files, "", 0.01).records
