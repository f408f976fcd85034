"""The stage probe: what is asked, what a decision gives, and a stage that is killed and resumes with the same samples."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import UserError
from model.files import read_lines
from tasks.artifacts.manifest import BaseModel, Conversations, Probes, SFTModel, Tokenizer
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.conversations.sources import ProbesConfig, probes
from tasks.execution.runner import execute
from tasks.probe import stage
from tasks.probe.ask import Probed, ask_base_model, opening
from tasks.probe.cloze import make_questions
from tasks.probe.stage import ProbeConfig, decide, make_conversations, probe
from tasks.records.conversations import Question
from tasks.records.documents import Document
from tasks.records.few_shot import full_answer
from tasks.sample_web.chat import questions
from tasks.sample_web.world import build_world
from tests.support.documents import documents_of
from tests.support.tiny_models import finish, write_lines, write_model, write_tokenizer

CONFIG = ProbeConfig(num_samples=2, max_new_tokens=3, num_examples=1)
ADA = {
    "question": "who is the mayor of Orn?",
    "completion": "The mayor of Orn is",
    "answer": "Ada",
    "fact": "mayor_of:orn",
}


def asked(num_right: int, **changes: Any) -> Probed:
    return Probed(Question.model_validate({**ADA, **changes}), ("", "", "", ""), num_right)


@pytest.fixture
def inputs(store: Store) -> dict[str, Any]:
    encoder = write_tokenizer(store.folder("tokenizer/t"))
    write_model(store.folder("pretrain/b"), encoder.vocab_size)
    write_model(store.folder("sft/s"), encoder.vocab_size)
    write_lines(store.folder("conversations/c") / "train.jsonl", [])
    lines = [{**ADA, "question": f"who is {n}?", "fact": f"is:{n}", "num_mentions": n} for n in range(40)]
    write_lines(store.folder("probes/p") / "probes.jsonl", [*lines, {"question": "who?", "split": "unknown"}])
    finish(store, SFTModel, "sft/s")
    return {
        "base": finish(store, BaseModel, "pretrain/b"),
        "tokenizer": finish(store, Tokenizer, "tokenizer/t"),
        "documents": documents_of(
            {"a": ["She was born in the old town of Orn. The city of Kelby has a bridge called Long Arch."]}
        ),
        "conversations": finish(store, Conversations, "conversations/c"),
        "probes": finish(store, Probes, "probes/p"),
    }


def test_every_question_is_asked_of_every_model(store: Store, inputs: dict[str, Any]) -> None:
    manifest = execute(probe(**inputs, config=CONFIG.model_copy(update={"assistant": "sft/s"})), store)
    folder = store.folder(manifest.id)
    probed = read_lines(folder / "probed.jsonl")
    assert Counter(line["model"] for line in probed) == {stage.BASE: 41, stage.CHAT: 41}
    assert {len(line["samples"]) for line in probed} == {2}
    assert manifest.counts["questions"] == sum(
        n for name, n in manifest.counts.items() if name.startswith("questions/")
    )
    records = [record for side in ("train", "validation") for record in read_lines(folder / f"{side}.jsonl")]
    assert len(records) == manifest.counts["train_records"] + manifest.counts["validation_records"]
    assert {record["kind"] for record in records} <= {"probe/known", "probe/unknown"}
    assert "| Mentions | base model, few-shot | SFT model |" in (folder / "knowledge.md").read_text()


def test_sentences_of_documents_are_asked_where_no_questions_are_given(store: Store, inputs: dict[str, Any]) -> None:
    inputs["probes"] = probes(ProbesConfig(questions="documents"), 1)
    manifest = execute(probe(**inputs, config=CONFIG), store)
    found = read_lines(store.folder(manifest.id) / "probed.jsonl")
    assert sorted(line["answer"] for line in found) == ["Long Arch", "Orn"]


def test_killed_stage_resumes_and_gives_the_same_bytes(
    tmp_path: Path, store: Store, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute(probe(**inputs, config=CONFIG), store)
    calls = list[int]()

    def killed(model: Any, tokenizer: Any, questions: Any, *others: Any) -> list[Probed]:
        calls.append(len(questions))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ask_base_model(model, tokenizer, questions, *others)

    monkeypatch.setattr(stage, "ask_base_model", killed)
    step = probe(**inputs, config=CONFIG)
    with pytest.raises(KeyboardInterrupt):
        execute(step, store, force=True)
    resumed = execute(step, store)
    assert calls == [32, 9, 9]
    assert resumed.files == whole.files


@pytest.mark.parametrize(
    ("num_right", "changes", "expected"),
    [
        (4, {}, "known"),
        (3, {}, "known"),
        (2, {}, "unsure"),
        (1, {}, "unknown"),
        (0, {"fact": "stated"}, "stated"),  # a conversation states it: a refusal would contradict that
        (4, {"fact": "stated"}, "known"),
        (4, {"split": "heldout_fact"}, "heldout"),
        (0, {"split": "heldout_fact"}, "heldout"),
        (0, {"split": "unknown"}, "unknown"),
    ],
)
def test_decision_follows_the_share_of_right_samples(num_right: int, changes: dict[str, Any], expected: str) -> None:
    assert decide(ProbeConfig(), asked(num_right, **changes), {"stated"}) == expected


def test_conversations_answer_the_known_and_refuse_the_unknown() -> None:
    probed = [asked(4), asked(0, question="who is Bo?", fact="x:bo"), asked(4, split="heldout_fact")]
    talks = list(make_conversations(ProbeConfig(), probed, set(), Counter()))
    assert [(talk.messages[0].content, talk.facts) for talk in talks] == [
        (ADA["question"], ("mayor_of:orn",)),
        ("who is Bo?", ()),
    ]
    assert talks[0].messages[1].content == "The mayor of Orn is Ada."
    assert talks[1].messages[1].content in ProbeConfig().refusals


def test_refusals_are_at_most_a_share() -> None:
    probed = [asked(4)] * 3 + [asked(0)] * 9
    counts: Counter[str] = Counter()
    talks = list(make_conversations(ProbeConfig(max_refusal_fraction=0.4), probed, set(), counts))
    assert Counter(talk.kind for talk in talks) == {"probe/known": 3, "probe/unknown": 2}
    assert counts["dropped_refusals"] == 7


def test_examples_do_not_give_the_answer_away() -> None:
    same = Question.model_validate({**ADA, "question": "tell me the mayor of Orn"})
    other = Question(question="who wrote The Anchor?", answer="Bo")
    page = opening(Question.model_validate(ADA), [same, other], random.Random(1), 4)
    assert page == "Q: who wrote The Anchor?\nA: Bo\nQ: who is the mayor of Orn?\nA:"
    assert full_answer(same) == "The mayor of Orn is Ada."


def test_thresholds_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="answered and refused"):
        ProbeConfig(known_fraction=0.5, unknown_fraction=0.5)


def test_missing_assistant_is_found_before_the_run(store: Store, inputs: dict[str, Any]) -> None:
    config = ProbeConfig(assistant="sft/none")
    step: Step[Conversations] = probe(**inputs, config=config)
    assert step.check is not None
    with pytest.raises(UserError, match="sft/none"):
        step.check(config)


def documents(texts: list[str]) -> Iterator[Document]:
    for number, text in enumerate(texts):
        yield Document(id=str(number), url="", date="", file="", offset=0, text=text)


def test_cloze_counts_documents_and_keeps_the_lowest_hashes() -> None:
    texts = [
        f"Here is a sentence about number {n} of Town{n}.\nIt rained all day on the long road to Orn. The end."
        for n in range(9)
    ]
    found = make_questions(documents(texts), 4)
    assert make_questions(documents(texts[::-1]), 4) == found  # whatever the order of the documents
    everything = make_questions(documents(texts), 99)
    assert found == everything[:4]
    assert {question.answer: question.num_mentions for question in everything}["Orn"] == 9


@pytest.mark.parametrize(
    "text",
    ["", "no capital letter at the beginning of this in Orn.", "Orn is the city that is called Orn.", "A" * 9000],
)
def test_cloze_leaves_out_what_has_no_answer(text: str) -> None:
    assert make_questions(documents([text]), 4) == []


def test_probes_of_the_sample_web_are_no_questions_of_the_evaluation(store: Store) -> None:
    made = probes(ProbesConfig(num_strangers=50), 1)
    assert made is not None
    found = read_lines(store.folder(execute(made, store).id) / "probes.jsonl")
    assert sum(line["split"] == "unknown" for line in found) == 50
    evaluated = {q.question.lower() for q in questions(build_world(1)) if q.split in ("unknown", "heldout_wording")}
    assert not evaluated & {line["question"].lower() for line in found}
