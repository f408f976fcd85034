"""/tokenize, /detokenize, /tokenizer_info and /vocabularies: what a text or a conversation is to a model.

Reads and writes nothing. Names and shapes are those of vLLM and of lm-eval's remote tokenizer; the bytes of each token and the mask of
what is learned are extensions.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request

from model.serve.errors import ApiError
from model.serve.follow import aside
from model.serve.messages import conversation
from model.serve.models import find_model
from model.serve.requests import DetokenizeBody, TokenizeBody
from model.tokenizer.chat import BOS, PAD, TURN_END, ChatTokenizer
from model.tokenizer.pieces import Piece, token_pieces
from model.tokenizer.template import chat_template

router = APIRouter()


@router.post("/tokenize")
async def tokenize(body: TokenizeBody, request: Request) -> dict[str, Any]:
    """Tokens of a text or of a conversation."""
    served = find_model(request, body.model)
    tokenizer, max_tokens = served.tokenizer, served.max_tokens
    if body.vocabulary:
        tokenizer = vocabulary(known_vocabularies(request), body.vocabulary)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "give either prompt or messages", "prompt")
    texts = [body.prompt or "", *(str(message.content) for message in body.messages or ())]
    served.check_texts(texts, "prompt" if body.messages is None else "messages")
    found = await aside(texts, _tokenized, tokenizer, body)
    return found | {"max_model_len": max_tokens}


def _tokenized(tokenizer: ChatTokenizer, body: TokenizeBody) -> dict[str, Any]:
    mask: list[int] | None = None
    if body.messages is not None:
        rendered = tokenizer.render(conversation(body.messages))
        tokens, mask = rendered.tokens, rendered.mask
        if body.add_generation_prompt:
            tokens, mask = [*tokens, *tokenizer.assistant_start], [*mask, *[0] * len(tokenizer.assistant_start)]
    else:
        text = body.prompt or ""
        tokens = tokenizer.encode_document(text) if body.add_special_tokens else tokenizer.encode(text)
    pieces = pieces_of(tokenizer)
    return {
        "count": len(tokens),
        "tokens": tokens,
        "token_strs": [pieces[token].name for token in tokens],
        "bytes": [list(pieces[token].content) for token in tokens],
        "special": [pieces[token].is_special for token in tokens],
        "num_bytes": sum(len(pieces[token].content) for token in tokens),
    } | ({} if mask is None else {"mask": mask})


@lru_cache(maxsize=16)
def pieces_of(tokenizer: ChatTokenizer) -> list[Piece]:
    """The pieces of a vocabulary, made once."""
    return token_pieces(tokenizer)


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, request: Request) -> dict[str, str]:
    """The text of tokens, with the names of special ones."""
    served = find_model(request, body.model)
    if bad := next((token for token in body.tokens if token >= served.vocab_size), None):
        raise ApiError(400, f"token {bad} is not in the vocabulary of {served.vocab_size} tokens", "tokens")
    return {"prompt": served.tokenizer.encoder.decode(body.tokens, skip_special_tokens=False)}


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request, model: str = "") -> dict[str, Any]:
    """What lm-eval asks a server for before it tokenizes with it."""
    tokenizer = find_model(request, model).tokenizer
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "vocab_size": tokenizer.vocab_size,
        "bos_token": BOS,
        "eos_token": TURN_END,
        "pad_token": PAD,
        "chat_template": chat_template(tokenizer),
    }


@router.get("/vocabularies")
async def vocabularies(request: Request) -> dict[str, Any]:
    """The vocabularies that /tokenize can compare: of the models, and of files that the server was started with."""
    found = known_vocabularies(request)
    return {"data": [{"name": name, "vocab_size": tokenizer.vocab_size} for name, tokenizer in found.items()]}


def known_vocabularies(request: Request) -> dict[str, ChatTokenizer]:
    """The vocabularies of the models and of the files, by name."""
    models = request.app.state.models.values()
    return {f"own:{served.id}": served.tokenizer for served in models} | dict(request.app.state.vocabularies)


def vocabulary(known: Mapping[str, ChatTokenizer], name: str) -> ChatTokenizer:
    """A vocabulary by name. Raises ApiError."""
    if name not in known:
        raise ApiError(
            404, f"there is no vocabulary {name[:80]!r}; there are {', '.join(known) or 'none'}", "vocabulary"
        )
    return known[name]
