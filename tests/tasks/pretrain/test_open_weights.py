"""A base model from elsewhere: it computes what its makers' code computes, and is used as it is or trained further like a model of this project."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from model.config import TrainConfig
from model.network.huggingface import load_transformer
from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
from tasks.artifacts.manifest import Resource, Tokenizer, Tokens
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.pretrain.open_weights import adapted, open_weights, short_name
from tasks.pretrain.stage import PretrainConfig
from tasks.tokenizer.encode import TokenizeConfig, tokenize
from tasks.tokenizer.train import TokenizerConfig
from tests.model.network.test_huggingface import LLAMA3
from tests.support.documents import documents_of
from tests.support.tiny_models import TEXT, finish, tiny_config, write_model, write_tokenizer
from tests.support.wiring import pretrain, tokenizer

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 352,  # the tokenizer has fewer: the rest is padding
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Qwen3": {"tie_word_embeddings": True},
    "Llama": {"tie_word_embeddings": False, "rope_parameters": LLAMA3},
}
TEXTS = [f"{number} boats: {TEXT} cafe\u0301" for number in range(400)]  # an accent by itself: NFC composes it


def write_base_model(folder: Path, family: str, names: tuple[str, ...] = ("<|endoftext|>", "<|eot|>")) -> int:
    """A random model of transformers and its tokenizer, as the Hub holds them; how many tokens it knows."""
    config = getattr(transformers, f"{family}Config")(**(SIZES | FAMILIES[family]))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2)
    model.save_pretrained(folder)
    encoder = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    encoder.normalizer = normalizers.NFC()
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=list(names), initial_alphabet=alphabet, show_progress=False
    )
    encoder.train_from_iterator([TEXT], trainer)
    encoder.save(str(folder / "tokenizer.json"))
    return int(encoder.get_vocab_size())


@pytest.fixture
def folder(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRAWL2CHAT_STORE", store.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "model"


def made(step: Step[Any], store: Store) -> Any:
    """The artifact of a step, and those before it."""
    for given in step.inputs.values():
        made(given, store)
    execute(step, store)
    return store.open(step.id, step.kind)


def tokenizer_step(folder: Path) -> Step[Tokenizer]:
    return tokenizer(documents_of({"a": TEXTS}), TokenizerConfig(vocabulary=str(folder / "tokenizer.json")))


def tokens_steps(folder: Path) -> tuple[Step[Tokens], Step[Tokenizer]]:
    encoder = tokenizer_step(folder)
    return tokenize(
        documents_of({"a": TEXTS}), encoder, TokenizeConfig(validation_fraction=0.2, num_workers=1)
    ), encoder


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_adapted_model_gives_documents_the_loss_of_the_original(store: Store, folder: Path, family: str) -> None:
    num_known = write_base_model(folder, family)
    encoder = made(tokenizer_step(folder), store)
    ours = ChatTokenizer.load(encoder.folder / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    model, max_tokens = adapted(made(open_weights(str(folder)), store), encoder)
    text = f"who is <|eot|> {TEXT} cafe\u0301"
    assert min(ours.special.values()) == num_known == ours.vocab_size - len(SPECIAL_TOKENS)
    assert ours.decode(ours.encode(text)) == text.replace("e\u0301", "\u00e9")
    tokens = theirs.encode(text.replace("<|eot|>", "")).ids
    expected = transformers.AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([[0, *tokens]])).logits
    found = model(torch.tensor([ours.encode_document(text.replace("<|eot|>", ""))]))
    torch.testing.assert_close(found[..., :num_known], expected[..., :num_known], atol=1e-4, rtol=0)
    assert torch.equal(found[..., ours.bos], found[..., 0])
    assert torch.equal(found[..., ours.turn_end], found[..., 1])
    others = [token for name, token in ours.special.items() if token not in (ours.bos, ours.turn_end)]
    torch.testing.assert_close(found[..., others].mean(-1), found[..., :num_known].mean(-1), atol=1e-4, rtol=0)
    assert max_tokens == 512


def test_turn_token_that_the_model_knows_keeps_its_id_and_its_row(store: Store, folder: Path) -> None:
    """Qwen3's vocabulary has two of them."""
    num_known = write_base_model(folder, "Llama", ("<|endoftext|>", "<|im_end|>", "<|im_start|>"))
    encoder = made(tokenizer_step(folder), store)
    ours = ChatTokenizer.load(encoder.folder / "tokenizer.json")
    assert (ours.turn_end, ours.special["<|im_start|>"]) == (1, 2)
    assert ours.vocab_size == num_known + len(SPECIAL_TOKENS) - 2
    original = load_file(folder / "model.safetensors")
    found = adapted(made(open_weights(str(folder)), store), encoder)[0].state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(found[name][:num_known], original[name][:num_known])


