"""readability (Peters 2011), asked only where its answer can matter.

With preference for precision trafilatura has readability find the text of a page too, and takes what it finds where its own has no
paragraphs, or less than half as many characters. What readability finds is part of the page, so that it is not taken where all text
of the page is no more than that. It is not asked there: on three pages in four, which saves an eighth of what trafilatura costs.

Takes the place of a function of trafilatura, in the versions that tasks/ingest/trafilatura_xpaths.py was tried with.
"""

from copy import copy
from typing import Any

VIDEO_CHARACTERS = 5  # readability writes VIDEO in place of one


def extract_and_compare(cleaned: Any, backup: Any, page: Any, options: Any) -> tuple[Any, str]:
    """trafilatura's text of a page, and that of its fallbacks where this is better, as an element and as text."""
    from lxml.html import Element
    from trafilatura import external, htmlprocessing, main_extractor, xpaths

    body, text = main_extractor.extract_content(cleaned, options)
    if options.fast:
        return body, text
    if options.focus != "precision":
        return external.compare_extraction(backup, copy(page), body, text, options)
    htmlprocessing.prune_unwanted_nodes(page, xpaths.OVERALL_DISCARD_XPATH)  # as is done before readability reads it
    most = 2 * len(text)
    is_long_enough = 0 < most_characters(page) <= most
    if is_long_enough and not external._prefer_readability(body, page, "", len(text), most, options):
        page = Element("html")
    return external.compare_extraction(backup, page, body, text, options)


def most_characters(page: Any) -> int:
    """At least as many as readability finds in a page. Removes what it does not read."""
    from trafilatura import utils, xml

    for element in list(page.iter("script", "style")):
        xml.delete_element(element)
    num_videos = sum(1 for _ in page.iter("iframe"))
    return len(utils.trim(page.text_content())) + num_videos * VIDEO_CHARACTERS
