"""The room *Arena* of the server: battles, both answers as streams, votes, and the table of ratings.

Reads and writes the database, and asks the served models for answers. The page learns which model is which from the answer to its vote.

    GET  /feedback/arena             ratings and their course      POST /feedback/arena/battles/N/SIDE   the answer of a side, streamed
    POST /feedback/arena/battles     start a battle                POST /feedback/arena/votes            vote, and see the names
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import StreamingResponse

from model.serve.errors import ApiError
from tasks.feedback.arena import Arena, Battle, Side, VoteError
from tasks.feedback.ratings import Vote, elo, rate
from tasks.feedback.requests import MAX_NUMBER, NewBattle, NewVote, ReadSide
from tasks.feedback.served import ServedModel, chat_models, served_models

MAX_POINTS = 200  # of the course of Elo ratings: more than a plot has pixels to show
BattleNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER)]


def arena_router(arena: Arena) -> APIRouter:
    """The routes of the room."""
    router = APIRouter(prefix="/feedback/arena")

    @router.get("")
    def table(request: Request) -> dict[str, Any]:
        names = {model.lineage: model.id for model in served_models(request).values()}
        return {"num_models": len(chat_models(request)), "names": names, **_standings(tuple(arena.votes()))}

    @router.post("/battles")
    def start(body: NewBattle, request: Request) -> dict[str, int]:
        messages = [{"role": "user", "content": body.prompt}]
        models = [model.lineage for model in chat_models(request)]
        try:
            return {"battle": arena.start(body.who, messages, models, body.sampling()).id}
        except VoteError as error:
            raise ApiError(409, str(error)) from None

    @router.post("/battles/{number}/{side}")
    async def answer(number: BattleNumber, side: Side, body: ReadSide, request: Request) -> StreamingResponse:
        battle = await asyncio.to_thread(_find, arena, number, body.who)
        model = next((m for m in served_models(request).values() if m.lineage == battle.models[side]), None)
        if model is None:
            raise ApiError(409, "a model of this battle is no longer served: start another battle")
        pieces = _answer(arena, battle, side, model)
        return StreamingResponse(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @router.post("/votes")
    def vote(body: NewVote, request: Request) -> dict[str, Any]:
        try:
            battle = arena.vote(body.battle, body.who, body.winner)
        except VoteError as error:
            raise ApiError(409, str(error)) from None
        names = {model.lineage: model.id for model in served_models(request).values()}
        return {side: {"artifact": model, "name": names.get(model, model)} for side, model in battle.models.items()}

    return router


def _find(arena: Arena, number: int, who: str) -> Battle:
    battle = arena.find(number)
    if battle is None or battle.who != who:
        raise ApiError(404, f"there is no battle {number} of {who}: start one")
    return battle


async def _answer(arena: Arena, battle: Battle, side: Side, model: ServedModel) -> AsyncGenerator[str]:
    """The answer of a side as server-sent events. A finished one is sent again as it was."""
    text = battle.texts[side]
    if text is not None:
        yield _event({"text": text})
    else:
        pieces = []
        try:
            # Closed when the person has left: the model stops writing.
            async with aclosing(model.stream_reply(battle.messages, **battle.sampling)) as stream:
                async for piece in stream:
                    pieces.append(piece)
                    yield _event({"text": piece})
        except ApiError as error:
            # The status is sent already.
            yield _event(error.body())
            return
        # Before the end is announced: whoever reads it may vote.
        await asyncio.to_thread(arena.finish, battle.id, side, "".join(pieces))
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


@lru_cache(maxsize=1)  # the table is asked for much more often than it changes
def _standings(votes: tuple[Vote, ...]) -> dict[str, Any]:
    history = elo(votes)
    # The last one always, and before it every so many.
    every = max(1, -(-len(history) // MAX_POINTS))
    shown = [number for number in range(len(history)) if (len(history) - 1 - number) % every == 0]
    return {
        "num_votes": len(votes),
        "ratings": [rating._asdict() for rating in rate(votes)],
        "elo": [{"votes": number + 1, "ratings": history[number]} for number in shown],
    }
