"""Output that follows a grammar: at each step, which tokens can continue it (masked decoding).

Reads and writes nothing. The grammar is over bytes and special tokens, and so independent of how a vocabulary cuts texts. Its automaton is built as it is used: a
state is the set of places where the output may be, each with what has to follow; the tokens that are allowed in a state are found by
walking through the vocabulary as a tree of bytes, once for a state. The idea is that of Willard & Louf 2023
(https://arxiv.org/abs/2307.09702), with a stack in place of a regular expression.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.tokenizer.pieces import Piece

MAX_MASKS = 128  # kept for each grammar, V bytes each
MAX_STATES = 20_000  # of one grammar
MAX_PLACES = 256  # of one state: each byte of the vocabulary's tree is tried at each of them

Node = Any
"""Text, Chars, Special, Seq, Alt or Repeat."""


@dataclass(frozen=True)
class Text:
    """These bytes from `place` on."""

    content: bytes
    place: int = 0


@dataclass(frozen=True)
class Chars:
    """One byte of a set."""

    allowed: frozenset[int]


@dataclass(frozen=True)
class Special:
    """A special token."""

    token: int


@dataclass(frozen=True, eq=False)
class Seq:
    """One after the other. Compared by identity: grammars are trees with shared parts, and comparing them would walk through all of them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Alt:
    """One of several."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """`least` to `most` times; most None: without a bound. The part must not be empty."""

    part: Node
    least: int = 0
    most: int | None = None


def optional(part: Node) -> Node:
    """The part or nothing."""
    return Repeat(part, 0, 1)


# What has to follow: (node, rest), or None at the end of the grammar.
Rest = tuple[Node, Any] | None
# A place in the output: the next byte or special token, as a node, and what has to follow. END: the output may end here.
END: Any = None


class Vocabulary:
    """The tokens of a vocabulary as a tree of bytes: byte -> subtree; a token lies under None."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.tree: dict[Any, Any] = {}
        for token, piece in enumerate(pieces):
            # A token without text would let the output stand still.
            if piece.content:
                place = self.tree
                for byte in piece.content:
                    place = place.setdefault(byte, {})
                place.setdefault(None, []).append(token)


class GrammarTooLarge(Exception):
    """A grammar whose automaton would take too long to build."""


class Grammar:
    """The automaton of a grammar over a vocabulary. Used by the engine's thread alone. All methods may raise GrammarTooLarge."""

    def __init__(self, root: Node, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.places: list[frozenset[Any]] = []  # of each state
        self.numbers: dict[frozenset[Any], int] = {}
        self.moves: list[dict[int, int]] = []  # of each state: symbol -> state; -1 where nothing fits
        self.masks: OrderedDict[int, Tensor] = OrderedDict()
        self.start = self._number(frozenset(_first(root, None)))

    @property
    def is_large(self) -> bool:
        """Whether it has met so many states that a new one should take its place."""
        # Half: those that use it now still need room.
        return len(self.places) > MAX_STATES // 2

    def _number(self, places: frozenset[Any]) -> int:
        if places not in self.numbers:
            if len(places) > MAX_PLACES:
                raise GrammarTooLarge(f"a token could belong to more than {MAX_PLACES} of its branches")
            if len(self.places) >= MAX_STATES:
                raise GrammarTooLarge(f"it has more than {MAX_STATES} states")
            self.numbers[places] = len(self.places)
            self.places.append(places)
            self.moves.append({})
        return self.numbers[places]

    def move(self, state: int, symbol: int) -> int:
        """The state after a byte, or after a special token, which is 256 + its id; -1 where the grammar does not allow it."""
        moves = self.moves[state]
        if symbol not in moves:
            places = frozenset(place for here in self.places[state] if here for place in _after(here, symbol))
            moves[symbol] = self._number(places) if places else -1
        return moves[symbol]

    def may_end(self, state: int) -> bool:
        """Whether the output may end in a state."""
        return END in self.places[state]

    def allowed(self, state: int) -> Tensor:
        """Which tokens may follow in a state: bool [V]."""
        if state not in self.masks:
            mask = torch.zeros(len(self.vocabulary.pieces), dtype=torch.bool)
            mask[list(self._tokens(state))] = True
            self.masks[state] = mask
            if len(self.masks) > MAX_MASKS:
                self.masks.popitem(last=False)
        self.masks.move_to_end(state)
        return self.masks[state]

    def _tokens(self, state: int) -> Iterator[int]:
        yield from (here[0].token for here in self.places[state] if here and isinstance(here[0], Special))
        places = [(state, self.vocabulary.tree)]
        while places:
            here, tree = places.pop()
            for byte, below in tree.items():
                if byte is None:
                    yield from below
                elif (after := self.move(here, byte)) >= 0:
                    places.append((after, below))


def _first(node: Node, rest: Rest) -> Iterator[Any]:
    """The places at the beginning of a node that is followed by `rest`."""
    if isinstance(node, Text) and node.place == len(node.content):
        yield from _resume(rest)
    elif isinstance(node, Seq):
        for part in reversed(node.parts):
            rest = (part, rest)
        yield from _resume(rest)
    elif isinstance(node, Alt):
        for part in node.parts:
            yield from _first(part, rest)
    elif isinstance(node, Repeat):
        if node.least == 0:
            yield from _resume(rest)
        if node.most != 0:
            fewer = Repeat(node.part, max(0, node.least - 1), None if node.most is None else node.most - 1)
            yield from _first(node.part, (fewer, rest))
    else:
        yield node, rest


def _resume(rest: Rest) -> Iterator[Any]:
    if rest is None:
        yield END
    else:
        yield from _first(*rest)


def _after(place: Any, symbol: int) -> Iterator[Any]:
    """The places after a symbol; none where it does not fit."""
    node, rest = place
    if isinstance(node, Text):
        if node.content[node.place] == symbol:
            # A place and not the rest of the text: the states of a long text would hold it as often as it has bytes.
            yield from _first(Text(node.content, node.place + 1), rest)
    elif isinstance(node, Chars):
        if symbol in node.allowed:
            yield from _resume(rest)
    elif node.token + 256 == symbol:
        yield from _resume(rest)


class GrammarMask:
    """The mask of one completion. `end_tokens` end it where the grammar allows."""

    def __init__(self, grammar: Grammar, end_tokens: Sequence[int]) -> None:
        self.grammar, self.end_tokens = grammar, list(end_tokens)
        self.state = grammar.start

    def allowed(self) -> Tensor:
        """Which tokens may come next: bool [V]."""
        mask = self.grammar.allowed(self.state)
        if self.grammar.may_end(self.state) or not mask.any():
            mask = mask.clone()
            mask[self.end_tokens] = True
        return mask

    def accept(self, token: int) -> None:
        """Take the next token."""
        piece = self.grammar.vocabulary.pieces[token]
        for symbol in piece.content or (256 + token,):
            # An end token leads nowhere, and the completion has ended with it.
            if (after := self.grammar.move(self.state, symbol)) >= 0:
                self.state = after
