"""The labelling guidelines: what people read next to the completions, and the version that each of their labels names.

Reads `data/guidelines.md`, or a file that the user names. Writes nothing. Its rules follow InstructGPT's instructions to labellers (Ouyang et al.
2022, appendix B): helpful, truthful, harmless, in plain words.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple, Self

from model.errors import UserError

BUILTIN = Path(__file__).parent / "data/guidelines.md"
MAX_CHARACTERS = 20_000


class Guidelines(NamedTuple):
    """A text and its version, the beginning of its hash: who changes a word has another version."""

    version: str
    text: str

    @classmethod
    def read(cls, path: Path = BUILTIN) -> Self:
        """Raises UserError where the file is missing, empty, too long or not text."""
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"the guidelines {str(path)!r} cannot be read ({error}): name a text file in UTF-8"
            ) from None
        if not 0 < len(text) <= MAX_CHARACTERS:
            limit = f"write 1 to {MAX_CHARACTERS:,}"
            raise UserError(f"the guidelines {str(path)!r} have {len(text):,} characters: {limit}")
        return cls(hashlib.sha256(text.encode()).hexdigest()[:12], text)
