"""The settings of the sample web, apart from its generator: every run imports the settings, few runs import the generator.

Reads and writes nothing.
"""

from pydantic import Field

from model.config import Config


class SampleWebSize(Config):
    """How large the sample web is, and what its pages state in addition, for experiments (variants.py)."""

    num_articles: int = Field(
        2400, ge=20, le=100_000, description="Articles; the number of other pages is proportional."
    )
    num_files: int = Field(8, ge=1, le=1000, description="WARC files that the captures are spread over.")
    reversed_pages: bool = Field(
        False,
        description="Whether pages also state and ask in the other direction the facts that are stated in one direction only.",
    )
    repeated_passages: bool = Field(
        False, description="Whether some passages stand word for word on one page, on 5 and on 30, to measure recital."
    )
    extra_mentions: int = Field(
        0, ge=0, le=1000, description="So many more pages state each of 30 rare held-out facts, chosen by the seed."
    )


class SampleWebConfig(SampleWebSize):
    """The settings that the sample web is generated from."""

    seed: int = Field(1, ge=0, description="The same seed writes the same bytes.")
