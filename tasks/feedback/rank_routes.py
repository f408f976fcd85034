"""The room *Rank* of the server: the queue of prompts, their completions, and labels.

Reads and writes the database through the label book, and asks the served models for completions. The names of the models are not sent: a
person who knows them would rank the names.

    GET  /feedback/rank                guidelines, progress, agreement      POST /feedback/rank/completions   let the models complete a prompt
    POST /feedback/rank/prompts        add prompts to the queue             POST /feedback/rank/labels        keep a ranking
    POST /feedback/rank/next           the next prompt to rank              GET  /feedback/rank/prompts/N     a prompt again, to correct it
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from model.serve.errors import ApiError
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.labels import Item, Label, LabelBook, order_for
from tasks.feedback.requests import (
    MAX_COMPLETIONS,
    MAX_NUMBER,
    MakeCompletions,
    NewLabel,
    NewPrompts,
    NextPrompt,
    Who,
)
from tasks.feedback.served import Drafter, chosen_models, draft_of, sample_completions

PromptNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER)]


def rank_router(book: LabelBook, guidelines: Guidelines, drafter: Drafter | None) -> APIRouter:
    """The routes of the room. Those that only ask the database are plain functions, which FastAPI runs in a thread."""
    router = APIRouter(prefix="/feedback/rank")

    @router.get("")
    def state(who: Annotated[Who, Query()] = "nobody") -> dict[str, Any]:
        return {
            "guidelines": guidelines._asdict(),
            "max_completions": MAX_COMPLETIONS,
            "progress": book.progress(who)._asdict(),
            "agreement": book.agreement()._asdict(),
        }

    @router.post("/prompts")
    def add_prompts(body: NewPrompts) -> dict[str, int]:
        return {"added": book.add_prompts([{"role": "user", "content": text}] for text in body.prompts)}

    @router.post("/next")
    def next_prompt(body: NextPrompt) -> dict[str, Any]:
        number = book.next_prompt(body.who, body.after)
        return {"item": None if number is None else _shown(_item(book, number), body.who, book)}

    @router.get("/prompts/{number}")
    def prompt(number: PromptNumber, who: Annotated[Who, Query()]) -> dict[str, Any]:
        return {"item": _shown(_item(book, number), who, book)}

    @router.post("/completions")
    async def complete(body: MakeCompletions, request: Request) -> dict[str, Any]:
        models = chosen_models(request, body.models)
        item = await asyncio.to_thread(_item, book, body.prompt)
        if not item.completions:
            made = await sample_completions(models, item.messages, body.num_completions, body.sampling())
            draft = await asyncio.to_thread(draft_of, drafter, item.messages, made) if drafter else None
            await asyncio.to_thread(book.add_completions, item.id, made, draft)
        return await asyncio.to_thread(lambda: {"item": _shown(_item(book, body.prompt), body.who, book)})

    @router.post("/labels")
    def add_label(body: NewLabel) -> dict[str, Any]:
        if body.guidelines != guidelines.version:
            raise ApiError(409, f"the guidelines are now version {guidelines.version}: reload the page and read them")
        _item(book, body.prompt)
        label = Label(body.who, body.ranks, body.all_bad, body.saw_draft)
        return {"label": book.add_label(body.prompt, label, guidelines), "progress": book.progress(body.who)._asdict()}

    return router


def _item(book: LabelBook, number: int) -> Item:
    item = book.item(number)
    if item is None:
        raise ApiError(404, f"there is no prompt {number}: ask for the next one")
    return item


def _shown(item: Item, who: str, book: LabelBook) -> dict[str, Any]:
    """A prompt as a person sees it: completions in the person's order, by place, without the names of models."""
    order = order_for(who, item.id, len(item.completions))
    label = book.label_of(item.id, who)
    return {
        "prompt": item.id,
        "messages": item.messages,
        "completions": [{"place": place, "text": item.completions[place].text} for place in order],
        "draft": item.draft.ranks if item.draft else None,
        "label": {"ranks": label.ranks, "all_bad": label.all_bad} if label else None,
    }
