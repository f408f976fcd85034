"""Two runs compared: their settings, their funnels, and every figure with an interval and a verdict.

Reads the figures of report cards (report.json), of one run or of several that differ in their seeds; writes nothing. A difference counts
only where it is larger than the noise:

- several seeds on both sides: Welch's t interval of the difference of the means (Welch 1947), which has the noise of training in it;
- several on one side: the t interval of a single run around the mean of the others;
- one run each: for shares Newcombe's interval (Newcombe 1998, method 10), made of both Wilson intervals. It has the noise of the questions
  alone, not that of training: with another seed a difference may vanish. The questions are the same for both, which makes it too wide;
- several seeds that all score the same show no noise, but may have some: shares are compared as one run each;
- no interval (a loss of one run each, or of equal ones): the verdict says that the noise is unknown.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from model.errors import UserError
from tasks.evaluate.measures import (
    LOWER_IS_BETTER,
    NEUTRAL_SECTIONS,
    Measures,
    Value,
    base_measures,
    chat_measures,
    cost_measures,
    document_measures,
    filter_measures,
    reward_measures,
    value_of,
)
from tasks.markdown import Figures, name, one_line, percent, table

SECTIONS: dict[str, Callable[[Figures], Measures]] = {
    "Documents": document_measures,
    "Filters": filter_measures,
    "Base model": base_measures,
    "Chat models": chat_measures,
    "Reward model and RLHF": reward_measures,
    "Cost": cost_measures,
}
EQUAL, NOISE, UNKNOWN = "equal", "within noise", "noise unknown"
LEVEL = 0.975  # of the t distribution: intervals of 95%


class Side(NamedTuple):
    """One side of a comparison: its name, and the figures of its runs."""

    name: str
    runs: Sequence[Figures]


class Row(NamedTuple):
    """One figure of both sides: values by run, the interval of the difference b - a or None, and a verdict."""

    section: str
    measure: str
    model: str
    a: Sequence[Value]
    b: Sequence[Value]
    difference: float
    interval: tuple[float, float] | None
    verdict: str


def compare_rows(a: Side, b: Side) -> list[Row]:
    """A row for each figure that all runs of both sides have. Raises UserError where a run is no report card."""
    rows = []
    for section, measures_of in SECTIONS.items():
        sides = [[_measured(measures_of, side.name, run) for run in side.runs] for side in (a, b)]
        first, *others = [*sides[0], *sides[1]]
        for measure, by_model in first.items():
            for model in by_model:
                if all(model in run.get(measure, {}) for run in others):
                    values = [[run[measure][model] for run in side] for side in sides]
                    rows.append(_row(section, measure, model, values[0], values[1]))
    return rows


def _measured(measures_of: Callable[[Figures], Measures], side: str, run: Figures) -> Measures:
    try:
        return measures_of(run)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise UserError(
            f"{side} is no report card of `crawl2chat run`: {type(error).__name__}: {error}: give a report.json"
        ) from None


def _row(section: str, measure: str, model: str, a: Sequence[Value], b: Sequence[Value]) -> Row:
    interval = difference_interval(a, b)
    # Rounded: a share that one card has as a number and the other as counts differs in its last digits.
    difference = round(statistics.fmean(map(value_of, b)) - statistics.fmean(map(value_of, a)), 7)
    better = 0 if section in NEUTRAL_SECTIONS else -1 if measure in LOWER_IS_BETTER else 1
    return Row(section, measure, model, a, b, difference, interval, verdict(difference, interval, better))


def difference_interval(a: Sequence[Value], b: Sequence[Value]) -> tuple[float, float] | None:
    """The 95% interval of the difference b - a, see the module's head; None where nothing is known of the noise."""
    from scipy.stats import t

    one, two = [value_of(value) for value in a], [value_of(value) for value in b]
    difference = statistics.fmean(two) - statistics.fmean(one)
    if len(one) > 1 and len(two) > 1:
        error, freedom = _welch(one, two)
    elif len(one) > 1 or len(two) > 1:
        many = one if len(one) > 1 else two
        error, freedom = statistics.stdev(many) * math.sqrt(1 + 1 / len(many)), len(many) - 1
    else:
        error, freedom = 0.0, 1
    if error:
        half = float(t.ppf(LEVEL, freedom)) * error
        return difference - half, difference + half
    if isinstance(a[0], dict) and isinstance(b[0], dict):
        return _newcombe(a[0], b[0])
    # Seeds that all give one number on both sides are equal; that much is known.
    return (0.0, 0.0) if not difference and max(len(one), len(two)) > 1 else None


def _welch(one: Sequence[float], two: Sequence[float]) -> tuple[float, float]:
    """The standard error of the difference of two means, and its degrees of freedom (Welch and Satterthwaite)."""
    parts = [statistics.variance(values) / len(values) for values in (one, two)]
    total = sum(parts)
    spread = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (one, two), strict=True))
    return math.sqrt(total), total**2 / spread if spread else 1.0


