"""Our models in the lm-evaluation-harness (the extra `eval`): its tasks, prompts, filters and metrics, with our decoder.

Reads a model, its tokenizer and the harness's requests; writes nothing. Agrees with the harness's backend `hf` on the exported model with
`add_bos_token=True` (tests/benchmarks/lm_eval_agreement.py): every text begins with <|bos|>, as in pretraining, and the harness's own functions
cut contexts, continuations and windows. Only files that are named are read: tasks are made of local files (harness.py), and the network of
the `datasets` library is turned off.

The harness is imported when a model is made, so that this module needs no extra.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model.config import GenerateConfig
from model.errors import UserError

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

NEEDS_EXTRA = "the lm-evaluation-harness is not installed: pip install 'crawl2chat[eval]'"
Pair = tuple[list[int], list[int]]
DEFAULT_NEW_TOKENS = 256  # of the harness, where a task says nothing


class Scorer:
    """What the harness asks of a model, in tokens and texts, without the harness's types."""

    def __init__(self, model: "Transformer", tokenizer: "ChatTokenizer", max_tokens: int, batch: int) -> None:
        self.model, self.tokenizer, self.max_tokens, self.batch = model, tokenizer, max_tokens, batch

    def encode(self, text: str, adds_bos: bool = True) -> list[int]:
        """The tokens of a text, after <|bos|> unless it begins with that token's name already."""
        is_marked = text.startswith(BOS_TEXT)
        tokens = self.tokenizer.encode(text.removeprefix(BOS_TEXT))
        return [self.tokenizer.bos, *tokens] if adds_bos or is_marked else tokens

    def logprobs(self, rows: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation, and whether all its tokens are the likeliest. Long contexts lose their beginning."""
        from model.inference.scoring import continuation_scores

        cut = []
        for context, ending in rows:
            # The input has no place for the last token, which is only predicted.
            tokens = [*context, *ending][-(self.max_tokens + 1) :]
            start = len(tokens) - min(len(ending), len(tokens) - 1)
            cut.append((tokens[:start], tokens[start:]))
        values, is_greedy = continuation_scores(self.model, cut, self.batch)
        return list(zip(values.tolist(), is_greedy.tolist(), strict=True))

    def write(self, contexts: Sequence[str], stops: Sequence[str], max_new_tokens: int) -> list[str]:
        """What the model writes greedily after each context, up to the first of the stops."""
        from model.inference.cpu_kernels import make_decoder
        from model.inference.generate import generate

        room = max(1, self.max_tokens - max_new_tokens)
        prompts = [self.encode(context)[-room:] for context in contexts]
        # The texts of the stops are cut below: their tokens depend on what stands before them.
        config = GenerateConfig(max_new_tokens=max_new_tokens, temperature=0.0)
        decoder, texts = make_decoder(self.model), []
        for start in range(0, len(prompts), self.batch):
            written = generate(decoder, prompts[start : start + self.batch], config, self.tokenizer.turn_end)
            texts += [cut_at(self.tokenizer.decode(tokens), stops) for tokens in written]
        return texts


BOS_TEXT = "<|bos|>"


def cut_at(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the stops."""
    for stop in stops:
        if stop:
            text = text.split(stop, maxsplit=1)[0]
    return text


def lm_eval_model(model: "Transformer", tokenizer: "ChatTokenizer", max_tokens: int, batch: int = 32) -> Any:
    """The model as an `lm_eval.api.model.LM`. Raises UserError where the harness is not installed."""
    try:
        from lm_eval.api.model import TemplateLM
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    except ImportError:
        raise UserError(NEEDS_EXTRA) from None
    scorer = Scorer(model, tokenizer, max_tokens, batch)

    class DecoderLM(TemplateLM):  # type: ignore[misc]
        """Answers the three kinds of requests."""

        @property
        def eot_token_id(self) -> int:
            return tokenizer.bos  # separates documents, and begins each

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return scorer.encode(string, add_special_tokens is not False)

        def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            return scorer.logprobs([(context, ending) for _, context, ending in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            sums = []
            for (text,) in (request.args for request in requests):
                windows = get_rolling_token_windows(
                    scorer.encode(text), prefix_token=tokenizer.bos, max_seq_len=max_tokens, context_len=1
                )
                sums.append(sum(value for value, _ in scorer.logprobs([make_disjoint_window(one) for one in windows])))
            return sums

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            texts: dict[int, str] = {}
            groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
            for place, request in enumerate(requests):
                settings = request.args[1]
                until = settings.get("until") or []
                stops = (until,) if isinstance(until, str) else tuple(until)
                most = settings.get("max_gen_toks") or settings.get("max_new_tokens") or DEFAULT_NEW_TOKENS
                groups.setdefault((stops, most), []).append(place)
            for (stops, most), places in groups.items():
                written = scorer.write([requests[place].args[0] for place in places], stops, most)
                texts |= dict(zip(places, written, strict=True))
            return [texts[place] for place in range(len(requests))]

    return DecoderLM()
