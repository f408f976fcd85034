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

NUM_RESULTS = 2
# Some sentences each: a small model reads 256 tokens in all, a token is about four characters. Of 120 facts that the sample web tells one
# to three times, two results of 280 characters held 87%, two of 190 held 78%, three of 190 held 80%.
PASSAGE_CHARACTERS = 280
MAX_CHARACTERS = 600


def make_tools(search: Callable[[str], Sequence[str]] | None) -> Tools:
    """The tools of a conversation, of those this machine has: without a sandbox no Python, without `search` no search."""
    tools: dict[str, Tool] = {CALCULATOR: calculate}
    if room := find_room():
        tools[PYTHON] = PythonTool(room)
    if search is not None:
        tools[SEARCH] = search_tool(search)
    return Tools(tools, MAX_CHARACTERS)


def search_index(index: FullTextIndex) -> Callable[[str], Sequence[str]]:
    """Search over the documents of a run."""
    return lambda query: [hit.passage for hit in index.search(query, NUM_RESULTS, PASSAGE_CHARACTERS)]


def search_service(url: str, *, allows_private: bool = False) -> Callable[[str], Sequence[str]]:
    """Search by a web service. Raises UserError where the URL is no template."""
    service = ExternalSearch(url, allows_private=allows_private)
    return lambda query: [
        f"{found.title}: {found.text}"[:PASSAGE_CHARACTERS] for found in service.search(query)[:NUM_RESULTS]
    ]
