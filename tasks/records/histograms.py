"""Overview of documents: a histogram of each attribute, the most frequent hosts and languages.

Sums are taken by shard and then over all shards, so that memory does not grow with the documents. Writes
histograms.json: {"histograms": {measure: {"edges", "counts", "min", "max"}}, "hosts": [[host, documents in, kept]],
"languages": [[language, documents in, kept]]}. A bin begins with its lower edge; the last one also holds what is above.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.artifacts.files import write_atomically
from tasks.execution.context import StageContext
from tasks.execution.reporter import Row
from tasks.plots import picture
from tasks.records.documents import Document
from tasks.web.urls import split_address

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_SHOWN = 20  # hosts and languages
# A host that is spread thinly over all shards is counted too low, or missed: the price of bounded memory. The NUM_SHOWN
# commonest are far from that limit.
SHARD_HOSTS = 200  # of a shard, the commonest
MAX_HOSTS = 100_000  # of all shards: above, those that came least often are removed
PLOT_COLUMNS = 4
BARS = "·▁▂▃▄▅▆▇█"  # an empty bin is a dot: Markdown drops leading blanks, and the bars would move to the left
Limits = Mapping[str, tuple[float, float]]


class Overview:
    """Sums over documents. `limits`: the least and the most that each measure may be."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.edges = {name: edges(name, *limits[name]) for name in limits}
        self.histograms = {name: np.zeros(len(found) - 1, np.int64) for name, found in self.edges.items()}
        self.nums: dict[str, dict[str, tuple[int, int]]] = {"hosts": {}, "languages": {}}  # documents in, and kept

    def add(self, documents: Iterable[Document], measures: pa.RecordBatch, is_kept: Iterable[bool]) -> None:
        """Count documents, `measures` of theirs, and which of them are kept."""
        for name, found in self.edges.items():
            values = measures[name].drop_null().to_numpy()
            # Clipped to the last edge, which belongs to the last bin: NumPy leaves out what lies above all edges.
            self.histograms[name] += np.histogram(np.minimum(values, found[-1]), found)[0]
        for document, language, kept in zip(documents, measures["language"].to_pylist(), is_kept, strict=True):
            parts = split_address(document["url"])
            for kind, value in (("hosts", parts and parts.hostname), ("languages", language)):
                if value:
                    self._count(kind, value, 1, int(kept))

    def _count(self, kind: str, name: str, num_in: int, num_kept: int) -> None:
        before = self.nums[kind].get(name, (0, 0))
        self.nums[kind][name] = before[0] + num_in, before[1] + num_kept

    def save(self, path: Path) -> None:
        """Write the sums of a shard, of the hosts only the commonest."""
        sums = {
            "histograms": {name: counts.tolist() for name, counts in self.histograms.items()},
            **{kind: self.ranked(kind, SHARD_HOSTS) for kind in self.nums},
        }
        write_atomically(path, json.dumps(sums))

    def load(self, path: Path) -> None:
        """Add the sums of a shard."""
        sums = json.loads(path.read_text(encoding="utf-8"))
        for name, counts in sums["histograms"].items():
            self.histograms[name] += np.array(counts)
        for kind, nums in self.nums.items():
            for entry in sums[kind]:
                self._count(kind, *entry)
            if len(nums) > MAX_HOSTS:
                self.nums[kind] = {name: (num, kept) for name, num, kept in self.ranked(kind, MAX_HOSTS // 10)}

    def ranked(self, kind: str, num: int) -> list[tuple[str, int, int]]:
        """The commonest names, with documents in and kept."""
        # By name among equals: the order of a dict depends on which shard came first.
        ranked = sorted(self.nums[kind].items(), key=lambda entry: (-entry[1][0], entry[0]))
        return [(name, num_in, num_kept) for name, (num_in, num_kept) in ranked[:num]]

    def figures(self) -> dict[str, Any]:
        """All of it as JSON values."""
        histograms = {}
        for name, counts in self.histograms.items():
            # JSON has no infinity: null says that there is no limit on that side.
            low, high = (round(limit, 6) if math.isfinite(limit) else None for limit in self.limits[name])
            if counts.any():
                histograms[name] = {"edges": self.edges[name], "counts": counts.tolist(), "min": low, "max": high}
        return {"histograms": histograms, **{kind: self.ranked(kind, NUM_SHOWN) for kind in self.nums}}


def edges(name: str, low: float, high: float) -> list[float]:
    """Where the bins of a measure end: of a fraction, bins fine enough to see what lies around a small limit."""
    if name.endswith("_length"):
        return [float(length) for length in range(21)]
    if not name.endswith(("_fraction", "_score")):
        return [0.0, *(2.0**power for power in range(20))]
    # Gopher's and FineWeb's limits are as small as 0.01 (fraction of lines or characters): with twenty bins from 0 to 1
    # all that matters would lie in the first.
    limit = high if math.isfinite(high) else low
    top = 2 * limit if 0 < limit < 0.5 else 1.0
    return [round(top * part / 20, 6) for part in range(21)] + ([1.0] if top < 1 else [])


def report_histograms(ctx: StageContext, overview: Overview) -> None:
    """Publish the sums over all shards, and write histograms.json."""
    for path in sorted((ctx.state / "overview").glob("*.json")):
        overview.load(path)
    figures = overview.figures()
    write_atomically(ctx.folder / "histograms.json", json.dumps(figures, ensure_ascii=False))
    if figures["histograms"]:
        page = histogram_page(figures["histograms"])
        ctx.markdown("histograms", page, "Documents by each attribute; dashed: the least and the most that is kept")
    for kind in ("hosts", "languages"):
        rows = [{kind.removesuffix("s"): name, "documents": num, "kept": kept} for name, num, kept in figures[kind]]
        ctx.table(kind, rows, f"The commonest {kind}: documents measured, and kept")


def histogram_row(name: str, histogram: Mapping[str, Any]) -> Row:
    """A histogram as one line of bars, high as the root of how many documents they stand for."""
    counts = histogram["counts"]
    most = max(*counts, 1)
    # The root, since most documents lie in a few bins and the others would be invisible; the ceiling, so that one
    # document shows.
    bars = "".join(BARS[math.ceil(math.sqrt(count / most) * (len(BARS) - 1))] for count in counts)
    limits = {side: histogram[side] for side in ("min", "max")}
    return {"measure": name, **limits, "last edge": histogram["edges"][-1], "documents": bars}


def histogram_page(histograms: Mapping[str, Mapping[str, Any]]) -> str:
    """Every histogram as a small picture, in Markdown: the root of the documents by bin, the limits as dashed lines.

    One picture for all: as bars of text in a table, leading blanks are swallowed, and a score near 1 looks near 0.
    """
    # Here, since the import takes more than a second, which most stages need not wait for. `Figure` without pyplot has
    # no global state and needs no display.
    from matplotlib.figure import Figure

    num_rows = math.ceil(len(histograms) / PLOT_COLUMNS)
    figure = Figure(figsize=(3.2 * PLOT_COLUMNS, 1.2 * num_rows))
    # All in one pair of axes, a unit square for each: a pair for each, with ticks and a layout, takes six times as long.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PLOT_COLUMNS), ylim=(num_rows, 0))
    axes.set_axis_off()
    for place, (name, histogram) in enumerate(histograms.items()):
        row, column = divmod(place, PLOT_COLUMNS)
        draw_histogram(axes, column, row, name, histogram)
    return picture(figure, "documents by attribute")


def draw_histogram(axes: "Axes", left: int, top: int, name: str, histogram: Mapping[str, Any]) -> None:
    """Draw one histogram into the unit square whose corner is at (`left`, `top`); y grows downwards."""
    start, end, bottom, height = left + 0.05, left + 0.95, top + 0.8, 0.55
    edges, bars = histogram["edges"], np.sqrt(histogram["counts"])
    # Equal widths on the page, since edges are often powers of two. The dashed limits are moved to that scale by
    # interpolation.
    places = np.linspace(start, end, len(edges))
    axes.stairs(bottom - height * bars / max(bars.max(), 1), places, baseline=bottom, fill=True, color="C0")
    for limit in (histogram["min"], histogram["max"]):
        if limit is not None:
            place = float(np.interp(limit, edges, places))
            axes.plot([place, place], [bottom - height, bottom], color="C1", ls="--")
    axes.plot([start, end], [bottom, bottom], color="black", lw=0.8)
    axes.text(left + 0.5, bottom - height - 0.04, name, ha="center", va="bottom", fontsize=8)
    axes.text(start, bottom + 0.03, f"{edges[0]:g}", ha="left", va="top", fontsize=7)
    axes.text(end, bottom + 0.03, f"{edges[-1]:g}", ha="right", va="top", fontsize=7)
