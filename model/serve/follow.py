"""From the engine's thread to the server's event loop: waits for the next tokens of jobs, and gives their rows up when nobody waits any more.

Reads and writes nothing. The engine makes thousands of tokens a second; a wake-up of the loop for each would take the interpreter's lock from the
engine as often. So news are collected for INTERVAL seconds; the end is reported at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from model.serve.engine import Engine
from model.serve.jobs import Job

INTERVAL = 0.02  # seconds: 50 pieces of text a second read as a flow

SHORT_TEXT = 2**13  # characters: they are tokenized before a thread has been given the work

# Two threads: a text of some MB takes up to a gigabyte while it is tokenized.
_tokenizing = ThreadPoolExecutor(2, "tokenizing")

T = TypeVar("T")


async def follow(engine: Engine, jobs: Sequence[Job], *, is_streamed: bool) -> AsyncGenerator[None]:
    """Submit jobs, and yield when some have news, the last time when all are done; only then if they are not streamed.

    Whoever stops iterating cancels them. Raises ApiError where the queue is full or the engine failed.
    """
    loop = asyncio.get_running_loop()
    news, ended = asyncio.Event(), asyncio.Event()

    def notify() -> None:  # in the engine's thread
        if all(job.is_done for job in jobs):
            _call(loop, ended.set)
            _call(loop, news.set)
        elif is_streamed and not news.is_set():
            _call(loop, news.set)

    for job in jobs:
        job.notify = notify
    engine.submit(jobs)
    try:
        while True:
            await news.wait()
            news.clear()
            is_ended = ended.is_set()
            for job in jobs:
                if job.error is not None:
                    raise job.error
            yield
            if is_ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await ended.wait()
    finally:
        engine.cancel(jobs)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function)


async def finish(engine: Engine, jobs: Sequence[Job]) -> None:
    """Wait until jobs are done."""
    async with contextlib.aclosing(follow(engine, jobs, is_streamed=False)) as steps:
        async for _ in steps:
            pass


async def aside(texts: Sequence[str], work: Callable[..., T], *arguments: Any) -> T:
    """What `work` makes of texts: of long ones in a thread, so that other requests do not wait for it. The tokenizer releases the GIL."""
    if sum(map(len, texts)) <= SHORT_TEXT:
        return work(*arguments)
    return await asyncio.get_running_loop().run_in_executor(_tokenizing, work, *arguments)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up. Raises ClientDisconnect then."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        watch.cancel()
        task.cancel()
        # So that its `finally` has run, which frees the rows.
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    # The body has been read: what comes next is the disconnect.
    while (await request.receive())["type"] != "http.disconnect":
        pass
