"""What a model knows by how often the web states it, as a table and a plot.

Reads what was asked; writes nothing. A share has Wilson's interval (tasks/shares.py) over questions: the samples of one question are not
independent, so a question counts as known or not.
"""

from collections.abc import Callable, Mapping, Sequence

from tasks.markdown import Figures, table
from tasks.plots import picture
from tasks.probe.ask import Probed
from tasks.shares import share, shown

BOUNDS = (2, 5, 15, 40, 100)  # lower bounds of the classes of mentions after the first, between those of the sample web


def knowledge_by_mentions(models: Mapping[str, Sequence[Probed]], is_known: Callable[[Probed], bool]) -> list[Figures]:
    """Known questions of each model by class of mentions, rare ones first. Questions without an answer or a count are left out."""
    rows = []
    for low, high in zip((1, *BOUNDS), (*BOUNDS, None), strict=True):
        counts = {}
        for name, probed in models.items():
            chosen = [
                item
                for item in probed
                if item.question.split != "unknown"
                and item.question.num_mentions is not None
                and item.question.num_mentions >= low
                and (high is None or item.question.num_mentions < high)
            ]
            if chosen:
                counts[name] = share([is_known(item) for item in chosen])
        if counts:
            rows.append({"mentions": _class_name(low, high), "models": counts})
    return rows


def _class_name(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if high == low + 1 else f"{low} to {high - 1}"


def render(rows: Sequence[Figures], known_fraction: float) -> str:
    """A page of Markdown: the table and the plot."""
    names = list(dict.fromkeys(name for row in rows for name in row["models"]))
    cells = [[row["mentions"], *(shown(row["models"].get(name)) for name in names)] for row in rows]
    title = f"# Knowledge by mentions\n\nKnown: at least {known_fraction:.0%} of the sampled answers are right.\n\n"
    return title + table(["Mentions", *names], cells) + "\n" + plot(rows, names) + "\n"


def plot(rows: Sequence[Figures], names: Sequence[str]) -> str:
    """The share of known questions by class of mentions, with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for name in names:
        found = [(row["mentions"], row["models"][name]) for row in rows if name in row["models"]]
        shares = [known["share"] for _, known in found]
        # Distances from the share, which rounding may leave a little below 0.
        below = [max(0.0, known["share"] - known["low"]) for _, known in found]
        above = [max(0.0, known["high"] - known["share"]) for _, known in found]
        axes.errorbar([label for label, _ in found], shares, yerr=(below, above), label=name, marker="o", capsize=3)
    axes.set_xlabel("mentions on the web")
    axes.set_ylabel("known")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    if names:
        axes.legend()
    return picture(figure, "known questions by mentions")
