"""Charts: round labels, nothing outside of the plot, text escaped, numbers that JSON lacks left out."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tasks.charts import HEIGHT, WIDTH, Point, histogram, ticks, xy_chart

TAGS = {"figure", "figcaption", "svg", "polyline", "circle", "rect", "text", "title", "div", "span", "i"}
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: round(value, 6))


@given(NUMBERS, NUMBERS)
def test_ticks_are_few_and_span_the_values(one: float, two: float) -> None:
    low, high = sorted((one, two))
    found = ticks(low, high)
    assert len(found) <= 8
    assert found == sorted(set(found))
    assert found[0] <= low + 1e-6 * (high - low)
    assert found[-1] >= high - 1e-6 * (high - low)


@given(
    st.lists(
        st.tuples(NUMBERS, NUMBERS, st.none() | st.floats(0, 1), st.none() | st.floats(0, 1)), min_size=1, max_size=40
    )
)
def test_xy_chart_is_well_formed_and_stays_inside(
    points: list[tuple[float, float, float | None, float | None]],
) -> None:
    chart = str(xy_chart("t", "x", {"a": [Point(*point) for point in points]}))
    etree.fromstring(chart)
    for places in re.findall(r'points="([^"]*)"', chart):
        for place in places.split():
            x, y = map(float, place.split(","))
            assert -20 <= x <= WIDTH + 20
            assert 0 <= y <= HEIGHT


def test_xy_chart_leaves_out_what_is_no_number() -> None:
    chart = xy_chart("t", "x", {"a": [Point(0, math.nan), Point(1, 2.0), Point(math.inf, 1.0), Point(2, 3.0)]})
    assert chart.count("<circle") == 2
    assert xy_chart("t", "x", {"a": [Point(0, math.nan)]}) == ""


def test_xy_chart_marks_each_of_few_points_and_draws_intervals() -> None:
    points = [Point(place, 0.5, 0.4, 0.6) for place in range(3)]
    chart = xy_chart("t", "x", {"a": points, "b": points}, {0.0: "1", 1.0: "2", 2.0: "3+"}, is_share=True)
    assert chart.count("<circle") == 6
    assert chart.count('class="whisker') == 6
    assert ">100%<" in chart
    assert ">3+<" in chart


@pytest.mark.parametrize("text", ["<script>", '" onload="x', "a & b"])
def test_charts_escape_text(text: str) -> None:
    for chart in (
        xy_chart(text, text, {text: [Point(0, 1)], "b": [Point(1, 2)]}, {0.0: text}),
        histogram(text, [0, 1, 2], [1, 2], None, None),
    ):
        tree = etree.fromstring(str(chart))
        assert text in "".join(tree.itertext())
        assert {element.tag for element in tree.iter()} <= TAGS
        assert not [name for element in tree.iter() for name in element.attrib if name.startswith("on")]


@pytest.mark.parametrize(
    ("edges", "low", "high", "expected"),
    [
        ([0, 1, 2, 4], None, 0, ["bar", "bar out", "bar out"]),  # a count of at most 0
        ([0, 1, 2, 4], 2, None, ["bar out", "bar out", "bar"]),
        ([0, 1, 2, 4], 1, 2, ["bar out", "bar", "bar out"]),
        ([0, 1, 2, 4], None, None, ["bar", "bar", "bar"]),
    ],
)
def test_histogram_marks_what_the_limits_exclude(
    edges: list[float], low: float | None, high: float | None, expected: list[str]
) -> None:
    chart = histogram("n", edges, [3, 2, 1], low, high)
    assert re.findall(r'<rect class="([a-z ]+)"', chart) == expected
    assert chart.count('class="limit"') == (low is not None) + (high is not None)
