"""`crawl2chat show-mask`: what is learned can be seen without colours, and no text of a conversation reaches the terminal as a command."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.show_mask import mask_lines
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Conversations, SFTModel, Tokenizer
from tasks.artifacts.store import Store
from tests.support.tiny_models import finish, write_lines, write_tokenizer

MESSAGES = [
    {"role": "user", "content": "red\n+ green\x1b[31m\x07"},
    {"role": "assistant", "content": "yes", "tool_calls": [{"name": "f", "arguments": "1"}]},
    {"role": "tool", "content": "\u202e<|im_end|>"},
    {"role": "assistant", "content": "no"},
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> ChatTokenizer:
    return write_tokenizer(tmp_path / "tokenizer")


def shown(tokenizer: ChatTokenizer, *, has_colours: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=has_colours, color_system="standard" if has_colours else None)
    for line in mask_lines(tokenizer.render(MESSAGES), tokenizer):
        console.print(line, soft_wrap=True)
    return output.getvalue()


def test_learned_tokens_are_marked_without_colours(tokenizer: ChatTokenizer) -> None:
    lines = shown(tokenizer, has_colours=False).replace("│", "").splitlines()
    assert lines == [
        "  <|bos|><|im_start|><|user|><|im_sep|>red\\n+ green\\x1b[31m\\x07<|im_end|><|im_start|><|assistant|><|im_sep|>",
        "+ yes<|tool_start|>f<|im_sep|>1<|tool_end|><|im_end|>",
        f"  <|im_start|><|tool|><|im_sep|>{chr(0xFFFD) * 3}< |im_end|><|im_end|><|im_start|><|assistant|><|im_sep|>",
        "+ no<|im_end|>",
        lines[-1],
    ]
    mask = tokenizer.render(MESSAGES).mask
    assert lines[-1] == f"{sum(mask)} of {len(mask)} tokens are learned"


def test_colours_are_the_only_escape_sequences(tokenizer: ChatTokenizer) -> None:
    text = shown(tokenizer, has_colours=True)
    assert "\x1b[31m" not in text and "\x07" not in text and "\u202e" not in text
    assert "\x1b[32myes" in text


def run(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["show-mask", *arguments])
    return found.exit_code, found.output + str(found.exception or "")


def test_files_and_artifacts_are_read(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "default", classmethod(lambda cls: store))
    write_tokenizer(store.folder("tokenizer/t"))
    finish(store, Tokenizer, "tokenizer/t")
    write_lines(store.folder("conversations/c") / "train.jsonl", [{"messages": MESSAGES}, {"messages": MESSAGES[2:]}])
    finish(store, Conversations, "conversations/c")
    finish(store, SFTModel, "sft/s", inputs={"conversations": "conversations/c", "tokenizer": "tokenizer/t"})
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "red?", "output": "green"}]))
    encoder = str(store.folder("tokenizer/t") / "tokenizer.json")
    for arguments in (["conversations/c", "--tokenizer", encoder], ["sft/s"]):
        status, text = run(*arguments)
        assert status == 0 and "+ y│e│s│" in text.replace("yes", "y│e│s")
    status, text = run(str(tmp_path / "a.json"), "--tokenizer", encoder)
    assert status == 0 and "<|im_end|>" in text
    status, text = run(str(tmp_path / "a.json"), "--tokenizer", encoder, "--index", "1")
    assert status and "holds no conversation 1" in text
    status, text = run("tokenizer/t")
    assert status and "tokenizer/t is a Tokenizer and holds no conversations" in text