@torch.no_grad()
def test_pretrain_without_steps_takes_the_model_and_measures_it(store: Store, folder: Path) -> None:
    write_base_model(folder, "Llama")
    tokens, encoder = tokens_steps(folder)
    config = PretrainConfig(initial_model=str(folder), train=TrainConfig(num_steps=0, sequence_tokens=64))
    taken = made(pretrain(tokens, encoder, config), store)
    model, _ = adapted(made(open_weights(str(folder)), store), made(encoder, store))
    stored = load_file(taken.folder / "model.safetensors")
    assert all(torch.equal(stored[name], parameter) for name, parameter in model.named_parameters())
    assert taken.manifest.counts == {"parameters": sum(p.numel() for p in model.parameters()), "steps": 0, "tokens": 0}
    assert taken.manifest.metrics["validation/bits_per_byte"] > 1
    assert json.loads((taken.folder / "config.json").read_text())["max_position_embeddings"] == 512
    assert not (taken.folder / ".state").exists()


def test_further_training_starts_from_the_loss_of_the_model(store: Store, folder: Path) -> None:
    """The first steps, at no learning rate to speak of, leave the loss where it was; a fresh model has another."""
    write_base_model(folder, "Qwen3")
    tokens, encoder = tokens_steps(folder)
    settings = {"sequence_tokens": 64, "batch_tokens": 256}
    taken, trained = (
        made(
            pretrain(
                tokens,
                encoder,
                PretrainConfig(
                    initial_model=str(folder),
                    train=TrainConfig(num_steps=num_steps, **settings),
                    optim=PretrainConfig().optim.model_copy(update={"optimizer": "adamw", "learning_rate": 1e-9}),
                ),
            ),
            store,
        )
        for num_steps in (0, 2)
    )
    assert trained.manifest.counts["steps"] == 2
    for name in ("validation/loss_nats", "validation/bits_per_byte"):
        assert trained.manifest.metrics[name] == pytest.approx(taken.manifest.metrics[name], rel=1e-4)
    assert load_transformer(trained.folder).config == load_transformer(taken.folder).config
    assert not (trained.folder / ".state").exists()


def test_fingerprint_of_a_model_follows_its_content_not_its_path(folder: Path) -> None:
    write_base_model(folder, "Llama")
    before = open_weights(str(folder))
    assert before.fingerprint  # hashed
    moved = folder.rename(folder.parent / "elsewhere")
    assert open_weights(str(moved)).fingerprint == before.fingerprint
    (moved / "README.md").write_text("is not read")
    assert open_weights(str(moved)).fingerprint == before.fingerprint
    weights = load_file(moved / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, moved / "model.safetensors")
    assert open_weights(str(moved)).fingerprint != before.fingerprint


def test_initial_model_names_the_base_model(folder: Path) -> None:
    write_base_model(folder, "Llama")
    tokens, encoder = tokens_steps(folder)
    train = TrainConfig(num_steps=0)
    before = pretrain(tokens, encoder, PretrainConfig(initial_model=str(folder), train=train))
    assert before.id  # hashed
    moved = folder.rename(folder.parent / "elsewhere")
    tokens, encoder = tokens_steps(moved)
    assert pretrain(tokens, encoder, PretrainConfig(initial_model=str(moved), train=train)).id == before.id
    write_base_model(moved, "Qwen3")
    assert pretrain(tokens, encoder, PretrainConfig(initial_model=str(moved), train=train)).id != before.id


