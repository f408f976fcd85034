"""How well a chat model uses its tools, by kind of question: right with the tool, and no tool where none is needed.

Reads models, questions of the kinds of tasks/conversations/tool_use.py, and the index of the run; runs the tools; writes nothing. A reply is
right when it holds the answer and the tool of its kind was called; where no tool is needed, when none was called and the reply ended.
A search is measured step by step besides: each share is of the questions that passed the step before, so the lowest names what to mend.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from model.config import GenerateConfig
from model.tools.registry import SEARCH
from tasks.artifacts.manifest import Index
from tasks.conversations.tools import make_tools, search_index
from tasks.records.conversations import Question, normal_form
from tasks.records.full_text import FullTextIndex
from tasks.shares import share

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

MAX_CALLS = 2


def ask_with_tools(
    name: str,
    model: "Transformer",
    tokenizer: "ChatTokenizer",
    questions: Sequence[Question],
    index: Index,
    config: GenerateConfig,
    batch: int,
    progress: Callable[[int], None],
) -> list[dict[str, Any]]:
    """A model's reply to every question with the calls that it made, as values for answers.jsonl."""
    from model.inference.answers import holds, right_answers
    from model.inference.cpu_kernels import make_decoder
    from model.inference.tool_use import ToolLimits, replies_with_tools

    opened = FullTextIndex(index.folder / "index.sqlite")
    tools = make_tools(search_index(opened))
    decoder, limits = make_decoder(model), ToolLimits(max_calls=MAX_CALLS)
    answers: list[dict[str, Any]] = []
    for start in range(0, len(questions), batch):
        group = questions[start : start + batch]
        system = {"role": "system", "content": tools.system_prompt()}
        prompts = [
            tokenizer.render_prompt([system, {"role": "user", "content": question.question}]) for question in group
        ]
        for question, reply in zip(
            group, replies_with_tools(decoder, tokenizer, prompts, config, tools, limits), strict=True
        ):
            wanted = question.kind.removeprefix("tool/")
            called = [step.call.name for step in reply.steps]
            is_right = (
                not called and not reply.ended
                if wanted == "none"
                else holds(reply.text, right_answers(normal_form(question)))
            )
            answers.append(
                {
                    "model": f"{name}, tools",
                    **normal_form(question),
                    "reply": reply.text,
                    "calls": [{**step.call._asdict(), "result": step.result.text} for step in reply.steps],
                    "is_correct": is_right and (wanted == "none" or wanted in called),
                    "is_finished": not reply.ended,
                }
            )
        progress(len(answers))
    opened.close()
    return answers


def tool_figures(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each kind of question: the share that is right, and the share that called a tool, each with number and interval."""
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for answer in answers:
        kinds[answer["kind"].removeprefix("tool/")].append(answer)
    return [
        {
            "kind": kind,
            "correct": share([answer["is_correct"] for answer in some]),
            "called": share([bool(answer["calls"]) for answer in some]),
        }
        for kind, some in kinds.items()
    ]


def search_steps(answers: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of the questions to be searched that name a fact, RELATION:SUBJECT, the share that passes each step, with number and interval.

    The model calls the search; its query has the subject's name; a result has the answer; the reply gives it.
    """
    waiting = [answer for answer in answers if answer["kind"] == f"tool/{SEARCH}" and ":" in answer.get("fact", "")]
    found = {}
    for step, is_passed in STEPS.items():
        found[step] = share([is_passed(answer) for answer in waiting])
        waiting = [answer for answer in waiting if is_passed(answer)]
    return found


def _searches(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [call for call in answer["calls"] if call["name"] == SEARCH]


def _names_subject(answer: Mapping[str, Any]) -> bool:
    subject = answer["fact"].partition(":")[2]
    return any(subject in "-".join(call["arguments"].lower().split()) for call in _searches(answer))


def _finds(answer: Mapping[str, Any]) -> bool:
    return any(answer["answer"].lower() in call["result"].lower() for call in _searches(answer))


STEPS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "searched": lambda answer: bool(_searches(answer)),
    "for the name": _names_subject,
    "answer found": _finds,
    "answer given": lambda answer: bool(answer["is_correct"]),
}
