"""The reversal test: facts asked in the direction in which the training text states them, and in the other (A's mother is B; who is B's child?).

Reads answers; writes nothing. A model that has learned "A's mother is B" does not know from that who B's child is (Berglund et al. 2023,
https://arxiv.org/abs/2309.12288). The same facts are compared, of those that should be known. The sample web's setting `reversed_pages`
states them in both directions. A base model's examples (few-shot) are reversed too, so that it does not fail at the form of the question.
"""

from collections.abc import Iterable, Sequence

from tasks.evaluate.knowledge import Answer
from tasks.markdown import Figures, table
from tasks.records.conversations import FREQUENT_MENTIONS, Question
from tasks.shares import share, shown

FORWARD, BACKWARD = "as stated", "reversed"


def reversal_questions(questions: Iterable[Question]) -> tuple[list[Question], list[Question]]:
    """The questions in the other direction about facts that should be known, and all questions of other splits."""
    backward: list[Question] = []
    others: list[Question] = []
    for question in questions:
        if question.split != "reversal":
            others.append(question)
        elif (question.num_mentions or 0) >= FREQUENT_MENTIONS:
            backward.append(question)
    return backward, others


def reversal_figures(forward: Iterable[Answer], backward: Sequence[Answer]) -> list[Figures]:
    """A row for each direction: the share of right answers of each model about the facts of the backward questions."""
    facts = {answer.question.fact for answer in backward}
    rows = []
    for direction, answers in ((FORWARD, forward), (BACKWARD, backward)):
        found: dict[str, list[bool]] = {}
        for answer in answers:
            if answer.question.fact in facts:
                found.setdefault(answer.model, []).append(answer.is_correct)
        rows.append({"direction": direction, "accuracy": {model: share(some) for model, some in found.items()}})
    return rows if facts else []


def reversal_section(figures: Figures) -> str:
    """The section of the report card; empty where no question is of that kind."""
    if not (rows := figures.get("reversal")):
        return ""
    models = list(dict.fromkeys(model for row in reversed(rows) for model in row["accuracy"]))
    cells = [[row["direction"], *(shown(row["accuracy"].get(model)) for model in models)] for row in rows]
    note = "The same facts, asked in the direction in which pages state them, and in the other.\n\n"
    return "## Reversed questions\n\n" + note + table(["Asked", *models], cells)
