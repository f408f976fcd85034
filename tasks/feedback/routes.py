"""The routes of people's feedback, for the application of model/serve. Access, origin and size of requests are checked by the application."""

from pathlib import Path

from fastapi import APIRouter

from tasks.feedback.arena import Arena
from tasks.feedback.arena_routes import arena_router
from tasks.feedback.database import FeedbackFile
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.labels import LabelBook
from tasks.feedback.rank_routes import rank_router
from tasks.feedback.served import Drafter


def feedback_router(path: Path, guidelines: Guidelines, drafter: Drafter | None = None) -> APIRouter:
    """Rank and Arena over the file at `path`. Raises UserError where it cannot be used."""
    file = FeedbackFile(path)
    router = APIRouter()
    router.include_router(rank_router(LabelBook(file), guidelines, drafter))
    router.include_router(arena_router(Arena(file)))
    return router
