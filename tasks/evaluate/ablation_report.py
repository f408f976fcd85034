"""The report of an ablation: which arm is best, whether its order is the same with every seed, and what each arm keeps and costs.

Reads figures (plain JSON values, see ablation.py), writes nothing. The order of arms is by the mean over all texts of bits per byte, each
text weighing the same; without a text by the mean accuracy of the tasks. A difference between two arms is one where Welch's interval
over the seeds excludes 0 (compare.py).
"""

import itertools
import statistics
from collections.abc import Sequence

from markupsafe import Markup

from tasks.charts import Point, xy_chart
from tasks.evaluate.compare import NOISE, UNKNOWN, difference_interval
from tasks.evaluate.pictures import funnel_picture
from tasks.markdown import Figures, name, one_line, percent, table
from tasks.page import Section, charts, from_markdown, page

TEXT = "text"  # the kind of task that is measured in bits per byte


def render_ablation(figures: Figures) -> str:
    """The report as Markdown."""
    sections = "\n".join(f"## {title}\n\n{body}" for title, body in ablation_sections(figures))
    return f"# Ablation of {one_line(figures['setting'])}\n\n{sections}"


def render_ablation_page(figures: Figures) -> str:
    """The report as a page, with the funnel of each arm and the scores of each seed."""
    pictures = {"Arms": _funnels(figures), "Scores": _charts(figures)}
    sections = [
        Section(title, pictures.get(title, Markup("")) + from_markdown(body))
        for title, body in ablation_sections(figures)
    ]
    return page(f"Ablation of {figures['setting']}", Markup(""), sections)


def ablation_sections(figures: Figures) -> list[tuple[str, str]]:
    """The parts of the report: titles, and Markdown below them."""
    return [("Verdict", verdict(figures)), ("Arms", arms_table(figures)), ("Scores", scores_table(figures))]


def verdict(figures: Figures) -> str:
    """The order of arms, whether every seed gives it, and which neighbours differ by no more than noise."""
    values = primary_scores(figures)
    is_text = any(task["kind"] == TEXT for task in figures["tasks"])
    num = sum((task["kind"] == TEXT) == is_text for task in figures["tasks"])
    names = [f"`{arm['value']}`" for arm in figures["arms"]]
    order = order_of([statistics.fmean(arm) for arm in values], is_text)
    what = (
        f"mean bits per byte of {num} text{'s' if num > 1 else ''}"
        if is_text
        else f"mean accuracy on {num} task{'s' if num > 1 else ''}"
    )
    shown = ", ".join(f"{names[arm]} ({_score(statistics.fmean(values[arm]), is_text)})" for arm in order)
    by_seed = [order_of([arm[place] for arm in values], is_text) for place in range(len(figures["seeds"]))]
    if len(by_seed) == 1:
        stability = "One seed: how far that is chance is unknown."
    elif all(one == order for one in by_seed):
        stability = f"The order of arms is stable: the same with each of {len(by_seed)} seeds."
    else:
        each = "; ".join(f"seed {seed}: {', '.join(names[arm] for arm in one)}" for seed, one in zip(figures["seeds"], by_seed, strict=True))  # fmt: skip
        stability = f"The order of arms is not stable over {len(by_seed)} seeds: {each}."
    return f"By {what}, the best first: {shown}. {stability}{_noise(values, order, names)}\n"


def _noise(values: Sequence[Sequence[float]], order: Sequence[int], names: Sequence[str]) -> str:
    """A sentence about neighbours of the order that differ by no more than the seeds do."""
    close = []
    for one, two in itertools.pairwise(order):
        interval = difference_interval(values[one], values[two])
        if interval and interval[0] <= 0 <= interval[1]:
            close.append(f"{names[one]} and {names[two]}")
    return f" Within the noise of the seeds: {', '.join(close)}." if close else ""


def primary_scores(figures: Figures) -> list[list[float]]:
    """By arm and seed the figure that orders the arms."""
    is_text = any(task["kind"] == TEXT for task in figures["tasks"])
    chosen = [task for task in figures["tasks"] if (task["kind"] == TEXT) == is_text]
    return [
        [statistics.fmean(_value(task["arms"][arm][seed]) for task in chosen) for seed in range(len(figures["seeds"]))]
        for arm in range(len(figures["arms"]))
    ]


