"""Continuous batching: one thread that steps all running completions of a model at once; they join and leave between steps.

Reads a model; writes nothing. Each turn of the loop drops what was cancelled, lets waiting jobs take free rows, reads at most CHUNK_TOKENS of
prompts, and steps every row whose prompt has been read. A long prompt takes several turns, so that the others do not wait for it
(chunked prefill; Agrawal et al. 2023, https://arxiv.org/abs/2308.16369).
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Sequence

import torch
from torch import Tensor

from model.errors import UserError
from model.network.transformer import Transformer
from model.serve.errors import ApiError, queue_full, too_large
from model.serve.grammar import GrammarTooLarge
from model.serve.jobs import FinishReason, Job, ScoredToken
from model.serve.rows import Rows
from model.serve.sampling import next_tokens, score
from model.serve.slots import Part, make_slots

logger = logging.getLogger("crawl2chat")

CHUNK_TOKENS = 512  # of prompts in one turn, about
TOO_LARGE = (GrammarTooLarge, RecursionError, MemoryError)
CHUNK_LOGITS = 2**24  # where a prompt is scored, each of its tokens has V logits: 64 MiB of them at once


class Engine:
    """A model at work. `max_running`: rows of a step; `max_waiting`: jobs beyond them before new ones are refused."""

    def __init__(
        self,
        model: Transformer,
        *,
        max_tokens: int,
        max_running: int = 32,
        max_waiting: int = 256,
        num_threads: int = 0,
    ) -> None:
        self.vocab_size = model.config.vocab_size
        self.max_running, self.max_waiting, self.num_threads = max_running, max_waiting, num_threads
        # Twice the rows that run: the others remember prompts.
        self.slots = make_slots(model, 2 * max_running, max_tokens)
        self.rows = Rows(2 * max_running)
        self.waiting: deque[Job] = deque()
        self.active: list[Job] = []  # each has a row
        self.counts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs, all or none. Raises ApiError 429 where too many wait, 503 where the engine has stopped."""
        # Whoever makes jobs checks their length and answers for it; here it would be found in the middle of a batch.
        assert all(job.prompt and len(job.prompt) + job.sampling.max_tokens <= self.slots.max_tokens for job in jobs)
        with self._changed:
            if self._is_closed:
                raise ApiError(503, "the server is shutting down")
            # Those that find a free row do not wait.
            num_free = max(0, self.max_running - len(self.active))
            if len(self.waiting) + len(jobs) > self.max_waiting + num_free:
                raise queue_full(len(self.waiting))
            self.waiting.extend(jobs)
            self.counts["requests"] += len(jobs)
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Stop working on jobs; those that are done stay as they are."""
        with self._changed:
            for job in jobs:
                job.is_cancelled = not job.is_done
            self._changed.notify()

    def close(self) -> None:
        """End the thread; unfinished jobs get an error."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        if self.num_threads:
            torch.set_num_threads(self.num_threads)
        while True:
            with self._changed:
                while not (self.waiting or self.active or self._is_closed):
                    self._changed.wait()
                if self._is_closed:
                    break
            try:
                self._turn()
            except Exception as error:
                # Logits that are not finite, or no memory left. The type alone is logged: a message could quote a prompt.
                logger.error("the engine failed: %s", type(error).__name__)
                reason = str(error) if isinstance(error, UserError) else type(error).__name__
                self._fail(ApiError(500, f"the engine failed: {reason}"))
        self._fail(ApiError(503, "the server is shutting down"))

    @torch.inference_mode()
    def _turn(self) -> None:
        self._drop_cancelled()
        self._admit()
        if reading := [job for job in self.active if job.is_reading]:
            self._read(reading)
        # Those that have just been read wait a turn: their first token is sampled, and may have ended them.
        if running := [job for job in self.active if not job.is_reading and job not in reading]:
            self._step(running)

    def _drop_cancelled(self) -> None:
        # With the lock: whoever submits a job meanwhile would change the queue under the loop, and all running jobs would fail.
        with self._changed:
            if any(job.is_cancelled for job in self.waiting):
                kept = [job for job in self.waiting if not job.is_cancelled]
                self.counts["cancelled"] += len(self.waiting) - len(kept)
                self.waiting = deque(kept)
        for job in [job for job in self.active if job.is_cancelled]:
            self._leave(job)
            self.counts["cancelled"] += 1

    def _admit(self) -> None:
        """Give waiting jobs rows, in order."""
        being_read = {tuple(job.prompt) for job in self.active if job.is_reading}
        while self.waiting and len(self.active) < self.max_running:
            # An equal prompt that is being read: soon it is in the cache, and need not be read again.
            if tuple(self.waiting[0].prompt) in being_read:
                return
            with self._changed:
                job = self.waiting.popleft()
            being_read.add(tuple(job.prompt))
            self._join(job)

    def _join(self, job: Job) -> None:
        # Where each token of the prompt is scored, each must be computed.
        source, num_shared = (0, 0) if job.scores_prompt else self.rows.find(job.prompt)
        job.row = self.rows.take(source, num_shared)
        self.active.append(job)
        self._fit()
        if num_shared and job.row != source:
            self.slots.copy(source, job.row, num_shared)
        job.num_read = job.num_cached = num_shared
        self.counts["prompt_tokens"] += len(job.prompt)
        self.counts["cached_tokens"] += num_shared

    def _fit(self) -> None:
        """Room for the prompts and a token more of each row."""
        self.rows.cut(self.slots.fit(max(len(job.prompt) + len(job.ids) for job in self.active)))

    def _read(self, reading: Sequence[Job]) -> None:
        """Read the next tokens of prompts."""
        parts: list[Part] = []
        for job in reading:
            room = CHUNK_TOKENS - sum(len(part.tokens) for part in parts)
            if job.scores_prompt:
                room = min(room, max(1, CHUNK_LOGITS // self.vocab_size))
            if room > 0:
                tokens = job.prompt[job.num_read : job.num_read + room]
                parts.append(Part(job.row, job.num_read, tokens, job.scores_prompt))
        logits = self.slots.extend(parts).float()
        sizes = [len(part.tokens) if part.wants_all else 1 for part in parts]
        begun: list[Job] = []
        last: list[Tensor] = []
        for job, part, rows in zip(reading, parts, torch.split(logits, sizes), strict=False):
            job.num_read += len(part.tokens)
            if job.scores_prompt:
                _score_prompt(job, part, rows)
            if not job.is_reading:
                self.rows.record(job.row, job.prompt)
                begun.append(job)
                last.append(rows[-1])
        if begun:
            self._take_tokens(begun, torch.stack(last))

    def _step(self, running: Sequence[Job]) -> None:
        positions = [job.num_read for job in running]
        if max(positions) >= self.slots.num_slots:
            self._fit()
        logits = self.slots.advance([job.ids[-1] for job in running], [job.row for job in running], positions)
        for job in running:
            job.num_read += 1
        self._take_tokens(running, logits.float())

    def _take_tokens(self, jobs: Sequence[Job], logits: Tensor) -> None:
        """Sample a token of each job, which then runs on or ends."""
        if failed := [job for job in jobs if job.mask is not None and not _has_mask(job)]:
            for job in failed:
                self._leave(job)
                job.notify()
            kept = [place for place, job in enumerate(jobs) if job not in failed]
            jobs, logits = [jobs[place] for place in kept], logits[kept]
        if not jobs:
            return
        for job, token in zip(jobs, next_tokens(logits, jobs), strict=True):
            # max_tokens 0: only the prompt is scored.
            if job.sampling.max_tokens:
                job.ids.append(token.token)
                job.tokens.append(token)
                self.counts["generated_tokens"] += 1
            if reason := _finish_reason(job):
                self._leave(job)
                job.finish_reason = reason
            elif not _accepts(job, token.token):
                self._leave(job)
            job.notify()

    def _leave(self, job: Job) -> None:
        self.active.remove(job)
        self.rows.give_back(job.row, [*job.prompt, *job.ids][: job.num_read])

    def _fail(self, error: ApiError) -> None:
        with self._changed:
            jobs = [*self.active, *self.waiting]
            self.waiting.clear()
        for job in self.active:
            # What the row holds now is not known.
            self.rows.give_back(job.row, [])
        self.active = []
        for job in jobs:
            job.error = error
            job.notify()


def _score_prompt(job: Job, part: Part, logits: Tensor) -> None:
    """Log-probabilities of the tokens that follow those of a part: logits [T, V]."""
    if part.start == 0:
        job.prompt_scores.append(ScoredToken(part.tokens[0]))  # nothing comes before the first
    following = job.prompt[part.start + 1 : part.start + 1 + len(part.tokens)]
    if following:
        job.prompt_scores += score(logits[: len(following)], following, [job.num_top or 0] * len(following))


def _has_mask(job: Job) -> bool:
    """Whether the mask of the next token can be computed; if not, this job alone fails."""
    try:
        assert job.mask is not None
        if not job.mask.allowed().any():
            job.error = ApiError(400, "the grammar of the output allows no token of this vocabulary")
    except TOO_LARGE as error:
        job.error = too_large(error)
    return job.error is None


def _accepts(job: Job, token: int) -> bool:
    """Whether the mask, where there is one, takes a token; if not, this job alone fails."""
    try:
        if job.mask is not None:
            job.mask.accept(token)
    except TOO_LARGE as error:
        job.error = too_large(error)
    return job.error is None


def _finish_reason(job: Job) -> FinishReason | None:
    if not job.sampling.max_tokens:
        return "length"
    if job.ids[-1] in job.sampling.stop_tokens or (job.is_ended is not None and job.is_ended(job.ids)):
        return "stop"
    return "length" if len(job.ids) >= job.sampling.max_tokens else None
