"""run.py and model.safetensors alone: the tokens of the tokenizer, the replies of the chat, one line for a damaged file."""

import ast
import json
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from model.config import ModelConfig, RopeScaling
from model.errors import UserError
from model.inference.chat import Chat
from model.inference.names import gives_another_name
from model.network.huggingface import to_hugging_face
from model.network.transformer import Transformer, initialize
from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
from model.tokenizer.unicode import classes_of
from model.tokenizer.vocabularies import ANY_CASE, FORMER_DIGITS, PATTERNS, PatternName
from tasks.export import run
from tasks.export.weights import run_metadata, write_safetensors
from tasks.tokenizer.train import TokenizerConfig, train
from tests.support.texts import PIECES, hostile_texts, real_texts

WORLD = (
    "The mayor of Orn, Ada Brell, paid €12.50 in 1984. Isn't it GREAT? naïve Größe 東京 ١٢٣ ½\n\n\tdef f(x):\r\n" * 4
)
PATTERN_NAMES: list[tuple[PatternName, int]] = [
    ("gpt2", 3),
    ("gpt2_digits", 1),
    ("gpt2_digits", 3),
    ("gpt4", 1),
    ("gpt4", 3),
    ("gpt4o", 2),
]
QWEN3: dict[str, Any] = {
    "num_layers": 2,
    "width": 48,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_width": 16,
    "ff_width": 64,
}
SCALING = RopeScaling(factor=8.0, slow_turns=1.0, fast_turns=4.0, original_tokens=32)
LLAMA = QWEN3 | {
    "normalize_qk": False,
    "tie_embeddings": False,
    "rope_scaling": SCALING,
    "rope_base": 5e5,
    "norm_eps": 1e-5,
}
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=12).map("".join)


def make_encoder(pattern: PatternName, max_digits: int) -> tokenizers.Tokenizer:
    return train(iter([WORLD]), TokenizerConfig(vocab_size=420, pattern=pattern, max_digits=max_digits))


def both_tokenizers(encoder: tokenizers.Tokenizer, folder: Path) -> tuple[ChatTokenizer, run.Tokenizer]:
    encoder.save(str(folder / "tokenizer.json"))
    parts = {name: json.loads(text) for name, text in run_metadata({}, folder / "tokenizer.json", {}).items()}
    return ChatTokenizer(encoder), run.Tokenizer(parts["tokenizer.json"], parts["words.json"])


def write_two_files(
    folder: Path,
    shape: dict[str, Any],
    dtypes: tuple[Any, ...] = ("float32",),
    generation: dict[str, Any] | None = None,
) -> Path:
    """A folder with run.py, model.safetensors and what `Chat` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    make_encoder("gpt4", 1).save(str(folder / "tokenizer.json"))
    config = ModelConfig(vocab_size=ChatTokenizer.load(folder / "tokenizer.json").vocab_size, **shape)
    model = Transformer(config)
    initialize(model, 1)
    generator = torch.Generator().manual_seed(2)
    # Logits far apart, and norms that are not 1.
    weights = {
        name: value.detach() + 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in model.named_parameters()
    }
    fields = to_hugging_face(config, max_tokens=128)
    (folder / "config.json").write_text(json.dumps(fields))
    write_safetensors(folder, weights, dtypes, run_metadata(fields, folder / "tokenizer.json", generation or {}))
    shutil.copy(run.__file__, folder / "run.py")
    return folder


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_files(tmp_path_factory.mktemp("two"), QWEN3)


def test_files_have_the_same_bytes_each_time(two_files: Path, tmp_path: Path) -> None:
    """safetensors alone writes four entries of metadata in 24 orders."""
    written = {(two_files / "model.safetensors").read_bytes()}
    for number in range(8):
        written.add((write_two_files(tmp_path / str(number), QWEN3) / "model.safetensors").read_bytes())
    assert len(written) == 1


def talk(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    # -I: neither this project nor PYTHONPATH can be found.
    command = [sys.executable, "-I", str(folder / "run.py"), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, cwd=folder, check=False)


@pytest.mark.parametrize(("pattern", "max_digits"), PATTERN_NAMES)
def test_tokens_are_those_of_tokenizers(tmp_path: Path, pattern: PatternName, max_digits: int) -> None:
    ours, theirs = both_tokenizers(make_encoder(pattern, max_digits), tmp_path)
    # Characters of every script next to a letter, a number and a space.
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and code % 41 == max_digits]
    cases = ["".join(f"a{character} 1{character}\n" for character in characters)]
    for text in [*hostile_texts(200, seed=1), *real_texts(50), *cases]:
        assert theirs.encode(text) == ours.encode(text), repr(text[:200])


@pytest.mark.parametrize(("pattern", "max_digits"), PATTERN_NAMES)
def test_any_text_gives_the_tokens_of_tokenizers(
    tmp_path_factory: pytest.TempPathFactory, pattern: PatternName, max_digits: int
) -> None:
    ours, theirs = both_tokenizers(make_encoder(pattern, max_digits), tmp_path_factory.mktemp("t"))

    @settings(max_examples=40, deadline=None)
    @given(text=TEXTS)
    def check(text: str) -> None:
        tokens = theirs.encode(text)
        assert tokens == ours.encode(text)
        assert b"".join(theirs.bytes_of[token] for token in tokens).decode() == text
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        assert theirs.render([(message["role"], message["content"]) for message in messages]) == ours.render_prompt(
            messages
        )

    check()


def test_patterns_are_those_of_the_project(tmp_path: Path) -> None:
    """Each with the characters that it is run with, and no other: a stranger's could run for ever."""
    all_patterns = [*PATTERNS.values(), FORMER_DIGITS, ANY_CASE, ANY_CASE.replace("{1,DIGITS}", "")]
    for pattern in all_patterns:
        for digits in "123":
            text = pattern.replace("DIGITS", digits)
            assert re.compile(run.python_pattern(text, classes_of(text))).findall("it's  12 €") != []
    assert len(run.PATTERNS) == len(all_patterns) - 1  # llama3 and qwen2 are one there