def order_of(values: Sequence[float], is_text: bool) -> list[int]:
    """The arms from best to worst; of equal ones the first comes first."""
    return sorted(range(len(values)), key=lambda arm: values[arm] if is_text else -values[arm])


def arms_table(figures: Figures) -> str:
    """What each arm kept, how often it was repeated in training, and its cost."""
    rows = []
    for arm in figures["arms"]:
        first, last = arm["documents"][0], arm["documents"][-1]
        share = percent(last["documents"] / max(1, first["documents_in"]))
        milliseconds = 1000 * arm["ingest_seconds"] / max(1, first["documents_in"])
        rows.append(
            [
                f"`{one_line(arm['value'])}`",
                f"{first['documents_in']:,}",
                f"{last['documents']:,} ({share})",
                f"{last['text_bytes'] / 1e6:.2f}",
                f"{arm['tokens'][0]:,}",
                f"{arm['epochs']:.2f}",
                f"{milliseconds:.1f}",
                f"{arm['data_seconds']:.0f}",
                f"{arm['train_seconds']:.0f}",
            ]
        )
    headings = [
        *("Arm", "Pages", "Documents kept", "MB kept", "Tokens trained", "Epochs"),
        *("Ingest, ms per page", "Data, s", "Training, s"),
    ]
    return table(headings, rows)


def scores_table(figures: Figures) -> str:
    """Every task: mean over seeds with the standard deviation, the interval of the first seed's score, and the best arm."""
    names = [f"`{one_line(arm['value'])}`" for arm in figures["arms"]]
    rows = []
    for task in figures["tasks"]:
        is_text = task["kind"] == TEXT
        values = [[_value(score) for score in arm] for arm in task["arms"]]
        order = order_of([statistics.fmean(arm) for arm in values], is_text)
        best = _best(names[order[0]], values[order[0]], values[order[1]])
        cells = [_cell(values[arm], task["arms"][arm][0], is_text) for arm in range(len(names))]
        unit = "bits per byte" if is_text else "accuracy"
        rows.append([f"{name(task['task'])}, {unit}", f"{task['num']:,}", *cells, best])
    if len(figures["seeds"]) > 1:
        note = "Mean over the seeds ± their standard deviation; in brackets the 95% interval of the first seed's score over records.\n\n"
    else:
        note = "The score of one seed; in brackets its 95% interval over records.\n\n"
    sources = "".join(f"\n- {name(task['task'])}: {one_line(task['licence'])}, sha256 `{task['sha256'][:16]}`" for task in figures["tasks"])  # fmt: skip
    return note + table(["Task", "Records", *names, "Best"], rows) + sources + "\n"


def _best(first: str, one: Sequence[float], two: Sequence[float]) -> str:
    """The name of the first arm if it differs from the second one, else why it is not called the best. `one`, `two`: scores by seed."""
    if len(one) == 1:
        return "one seed"
    interval = difference_interval(one, two)
    if interval is None:
        return UNKNOWN
    return NOISE if interval[0] <= 0 <= interval[1] else first


def _cell(values: Sequence[float], first: Figures, is_text: bool) -> str:
    spread = f" ± {_score(statistics.stdev(values), is_text)}" if len(values) > 1 else ""
    low, high = (_score(first[side], is_text) for side in ("low", "high"))
    return f"{_score(statistics.fmean(values), is_text)}{spread} ({low} to {high})"


def _value(score: Figures) -> float:
    return float(score["bits_per_byte"] if "bits_per_byte" in score else score["share"])


def _score(value: float, is_text: bool) -> str:
    return f"{value:.4f}" if is_text else percent(value)


def _funnels(figures: Figures) -> Markup:
    return Markup("").join(Markup("<h3>{}</h3>{}").format(arm["value"], funnel_picture(arm)) for arm in figures["arms"])


def _charts(figures: Figures) -> Markup:
    """The scores of each seed by arm, a chart for each task; a line for each seed: lines that do not cross are a stable order."""
    ticks = {float(place): str(arm["value"])[:14] for place, arm in enumerate(figures["arms"])}
    pictures = []
    for task in figures["tasks"]:
        series = {
            f"seed {seed}": [Point(place, _value(arm[number])) for place, arm in enumerate(task["arms"])]
            for number, seed in enumerate(figures["seeds"])
        }
        unit = "bits per byte" if task["kind"] == TEXT else "accuracy"
        pictures.append(xy_chart(f"{task['task']}: {unit}", figures["setting"], series, ticks))
    return charts(pictures)