def _newcombe(a: dict[str, Any], b: dict[str, Any]) -> tuple[float, float]:
    """The interval of the difference of two shares with their Wilson intervals."""
    difference = b["share"] - a["share"]
    down = math.hypot(b["share"] - b["low"], a["high"] - a["share"])
    up = math.hypot(b["high"] - b["share"], a["share"] - a["low"])
    return difference - down, difference + up


def verdict(difference: float, interval: tuple[float, float] | None, better: int) -> str:
    """What a difference means in words. `better`: 1 where more is better, -1 where less is, 0 where neither."""
    if difference == 0:
        return EQUAL
    words = ("less", "more") if not better else ("worse", "better")
    word = words[difference > 0] if better >= 0 else words[difference < 0]
    if interval is None:
        return f"{word}, {UNKNOWN}"
    return NOISE if interval[0] <= 0 <= interval[1] else word


def changed_settings(a: Figures, b: Figures) -> list[tuple[str, str, str]]:
    """The settings that differ: STAGE.FIELD, and both values as text; of a stage that one run lacks, all of them."""
    one, two = _flat_settings(a), _flat_settings(b)
    return [
        (field, one.get(field, "–"), two.get(field, "–"))
        for field in sorted(one.keys() | two.keys())
        if one.get(field) != two.get(field)
    ]


def _flat_settings(figures: Figures) -> dict[str, str]:
    flat: dict[str, str] = {}
    for row in figures.get("lineage", ()):
        stage = str(row["artifact"]).partition("/")[0]
        flat |= {f"{stage}.{name}": text for name, text in _flattened(row["settings"])}
        flat[f"{stage}: version"] = str(row["version"])
    return flat


def _flattened(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flattened(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, str(value)


def render_comparison(a: Side, b: Side, rows: Sequence[Row]) -> str:
    """The comparison as Markdown."""
    return f"# {heading(a, b)}\n\n" + "\n".join(
        f"## {title}\n\n{body}" for title, body in comparison_sections(a, b, rows)
    )


def heading(a: Side, b: Side) -> str:
    """The title of the comparison."""
    return f"Compared: {one_line(a.name)} (A) and {one_line(b.name)} (B)"


def comparison_sections(a: Side, b: Side, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The parts of the comparison: titles, and Markdown below them."""
    sections = [("Summary", summary(a, b, rows)), ("Settings", settings_table(a, b))]
    for section in SECTIONS:
        if chosen := [row for row in rows if row.section == section]:
            cells = [
                [_label(row), _cell(row.a, row), _cell(row.b, row), _difference(row), row.verdict] for row in chosen
            ]
            sections.append((section, table(["Measure", "A", "B", "B - A (95% interval)", "Verdict for B"], cells)))
    return sections


def summary(a: Side, b: Side, rows: Sequence[Row]) -> str:
    """How many figures are better and worse, and how many would seem so by chance."""
    decided = [row for row in rows if row.interval is not None and row.section not in NEUTRAL_SECTIONS]
    num = {word: sum(row.verdict == word for row in decided) for word in ("better", "worse")}
    runs = [f"{side} is {len(one.runs)} run{'s' if len(one.runs) > 1 else ''}" for side, one in (("A", a), ("B", b))]
    text = (
        f"{runs[0]}, {runs[1]}. Of {len(decided)} figures with an interval B is better in {num['better']} and worse in {num['worse']}; were "
        f"both the same, about {0.05 * len(decided):.0f} would seem to differ.\n"
    )
    if max(len(a.runs), len(b.runs)) == 1:
        text += "\nIntervals of single runs hold the noise of the questions alone: `crawl2chat seeds` shows that of training.\n"
    return text


def settings_table(a: Side, b: Side) -> str:
    """The settings that differ."""
    if not all(side.runs[0].get("lineage") for side in (a, b)):
        return "Not known: a card of an older version names no settings.\n"
    rows = [[name(field), one_line(one), one_line(two)] for field, one, two in changed_settings(a.runs[0], b.runs[0])]
    return table(["Setting", "A", "B"], rows) if rows else "The same.\n"


def _label(row: Row) -> str:
    return name(row.measure) + (f", {name(row.model)}" if row.model else "")


def _is_share(row: Row) -> bool:
    return (
        isinstance(row.a[0], dict)
        or isinstance(row.b[0], dict)
        or row.measure == "Expected calibration error"
        or row.section == "Chat models"
    )


def _cell(values: Sequence[Value], row: Row) -> str:
    """ "71.2%", with its interval or the seeds' standard deviation."""
    numbers, first = [value_of(value) for value in values], values[0]
    mean = percent(statistics.fmean(numbers)) if _is_share(row) else _number(statistics.fmean(numbers))
    if len(numbers) > 1:
        spread = statistics.stdev(numbers)
        return f"{mean} ± {100 * spread:.1f}" if _is_share(row) else f"{mean} ± {_number(spread)}"
    if isinstance(first, dict):
        return f"{mean} ({100 * first['low']:.1f} to {100 * first['high']:.1f})"
    return mean


def _difference(row: Row) -> str:
    shown = [row.difference, *(row.interval or ())]
    texts = [f"{100 * value:+.1f}" if _is_share(row) else f"{'+' if value >= 0 else ''}{_number(value)}" for value in shown]  # fmt: skip
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if row.interval else texts[0]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
