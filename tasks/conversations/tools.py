"""The tools that conversations offer: calculator, Python, and search over a run's own index or by a web service.

Reads the index of a run, or asks a service; writes nothing. One definition for the conversations that teach tools, the evaluation and the
chat: a model must read the results in the form in which it learned to.
"""

from collections.abc import Callable, Sequence

from model.tools.calculator import calculate
from model.tools.python import PythonTool, find_room
from model.tools.registry import CALCULATOR, PYTHON, SEARCH, Tool, Tools
from tasks.records.full_text import FullTextIndex, search_tool
from tasks.web.external_search import ExternalSearch

# The answers about the 154 facts that the sample web states one to three times are in five sentences, 310 characters on average, in 94%; in three in
# 88%, in four in 92%, in six in 95%, and in the passages around the best sentences of two pages, 400 characters, in 86%.
NUM_SENTENCES, SENTENCE_CHARACTERS = 5, 140
NUM_RESULTS, PASSAGE_CHARACTERS = 2, 280  # of whole passages and of a web service
MAX_CHARACTERS = 600


def make_tools(search: Callable[[str], Sequence[str]] | None) -> Tools:
    """The tools of a conversation, of those this machine has: without a sandbox no Python, without `search` no search."""
    tools: dict[str, Tool] = {CALCULATOR: calculate}
    if room := find_room():
        tools[PYTHON] = PythonTool(room)
    if search is not None:
        tools[SEARCH] = search_tool(search)
    return Tools(tools, MAX_CHARACTERS)


def search_index(index: FullTextIndex, num: int = NUM_SENTENCES) -> Callable[[str], Sequence[str]]:
    """Search over the documents of a run: the sentences that answer best, since a small model reads 256 tokens in all."""
    return lambda query: index.sentences(query, num, SENTENCE_CHARACTERS)


def search_passages(index: FullTextIndex) -> Callable[[str], Sequence[str]]:
    """The same with some sentences in a row of each page, as web services give them."""
    return lambda query: [hit.passage for hit in index.search(query, NUM_RESULTS, PASSAGE_CHARACTERS)]


def search_service(url: str, *, allows_private: bool = False) -> Callable[[str], Sequence[str]]:
    """Search by a web service. Raises UserError where the URL is no template."""
    service = ExternalSearch(url, allows_private=allows_private)
    return lambda query: [
        f"{found.title}: {found.text}"[:PASSAGE_CHARACTERS] for found in service.search(query)[:NUM_RESULTS]
    ]
