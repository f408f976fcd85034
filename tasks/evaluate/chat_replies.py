"""All replies of one chat model, and whether they are right, by every kind that the report card counts.

Reads and writes nothing. The SFT model and the policy are asked the same prompts in the same order, so that the gate can compare them one by one.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.evaluate.honesty import replies_by_kind
from tasks.evaluate.knowledge import Answer
from tasks.evaluate.typed_messages import NAMES
from tasks.markdown import Figures

RIGHT, REFUSED, HELD_OUT = "right answers", "refusals of strangers", "right answers about held-out facts"
REVERSED = "reversed questions"
Flags = Mapping[str, Sequence[bool]]  # by kind: whether each reply is right


@dataclass(frozen=True)
class ChatReplies:
    """What one chat model replies."""

    answers: Sequence[Answer]
    reversed_answers: Sequence[Answer] = ()
    sums: Flags = field(default_factory=dict)  # by way, see written_sums.py
    typed: Flags = field(default_factory=dict)  # by kind, see typed_messages.py
    tool_answers: Sequence[Figures] = ()  # as tool_use.py has them

    def right(self) -> Flags:
        """Whether each reply is right, by kind; kinds overlap. Facts that are too rare to be known are left out."""
        known = [answer for answer in self.answers if answer.is_frequent]
        groups = {
            RIGHT: [answer for answer in known if answer.question.split != "heldout_fact"],
            HELD_OUT: [answer for answer in known if answer.question.split == "heldout_fact"],
            REFUSED: [answer for answer in self.answers if answer.question.split == "unknown"],
            REVERSED: self.reversed_answers,
        }
        with_tools: dict[str, list[bool]] = defaultdict(list)
        for answer in self.tool_answers:
            with_tools[answer["kind"]].append(answer["is_correct"])
        return {
            **{name: [answer.is_correct for answer in some] for name, some in groups.items()},
            **replies_by_kind(self.answers),
            **{f"sums of two digits, {way}": flags for way, flags in self.sums.items()},
            **{f"typed: {NAMES[kind]}": flags for kind, flags in self.typed.items()},
            **with_tools,
        }
