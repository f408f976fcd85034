"""The relations of the world, as data/relations has them: kinds of entity, statements, and the wordings of questions.

Reads data/relations/*.yaml, whose head explains the notation; writes nothing. The files are checked when they are read, so that a wrong
field is named there and not by a page that lacks it.
"""

from pydantic import Field

from model.config import Config
from tasks.sample_web.data import table


class Asking(Config):
    """The wordings of a relation's questions in one direction. Those called heldout occur in the evaluation alone."""

    answer: str = Field(description="A sentence that ends in the answer.")
    asks: list[str] = Field(min_length=1, description="Questions without the question mark.")
    clauses: list[str] = Field(min_length=1, description='The same after "tell me".')
    keywords: list[str] = Field(min_length=1, description="The same as typed into a search box.")
    heldout_asks: list[str] = Field(min_length=1)
    heldout_clauses: list[str] = Field(min_length=1)
    heldout_keywords: list[str] = Field(min_length=1)


class Relation(Config):
    """One kind of fact."""

    name: str
    subject: str = Field(description="The kind of entity that has such a fact.")
    object: str = Field(description='A kind of entity or of value; "woman" is a person whose pronoun is she.')
    share: float = Field(1.0, gt=0.0, le=1.0, description="Subjects with such a fact, of all of their kind.")
    label: str = Field(description="The name of the relation in an infobox.")
    statements: list[str] = Field(min_length=1)
    forward: Asking
    reversed_statements: list[str] = Field([])
    is_one_way: bool = Field(
        False, description="Whether the reversed statements are left out unless the sample web has reversed pages."
    )
    backward: Asking | None = Field(None, description="With it, an object belongs to one subject only.")

    @property
    def is_stated_both_ways(self) -> bool:
        """Whether the web names the object first, too, unless a setting changes that."""
        return bool(self.reversed_statements) and not self.is_one_way

    def asking(self, is_backward: bool) -> Asking:
        """The wordings of one direction."""
        return self.backward if is_backward and self.backward else self.forward


RELATIONS = {name: Relation.model_validate({"name": name, **fields}) for name, fields in table("relations").items()}
