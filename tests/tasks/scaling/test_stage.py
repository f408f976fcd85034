"""The fit finds a known law again, and a small study of real runs predicts, reports and is skipped the second time."""

import json
import math
import threading
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.pipeline import dag
from flows.recipes import Recipe, make_recipe
from flows.scaling import Study, scaling_study, smaller, study
from flows.stage_run import Summary
from model.config import ModelConfig, ModelShape, OptimConfig, TrainConfig, TrainRun
from model.network.huggingface import to_hugging_face
from model.planning.scaling_law import HUBER_DELTA, ScalingLaw, ScalingRun, fit, resample, scatter
from model.training.loop import train
from tasks.artifacts.manifest import BaseModel, Manifest, Tokens
from tasks.artifacts.manifest import Tokenizer as TokenizerFile
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.reporter import Reporter, reporting
from tasks.execution.runner import execute
from tasks.pretrain.stage import PretrainConfig
from tasks.scaling.report import runs_section
from tasks.scaling.stage import BUDGETS, SIZES, ScalingConfig, Trained, compare, scaling
from tests.model.data.test_dataloader import write_shard
from tests.support.prefect_servers import server_for_commands
from tests.support.tiny_models import finish, write_model, write_tokenizer
from tests.support.wiring import pretrain

LAW = ScalingLaw(E=1.2, A=60.0, B=120.0, alpha=0.34, beta=0.37)
PARAMETERS = (1e5, 2.6e5, 5.4e5)
TOKENS = (2e5, 4e5, 8e5)
BEYOND = (1.6e6, 1.6e6)


def runs_of(law: ScalingLaw, noise: float = 0.0, seed: int = 0) -> list[ScalingRun]:
    generator = np.random.default_rng(seed)
    return [
        ScalingRun(N, D, law.loss_nats(N, D) * math.exp(generator.normal(scale=noise) if noise else 0.0))
        for N in PARAMETERS
        for D in TOKENS
    ]


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0.3, 3.0), st.floats(0.2, 2.0), st.floats(0.2, 2.0), st.floats(0.15, 1.2), st.floats(0.15, 1.2)
)  # fmt: skip
def test_fit_finds_a_known_law_from_runs_without_noise(
    E: float, by_size: float, by_tokens: float, alpha: float, beta: float
) -> None:
    law = ScalingLaw(E, by_size * PARAMETERS[1] ** alpha, by_tokens * TOKENS[1] ** beta, alpha, beta)
    found = fit(runs_of(law))
    assert found == pytest.approx(law, rel=1e-3)
    assert scatter(found, runs_of(law)) < 1e-6


def test_fit_is_robust_to_one_bad_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_of(LAW)
    runs[4] = runs[4]._replace(loss_nats=1.1 * runs[4].loss_nats)

    def error() -> float:
        return abs(fit(runs).loss_nats(*BEYOND) / LAW.loss_nats(*BEYOND) - 1)

    robust = error()
    monkeypatch.setattr("model.planning.scaling_law.HUBER_DELTA", 1.0)
    assert robust < 0.01 < 3 * robust < error()


def test_prediction_from_noisy_runs_lies_within_its_interval() -> None:
    """A scatter of 0.2% a run: off by less than 2%, and within nine tenths of the refits about as often as that says."""
    true, num_within = LAW.loss_nats(*BEYOND), 0
    for seed in range(10):
        runs = runs_of(LAW, noise=0.002, seed=seed)
        law = fit(runs)
        assert law.loss_nats(*BEYOND) == pytest.approx(true, rel=0.02)
        losses = [other.loss_nats(*BEYOND) for other in resample(law, runs, num=50, seed=0)]
        low, high = np.quantile(losses, [0.05, 0.95])
        num_within += low <= true <= high
    assert num_within >= 7


def test_fit_minimises_the_huber_loss() -> None:
    """No constants nearby have a lower objective, which is computed here independently."""
    runs = runs_of(LAW, noise=0.01, seed=3)
    law = fit(runs)

    def objective(law: ScalingLaw) -> float:
        sizes = [abs(math.log(law.loss_nats(N, D) / loss)) / HUBER_DELTA for N, D, loss in runs]
        return sum(size**2 / 2 if size <= 1 else size - 0.5 for size in sizes)

    at_minimum = objective(law)
    for name in law._fields:
        for factor in (0.99, 0.999, 1.001, 1.01):
            assert objective(law._replace(**{name: factor * getattr(law, name)})) >= at_minimum - 1e-6


def test_optimum_is_the_lowest_loss_of_its_flops() -> None:
    flops = 6 * BEYOND[0] * BEYOND[1]
    N, D = LAW.optimum(flops)
    assert pytest.approx(flops) == 6 * N * D
    for factor in (0.8, 0.95, 1.05, 1.25):
        assert LAW.loss_nats(factor * N, D / factor) > LAW.loss_nats(N, D)


