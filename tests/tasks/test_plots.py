"""Pictures in Prefect's artifacts: a single point is visible, histograms keep their place."""

import base64
import re
import xml.etree.ElementTree as ET

from tasks.records.histograms import histogram_page
from tasks.training import MAX_POINTS, curve, thinned


def svg_of(page: str) -> str:
    found = re.fullmatch(r"!\[[^\]]+\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", page)
    assert found
    return base64.b64decode(found[1]).decode()


def num_markers(svg: str) -> int:
    """The uses of a marker by the curves; ticks of the axes have theirs in groups named after them."""
    parents = list(ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"))
    lines = [group for group in parents if re.fullmatch(r"line2d_\d+", group.get("id", ""))]
    ticks = {
        use
        for group in parents
        if re.match(r"[xy]tick_", group.get("id", ""))
        for use in group.iter("{http://www.w3.org/2000/svg}use")
    }
    return len({use for group in lines for use in group.iter("{http://www.w3.org/2000/svg}use")} - ticks)


def test_curve_marks_a_single_validation_point() -> None:
    lines = [{"step": step, "train/loss_nats": 5.0 - step / 100} for step in range(100)]
    without = num_markers(svg_of(curve(lines, ["train/loss_nats"])))
    lines[99]["validation/bits_per_byte"] = 1.0
    svg = svg_of(curve(lines, ["train/loss_nats", "validation/bits_per_byte"]))
    assert num_markers(svg) >= without + 1
    assert "nan" not in svg.lower().split("</metadata>")[-1]


def test_curve_of_many_steps_is_thinned_and_keeps_its_spikes() -> None:
    points = [(float(step), 3.0 + step % 7 / 10) for step in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    points[54_322] = (54_322.0, -1.0)
    kept = thinned(points)
    assert len(kept) <= MAX_POINTS
    assert kept == sorted(set(kept) & set(points))
    assert {points[54_321], points[54_322]} <= set(kept)
    assert thinned(points[:MAX_POINTS]) == points[:MAX_POINTS]


def test_histogram_page_is_one_picture_of_all_attributes_with_their_limits() -> None:
    edges = [part / 20 for part in range(21)]
    histograms = {
        f"attribute_{number}_score": {"edges": edges, "counts": [0] * 19 + [number + 1], "min": 0.65, "max": None}
        for number in range(39)
    }
    svg = svg_of(histogram_page(histograms))
    ET.fromstring(svg)
    assert len(svg) < 200_000
    assert svg.count("stroke-dasharray") >= 39
