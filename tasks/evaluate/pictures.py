"""The pictures of the report card's page, each made of the figures that its section of the Markdown card shows.

Reads figures (plain JSON values), writes nothing. A report of an older version lacks some figures: its pictures are then left out.
"""

from collections.abc import Sequence

from markupsafe import Markup

from tasks.charts import NUM_COLOURS, Point, histogram, xy_chart
from tasks.evaluate.report_card import MODEL_NAMES
from tasks.markdown import Figures, percent
from tasks.page import charts, folded

GROUPS = {"strangers": "strangers refused", "taught": "taught facts refused", "heldout": "held-out facts refused"}


def funnel_picture(figures: Figures) -> Markup:
    """A bar for each stage, as long as the documents that ingest read: kept, dropped by reason, and gone before."""
    most = max(1, figures["documents"][0]["documents_in"])
    return Markup("").join(_funnel_stage(stage, most, figures) for stage in figures["documents"])


def _funnel_stage(stage: Figures, most: int, figures: Figures) -> Markup:
    families = _families(stage["dropped"])
    bar = Markup('<b class="kept" style="width:{:.3f}%" title="kept: {}"></b>').format(
        100 * stage["documents"] / most, f"{stage['documents']:,}"
    )
    keys = Markup('<span class="key"><i class="kept"></i>kept {}</span>').format(f"{stage['documents']:,}")
    for number, (family, num) in enumerate(families.items()):
        colour = f"s{(1, 3, 4, 0, 5)[number % (NUM_COLOURS - 1)]}"  # not s2, which is the green of what is kept
        bar += Markup('<b class="{}" style="width:{:.3f}%" title="{}: {}"></b>').format(
            colour, 100 * num / most, family, f"{num:,}"
        )
        keys += Markup('<span class="key"><i class="{}"></i>{} {}</span>').format(colour, family, f"{num:,}")
    share = percent(stage["documents"] / max(1, stage["documents_in"]))
    heading = Markup("<strong>{}</strong> {} of {} documents kept, {}").format(
        stage["stage"], f"{stage['documents']:,}", f"{stage['documents_in']:,}", share
    )
    return Markup(
        '<div class="stage">{}<div class="funnel">{}</div><div class="legend">{}</div>{}</div>\n'
    ).format(heading, bar, keys, _samples(stage["stage"], figures))  # fmt: skip


def _families(dropped: Sequence[Figures]) -> dict[str, int]:
    """Documents dropped by family of reasons, the most frequent first."""
    sums: dict[str, int] = {}
    for row in dropped:
        family = row["reason"].partition("/")[0]
        sums[family] = sums.get(family, 0) + row["documents"]
    return dict(sorted(sums.items(), key=lambda entry: -entry[1]))


def _samples(stage: str, figures: Figures) -> Markup:
    """What a reader can open: a few dropped documents of every reason."""
    rows = [row for row in figures.get("samples", ()) if row["stage"] == stage]
    if not rows:
        return Markup("")
    # The address is text and no link: nobody should open a dropped page by accident.
    items = Markup("").join(
        Markup("<blockquote><p><strong>{}</strong> <code>{}</code> {}</p></blockquote>\n").format(
            row["reason"],
            row["url"],
            Markup('<br><span class="soft">{}</span>').format(row["text"]) if row["text"] else "",
        )
        for row in rows
    )
    return folded("samples of dropped documents, without personal data", items)


def histogram_pictures(figures: Figures) -> Markup:
    """A histogram of every attribute that the filters decide on, with its limits."""
    found = figures["attributes"].get("histograms", {})
    return charts(
        [
            histogram(name.replace("_", " "), one["edges"], one["counts"], one["min"], one["max"])
            for name, one in found.items()
        ]
    )


def curve_pictures(figures: Figures) -> Markup:
    """Loss, accuracy and reward by step, of every training."""
    return charts(
        [
            xy_chart(
                f"{curve['stage']}: {curve['title']}",
                "step",
                {_series_name(name): [Point(*point) for point in points] for name, points in curve["series"].items()},
                is_share="Accuracy" in curve["title"],
            )
            for curve in figures.get("curves", ())
            if max(map(len, curve["series"].values())) > 1  # of a single validation there is no course to see
        ]
    )


def _series_name(metric: str) -> str:
    return "held out" if metric.startswith("validation/") else "training"


def mentions_pictures(figures: Figures) -> Markup:
    """Accuracy by mentions with intervals, taught and held-out facts apart; rare facts stand left."""
    pictures = []
    for kind in dict.fromkeys(row["facts"] for row in figures["facts"]):
        rows = [row for row in figures["facts"] if row["facts"] == kind][::-1]
        models = dict.fromkeys(model for row in rows for model in row["accuracy"])
        series = {
            MODEL_NAMES.get(model, model): [
                _share_point(place, row["accuracy"][model])
                for place, row in enumerate(rows)
                if model in row["accuracy"]
            ]
            for model in models
        }
        ticks = {float(place): row["mentions"].replace(" or more", "+").replace(" to ", "–") for place, row in enumerate(rows)}  # fmt: skip
        pictures.append(xy_chart(f"Facts {kind}: right answers", "mentions in the training text", series, ticks, is_share=True))  # fmt: skip
    return charts(pictures)


def honesty_pictures(figures: Figures) -> Markup:
    """For each chat model what a threshold would refuse, and whether its probabilities are right."""
    pictures = []
    for model, curve in figures.get("honesty", {}).get("curve", {}).items():
        shown = MODEL_NAMES.get(model, model)
        series = {
            label: [_share_point(point["threshold"], point[group]) for point in curve if point[group]["num"]]
            for group, label in GROUPS.items()
        }
        pictures.append(xy_chart(f"{shown}: refusals", "refused below this probability", {name: points for name, points in series.items() if points}, is_share=True))  # fmt: skip
        bins = figures["honesty"].get("reliability", {}).get(model, ())
        points = [_share_point(point["probability"], point["correct"]) for point in bins]
        title = f"{shown}: calibration (right replies; dotted: as probable)"
        pictures.append(xy_chart(title, "probability of the reply", {"replies": points}, is_share=True, is_diagonal=True))  # fmt: skip
    return charts(pictures)


def _share_point(x: float, share: Figures) -> Point:
    return Point(x, share["share"], share["low"], share["high"])
