"""The settings of the sample web, apart from its generator: every run imports the settings, few runs import the generator.

Reads and writes nothing.
"""

from pydantic import Field

from model.config import Config


class SampleWebSize(Config):
    """How large the sample web is."""

    num_articles: int = Field(
        2400, ge=20, le=100_000, description="Articles; the number of other pages is proportional."
    )
    num_files: int = Field(8, ge=1, le=1000, description="WARC files that the captures are spread over.")


class SampleWebConfig(SampleWebSize):
    """The settings that the sample web is generated from."""

    seed: int = Field(1, ge=0, description="The same seed writes the same bytes.")
