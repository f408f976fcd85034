"""A comparison of two runs as one HTML file: its tables, both funnels, and the curves of both trainings in one chart.

Reads the same rows as the Markdown (compare.py), writes nothing.
"""

from collections.abc import Sequence

from markupsafe import Markup

from tasks.charts import Point, xy_chart
from tasks.evaluate.compare import Row, Side, comparison_sections, heading
from tasks.evaluate.pictures import funnel_picture
from tasks.page import Section, charts, from_markdown, page

COLOURS = {"better": "good", "worse": "bad"}


def render_comparison_page(a: Side, b: Side, rows: Sequence[Row]) -> str:
    """The comparison as a page."""
    sections = []
    for title, body in comparison_sections(a, b, rows):
        picture = funnel_pictures(a, b) if title == "Documents" else Markup("")
        sections.append(Section(title, picture + coloured(from_markdown(body))))
    if curves := shared_curves(a, b):
        sections.append(Section("Training curves", curves))
    return page(heading(a, b).replace("\\", ""), Markup(""), sections)


def coloured(body: Markup) -> Markup:
    """Verdicts in colour: the cells that say better or worse, and nothing else."""
    text = str(body)
    for word, style in COLOURS.items():
        text = text.replace(f'">{word}</td>', f'"><span class="{style}">{word}</span></td>')
    return Markup(text)  # noqa: S704 (HTML of from_markdown, which escapes)


def funnel_pictures(a: Side, b: Side) -> Markup:
    """The funnel of the first run of each side."""
    return Markup("").join(
        Markup("<h3>{}</h3>{}").format(letter, funnel_picture(side.runs[0])) for letter, side in (("A", a), ("B", b))
    )


def shared_curves(a: Side, b: Side) -> Markup:
    """Curves that both have, of the first run of each side: the validation where there is one, else the training."""
    found: dict[str, dict[str, list[Point]]] = {}
    for letter, side in (("A", a), ("B", b)):
        for curve in side.runs[0].get("curves", ()):
            metric, points = list(curve["series"].items())[-1]
            title = (
                f"{curve['stage']}: {curve['title']} ({'held out' if metric.startswith('validation/') else 'training'})"
            )
            found.setdefault(title, {})[letter] = [Point(*point) for point in points]
    both = {title: series for title, series in found.items() if len(series) == 2 and max(map(len, series.values())) > 1}
    return charts([xy_chart(title, "step", series) for title, series in both.items()])
