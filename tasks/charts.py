"""Charts as SVG, drawn by hand: no library, no script, a few kilobytes each.

Reads and writes nothing. Colours are classes (s0, s1, ...) of the style sheet of tasks/page.py, so that a chart follows a page into dark
mode and onto paper, which a picture of matplotlib cannot. Every text is escaped by markupsafe: names of reasons and models may be a page's.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 340, 200  # of a chart in pixels: two or three fit next to each other, one on a telephone
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 34  # margins, for the labels of the axes
NUM_COLOURS = 6


class Point(NamedTuple):
    """A point of a series, with the interval of y where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Axes(NamedTuple):
    """The scales of a chart: values at the edges of the plot, and the labels at places of the x axis."""

    left: float
    right: float
    bottom: float
    top: float
    x_ticks: Mapping[float, str]
    is_share: bool = False  # of the y axis: labels in percent

    def x(self, value: float) -> float:
        """The pixel of a value of x."""
        return LEFT + (value - self.left) / ((self.right - self.left) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """The pixel of a value of y, within the plot."""
        part = (value - self.bottom) / ((self.top - self.bottom) or 1.0)
        return TOP + (1 - min(1.0, max(0.0, part))) * (HEIGHT - TOP - BOTTOM)


def xy_chart(
    title: str,
    x_label: str,
    series: Mapping[str, Sequence[Point]],
    x_ticks: Mapping[float, str] | None = None,
    *,
    is_share: bool = False,
    is_diagonal: bool = False,
) -> Markup:
    """Lines through points, with their intervals. `x_ticks`: labels by place, else round numbers. `is_diagonal`: y = x is drawn too.

    A share has the axis from 0 to 100%. Points that are no finite numbers are left out; without any point the result is empty.
    """
    finite = {name: [point for point in points if math.isfinite(point.x + point.y)] for name, points in series.items()}
    shown = [point for points in finite.values() for point in points]
    if not shown:
        return Markup("")
    axes = _axes(shown, x_ticks, is_share)
    parts = [_grid(axes)]
    if is_diagonal:
        parts.append(_line("diagonal", [(axes.x(value), axes.y(value)) for value in (axes.left, axes.right)]))
    for number, points in enumerate(finite.values()):
        parts.append(_series(axes, points, number, len(finite)))
    return _figure(title, Markup("").join(parts), x_label, list(series))


def histogram(
    title: str, edges: Sequence[float], counts: Sequence[int], low: float | None, high: float | None
) -> Markup:
    """Documents by bin, each bin equally wide, as high as the root of its number; the limits as dashed lines, what they exclude paler.

    The root, since most documents lie in a few bins and the others would be invisible.
    """
    width, height = 220, 84
    most, bin_width = max(*counts, 1), (width - 2) / max(1, len(counts))
    bars = []
    for number, count in enumerate(counts):
        tall = math.sqrt(count / most) * (height - 26)
        # A bin holds its lower edge: of what is counted (edge 0, limit 0) the first bin is what may be.
        is_above = high is not None and number > 0 and edges[number] >= high
        is_outside = is_above or (low is not None and edges[number + 1] <= low)
        label = Markup("<title>{} to {}: {}</title>").format(*map(_short, edges[number : number + 2]), f"{count:,}")
        bars.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}">{}</rect>').format(
                "bar out" if is_outside else "bar",
                f"{1 + number * bin_width:.1f}",
                f"{height - 18 - tall:.1f}",
                f"{bin_width - 0.6:.1f}",
                f"{tall:.1f}",
                label,
            )
        )
    for limit in (low, high):
        if limit is not None:
            place = 1 + bin_width * _bin_place(edges, limit)
            bars.append(_line("limit", [(place, 4), (place, height - 16)]))
    ends = ((1, "start", edges[0]), (width - 1, "end", edges[-1]))
    labels = [_text(place, height - 4, _short(value), anchor) for place, anchor, value in ends]
    heading = f"{title}: {kept}" if (kept := _limits(low, high)) else title
    return Markup('<figure class="small"><figcaption>{}</figcaption>{}</figure>').format(
        heading, _svg(heading, width, height, Markup("").join([*bars, *labels]))
    )


def _limits(low: float | None, high: float | None) -> str:
    """What is kept, in words."""
    if low is not None and high is not None:
        return f"{_short(low)} to {_short(high)}"
    if low is None and high is None:
        return ""
    return f"at most {_short(high)}" if high is not None else f"at least {_short(low or 0.0)}"