def test_cache_of_the_hub_is_read_through_its_links(store: Store, folder: Path) -> None:
    write_base_model(folder, "Qwen3")
    snapshot = folder.parent / "hub" / "models--Qwen--Qwen3-0.6B" / "snapshots" / "c1899de"
    snapshot.mkdir(parents=True)
    blobs = snapshot.parent.parent / "blobs"
    folder.rename(blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs") / blob.name)
    assert short_name(f"{snapshot}/") == "Qwen/Qwen3-0.6B"
    assert short_name("/models/my-llama/") == "my-llama"
    model, _ = adapted(made(open_weights(str(snapshot)), store), made(tokenizer_step(snapshot), store))
    assert model.config.num_layers == 2


def test_first_of_several_end_tokens_is_taken(store: Store, folder: Path) -> None:
    write_base_model(folder, "Llama")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"bos_token_id": None, "eos_token_id": [1, 0]}))
    encoder = made(tokenizer_step(folder), store)
    ours = ChatTokenizer.load(encoder.folder / "tokenizer.json")
    weights = adapted(made(open_weights(str(folder)), store), encoder)[0].state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = weights[name]
        assert torch.equal(rows[ours.turn_end], rows[1])
        assert torch.equal(rows[ours.bos], rows[ours.pad])


def test_model_that_changed_after_the_start_is_refused(store: Store, folder: Path) -> None:
    write_base_model(folder, "Llama")
    step = open_weights(str(folder))
    assert step.id
    write_base_model(folder, "Llama", ("<|endoftext|>", "<|eot|>", "<|sot|>"))
    with pytest.raises(ValueError, match="changed while the pipeline was being started"):
        execute(step, store)


def test_tokenizer_of_another_model_is_refused(store: Store, folder: Path) -> None:
    num_known = write_base_model(folder, "Llama")
    model: Resource = made(open_weights(str(folder)), store)
    write_tokenizer(store.folder("tokenizer/t"))
    ours = store.open(finish(store, Tokenizer, "tokenizer/t").id, Tokenizer)
    message = f"tokenizer/t, of 320 tokens, is not the tokenizer of the model model, of {num_known + len(SPECIAL_TOKENS)}: set tokenizer.vocab"
    with pytest.raises(ValueError, match=message):
        adapted(model, ours)
    write_base_model(folder, "Llama", ("<|eot|>", "<|endoftext|>"))  # as many tokens, in another order
    with pytest.raises(ValueError, match="is not the tokenizer of the model"):
        adapted(model, made(tokenizer_step(folder), store))


def test_model_with_fewer_rows_than_tokens_is_refused(store: Store, folder: Path) -> None:
    write_base_model(folder, "Llama", tuple(f"<|{number}|>" for number in range(100)))
    with pytest.raises(ValueError, match="vocabulary of 352 tokens and the tokenizer next to it one of 356"):
        adapted(made(open_weights(str(folder)), store), made(tokenizer_step(folder), store))


def test_folder_without_a_model_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no config\.json in 'nowhere'"):
        open_weights("nowhere").id
    write_base_model(folder, "Llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no \*.safetensors in"):
        assert open_weights(str(folder)).id


def test_exported_model_of_this_project_is_imported_unchanged(store: Store, folder: Path) -> None:
    write_model(folder, write_tokenizer(folder).vocab_size)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"bos_token_id": 0, "eos_token_id": 7}))  # as export does
    encoder: Tokenizer = made(tokenizer_step(folder), store)
    model, _ = adapted(made(open_weights(str(folder)), store), encoder)
    assert (
        ChatTokenizer.load(encoder.folder / "tokenizer.json").special
        == ChatTokenizer.load(folder / "tokenizer.json").special
    )
    assert model.config == tiny_config(model.config.vocab_size)
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], parameter) for name, parameter in model.named_parameters())


def test_pretrain_without_steps_and_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="num_steps=0 uses a model unchanged, and initial_model is empty"):
        PretrainConfig(train=TrainConfig(num_steps=0))
