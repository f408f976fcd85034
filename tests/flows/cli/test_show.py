"""What `crawl2chat show` prints: artifacts of other machines too, no markup of a manifest, no personal data of a token shard."""

from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.show import _token_panels, made_text, manifest_table, redacted_tokens
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Manifest
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.tokenizer.encode import TokenWriter
from tasks.tokenizer.train import TokenizerConfig, train
from tests.support.documents import documents_of

TEXT = "Write to orna.gramdal@mail.example.org for a map of the tower."


@pytest.fixture(scope="module")
def encoder() -> ChatTokenizer:
    return ChatTokenizer(train(iter([TEXT] * 3), TokenizerConfig(vocab_size=300)))


@pytest.fixture
def manifest(store: Store) -> Manifest:
    return execute(documents_of({"a": ["a text"]}), store)


def shown(manifest: Manifest) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(manifest_table(manifest))
    return capture.get()


@pytest.mark.parametrize("key", ["host", "argv", "started", "wall_seconds", "commit", "is_dirty"])
def test_manifest_without_a_field_of_its_provenance_is_shown(manifest: Manifest, key: str) -> None:
    left = {name: value for name, value in manifest.provenance.items() if name != key}
    assert manifest.id in shown(manifest.model_copy(update={"provenance": left}))
    assert manifest.id in shown(manifest.model_copy(update={"provenance": {}}))


def test_manifest_is_shown_without_its_markup(manifest: Manifest) -> None:
    made = {"host": "[red]h[/red]", "wall_seconds": "[soon]", "argv": [1, "[b]"]}
    text = shown(manifest.model_copy(update={"provenance": made}))
    assert "[red]h[/red]" in text
    assert "1 [b]" in text


def test_made_text_names_what_is_known() -> None:
    known = {"started": "2026-11-29", "host": "h", "wall_seconds": 2, "commit": "0123456789abcdef", "is_dirty": True}
    assert made_text(known) == "2026-11-29 on h in 2.0 s by commit 0123456789ab with local changes"
    assert made_text({}) == "at an unknown time"


def test_token_panels_of_a_shard_without_documents_are_not_shown(tmp_path: Path, encoder: ChatTokenizer) -> None:
    with TokenWriter(tmp_path / "a.arrow", encoder, "fingerprint") as writer:
        writer.write([])
    assert list(_token_panels(tmp_path / "a.arrow", encoder)) == []


def test_tokens_are_shown_without_personal_data(encoder: ChatTokenizer) -> None:
    redacted = redacted_tokens(encoder.encode_document(TEXT), encoder)
    assert redacted[0] == encoder.bos
    assert "gramdal" not in encoder.decode(redacted)
    plain = encoder.encode_document("a map of the tower")
    assert redacted_tokens(plain, encoder) == plain