def _bin_place(edges: Sequence[float], value: float) -> float:
    """Where a value lies on an axis of equally wide bins, in bins from the left."""
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        if value <= end:
            return number + max(0.0, value - start) / ((end - start) or 1.0)
    return len(edges) - 1.0


def _axes(points: Sequence[Point], x_ticks: Mapping[float, str] | None, is_share: bool) -> Axes:
    """Scales that hold all points and intervals."""
    values = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    bottom, top = (0.0, 1.0) if is_share else (min(values), max(values))
    if bottom == top:
        bottom, top = bottom - 0.5, top + 0.5
    lines = ticks(bottom, top)
    if not is_share:
        bottom, top = min(bottom, lines[0]), max(top, lines[-1])
    if x_ticks is not None:
        return Axes(min(x_ticks) - 0.5, max(x_ticks) + 0.5, bottom, top, x_ticks, is_share)
    left, right = min(point.x for point in points), max(point.x for point in points)
    places = {place: _short(place) for place in ticks(left, right) if left <= place <= right}
    return Axes(left, right, bottom, top, places, is_share)


def ticks(low: float, high: float, num: int = 5) -> list[float]:
    """About `num` round numbers, 1, 2 or 5 times a power of ten apart, that span low to high."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / num))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= num + 0.5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _grid(axes: Axes) -> Markup:
    parts = []
    for value in ticks(axes.bottom, axes.top):
        if axes.bottom <= value <= axes.top:
            label = f"{100 * value:.0f}%" if axes.is_share else _short(value)
            parts.append(_line("grid", [(LEFT, axes.y(value)), (WIDTH - RIGHT, axes.y(value))]))
            parts.append(_text(LEFT - 5, axes.y(value) + 4, label, "end"))
    parts += [_text(axes.x(value), HEIGHT - BOTTOM + 14, label, "middle") for value, label in axes.x_ticks.items()]
    return Markup("").join(parts)


def _series(axes: Axes, points: Sequence[Point], number: int, num_series: int) -> Markup:
    """A line, and a dot with a whisker for each point where there are few."""
    colour = f"s{number % NUM_COLOURS}"
    # Intervals of several series at one place would hide each other.
    shift = 5.0 * (number - (num_series - 1) / 2) if any(point.low is not None for point in points) else 0.0
    places = [(axes.x(point.x) + shift, axes.y(point.y)) for point in points]
    parts = [_line(f"line {colour}", places)]
    for point, (x, y) in zip(points, places, strict=True):
        if point.low is not None and point.high is not None:
            parts.append(_line(f"whisker {colour}", [(x, axes.y(point.low)), (x, axes.y(point.high))]))
        if len(points) <= 30:
            parts.append(Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(colour, x, y))
    return Markup("").join(parts)


def _figure(title: str, drawing: Markup, x_label: str, names: Sequence[str]) -> Markup:
    drawing += _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, x_label, "middle")
    keys = Markup("").join(
        Markup('<span class="key"><i class="s{}"></i>{}</span>').format(number % NUM_COLOURS, name)
        for number, name in enumerate(names)
    )
    legend = Markup('<div class="legend">{}</div>').format(keys) if len(names) > 1 else Markup("")
    return Markup("<figure><figcaption>{}</figcaption>{}{}</figure>").format(
        title, _svg(f"{title}, by {x_label}", WIDTH, HEIGHT, drawing), legend
    )


def _svg(title: str, width: int, height: int, drawing: Markup) -> Markup:
    # No namespace: within HTML none is needed, and a page without an address in it can be checked for that.
    return Markup(
        '<svg role="img" viewBox="0 0 {w} {h}" width="{w}" height="{h}" aria-label="{title}">{drawing}</svg>'
    ).format(w=width, h=height, title=title, drawing=drawing)


def _line(style: str, places: Sequence[tuple[float, float]]) -> Markup:
    return Markup('<polyline class="{}" points="{}"/>').format(style, " ".join(f"{x:.1f},{y:.1f}" for x, y in places))


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _short(value: float) -> str:
    """A number in few characters: 0.15, 50, 12k."""
    return f"{value / 1000:,.0f}k" if abs(value) >= 10_000 else f"{round(value, 6):g}"