@pytest.mark.parametrize("chosen", [slice(0, 5), slice(0, 6), slice(0, 9, 3)])
def test_fit_refuses_too_few_runs(chosen: slice) -> None:
    with pytest.raises(ValueError, match="take at least 3 sizes and 3 budgets"):
        fit(runs_of(LAW)[chosen])


def test_smaller_run_has_the_shape_and_rates_of_its_size() -> None:
    config = PretrainConfig(
        model=ModelShape(num_layers=12, width=768, num_heads=12, num_kv_heads=4, head_width=64, ff_width=2048),
        train=TrainConfig(num_steps=800),
        optim=OptimConfig(learning_rate=6e-4, weight_decay=0.1),
    )
    made = smaller(config, 0.5, 0.25)
    shape = made.model
    assert (shape.num_layers, shape.width, shape.num_heads, shape.num_kv_heads) == (6, 384, 6, 2)
    assert (shape.head_width, shape.ff_width, made.train.num_steps) == (64, 1024, 200)
    assert made.train.batch_tokens == config.train.batch_tokens
    assert made.optim.learning_rate == pytest.approx(1.2e-3)
    decay = [c.optim.learning_rate * c.optim.weight_decay * c.train.num_steps for c in (made, config)]
    assert decay[0] == pytest.approx(decay[1])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, 2.0])
def test_smaller_refuses_fractions_outside_0_to_1(fraction: float) -> None:
    with pytest.raises(ValueError, match="give a fraction between 0 and 1"):
        smaller(PretrainConfig(), fraction, 0.5)
    with pytest.raises(ValueError, match="give a fraction between 0 and 1"):
        smaller(PretrainConfig(), 0.5, fraction)


@pytest.mark.parametrize("sizes", [(0.3, 0.6), (0.5, 0.51, 0.52)])
def test_study_refuses_too_few_sizes_also_after_rounding(
    sizes: tuple[float, ...],
) -> None:
    with pytest.raises(ValueError, match="take at least 3 sizes and 3 budgets"):
        study(make_recipe("tiny"), dag(make_recipe("tiny")), sizes)


def test_study_refuses_an_open_weights_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_hugging_face(ModelConfig())))
    with pytest.raises(ValueError, match="models that are trained from random weights"):
        recipe = make_recipe("tiny", base_model=str(tmp_path))
        study(recipe, dag(recipe))


def test_study_is_nine_runs_and_a_forecast_without_the_target() -> None:
    planned = study(make_recipe("tiny"), dag(make_recipe("tiny")))
    assert len({step.fingerprint for step in planned.runs.values()}) == len(SIZES) * len(BUDGETS)
    assert {step.inputs["tokens"].fingerprint for step in planned.runs.values()} == {
        planned.report.inputs["target"].inputs["tokens"].fingerprint
    }
    assert list(planned.forecast.inputs.values()) == list(planned.runs.values())
    assert planned.forecast.config == planned.report.config


class RecordingReporter(Reporter):
    def __init__(self) -> None:
        self.finishes: list[tuple[str, bool]] = []
        self.pages: dict[str, str] = {}

    def markdown(self, stage: str, name: str, text: str, description: str) -> None:
        self.pages[f"{stage}/{name}"] = text

    def finished(self, step: Step[Any], manifest: Manifest, is_skipped: bool) -> None:
        self.finishes.append((step.stage, is_skipped))


def train_here(module: str, run_file: Path, **_: Any) -> None:
    """What the launcher does in a separate process, which takes longer to start than these runs take."""
    train(TrainRun.model_validate_json(run_file.read_text()), run_file.parent / "checkpoints", threading.Event())
    run_file.with_suffix(".log").touch()


class Studied(NamedTuple):
    """What a study of runs of 1 to 8 steps left, after its forecast alone and after all of it."""

    planned: Study
    store: Store
    summaries: list[Summary]
    reporters: list[RecordingReporter]
    asked: list[str]  # of the pipeline


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Studied:
    store = Store(str(tmp_path_factory.mktemp("study") / "store"))
    tokens, tokenizer = write_tokens(store)
    config = PretrainConfig(
        model=ModelShape(num_layers=3, width=48, num_heads=6, num_kv_heads=6, head_width=8, ff_width=96),
        train=TrainConfig(num_steps=8, batch_tokens=64, sequence_tokens=32, eval_sequences=8),
    )
    recipe = Recipe(pretrain=config)
    base = pretrain(tokens, tokenizer, config)
    steps = dag(recipe)._replace(tokenize=tokens, tokenizer=tokenizer, pretrain=base)
    asked: list[str] = []

    def pipeline(recipe: str, until: str = "", only: str = "", **_: Any) -> dict[str, Summary]:
        """The data is there already."""
        asked.append(until or only)
        if only:
            execute(base, store)
        made = {"tokenize": tokens, "tokenizer": tokenizer, "pretrain": base}
        return {name: {"artifact": step.id} for name, step in made.items()}

    with (
        pytest.MonkeyPatch.context() as patch,
        server_for_commands(tmp_path_factory.mktemp("server")) as url,
        temporary_settings({PREFECT_API_URL: url}),
    ):
        patch.setenv("CRAWL2CHAT_STORE", store.url)
        patch.setattr("flows.scaling.make_recipe", lambda *_, **__: recipe)
        patch.setattr("flows.scaling.dag", lambda _: steps)
        patch.setattr("flows.scaling.pipeline", pipeline)
        patch.setattr("tasks.training.launch", train_here)
        # Runs of a few steps follow no law, and each of the 400 fits of the default then takes hundreds of evaluations.
        patch.setattr("flows.scaling.ScalingConfig", partial(ScalingConfig, num_resamples=20))
        with reporting(first := RecordingReporter()):
            forecast = scaling_study(recipe="tiny", is_checked=False, runs_deployments=False)
        with reporting(second := RecordingReporter()):
            report = scaling_study(recipe="tiny", runs_deployments=False)
        planned = study(recipe, steps)
    return Studied(planned, store, [forecast, report], [first, second], asked)


