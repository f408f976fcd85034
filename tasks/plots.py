"""Pictures in Markdown: an SVG in a data URI, which both UIs of Prefect draw. Reads and writes nothing."""

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def svg(figure: "Figure") -> str:
    """A figure as an SVG document; the same figure gives the same text."""
    from matplotlib import rc_context

    stream = io.StringIO()
    # Letters as text, not as outlines: a third of the size. A fixed salt of the ids and no date: both differ from run to run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "crawl2chat"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def picture(figure: "Figure", title: str) -> str:
    """A figure as a Markdown image; `title` is what is read aloud or shown where pictures are not."""
    # Base64: an SVG has quotes, brackets and line breaks, which would end the URI in Markdown.
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg(figure).encode()).decode()})"
