"""Where words begin and end, in bytes of UTF-8. Reads and writes nothing.

A span of a text is a run of bytes between two places where a word may begin or end, so that "cat" is not found in "category". What a
character is follows from its first byte: letters, digits and "_" make words; ideographs, kana and characters beyond the basic plane are a
word each, since no blank separates them. Departure from Unicode: a block of characters has one class. So "×" counts as a letter, and a
full stop of Chinese as an ideograph; what is found stands in the text all the same.
"""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
MARK, LETTER, ALONE, INNER = range(4)  # INNER: not the first byte of a character
# Between documents: this byte occurs in no text of UTF-8, so no span crosses it.
SEPARATOR = 0xFF
# First bytes of letters, from and up to: digits, capitals, "_", small letters, two-byte letters, Indic to Georgian, Yi to Hangul and forms
LETTERS = ((0x30, 0x3A), (0x41, 0x5B), (0x5F, 0x60), (0x61, 0x7B), (0xC3, 0xE2), (0xEA, 0xF0))


def _classes() -> Bytes:
    classes = np.full(256, MARK, np.uint8)
    classes[0x80:0xC0] = INNER
    for first, stop in LETTERS:
        classes[first:stop] = LETTER
    classes[0xE3:0xEA] = ALONE
    classes[0xF0:0xF8] = ALONE
    return classes


CLASSES = _classes()


def character_classes(text: Bytes) -> Bytes:
    """The class of the character that each byte belongs to: [N] bytes -> [N]."""
    classes = CLASSES[text]
    # A character has at most three bytes after its first.
    for _ in range(3):
        inner = np.flatnonzero(classes[1:] == INNER) + 1
        if not len(inner):
            break
        classes[inner] = classes[inner - 1]
    return classes


def word_starts(text: Bytes) -> npt.NDArray[np.bool_]:
    """Whether a word begins at each byte: [N] -> [N]."""
    classes = character_classes(text)
    before = np.concatenate([[np.uint8(MARK)], classes[:-1]])
    is_first = CLASSES[text] != INNER
    starts_word: npt.NDArray[np.bool_] = is_first & ((classes == ALONE) | ((classes == LETTER) & (before != LETTER)))
    return starts_word


def ends(text: bytes) -> list[int]:
    """The places in a text before which a span may end: after each word and each mark that is no blank."""
    array = np.frombuffer(text, np.uint8)
    classes = character_classes(array)
    after = np.concatenate([classes[1:], [np.uint8(MARK)]])
    # The last byte of a character: another one begins after it.
    is_last = np.concatenate([CLASSES[array][1:] != INNER, [True]])
    is_open = (classes == LETTER) & (after == LETTER)
    is_blank = (array == 0x20) | ((array >= 0x09) & (array <= 0x0D))
    return [int(place) + 1 for place in np.flatnonzero(is_last & ~is_open & ~is_blank)]


def starts(text: bytes) -> list[int]:
    """The places in a text at which its words begin."""
    return [int(place) for place in np.flatnonzero(word_starts(np.frombuffer(text, np.uint8)))]


def ends_in_letter(text: bytes) -> bool:
    """Whether a letter that follows would belong to the last word."""
    # The first byte of the last character says what it is.
    return next((CLASSES.item(byte) == LETTER for byte in reversed(text[-4:]) if CLASSES.item(byte) != INNER), False)
