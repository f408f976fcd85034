"""A bundle is the same model for others: transformers loads it without this project's code and computes the same."""

import json
from pathlib import Path

import pytest
import torch

from model.network.huggingface import load_transformer
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Policy, Report, Tokenizer
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.export.stage import ExportConfig, export, model_card
from tests.support.tiny_models import finish, write_model, write_tokenizer

MESSAGES = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "who is the mayor of Orn?"},
    {"role": "assistant", "content": "Ada Brell."},
    {"role": "user", "content": "  and the sky <blue>?\n"},
]


def write_report(store: Store, initial_model: str) -> None:
    folder = store.folder("evaluate/r")
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("# Report card\n\nIt is | fine.\n")
    (folder / "report.json").write_text(json.dumps({"base": {"layout": "Qwen3", "initial_model": initial_model}}))


@pytest.fixture
def bundle(store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = write_tokenizer(store.folder("tokenizer/t"))
    write_model(store.folder("rlhf/p"), encoder.vocab_size)
    write_report(store, "")
    step = export(
        finish(store, Policy, "rlhf/p"),
        finish(store, Tokenizer, "tokenizer/t"),
        finish(store, Report, "evaluate/r"),
        ExportConfig(name="tiny", max_new_tokens=7),
    )
    return store.folder(execute(step, store).id)


def test_transformers_computes_the_same_logits(bundle: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(bundle).eval()
    ours = load_transformer(bundle)
    tokens = torch.randint(0, ours.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert type(theirs).__name__ == "Qwen3ForCausalLM"
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens), atol=1e-4, rtol=0)


def test_transformers_writes_the_same_prompt(bundle: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(bundle)
    ours = ChatTokenizer.load(bundle / "tokenizer.json")
    prompt = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True)
    assert prompt["input_ids"] == ours.render_prompt(MESSAGES)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.bos, ours.assistant_end, ours.pad)
    text = "Ada  Brell's naïve café, 1 2 3 , !"
    assert theirs.decode(theirs(text, add_special_tokens=False)["input_ids"]) == text


def test_generation_stops_where_a_turn_ends(bundle: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(bundle)
    end = ChatTokenizer.load(bundle / "tokenizer.json").assistant_end
    assert model.generation_config.eos_token_id == end
    assert model.generation_config.max_new_tokens == 7
    assert model.config.eos_token_id == end


def test_the_card_holds_the_report_and_the_hub_can_read_it(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "It is | fine." in card
    assert card.count("\n# ") == 1
    assert "from raw web archive files by crawl2chat, in Qwen3's layout." in card
    assert "base_model" not in card


def test_the_card_names_the_base_model_and_links_to_one_that_the_hub_knows() -> None:
    known = {"layout": "Llama", "initial_model": "meta-llama/Llama-3.2-1B"}
    card = model_card(ExportConfig(license="other"), known, "")
    assert card.startswith("---\nlicense: other\nbase_model: meta-llama/Llama-3.2-1B\nlibrary_name")
    assert "from the base model meta-llama/Llama-3.2-1B by crawl2chat, in Llama's layout." in card
    card = model_card(ExportConfig(), known | {"initial_model": "my_<b>model"}, "")
    assert "base_model:" not in card
    assert r"the base model my\_\<b\>model by" in card


def test_a_tokenizer_of_another_model_is_refused(store: Store) -> None:
    encoder = write_tokenizer(store.folder("tokenizer/t"))
    write_model(store.folder("rlhf/p"), encoder.vocab_size + 8)
    write_report(store, "")
    step = export(
        finish(store, Policy, "rlhf/p"),
        finish(store, Tokenizer, "tokenizer/t"),
        finish(store, Report, "evaluate/r"),
        ExportConfig(),
    )
    with pytest.raises(ValueError, match=f"vocabulary of {encoder.vocab_size + 8} tokens"):
        execute(step, store)


def test_every_file_of_the_bundle_is_json_or_known(bundle: Path) -> None:
    for path in bundle.glob("*.json"):
        json.loads(path.read_text())
    assert {path.name for path in bundle.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    }
