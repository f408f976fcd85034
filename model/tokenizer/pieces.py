"""What each token of a vocabulary stands for: its bytes, or the name of a special token. Reads and writes nothing."""

from typing import NamedTuple

from model.tokenizer.chat import ChatTokenizer
from model.tokenizer.vocabularies import byte_of_character


class Piece(NamedTuple):
    """The bytes that a token adds to a text, none for a special one, and how it is shown."""

    content: bytes
    name: str
    is_special: bool


def token_pieces(tokenizer: ChatTokenizer) -> list[Piece]:
    """The piece of each token [V]. An id without a token, in a vocabulary with gaps, is special and without a name."""
    byte_of = byte_of_character()
    added = tokenizer.encoder.get_added_tokens_decoder()
    pieces = [Piece(b"", "", True)] * tokenizer.vocab_size
    for name, token in tokenizer.encoder.get_vocab().items():
        if token not in added:
            # A byte-level alphabet writes every byte as one character.
            content = bytes(byte_of[character] for character in name)
            pieces[token] = Piece(content, content.decode("utf-8", "replace"), False)
        else:
            is_special = added[token].special
            pieces[token] = Piece(b"" if is_special else name.encode(), name, is_special)
    return pieces
