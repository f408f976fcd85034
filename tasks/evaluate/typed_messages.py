"""Whether a chat model answers as fits what people type that is no question for a fact: signs, nonsense, other languages, a wish for a story.

Reads a chat model; writes nothing. The messages are those that no conversation of the sample web has (tasks/sample_web/typed.py). They are fitted to the
model as the chat does it, so that one of a thousand letters is cut. A reply fits where it has the words of a fitting one and ends by itself.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

from model.config import GenerateConfig
from tasks.markdown import Figures, table
from tasks.sample_web.typed import KINDS, heldout_typed
from tasks.shares import shown

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

SEED = 1
MAX_NEW_TOKENS = 96  # a story has some 70
NAMES = {
    "signs": "signs alone",
    "nonsense": "letters in no order, or one again and again",
    "long": "much text without a question",
    "foreign": "another language",
    "word": "one word",
    "story": "a wish for a story",
}


def answer_typed(
    model: "Transformer", tokenizer: "ChatTokenizer", max_tokens: int, num: int, batch: int
) -> dict[str, list[bool]]:
    """Whether each reply fits, to at most `num` messages of each kind. `max_tokens`: the longest sequence of the model."""
    from model.inference.chat import fit_conversation
    from model.inference.cpu_kernels import make_decoder
    from model.inference.generate import generate

    decoder, room = make_decoder(model), max_tokens - MAX_NEW_TOKENS
    greedy = GenerateConfig(max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
    messages = list(heldout_typed(SEED, num))
    fits: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(messages), batch):
        group = messages[start : start + batch]
        prompts = [
            fit_conversation(tokenizer, [{"role": "user", "content": typed.text}], room).tokens for typed in group
        ]
        for typed, tokens in zip(group, generate(decoder, prompts, greedy, tokenizer.turn_end), strict=True):
            reply = tokenizer.parse_reply(tokens).text
            is_whole = bool(tokens) and tokens[-1] == tokenizer.turn_end
            fits[typed.kind].append(is_whole and any(words in reply for words in typed.fitting))
    return {kind: fits[kind] for kind in KINDS if fits[kind]}


def typed_section(figures: Figures) -> str:
    """The section of the report card; empty where nothing was typed."""
    if not (models := figures.get("typed")):
        return ""
    rows = [[NAMES[kind], *(shown(shares.get(kind)) for shares in models.values())] for kind in KINDS]
    note = (
        "Replies that fit what asks for no fact: they say so, or tell a story. No conversation has these messages.\n\n"
    )
    return "## What people type\n\n" + note + table(["Typed", *models], rows)
