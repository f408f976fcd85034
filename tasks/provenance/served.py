"""The training data of models that are served, searched for the words of a reply: what `crawl2chat why-said` prints, for the web page.

Reads the store; makes no index, which takes minutes of a large run. The index of one model serves the models that it was made from: a base
model's reply is looked up in the pages alone, and not in the conversations that the index has as well.
"""

from typing import Any, NamedTuple

from model.errors import UserError
from tasks.artifacts.manifest import Provenance
from tasks.artifacts.store import Store
from tasks.execution.runner import up_to_date
from tasks.provenance.explanation import explain
from tasks.provenance.lineage import Run, find_run, follow, open_text_index, provenance_step
from tasks.provenance.training_data import TrainingData
from tasks.records.full_text import FullTextIndex


class NoIndexError(UserError):
    """The store does not have the index of what a model was trained on."""


class Opened(NamedTuple):
    """What a model was trained on, searchable. `pages`: by their words, where the run has a full-text index."""

    data: TrainingData
    pages: FullTextIndex | None


class Explainer:
    """Explains replies of models, each named by its artifact. Used by one thread, since SQLite's connections are."""

    def __init__(self, store: Store, recipe: str) -> None:
        self.store, self.recipe = store, recipe
        self.opened: dict[str, Opened] = {}

    def explain(self, lineage: str, reply: str, num_spans: int, num_places: int) -> dict[str, Any]:
        """Where a reply of the model comes from, as plain values. Raises NoIndexError where no index holds what it was trained on."""
        if lineage not in self.opened:
            self.opened[lineage] = self._open(lineage)
        return explain(reply, *self.opened[lineage], num_spans, num_places).as_json()

    def _open(self, lineage: str) -> Opened:
        run, newest = self._run(lineage), find_run(self.store, self.recipe)
        index = find_index(self.store, run, newest)
        if index is None:
            # The index of the policy serves the assistant and the base model too, unless they are of an older run.
            name = self.recipe if holds(newest, run) else lineage
            raise NoIndexError(
                f"there is no index of what {lineage} was trained on yet: `crawl2chat why-said {name} TEXT` makes it, once"
            )
        return Opened(TrainingData(self.store, index, run.manifests), open_text_index(self.store, self.recipe, run))

    def _run(self, lineage: str) -> Run:
        try:
            return follow(self.store, lineage)
        except UserError:
            # A bundle from elsewhere is named by its folder.
            raise NoIndexError(
                f"{lineage} is no artifact of {self.store.shown_url}, so what it was trained on is unknown: serve a recipe of this store, "
                "or name the store that made it with CRAWL2CHAT_STORE"
            ) from None


def find_index(store: Store, *runs: Run) -> Provenance | None:
    """The first index of these runs that is finished and holds all that the first of them was trained on."""
    for run in runs:
        step = provenance_step(run)
        if holds(run, runs[0]) and up_to_date(step, store):
            return store.open(step.id, Provenance)
    return None


def holds(run: Run, other: Run) -> bool:
    """Whether the index of a run has all that another was trained on."""
    ours, theirs = ({one.id for one in provenance_step(each).inputs.values()} for each in (run, other))
    return theirs <= ours