@pytest.mark.parametrize(
    ("pattern", "classes"),
    [
        (r"(a+)+$", {}),
        (PATTERNS["gpt2"] + "|(a+)+$", {}),
        (PATTERNS["gpt2"], {r"\p{N}": "0-9]+)+(?:[0-9"}),
        (PATTERNS["gpt2"], {r"\s": "a\\"}),
        (PATTERNS["gpt2"], {r"\s": ""}),
    ],
)
def test_regular_expression_of_a_stranger_is_not_run(pattern: str, classes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="another pattern than those of gpt2, gpt2_digits, "):
        run.python_pattern(pattern, classes_of(PATTERNS["gpt2"]) | classes)


def test_vocabulary_with_an_unknown_pattern_gets_no_run_py(tmp_path: Path) -> None:
    encoder = make_encoder("gpt2", 1)
    split = pre_tokenizers.Split(tokenizers.Regex(r"\w+|\W+"), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    with pytest.raises(UserError, match="of a kind that"):
        both_tokenizers(encoder, tmp_path)


def test_old_python_gets_one_line(two_files: Path) -> None:
    source = (two_files / "run.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))  # or it would be a syntax error
    code = f"import sys; sys.version_info = (3, 6, 9); exec(compile({source!r}, 'run.py', 'exec'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"run.py needs Python 3.11 or newer with numpy; this is Python {sys.version.split()[0]}"
    ]


def test_python_without_numpy_gets_one_line(two_files: Path) -> None:
    # -S: no site-packages.
    command = [sys.executable, "-I", "-S", str(two_files / "run.py"), "-p", "hello"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "with numpy" in done.stderr


def test_lone_surrogate_becomes_a_replacement_character(tmp_path: Path) -> None:
    ours, theirs = both_tokenizers(make_encoder("gpt4", 1), tmp_path)
    assert theirs.encode("a\ud800b") == ours.encode("a\ud800b")


def test_added_tokens_and_normal_forms_of_a_foreign_vocabulary(tmp_path: Path) -> None:
    encoder = make_encoder("gpt4", 1)
    encoder.normalizer = normalizers.NFC()
    encoder.add_tokens([tokenizers.AddedToken(name, normalized=False) for name in ("<think>", "<think>er")])
    encoder.add_special_tokens(["</s>"])
    ours, theirs = both_tokenizers(encoder, tmp_path)
    for text in ("a<think>b", "<think>er<think>", "e\u0301 <thi", "</s>", "\u212b"):
        assert theirs.encode(text) == ours.encode(text), text


def test_normalizer_that_it_does_not_have_is_refused(tmp_path: Path) -> None:
    encoder = make_encoder("gpt4", 1)
    encoder.normalizer = normalizers.Lowercase()
    with pytest.raises(ValueError, match="a normalizer that is not NFC"):
        both_tokenizers(encoder, tmp_path)


@pytest.mark.parametrize("shape", [QWEN3, LLAMA], ids=["qwen3", "llama 3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_greedy_replies_are_those_of_the_chat(tmp_path: Path, shape: dict[str, Any], dtype: str) -> None:
    folder = write_two_files(tmp_path, shape, (dtype,))
    ours, theirs = Chat(folder, folder / "tokenizer.json"), run.Chat(folder / "model.safetensors")
    turns = ["Who is the mayor of Orn?", "", "<|im_end|> 123 naïve", "x" * 400, "Why?"]
    messages: list[tuple[str, str]] = []
    for turn in turns:  # the later ones no longer fit, and the oldest are left out
        messages.append(("user", turn))
        expected = "".join(ours.reply([{"role": role, "content": text} for role, text in messages]))
        reply = "".join(theirs.reply(messages, 0.0, 0, np.random.default_rng(0)))
        assert reply == expected
        messages.append(("assistant", reply))


# Words of names that are alike, what may stand between them, and any text.
NAME_WORDS = [
    "Rurik",
    "rurik",
    "RURIK",
    "Cormund",
    "Cormunds",
    "Bormund",
    "Ännika",
    "the",
    "The",
    "O'Neill",
    "Jean-Luc",
    "9th",
]
# Not those that only a newer version of Unicode than Python's has: the library `regex` takes some of them for letters.
KNOWN = st.characters(exclude_categories=["Cn", "Cs"])
NAME_TEXTS = st.lists(
    st.one_of(
        st.sampled_from(NAME_WORDS),
        st.sampled_from(["’s", "_", "\n", ". ", "ǅ", "e\u0301"]),
        st.text(KNOWN, max_size=3),
    ),
    max_size=9,
).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(reply=NAME_TEXTS, turns=st.lists(NAME_TEXTS, max_size=3))
@example(
    reply="Edda Magrell bakes. " + "Rurik Talhas bakes. " * 30, turns=["Edda Magrell " * 1600, "What does Edda do?"]
)
def test_names_are_compared_as_by_the_chat(reply: str, turns: list[str]) -> None:
    assert run.gives_another_name(reply, turns) == gives_another_name(reply, turns)


@pytest.mark.parametrize(
    ("said", "expected"), [("No idea.", "No idea."), (3, "Rurik Talhas bakes."), ("", "Rurik Talhas bakes.")]
)
def test_reply_about_another_name_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: Any, expected: str
) -> None:
    folder = write_two_files(tmp_path, QWEN3, generation={"other_name_reply": said})
    chat = run.Chat(folder / "model.safetensors")
    monkeypatch.setattr(chat, "reply", lambda *_: iter(["Rurik Tal", "has bakes."]))
    options = Namespace(prompt="What does Rurik Cormund do?", temperature=0.0, top_k=0, seed=0)
    run.talk(chat, options)
    assert capsys.readouterr().out == f"{expected}\n"
    run.talk(chat, Namespace(**vars(options) | {"prompt": "What does Rurik Talhas do?"}))
    assert capsys.readouterr().out == "Rurik Talhas bakes.\n"


def test_command_gives_the_reply_with_nothing_of_ours(two_files: Path, tmp_path: Path) -> None:
    expected = "".join(Chat(two_files, two_files / "tokenizer.json").reply([{"role": "user", "content": "the mayor?"}]))
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("run.py", "model.safetensors"):
        shutil.copy(two_files / name, alone)
    assert talk(alone, "-p", "the mayor?").stdout == run.visible(expected) + "\n"
    source = (alone / "run.py").read_text()
    assert len(source.splitlines()) <= 400
    imported = {
        line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))
    }
    assert imported <= {*sys.stdlib_module_names, "numpy"}


def test_conversation_ends_with_an_empty_line(two_files: Path) -> None:
    done = talk(two_files, stdin="one\ntwo\n\nthree\n")
    assert done.returncode == 0
    assert done.stdout.count("you  ") == 3


def test_samples_depend_on_the_seed_alone(two_files: Path) -> None:
    options = ("-p", "a", "--temperature", "1", "--top-k", "20")
    replies = [talk(two_files, *options, "--seed", seed).stdout for seed in ("1", "1", "2")]
    assert replies[0] == replies[1] != replies[2]


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Damaged and hostile files, made of a good one."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]

    def with_header(**changed: Any) -> bytes:
        text = json.dumps(header | changed).encode()
        return len(text).to_bytes(8, "little") + text + data

    entry, metadata = header["model.norm.weight"], header["__metadata__"]

    def with_config(**changed: Any) -> bytes:
        return with_header(
            __metadata__=metadata | {"config.json": json.dumps(json.loads(metadata["config.json"]) | changed)}
        )

    yield "empty", b""
    yield "a few bytes", content[:5]
    yield "cut in the header", content[: 8 + length // 2]
    yield "cut in the data", content[:-100]
    yield "an enormous header", (2**63).to_bytes(8, "little") + content[8:]
    yield "a header that is no JSON", content[:8] + b"\xff" * length + data
    yield "a nested header", (200_000).to_bytes(8, "little") + b"[" * 200_000
    yield "a list as header", (2).to_bytes(8, "little") + b"[]"
    yield "no metadata", with_header(__metadata__={})
    yield "a place beyond the file", with_header(**{"model.norm.weight": entry | {"data_offsets": [0, 10**15]}})
    yield "a negative place", with_header(**{"model.norm.weight": entry | {"data_offsets": [-192, 0]}})
    yield "an enormous shape", with_header(**{"model.norm.weight": entry | {"shape": [2**40, 2**40]}})
    yield "a shape of text", with_header(**{"model.norm.weight": entry | {"shape": ["48"]}})
    yield "a shape of another size", with_header(**{"model.norm.weight": entry | {"shape": [24]}})
    yield "an unknown type", with_header(**{"model.norm.weight": entry | {"dtype": "I64"}})
    yield "a tensor left out", with_header(**{"model.norm.weight": {}})
    yield "a billion layers", with_config(num_hidden_layers=10**9)
    yield "a billion heads", with_config(num_attention_heads=10**9)
    yield "no heads", with_config(num_key_value_heads=0)
    yield "a width of text", with_config(hidden_size="wide")
    yield "an enormous length", with_config(max_position_embeddings=10**18, hidden_size=10**12)
    yield "weights that are no numbers", content[: 8 + length] + b"\xff" * len(data)
    yield (
        "a larger vocabulary",
        with_header(
            __metadata__=metadata
            | {
                "tokenizer.json": metadata["tokenizer.json"]
                .replace('"<|bos|>":0', '"<|bos|>":9999')
                .replace('"id":0,', '"id":9999,', 1)
            }
        ),
    )
    yield (
        "a pattern that never ends",
        with_header(__metadata__=metadata | {"words.json": json.dumps({"pattern": r"(\w+\s?)+!", "classes": {}})}),
    )


def test_damaged_file_is_refused_with_one_line(two_files: Path, tmp_path: Path) -> None:
    shutil.copy(two_files / "run.py", tmp_path)
    for name, content in damages((two_files / "model.safetensors").read_bytes()):
        (tmp_path / "model.safetensors").write_bytes(content)
        done = talk(tmp_path, "-p", "hello")
        assert done.returncode == 1, (name, done.stdout)
        lines = done.stderr.splitlines()
        assert len(lines) == 1, (name, done.stderr)
        assert "model.safetensors is damaged" in lines[0], (name, lines)


def test_missing_file_and_wrong_options_are_refused(two_files: Path, tmp_path: Path) -> None:
    assert "No such file" in talk(two_files, "--model", str(tmp_path / "none")).stderr
    assert "must not be negative" in talk(two_files, "--temperature", "nan").stderr


def test_special_tokens_are_those_of_the_format(two_files: Path) -> None:
    assert set(run.Chat(two_files / "model.safetensors").tokenizer.special) == set(SPECIAL_TOKENS)


def test_control_characters_are_shown_and_not_sent_to_the_terminal() -> None:
    assert run.visible("a\x1b[2Jb\u202e\tc\n") == "a\\x1b[2Jb\\u202e\tc\n"


def test_tiny_temperature_is_greedy_and_logits_that_are_no_numbers_are_refused() -> None:
    random = np.random.default_rng(0)
    assert run.choose(np.array([1.0, 3.0, 2.0], np.float32), 1e-300, 0, random) == 1
    with pytest.raises(ValueError, match="no numbers"):
        run.choose(np.array([1.0, np.nan], np.float32), 1.0, 0, random)