def write_tokens(store: Store) -> tuple[Step[Tokens], Step[TokenizerFile]]:
    V = write_tokenizer(store.folder("tokenizer/a"), vocab_size=320).vocab_size
    draws = np.random.default_rng(0).integers(12, V, 3000).tolist()
    for split, part in (("train", draws[:2600]), ("validation", draws[2600:])):
        path = store.folder("tokenize/b") / split / "0.arrow"
        path.parent.mkdir(parents=True)
        write_shard(path, [part[start : start + 50] for start in range(0, len(part), 50)])
    tokenizer = finish(store, TokenizerFile, "tokenizer/a")
    return finish(store, Tokens, "tokenize/b", inputs={"tokenizer": "tokenizer/a"}), tokenizer


def test_target_is_trained_after_the_forecast_and_the_rest_is_skipped(
    studied: Studied,
) -> None:
    first, second = (reporter.finishes for reporter in studied.reporters)
    assert first == [*[("pretrain", False)] * 9, ("scaling", False)]
    assert second == [*[("pretrain", True)] * 9, ("scaling", True), ("pretrain", False), ("scaling", False)]
    assert studied.asked == ["tokenize", "tokenize", "pretrain"]
    assert [summary["artifact"] for summary in studied.summaries] == [step.id for step in studied.planned[1:]]
    assert studied.store.latest("tiny", "scaling") == studied.planned.report.id


def test_target_that_is_as_good_as_the_best_run_has_no_fall_to_divide_by() -> None:
    figures = {"predicted": {"loss_nats": 2.0}, "runs": [{"loss_nats": 2.5}]}
    as_good = Trained(1, 1, 2.5, 1.0, 1.0, 1.0)
    assert compare(figures, as_good)["error"] == {"error_fraction": 2.0 / 2.5 - 1, "error_of_fall_fraction": None}


def test_report_states_the_error_of_the_prediction(studied: Studied) -> None:
    planned, store = studied.planned, studied.store
    before, after = (json.loads((store.folder(step.id) / "report.json").read_text()) for step in planned[1:])
    assert "measured" not in before
    assert {name: after[name] for name in before} == before
    predicted, measured = after["predicted"], after["measured"]
    assert (
        predicted["num_parameters"] == measured["num_parameters"] > max(run["num_parameters"] for run in after["runs"])
    )
    assert predicted["num_tokens"] == measured["num_tokens"] == 8 * 64
    loss = store.open(planned.report.inputs["target"].id, BaseModel).manifest.metrics["validation/loss_nats"]
    assert after["error"]["error_fraction"] == pytest.approx(predicted["loss_nats"] / loss - 1)


def test_report_has_a_page_and_a_plot(studied: Studied) -> None:
    folder = studied.store.folder(studied.planned.report.id)
    report = (folder / "report.md").read_text()
    assert "| Measured |" in report
    assert "![Loss by tokens and size](scaling.svg)" in report
    assert (folder / "scaling.svg").read_text().rstrip().endswith("</svg>")
    first, second = (reporter.pages["scaling/report"] for reporter in studied.reporters)
    assert "It is not trained yet" in first
    assert "data:image/svg+xml" in second


@pytest.mark.parametrize(("scatter", "is_warned"), [(0.004, False), (0.07, True)])
def test_report_warns_of_runs_that_follow_no_law(scatter: float, is_warned: bool) -> None:
    assert ("they do not follow it" in runs_section({"runs": [], "scatter_fraction": scatter})) == is_warned


def test_run_without_validation_is_named(store: Store) -> None:
    write_model(store.folder("pretrain/a"), vocab_size=320)
    run = finish(store, BaseModel, "pretrain/a", counts={"tokens": 64}, metrics={"epochs": 1.0})
    with pytest.raises(ValueError, match="pretrain/a has no validation loss"):
        execute(scaling([run], None, ScalingConfig()), store)
