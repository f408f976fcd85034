"""The engine: what it computes is what the model says, whatever else is in the batch, and rows are always given back."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model.config import GenerateConfig
from model.inference.decoder import Decoder
from model.inference.generate import generate
from model.network.transformer import Transformer
from model.serve import compiled, slots, small_slots
from model.serve import engine as engine_module
from model.serve.compiled_slots import CompiledSlots
from model.serve.engine import Engine
from model.serve.errors import ApiError
from model.serve.grammar import GrammarTooLarge
from model.serve.jobs import Job
from model.serve.sampling import _draw
from model.serve.small_slots import SmallSlots
from tests.support.served_models import finished, make_job, plain_logprobs, write_sharp_model

MAX_TOKENS = 128


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Transformer:
    return write_sharp_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["compiled", "small", "cpu kernels", "plain"])
def engine(model: Transformer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    if request.param == "plain":
        monkeypatch.setattr(slots, "missing_kernels", lambda: "for the test")
    if request.param == "compiled":
        pytest.importorskip("numba")
    if request.param == "small":
        monkeypatch.setattr(compiled, "compiled", None)
    if request.param == "cpu kernels":
        monkeypatch.setattr(small_slots, "is_small", lambda model: False)
    made = Engine(model, max_tokens=MAX_TOKENS, max_running=6, max_waiting=100, num_threads=1)
    yield made
    made.close()


def prompts(count: int, seed: int = 0, longest: int = 40) -> list[list[int]]:
    draws = random.Random(seed)
    return [[draws.randrange(300) for _ in range(draws.randint(1, longest))] for _ in range(count)]


def wait_until_idle(engine: Engine) -> None:
    deadline = time.monotonic() + 30
    while engine.active or engine.waiting:
        assert time.monotonic() < deadline, "the engine is still busy"
        time.sleep(0.001)


@pytest.mark.parametrize("chunk", [5, 512])
def test_engine_logprobs_are_those_of_a_plain_forward_pass(
    engine: Engine, model: Transformer, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(engine_module, "CHUNK_TOKENS", chunk)
    jobs = [make_job(prompt, max_tokens=12, num_top=5, scores_prompt=True) for prompt in prompts(10)]
    finished(engine, *jobs)
    for job in jobs:
        expected = plain_logprobs(model, [*job.prompt, *job.ids])
        scored = [*job.prompt_scores, *job.tokens]
        assert [token.token for token in scored] == [*job.prompt, *job.ids]
        assert scored[0].logprob is None
        for place, token in enumerate(scored[1:]):
            assert token.logprob == pytest.approx(expected[place, token.token].item(), abs=2e-5)
            best = expected[place].topk(5)
            assert [other.logprob for other in token.top] == pytest.approx(best.values.tolist(), abs=2e-5)


def test_greedy_completions_are_those_of_generate(engine: Engine, model: Transformer) -> None:
    given = prompts(15)
    expected = generate(Decoder(model), given, GenerateConfig(max_new_tokens=20, temperature=0.0), 7)
    jobs = [make_job(prompt, max_tokens=20, temperature=0.0, stop_tokens=frozenset({7})) for prompt in given]
    assert finished(engine, *jobs) == expected


def sampled_job(prompt: list[int], seed: int) -> Job:
    return make_job(prompt, seed, max_tokens=25, temperature=0.9, top_k=40 if seed % 2 else 0, top_p=0.95, num_top=0)


def test_seeded_completion_is_the_same_whatever_else_is_in_the_batch(engine: Engine) -> None:
    given = prompts(8, seed=3)
    alone = [finished(engine, sampled_job(prompt, seed))[0] for seed, prompt in enumerate(given)]
    assert len({tuple(tokens) for tokens in alone}) > 4
    for attempt in range(3):
        jobs = [sampled_job(prompt, seed) for seed, prompt in enumerate(given)]
        others = [
            make_job(prompt, 99, max_tokens=1 + number) for number, prompt in enumerate(prompts(20, seed=attempt))
        ]
        mixed = [*jobs, *others]
        random.Random(attempt).shuffle(mixed)
        # In several portions, so that they join while others run.
        for start in range(0, len(mixed), 5):
            engine.submit(mixed[start : start + 5])
            time.sleep(0.003)
        wait_until_idle(engine)
        assert [job.ids for job in jobs] == alone


class WatchedJob(Job):
    """A job that calls `on_check` when the engine asks whether it is cancelled."""

    on_check: Callable[[], None]

    @property
    def is_cancelled(self) -> bool:
        if threading.current_thread().name == "engine":
            self.on_check()
        return False

    @is_cancelled.setter
    def is_cancelled(self, _: bool) -> None:
        pass


def test_request_that_arrives_while_the_queue_is_checked_fails_no_other(model: Transformer) -> None:
    engine = Engine(model, max_tokens=MAX_TOKENS, max_running=1, num_threads=1)
    first, second, last = (make_job([4, number], max_tokens=20) for number in range(3))
    watched = WatchedJob([3], first.sampling, random.Random(0))
    late = threading.Thread(target=engine.submit, args=([last],))

    def submit_another() -> None:
        if watched in engine.waiting and not late.ident:
            late.start()
            late.join(0.1)  # it may have to wait until the queue has been checked

    watched.on_check = submit_another
    try:
        engine.submit([first, watched, second])
        wait_until_idle(engine)
        late.join()
        wait_until_idle(engine)
    finally:
        engine.close()
    assert [job.finish_reason for job in (first, watched, second, last)] == ["length"] * 4


def test_another_seed_gives_another_completion(engine: Engine) -> None:
    [prompt] = prompts(1)
    first, second = finished(engine, sampled_job(prompt, 2), sampled_job(prompt, 4))
    assert first != second


def test_shared_beginning_is_read_once(engine: Engine) -> None:
    shared = [*prompts(1, seed=5)[0], *range(40)]
    first, second = make_job([*shared, 1, 2], temperature=0.0), make_job([*shared, 3, 4], temperature=0.0)
    finished(engine, first)
    finished(engine, second)
    assert first.num_cached == 0
    assert second.num_cached == len(shared)
    engine.rows.held = [held[:0] for held in engine.rows.held]
    again = make_job(second.prompt, temperature=0.0)
    assert finished(engine, again) == [second.ids]
    assert again.num_cached == 0


def test_equal_prompts_that_arrive_together_are_read_once(engine: Engine) -> None:
    [prompt] = prompts(1, seed=6, longest=40)
    prompt = [*prompt, *range(40)]
    jobs = [make_job(prompt, seed, max_tokens=5) for seed in range(5)]
    finished(engine, *jobs)
    assert sorted(job.num_cached for job in jobs) == [0, *[len(prompt) - 1] * 4]


def test_cancelled_jobs_leave_and_give_their_rows_back(engine: Engine) -> None:
    jobs = [make_job(prompt, max_tokens=90) for prompt in prompts(40, longest=30)]
    engine.submit(jobs)
    time.sleep(0.01)
    engine.cancel(jobs)
    wait_until_idle(engine)
    assert all(job.is_done for job in jobs)
    assert sorted(engine.rows.free) == list(range(engine.slots.num_rows))


def test_full_queue_refuses_all_jobs_of_a_request(engine: Engine) -> None:
    with pytest.raises(ApiError) as caught:
        engine.submit([make_job([1]) for _ in range(engine.max_running + 101)])
    assert caught.value.status == 429
    assert not engine.waiting
    assert len(finished(engine, make_job([1], max_tokens=3))[0]) == 3


def test_job_that_finds_a_free_row_does_not_wait(model: Transformer) -> None:
    engine = Engine(model, max_tokens=MAX_TOKENS, max_running=2, max_waiting=0, num_threads=1)
    try:
        assert [len(ids) for ids in finished(engine, make_job([1]), make_job([2]))] == [16, 16]
        with pytest.raises(ApiError) as caught:
            engine.submit([make_job([1]) for _ in range(3)])
        assert caught.value.status == 429
    finally:
        engine.close()


class _Mask:
    """Allows every token, or none; may fail when it takes one."""

    def __init__(self, engine: Engine, is_empty: bool) -> None:
        self.mask, self.is_empty = torch.full((engine.vocab_size,), not is_empty), is_empty

    def allowed(self) -> torch.Tensor:
        return self.mask

    def accept(self, token: int) -> None:
        raise GrammarTooLarge("it has too many states")


@pytest.mark.parametrize(("is_empty", "message"), [(True, "allows no token"), (False, "too many states")])
def test_grammar_that_fails_ends_its_job_alone(engine: Engine, is_empty: bool, message: str) -> None:
    healthy, failing = make_job([5, 6], max_tokens=20), make_job([7, 8], mask=_Mask(engine, is_empty))
    engine.submit([healthy, failing])
    wait_until_idle(engine)
    assert len(healthy.ids) == 20
    assert healthy.error is None
    with pytest.raises(ApiError, match=message) as caught:
        raise failing.error or AssertionError
    assert caught.value.status == 400
    assert sorted(engine.rows.free) == list(range(engine.slots.num_rows))


def test_draw_of_a_row_without_numbers_is_a_token() -> None:
    jobs = [make_job([1], seed) for seed in range(4)]
    assert all(0 <= token < 10 for token in _draw(torch.full((4, 10), float("-inf")), range(4), jobs))


def test_cache_grows_for_a_long_row_and_shrinks_again(engine: Engine) -> None:
    if isinstance(engine.slots, SmallSlots | CompiledSlots):
        assert engine.slots.num_slots == MAX_TOKENS  # made once
        return
    finished(engine, make_job(prompts(1)[0], max_tokens=10))
    before = engine.slots.num_slots
    finished(engine, make_job([1] * 60, max_tokens=60))
    assert (grown := engine.slots.num_slots) > before
    finished(engine, make_job([2, 3], max_tokens=2))
    assert engine.slots.num_slots < grown
    # What rows held beyond the smaller cache is forgotten, and not taken for a shared beginning.
    assert max(map(len, engine.rows.held)) <= engine.slots.num_slots


def test_weights_that_are_not_finite_fail_the_request_and_not_the_engine(tmp_path: Path) -> None:
    model = write_sharp_model(tmp_path)
    healthy = model.model.norm.weight.detach().clone()
    model.model.norm.weight.data.fill_(float("nan"))
    engine = Engine(model, max_tokens=MAX_TOKENS, num_threads=1)
    try:
        with pytest.raises(ApiError, match="NaN"):
            finished(engine, make_job([1, 2, 3]))
        with pytest.raises(ApiError, match="NaN"):
            finished(engine, make_job([1, 2, 3]))
        assert sorted(engine.rows.free) == list(range(engine.slots.num_rows))
    finally:
        engine.close()
    assert torch.isfinite(healthy).all()


def test_penalties_and_bias_change_the_choice_and_not_the_logprobs(engine: Engine, model: Transformer) -> None:
    plain = make_job([5, 6, 7], max_tokens=1, temperature=0.0)
    [[best]] = finished(engine, plain)
    banned = make_job([5, 6, 7], max_tokens=1, temperature=0.0, logit_bias={best: -100.0}, num_top=1)
    [[other]] = finished(engine, banned)
    assert other != best
    expected = plain_logprobs(model, [5, 6, 7])[-1]
    assert banned.tokens[0].logprob == pytest.approx(expected[other].item(), abs=2e-5)
    assert banned.tokens[0].top[0].token == best
    repeated = make_job([5, 6, 7], max_tokens=30, temperature=0.0, frequency_penalty=2.0, presence_penalty=2.0)
    unpenalized = make_job([5, 6, 7], max_tokens=30, temperature=0.0)
    tokens, before = finished(engine, repeated, unpenalized)
    assert len(set(tokens)) >= len(set(before))


def test_closed_engine_refuses_and_fails_what_waits(model: Transformer) -> None:
    engine = Engine(model, max_tokens=MAX_TOKENS, max_running=1, num_threads=1)
    jobs = [make_job([1, 2], max_tokens=100) for _ in range(20)]
    engine.submit(jobs)
    engine.close()
    assert all(job.is_done for job in jobs)
    with pytest.raises(ApiError, match="shutting down"):
        engine.submit([make_job([1])])
