"""The report card as one HTML file: the sections of the Markdown card, with pictures, samples of dropped documents and the lineage.

Reads figures (plain JSON values), writes nothing. Each table is the Markdown card's (report_card.py), so that no number has two sources.
"""

import json
from collections.abc import Callable

from markupsafe import Markup

from tasks.evaluate import report_card as card
from tasks.evaluate.honesty import honesty_section
from tasks.evaluate.pictures import (
    curve_pictures,
    funnel_picture,
    histogram_pictures,
    honesty_pictures,
    mentions_pictures,
)
from tasks.markdown import Figures
from tasks.page import Section, folded, from_markdown, page, paragraph

Build = Callable[[Figures], str]
PICTURES: dict[Build, Callable[[Figures], Markup]] = {
    card.documents_section: funnel_picture,
    card.attributes_section: histogram_pictures,
    card.facts_section: mentions_pictures,
    honesty_section: honesty_pictures,
}
# Long tables whose picture says most of it.
FOLDED: frozenset[Build] = frozenset({card.dropped_section, card.attributes_section, honesty_section})


def render_page(figures: Figures, title: str = "Report card") -> str:
    """The report card as a page."""
    sections = [section for build in card.SECTIONS if (section := _section(build, figures))]
    if curves := curve_pictures(figures):
        sections.insert(-1, Section("Training curves", curves))  # before the cost
    if figures.get("lineage"):
        sections.append(Section("Lineage", lineage_body(figures)))
    return page(title, Markup(""), sections)


def _section(build: Build, figures: Figures) -> Section | None:
    """A section of the Markdown card with its picture in front of its table; None where the run has no figures for it."""
    text = build(figures)
    if not text:
        return None
    heading, _, rest = text.partition("\n")
    body = from_markdown(rest)
    if build in FOLDED:
        body = folded("all figures", body)
    picture = PICTURES[build](figures) if build in PICTURES else Markup("")
    return Section(heading.removeprefix("## "), picture + body)


def lineage_body(figures: Figures) -> Markup:
    """Every artifact with what it was made of, when, by which version, and its settings."""
    rows = Markup("").join(
        Markup("<tr><td>{}<br><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n").format(
            row["kind"],
            row["artifact"],
            row["version"],
            row["started"][:16].replace("T", " "),
            _inputs(row["inputs"]),
            folded(
                "settings", Markup("<pre>{}</pre>").format(json.dumps(row["settings"], indent=1, ensure_ascii=False))
            )
            if row["settings"]
            else "",
        )
        for row in figures["lineage"]
    )
    commits = sorted({row["commit"][:12] for row in figures["lineage"] if row["commit"]})
    note = "An artifact is named by a fingerprint of its stage, version, settings and inputs. "
    table = Markup(
        '<div class="wide"><table><thead><tr><th>Artifact</th><th>Version</th><th>Made</th><th>Of</th><th>With</th></tr></thead>'
        "<tbody>\n{}</tbody></table></div>"
    ).format(rows)
    return paragraph(note + (f"Commit of the code: {', '.join(commits)}." if commits else "")) + table


def _inputs(inputs: Figures) -> Markup:
    return Markup("<br>").join(
        Markup("{} <code>{}</code>").format(role, artifact_id) for role, artifact_id in inputs.items()
    )
