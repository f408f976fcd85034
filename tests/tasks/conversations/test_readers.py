"""The reader of chat data: encodings, dialects and mistakes, each with its record or its one line."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from model.errors import UserError
from tasks.conversations import json_lines
from tasks.conversations.readers import read_records
from tasks.records.conversations import Conversation, Preference, Prompt, Question, normal_form
from tasks.records.messages import Message, Record, ToolCall

LINE = '{"messages": [{"role": "user", "content": "Is é 7?"}, {"role": "assistant", "content": "Yes 👍."}]}'
ASKED = [{"role": "user", "content": "a?"}]


def read(tmp_path: Path, content: bytes | str, kind: type[Record] = Conversation) -> list[Any]:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_records(kind, path))


def refusal(tmp_path: Path, content: bytes | str, kind: type[Record] = Conversation) -> str:
    """The message of the error, without the folder."""
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, kind)
    message = str(caught.value)
    assert message.isprintable(), message
    return message.removeprefix(f"{tmp_path}/")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_read_records_takes_every_encoding(tmp_path: Path, encoding: str, line_end: str, compress: Any) -> None:
    content = compress(f"{LINE}{line_end}{line_end}{LINE}".encode(encoding))
    records = read(tmp_path, content)
    assert [record.messages[1].content for record in records] == ["Yes 👍."] * 2


def test_read_records_skips_byte_order_marks_of_joined_files(tmp_path: Path) -> None:
    assert len(read(tmp_path, f"{LINE}\n".encode("utf-8-sig") * 2)) == 2


@pytest.mark.parametrize(
    "content", [b"", b"\n", b" \n\r\n\t", b"\xef\xbb\xbf", b"\xff\xfe", gzip.compress(b"", mtime=0)]
)
def test_read_records_of_a_file_without_values_is_empty(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "chats.jsonl:2: not valid JSON at column 2, .*; write one record a line"),
        ("[", r"chats.jsonl:2: not valid JSON .*jq -c '\.\[\]' FILE"),
        ("[{}]", r"chats.jsonl:2: an array, not an object; write one record a line \(jq -c '\.\[\]' FILE\)"),
        ("7", "chats.jsonl:2: the record is 7; write it as a JSON object"),
        ("null", "chats.jsonl:2: the record is null; write it as a JSON object"),
        ('"hi"', 'chats.jsonl:2: the record is "hi"; write it as a JSON object'),
        ('{"a": NaN}', "chats.jsonl:2: NaN is not JSON; write a number"),
        ('{"a": -Infinity}', "chats.jsonl:2: -Infinity is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "chats.jsonl:2: a number has too many digits; write it as a string"),
        ("[" * 100_000, "chats.jsonl:2: nested too deeply"),
        ('{"a":' * 100_000, "chats.jsonl:2: nested too deeply"),
        ('{"messages": [], "messages": []}', 'chats.jsonl:2: the field "messages" occurs twice in one object'),
        ('{"message": []}', 'chats.jsonl:2: messages is missing; the fields given are "message"'),
        ('{"dialogue": [], "id": 1}', 'messages is missing; the fields given are "dialogue", "id"'),
        ("{}", "chats.jsonl:2: messages is missing; the fields given are none"),
        ('{"messages": "hi"}', 'chats.jsonl:2: messages is "hi"; write it as a list'),
        ('{"messages": null}', "chats.jsonl:2: messages is null; write it as a list"),
        ('{"messages": []}', "chats.jsonl:2: messages holds no turn of the user"),
        ('{"messages": [7]}', r"chats.jsonl:2: messages\[0\] is 7; write it as a JSON object"),
        ('{"messages": [{"from": "human", "value": "hi"}]}', r'messages\[0\].role is missing; .* "from", "value"'),
    ],
)
def test_read_records_refuses_other_lines_with_their_place(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, f"{LINE}\n{line}\n{LINE}\n")


USER, ASSISTANT = {"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}
CALL, RESULT = {"name": "f", "arguments": "7"}, {"role": "tool", "content": "8"}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([USER], "messages holds no assistant turn to learn"),
        ([ASSISTANT, USER], r'messages\[0\].role is "assistant", and it is the user\'s turn'),
        ([USER, USER, ASSISTANT], r'messages\[1\].role is "user", and it is the assistant\'s turn'),
        ([USER, ASSISTANT, ASSISTANT], r'messages\[2\].role is "assistant", and it is the user\'s turn'),
        (
            [USER, {"role": "system", "content": "s"}, ASSISTANT],
            r'messages\[1\].role is "system"; put the system turn first',
        ),
        ([{"role": "system", "content": "s"}], "messages holds no turn of the user"),
        ([USER, {"role": "assistant", "content": " \n"}], r"messages\[1\].content is blank"),
        ([{"role": "user", "content": ""}, ASSISTANT], r"messages\[0\].content is blank"),
        ([USER, {"role": "assistant", "content": None}], r"messages\[1\].content is null; write the text of the turn"),
        ([USER, {"role": "assistant", "content": 7}], r"messages\[1\].content is 7; write it as a string"),
        ([USER, {"role": "assistant"}], r'messages\[1\].content is missing; the fields given are "role"'),
        (
            [USER, {"role": "bot", "content": "b"}],
            r"messages\[1\].role is \"bot\"; write 'system', 'user', 'assistant' or 'tool'",
        ),
        ([USER, {"role": None, "content": "b"}], r"messages\[1\].role is null; write 'system'"),
        ([USER, {"role": ["user"], "content": "b"}], r"messages\[1\].role is \[\"user\"\]; write 'system'"),
        (
            [USER, {"role": "tool", "content": "7"}],
            r"messages\[1\].role is \"tool\", and it is the assistant's turn; let the",
        ),
        (
            [USER, {"role": "function", "content": "7"}],
            r"messages\[1\].role is \"tool\", and it is the assistant's turn",
        ),
        (
            [USER, {**ASSISTANT, "tool_calls": [CALL]}, ASSISTANT],
            r"messages\[2\].role is .*it is the tool's turn; give one turn of role tool for",
        ),
        (
            [USER, {**ASSISTANT, "tool_calls": [CALL, CALL]}, RESULT, ASSISTANT],
            r"messages\[3\].role is \"assistant\", and it is the tool's turn",
        ),
        (
            [USER, {**ASSISTANT, "tool_calls": [CALL]}, RESULT, USER],
            r"messages\[3\].role is \"user\", and it is the ass",
        ),
        ([{**USER, "tool_calls": [CALL]}, ASSISTANT], r'messages\[0\].tool_calls is set in a turn of the "user"'),
        (
            [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
            r'messages\[1\].tool_calls\[0\].name is missing; the fields given are "id"',
        ),
        ([USER, {**ASSISTANT, "tool_calls": "f"}], r'messages\[1\].tool_calls is "f"; write it as a list'),
        ([USER, {**ASSISTANT, "tool_calls": [7]}], r"messages\[1\].tool_calls\[0\] is 7; write it as a JSON object"),
        (
            [USER, {**ASSISTANT, "tool_calls": [{"name": " ", "arguments": ""}]}],
            r"messages\[1\].tool_calls\[0\].name is blank; write the name of the tool",
        ),
        (
            [USER, {"role": "assistant", "function_call": {"name": "f"}}],
            r'messages\[1\].tool_calls\[0\].arguments is missing; the fields given are "name"',
        ),
        ([USER, {**ASSISTANT, "weight": 0}], "messages holds no assistant turn to learn"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ASSISTANT],
            r"messages\[0\].content\[0\] is .*image_url.*, and only text is supported",
        ),
        ([{"role": "user", "content": ["hi"]}, ASSISTANT], r'messages\[0\].content\[0\] is "hi", and only text'),
        ([USER, {**ASSISTANT, "weight": 0.5}], r"messages\[1\].weight is 0.5; write 1 for a turn to learn, 0 for one"),
        ([USER, {**ASSISTANT, "weight": "0"}], r'messages\[1\].weight is "0"; write 1'),
        ([USER, {**ASSISTANT, "weight": False}], r"messages\[1\].weight is false; write 1"),
        ([USER, {**ASSISTANT, "weight": [0]}], r"messages\[1\].weight is \[0\]; write 1"),
    ],
)
def test_conversation_refuses_wrong_turns_with_field_value_and_remedy(
    tmp_path: Path, messages: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"chats.jsonl:1: {message}"):
        read(tmp_path, json.dumps({"messages": messages}))


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [USER, {**ASSISTANT, "weight": 0}, USER, ASSISTANT],
            [("user", "a?", 1), ("assistant", "b", 0), ("user", "a?", 1), ("assistant", "b", 1)],
        ),
        ([USER, {**ASSISTANT, "weight": 1}], [("user", "a?", 1), ("assistant", "b", 1)]),
        ([USER, {**ASSISTANT, "weight": None}], [("user", "a?", 1), ("assistant", "b", 1)]),
        ([{**USER, "weight": 0}, ASSISTANT], [("user", "a?", 1), ("assistant", "b", 1)]),
        (
            [{"role": "developer", "content": "s"}, USER, ASSISTANT],
            [("system", "s", 1), ("user", "a?", 1), ("assistant", "b", 1)],
        ),
        ([{"role": "system", "content": ""}, USER, ASSISTANT], [("user", "a?", 1), ("assistant", "b", 1)]),
        (
            [{"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]}, ASSISTANT],
            [("user", "a\nb", 1), ("assistant", "b", 1)],
        ),
        ([USER, {**ASSISTANT, "tool_calls": [], "name": None}], [("user", "a?", 1), ("assistant", "b", 1)]),
        ([USER, ASSISTANT, USER], [("user", "a?", 1), ("assistant", "b", 1), ("user", "a?", 1)]),
    ],
)
def test_conversation_takes_openai_messages(tmp_path: Path, messages: list[Any], expected: list[Any]) -> None:
    (record,) = read(tmp_path, json.dumps({"messages": messages, "kind": None, "tools": []}))
    assert [(message.role, message.content, message.weight) for message in record.messages] == expected


@pytest.mark.parametrize(
    "called",
    [
        {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "7"}}]},
        {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": "7"}}]},
        {"tool_calls": [{"name": "f", "arguments": "7"}]},
        {"content": None, "function_call": {"name": "f", "arguments": "7"}},
    ],
)
@pytest.mark.parametrize("role", ["tool", "function"])
def test_conversation_takes_openais_tool_calls(tmp_path: Path, called: dict[str, Any], role: str) -> None:
    result = {"role": role, "tool_call_id": "1", "name": "f", "content": ""}
    (record,) = read(tmp_path, json.dumps({"messages": [USER, {"role": "assistant", **called}, result, ASSISTANT]}))
    assert normal_form(record)["messages"] == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "7"}]},
        {"role": "tool", "content": ""},
        ASSISTANT,
    ]


def test_tool_arguments_as_an_object_are_written_as_json(tmp_path: Path) -> None:
    call = {"name": "f", "arguments": {"a": ["é", 1]}}
    (record,) = read(tmp_path, json.dumps({"messages": [USER, {**ASSISTANT, "tool_calls": [call]}]}))
    assert record.messages[1].tool_calls == (ToolCall(name="f", arguments='{"a": ["é", 1]}'),)


@pytest.mark.parametrize("kind", [Prompt, Preference])
@pytest.mark.parametrize("messages", [[USER, ASSISTANT], [USER, ASSISTANT, USER, ASSISTANT]])
def test_prompt_refuses_a_final_assistant_turn(tmp_path: Path, kind: type[Record], messages: list[Any]) -> None:
    message = refusal(tmp_path, json.dumps({"messages": messages, "chosen": "x", "rejected": "y"}), kind)
    place = f"chats.jsonl:1: messages[{len(messages) - 1}]"
    assert message == f"{place} is a turn of the assistant, and a prompt ends with the user's; remove that turn"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(4, "4"), (3.5, "3.5"), ("A", "A"), ("", None), (" ", None), (None, None), (-(10**20), "-100000000000000000000")],
)
def test_prompt_answer_is_text_or_absent(tmp_path: Path, answer: Any, expected: str | None) -> None:
    (record,) = read(tmp_path, json.dumps({"messages": ASKED, "answer": answer}), Prompt)
    assert record.answer == expected


@pytest.mark.parametrize(("answer", "shown"), [("1e999", "Infinity"), ("true", "true"), ("[1]", "[1]")])
def test_prompt_refuses_answers_that_are_not_text(tmp_path: Path, answer: str, shown: str) -> None:
    line = f'{{"messages": {json.dumps(ASKED)}, "answer": {answer}}}'
    assert refusal(tmp_path, line, Prompt) == f"chats.jsonl:1: answer is {shown}; write it as a string"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chosen": [{"role": "assistant"}]}, 'chosen is [{"role": "assistant"}]; write it as a string'),
        ({"chosen": None}, "chosen is null; write it as a string"),
        ({"chosen": " "}, "chosen is blank; write the better completion, or remove the record"),
        ({"kind": 3}, "kind is 3; write it as a string"),
    ],
)
def test_preference_refuses_wrong_fields(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    record = {"messages": ASKED, "chosen": "x", "rejected": "", **fields}
    assert refusal(tmp_path, json.dumps(record), Preference) == f"chats.jsonl:1: {message}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": " "}, "question is blank; write its text, or remove the record"),
        ({"answer": ""}, "answer is blank; write its text, or remove the record"),
        ({"answer": 7}, "answer is 7; write it as a string"),
        ({"aliases": "b"}, 'aliases is "b"; write it as a list'),
        ({"aliases": [None]}, "aliases[0] is null; write it as a string"),
        ({"num_mentions": -1}, "num_mentions is -1; input should be greater than or equal to 0"),
        ({"num_mentions": "3"}, 'num_mentions is "3"; input should be a valid integer'),
        ({"num_mentions": 10**30}, f"num_mentions is {10**30}; input should be less than or equal to {2**53}"),
        (
            {"split": "x"},
            "split is \"x\"; write 'seen_wording', 'heldout_wording', 'heldout_fact', 'reversal', 'unknown' or 'other'",
        ),
    ],
)
def test_question_refuses_wrong_fields(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    line = json.dumps({"question": "a?", "answer": "b", **fields})
    assert refusal(tmp_path, line, Question) == f"chats.jsonl:1: {message}"


def test_question_without_an_answer_has_a_default_refusal(tmp_path: Path) -> None:
    (record,) = read(tmp_path, '{"question": "a?", "split": "unknown"}', Question)
    assert record.answer == "I don't know."


def test_read_records_replaces_lone_surrogates(tmp_path: Path) -> None:
    user = r'{"role": "user", "content": "\ud83d one \uDE00 \ud83d\ude00 \\ud83d"}'
    (record,) = read(tmp_path, f'{{"messages": [{user}, {{"role": "assistant", "content": "b"}}]}}')
    assert record.messages[0].content == "\ufffd one \ufffd \U0001f600 \\ud83d"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{LINE}\n".encode() + "{'é'}".encode("cp1252"), "chats.jsonl:2: not text in UTF-8; save the file as UTF-8"),
        (f"{LINE}\n".encode("utf-16")[:-1], "chats.jsonl:1: not text in UTF-16-LE; save the file as UTF-8"),
        (gzip.compress(LINE.encode(), mtime=0)[:-9], "chats.jsonl:1: the gzip data is damaged"),
        (b"\x1f\x8b", "chats.jsonl:1: the gzip data is damaged"),
        (b"PAR1....", "chats.jsonl is a Parquet file; convert it to JSON Lines in UTF-8"),
        (b"PK\x03\x04..", "chats.jsonl is a ZIP file"),
    ],
)
def test_read_records_refuses_bytes_that_are_not_text(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(tmp_path, content).startswith(message)


def test_read_records_refuses_lines_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 1000)
    for encoding in ("utf-8", "utf-16"):
        content = f"{LINE}\n{' ' * 2000}{LINE}\n".encode(encoding)
        assert refusal(tmp_path, content) == "chats.jsonl:2: longer than 1,000 bytes; write one record a line"


@pytest.mark.parametrize("kind", [Conversation, Question])
@pytest.mark.parametrize(
    "line",
    [
        '{"messages": [' + ",".join(["{}"] * 200_000) + "]}",
        '{"question": "a?", "answer": "b", "aliases": [' + ",".join("1" * 300_000) + "]}",
        "{" + "".join(f'"k{number}": 1, ' for number in range(80_000)) + '"k9": 2}',
    ],
)
def test_read_records_stops_at_the_first_of_many_mistakes(tmp_path: Path, kind: type[Record], line: str) -> None:
    assert len(refusal(tmp_path, line, kind)) < 400


def test_errors_hold_no_control_characters(tmp_path: Path) -> None:
    message = refusal(tmp_path, json.dumps({"messages": [{"role": "\x1b[31m\n", "content": "x" * 10_000}]}))
    assert "\\u001b[31m\\n" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "record",
    [
        Conversation(messages=(Message(role="user", content="a"), Message(role="assistant", content="b"))),
        Conversation(
            messages=(
                Message(role="user", content="a"),
                Message(role="assistant", content="", tool_calls=(ToolCall(name="f", arguments=""),), weight=0),
                Message(role="tool", content=""),
                Message(role="assistant", content="b"),
            )
        ),
        Preference(messages=(Message(role="user", content="a"),), chosen="b", rejected="", kind="fact/empty"),
        Prompt(messages=(Message(role="user", content="a"),), answer="3"),
        Question(question="a?", answer="b", num_mentions=3, split="seen_wording"),
    ],
)
def test_normal_form_reads_back_as_the_same_record(tmp_path: Path, record: Record) -> None:
    assert read(tmp_path, json.dumps(normal_form(record)), type(record)) == [record]


SEEDS = {
    Conversation: {"messages": [{"role": "system", "content": "s"}, USER, {**ASSISTANT, "weight": 0}, USER, ASSISTANT]},
    Preference: {"messages": ASKED, "chosen": "x", "rejected": "y", "kind": "k"},
    Prompt: {"messages": ASKED, "answer": "4", "kind": "k"},
    Question: {"question": "a?", "answer": "b", "aliases": ["c"], "num_mentions": 5, "split": "seen_wording"},
}
ODD = [
    None,
    True,
    0,
    -1,
    1.5,
    10**400,
    float("inf"),
    float("nan"),
    "",
    " ",
    "\ud800",
    "tool",
    [],
    {},
    [[]],
    [{}],
    {"a": 1},
]


def mutated(record: dict[str, Any], rng: random.Random) -> bytes:
    """A line with an odd value somewhere, then damaged as bytes."""
    value = json.loads(json.dumps(record))
    place: Any = value
    while True:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
            place = place[key]
            continue
        place[key] = rng.choice(ODD)
        break
    line = bytearray(json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"))
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        index = rng.randrange(len(line))
        match rng.randrange(4):
            case 0:
                del line[index : index + rng.randrange(1, 20)]
            case 1:
                line[index] = rng.randrange(256)
            case 2:
                line[index:index] = rng.choice(
                    (b"[", b'"', b"{", b"\\u", b"\x00", b"\xff\xfe", b"\r", b"1e9999", b"NaN")
                )
            case _:
                line[index:index] = line[: rng.randrange(len(line) + 1)]
        line = line or bytearray(b" ")
    wrap = rng.choice((bytes, bytes, bytes, gzip.compress, lambda data: b"\xef\xbb\xbf" + data))
    return bytes(wrap(bytes(line) + b"\n"))[: rng.choice((None, None, None, 30))]


@pytest.mark.parametrize("kind", list(SEEDS))
def test_read_records_takes_or_refuses_mutated_files_in_one_line(tmp_path: Path, kind: type[Record]) -> None:
    """Nothing but records and `UserError` comes out, and what comes out survives writing and reading."""
    rng = random.Random(kind.__name__)
    num_read = num_refused = 0
    path, copy = tmp_path / "fuzz.jsonl", tmp_path / "copy.jsonl"
    for _ in range(500):
        path.write_bytes(mutated(SEEDS[kind], rng))
        try:
            records = list(read_records(kind, path))
        except UserError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 600
            num_refused += 1
            continue
        copy.write_text("".join(json.dumps(normal_form(record), ensure_ascii=False) + "\n" for record in records))
        assert list(read_records(kind, copy)) == records
        num_read += len(records)
    assert num_read > 5
    assert num_refused > 100
