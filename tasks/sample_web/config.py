"""What the sample web is made from: apart from what makes it, since every run of the pipeline asks for this and few for that.

Reads and writes nothing.
"""

from pydantic import Field

from model.config import Config


class SampleWebConfig(Config):
    """What the sample web is made from."""

    seed: int = Field(1, ge=0, description="The same seed writes the same bytes.")
    num_articles: int = Field(2400, ge=20, le=100_000, description="Articles; all else comes in proportion to them.")
    num_files: int = Field(8, ge=1, le=1000, description="WARC files that the captures are spread over.")
